"""Adaptive quadrature within static shapes: panels graded toward every center and end, then the worst ones halved."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit.divergences._views import Points, View

RATIO = 8.0  # of neighboring panels where nothing else is known
ROUNDS = 16
SPARE = 32

# Gauss–Kronrod, 7 and 15 points on [−1, 1]: positive abscissas and weights.
_ABSCISSAS = (
    0.991455371120812639206854697526329, 0.949107912342758524526189684047851, 0.864864423359769072789712788640926,
    0.741531185599394439863864773280788, 0.586087235467691130294144691693013, 0.405845151377397166906606412076961,
    0.207784955007898467600689403773245, 0.0,
)  # fmt: skip
_KRONROD = (
    0.022935322010529224963732008058970, 0.063092092629978553290700663189204, 0.104790010322250183839876322541518,
    0.140653259715525918745189590510238, 0.169004726639267902826583426598550, 0.190350578064785409913256402421014,
    0.204432940075298892414161999234649, 0.209482141084727828012999174891714,
)  # fmt: skip
_GAUSS = (
    0.0, 0.129484966168869693270611432679082, 0.0, 0.279705391489276667901467771423780,
    0.0, 0.381830050505118944950369775488975, 0.0, 0.417959183673469387755102040816327,
)  # fmt: skip
NODES = (1 + np.concatenate([-np.array(_ABSCISSAS), np.array(_ABSCISSAS[-2::-1])])) / 2
KRONROD = np.concatenate([_KRONROD, _KRONROD[-2::-1]]) / 2
GAUSS = np.concatenate([_GAUSS, _GAUSS[-2::-1]]) / 2


class Mesh(NamedTuple):
    """Panels [low, high] of distances, the last axes the batch: x = end + sign · distance."""

    low: Array
    high: Array
    end: Array
    sign: Array


class Cut(NamedTuple):
    """Parts [start, stop] of panels of a mesh, in units of the panel."""

    panel: Array
    start: Array
    stop: Array


def smallest(dtype: Any) -> float:
    """Return the smallest distance from an end that is told apart from 0."""
    return 1e-37 if np.finfo(dtype).bits <= 32 else 1e-300


def _levels(dtype: Any) -> int:
    return 20 if np.finfo(dtype).bits <= 32 else 40


def mesh(p: View, q: View) -> tuple[Mesh, Mesh]:
    """Return panels over the supports of p and q, and points from which to judge what lies beyond them.

    The second mesh holds for every piece the panel between two distances, a factor apart, of its outer or inner end.
    """
    hold = jax.lax.stop_gradient
    # Many components share the far grid of the narrowest.
    grid = np.array([0.0, 1.0, 3.0, *(RATIO ** np.arange(1, _levels(p.low.dtype) + 1))])
    grid = np.concatenate([-grid[:0:-1], grid])
    hints = []
    for side in (p, q):
        if side.centers.shape[0] <= 8:
            hints.append(_grid(side.centers, side.widths, grid))
            continue
        hints.append(_grid(side.centers, side.widths, grid[np.abs(grid) <= RATIO]))
        narrowest = side.narrowest()
        hints.append(_grid(narrowest[0][None], narrowest[1][None], grid))
    marks, jumps = hold(jnp.concatenate(hints)), jnp.concatenate([p.jumps, q.jumps])
    center, width = p.narrowest()
    pieces = _halves(p.low, p.high, hold(jnp.clip(center, p.low, p.high)), width, jumps)
    # What p leaves of q's support, unless both are known to end at the same number.
    if p.fixed[0] is None or p.fixed[0] != q.fixed[0]:
        pieces.append(_outside(q.low, p.low, sign=-1))
    if p.fixed[1] is None or p.fixed[1] != q.fixed[1]:
        pieces.append(_outside(q.high, p.high, sign=1))
    stacked = _Piece(*(jnp.stack(v) for v in zip(*pieces, strict=True)))
    return _cut_at(stacked, marks, jumps, p.exact and q.exact)


def _grid(centers: Array, widths: Array, grid: np.ndarray) -> Array:
    steps = jnp.asarray(grid, centers.dtype).reshape((-1, *(1,) * centers.ndim))
    return (centers[None] + steps * widths[None]).reshape((-1, *centers.shape[1:]))


class _Piece(NamedTuple):
    end: Array  # distances are from here
    sign: Array
    start: Array
    stop: Array  # +inf: as far as the marks go
    is_end: Array  # whether the density may be singular there


def _close(distance: Array, *sizes: Array) -> Array:
    """Tell whether a distance may be rounding: nodes of a panel that narrow would fall on either side of it."""
    eps = float(np.finfo(distance.dtype).eps)
    return jnp.abs(distance) <= 32 * eps * functools.reduce(jnp.maximum, map(jnp.abs, sizes))


def _at_jump(end: Array, sign: int, distance: Array, jumps: Array) -> Array:
    """Return the distance to a place or, where that is a jump, to the jump, which moves as parameters say."""
    if not jumps.shape[0]:
        return distance
    gaps = jax.lax.stop_gradient(jumps - (end + sign * distance)[None])
    index = jnp.argmin(jnp.abs(gaps), axis=0)[None]
    gap, jump = (jnp.take_along_axis(v, index, axis=0)[0] for v in (gaps, jumps))
    return jnp.where(_close(gap, end, jax.lax.stop_gradient(jump)), sign * (jump - end), distance)


def _halves(low: Array, high: Array, center: Array, width: Array, jumps: Array) -> list[_Piece]:
    """Split a support at its middle; each half is measured from its own end, or from the other where it has none."""
    has_low, has_high = jnp.isfinite(low), jnp.isfinite(high)
    a, b = jnp.where(has_low, low, jnp.zeros_like(low)), jnp.where(has_high, high, jnp.zeros_like(high))
    zero, one, far = jnp.zeros_like(center), jnp.ones_like(center), jnp.full_like(center, jnp.inf)
    width = jnp.maximum(width, 0.0)
    from_low = jnp.where(has_high & has_low, 0.5 * (b - a), jnp.maximum(center - jax.lax.stop_gradient(a), width))
    from_high = jnp.where(has_high & has_low, 0.5 * (b - a), jnp.maximum(jax.lax.stop_gradient(b) - center, width))
    from_low, from_high = _at_jump(a, 1, from_low, jumps), _at_jump(b, -1, from_high, jumps)
    lower = _Piece(
        jnp.where(has_low, a, jnp.where(has_high, b, center)), jnp.where(has_low, one, -one),
        jnp.where(has_low | ~has_high, zero, from_high), jnp.where(has_low, from_low, far), has_low,
    )  # fmt: skip
    upper = _Piece(
        jnp.where(has_high, b, jnp.where(has_low, a, center)), jnp.where(has_high, -one, one),
        jnp.where(has_high | ~has_low, zero, from_low), jnp.where(has_high, from_high, far), has_high,
    )  # fmt: skip
    return [lower, upper]


def _outside(outer: Array, inner: Array, *, sign: int) -> _Piece:
    """Return what lies between an end of q's support and that of p's further in; empty where there is nothing."""
    exists = (sign * outer > sign * inner) & jnp.isfinite(inner)
    bounded = exists & jnp.isfinite(outer)
    a, b = jnp.where(bounded, outer, jnp.zeros_like(outer)), jnp.where(exists, inner, jnp.zeros_like(inner))
    a, b = jnp.where(jnp.isfinite(a), a, jnp.zeros_like(b)), jnp.where(jnp.isfinite(b), b, jnp.zeros_like(b))
    one, zero = jnp.ones_like(b), jnp.zeros_like(b)
    length = jnp.where(bounded, jnp.abs(a - b), jnp.where(exists, jnp.full_like(b, jnp.inf), zero))
    return _Piece(jnp.where(bounded, a, b), jnp.where(bounded, -sign * one, sign * one), zero, length, bounded)


def _cut_at(pieces: _Piece, marks: Array, jumps: Array, exact: bool) -> tuple[Mesh, Mesh]:  # noqa: FBT001
    """Cut pieces at the marks and, toward an end where the density may be singular, geometrically."""
    dtype, hold = marks.dtype, jax.lax.stop_gradient
    end, sign = pieces.end[:, None], pieces.sign[:, None]  # axes: piece, edge, batch
    distances = hold(sign * (marks[None] - end))
    reach = jnp.max(jnp.where(jnp.isfinite(distances), distances, jnp.zeros_like(distances)), axis=1, keepdims=True)
    start, stop = pieces.start[:, None], pieces.stop[:, None]
    bounded = jnp.isfinite(stop)
    last = jnp.where(bounded, stop, jnp.maximum(reach, start))
    # A library rounds x to its digits; closer to an end than that there is nothing to be seen.
    least = jnp.full_like(end, smallest(dtype))
    if not exact:
        least = jnp.maximum(least, 8 * float(np.finfo(dtype).eps) * jnp.abs(hold(end)))
    at_end = pieces.is_end[:, None] & (start == 0)
    first = jnp.where(at_end, hold(jnp.minimum(least, last)), jnp.minimum(start, last))
    powers = jnp.asarray(RATIO ** -np.arange(1.0, 2 * _levels(dtype) + 1), dtype)
    powers = powers.reshape((1, -1, *(1,) * (end.ndim - 2)))
    graded = jnp.where(pieces.is_end[:, None], hold(last) * powers, jnp.zeros_like(last))
    inner = jnp.clip(jnp.concatenate([distances, graded], axis=1), hold(first), hold(last))
    # Everything moves with the ends and is stretched between them; jumps of densities move as they do.
    length = hold(last - first)
    some = length > 0
    share = (inner - hold(first)) / jnp.where(some, length, jnp.ones_like(length))
    moved = (last - hold(last)) * share + (first - hold(first)) * (1 - share)
    inner = inner + jnp.where(some, moved, jnp.zeros_like(moved))
    spare = jnp.broadcast_to(last, (last.shape[0], SPARE, *last.shape[2:]))  # empty ones, for halves
    parts = [inner, first, spare]
    if jumps.shape[0]:
        at_jumps = sign * (jumps[None] - end)
        at_jumps = jnp.where(at_jumps >= last, last, jnp.where(at_jumps <= first, first, at_jumps))
        # A mark at a jump moves with it: no panel is so narrow that rounding takes its nodes across.
        gaps = hold(inner)[:, :, None] - hold(at_jumps)[:, None]
        equal = _close(gaps, hold(end)[:, None], hold(jumps)[None, None])
        nearest = jnp.take_along_axis(at_jumps, jnp.argmax(equal, axis=2), axis=1)
        parts = [jnp.where(jnp.any(equal, axis=2), nearest, inner), at_jumps, first, spare]
    edges = jnp.concatenate(parts, axis=1)
    edges = jnp.take_along_axis(edges, jnp.argsort(hold(edges), axis=1), axis=1)

    def flat(low: Array, high: Array) -> Mesh:
        ends, signs = (jnp.broadcast_to(v, low.shape) for v in (end, sign))
        return Mesh(*(v.reshape((-1, *v.shape[2:])) for v in (low, high, ends, signs)))

    # At an inner end from `first` outward, at the outer end inward.
    none = jnp.zeros_like(last)
    inward = [jnp.where(at_end, first * factor, none) for factor in (1, RATIO)]
    outward = [jnp.where(bounded, none, last / factor) for factor in (1, RATIO)]
    beyond = [jnp.concatenate(pair, axis=1) for pair in zip(inward, outward, strict=True)]
    return flat(edges[:, :-1], edges[:, 1:]), jax.tree.map(hold, flat(*beyond))


def uncut(panels: Mesh) -> Cut:
    """Return every panel whole."""
    count, ones = panels.low.shape[0], jnp.ones_like(panels.low)
    index = jnp.arange(count, dtype=jnp.int32).reshape((-1, *(1,) * (panels.low.ndim - 1)))
    return Cut(jnp.broadcast_to(index, panels.low.shape), jnp.zeros_like(ones), ones)


def points_of(panels: Mesh, cut: Cut) -> tuple[Points, Array, Array]:
    """Return the nodes of every part in one leading axis (all parts of the first node first), lengths, and log units.

    The unit of a node is its distance, rounded in the logarithm: densities in these units neither over- nor underflow.
    """
    low, high, end, sign = (jnp.take_along_axis(v, cut.panel, axis=0) for v in panels)
    length = high - low
    at = jnp.asarray(NODES, low.dtype).reshape((-1, *(1,) * low.ndim))
    inside = cut.start[None] + at * (cut.stop - cut.start)[None]
    # Never at 0 itself, where only empty panels are.
    distance = jnp.maximum(low[None] + length[None] * inside, smallest(low.dtype))
    end, sign = (jnp.broadcast_to(v[None], distance.shape) for v in (end, sign))
    points = Points(*(v.reshape((-1, *v.shape[2:])) for v in (end + sign * distance, end, sign, distance)))
    return points, length * (cut.stop - cut.start), log_unit(points)


def log_unit(points: Points) -> Array:
    """Return the logarithm of the distance as a whole number, which adds no rounding to that of a density."""
    return jax.lax.stop_gradient(jnp.round(jnp.log(points.distance)))


def halve(cut: Cut, lengths: Array, scores: Array) -> Cut:
    """Halve the parts with the largest positive scores; the other halves go where parts are empty."""
    count = cut.panel.shape[0]
    size = max(1, count // 12)
    order = jnp.argsort(-jnp.where(lengths > 0, scores, -jnp.ones_like(scores)), axis=0)
    worst, free = order[:size], order[::-1][:size]

    def at(values: Array, index: Array) -> Array:
        return jnp.take_along_axis(values, index, axis=0)

    middle = 0.5 * (at(cut.start, worst) + at(cut.stop, worst))
    split = (at(scores, worst) > 0) & (at(lengths, worst) > 0) & (at(lengths, free) == 0)

    def put(values: Array, index: Array, new: Array) -> Array:
        return jnp.put_along_axis(values, index, jnp.where(split, new, at(values, index)), axis=0, inplace=False)

    return Cut(
        put(cut.panel, free, at(cut.panel, worst)),
        put(cut.start, free, middle),
        put(put(cut.stop, free, at(cut.stop, worst)), worst, middle),
    )


def rule(values: Array, lengths: Array, unit: Array) -> tuple[Array, Array]:
    """Return the integrals over each part, from values at the nodes, and estimates of their errors (as QUADPACK's).

    Args:
        values: several integrands at every node, in units of the node.
        lengths: of the parts.
        unit: logarithm of the units.
    """
    shape = (len(NODES), *lengths.shape)
    weights = jnp.asarray(np.stack([KRONROD, GAUSS]), values.dtype)
    shares = values.reshape((-1, *shape)) * (lengths[None] * jnp.exp(-unit.reshape(shape)))[None]
    shares = jnp.moveaxis(shares, 1, 0)
    fine, coarse = jnp.tensordot(weights, shares, axes=1, precision=jax.lax.Precision.HIGHEST)
    spread = jnp.tensordot(weights[0], jnp.abs(shares - fine[None]), axes=1, precision=jax.lax.Precision.HIGHEST)
    positive = spread > 0
    relative = jnp.abs(fine - coarse) / jnp.where(positive, spread, jnp.ones_like(spread))
    scaled = spread * jnp.minimum(1.0, (200 * relative) ** 1.5)
    return fine, jnp.where(positive, scaled, jnp.zeros_like(scaled))
