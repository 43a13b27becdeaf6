"""How a closed form is found: rows of a table, and the wider families in which a family is contained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit.divergences.distributions import Distribution


@dataclasses.dataclass(frozen=True)
class Rule:
    """A row of the table: the divergence of p from q for one pair of families.

    Attributes:
        p: family of p.
        q: family of q.
        function: takes p and q, both with the batch shape of the result, and returns the value in nats, right in
            float32 also where p and q are nearly equal, 0 at equality, +inf where the support demands it.
        formula: the mathematics in one line, for the documentation.
        shared: parameters that must be equal on both sides for there to be a closed form.
        method: how the value is found.
        checked: whether the function itself gives NaN where parameters are out of range: none looks at them again.
    """

    p: type[Distribution]
    q: type[Distribution]
    function: Callable[[Any, Any], Array]
    formula: str
    shared: tuple[str, ...] = ()
    method: str = "closed form"
    checked: bool = False


@dataclasses.dataclass(frozen=True)
class Widening:
    """A family that is contained in another, as the exponential distributions are in the Gamma ones."""

    source: type[Distribution]
    function: Callable[[Any], Distribution | None]
    words: str


class NoClosedForm(NotImplementedError):
    """There is no rule for a pair, or not for these parameters."""


def wider(distribution: Distribution, widenings: Sequence[Widening]) -> Iterator[tuple[int, Distribution]]:
    """Yield the distribution itself and what it is a special case of, with the number of steps to it."""
    level, steps = [distribution], 0
    while level:
        yield from ((steps, d) for d in level)
        found = [w.function(d) for d in level for w in widenings if type(d) is w.source]
        level, steps = [d for d in found if d is not None], steps + 1


def pairs(p: Distribution, q: Distribution, widenings: Sequence[Widening]) -> list[tuple[Distribution, Distribution]]:
    """Return the pairs that p and q can be seen as, the narrowest first."""
    found = [(i + j, a, b) for i, a in wider(p, widenings) for j, b in wider(q, widenings)]
    return [(a, b) for _, a, b in sorted(found, key=lambda x: x[0])]


def apply(rule: Rule, p: Any, q: Any) -> Array:
    """Evaluate a rule: NaN where parameters that it takes to be shared are not."""
    value = rule.function(p, q)
    for name in rule.shared:
        equal = getattr(p, name) == getattr(q, name)
        equal = jnp.all(equal, axis=tuple(range(value.ndim, equal.ndim)))
        value = require(value, equal, f"`{name}` has to be the same on both sides")
    return value


def require(value: Array, equal: Any, words: str) -> Array:
    """Return the value, NaN where what has to be the same is not.

    Raises:
        NoClosedForm: where that is known now.
    """
    if equal is True:
        return value
    if equal is False or not (isinstance(equal, jax.core.Tracer) or np.asarray(equal).all()):
        raise NoClosedForm(words)
    equal = jnp.broadcast_to(equal, value.shape)
    return jnp.where(equal, value, jnp.full_like(value, jnp.nan))
