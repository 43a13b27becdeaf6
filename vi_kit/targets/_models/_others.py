"""A Gaussian-process regression and a two-component mixture of posteriordb.

Source: posteriordb (https://github.com/stan-dev/posteriordb); Rasmussen and Williams, "Gaussian Processes for
Machine Learning", 2006, eq. 2.30.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit import support
from vi_kit.targets._models._log_densities import LOG_2PI, Scalar, gamma, normal
from vi_kit.targets._models._model import Model, RawData, Variables


def _gaussian_process(x: Variables, data: Variables) -> Scalar:
    """Log likelihood of y ~ MVN(0, K), K[i, j] = alpha² exp(-(x[i] - x[j])² / (2 rho²)) + sigma [i = j]."""
    # sigma is a variance here, not a standard deviation: so the model has it.
    places = data["x"]
    distance = (places[:, None] - places[None, :]) / x["rho"]
    kernel = jnp.square(x["alpha"]) * jnp.exp(-0.5 * jnp.square(distance))
    factor = jnp.linalg.cholesky(kernel + x["sigma"] * jnp.eye(places.size, dtype=places.dtype))
    whitened = jax.scipy.linalg.solve_triangular(factor, data["y"], lower=True)
    log_determinant = jnp.sum(jnp.log(jnp.diagonal(factor)))
    quadratic = jnp.sum(jnp.square(whitened))
    return jnp.subtract(-0.5 * (quadratic + places.size * LOG_2PI), log_determinant)


def _gaussian_process_prior(x: Variables) -> Scalar:
    return gamma(x["rho"], 25.0, 4.0) + normal(x["alpha"], 2.0) + normal(x["sigma"], 1.0)


def gp_regr(raw: RawData) -> Model:
    """Gaussian process with the function integrated out; gamma(25, 4), normal(0, 2), normal(0, 1) priors."""
    places, values = raw.columns("x", "y")
    return Model(
        like={"rho": 1.0, "alpha": 1.0, "sigma": 1.0},
        support={"rho": support.positive, "alpha": support.positive, "sigma": support.positive},
        data={"x": places, "y": values},
        log_likelihood=_gaussian_process,
        log_prior=_gaussian_process_prior,
    )


def _mixture(x: Variables, data: Variables) -> Scalar:
    """Log likelihood of y[n] ~ theta normal(mu[0], sigma[0]) + (1 - theta) normal(mu[1], sigma[1])."""
    standardized = (data["y"][:, None] - x["mu"][None, :]) / x["sigma"][None, :]
    log_weights = jnp.stack([jnp.log(x["theta"]), jnp.log1p(-x["theta"])]) - jnp.log(x["sigma"])
    components = log_weights[None, :] - 0.5 * jnp.square(standardized)
    return jnp.subtract(jnp.sum(jax.nn.logsumexp(components, axis=1)), 0.5 * standardized.shape[0] * LOG_2PI)


def _mixture_prior(x: Variables) -> Scalar:
    log_beta = 2 * math.lgamma(5) - math.lgamma(10)
    weight = 4 * (jnp.log(x["theta"]) + jnp.log1p(-x["theta"])) - log_beta
    return normal(x["mu"], 2.0) + normal(x["sigma"], 2.0) + weight


def low_dim_gauss_mix(raw: RawData) -> Model:
    """Mixture of two Gaussians with ordered means; normal(0, 2) means and scales, beta(5, 5) weight."""
    (values,) = raw.columns("y")
    return Model(
        like={"mu": np.array([-1.0, 1.0]), "sigma": np.ones(2), "theta": 0.5},
        support={"mu": support.ordered, "sigma": support.positive, "theta": support.unit_interval},
        data={"y": values},
        log_likelihood=_mixture,
        log_prior=_mixture_prior,
    )
