"""Whether a fit has the mass that dispersed starts found."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vi_kit import _distributions as distributions
from vi_kit._types import Family, Params

_LACK = 3.0  # nats by which log p̃/q is above log Z where q has a twentieth of the mass it should have


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
