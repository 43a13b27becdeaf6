"""KL between distributions of whole numbers: a sum, with an estimate of its error."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit._estimate import Estimate
from vi_kit.divergences import _quadrature_terms as terms_of
from vi_kit.divergences._quadrature_terms import Alive, differentiable, infinite_where, integrand, log_densities
from vi_kit.divergences._views import Points, View

WHOLE_NUMBERS = 4096


def add_up(p: View, q: View) -> Estimate:
    """Return the sum over all whole numbers where p has mass, or over every n-th where these are too many."""
    low, high, far = _span(p, q)
    stride = jnp.maximum(jnp.ceil((high - low + 1) / WHOLE_NUMBERS), 1)[None]
    x = low[None] + jnp.arange(WHOLE_NUMBERS, dtype=low.dtype).reshape((-1, *(1,) * low.ndim)) * stride
    end = jax.lax.stop_gradient(jnp.maximum(p.high, q.high))
    within, one = x <= end[None], jnp.ones_like(x)
    # Log densities of whole numbers take x alone.
    points = Points(jnp.where(within, x, low[None]), jnp.full_like(x, -jnp.inf), one, one)
    unit = jnp.zeros_like(x)
    held = log_densities(p, q, points, unit)[2]
    alive = Alive(held.p & within, held.q & within)
    logs = differentiable(p, q, points, unit, alive)
    parts = stride * integrand(*logs, alive)
    q_inside = jnp.sum(stride * terms_of.density(logs[1], alive.q), axis=0)
    q_outside = jnp.where(far, jnp.maximum(1 - q_inside, 0), jnp.zeros_like(q_inside))
    value = jnp.sum(parts, axis=0) + q_outside
    lost = jnp.any(alive.p & (logs[1] == -jnp.inf), axis=0)
    error = _error(*jax.lax.stop_gradient((value, parts, logs, stride, far)), alive)
    error = jnp.where(lost, jnp.zeros_like(value), jnp.where(x[-1] >= end, error[0], error[1]))
    count = jnp.full(value.shape, WHOLE_NUMBERS, value.dtype)
    return Estimate(infinite_where(lost, value), error, count)


def _span(p: View, q: View) -> tuple[Array, Array, Array]:
    """Return the first and the last number, and where q reaches too far to be followed.

    What q has there is 1 less what it has where p is.
    """
    ends = jnp.minimum(p.low, q.low), jnp.maximum(p.high, q.high)
    spans = []
    for side in (p, q):
        reach = 40 * side.widths
        first, last = jnp.min(side.centers - reach, axis=0), jnp.max(side.centers + reach, axis=0)
        spans.append((jnp.maximum(first, ends[0]), jnp.minimum(last, ends[1])))
    (p_low, p_high), (q_low, q_high) = spans
    low, high = jnp.minimum(p_low, q_low), jnp.maximum(p_high, q_high)
    far = high - low >= WHOLE_NUMBERS
    low, high = jnp.ceil(jnp.where(far, p_low, low)), jnp.floor(jnp.where(far, p_high, high))
    return jax.lax.stop_gradient(low), jax.lax.stop_gradient(high), far


def _error(value: Array, parts: Array, logs: tuple[Array, Array], stride: Array, far: Array, alive: Alive) -> Array:
    """Return the error where the last number is the end of the support, and where it is not."""
    masses = [jnp.sum(stride * terms_of.density(v, a), axis=0) for v, a in zip(logs, alive, strict=True)]
    masses[1] = jnp.where(far, jnp.maximum(masses[1], 1), masses[1])
    coarse = jnp.abs(2 * jnp.sum(parts[::2], axis=0) - jnp.sum(parts, axis=0))
    coarse = jnp.where(stride[0] > 1, coarse, jnp.zeros_like(coarse))
    eps = float(np.finfo(value.dtype).eps)
    rounding = jnp.sum(stride * terms_of.rounding(*logs, alive), axis=0)
    rounding = rounding + 8 * eps * (value + far.astype(value.dtype))
    error = coarse + rounding + terms_of.unfound(value, masses[0], masses[1], terms_of.most(*logs, alive))
    # Beyond the last number, if blocks go on shrinking by the same factor.
    eighth = WHOLE_NUMBERS // 8
    last, before = jnp.sum(parts[-eighth:], axis=0), jnp.sum(parts[-2 * eighth : -eighth], axis=0)
    ratio = jnp.clip(last / jnp.where(before > 0, before, jnp.ones_like(before)), 0.0, 1.0)
    rest = jnp.where(last > 0, last * ratio / jnp.maximum(1 - ratio, 1e-3), jnp.zeros_like(last))
    return jnp.stack([error, error + rest])
