"""Draws of a target with its log density there: exact, from a reference, or importance-weighted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vi_kit import _distributions as distributions
from vi_kit._types import Family, KeyArray, Params, Target, check_key
from vi_kit.diagnostics._draws import BLOCK, draw
from vi_kit.targets._reference import Reference, coordinate_labels

_LEAST_DRAWS = 100


class TargetDraws(NamedTuple):
    """Draws of p, weighted or not.

    Attributes:
        z: flat unconstrained points, shape (n, dim).
        log_p: log p̃ there, shape (n,).
        log_weights: log importance weights p̃/proposal, shape (n,); None where the draws are of p itself.
        source: where they come from, in words.
    """

    z: Float[np.ndarray, "n dim"]
    log_p: Float[np.ndarray, " n"]
    log_weights: Float[np.ndarray, " n"] | None
    source: str


def exact_draws(key: KeyArray, target: Target, num_samples: int) -> TargetDraws:
    """Draw from the target's own sampler.

    Raises:
        NotImplementedError: when it has none.
    """
    check_key(key)
    z = np.concatenate(
        [jax.device_get(_sample(jax.random.fold_in(key, i), target, BLOCK)) for i in range(-(-num_samples // BLOCK))]
    )[:num_samples]
    return TargetDraws(z, _log_p(target, z), None, f"{num_samples:,} exact draws of p")


def reference_draws(target: Target, reference: Reference | None) -> TargetDraws | None:
    """Map reference draws to unconstrained space; None unless every variable is there, inside its support."""
    if reference is None or reference.draws is None:
        return None
    columns = []
    start = 0
    for name, shape in zip(target.layout.names, target.layout.shapes, strict=True):
        labels = coordinate_labels(name or "x", shape)
        if target.layout.labels is not None:
            labels = list(target.layout.labels[start : start + len(labels)])
            start += len(labels)
        if any(label not in reference.draws for label in labels):
            return None
        stacked = np.stack([np.asarray(reference.draws[label]) for label in labels], axis=1)
        columns.append(jnp.asarray(stacked.reshape(-1, *shape), jnp.result_type(float)))
    z = np.asarray(_unconstrain(target, target.layout.treedef.unflatten(columns)))
    if len(z) < _LEAST_DRAWS or not np.isfinite(z).all():
        return None
    log_p = _log_p(target, z)
    if not np.isfinite(log_p).all():
        return None
    return TargetDraws(z, log_p, None, f"{len(z):,} reference draws of p")


def weighted_draws(
    key: KeyArray, target: Target, proposals: Sequence[tuple[Family, Params]], num_samples: int
) -> TargetDraws:
    """Draw from an equal mixture of approximations and weight by p̃ over the mixture's density.

    One proposal that covers the target is enough: no weight is more than their number times its own weight.

    Args:
        key: a typed key.
        target: p.
        proposals: fitted (family, params) pairs.
        num_samples: draws of each.
    """
    check_key(key)
    z = np.concatenate(
        [
            draw(jax.random.fold_in(key, i), target, family, params, num_samples, with_density=False).z
            for i, (family, params) in enumerate(proposals)
        ]
    )
    log_p = _log_p(target, z)
    log_q = np.stack([log_q_at(family, params, z) for family, params in proposals])
    log_mixture = np.logaddexp.reduce(log_q, axis=0) - math.log(len(proposals))
    words = "the fit" if len(proposals) == 1 else f"{len(proposals)} fits together"
    return TargetDraws(z, log_p, log_p - log_mixture, f"{len(z):,} importance-weighted draws of {words}")


def _in_blocks(function: Any, z: np.ndarray) -> np.ndarray:
    """Evaluate in blocks of one compiled size; the last one is filled up with its first point."""
    parts = []
    for start in range(0, len(z), BLOCK):
        block = z[start : start + BLOCK]
        filled = np.concatenate([block, np.repeat(block[:1], BLOCK - len(block), axis=0)])
        parts.append(np.asarray(jax.device_get(function(filled)), np.float64)[: len(block)])
    return np.concatenate(parts)


def _log_p(target: Target, z: np.ndarray) -> np.ndarray:
    return _in_blocks(partial(_log_density, target), z)


def log_q_at(family: Family, params: Params, z: np.ndarray) -> np.ndarray:
    """Evaluate log q at points of unconstrained space, on the host, in float64."""
    return _in_blocks(partial(_log_prob, params, family=family), z)


@partial(jax.jit, static_argnames=("size",))
def _sample(key: KeyArray, target: Target, size: int) -> Array:
    return jax.vmap(lambda k: target.unconstrain(target.sample(k)))(jax.random.split(key, size))


@jax.jit
def _unconstrain(target: Target, x: object) -> Array:
    return jax.vmap(target.unconstrain)(x)


@jax.jit
def _log_density(target: Target, z: Array) -> Array:
    return jax.vmap(target.log_density)(z)


@partial(jax.jit, static_argnames=("family",))
def _log_prob(params: Params, z: Array, family: Family) -> Array:
    return jax.vmap(lambda event: distributions.log_prob(family.dist(params), event))(z)
