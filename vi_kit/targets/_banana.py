"""Banana: a wide Gaussian bent along a parabola.

Source: H. Haario, E. Saksman and J. Tamminen, "Adaptive proposal distribution for random walk Metropolis
algorithm", Computational Statistics 14, 1999, with bend 0.03.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from vi_kit._types import KeyArray, Scalar, Target
from vi_kit.targets._make import make_target

_WIDTH = 10.0
_BEND = 0.03


def _ridge(first: Float[Array, ""]) -> Float[Array, ""]:
    return -_BEND * (jnp.square(first) - _WIDTH**2)


def _log_density(x: dict[str, Any]) -> Scalar:
    first, second = x["x"][0], x["x"][1]
    return norm.logpdf(first, 0.0, _WIDTH) + norm.logpdf(second, _ridge(first))


def _sample(key: KeyArray) -> dict[str, Any]:
    standard = jax.random.normal(key, (2,))
    first = _WIDTH * standard[0]
    return {"x": jnp.stack([first, _ridge(first) + standard[1]])}


def banana() -> Target:
    r"""Build the twisted Gaussian in two dimensions, normalized.

    $$x_1 \sim N(0, 10),\quad x_2 \sim N(-0.03\,(x_1^2 - 100), 1)$$

    Both coordinates have mean zero; the second's standard deviation is 4.36.

    Returns:
        The target over {"x": (2,)}; exact draws, log Z = 0.
    """
    return make_target(_log_density, {"x": np.zeros(2)}, sample=_sample, log_normalizer=0.0)
