"""Nile: a local-level state-space model of the yearly flow, the levels integrated out by a Kalman filter.

Source: G. W. Cobb, "The problem of the Nile", Biometrika 65, 1978, as statsmodels bundles it; the model is
that of J. Durbin and S. J. Koopman, "Time Series Analysis by State Space Methods", chapter 2.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from vi_kit import support
from vi_kit._types import Scalar, Target
from vi_kit.targets._extras import import_for_data
from vi_kit.targets._make import make_target

_LEVEL_PRIOR = (10.0, 5.0)
_OBSERVATION_PRIOR_SCALE = 2.0
_STEP_PRIOR_SCALE = 1.0
_LOG_TWO = math.log(2.0)
_LOG_TWO_PI = math.log(2.0 * math.pi)


def _log_likelihood(
    initial_level: Scalar, observation_scale: Scalar, level_scale: Scalar, flow: Float[Array, " years"]
) -> Scalar:
    """Log density of the flows, by the prediction errors of the Kalman filter."""
    observation_variance, level_variance = jnp.square(observation_scale), jnp.square(level_scale)

    def year(state: tuple[Scalar, Scalar], observed: Scalar) -> tuple[tuple[Scalar, Scalar], Scalar]:
        mean, variance = state
        total = variance + observation_variance
        surprise = observed - mean
        gain = variance / total
        log_density = -0.5 * (_LOG_TWO_PI + jnp.log(total) + jnp.square(surprise) / total)
        # gain·observation_variance is variance·(1 − gain) without the cancellation.
        return (mean + gain * surprise, gain * observation_variance + level_variance), log_density

    _, terms = jax.lax.scan(year, (initial_level, jnp.zeros_like(initial_level)), flow)
    return jnp.sum(terms)


def _log_density(x: dict[str, Any], data: dict[str, Any]) -> Scalar:
    log_prior = (
        norm.logpdf(x["initial_level"], *_LEVEL_PRIOR)
        + _LOG_TWO
        + norm.logpdf(x["observation_scale"], 0.0, _OBSERVATION_PRIOR_SCALE)
        + _LOG_TWO
        + norm.logpdf(x["level_scale"], 0.0, _STEP_PRIOR_SCALE)
    )
    return log_prior + _log_likelihood(x["initial_level"], x["observation_scale"], x["level_scale"], data["flow"])


def nile() -> Target:
    r"""Build the posterior of the local-level model of the Nile's flow at Aswan, 1871 to 1970.

    $$y_t \sim N(\mathrm{level}_t, \mathrm{observation\_scale}),\quad
    \mathrm{level}_{t+1} \sim N(\mathrm{level}_t, \mathrm{level\_scale})$$
    $$\mathrm{level}_1 = \mathrm{initial\_level} \sim N(10, 5),\quad
    \mathrm{observation\_scale} \sim N^+(0, 2),\quad \mathrm{level\_scale} \sim N^+(0, 1)$$

    Flows and scales are in 10^10 cubic meters a year, a hundredth of the numbers that statsmodels stores.

    Returns:
        The target over initial_level, level_scale > 0 and observation_scale > 0; dimension 3.

    Raises:
        ImportError: If statsmodels is not installed.
    """
    dataset = import_for_data("statsmodels.datasets.nile", "statsmodels", "nile")
    flow = dataset.load_pandas().data["volume"].to_numpy(dtype=float) / 100.0
    return make_target(
        _log_density,
        {"initial_level": 10.0, "observation_scale": 1.0, "level_scale": 0.5},
        support={"observation_scale": support.positive, "level_scale": support.positive},
        data={"flow": flow},
    )
