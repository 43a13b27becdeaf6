"""Iterate averaging: the weights, exactly; what is and is not counted; less noise at a constant rate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import gammaln

import vi_kit as vk

FAMILY = vk.families.MeanField(2)
START = FAMILY.init(jax.random.key(0), mean=jnp.array([2.0, -2.0]))
DESCENT = vk.algorithms.GradientDescent(
    vk.objectives.ReverseKL(FAMILY, vk.estimators.pathwise, num_samples=2), optax.sgd, learning_rate=0.1
)


def target():
    return vk.make_target(lambda x: -0.5 * jnp.sum(x**2), 2)


def iterates(algorithm, key, num_steps):
    """Run the algorithm inside with the very steps of `vk.optimize`."""
    states = [vk.optimize(jax.random.clone(key), target(), algorithm, START, num_steps=1)]
    for _ in range(num_steps - 1):
        states.append(vk.optimize(jax.random.key(9), target(), algorithm, START, num_steps=1, state=states[-1].state))
    return [fit.params for fit in states]


@pytest.mark.parametrize("power", [0, 0.5, 3.0])
def test_the_average_has_the_stated_weights(power, key):
    """Weight of iterate k ∝ Γ(k + a) / Γ(k), the plain mean for a = 0; the steps are those of the algorithm inside."""
    algorithm = vk.algorithms.IterateAveraging(DESCENT, power)
    averaged = vk.optimize(jax.random.clone(key), target(), algorithm, START, num_steps=7)
    path = iterates(DESCENT, key, 7)
    np.testing.assert_array_equal(averaged.state.algorithm_state.algorithm_state.params.mean, path[-1].mean)
    k = np.arange(1, 8)
    weights = np.exp(gammaln(k + power) - gammaln(k))
    for name in ("mean", "log_scale"):
        values = np.stack([getattr(p, name) for p in path])
        expected = np.average(values, axis=0, weights=weights)
        np.testing.assert_allclose(getattr(averaged.params, name), expected, rtol=1e-5, atol=1e-6)
        if power:
            assert np.abs(expected - values.mean(axis=0)).max() > 1e-3


def test_before_the_first_step_it_is_the_start(key):
    fit = vk.optimize(key, target(), vk.algorithms.IterateAveraging(DESCENT), START, num_steps=0)
    np.testing.assert_array_equal(fit.params.mean, START.mean)


def test_a_step_that_is_not_finite_is_not_counted(key):
    bad = vk.make_target(lambda x: jnp.where(x[0] > 1e9, 0.0, jnp.nan) * jnp.sum(x), 2)
    fit = vk.optimize(key, bad, vk.algorithms.IterateAveraging(DESCENT), START, num_steps=3)
    assert int(fit.state.algorithm_state.num_averaged) == 0
    np.testing.assert_array_equal(fit.params.mean, START.mean)


def test_at_a_constant_rate_the_average_is_nearer_than_the_iterates(key):
    """Means of 64 runs from the optimum: iterates stay at a distance, averages of 500 do not."""
    algorithm = vk.algorithms.IterateAveraging(DESCENT)
    start = FAMILY.init(jax.random.key(0))

    def one(key):
        fit = vk.optimize(key, target(), algorithm, start, num_steps=500)
        last = fit.state.algorithm_state.algorithm_state.params
        return jnp.sum(fit.params.mean**2), jnp.sum(last.mean**2)

    averaged, last = jax.vmap(one)(jax.random.split(key, 64))
    # E|mean|² of 2 coordinates: SGD on a quadratic at rate r has noise r² v / (1 − (1 − r)²), v = 1/2 of 2 draws.
    np.testing.assert_allclose(np.mean(last), 2 * 0.1**2 * 0.5 / (1 - 0.9**2), rtol=0.6)
    assert np.mean(averaged) < 0.25 * np.mean(last)


def test_any_algorithm_may_be_inside(key):
    """Batch and match on its own target, with another family's parameters; no objective is claimed where none is."""
    inside = vk.algorithms.BatchAndMatch(vk.families.FullRank(2))
    algorithm = vk.algorithms.IterateAveraging(inside)
    assert algorithm.family is inside.family
    assert algorithm.evaluations(target()) == inside.evaluations(target())
    assert getattr(algorithm, "objective", None) is None
    assert vk.algorithms.IterateAveraging(DESCENT).objective is DESCENT.objective
    start = inside.family.init(jax.random.key(0), mean=jnp.ones(2))
    fit = vk.optimize(key, target(), algorithm, start, num_steps=20)
    np.testing.assert_allclose(fit.params.mean, 0, atol=0.1)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: vk.algorithms.IterateAveraging(FAMILY), TypeError, "algorithm: expected one of vi_kit.algorithms"),
        (lambda: vk.algorithms.IterateAveraging(DESCENT, -1.0), ValueError, "power: expected a number at least 0"),
        (lambda: vk.algorithms.IterateAveraging(DESCENT, "last"), TypeError, "power: expected one number"),
    ],
)
def test_arguments_are_checked(build, error, message):
    with pytest.raises(error, match=message):
        build()
