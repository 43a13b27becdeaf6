"""Bins of a normal against scipy's tails in double precision, in the middle and as far out as float32 goes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erfcx, log_ndtr, logsumexp, ndtr

import vi_kit.kl as kl

GRID = (2 * np.arange(256) / 255 - 1).astype(np.float32)
compute = jax.jit(jax.vmap(jax.value_and_grad(kl.discretized_normal_log_prob, argnums=(1, 2)), in_axes=(0, None, None)))


def log_difference(low, high):
    """log(Φ(high) − Φ(low)) in double precision, for low < high ≤ −low."""
    mills = lambda x: np.sqrt(np.pi / 2) * erfcx(x / np.sqrt(2))  # noqa: E731
    density = lambda x: -0.5 * x**2 - 0.5 * np.log(2 * np.pi)  # noqa: E731
    width, center = high - low, 0.5 * (high + low)
    with np.errstate(all="ignore"):  # in the branches that are not taken
        tail = density(high) + np.log(mills(-high) - np.exp(width * center) * mills(-low))
        narrow = density(center) + np.log(width) + np.log1p((center**2 - 1) * width**2 / 24)
        middle = np.log(ndtr(high) - ndtr(low))
    return np.where(width * np.maximum(1, -center) < 1e-3, narrow, np.where(high < -1, tail, middle))


def exact(x, mean, log_scale):
    x, mean, log_scale = (np.asarray(v, np.float64) for v in (x, mean, log_scale))
    precision, half = np.exp(-log_scale), 1 / 255
    distance = np.abs(x - mean)
    inner = log_difference(-(distance + half) * precision, (half - distance) * precision)
    first, last = log_ndtr((x - mean + half) * precision), log_ndtr((mean - x + half) * precision)
    return np.where(x < -0.999, first, np.where(x > 0.999, last, inner))


@pytest.mark.parametrize("log_scale", [-9.0, -7.0, -6.0, -5.0, -4.0, -2.0, 0.0, 2.0])
@pytest.mark.parametrize("mean", [-1.3, 0.0, 0.31, 1.0])
def test_every_bin_and_its_gradient(mean, log_scale):
    """DDPM's code takes log(max(Φ − Φ, 1e-12)): at most −27.6 in a tail, without a gradient."""
    mean, log_scale = np.float32(mean), np.float32(log_scale)
    values, gradients = compute(GRID, mean, log_scale)
    expected = exact(GRID, mean, log_scale)
    np.testing.assert_array_less(np.abs(values - expected), 2e-6 * np.maximum(1, np.abs(expected)))
    step = 1e-6
    for found, shift in zip(gradients, ((step, 0), (0, step)), strict=True):
        up, down = (exact(GRID, np.float64(mean) + s * shift[0], np.float64(log_scale) + s * shift[1]) for s in (1, -1))
        slope = (up - down) / (2 * step)
        rounding = 1e-15 * np.abs(expected) / step + 1e-9
        np.testing.assert_array_less(np.abs(found - slope), 1e-4 * np.abs(slope) + rounding + 1e-4)


@pytest.mark.parametrize("log_scale", [-40.0, -6.0, -1.0, 3.0, 40.0])
def test_probabilities_sum_to_one(log_scale):
    values, _ = compute(GRID, np.float32(0.31), np.float32(log_scale))
    np.testing.assert_allclose(logsumexp(np.asarray(values, np.float64)), 0.0, atol=1e-6)
    assert np.all(np.isfinite(values))


def test_two_bins_are_a_probit():
    values = kl.discretized_normal_log_prob(jnp.array([-1.0, 1.0]), 0.4, 0.2, num_bins=2)
    np.testing.assert_allclose(values, log_ndtr(np.array([-0.4, 0.4]) * np.exp(-0.2)), rtol=1e-6)


def test_dtypes_forward_mode_and_wrong_inputs():
    assert kl.discretized_normal_log_prob(jnp.zeros(2, jnp.bfloat16), 0.0, 0.0).dtype == jnp.float32
    point = (jnp.float32(0.3), jnp.float32(-3.0))
    bin_of = lambda m, s: kl.discretized_normal_log_prob(GRID[40], m, s)  # noqa: E731
    hessian = jax.jit(jax.hessian(bin_of, argnums=(0, 1)))(*point)
    assert np.all(np.isfinite(np.asarray(hessian)))
    forward, backward = jax.jit(lambda *v: (jax.jacfwd(bin_of)(*v), jax.grad(bin_of)(*v)))(*point)
    np.testing.assert_allclose(forward, backward, rtol=1e-6)
    with pytest.raises(TypeError, match="x: expected floating-point numbers, got uint8"):
        kl.discretized_normal_log_prob(jnp.zeros(2, jnp.uint8), 0.0, 0.0)
    with pytest.raises(ValueError, match="num_bins: expected at least 2, got 1"):
        kl.discretized_normal_log_prob(0.0, 0.0, 0.0, num_bins=1)


def test_double_precision(x64):
    values = kl.discretized_normal_log_prob(jnp.asarray(GRID, jnp.float64), 0.31, -3.0)
    np.testing.assert_allclose(values, exact(GRID, 0.31, -3.0), rtol=1e-7)
