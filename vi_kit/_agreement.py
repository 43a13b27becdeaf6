"""Where dispersed starts ended: which coordinates tell the places apart, and whether a fit has their mass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vi_kit import _distributions as distributions
from vi_kit._types import Family, Params, Target
from vi_kit.diagnostics._draws import coordinates

_LACK = 3.0  # nats by which log p̃/q is above log Z where q has a twentieth of the mass it should have
_MOST_NAMED = 3
_APART, _LOOKS = 2.0, 32  # widths of a mode, and the points that tell them


def separate(
    target: Target, places: Float[np.ndarray, "n dim"], spreads: Sequence[Float[np.ndarray, "..."]]
) -> tuple[str, ...]:
    """Say which coordinates are far apart in the places where starts ended, for their width; nothing for one place.

    Args:
        target: what was fitted.
        places: means of the modes, in unconstrained space.
        spreads: their lower factors or standard deviations.
    """
    if len(places) == 1:
        return ()
    noise = np.random.default_rng(0).normal(size=(_LOOKS, places.shape[1]))
    around = np.stack([m + (noise * s if s.ndim == 1 else noise @ s.T) for m, s in zip(places, spreads, strict=True)])
    points = jnp.asarray(np.concatenate([places, *around]), jnp.result_type(float))
    labels, values = coordinates(jax.device_get(_report(target, points)), target.layout)
    values = values.astype(np.float64)
    centers, others = values[: len(places)], values[len(places) :].reshape(len(places), _LOOKS, -1)
    widths = np.sqrt(np.mean(np.var(others, axis=1), axis=0))
    apart = np.ptp(centers, axis=0) / np.maximum(widths, np.finfo(float).tiny)
    first = [i for i in np.argsort(-apart, kind="stable") if apart[i] > _APART][:_MOST_NAMED]
    named = ", ".join(f"{labels[i]} ({centers[:, i].min():.3g} to {centers[:, i].max():.3g})" for i in first)
    return (f"several modes, apart in {named}",) if named else ()


def coordinates_at(target: Target, points: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n m"]:
    """Return the coordinates that a report has, derived ones included, at points of unconstrained space."""
    placed = jax.device_get(_report(target, jnp.asarray(points, jnp.result_type(float))))
    return coordinates(placed, target.layout)[1].astype(np.float64)


@jax.jit
def _report(target: Target, points: Float[Array, "n dim"]) -> Any:
    return jax.vmap(target.report)(points)


def lacking(
    family: Family,
    params: Params,
    places: Float[np.ndarray, "n dim"],
    heights: Float[np.ndarray, " n"],
    log_normalizer: float,
) -> int:
    """Return at how many places, where starts ended, q has too little: there p̃/q is far above its mean, Z.

    Args:
        family: the family of q.
        params: its parameters.
        places: the points.
        heights: log p̃ there.
        log_normalizer: log Z.
    """
    log_q = np.asarray(_log_density(family, params, jnp.asarray(places, jnp.result_type(float))), np.float64)
    return int(np.sum(~(heights - log_q <= log_normalizer + _LACK)))


@partial(jax.jit, static_argnums=(0,))
def _log_density(family: Family, params: Params, points: Float[Array, "n dim"]) -> Float[Array, " n"]:
    q = family.dist(params)
    return jax.vmap(lambda z: distributions.log_prob(q, z))(points)
