"""Eight schools: coaching effects on SAT scores, the hierarchical model everybody starts with.

The eight estimated effects and their standard errors are Rubin's published ones.

Source: D. B. Rubin, "Estimation in parallel randomized experiments", Journal of Educational Statistics 6,
1981; the model is that of A. Gelman et al., "Bayesian Data Analysis", section 5.5, with a
half-Cauchy scale.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import cauchy, norm

from vi_kit import support
from vi_kit._types import Scalar, Target
from vi_kit.targets._make import make_target

_EFFECT = [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]
_STANDARD_ERROR = [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]
_MU_SCALE = 5.0
_TAU_SCALE = 5.0


def _log_prior_of_mu_and_tau(x: dict[str, Any]) -> Scalar:
    half_cauchy = math.log(2.0) + cauchy.logpdf(x["tau"], 0.0, _TAU_SCALE)
    return norm.logpdf(x["mu"], 0.0, _MU_SCALE) + half_cauchy


def _log_density_non_centered(x: dict[str, Any], data: dict[str, Any]) -> Scalar:
    theta = x["mu"] + x["tau"] * x["eta"]
    log_likelihood = jnp.sum(norm.logpdf(data["effect"], theta, data["standard_error"]))
    return _log_prior_of_mu_and_tau(x) + jnp.sum(norm.logpdf(x["eta"])) + log_likelihood


def _theta(x: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    del data
    return {"theta": x["mu"] + x["tau"] * x["eta"]}


def _log_density_centered(x: dict[str, Any], data: dict[str, Any]) -> Scalar:
    log_likelihood = jnp.sum(norm.logpdf(data["effect"], x["theta"], data["standard_error"]))
    return _log_prior_of_mu_and_tau(x) + jnp.sum(norm.logpdf(x["theta"], x["mu"], x["tau"])) + log_likelihood


def _data() -> dict[str, np.ndarray]:
    return {"effect": np.array(_EFFECT), "standard_error": np.array(_STANDARD_ERROR)}


def eight_schools() -> Target:
    r"""Build eight schools in the non-centered parametrization, the one that Gaussians fit.

    $$\mu \sim N(0, 5),\; \tau \sim C^+(0, 5),\; \eta_j \sim N(0, 1),\; \theta_j = \mu + \tau \eta_j,\;
    y_j \sim N(\theta_j, \sigma_j)$$

    Second arguments of N are standard deviations; everything is in SAT points. `theta` is a derived quantity.

    Returns:
        The target over {"eta": (8,), "mu": (), "tau": () > 0}; dimension 10.
    """
    return make_target(
        _log_density_non_centered,
        {"mu": 0.0, "tau": 1.0, "eta": np.zeros(8)},
        support={"tau": support.positive},
        data=_data(),
        derived=_theta,
    )


def eight_schools_centered() -> Target:
    r"""Build eight schools in the centered parametrization, whose funnel no Gaussian fits.

    $$\mu \sim N(0, 5),\; \tau \sim C^+(0, 5),\; \theta_j \sim N(\mu, \tau),\;
    y_j \sim N(\theta_j, \sigma_j)$$

    The same posterior of mu, tau and theta, and the same log Z, as `eight_schools`.

    Returns:
        The target over {"mu": (), "tau": () > 0, "theta": (8,)}; dimension 10.
    """
    return make_target(
        _log_density_centered,
        {"mu": 0.0, "tau": 1.0, "theta": np.zeros(8)},
        support={"tau": support.positive},
        data=_data(),
    )
