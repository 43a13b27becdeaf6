"""Funnel: a log variance and nine variables that share it, the neck no single scale fits.

Source: R. M. Neal, "Slice sampling", Annals of Statistics 31, 2003, section 8.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

from vi_kit._types import KeyArray, Scalar, Target
from vi_kit.targets._make import make_target

_NUM_X = 9
_LOG_VARIANCE_SCALE = 3.0
_LOG_TWO_PI = math.log(2.0 * math.pi)


def _log_density(x: dict[str, Any]) -> Scalar:
    log_variance = x["log_variance"]
    # x·exp(−v/2) is squared, not x²·exp(−v): neither factor leaves float32's range.
    standard = x["x"] * jnp.exp(-0.5 * log_variance)
    log_conditional = -0.5 * jnp.sum(jnp.square(standard) + log_variance + _LOG_TWO_PI)
    return norm.logpdf(log_variance, 0.0, _LOG_VARIANCE_SCALE) + log_conditional


def _sample(key: KeyArray) -> dict[str, Any]:
    standard = jax.random.normal(key, (1 + _NUM_X,))
    log_variance = _LOG_VARIANCE_SCALE * standard[0]
    return {"log_variance": log_variance, "x": jnp.exp(0.5 * log_variance) * standard[1:]}


def funnel() -> Target:
    r"""Build Neal's funnel in ten dimensions, normalized.

    $$\mathrm{log\_variance} \sim N(0, 3),\quad x_i \sim N(0, e^{\mathrm{log\_variance}/2}),\; i = 1 \dots 9$$

    Second arguments are standard deviations.

    Returns:
        The target over {"log_variance": (), "x": (9,)}; exact draws, log Z = 0.
    """
    return make_target(_log_density, {"log_variance": 0.0, "x": np.zeros(_NUM_X)}, sample=_sample, log_normalizer=0.0)
