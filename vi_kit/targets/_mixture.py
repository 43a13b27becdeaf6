"""Mixture: two separate Gaussian bumps of unequal weight and shape, the picture drawn on every whiteboard.

A fit by reverse KL sits on one bump; a fit by forward KL covers both, and the empty middle too.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit._types import KeyArray, Scalar, Target
from vi_kit.targets._make import make_target

_LOG_TWO_PI = math.log(2.0 * math.pi)
_WEIGHTS = [0.65, 0.35]
_MEANS = [[-3.0, -0.5], [3.0, 1.0]]
_SCALE_TRIL = [[[1.0, 0.0], [0.6, 0.8]], [[0.9, 0.0], [-0.5, 0.6]]]


def _log_density(x: dict[str, Any], data: dict[str, Any]) -> Scalar:
    def component(log_weight: Scalar, mean: Any, tril: Any) -> Scalar:
        standard = jax.scipy.linalg.solve_triangular(tril, x["x"] - mean, lower=True)
        log_determinant = jnp.sum(jnp.log(jnp.diagonal(tril)))
        return log_weight - 0.5 * jnp.sum(jnp.square(standard) + _LOG_TWO_PI) - log_determinant

    terms = jax.vmap(component)(data["log_weights"], data["means"], data["scale_tril"])
    return jax.nn.logsumexp(terms)


def _sample(key: KeyArray, data: dict[str, Any]) -> dict[str, Any]:
    which_key, noise_key = jax.random.split(key)
    which = jax.random.categorical(which_key, data["log_weights"])
    standard = jax.random.normal(noise_key, (2,), data["means"].dtype)
    return {"x": data["means"][which] + data["scale_tril"][which] @ standard}


def mixture() -> Target:
    r"""Build a mixture of two Gaussians in the plane, normalized.

    Weights 0.65 and 0.35, means (−3, −0.5) and (3, 1): six standard deviations apart along the first
    coordinate. The heavier bump leans upwards (correlation 0.6), the lighter one is narrower and leans
    downwards (−0.64).

    Returns:
        The target over {"x": (2,)}; exact draws, log Z = 0.
    """
    return make_target(
        _log_density,
        {"x": np.zeros(2)},
        data={
            "log_weights": np.log(_WEIGHTS),
            "means": np.array(_MEANS),
            "scale_tril": np.array(_SCALE_TRIL),
        },
        sample=_sample,
        log_normalizer=0.0,
    )
