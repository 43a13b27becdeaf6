"""KL between distributions on intervals whose log density is quadratic: truncated normals, and lines beside them.

Every integral is over one smooth piece of a log-concave density, from where it is highest to where it has no mass
left, which Gauss's rule finds to the dtype's last digits: no difference of nearly equal distribution functions, in
the tails as little as between close ends. Between nearly equal distributions the points' probabilities are compared,
as those of classes are.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit.divergences._bounded import Linear, line_of
from vi_kit.divergences._support import where_contained
from vi_kit.divergences.distributions import Normal, TruncatedNormal
from vi_kit.kl._categorical import evaluate
from vi_kit.kl._core import Rows, divergence

Quadratic = TruncatedNormal | Normal | Linear


class _Curve(NamedTuple):
    """A log density: that of a normal where `scale` is given, else a line with `loc` for its slope."""

    loc: Array
    scale: Array | None

    def highest(self, low: Array, high: Array) -> Array:
        """Return where it is highest on an interval."""
        if self.scale is None:
            return jnp.where(self.loc > 0, high, low)
        return jnp.clip(self.loc, low, high)

    def reach(self, start: Array, drop: float) -> Array:
        """Return how far from its highest point it has dropped so much."""
        if self.scale is None:
            return drop / jnp.abs(self.loc)
        away = jnp.abs(start - self.loc) / self.scale
        return self.scale * (2 * drop / (away + jnp.hypot(away, jnp.full_like(away, (2 * drop) ** 0.5))))

    def rise(self, start: Array, step: Array) -> Array:
        """Return the log density at start + step less that at start."""
        if self.scale is None:
            return self.loc * step
        steps = step / self.scale
        return -steps * ((start - self.loc) / self.scale + 0.5 * steps)


class _Points(NamedTuple):
    """Points start + step (on a last axis) with the logarithms of their weights, of which `length` is taken out."""

    start: Array
    step: Array
    log_weight: Array
    length: Array


def _settings(dtype: np.dtype) -> tuple[int, float, float]:
    """Return the number of points, how far the density drops, and up to what variance of log(p/q) both share them."""
    return (32, 35.0, 0.05) if dtype.itemsize <= 4 else (80, 80.0, 0.005)


def _points(curve: _Curve, low: Array, high: Array) -> _Points:
    """Return points of Gauss's rule where the density has its mass between two ends."""
    number, drop, _ = _settings(low.dtype)
    start = curve.highest(low, high)
    reach = curve.reach(start, drop)
    left, right = jnp.minimum(reach, start - low), jnp.minimum(reach, high - start)
    points, weights = np.polynomial.legendre.leggauss(number)
    share = jnp.asarray((1 + points) / 2, low.dtype).reshape((1,) * low.ndim + (-1,))
    step = (left + right)[..., None] * share - left[..., None]
    log_weight = jnp.broadcast_to(jnp.asarray(np.log(weights / 2), low.dtype), step.shape)
    return jax.lax.stop_gradient(_Points(start, step, log_weight, left + right))


def _at(curve: _Curve) -> _Curve:
    """Return the curve with an axis for the points."""
    return _Curve(curve.loc[..., None], None if curve.scale is None else curve.scale[..., None])


def _log_mean(curve: _Curve, points: _Points) -> Array:
    """Return the logarithm of the mean over the points' interval of the density relative to that at their start."""
    return jax.nn.logsumexp(_at(curve).rise(points.start[..., None], points.step) + points.log_weight, axis=-1)


def _gap(p: _Curve, q: _Curve, start: Array, step: Array) -> Array:
    """Return what log p − log q rises from start, from the differences of the parameters."""
    if p.scale is None or q.scale is None:
        return p.rise(start, step) - q.rise(start, step)
    narrower = (q.scale - p.scale) / q.scale * ((q.scale + p.scale) / q.scale)
    steps = step / p.scale
    shift = (start - p.loc) / p.scale * narrower + (q.loc - p.loc) / q.scale * (p.scale / q.scale)
    return -steps * (shift + 0.5 * narrower * steps)


class _Ends(NamedTuple):
    low: Array
    high: Array


def _value(p: _Curve, q: _Curve, inner: _Ends, outer: _Ends) -> Array:
    """Return KL; the points, and so the ends, have no gradient here."""
    points = _points(p, *inner)
    start, step = points.start[..., None], points.step
    p_at, q_at = _at(p), _at(q)
    gap = _gap(p_at, q_at, start, step)
    t, s = (curve.rise(start, step) + points.log_weight for curve in (p_at, q_at))
    mean_weight = jax.nn.softmax(t, axis=-1)
    mean_gap = jnp.sum(mean_weight * gap, axis=-1)
    variance = jnp.sum(mean_weight * jnp.square(gap - mean_gap[..., None]), axis=-1)
    near = variance < _settings(step.dtype)[2]
    # Nearly equal: the points' probabilities are compared. Else q has its own points.
    s = jnp.where(near[..., None], s, jax.lax.stop_gradient(t))
    shared = jax.lax.stop_gradient(jnp.where(near[..., None], gap, jnp.zeros_like(gap)))
    scale = jnp.ones((1,) * t.ndim, t.dtype)
    close = divergence(evaluate, Rows(t, s, scale, (t.ndim - 1,), None), difference=shared)
    # q's masses on the left of p's interval, in it and on its right.
    first, last = (jnp.where(jnp.isfinite(end), end, points.start) for end in inner)  # beyond infinity is nothing
    lows = jnp.stack([jnp.where(jnp.isfinite(inner.low), outer.low, first), inner.low, last])
    highs = jnp.stack([first, inner.high, jnp.where(jnp.isfinite(inner.high), outer.high, last)])
    q_three = jax.tree.map(lambda x: jnp.broadcast_to(x, lows.shape), q)
    masses = _points(q_three, lows, highs)
    log_means = _log_mean(q_three, masses)
    log_means = log_means + _rise_between(q_three, points.start, masses.start)
    log_length = jnp.log(masses.length)
    left, inside, right = log_means + log_length
    far = mean_gap + inside - _log_mean(p, points) - jnp.log(points.length)
    most = jax.lax.stop_gradient(jnp.maximum(jnp.maximum(left - inside, right - inside), jnp.zeros_like(inside)))
    outside = most + jnp.log1p(jnp.expm1(-most) + jnp.exp(left - inside - most) + jnp.exp(right - inside - most))
    return jnp.where(near, close, far) + outside


def _rise_between(curve: _Curve, first: Array, second: Array) -> Array:
    first = jnp.broadcast_to(first, second.shape)
    return curve.rise(first, second - first)


@jax.custom_jvp
def _contained(p: _Curve, q: _Curve, inner: _Ends, outer: _Ends) -> Array:
    """KL where p's interval is within q's."""
    return _value(p, q, inner, outer)


@_contained.defjvp
def _contained_jvp(
    primals: tuple[_Curve, _Curve, _Ends, _Ends], tangents: tuple[_Curve, _Curve, _Ends, _Ends]
) -> tuple[Array, Array]:
    """Differentiate by the ends as p(end) (log(p/q) − KL − 1) and q(end), by the rest as it is."""
    p, q, inner, outer = primals
    value, tangent = jax.jvp(lambda p, q: _value(p, q, inner, outer), (p, q), (tangents[0], tangents[1]))
    points = _points(p, *inner)
    start, step = points.start[..., None], points.step
    weight = jax.nn.softmax(_at(p).rise(start, step) + points.log_weight, axis=-1)
    mean_gap = jnp.sum(weight * _gap(_at(p), _at(q), start, step), axis=-1)
    for curve, ends, sign, moved in ((p, inner, -1.0, tangents[2]), (q, outer, 1.0, tangents[3])):
        own = _points(curve, *ends)
        log_mass = _log_mean(curve, own) + jnp.log(own.length)
        for end, towards, change in zip(ends, (-sign, sign), moved, strict=True):
            finite = jnp.isfinite(end)
            end = jnp.where(finite, end, own.start)
            slope = jnp.full_like(end, towards)
            if curve is p:
                slope = slope * (1 - _gap(p, q, points.start, end - points.start) + mean_gap)
            slope = slope * jnp.exp(curve.rise(own.start, end - own.start) - log_mass)
            tangent = tangent + jnp.where(finite, slope, jnp.zeros_like(slope)) * change
    return value, tangent


def _read(d: Quadratic) -> tuple[_Curve, _Ends]:
    if isinstance(d, TruncatedNormal | Normal):
        infinity = jnp.full_like(d.loc, jnp.inf)
        ends = _Ends(-infinity, infinity) if isinstance(d, Normal) else _Ends(d.low, d.high)
        return _Curve(d.loc, d.scale), ends
    low, high, slope = line_of(d)
    return _Curve(slope, None), _Ends(low, jnp.full_like(low, jnp.inf) if high is None else high)


def quadratic(p: Quadratic, q: Quadratic) -> Array:
    """Return KL between distributions with quadratic or linear log densities on intervals."""
    (p_curve, inner), (q_curve, outer) = _read(p), _read(q)
    zero = jnp.zeros_like(inner.low)
    same_low, same_high = inner.low == outer.low, inner.high == outer.high  # both may be infinite
    left = jnp.where(same_low, zero, inner.low - outer.low)
    right = jnp.where(same_high, zero, outer.high - inner.high)
    inside = (left >= 0) & (right >= 0)
    outer_low, outer_high = jnp.where(inside, outer.low, inner.low), jnp.where(inside, outer.high, inner.high)
    return where_contained(_contained(p_curve, q_curve, inner, _Ends(outer_low, outer_high)), left, right)
