"""Structural rules: a divergence of what is made of parts, from the divergences of the parts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from vi_kit.divergences._rules import NoClosedForm, require
from vi_kit.divergences.distributions import (
    Affine,
    Distribution,
    Independent,
    Joint,
    Masked,
    Mixture,
    Sample,
    Transformed,
)
from vi_kit.divergences.distributions._transforms import same as same_transform

# (p, q) -> the divergence, one value an entry of the common batch: of any pair, and of one kind of structure.
Compare = Callable[[Distribution, Distribution], Array]
Structure = Callable[[Any, Any, Compare], Array]


def independent(p: Independent, q: Independent, compare: Compare) -> Array:
    """Sum over the event axes that both have made of the batch."""
    ndims = min(p.ndims, q.ndims)

    def strip(d: Independent) -> Distribution:
        base: Distribution = d.base.broadcast_to(d.base.batch_shape)
        return base if d.ndims == ndims else Independent(base, d.ndims - ndims)

    values = compare(strip(p), strip(q))
    return jnp.sum(values, axis=tuple(range(values.ndim - ndims, values.ndim)))


def sample(p: Sample, q: Sample, compare: Compare) -> Array:
    """Multiply that of one draw by the number of draws, where both have as many."""
    if p.shape != q.shape:
        raise NoClosedForm(f"draws of shape {p.shape} and {q.shape}")
    return math.prod(p.shape) * compare(p.base, q.base)


def transformed(p: Transformed, q: Transformed, compare: Compare) -> Array:
    """Take off what both sides end with: a KL does not change under an invertible transform."""
    kept = [list(p.transforms), list(q.transforms)]
    equal: Any = True
    while kept[0] and kept[1]:
        found = same_transform(kept[0][-1], kept[1][-1], len(p.batch_shape))
        if found is False:
            break
        equal = found if equal is True else equal & found
        kept[0].pop(), kept[1].pop()
    if len(kept[0]) == len(p.transforms):
        raise NoClosedForm("they are transformed in different ways")
    values = compare(*(Transformed(d.base, tuple(k)) if k else d.base for d, k in zip((p, q), kept, strict=True)))
    return require(values, equal, "their transforms have different parameters")


def joint(p: Joint, q: Joint, compare: Compare) -> Array:
    """Sum over independent parts, which have to be of the same structure."""
    first, second = ([jax.tree.leaves(d.parts, is_leaf=_is_part), _structure_of(d.parts)] for d in (p, q))
    if first[1] != second[1]:
        raise NoClosedForm(f"parts {first[1]} and {second[1]}")
    values = [compare(a, b) for a, b in zip(first[0], second[0], strict=True)]
    return jnp.sum(jnp.stack([jnp.broadcast_to(v, p.batch_shape) for v in values]), axis=0)


def _is_part(x: Any) -> bool:
    return isinstance(x, Distribution)


def _structure_of(parts: Any) -> Any:
    return jax.tree.structure(parts, is_leaf=_is_part)


def masked(p: Masked, q: Masked, compare: Compare) -> Array:
    """Compare where both are unmasked, 0 where both are masked; the masks have to be the same."""
    # Parameters that count for nothing may be anything: they are replaced, or their NaN would reach the gradients.
    values = compare(_fill(p.base, p.mask & q.mask), _fill(q.base, p.mask & q.mask))
    return require(jnp.where(p.mask, values, jnp.zeros_like(values)), p.mask == q.mask, "their masks differ")


def _fill(distribution: Distribution, mask: Bool[Array, "..."]) -> Distribution:
    """Return a distribution of the mask's batch shape with ordinary parameters where the mask is False."""

    def where(value: Array, other: Array) -> Array:
        return jnp.where(_append_axes(mask, jnp.ndim(value) - mask.ndim), value, other)

    distribution = distribution.broadcast_to(mask.shape)
    changes: dict[str, Any] = {k: where(v, c.example(v)) for k, (v, c) in distribution.parameters.items()}
    if isinstance(distribution, Joint):
        return Joint(jax.tree.map(lambda part: _fill(part, mask), distribution.parts, is_leaf=_is_part))
    if isinstance(distribution, Transformed):
        changes["transforms"] = tuple(
            Affine(where(t.loc, jnp.ones_like(t.loc)), where(t.scale, jnp.ones_like(t.scale)))
            if isinstance(t, Affine)
            else t
            for t in distribution.transforms
        )
    if isinstance(distribution, Mixture):
        changes["logits"] = where(distribution.logits, jnp.zeros_like(distribution.logits))
    base = getattr(distribution, "base", None)
    if base is not None:
        batch = base.batch_shape
        inner = _append_axes(mask, len(batch) - mask.ndim)
        changes["base"] = _fill(base, jnp.broadcast_to(inner, batch))
    return dataclasses.replace(distribution, **changes) if changes else distribution  # type: ignore[type-var]


def _append_axes(mask: Array, count: int) -> Array:
    return jnp.reshape(mask, mask.shape + (1,) * count)


STRUCTURES: dict[tuple[type[Distribution], type[Distribution]], Structure] = {
    (Independent, Independent): independent,
    (Sample, Sample): sample,
    (Transformed, Transformed): transformed,
    (Joint, Joint): joint,
    (Masked, Masked): masked,
}
