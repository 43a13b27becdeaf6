"""The integrand of KL at nodes of a quadrature, and the errors that its rounding makes."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit.divergences._views import Points, View
from vi_kit.kl._compensated import expm1_minus


class Alive(NamedTuple):
    """Which nodes count for p and for q."""

    p: Array
    q: Array


def log_densities(p: View, q: View, points: Points, unit: Array) -> tuple[Array, Array, Alive]:
    """Return the log densities, and where they matter: where a node's whole neighborhood has any mass to speak of."""
    log_p, log_q = p.log_density(points) + unit, q.log_density(points) + unit
    return log_p, log_q, Alive(log_p > floor(log_p), log_q > floor(log_q))


def floor(logs: Array) -> float:
    """Return the logarithm of the mass that is taken to be none."""
    return -60.0 if logs.dtype.itemsize <= 4 else -300.0


def density(logs: Array, counts: Array) -> Array:
    """Return e to the logs where they count, else 0."""
    none = jnp.zeros_like(logs)
    return jnp.where(counts, jnp.exp(jnp.where(counts, logs, none)), none)


def integrand(log_p: Array, log_q: Array, alive: Alive) -> Array:
    """Return p log(p/q) − p + q ≥ 0; what is infinite is left out."""
    none = jnp.zeros_like(log_p)
    both = alive.p & (log_q > -jnp.inf)
    ratio = jnp.where(both, log_q, none) - jnp.where(both, log_p, none)
    p, q = density(log_p, alive.p), density(log_q, alive.q)
    near = jnp.abs(ratio) < 1
    excess = expm1_minus(jnp.where(near, ratio, none))
    return jnp.where(alive.p, jnp.where(near & both, p * excess, (q - p) - p * ratio), q)


def differentiable(p: View, q: View, points: Points, unit: Array, alive: Alive) -> tuple[Array, Array]:
    """Return the log densities with derivatives: taken at a harmless point where they do not matter."""

    def at(side: View, counts: Array) -> Array:
        center = jnp.broadcast_to(side.centers[:1], points.x.shape)
        sign = jnp.where(center >= points.end, jnp.ones_like(center), -jnp.ones_like(center))
        safe = Points(center, points.end, sign, jnp.abs(center - points.end))
        logs = side.log_density(Points(*(jnp.where(counts, a, b) for a, b in zip(points, safe, strict=True))))
        return jnp.where(counts, logs + unit, -jnp.inf)

    return at(p, alive.p), at(q, alive.p | alive.q)  # q matters wherever p does


@jax.custom_jvp
def infinite_where(lost: Array, value: Array) -> Array:
    """Return the value, or +inf where it is lost; the gradient is NaN there."""
    return jnp.where(lost, jnp.full_like(value, jnp.inf), value)


@infinite_where.defjvp
def _infinite_where_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    # No small change makes it finite: the derivative is not silently 0.
    lost, value = primals
    return infinite_where(lost, value), tangents[1] * jnp.where(lost, jnp.nan, jnp.ones_like(value))


def rounding(log_p: Array, log_q: Array, alive: Alive) -> Array:
    """Return what rounding of the log densities may do to the integrand."""
    p, q = density(log_p, alive.p), density(log_q, alive.q)
    sizes = [jnp.where(a, 1 + jnp.abs(v), jnp.zeros_like(v)) for a, v in ((alive.p, log_p), (alive.q & alive.p, log_q))]
    eps = float(np.finfo(p.dtype).eps)
    return eps * (jnp.abs(q - p) * (sizes[0] + sizes[1]) + jnp.minimum(p, q))


def at_edge(log_p: Array, log_q: Array, alive: Alive) -> tuple[Array, Array]:
    """Return p log(p/q) where p is hardly taken to be anything: the far half of that (in the logarithm), the near."""
    level = floor(log_p)
    counts = alive.p & (log_p < 0.6 * level) & (log_q < log_p) & (log_q > -jnp.inf)
    none = jnp.zeros_like(log_p)
    values = density(log_p, counts) * (jnp.where(counts, log_p, none) - jnp.where(counts, log_q, none))
    far = log_p < 0.8 * level
    return jnp.where(far, values, none), jnp.where(far, none, values)


def beyond_edge(far: Array, near: Array) -> tuple[Array, Array]:
    """Return what p log(p/q) has where p is taken to be nothing, from halves of its edge, and an error of that.

    It goes on as a power, which the halves tell. One that hardly falls cannot be told from one that does not at all.
    """
    falls = far < 0.9 * near
    ratio = jnp.where(falls, far, jnp.zeros_like(far)) / jnp.where(falls, near, jnp.ones_like(near))
    left = far * ratio / (1 - ratio)
    left = jnp.where(falls, left, jnp.zeros_like(left))
    return left, jnp.where(falls | (far == 0), 0.5 * left / (1 - ratio), jnp.inf)


def most(log_p: Array, log_q: Array, alive: Alive) -> Array:
    """Return the largest log ratio where p has mass."""
    some = alive.p & (log_q > -jnp.inf)
    none = jnp.zeros_like(log_p)
    return jnp.max(jnp.abs(jnp.where(some, log_p, none) - jnp.where(some, log_q, none)), axis=0)


def unfound(value: Array, p_mass: Array, q_mass: Array, most: Array) -> Array:
    """Return what the mass that was not found may do to the value: nothing is known where it is more than 1%.

    It may be where the log ratio is at its most. A constant error of a log density, which rounding makes, counts by
    its square.
    """
    gap_p, gap_q = jnp.abs(1 - p_mass), jnp.abs(1 - q_mass)
    rounding = 100 * float(np.finfo(value.dtype).eps)
    missing = jnp.maximum(gap_p - rounding, 0) + jnp.maximum(gap_q - rounding, 0)
    error = gap_p * value + missing * (1 + most) + jnp.square(gap_p) + jnp.square(gap_q)
    return jnp.where((gap_p < 0.01) & (gap_q < 0.01), error, jnp.inf)
