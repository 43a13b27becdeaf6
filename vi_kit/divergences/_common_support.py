"""Whether two distributions put mass in the same places, which is what makes E_p[q/p] = 1."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vi_kit.divergences import distributions as d
from vi_kit.divergences._arguments import is_distribution, library_of
from vi_kit.divergences._sampling import base_of, components_of, family_of, is_mixture, parts_of
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
}


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


def share_a_fixed_support(p: Distribution, q: Distribution) -> bool:
    """Tell whether no parameter makes a density of one end where the other goes on; assumed of what is not known."""
    if any(isinstance(x, d.Opaque) for x in (p, q)):
        return True
    return is_fixed(p) and _support(p) == _support(q)


def has_jumps(x: Any) -> bool:
    """Tell whether a density may jump inside its support: a mixture of components that end at different places."""
    parts = parts_of(x)
    if parts is not None:
        return any(has_jumps(part) for part in jax.tree.leaves(parts, is_leaf=is_distribution))
    base = base_of(x)
    if base is not None:
        return has_jumps(base[0])
    if not is_mixture(x):
        family = family_of(x)
        return isinstance(family, d.Mixture) and _support(family) is None
    components = components_of(x)[1]
    each = components if isinstance(components, list | tuple) else [components]
    families = [family for family in map(family_of, each) if not isinstance(family, d.Opaque)]
    supports = [_support(family) for family in families]
    return any(has_jumps(c) for c in each) or None in supports or len(set(supports)) > 1


def outside(x: Any, family: Distribution, value: Any) -> Array | None:
    """Tell which events a distribution cannot make, where its library gives them a density or NaN.

    NumPyro does not look at the support unless told to validate; gamma densities are NaN below 0 elsewhere.
    """
    if library_of(type(x)) == "numpyro":
        return ~jnp.asarray(x.support(value))
    ndims = len(family.event_shape) if isinstance(family.event_shape, tuple) else 0
    support = _support(family)
    if support not in ("positive", "unit") or isinstance(value, dict | list | tuple):
        return None
    found = value < 0 if support == "positive" else (value < 0) | (value > 1)
    return jnp.any(found, axis=tuple(range(found.ndim - ndims, found.ndim)))


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
