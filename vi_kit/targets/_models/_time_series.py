"""Time series of posteriordb: an autoregression, GARCH(1,1) and a hidden Markov model.

Source: posteriordb (https://github.com/stan-dev/posteriordb); Bollerslev, "Generalized autoregressive
conditional heteroskedasticity", Journal of Econometrics 31(3), 1986; Rabiner, "A tutorial on hidden Markov
models and selected applications in speech recognition", Proceedings of the IEEE 77(2), 1989.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit import support
from vi_kit.targets._models._log_densities import LOG_2PI, Scalar, cauchy, normal, predict
from vi_kit.targets._models._model import Model, RawData, Variables
from vi_kit.targets._models._supports import positive_ordered


def _autoregression(x: Variables, data: Variables) -> Scalar:
    """Log likelihood of y[t] ~ normal(alpha + sum_k beta[k] y[t-k], sigma)."""
    return normal(data["y"] - (x["alpha"] + predict(data["lags"], x["beta"])), x["sigma"])


def _autoregression_prior(x: Variables) -> Scalar:
    return normal(x["alpha"], 10.0) + normal(x["beta"], 10.0) + cauchy(x["sigma"], 2.5)


def ark(raw: RawData) -> Model:
    """Autoregression of order K; normal(0, 10) coefficients, sigma ~ cauchy(0, 2.5)."""
    (series,) = raw.columns("y")
    order = int(raw.array("K", 0, positive=True))
    if series.size <= order:
        raise ValueError(f"data: {raw.name} needs more than K = {order} values in 'y', got {series.size}.")
    lags = np.stack([series[order - k : series.size - k] for k in range(1, order + 1)], axis=1)
    return Model(
        like={"alpha": 0.0, "beta": np.zeros(order), "sigma": 1.0},
        support={"sigma": support.positive},
        data={"lags": lags, "y": series[order:]},
        log_likelihood=_autoregression,
        log_prior=_autoregression_prior,
    )


def _garch(x: Variables, data: Variables) -> Scalar:
    """Log likelihood of y[t] ~ normal(mu, √v[t]), v[t] = alpha0 + alpha1 (y[t-1] - mu)² + beta1 v[t-1]."""
    beta1 = _beta1(x)
    squares = jnp.square(data["y"] - x["mu"])
    shocks = x["alpha0"] + x["alpha1"] * squares[:-1]

    def step(variance: Scalar, shock: Scalar) -> tuple[Scalar, Scalar]:
        following = shock + beta1 * variance
        return following, following

    first = jnp.square(data["sigma1"])
    _, later = jax.lax.scan(step, first, shocks)
    variances = jnp.concatenate([first[None], later])
    return -0.5 * jnp.sum(squares / variances + jnp.log(variances)) - 0.5 * squares.size * LOG_2PI


def _beta1(x: Variables) -> Scalar:
    return jnp.multiply(1 - x["alpha1"], x["beta1_fraction"])


def _garch_prior(x: Variables) -> Scalar:
    # Flat in (alpha1, beta1): the density of the fraction beta1 / (1 - alpha1) is the Jacobian 1 - alpha1.
    return jnp.log1p(-x["alpha1"])


def _derive_beta1(x: Variables, data: Variables) -> dict[str, Scalar]:
    del data
    return {"beta1": _beta1(x)}


def garch11(raw: RawData) -> Model:
    """GARCH(1,1), flat on alpha0 > 0, alpha1 in (0, 1), beta1 in (0, 1 - alpha1).

    The bound of beta1 depends on alpha1, so the variable is beta1_fraction = beta1 / (1 - alpha1), and
    beta1 is derived.
    """
    (series,) = raw.columns("y")
    return Model(
        like={"mu": 0.0, "alpha0": 1.0, "alpha1": 0.5, "beta1_fraction": 0.5},
        support={
            "alpha0": support.positive,
            "alpha1": support.unit_interval,
            "beta1_fraction": support.unit_interval,
        },
        data={"y": series, "sigma1": raw.array("sigma1", 0, positive=True)},
        log_likelihood=_garch,
        log_prior=_garch_prior,
        derived=_derive_beta1,
    )


def _hidden_markov(x: Variables, data: Variables) -> Scalar:
    """Log likelihood by the forward algorithm; y[t] | state k ~ normal(mu[k], 1)."""
    # The first state has no prior weight, not even log 1/2: so the model has it.
    emission = -0.5 * jnp.square(data["y"][:, None] - x["mu"][None, :]) - 0.5 * LOG_2PI
    transition = jnp.log(jnp.stack([x["theta1"], x["theta2"]]))

    def step(forward: jax.Array, observed: jax.Array) -> tuple[jax.Array, None]:
        return jax.nn.logsumexp(forward[:, None] + transition, axis=0) + observed, None

    last, _ = jax.lax.scan(step, emission[0], emission[1:])
    return jax.nn.logsumexp(last)


def _hidden_markov_prior(x: Variables) -> Scalar:
    return normal(x["mu"][0] - 3, 1.0) + normal(x["mu"][1] - 10, 1.0)


def hmm_example(raw: RawData) -> Model:
    """Two-state hidden Markov model with Gaussian emissions of unit variance and 0 < mu[0] < mu[1]."""
    (series,) = raw.columns("y")
    states = int(raw.array("K", 0))
    if states != 2:
        raise ValueError(f"data: {raw.name} needs K = 2 states, got {states}.")
    return Model(
        like={"theta1": np.full(2, 0.5), "theta2": np.full(2, 0.5), "mu": np.array([3.0, 10.0])},
        support={"theta1": support.simplex, "theta2": support.simplex, "mu": positive_ordered},
        data={"y": series},
        log_likelihood=_hidden_markov,
        log_prior=_hidden_markov_prior,
    )
