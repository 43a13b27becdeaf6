"""Wasserstein distances between Gaussians: against 40 digits, near equality too."""

import distrax
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from vi_kit.divergences import wasserstein2, wasserstein2_squared
from vi_kit.divergences.distributions import Laplace, MultivariateNormal, Normal

SIZE = 3


def precise(p_loc, p_factor, q_loc, q_factor):
    """Return ‖Δm‖² + ‖L_p‖² + ‖L_q‖² − 2 ‖L_qᵀ L_p‖_nuclear."""
    with mpmath.workdps(40):
        p, q = (mpmath.matrix(np.asarray(v, float).tolist()) for v in (p_factor, q_factor))
        singular = mpmath.svd_r(q.T * p, compute_uv=False)
        squares = sum(x * x for x in p) + sum(x * x for x in q)
        shift = sum(mpmath.mpf(x) ** 2 for x in np.subtract(np.asarray(p_loc, float), np.asarray(q_loc, float)))
        return float(shift + squares - 2 * sum(singular))


def factors(key, changes):
    """Return Cholesky factors and neighbors of them that differ by these relative changes."""
    first, second = jax.random.normal(key, (2, len(changes), SIZE, SIZE))
    left = jnp.tril(0.5 * first) + 2 * jnp.eye(SIZE)[None]
    return left, left * (1 + jnp.array(changes)[:, None, None] * jnp.tanh(second))


@pytest.mark.slow
def test_near_and_far(key):
    changes = [0.9, 0.1, 1e-2, 2e-3, 1e-3, 1e-4, 1e-5, 1e-6]
    left, right = factors(key, changes)
    loc = jnp.zeros((len(changes), SIZE))

    def value(left, right):
        return wasserstein2_squared(MultivariateNormal(loc, left), MultivariateNormal(loc, right))

    found, pull = jax.vjp(value, left, right)
    np.testing.assert_allclose(
        found, [precise(loc[0], a, loc[0], b) for a, b in zip(left, right, strict=True)], rtol=1e-3
    )
    slopes = pull(jnp.ones(len(changes)))[0]
    step = np.zeros((SIZE, SIZE))
    step[1, 0] = 1e-7
    for i in (0, 3, 6):
        sides = [precise(loc[0], np.asarray(left[i], float) + s * step, loc[0], right[i]) for s in (1, -1)]
        np.testing.assert_allclose(slopes[i, 1, 0], (sides[0] - sides[1]) / 2e-7, rtol=2e-3)


def test_equal_ones():
    loc = jnp.ones(SIZE)
    factor = same = jnp.eye(SIZE) + 0.3 * jnp.tril(jnp.ones((SIZE, SIZE)))

    def value(factor, function):
        return function(MultivariateNormal(loc, factor), MultivariateNormal(loc, same))

    for function in (wasserstein2, wasserstein2_squared):
        found, slope = jax.value_and_grad(value)(factor, function)
        assert found == 0
        np.testing.assert_array_equal(slope, jnp.zeros_like(slope))


def test_kinds_mix_and_batches_broadcast():
    diagonal = distrax.MultivariateNormalDiag(jnp.zeros((4, 1, 2)), jnp.array([1.0, 2.0]))
    dense = MultivariateNormal(jnp.array([[3.0, 0.0], [0.0, 0.0]]), jnp.diag(jnp.array([1.0, 6.0])))
    np.testing.assert_allclose(wasserstein2(diagonal, dense), np.tile([5.0, 4.0], (4, 1)), rtol=1e-6)
    np.testing.assert_allclose(wasserstein2(Normal(0.0, 1.0), Normal(jnp.array([3.0, 0.0]), 5.0)), [5.0, 4.0])


def test_what_is_not_gaussian_is_refused():
    with pytest.raises(
        NotImplementedError, match="wasserstein2: expected two Gaussians, got p a Normal and q a Laplace"
    ):
        wasserstein2(Normal(0.0, 1.0), Laplace(0.0, 1.0))
    with pytest.raises(ValueError, match=r"q\.scale: expected positive numbers"):
        wasserstein2(Normal(0.0, 1.0), Normal(0.0, 0.0))


def test_double_precision(x64):
    p, q = (
        MultivariateNormal(jnp.zeros(2), jnp.array(v)) for v in ([[1.0, 0.0], [0.5, 2.0]], [[0.5, 0.0], [-1.0, 1.0]])
    )
    np.testing.assert_allclose(
        wasserstein2_squared(p, q), precise([0, 0], p.scale_tril, [0, 0], q.scale_tril), rtol=1e-12
    )
