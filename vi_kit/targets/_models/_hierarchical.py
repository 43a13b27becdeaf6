"""Eight schools, centered and non-centered.

Source: Rubin, "Estimation in Parallel Randomized Experiments", Journal of Educational Statistics 6(4), 1981;
the models as in posteriordb (https://github.com/stan-dev/posteriordb).
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from vi_kit import support
from vi_kit.targets._models._log_densities import LOG_2PI, Scalar, Vector, cauchy, normal
from vi_kit.targets._models._model import Model, RawData, Variables


def _schools(theta: Vector, data: Variables) -> Scalar:
    """Log likelihood of y[j] ~ normal(theta[j], sigma[j])."""
    standardized = (data["y"] - theta) / data["sigma"]
    return -0.5 * jnp.sum(jnp.square(standardized)) - jnp.sum(jnp.log(data["sigma"]) + 0.5 * LOG_2PI)


def _hyperprior(x: Variables) -> Scalar:
    return normal(x["mu"], 5.0) + cauchy(x["tau"], 5.0)


def _data(raw: RawData) -> tuple[dict[str, np.ndarray], int]:
    effects, _ = raw.columns("y", "sigma")
    (errors,) = raw.columns("sigma", positive=True)
    return {"y": effects, "sigma": errors}, effects.size


def _centered(x: Variables, data: Variables) -> Scalar:
    return _schools(x["theta"], data)


def _centered_prior(x: Variables) -> Scalar:
    return normal(x["theta"] - x["mu"], x["tau"]) + _hyperprior(x)


def eight_schools_centered(raw: RawData) -> Model:
    """Eight schools with theta ~ normal(mu, tau): a funnel."""
    data, schools = _data(raw)
    return Model(
        like={"mu": 0.0, "tau": 1.0, "theta": np.zeros(schools)},
        support={"tau": support.positive},
        data=data,
        log_likelihood=_centered,
        log_prior=_centered_prior,
    )


def _theta(x: Variables) -> Vector:
    return jnp.add(x["mu"], x["tau"] * x["theta_trans"])


def _noncentered(x: Variables, data: Variables) -> Scalar:
    return _schools(_theta(x), data)


def _noncentered_prior(x: Variables) -> Scalar:
    return normal(x["theta_trans"], 1.0) + _hyperprior(x)


def _derive_theta(x: Variables, data: Variables) -> dict[str, Vector]:
    del data
    return {"theta": _theta(x)}


def eight_schools_noncentered(raw: RawData) -> Model:
    """Eight schools with theta = mu + tau theta_trans, theta_trans ~ normal(0, 1); theta is derived."""
    data, schools = _data(raw)
    return Model(
        like={"mu": 0.0, "tau": 1.0, "theta_trans": np.zeros(schools)},
        support={"tau": support.positive},
        data=data,
        log_likelihood=_noncentered,
        log_prior=_noncentered_prior,
        derived=_derive_theta,
    )
