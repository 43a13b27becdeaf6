"""Diabetes: linear regression with a shrinkage prior in the manner of the regularized horseshoe.

Every coefficient has a scale of its own, drawn from a heavy-tailed distribution, times a common scale, so
that most coefficients shrink to nothing and a few do not; a slab of fixed width bounds those few. Where the
horseshoe's local scales are half-Cauchy, these are half-Student-t with five degrees of freedom: under a
half-Cauchy prior the slab leaves the local scales' posterior without a mean, and then there is nothing to
compare a fit with.

Source: data of B. Efron, T. Hastie, I. Johnstone and R. Tibshirani, "Least angle regression", Annals of
Statistics 32, 2004, as scikit-learn bundles them; prior after J. Piironen and A. Vehtari, "Sparsity
information and regularization in the horseshoe and other shrinkage priors", Electronic Journal of Statistics
11, 2017.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm, t
from jaxtyping import Array, Float

from vi_kit import support
from vi_kit._types import Scalar, Target
from vi_kit.targets._extras import import_for_data
from vi_kit.targets._make import make_target

_GLOBAL_SCALE = 0.25
_LOCAL_DEGREES_OF_FREEDOM = 5.0
_SLAB_SCALE = 1.0
_LOG_TWO = math.log(2.0)


def _weights(x: dict[str, Any]) -> Float[Array, " 10"]:
    scale = x["global_scale"] * x["local_scale"]
    weights: Float[Array, " 10"] = x["offset"] * scale / jnp.sqrt(1.0 + jnp.square(scale / _SLAB_SCALE))
    return weights


def _log_density(x: dict[str, Any], data: dict[str, Any]) -> Scalar:
    fitted = x["intercept"] + data["features"] @ _weights(x)
    log_likelihood = jnp.sum(norm.logpdf(data["progression"], fitted, x["sigma"]))
    log_prior = (
        norm.logpdf(x["intercept"])
        + _LOG_TWO
        + norm.logpdf(x["global_scale"], 0.0, _GLOBAL_SCALE)
        + jnp.sum(_LOG_TWO + t.logpdf(x["local_scale"], _LOCAL_DEGREES_OF_FREEDOM))
        + jnp.sum(norm.logpdf(x["offset"]))
        + _LOG_TWO
        + norm.logpdf(x["sigma"])
    )
    return log_prior + log_likelihood


def _derived(x: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    del data
    return {"weights": _weights(x)}


def diabetes() -> Target:
    r"""Build the posterior of a sparse linear regression on scikit-learn's diabetes data.

    $$y_i \sim N(\mathrm{intercept} + X_i w, \sigma),\quad
    w_j = \mathrm{offset}_j\, \frac{\tau\lambda_j}{\sqrt{1 + \tau^2\lambda_j^2}},\quad
    \mathrm{offset}_j \sim N(0, 1)$$
    $$\tau \sim N^+(0, 0.25),\quad \lambda_j \sim t_5^+(0, 1),\quad \mathrm{intercept} \sim N(0, 1),\quad
    \sigma \sim N^+(0, 1)$$

    442 rows; the 10 columns of X and the response are standardized (population standard deviation). tau is
    `global_scale`, lambda `local_scale`; `weights` is a derived quantity.

    Returns:
        Target over global_scale > 0, intercept, local_scale (10,) > 0, offset (10,) and sigma > 0; d = 23.

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    datasets = import_for_data("sklearn.datasets", "scikit-learn", "diabetes")
    features, progression = datasets.load_diabetes(return_X_y=True)
    return make_target(
        _log_density,
        {
            "intercept": 0.0,
            "global_scale": 0.25,
            "local_scale": np.ones(10),
            "offset": np.zeros(10),
            "sigma": 1.0,
        },
        support={
            "global_scale": support.positive,
            "local_scale": support.positive,
            "sigma": support.positive,
        },
        data={
            "features": (features - features.mean(axis=0)) / features.std(axis=0),
            "progression": (progression - progression.mean()) / progression.std(),
        },
        derived=_derived,
    )
