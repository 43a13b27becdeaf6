"""Log densities that take more than a line, right in float32 where they are concentrated."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit.kl._compensated import expm1_minus, log_ratio

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def exp(x: Array) -> Array:
    """Return eˣ, with derivative 0 where it overflows: such a density is 0, not NaN, to first order."""
    fits = x < (88 if x.dtype.itemsize <= 4 else 709)
    return jnp.where(fits, jnp.exp(jnp.where(fits, x, jnp.zeros_like(x))), jnp.inf)


def log(x: Array) -> Array:
    """Return log x; −∞ with derivative 0 at 0 and below."""
    some = x > 0
    return jnp.where(some, jnp.log(jnp.where(some, x, jnp.ones_like(x))), -jnp.inf)


def stirling(x: Array) -> Array:
    """Return lgamma(x) − x log x + x without cancellation."""
    large = x > 10
    y = 1 / jnp.where(large, x, jnp.full_like(x, 10))
    tail = 1 / 1260 - y * y * (1 / 1680 - y * y * (1 / 1188 - y * y * (691 / 360360 - y * y / 156)))
    series = HALF_LOG_2PI + 0.5 * jnp.log(y) + y * (1 / 12 - y * y * (1 / 360 - y * y * tail))
    small = jnp.where(large, jnp.ones_like(x), x)
    return jnp.where(large, series, jax.lax.lgamma(small) - small * jnp.log(small) + small)


def log_factorial(n: Array) -> Array:
    """Return log n! − n log n + n, which is 0 at 0."""
    some = n > 0
    safe = jnp.where(some, n, jnp.ones_like(n))
    return jnp.where(some, stirling(safe) + jnp.log(safe), jnp.zeros_like(n))


def deviance(k: Array, mean: Array) -> Array:
    """Return k log(k / mean) − k + mean ≥ 0."""
    some = (k > 0) & (mean > 0)
    one = jnp.ones_like(mean)
    ratio = log_ratio(jnp.where(some, mean, one), jnp.where(some, k, one))
    rest = jnp.where(k > 0, jnp.full_like(mean, jnp.inf), mean)
    return jnp.where(some, k * expm1_minus(ratio), rest)


def log_gamma(a: Array, rate: Array, y: Array) -> Array:
    """Return log of y times the Gamma density at y."""
    ratio = rate * y / a
    near = (ratio > 0.5) & (ratio < 2)
    far = jnp.log(rate) + log(jnp.where(near, jnp.ones_like(y), y)) - jnp.log(a)
    some = far > -jnp.inf
    logarithm = jnp.where(near, jnp.log1p(jnp.where(near, (rate * y - a) / a, 0 * y)), jnp.where(some, far, 0 * far))
    return jnp.where(some, -a * excess(logarithm) - stirling(a), -jnp.inf)


def excess(x: Array) -> Array:
    """Return eˣ − 1 − x where eˣ may overflow."""
    near = x < 1
    return jnp.where(near, expm1_minus(jnp.where(near, x, jnp.zeros_like(x))), exp(x) - 1 - x)


def odds(p: Any) -> tuple[Array, Array]:
    """Return a probability and its complement."""
    if p.logits is not None:
        return jax.nn.sigmoid(p.logits), jax.nn.sigmoid(-p.logits)
    return p.probs, 1 - p.probs


def beta(p: Any, x: Array, left: Array, right: Array) -> Array:
    a, b = p.concentration1, p.concentration0
    n = a + b
    some = (left > 0) & (right > 0)
    half = jnp.full_like(left, 0.5)
    left, right = jnp.where(some, left, half), jnp.where(some, right, half)
    # In units of the mean (a / n, b / n): what the two excesses leave out sums to 0.
    first, second = log_ratio(left, a / n + 0 * left), log_ratio(right, b / n + jnp.zeros_like(right))
    constant = stirling(n) - stirling(a) - stirling(b)
    value = constant - a * excess(first) - b * excess(second) - jnp.log(left) - jnp.log(right)
    return jnp.where(some, value, -jnp.inf)


def student(p: Any, x: Array, left: Array, right: Array) -> Array:
    half, z = p.df / 2, (x - p.loc) / p.scale
    constant = (half + 0.5) * jnp.log1p(0.5 / half) - 0.5 + stirling(half + 0.5) - stirling(half)
    value: Array = constant - HALF_LOG_2PI - jnp.log(p.scale) - (half + 0.5) * jnp.log1p(z * z / p.df)
    return value


def normal_log(z: Array, scale: Array) -> Array:
    return -0.5 * z * z - jnp.log(scale) - HALF_LOG_2PI


def logistic_log(z: Array) -> Array:
    return -jnp.abs(z) - 2 * jnp.log1p(jnp.exp(-jnp.abs(z)))


def truncated_normal(p: Any, x: Array, left: Array, right: Array) -> Array:
    low, high = (p.low - p.loc) / p.scale, (p.high - p.loc) / p.scale
    low, high = jnp.where(low > 0, -high, low), jnp.where(low > 0, -low, high)
    bounded = low > -jnp.inf
    first = jnp.where(bounded, jax.scipy.special.log_ndtr(jnp.where(bounded, low, -jnp.ones_like(low))), -jnp.inf)
    last = jax.scipy.special.log_ndtr(high)
    return normal_log((x - p.loc) / p.scale, p.scale) - last - jnp.log1p(-jnp.exp(first - last))


def extreme_value(p: Any, x: Array, left: Array, right: Array) -> Array:
    shape, y = p.concentration, (x - p.loc) / p.scale
    flat = shape == 0
    some = jnp.where(flat, jnp.ones_like(shape), shape)
    inside = flat | (shape * y > -1)
    t = jnp.where(flat, y, jnp.log1p(jnp.where(inside, some * y, 0 * y)) / some)
    return jnp.where(inside, -t * (1 + shape) - exp(-t) - jnp.log(p.scale), -jnp.inf)


def extreme_value_ends(p: Any) -> tuple[Array, Array]:
    some = jnp.where(p.concentration == 0, jnp.ones_like(p.concentration), p.concentration)
    end = p.loc - p.scale / some
    return (
        jnp.where(p.concentration > 0, end, -jnp.inf),
        jnp.where(p.concentration < 0, end, jnp.inf),
    )


def continuous_bernoulli(p: Any, x: Array, left: Array, right: Array) -> Array:
    slope = p.logits if p.logits is not None else jnp.log(p.probs) - jnp.log1p(-p.probs)
    half = jnp.abs(slope) / 2
    small = half < 0.5
    h, s = jnp.where(small, jnp.ones_like(half), half), jnp.where(small, half * half, 0 * half)
    series = s * (1 / 6 - s * (1 / 180 - s * (1 / 2835 - s * (1 / 37800 - s * (1 / 467775 - s * 1.8036703e-7)))))
    log_sinh = jnp.where(small, series, h + jnp.log1p(-jnp.exp(-2 * h)) - jnp.log(2 * h))
    value: Array = slope * (left - right) / 2 - log_sinh
    return value


def kumaraswamy(p: Any, x: Array, left: Array, right: Array) -> Array:
    a, b = p.concentration1, p.concentration0
    upper = right < 0.5
    logarithm = jnp.where(upper, jnp.log1p(-jnp.where(upper, right, jnp.zeros_like(right))), log(left))
    value: Array = jnp.log(a) + jnp.log(b) + (a - 1) * logarithm + (b - 1) * log(-jnp.expm1(a * logarithm))
    return value


def binomial(p: Any, k: Array, left: Array, right: Array) -> Array:
    n, (success, failure) = p.total_count, odds(p)
    rest = jnp.maximum(n - k, 0)
    constant = log_factorial(n) - log_factorial(k) - log_factorial(rest)
    return constant - deviance(k, n * success + 0 * k) - deviance(rest, n * failure + 0 * k)


def negative_binomial(p: Any, k: Array, left: Array, right: Array) -> Array:
    r, (success, failure) = p.total_count, odds(p)
    n = k + r
    constant = log_factorial(n) - log_factorial(k) - log_factorial(r) + jnp.log(r) - jnp.log(n)
    return constant - deviance(k, n * success) - deviance(r + 0 * k, n * failure)


def classes(p: Any, k: Array, left: Array, right: Array) -> Array:
    logs = jax.nn.log_softmax(p.logits, axis=-1) if p.logits is not None else log(p.probs)
    index = jnp.clip(k, 0, logs.shape[-1] - 1).astype(jnp.int32)
    shape = np.broadcast_shapes(k.shape, logs.shape[:-1])
    logs, index = jnp.broadcast_to(logs, (*shape, logs.shape[-1])), jnp.broadcast_to(index, shape)
    found: Array = jnp.take_along_axis(logs, index[..., None], axis=-1)[..., 0]
    return found
