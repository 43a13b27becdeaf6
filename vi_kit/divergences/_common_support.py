"""Whether two distributions put mass in the same places, which is what makes E_p[q/p] = 1."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vi_kit.divergences import distributions as d
from vi_kit.divergences._arguments import flatten, is_a, library_of
from vi_kit.divergences._ends import ends_of, fixed_ends, is_number
from vi_kit.divergences._sampling import (
    base_of,
    components_of,
    family_of,
    is_mixture,
    log_density,
    parts_of,
    sum_last,
)
from vi_kit.divergences._support import excludes
from vi_kit.divergences.distributions import Distribution

_EVERYWHERE = {"real", "vector", "matrix"}
# Supports that no parameter changes, unless a probability is 0.
_FIXED = {
    "positive",
    "unit",
    "circle",
    "simplex",
    "sphere",
    "positive_definite",
    "natural",
    "binary",
    "classes",
    "one_hot",
    "pair",
}
# Supports of whole numbers, whose ends no derivative moves.
_STEPPED = {"count", "counts", "whole_interval"}


def _is_family(value: Any) -> bool:
    return isinstance(value, Distribution)


def _support(family: Distribution) -> Any:
    """Return a name that is the same for equal supports of events of equal shape; None where it is not known."""
    if isinstance(family, d.Joint):
        parts = [_support(part) for part in jax.tree.leaves(family.parts, is_leaf=_is_family)]
        return None if None in parts else tuple(parts)
    if isinstance(family, d.Independent | d.Sample | d.Mixture):
        return _support(family.base)
    found = family.support
    if isinstance(family, d.Transformed) and found == "unknown" and not jax.tree.leaves(family.transforms):
        base = _support(family.base)
        return None if base is None else (base, jax.tree.structure(family.transforms))
    return "everywhere" if found in _EVERYWHERE else found if found in _FIXED else None


def _all_possible(family: Distribution) -> Array:
    """Tell of each entry of the batch whether no outcome of a discrete distribution has probability 0."""
    if isinstance(family, d.Joint):
        parts = [_all_possible(part) for part in jax.tree.leaves(family.parts, is_leaf=_is_family)]
        return jnp.stack([jnp.broadcast_to(p, family.batch_shape) for p in parts]).all(axis=0)
    if isinstance(family, d.Independent | d.Sample | d.Mixture):
        inner = _all_possible(family.base)
        return jnp.all(inner, axis=tuple(range(len(family.batch_shape), inner.ndim)))
    possible = jnp.ones(family.batch_shape, bool)
    for name, (value, constraint) in family.parameters.items():
        if name in ("probs", "logits", "rate") and family.support in ("natural", "binary", "classes", "one_hot"):
            found = jnp.isfinite(value) if name == "logits" else value > 0
            if name == "probs" and not constraint.core_ndims:
                found = found & (value < 1)
            possible = possible & jnp.all(found, axis=tuple(range(value.ndim - constraint.core_ndims, value.ndim)))
    return possible


def is_fixed(family: Distribution) -> bool:
    """Tell whether no parameter moves the support, so that the score of the density has mean 0."""
    return _support(family) is not None


def contained(p: Distribution, q: Distribution) -> Array | None:
    """Tell of each entry of p's batch whether p > 0 wherever q > 0; None where that is not known to hold."""
    support = _support(p)
    return None if support is None or support != _support(q) else _all_possible(p)


def _of_leaves(x: Any) -> list[Any]:
    """Return the supports of all that a distribution is made of: parts, components; None for one that may move."""
    parts, base = parts_of(x), base_of(x)
    if parts is not None:
        return [found for part in flatten(parts)[0] for found in _of_leaves(part)]
    if base is not None:
        return _of_leaves(base[0])
    if is_mixture(x):
        components = components_of(x)[1]
        each = components if isinstance(components, list | tuple) else [components]
        return [found for component in each for found in _of_leaves(component)]
    whole = family = family_of(x)
    while isinstance(family, d.Independent | d.Sample | d.Mixture):
        family = family.base
    if isinstance(family.support, str) and family.support in _STEPPED:
        return [family.support]
    found = _support(family)
    if found is None and is_number(whole, x):
        ends = fixed_ends(x)
        found = None if ends is None else _NAMED.get(ends, ends)
    elif isinstance(family, d.Opaque):
        found = "not told"
    return [found]


_NAMED = {(-math.inf, math.inf): "everywhere", (0.0, math.inf): "positive", (0.0, 1.0): "unit"}


def share_a_fixed_support(p: Any, q: Any) -> bool:
    """Tell whether no density ends where the other goes on, whatever the parameters; assumed where nothing is told."""
    first, second = _of_leaves(p), _of_leaves(q)
    if None in (*first, *second):
        return False
    return first == second or "not told" in (*first, *second) or all(s == first[0] for s in (*first, *second))


def moves(x: Any) -> bool:
    """Tell whether a parameter may move an end of a density: of the distribution, or of a component."""
    return None in _of_leaves(x)


def has_jumps(x: Any) -> bool:
    """Tell whether a density may jump inside its support: a mixture of components that end at different places."""
    parts, base = parts_of(x), base_of(x)
    if parts is not None:
        return any(map(has_jumps, flatten(parts)[0]))
    if base is not None:
        return has_jumps(base[0])
    if not is_mixture(x):
        family = family_of(x)
        return isinstance(family, d.Mixture) and _support(family) is None
    components = components_of(x)[1]
    each = components if isinstance(components, list | tuple) else [components]
    supports = _of_leaves(x)
    return any(map(has_jumps, each)) or None in supports or any(s != supports[0] for s in supports)


def is_leaf(x: Any) -> bool:
    """Tell whether a distribution is not made of others that this looks into."""
    return parts_of(x) is None and base_of(x) is None and not is_mixture(x) and not is_a(x, "Sample")


def log_density_within(x: Any, value: Any) -> Array:
    """Return the log density, −∞ at events that x cannot make: the libraries go on there, or give NaN.

    NumPyro does not look at the support unless told to validate; classes that do not exist are taken for others.
    """
    parts, base = parts_of(x), base_of(x)
    if parts is not None:
        leaves, structure = flatten(parts)
        each = zip(leaves, structure.flatten_up_to(value), strict=True)
        return sum((log_density_within(part, v) for part, v in each), start=jnp.zeros(()))
    if base is not None:
        return sum_last(log_density_within(base[0], value), base[1])  # type: ignore[no-any-return]
    if is_a(x, "Sample"):
        ndims = len(tuple(x.distribution.event_shape))
        repeats = len(tuple(x.event_shape)) - ndims
        axes = tuple(range(-repeats - ndims, -ndims))
        first = jnp.moveaxis(value, axes, range(repeats))
        return jnp.sum(log_density_within(x.distribution, first), axis=tuple(range(repeats)))
    family = family_of(x)
    if is_mixture(x) and any(s != "everywhere" for s in _of_leaves(x)):
        log_weights, components = components_of(x)
        if isinstance(components, list | tuple):
            return _log_mixture(
                log_weights,
                jnp.stack(jnp.broadcast_arrays(*(log_density_within(c, value) for c in components)), axis=-1),
            )
        ndims = len(tuple(x.event_shape))
        return _log_mixture(log_weights, log_density_within(components, jnp.expand_dims(value, -1 - ndims)))
    inside = _inside(x, family, value)
    if inside is None:
        return log_density(x, value)
    holds, harmless = inside
    ndims = jnp.ndim(value) - holds.ndim
    found = log_density(x, jnp.where(holds.reshape(holds.shape + (1,) * ndims), value, harmless))
    return jnp.where(holds, found, jnp.full_like(found, -jnp.inf))


def _inside(x: Any, family: Distribution, value: Any) -> tuple[Array, Array] | None:
    """Tell which events x can make, and return one that it can; None where nothing is known that it cannot."""
    if isinstance(value, dict | list | tuple):
        return None
    if is_number(family, x):
        low, high = ends_of(x)
        if all(isinstance(end, float) and math.isinf(end) for end in (low, high)):
            return None
        middle = jnp.where(jnp.isinf(low), high - 1, jnp.where(jnp.isinf(high), low + 1, 0.5 * (low + high)))
        if not jnp.issubdtype(value.dtype, jnp.floating) or _is_stepped(family):
            middle = jnp.where(jnp.isinf(low), high, low)
        holds = (value >= low) & (value <= high)
        return holds, jax.lax.stop_gradient(jnp.asarray(middle).astype(value.dtype))
    if library_of(type(x)) == "numpyro":
        return jnp.asarray(x.support(value)), x.support.feasible_like(value)
    support = _support(family)
    if support not in ("positive", "unit"):
        return None
    ndims = len(family.event_shape)
    numbers = value >= 0 if support == "positive" else (value >= 0) & (value <= 1)
    return jnp.all(numbers, axis=tuple(range(numbers.ndim - ndims, numbers.ndim))), jnp.full_like(value, 0.5)


def _is_stepped(family: Distribution) -> bool:
    return family.support in (*_STEPPED, "natural", "binary", "classes")


def _log_mixture(log_weights: Array, each: Array) -> Array:
    logs = each + log_weights
    some = jnp.any(logs > -jnp.inf, axis=-1)
    found = jax.nn.logsumexp(jnp.where(some[..., None], logs, jnp.zeros_like(logs)), axis=-1)
    return jnp.where(some, found, jnp.full_like(found, -jnp.inf))


def is_excluded(p: Distribution, q: Distribution) -> bool:
    """Tell whether p has mass outside the support of q whatever the parameters: KL is +inf."""
    if isinstance(p, d.Joint) and isinstance(q, d.Joint):
        pairs = zip(*(jax.tree.leaves(x.parts, is_leaf=_is_family) for x in (p, q)), strict=True)
        return any(is_excluded(a, b) for a, b in pairs)
    while isinstance(p, d.Independent | d.Mixture | d.Sample):
        p = p.base
    while isinstance(q, d.Independent | d.Mixture | d.Sample):
        q = q.base
    return excludes(p.support, q.support)
