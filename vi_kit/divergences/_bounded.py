"""KL between distributions on intervals whose log density is linear: uniform, truncated exponential, and the like.

On p's interval, of width w, both are exponential tilts of the uniform, with η = w · slope and the log normalizer
A(η) = log((e^η − 1) / η). KL is the Bregman divergence of A plus −log of the mass that q has there, of which each is
a sum of positive terms.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit.divergences._support import where_contained
from vi_kit.divergences._trials import log_odds_between
from vi_kit.divergences.distributions import (
    ContinuousBernoulli,
    Exponential,
    TruncatedExponential,
    Uniform,
)

Line = tuple[Array, Array | None, Array]  # ends of the interval (None: infinity) and slope of the log density
Linear = Uniform | ContinuousBernoulli | TruncatedExponential | Exponential

# --- the log normalizer, A(η) = max(η, 0) + c(|η|) -------------------------------------------------------------------

_SERIES_BELOW = 2.5


def _zeta(n: int) -> float:
    return math.fsum(k**-n for k in range(1, 40)) + 39.5 ** (1 - n) / (n - 1) - 39.5 ** (-n - 1) * n / 24


# log(sinh(η/2) / (η/2)) = Σ (−1)^{j+1} ζ(2j)/j (η/2π)^{2j}
_EVEN = [(-1) ** (j + 1) * (math.pi**2 / 6 if j == 1 else _zeta(2 * j)) / j for j in range(1, 22)]


def _even_series(eta: Array, derivative: int) -> Array:
    """Return the derivative of log(sinh(η/2) / (η/2)), odd or even in η, for |η| ≤ 2.5."""
    x = eta / (2 * math.pi)
    total = jnp.zeros_like(eta)
    for j in range(10 if eta.dtype.itemsize <= 4 else 21, 0, -1):
        total = total * (x * x) + _EVEN[j - 1] * math.perm(2 * j, derivative)
    power = x * x if derivative == 0 else x if derivative == 1 else jnp.ones_like(x)
    return total * power / (2 * math.pi) ** derivative


def _split(eta: Array) -> tuple[Array, Array, Array]:
    """Return whether the series serves, what to put into it, and |η| for the other form."""
    size = jnp.abs(eta)
    small = size < _SERIES_BELOW
    return small, jnp.where(small, eta, jnp.zeros_like(eta)), jnp.where(small, jnp.full_like(eta, 3.0), size)


def even(eta: Array) -> Array:
    """Return A(η) − η/2 = log(sinh(η/2) / (η/2))."""
    small, near, far = _split(eta)
    return jnp.where(small, _even_series(near, 0), jnp.log1p(-jnp.exp(-far)) - jnp.log(far) + far / 2)


def _excess(eta: Array) -> Array:
    """Return c(|η|) = A(η) − max(η, 0)."""
    small, near, far = _split(eta)
    return jnp.where(small, _even_series(near, 0) - jnp.abs(near) / 2, jnp.log1p(-jnp.exp(-far)) - jnp.log(far))


def _excess_slope(eta: Array) -> Array:
    """Return c'(|η|), −1/2 at 0."""
    small, near, far = _split(eta)
    return jnp.where(small, _even_series(jnp.abs(near), 1) - 0.5, 1 / jnp.expm1(far) - 1 / far)


def _variance(eta: Array) -> Array:
    """Return A''(η), the variance on (0, 1)."""
    small, near, far = _split(eta)
    decay = jnp.exp(-far)
    return jnp.where(small, _even_series(near, 2), 1 / (far * far) - decay / ((1 - decay) * (1 - decay)))


def log_normalizer(eta: Array) -> Array:
    """Return A(η) = log ∫₀¹ e^{ηx} dx."""
    return 0.5 * (eta + jnp.abs(eta)) + _excess(eta)  # the slope at 0 is ½


@jax.custom_jvp
def _tilt(eta_p: Array, eta_q: Array, change: Array) -> Array:
    """A(η_q) − A(η_p) − (η_q − η_p) A'(η_p); `change` is η_q − η_p as exactly as it is known, without a tangent.

    Near equality it is change² ∫ (1 − s) A''(η_p + s change) ds, by Gauss's rule; that is exact in floating point.
    """
    return _tilt_parts(eta_p, eta_q, change)[0]


def _tilt_parts(eta_p: Array, eta_q: Array, change: Array) -> tuple[Array, Array]:
    """Return the divergence and the difference of the means, A'(η_q) − A'(η_p)."""
    near = jnp.abs(change) < jnp.maximum(jnp.abs(eta_p) / 2, jnp.full_like(change, 3.0))
    step = jnp.where(near, change, jnp.zeros_like(change))
    points, weights = np.polynomial.legendre.leggauss(6 if change.dtype.itemsize <= 4 else 11)
    weighted, total = jnp.zeros_like(step), jnp.zeros_like(step)
    for s, weight in zip((1 + points) / 2, weights / 2, strict=True):
        variance = float(weight) * _variance(eta_p + float(s) * step)
        weighted, total = weighted + float(1 - s) * variance, total + variance
    sign_p, sign_q = (jnp.where(eta < 0, -jnp.ones_like(eta), jnp.ones_like(eta)) for eta in (eta_p, eta_q))
    mean_p = sign_p * _excess_slope(eta_p)  # from the end where the density is highest
    across = (sign_q - sign_p) / 2
    far = jnp.abs(across * eta_q) + _excess(eta_q) - _excess(eta_p) - change * mean_p
    far_mean = across + sign_q * _excess_slope(eta_q) - mean_p
    return jnp.where(near, step * step * weighted, far), jnp.where(near, step * total, far_mean)


@_tilt.defjvp
def _tilt_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    value, difference = _tilt_parts(*primals)
    return value, difference * tangents[1] - primals[2] * _variance(primals[0]) * tangents[0]


# --- linear log densities ---------------------------------------------------------------------------------------------


@jax.custom_jvp
def _logit(probs: Array) -> Array:
    return log_odds_between((probs, None), (jnp.full_like(probs, 0.5), None))


@_logit.defjvp
def _logit_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (probs,) = primals
    smallest = jnp.full_like(probs, np.finfo(probs.dtype).tiny)  # at 0 and 1 a gradient of 0 stays 0
    return _logit(probs), tangents[0] / jnp.maximum(probs * (1 - probs), smallest)


def line_of(d: Linear) -> Line:
    """Return the interval and the slope of the log density on it."""
    if isinstance(d, Uniform):
        return d.low, d.high, jnp.zeros_like(d.low)
    if isinstance(d, ContinuousBernoulli):
        slope = d.logits if d.probs is None else _logit(d.probs)
        assert slope is not None
        return jnp.zeros_like(slope), jnp.ones_like(slope), slope
    return jnp.zeros_like(d.rate), d.high if isinstance(d, TruncatedExponential) else None, -d.rate


def least_zero(x: Array) -> Array:
    """Return max(x, 0), with the gradient of x at 0: a support may grow from there."""
    return jnp.where(x >= 0, x, jnp.zeros_like(x))


def _outside(slope: Array, width: Array, left: Array, right: Array | None) -> Array:
    """Return −log of q's mass on p's interval, from the widths of what q has on its left and right (None: all)."""
    eta = slope * width
    first = log_normalizer(-slope * left) - log_normalizer(eta)
    if right is None:
        second, right = -log_normalizer(-eta), -1 / slope
    else:
        second = log_normalizer(slope * right) - log_normalizer(-eta)
    zero = jnp.zeros_like(eta)
    shift = jax.lax.stop_gradient(
        jnp.maximum(zero, jnp.maximum(_log(left / width) + first, _log(right / width) + second))
    )
    masses = left / width * jnp.exp(first - shift) + right / width * jnp.exp(second - shift)
    return shift + jnp.log1p(jnp.expm1(-shift) + masses)


def _log(x: Array) -> Array:
    return jnp.log(jax.lax.stop_gradient(x))


def _mean(eta: Array) -> Array:
    """Return A'(η), the mean on (0, 1); of −η, what it is short of 1."""
    return jnp.where(eta < 0, -_excess_slope(eta), 1 + _excess_slope(eta))


def _at_ends(low: Array, high: Array | None, slope: Array) -> tuple[Array, Array]:
    """Return the density at both ends of its interval."""
    if high is None:
        return -slope, jnp.zeros_like(slope)
    width = high - low
    eta = slope * width
    return jnp.exp(-log_normalizer(eta)) / width, jnp.exp(-log_normalizer(-eta)) / width


def _room(p: Line, q: Line) -> tuple[Array, Array, Array | None]:
    """Return the width of p's interval and how much further that of q reaches on the left and right."""
    (p_low, p_high, _), (q_low, q_high, _) = p, q
    assert p_high is not None
    return p_high - p_low, least_zero(p_low - q_low), None if q_high is None else least_zero(q_high - p_high)


@jax.custom_jvp
def _contained(p: Line, q: Line) -> Array:
    """KL where p's interval is within q's."""
    width, left, right = _room(p, q)
    return _tilt_parts(p[2] * width, q[2] * width, (q[2] - p[2]) * width)[0] + _outside(q[2], width, left, right)


@_contained.defjvp
def _contained_jvp(primals: tuple[Line, Line], tangents: tuple[Line, Line]) -> tuple[Array, Array]:
    """Use p(end) (log(p/q) − KL − 1) for the ends of p: autodiff would subtract far larger numbers."""
    (p, q), (p_tangent, q_tangent) = primals, tangents
    width, left, right = _room(p, q)
    eta, change = p[2] * width, (q[2] - p[2]) * width
    value, difference = _tilt_parts(eta, q[2] * width, change)
    outside, tangent = jax.jvp(lambda slope: _outside(slope, width, left, right), (q[2],), (q_tangent[2],))
    tangent = tangent + width * (difference * q_tangent[2] - change * _variance(eta) * p_tangent[2])
    for line, low_slope, high_slope, moved in (
        (p, 1 - change * _mean(eta), -1 - change * _mean(-eta), p_tangent),
        (q, -jnp.ones_like(eta), jnp.ones_like(eta), q_tangent),
    ):
        at_low, at_high = _at_ends(*line)
        tangent = tangent + at_low * low_slope * moved[0]
        if moved[1] is not None:
            tangent = tangent + at_high * high_slope * moved[1]
    return value + outside, tangent


def linear(p: Linear, q: Linear) -> Array:
    """Return KL between distributions with linear log densities on intervals."""
    (p_low, p_high, p_slope), (q_low, q_high, q_slope) = line_of(p), line_of(q)
    # An infinite slope is a point mass at the end, which has no density beside any other.
    both = isinstance(p, ContinuousBernoulli) and isinstance(q, ContinuousBernoulli)
    same = (p_slope == q_slope) & both
    point = jnp.isinf(p_slope) | jnp.isinf(q_slope)
    zero = jnp.zeros_like(p_slope)
    margins = [jnp.where(jnp.isinf(k) & ~same, -jnp.abs(k), zero) for k in (p_slope, q_slope)]
    p_slope, q_slope = (jnp.where(point, zero, k) for k in (p_slope, q_slope))
    if isinstance(p, ContinuousBernoulli) and isinstance(q, ContinuousBernoulli):
        change = -log_odds_between((p.probs, p.logits), (q.probs, q.logits))
        return where_contained(_tilt(p_slope, q_slope, jnp.where(point, zero, change)), *margins)
    margins += [p_low - q_low] if p_high is None or q_high is None else [p_low - q_low, q_high - p_high]
    return where_contained(_contained((p_low, p_high, p_slope), (q_low, q_high, q_slope)), *margins)


def uniform(p: Uniform, q: Uniform) -> Array:
    """Return KL between uniform distributions."""
    left, right = p.low - q.low, q.high - p.high
    more = least_zero(left) + least_zero(right)
    return where_contained(jnp.log1p(more / (p.high - p.low)), left, right)
