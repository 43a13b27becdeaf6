"""Correlated Gaussian: ten dimensions, condition number 100, no axis along a coordinate."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit._types import KeyArray, Scalar, Target
from vi_kit.targets._make import make_target

_DIM = 10
_LOG_TWO_PI = math.log(2.0 * math.pi)


def _log_density(x: dict[str, Any], data: dict[str, Any]) -> Scalar:
    standard = ((x["x"] - data["mean"]) @ data["axes"]) * jnp.exp(-data["log_scale"])
    return -0.5 * jnp.sum(jnp.square(standard) + _LOG_TWO_PI) - jnp.sum(data["log_scale"])


def _sample(key: KeyArray, data: dict[str, Any]) -> dict[str, Any]:
    standard = jax.random.normal(key, data["mean"].shape, data["mean"].dtype)
    return {"x": data["mean"] + data["axes"] @ (jnp.exp(data["log_scale"]) * standard)}


def correlated_gaussian() -> Target:
    r"""Build N(m, A diag(s²) Aᵀ), normalized.

    m runs evenly from −1 to 1, the standard deviations s along the principal axes from 0.316 to 3.16 in equal
    ratios, and A is the reflection I − 2vvᵀ/‖v‖² with v = (1, …, 10), which mixes every coordinate with every
    other.

    Returns:
        The target over {"x": (10,)}; exact draws, log Z = 0.
    """
    direction = np.arange(1.0, _DIM + 1.0)
    return make_target(
        _log_density,
        {"x": np.zeros(_DIM)},
        data={
            "mean": np.linspace(-1.0, 1.0, _DIM),
            "axes": np.eye(_DIM) - 2.0 * np.outer(direction, direction) / np.sum(direction**2),
            "log_scale": 0.5 * np.log(np.logspace(-1.0, 1.0, _DIM)),
        },
        sample=_sample,
        log_normalizer=0.0,
    )
