"""Power means of weights: against scipy, near power 0, and where weights are 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from vi_kit.estimators._power_mean import power_mean, tilted

VALUES = np.array([0.3, -2.0, 1.1, -0.4])
SHARES = np.array([0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("shares", [None, SHARES], ids=["equal", "shared"])
@pytest.mark.parametrize("power", [2.0, 1.0, 0.5, -1.0, -3.0])
def test_is_the_log_of_a_power_mean(power, shares, x64):
    counts = np.full(4, 0.25) if shares is None else shares
    log_shares = None if shares is None else jnp.log(jnp.asarray(shares))
    expected = logsumexp(power * VALUES, b=counts) / power
    np.testing.assert_allclose(power_mean(jnp.asarray(VALUES), power, log_shares), expected, rtol=1e-12)
    gradient = jax.grad(lambda v: power_mean(v, power, log_shares))(jnp.asarray(VALUES))
    weights = counts * np.exp(power * VALUES)
    np.testing.assert_allclose(gradient, weights / weights.sum(), rtol=1e-12)
    if shares is None:
        np.testing.assert_allclose(tilted(jnp.asarray(VALUES), power), gradient, rtol=1e-12)


def test_power_zero_is_the_mean_and_small_powers_are_near_it():
    """In float32, where the plain formula divides rounding by the power."""
    values = jnp.asarray(VALUES, jnp.float32)
    both = jax.jit(jax.value_and_grad(power_mean))
    for power in (0.0, 1e-9, -1e-9, 1e-6):
        value, gradient = both(values, power)
        np.testing.assert_allclose(value, VALUES.mean(), rtol=1e-5)
        np.testing.assert_allclose(gradient, 0.25, rtol=1e-5)
    np.testing.assert_allclose(power_mean(values, 1e-3), VALUES.mean() + 0.5e-3 * VALUES.var(), rtol=2e-6)


def test_weights_far_apart_keep_their_digits():
    values = jnp.concatenate([jnp.zeros(1), jnp.full(9_999, -60.0)])
    np.testing.assert_allclose(power_mean(values, 1.0), -np.log(10_000), rtol=1e-6)
    np.testing.assert_allclose(power_mean(jnp.array([500.0, 499.0]), 2.0), 500 + 0.5 * np.log(0.5 * (1 + np.exp(-2))))


def test_weights_of_zero_count_as_zero():
    values = jnp.array([0.3, -jnp.inf])
    value, gradient = jax.value_and_grad(power_mean)(values, 1.0)
    np.testing.assert_allclose(value, 0.3 - np.log(2), rtol=1e-6)
    np.testing.assert_array_equal(gradient, [1.0, 0.0])
    assert power_mean(jnp.array([-jnp.inf, -jnp.inf]), 1.0) == -jnp.inf
    assert power_mean(jnp.array([0.0, -jnp.inf]), 0.0) == -jnp.inf
    assert jnp.isnan(power_mean(jnp.array([jnp.nan, 0.0]), 1.0))
