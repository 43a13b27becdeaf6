"""Whether two distributions put mass in the same places, which is what makes E_p[q/p] = 1."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vi_kit.divergences import distributions as d
from vi_kit.divergences._arguments import is_distribution, library_of
from vi_kit.divergences._sampling import base_of, components_of, family_of, is_mixture, log_density, parts_of
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


def share_a_fixed_support(p: Distribution, q: Distribution) -> bool:
    """Tell whether no parameter makes a density of one end where the other goes on; assumed of what is not known."""
    if any(isinstance(x, d.Opaque) for x in (p, q)):
        return True
    return is_fixed(p) and _support(p) == _support(q)


def _of_leaves(x: Any) -> list[Any]:
    """Return the supports of all that a distribution is made of: parts, components; an unknown object has none."""
    parts, base = parts_of(x), base_of(x)
    if parts is not None:
        return [found for part in jax.tree.leaves(parts, is_leaf=is_distribution) for found in _of_leaves(part)]
    if base is not None:
        return _of_leaves(base[0])
    if is_mixture(x):
        components = components_of(x)[1]
        each = components if isinstance(components, list | tuple) else [components]
        return [found for component in each for found in _of_leaves(component)]
    family = family_of(x)
    while isinstance(family, d.Independent | d.Sample | d.Mixture):
        family = family.base
    if isinstance(family, d.Opaque):
        return []
    stepped = isinstance(family.support, str) and family.support in _STEPPED
    return [family.support if stepped else _support(family)]


def moves(x: Any) -> bool:
    """Tell whether a parameter may move an end of a density: of the distribution, or of a component."""
    return None in _of_leaves(x)


def has_jumps(x: Any) -> bool:
    """Tell whether a density may jump inside its support: a mixture of components that end at different places."""
    parts, base = parts_of(x), base_of(x)
    if parts is not None:
        return any(has_jumps(part) for part in jax.tree.leaves(parts, is_leaf=is_distribution))
    if base is not None:
        return has_jumps(base[0])
    if not is_mixture(x):
        family = family_of(x)
        return isinstance(family, d.Mixture) and _support(family) is None
    components = components_of(x)[1]
    each = components if isinstance(components, list | tuple) else [components]
    supports = _of_leaves(x)
    return any(map(has_jumps, each)) or None in supports or any(s != supports[0] for s in supports)


def log_density_within(x: Any, family: Distribution, value: Any) -> Array:
    """Return the log density, −∞ at events that x cannot make, where its library gives them a density or NaN.

    NumPyro does not look at the support unless told to validate; gamma densities are NaN below 0 elsewhere.
    """
    supports = _of_leaves(x) if is_mixture(x) else []
    if any(s != supports[0] for s in supports):
        log_weights, components = components_of(x)
        if isinstance(components, list | tuple):
            return _log_mixture(log_weights, [log_density_within(c, family_of(c), value) for c in components])
    ndims = len(family.event_shape) if isinstance(family.event_shape, tuple) else 0
    support = _support(family)
    if isinstance(value, dict | list | tuple):
        return log_density(x, value)
    if library_of(type(x)) == "numpyro":
        beyond, harmless = ~jnp.asarray(x.support(value)), x.support.feasible_like(value)
    elif support in ("positive", "unit"):
        numbers = value < 0 if support == "positive" else (value < 0) | (value > 1)
        beyond = jnp.any(numbers, axis=tuple(range(numbers.ndim - ndims, numbers.ndim)))
        harmless = jnp.full_like(value, 0.5)
    else:
        return log_density(x, value)
    found = log_density(x, jnp.where(beyond.reshape(beyond.shape + (1,) * ndims), harmless, value))
    return jnp.where(beyond, jnp.full_like(found, -jnp.inf), found)


def _log_mixture(log_weights: Array, each: list[Array]) -> Array:
    logs = jnp.stack(jnp.broadcast_arrays(*each), axis=-1) + log_weights
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
