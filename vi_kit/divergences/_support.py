"""Where KL is +inf because p puts mass where q has none."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from vi_kit.divergences.distributions import Distribution

# p's support -> supports of q that leave some of it out, whatever the parameters.
EXCLUDED: dict[str, frozenset[str]] = {
    "real": frozenset({"point", "positive", "unit", "interval", "above_scale", "above_loc"}),
    "positive": frozenset({"point", "unit", "interval", "above_scale"}),
    "unit": frozenset({"point", "above_scale"}),
    "above_scale": frozenset({"point", "unit", "interval"}),
    "above_loc": frozenset({"point", "unit", "interval"}),
    "natural": frozenset({"binary", "count", "whole_interval"}),
    "interval": frozenset({"point"}),
    "circle": frozenset({"point"}),
    "vector": frozenset({"point"}),
    "matrix": frozenset({"point"}),
    "simplex": frozenset({"point"}),
    "sphere": frozenset({"point"}),
    "positive_definite": frozenset({"point"}),
}


def excludes(p: str, q: str) -> bool:
    """Tell whether every distribution with support p puts mass outside every support q."""
    return q in EXCLUDED.get(p, frozenset())


def nan_unless_valid(value: Array, *distributions: Distribution) -> Array:
    """Return the value, NaN where a distribution's parameters are out of range.

    By adding 0 or NaN: selecting would hold the gradient's cotangents back for a pass of their own.
    """
    valid = functools.reduce(jnp.logical_and, (jnp.broadcast_to(d.is_valid(), value.shape) for d in distributions))
    return value + jnp.where(valid, jnp.zeros_like(value), jnp.nan)


@jax.custom_jvp
def infinite(parameters: Any, like: Array) -> Array:
    """Return +inf, whatever the parameters; the gradient is NaN: no change of them makes it finite."""
    return jnp.full_like(like, jnp.inf)


@infinite.defjvp
def _infinite_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    _, like = primals
    return jnp.full_like(like, jnp.inf), nan_tangent(tangents[0], like)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def without_gradient(message: str, parameters: Any, value: Array) -> Array:
    """Return the value; a derivative by these parameters is refused as it is traced: the means at hand have none."""
    return value


def _without_gradient_jvp(message: str, primals: Any, tangents: Any) -> tuple[Array, Any]:
    if any(not isinstance(t, SymbolicZero) and t.dtype != jax.dtypes.float0 for t in jax.tree.leaves(tangents[0])):
        raise ValueError(message)
    slope = tangents[1]
    return primals[1], jnp.zeros_like(primals[1]) if isinstance(slope, SymbolicZero) else slope


without_gradient.defjvp(_without_gradient_jvp, symbolic_zeros=True)


def nan_tangent(tangents: Any, like: Array) -> Array:
    """Return NaN, as a linear function of the parameters' tangents."""
    total = jnp.zeros_like(like)
    for tangent in jax.tree.leaves(tangents):
        if tangent.dtype != jax.dtypes.float0:
            total = total + jnp.sum(tangent, axis=tuple(range(like.ndim, tangent.ndim)))
    return total * jnp.nan


def where_contained(value: Array, *margins: Array) -> Array:
    """Return the value where every margin is at least 0, else +inf.

    The gradient of the infinity is not silently 0: −inf times that of every violated margin, so that a step downhill
    brings the support back.

    Args:
        value: the KL where p's support is contained in q's; it may be NaN where it is not, if its inputs were made
            harmless there (otherwise their gradient is NaN).
        margins: how far p's support is within q's, one array for each boundary, of value's shape.
    """
    inside = jnp.ones(value.shape, bool)
    for margin in margins:
        inside = inside & (margin >= 0)
    return _select(value, inside, margins)


@jax.custom_jvp
def _select(value: Array, inside: Array, margins: tuple[Array, ...]) -> Array:
    return jnp.where(inside, value, jnp.full_like(value, jnp.inf))


@_select.defjvp
def _select_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    value, inside, margins = primals
    tangent = tangents[0] * inside.astype(value.dtype)
    for margin, change in zip(margins, tangents[2], strict=True):
        slope = jnp.where(margin < 0, jnp.full_like(value, -jnp.inf), jnp.zeros_like(value))
        tangent = tangent + slope * change
    return _select(value, inside, margins), tangent
