"""What a family's distributions offer besides draws and densities: read once a family, by tracing its `dist`."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import Any, NamedTuple, cast

import jax

from vi_kit._types import Family, NormalBase


class Offers(NamedTuple):
    """What a family's distributions offer; None where they do not.

    Attributes:
        num_base: standard normals that a draw is made of.
        num_components: components that can be drawn from one by one.
    """

    num_base: int | None
    num_components: int | None


def offers(family: Family) -> Offers:
    """Return what the distributions of a family offer; nothing is computed."""
    return _offers(cast(Hashable, family))


@functools.lru_cache(maxsize=128)
def _offers(family: Any) -> Offers:
    found: list[Offers] = []

    def look(key: Any) -> Any:
        q = family.dist(family.init(key))
        num_base = q.num_base if isinstance(q, NormalBase) else None
        has_components = hasattr(q, "sample_components") and hasattr(q, "log_weights")
        found.append(Offers(num_base, q.log_weights.shape[0] if has_components else None))
        return key

    jax.eval_shape(look, jax.eval_shape(lambda: jax.random.key(0)))
    return found[0]
