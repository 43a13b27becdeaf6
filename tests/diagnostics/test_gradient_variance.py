"""The comparison of gradient estimators: variances that are known, and what is compared."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quadrature_problem import Pair
from quadrature_problem import start as start_pair

import vi_kit as vk
from vi_kit.diagnostics import gradient_variance

TARGET = vk.make_target(lambda x: -0.5 * jnp.sum((x - 1.0) ** 2), 2)
FAMILY = vk.families.MeanField(2)
SCALE = 0.5
NUM = 2_000


def test_variances_are_the_exact_ones(key):
    """For q = N(0, s²) and p = N(1, 1): a coordinate's pathwise gradients are s ε − 1 and (s ε − 1) s ε − 1."""
    params = FAMILY.init(jax.random.key(0), scale=SCALE)
    objective = vk.objectives.ReverseKL(FAMILY, num_samples=4)
    found = gradient_variance(key, TARGET, objective, params, num_repeats=NUM)
    s = SCALE
    pathwise = 2 * (s**2 + 2 * s**4 + s**2) / 4
    path = s - 1 / s  # (z − 1) − z / s²: the score of log q is left out
    sticking = 2 * (path**2 + 2 * (s * path) ** 2 + s**2) / 4
    for name, exact in {
        "pathwise": pathwise,
        "closed_form_entropy": pathwise,
        "sticking_the_landing": sticking,
    }.items():
        estimate = found.estimators[name].variance
        assert abs(estimate.value - exact) < 5 * estimate.standard_error
        assert estimate.standard_error < exact / 5
        assert found.estimators[name].evaluations == 4
    gradient = np.array([-1, -1, s**2 - 1, s**2 - 1])
    np.testing.assert_allclose(found.estimators["pathwise"].norm, np.linalg.norm(gradient), rtol=0.05)
    variances = [row.variance.value for row in found.estimators.values()]
    assert variances == sorted(variances)
    assert list(found.estimators)[-1] == "score_function"
    assert "sticking_the_landing" in str(found)
    assert "signal / noise" in str(found)


def test_what_is_valid_is_compared(key):
    first, second, third = jax.random.split(key, 3)
    mixture = gradient_variance(first, TARGET, Pair(), start_pair(Pair()), num_repeats=8)
    assert set(mixture.estimators) == {"stratified", "score_function"}
    bound = vk.objectives.ImportanceWeighted(FAMILY)
    asked = (vk.estimators.pathwise, vk.estimators.antithetic(vk.estimators.pathwise))
    found = gradient_variance(second, TARGET, bound, FAMILY.init(key), estimators=asked, num_repeats=8)
    assert set(found.estimators) == {"pathwise", "antithetic(pathwise)"}
    with pytest.raises(ValueError, match="sticking_the_landing is biased where the objective is the logarithm"):
        gradient_variance(third, TARGET, bound, FAMILY.init(key), estimators=(vk.estimators.sticking_the_landing,))


@pytest.mark.parametrize("objective", [3, vk.objectives.ChiSquare(FAMILY)])
def test_objectives_without_a_choice_are_refused(objective, key):
    with pytest.raises(TypeError, match="objective: expected one with a choice of estimators, or a family, got"):
        gradient_variance(key, TARGET, objective, FAMILY.init(jax.random.key(0)))
