"""KL between densities: an integral over adaptive panels, with an estimate of its error."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit._estimate import Estimate
from vi_kit.divergences import _quadrature_terms as terms_of
from vi_kit.divergences._panels import NODES, RATIO, ROUNDS, Cut, Mesh, halve, log_unit, mesh, points_of, rule, uncut
from vi_kit.divergences._quadrature_terms import Alive, differentiable, infinite_where, integrand, log_densities
from vi_kit.divergences._views import Points, View


class _Progress(NamedTuple):
    """A cut of the panels, where it should be refined, how good it is, and which nodes count."""

    round: Array
    cut: Cut
    scores: Array
    error: Array
    infinite: Array
    alive: Alive


def integrate(p: View, q: View, held_p: View, held_q: View) -> Estimate:
    """Return the integral; panels are found with the held views, which have no derivatives."""
    panels, beyond = mesh(p, q)
    held = jax.lax.stop_gradient(panels)
    start = uncut(held)
    shape, nodes = p.low.shape, len(NODES) * start.panel.shape[0]
    none, no_nodes = jnp.zeros(shape, bool), jnp.zeros((nodes, *shape), bool)
    zero = jnp.zeros((), jnp.int32)
    first = _Progress(zero, start, jnp.zeros_like(held.low), jnp.zeros_like(p.low), none, Alive(no_nodes, no_nodes))

    def unfinished(progress: _Progress) -> Array:
        return (progress.round < 2) | ((progress.round < ROUNDS) & jnp.any(progress.scores > 0))

    def refine(progress: _Progress) -> _Progress:
        cut = halve(progress.cut, points_of(held, progress.cut)[1], progress.scores)
        return _measure(held_p, held_q, held, beyond, cut, progress.round + 1)

    last = jax.lax.stop_gradient(jax.lax.while_loop(unfinished, refine, first))
    points, lengths, unit = points_of(panels, last.cut)
    log_p, log_q = differentiable(p, q, points, unit, last.alive)
    terms = jnp.stack([integrand(log_p, log_q, last.alive), *terms_of.at_edge(log_p, log_q, last.alive)])
    value, far, near = jnp.sum(rule(terms, lengths, unit)[0], axis=1)
    value = value + terms_of.beyond_edge(far, near)[0]
    count = jnp.full(shape, nodes, value.dtype)
    return Estimate(infinite_where(last.infinite, value), last.error, count)


def _measure(p: View, q: View, panels: Mesh, beyond: Mesh, cut: Cut, round: Array) -> _Progress:
    """Return how good a cut is, and where it should be refined."""
    points, lengths, unit = points_of(panels, cut)
    tails, seen = _both(beyond)
    count = points.x.shape[0]
    every = Points(*(jnp.concatenate(pair) for pair in zip(points, tails, strict=True)))
    far_unit = log_unit(tails)
    log_p, log_q, alive = log_densities(p, q, every, jnp.concatenate([unit, far_unit]))
    values = integrand(log_p, log_q, alive)
    at_ends = values[count:] * jnp.exp(jnp.log(tails.distance) - far_unit)
    left_out, divergent = _left_out(jnp.where(seen, at_ends, jnp.zeros_like(at_ends)))
    log_p, log_q, values, alive = log_p[:count], log_q[:count], values[:count], Alive(*(a[:count] for a in alive))

    eps = float(np.finfo(log_p.dtype).eps)
    lengths_at = jnp.broadcast_to(lengths[None], (len(NODES), *lengths.shape)).reshape(log_p.shape)
    infinite = jnp.any((lengths_at > 0) & alive.p & (log_q == -jnp.inf), axis=0)
    if p.exact and q.exact:
        infinite = infinite | (p.low < q.low) | (p.high > q.high)
    # Rounding of x, in units of what densities vary by there.
    narrow = jnp.minimum(p.narrowest()[1], q.narrowest()[1])[None]
    size = points.distance if p.exact and q.exact else jnp.abs(points.x)
    moved = size / jnp.maximum(jnp.maximum(narrow, lengths_at), points.distance / 8)
    rounding = terms_of.rounding(log_p, log_q, alive) + 2 * eps * jnp.minimum(moved, 1 / eps) * values
    masses = [terms_of.density(v, a) for v, a in zip((log_p, log_q), alive, strict=True)]

    edges = terms_of.at_edge(log_p, log_q, alive)
    parts, errors = rule(jnp.stack([values, *masses, rounding, *edges]), lengths, unit)
    value, p_mass, q_mass, rounded, far, near = jnp.sum(parts, axis=1)
    edge = terms_of.beyond_edge(far, near)[1]
    # A part is refined while its share of the error is more than rounding.
    scores = errors[0] / (eps * (value + eps))[None] + (errors[1] + errors[2]) / (10 * eps)
    scores = jnp.where(scores > 1 / lengths.shape[0], scores, jnp.zeros_like(scores))
    error = jnp.sum(errors[0], axis=0) + 4 * eps * value + rounded + jnp.sum(left_out, axis=0)
    error = error + terms_of.unfound(value, p_mass, q_mass, terms_of.most(log_p, log_q, alive))
    error = error + jnp.where(jnp.isinf(edge), jnp.zeros_like(edge), edge)
    # A tail that does not fall is infinite, unless much of p lies beyond the panels; one that falls so slowly that much
    # is left at their ends is only not known.
    divergent = jnp.any(divergent & (left_out > eps * value[None]), axis=0)
    unknown = divergent | (jnp.isinf(edge) & (far > eps * value))
    error = jnp.where(infinite, jnp.zeros_like(error), jnp.where(unknown, jnp.inf, error))
    return _Progress(round, cut, scores, error, infinite | (divergent & (jnp.abs(1 - p_mass) < 1e-3)), alive)


def _both(beyond: Mesh) -> tuple[Points, Array]:
    """Return both ends of every panel, the far one first, and where there is one."""
    distance = jnp.concatenate([beyond.low, beyond.high])
    end, sign = (jnp.concatenate([v, v]) for v in (beyond.end, beyond.sign))
    safe = jnp.where(distance > 0, distance, jnp.ones_like(distance))
    return Points(end + sign * safe, end, sign, safe), distance > 0


def _left_out(values: Array) -> tuple[Array, Array]:
    """Return what lies beyond the panels if it goes on as a power, and whether that power has no finite integral."""
    far, near = values.reshape((2, -1, *values.shape[1:]))  # in units of the distance
    some = (far > 0) & (near > 0)
    one = jnp.ones_like(far)
    slope = jnp.log(jnp.where(some, near, one) / jnp.where(some, far, one)) / math.log(RATIO)
    slope = jnp.where(some, slope, one)
    return far / jnp.maximum(slope, 1e-3), slope < 1e-3
