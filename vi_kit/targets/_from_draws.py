"""Targets known only by draws."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, PyTree

from vi_kit._static import Static
from vi_kit._types import Target
from vi_kit.targets._make import make_target


def _no_density(x: Any) -> Any:
    raise NotImplementedError("this target was made from draws and has no log density")


def from_draws(draws: PyTree, *, log_weights: ArrayLike | None = None, support: PyTree = None) -> Target:
    """Build a target from draws of it: MCMC output, a teacher's samples, a weighted set.

    Such a target has no density: it is fitted by forward KL, and the report compares moments only.

    Args:
        draws: a pytree whose leaves have a leading axis of n draws, in the user's own space.
        log_weights: log importance weights up to a constant, shape (n,); equal where none are given.
        support: where variables live, as in `make_target`.

    Returns:
        The target.

    Raises:
        ValueError: when the leaves differ in the number of draws, a draw lies outside its support, or no weight is
            positive.

    Example:
        >>> import jax, vi_kit as vk
        >>> draws = 3.0 + 2.0 * jax.random.normal(jax.random.key(0), (1_000, 2))
        >>> posterior = vk.fit(jax.random.key(1), vk.targets.from_draws(draws), num_steps=200, progress=False)
        >>> bool(abs(posterior.mean - draws.mean(axis=0)).max() < 0.3)
        True
    """
    arrays = jax.tree.map(lambda leaf: _floating(jnp.asarray(leaf)), draws)
    lengths = {leaf.shape[:1] for leaf in jax.tree.leaves(arrays)}
    if len(lengths) != 1 or () in lengths or (0,) in lengths:
        raise ValueError(
            f"draws: expected leaves with one common leading axis of draws, got leading axes {sorted(lengths)}"
        )
    (count,) = lengths.pop()
    if log_weights is not None:
        log_weights = _floating(jnp.asarray(log_weights))
        if log_weights.shape != (count,):
            raise ValueError(f"log_weights: expected one a draw, shape ({count},), got {log_weights.shape}")
        values = np.asarray(log_weights)
        if np.isnan(values).any() or not (values > -np.inf).any() or (values == np.inf).any():
            raise ValueError("log_weights: expected numbers or −inf with at least one positive weight")
    first = jax.tree.map(lambda leaf: leaf[0], arrays)
    made = make_target(_no_density, first, support=support)
    target = dataclasses.replace(made, log_density_function=Static(None), draws=arrays, draws_log_weights=log_weights)
    z = jax.vmap(target.unconstrain)(arrays)
    if not bool(jnp.all(jnp.isfinite(z))):
        raise ValueError("draws: some lie outside the support, on its edge, or are not finite")
    return target


def _floating(array: jax.Array) -> jax.Array:
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.result_type(float))
