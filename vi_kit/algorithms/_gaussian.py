"""What the algorithms for Gaussians share: means, factors and whitened coordinates."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from vi_kit._arrays import namespace
from vi_kit._types import Event, KeyArray, Params
from vi_kit.families import FullRank, MeanField

Scale: TypeAlias = Float[Array, "dim dim"] | Float[Array, " dim"]  # a lower factor, or standard deviations


def check_gaussian(family: Any) -> None:
    """Refuse a family whose scale is neither a triangular factor nor standard deviations."""
    if not isinstance(family, FullRank | MeanField):
        raise TypeError(f"family: expected vk.families.FullRank or vk.families.MeanField, got {family!r}")


def mean_and_scale(family: FullRank | MeanField, params: Params) -> tuple[Event, Scale]:
    """Read the mean and the lower factor, or the standard deviations, off the parameters."""
    q = family.dist(params)
    return q.loc, q.scale_tri if isinstance(family, FullRank) else q.scale_diag


def with_mean_and_scale(family: FullRank | MeanField, mean: Event, scale: Scale, key: KeyArray) -> Params:
    """Return the parameters of the member with this mean and scale; the key is not used."""
    return family.init(key, mean=mean, scale=scale)


def spread(scale: Scale, rows: Float[Array, "n dim"]) -> Float[Array, "n dim"]:
    """Scale whitened rows: z − m = L ε, row by row."""
    return rows * scale[None] if scale.ndim == 1 else matmul(rows, scale.T)


def pull_back(scale: Scale, rows: Float[Array, "n dim"]) -> Float[Array, "n dim"]:
    """Take gradients in z to gradients in ε: Lᵀ g, row by row."""
    return rows * scale[None] if scale.ndim == 1 else matmul(rows, scale)


def log_determinant(scale: Scale) -> Float[Array, ""]:
    """Return log |L|."""
    xp: Any = namespace(scale)
    total: Array = xp.sum(xp.log(scale if scale.ndim == 1 else xp.diagonal(scale)))
    return total


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every number is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def choose(condition: Bool[Array, ""], new: Any, old: Any) -> Any:
    """Return one of two equal trees."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def matmul(x: Array, y: Array) -> Array:
    """Multiply matrices without rounding the factors, as accelerators do."""
    if isinstance(x, np.ndarray):
        return x @ y
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)
