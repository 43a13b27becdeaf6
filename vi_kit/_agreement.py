"""Where dispersed starts ended: which coordinates tell the places apart, and whether a fit has their mass."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vi_kit import _distributions as distributions
from vi_kit._types import Family, Params, Target
from vi_kit.diagnostics._draws import coordinates

_LACK = 3.0  # nats by which log p̃/q is above log Z where q has a twentieth of the mass it should have
_MOST_NAMED = 3


def separate(target: Target, places: Float[np.ndarray, "n dim"]) -> tuple[str, ...]:
    """Say which coordinates are far apart in the places where starts ended, the farthest first; nothing for one place.

    Args:
        target: what was fitted.
        places: points of unconstrained space, in the order of the modes.
    """
    if len(places) == 1:
        return ()
    points = jnp.asarray(places, jnp.result_type(float))
    labels, values = coordinates(jax.device_get(jax.vmap(target.report)(points)), target.layout)
    values = values.astype(np.float64)
    spread = np.ptp(values, axis=0) / np.maximum(np.abs(values).max(axis=0), np.finfo(float).tiny)
    first = [i for i in np.argsort(-spread, kind="stable") if spread[i] > 0][:_MOST_NAMED]
    apart = ", ".join(f"{labels[i]} ({values[:, i].min():.3g} to {values[:, i].max():.3g})" for i in first)
    return (f"several modes, apart in {apart}",) if apart else ()


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
