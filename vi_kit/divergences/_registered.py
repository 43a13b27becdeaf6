"""Pairs that a user registers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vi_kit.divergences import distributions as d
from vi_kit.divergences._readers import read

Function = Callable[[Any, Any], Any]
_Function = TypeVar("_Function", bound=Function)

_REGISTERED: dict[tuple[type, type], Function] = {}


def register_kl(p: type, q: type) -> Callable[[_Function], _Function]:
    """Register a closed form of KL(p‖q) for a pair of distribution classes, subclasses included.

    The nearest registered classes win, and any registered pair wins over the table, also as parts of Independent,
    Joint and the like.

    Args:
        p: class of the distribution the mean is taken over.
        q: class of the other one.

    Returns:
        a decorator of the function (p, q) -> KL in nats, one value an entry of the batch.

    Raises:
        TypeError: where p or q is no class.
        ValueError: where the pair is registered already.

    Example:
        >>> import jax.numpy as jnp, vi_kit as vk
        >>> class Spike:
        ...     def __init__(self, loc): self.loc = jnp.asarray(loc)
        ...     def log_prob(self, x): return -100 * jnp.abs(x - self.loc)
        >>> @vk.register_kl(Spike, Spike)
        ... def spike_spike(p, q):
        ...     return jnp.abs(p.loc - q.loc)
        >>> float(vk.kl_divergence(Spike(1.0), Spike(3.0)))
        2.0
    """
    for name, kind in (("p", p), ("q", q)):
        if not isinstance(kind, type):
            raise TypeError(f"{name}: expected a class of distributions, got an instance of {type(kind).__name__}")

    def register(function: _Function) -> _Function:
        before = _REGISTERED.get((p, q))
        if before is not None and (before.__module__, before.__qualname__) != (
            function.__module__,
            function.__qualname__,
        ):
            raise ValueError(
                f"register_kl: the pair ({p.__name__}, {q.__name__}) is registered already, as {before.__qualname__}"
            )
        _REGISTERED[p, q] = function
        return function

    return register


def registered_parts(p: d.Distribution, q: d.Distribution) -> Array | None:
    """Return what a registered function says of two parts that have been left as the objects they are."""
    if not (isinstance(p, d.Opaque) or isinstance(q, d.Opaque)):
        return None
    first, second = (x.distribution if isinstance(x, d.Opaque) else x for x in (p, q))
    function = registered(first, second)
    return None if function is None else jnp.asarray(function(first, second))


def opened(p: d.Distribution, q: d.Distribution) -> tuple[d.Distribution, d.Distribution] | None:
    """Read parts that were left as objects for the sake of others; None where that brings nothing new."""
    found = [read(x.distribution) if isinstance(x, d.Opaque) else x for x in (p, q)]
    if any(isinstance(x, d.Opaque) for x in found) or (found[0] is p and found[1] is q):
        return None
    return found[0], found[1]


def is_registered_within(p: d.Distribution, q: d.Distribution) -> bool:
    """Tell whether some part of p with some part of q is a registered pair."""
    parts = [[x.distribution if isinstance(x, d.Opaque) else x for x in _nodes(whole)] for whole in (p, q)]
    return any(registered(a, b) is not None for a in parts[0] for b in parts[1])


def _nodes(distribution: d.Distribution) -> Iterator[d.Distribution]:
    yield distribution
    for child in children(distribution):
        yield from _nodes(child)


def children(distribution: d.Distribution) -> list[d.Distribution]:
    """Return the distributions that one is made of."""
    inner = getattr(distribution, "base", getattr(distribution, "parts", None))
    leaves = jax.tree.leaves(inner, is_leaf=lambda x: isinstance(x, d.Distribution))
    return [x for x in leaves if isinstance(x, d.Distribution)]


def registered_classes() -> frozenset[type]:
    """Return the classes that some pair is registered for."""
    return frozenset(kind for pair in _REGISTERED for kind in pair)


def registered(p: Any, q: Any) -> Function | None:
    """Return the function registered for the nearest classes of p and q."""
    found = [
        (i + j, function)
        for i, a in enumerate(type(p).__mro__)
        for j, b in enumerate(type(q).__mro__)
        if (function := _REGISTERED.get((a, b))) is not None
    ]
    return min(found, key=lambda x: x[0])[1] if found else None
