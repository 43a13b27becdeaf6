"""KL between beta, uniform and Pareto distributions, by way of the uniform one on (0, 1), which is Beta(1, 1)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit.divergences._bounded import even, least_zero, line_of
from vi_kit.divergences._dirichlet import beta_beta
from vi_kit.divergences._support import where_contained
from vi_kit.divergences.distributions import Beta, ContinuousBernoulli, Pareto, Uniform
from vi_kit.kl._compensated import log_ratio


def beta_uniform(p: Beta, q: Uniform) -> Array:
    """Return KL of a beta from a uniform distribution, by way of the uniform one on (0, 1)."""
    one = jnp.ones_like(p.concentration1)
    left, right = -q.low, q.high - 1
    value = beta_beta(p, Beta(one, one)) + jnp.log1p(least_zero(left) + least_zero(right))
    return where_contained(value, left, right)


def beta_continuous_bernoulli(p: Beta, q: ContinuousBernoulli) -> Array:
    """Return KL of a beta from a continuous Bernoulli distribution, by way of the uniform one."""
    one = jnp.ones_like(p.concentration1)
    _, _, slope = line_of(q)
    point = jnp.isinf(slope)
    eta = jnp.where(point, jnp.zeros_like(slope), slope)
    shift = eta * (p.concentration0 - p.concentration1) / (2 * (p.concentration0 + p.concentration1))
    return where_contained(
        beta_beta(p, Beta(one, one)) + (even(eta) + shift), jnp.where(point, -jnp.abs(slope), jnp.zeros_like(slope))
    )


def _mean_log(low: Array, high: Array, unit: Array) -> Array:
    """Return 1 + the mean of log(x / unit) for x uniform from low ≥ 0 to high."""
    smallest = jnp.full_like(low, np.finfo(low.dtype).tiny)
    near, series = high - low < 0.1 * low, jnp.zeros_like(low)
    small = jnp.where(near, high - low, series) / jnp.where(near, low, jnp.ones_like(low))
    for k in range(7 if low.dtype.itemsize <= 4 else 16, 0, -1):  # log(1 + r) / r, whose gradient keeps its digits
        series = 1 / k - small * series
    far = low * log_ratio(high, jnp.maximum(low, smallest)) / (high - low)
    return log_ratio(high, unit) + jnp.where(near, series, far)


def uniform_beta(p: Uniform, q: Beta) -> Array:
    """Return KL of a uniform from a beta distribution, by way of the uniform one on (0, 1)."""
    one = jnp.ones_like(p.low)
    inside = (p.low >= 0) & (p.high <= 1)
    low, high = jnp.where(inside, p.low, jnp.zeros_like(one)), jnp.where(inside, p.high, one)
    rest = low + (1 - high)
    wide = rest < 0.5
    log_width = jnp.log(jnp.where(wide, one, high - low)) + jnp.log1p(-jnp.where(wide, rest, jnp.zeros_like(one)))
    value = beta_beta(Beta(one, one), q) - log_width
    value = value - (q.concentration1 - 1) * _mean_log(low, high, one)
    value = value - (q.concentration0 - 1) * _mean_log(1 - high, 1 - low, one)
    return where_contained(value, p.low, 1 - p.high)


def uniform_pareto(p: Uniform, q: Pareto) -> Array:
    """Return KL of a uniform from a Pareto distribution."""
    margin = p.low - q.scale
    low = jnp.where(margin >= 0, p.low, q.scale)
    high = jnp.where(margin >= 0, p.high, 2 * q.scale)
    mean_log = _mean_log(low, high, q.scale) - 1
    value = (q.concentration + 1) * mean_log - jnp.log(q.concentration) - jnp.log((high - low) / q.scale)
    return where_contained(value, margin)
