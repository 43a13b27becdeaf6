"""Special functions less the first terms of their series: third-order remainders, Stirling's, sinh(x)/x."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy import special
from jaxtyping import Array

from vi_kit.kl._compensated import expm1_minus

Three = tuple[Array, Array, Array]
HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)
HALF_LOG_TAU_E = HALF_LOG_TAU + 0.5
# B_{2n}, n = 1, …, 8.
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)


@jax.custom_jvp
def log1p_remainders(w: Array) -> Three:
    """Return w − l, w − l − w²/2 and (1 + w) l − w − w²/2 of l = log(1 + w), w > −1, by their series for small l."""
    log = jnp.log1p(w)
    near = jnp.abs(log) < 0.5
    x, y = jnp.where(near, log, jnp.zeros_like(log)), jnp.where(near, jnp.ones_like(w), w)
    last = 14 if w.dtype.itemsize <= 4 else 22
    first, second = jnp.zeros_like(x), jnp.zeros_like(x)
    for n in range(last, 2, -1):
        first = (2.0 - 2.0 ** (n - 1)) / math.factorial(n) + x * first
        second = (n - 2.0 ** (n - 1)) / math.factorial(n) + x * second
    cube = x * x * x
    far = jnp.log1p(y)
    gap = expm1_minus(log)
    return (
        gap,
        jnp.where(near, first * cube, gap - 0.5 * w * w),
        jnp.where(near, second * cube, (1 + y) * far - y - 0.5 * y * y),
    )


@log1p_remainders.defjvp
def _log1p_remainders_jvp(primals: Any, tangents: Any) -> tuple[Three, Three]:
    (w,), (change,) = primals, tangents
    found = log1p_remainders(w)
    relative = w / (1 + w) * change
    return found, (relative, -w * relative, -found[0] * change)


_STEPS = 8


def _ladder(a: Array) -> Array:
    """Return a, a + 1, …, the steps up to where Stirling's series is right."""
    steps = jnp.broadcast_to(jnp.arange(_STEPS, dtype=a.dtype), (*a.shape, _STEPS))
    return jnp.broadcast_to(a[..., None], steps.shape) + steps


@jax.custom_jvp
def stirling(a: Array) -> Three:
    """Return lgamma a − [(a − ½) log a − a + ½ log 2π], log a − 1/2a − digamma a and trigamma a − 1/a − 1/2a².

    Each step of a down the ladder adds what is positive: with x = 1/(2a + 1), log(1 + 1/a) is 2 artanh x.
    """
    b = _ladder(a)
    x = 1 / (2 * b + 1)
    near = x < 0.3
    square = jnp.where(near, x * x, jnp.zeros_like(x))
    series = jnp.zeros_like(x)
    for k in range(7 if a.dtype.itemsize <= 4 else 15, 0, -1):
        series = 1 / (2 * k + 1) + square * series
    series = square * series  # artanh(x)/x − 1
    log = jnp.log1p(1 / b)
    first = jnp.where(near, series, (b + 0.5) * log - 1)
    second = jnp.where(near, 2 * x * (square / (1 - square) - series), 0.5 * (1 / b + 1 / (b + 1)) - log)
    inverse = 1 / (a + _STEPS)
    power = inverse * inverse
    lgamma, digamma = jnp.zeros_like(a), jnp.zeros_like(a)
    for n, c in reversed(list(enumerate(_BERNOULLI, 1))):
        lgamma, digamma = c / (2 * n * (2 * n - 1)) + power * lgamma, c / (2 * n) + power * digamma
    return (
        lgamma * inverse + jnp.sum(first, axis=-1),
        digamma * power + jnp.sum(second, axis=-1),
        _trigamma_rest(a),
    )


def _trigamma_rest(a: Array) -> Array:
    b = _ladder(a)
    inverse = 1 / (a + _STEPS)
    power, total = inverse * inverse, jnp.zeros_like(a)
    for c in reversed(_BERNOULLI):
        total = c + power * total
    return total * power * inverse + jnp.sum(0.5 / jnp.square(b * (b + 1)), axis=-1)


@stirling.defjvp
def _stirling_jvp(primals: Any, tangents: Any) -> tuple[Three, Three]:
    (a,), (change,) = primals, tangents
    lgamma, digamma, _ = stirling(a)
    trigamma, slope = jax.jvp(_trigamma_rest, (a,), (change,))
    return (lgamma, digamma, trigamma), (-digamma * change, -trigamma * change, slope)


def log_gamma_cumulant(a: Array, t: Array | float) -> tuple[Array, Array]:
    """Return lgamma(a + t) − lgamma(a) − t digamma(a), and that less t² trigamma(a) / 2; a + t > 0.

    From Stirling's series at a + 8; the steps up to it, and its terms, are remainders of second and third order in t.
    """
    below = _ladder(a)
    seconds, thirds, _ = log1p_remainders(
        jnp.broadcast_to(jnp.broadcast_to(t, a.shape)[..., None], below.shape) / below
    )
    gap, excess = jnp.sum(seconds, axis=-1), jnp.sum(thirds, axis=-1)
    top = a + _STEPS
    w = t / top
    second, third, entropy = log1p_remainders(w)
    square = w * w
    gap = gap + top * (entropy + 0.5 * square) + 0.5 * second
    excess = excess + top * entropy + 0.5 * third
    # (1 + w)^{−m} − 1 + m w, and that less m (m + 1) w² / 2, from those of m − 1.
    second, third = jnp.zeros_like(a), jnp.zeros_like(a)
    weight = 1 / top
    for m in range(1, 8 if a.dtype.itemsize <= 4 else 16):
        second = (second + m * square) / (1 + w)
        third = (third - 0.5 * m * (m + 1) * square * w) / (1 + w)
        if m % 2:
            factor = _BERNOULLI[m // 2] / (m * (m + 1)) * weight
            gap, excess, weight = gap + factor * second, excess + factor * third, weight / (top * top)
    return gap, excess


def _sinhc_minus_one(square: Array) -> Array:
    """Return sinh(x) / x − 1 for −1 ≤ x² ≤ 1; below 0 it is the sine."""
    total = jnp.zeros_like(square)
    for n in range(10, 0, -1):
        total = 1 / math.factorial(2 * n + 1) + square * total
    return square * total


def log_sinhc(x: Array) -> Array:
    """Return log(sinh(x) / x)."""
    near = jnp.abs(x) < 1
    far = jnp.where(near, jnp.ones_like(x), jnp.abs(x))
    series = jnp.log1p(_sinhc_minus_one(jnp.where(near, x * x, jnp.zeros_like(x))))
    return jnp.where(near, series, far - jnp.log(2 * far) + jnp.log1p(-jnp.exp(-2 * far)))


def log_sinc(x: Array) -> Array:
    """Return log(sin(x) / x), |x| < π."""
    near = jnp.abs(x) < 1
    far = jnp.where(near, jnp.ones_like(x), x)
    series = jnp.log1p(_sinhc_minus_one(jnp.where(near, -x * x, jnp.zeros_like(x))))
    return jnp.where(near, series, jnp.log(jnp.sin(far) / far))


def scaled_exp1(x: Array) -> tuple[Array, Array]:
    """Return e^x E₁(x) and 1/x less that, x > 0: by a continued fraction where they are small."""
    large = x > 10
    y, z = jnp.where(large, x, jnp.full_like(x, 20)), jnp.where(large, jnp.ones_like(x), x)
    fraction = jnp.zeros_like(x)
    for n in range(25, 0, -1):
        fraction = n * n / (y + 2 * n + 1 - fraction)
    direct = jnp.exp(z) * special.exp1(z)
    value = 1 / (y + 1 - fraction)
    return jnp.where(large, value, direct), jnp.where(large, (1 - fraction) / y * value, 1 / z - direct)
