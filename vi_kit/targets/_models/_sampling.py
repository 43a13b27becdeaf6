"""Models of the sampling targets that papers compare on.

Source: Blessing, Jia, Esslinger, Vargas, Neumann, "Beyond ELBOs: A Large-Scale Evaluation of Variational
Methods for Sampling", ICML 2024, arXiv 2406.07423. Data: Statlog German credit and Ionosphere (UCI Machine
Learning Repository, CC BY 4.0); Crowder, "Beta-binomial ANOVA for proportions", Applied Statistics 27(1),
1978 (seeds); the Brownian motion of inference_gym (Apache 2.0).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit import support
from vi_kit._types import KeyArray, Target
from vi_kit.targets._make import make_target
from vi_kit.targets._models._log_densities import LOG_2PI, Scalar, bernoulli_logits, gamma, normal, predict
from vi_kit.targets._models._model import Model, RawData, Variables
from vi_kit.targets._models._supports import softplus_positive


def _funnel_log_density(x: Variables) -> Scalar:
    """Log density of v ~ normal(0, 3), x[i] ~ normal(0, exp(v / 2))."""
    standardized = x["x"] * jnp.exp(-0.5 * x["v"])
    return normal(x["v"], 3.0) + normal(standardized, 1.0) - jnp.multiply(0.5 * x["x"].size, x["v"])


def _funnel_sample(key: KeyArray) -> dict[str, Array]:
    key_v, key_x = jax.random.split(key)
    v = 3 * jax.random.normal(key_v)
    return {"v": v, "x": jnp.exp(0.5 * v) * jax.random.normal(key_x, (9,))}


def funnel10() -> Target:
    """Neal's funnel in ten dimensions."""
    like = {"v": 0.0, "x": np.zeros(9)}
    return make_target(_funnel_log_density, like, sample=_funnel_sample, log_normalizer=0.0)


def _logistic(x: Variables, data: Variables) -> Scalar:
    """Log likelihood of y ~ Bernoulli(σ(X w))."""
    return bernoulli_logits(data["y"], 1.0, predict(data["X"], x["w"]))


def _logistic_model(raw: RawData, log_prior: Callable[..., Scalar] | None, *, center: bool) -> Model:
    columns, outcome = raw.array("X", 2), raw.array("y")
    if columns.shape[0] != outcome.size:
        raise ValueError(f"data: {raw.name} needs one row of 'X' per 'y', got {columns.shape[0]} and {outcome.size}.")
    if not np.all((outcome == 0) | (outcome == 1)):
        raise ValueError(f"data: {raw.name} needs 'y' of zeros and ones, got {np.unique(outcome)[:5].tolist()}.")
    scale = columns.std(axis=0)
    scaled = (columns - columns.mean(axis=0) * center) / np.where(scale > 0, scale, 1.0)
    design = np.concatenate([np.ones((outcome.size, 1)), scaled], axis=1)
    return Model(
        like={"w": np.zeros(design.shape[1])},
        support={},
        data={"X": design, "y": outcome},
        log_likelihood=_logistic,
        log_prior=log_prior,
    )


def _wide_prior(x: Variables) -> Scalar:
    return normal(x["w"], 10.0)


def _unit_prior(x: Variables) -> Scalar:
    return normal(x["w"], 1.0)


def _credit_sd10(raw: RawData) -> Model:
    return _logistic_model(raw, _wide_prior, center=False)


def _credit_noprior(raw: RawData) -> Model:
    return _logistic_model(raw, None, center=False)


def _ionosphere(raw: RawData) -> Model:
    return _logistic_model(raw, _unit_prior, center=True)


def _germination(x: Variables, data: Variables) -> Scalar:
    """Log likelihood of R[i] ~ Binomial(N[i], σ(a0 + a1 X1 + a2 X2 + a12 X1 X2 + b[i]))."""
    effects = x["a1"] * data["X1"] + x["a2"] * data["X2"] + x["a12"] * data["X1"] * data["X2"]
    log_coefficient = jnp.sum(data["log_coefficient"])
    return log_coefficient + bernoulli_logits(data["R"], data["N"], x["a0"] + effects + x["b"])


def _germination_prior(x: Variables) -> Scalar:
    coefficients = normal(jnp.stack([x["a0"], x["a1"], x["a12"], x["a2"]]), 10.0)
    # b ~ normal(0, 1 / sqrt tau), written without dividing by a tau that may be tiny.
    effects = normal(x["b"] * jnp.sqrt(x["tau"]), 1.0) + 0.5 * x["b"].size * jnp.log(x["tau"])
    return jnp.add(coefficients + gamma(x["tau"], 0.01, 0.01), effects)


def _seeds(raw: RawData) -> Model:
    successes, trials, first, second = raw.columns("R", "N", "X1", "X2")
    if np.any(successes < 0) or np.any(successes > trials):
        raise ValueError(f"data: {raw.name} needs counts 'R' from 0 to 'N', got one outside.")
    log_coefficient = [math.log(math.comb(int(n), int(r))) for n, r in zip(trials, successes, strict=True)]
    return Model(
        like={"a0": 0.0, "a1": 0.0, "a12": 0.0, "a2": 0.0, "b": np.zeros(trials.size), "tau": 1.0},
        support={"tau": support.positive},
        data={
            "R": successes,
            "N": trials,
            "X1": first,
            "X2": second,
            "log_coefficient": np.array(log_coefficient),
        },
        log_likelihood=_germination,
        log_prior=_germination_prior,
    )


def _brownian_observations(x: Variables, data: Variables) -> Scalar:
    """Log likelihood of y[t] ~ normal(x[t], observation_scale) where observed."""
    scale = x["observation_scale"]
    squares = jnp.square((data["y"] - x["x"]) / scale) * data["observed"]
    constant = jnp.sum(data["observed"]) * (jnp.log(scale) + 0.5 * LOG_2PI)
    return jnp.subtract(-0.5 * jnp.sum(squares), constant)


def _brownian_prior(x: Variables) -> Scalar:
    steps = jnp.concatenate([x["x"][:1], jnp.diff(x["x"])])
    log_scales = jnp.log(jnp.stack([x["innovation_scale"], x["observation_scale"]]))
    scales = normal(log_scales, 2.0) - jnp.sum(log_scales)  # lognormal(0, 2)
    return jnp.add(normal(steps, x["innovation_scale"]), scales)


def _brownian(raw: RawData) -> Model:
    values = raw.values.get("observed_locs")
    if not isinstance(values, list):
        raise ValueError(f"data: {raw.name} needs the list 'observed_locs', got the keys {sorted(raw.values)}.")
    observed = np.array([value is not None for value in values])
    places = RawData(raw.name, {"observed_locs": [value if value is not None else 0.0 for value in values]})
    return Model(
        like={"innovation_scale": 1.0, "observation_scale": 1.0, "x": np.zeros(observed.size)},
        # Softplus, not exp: the coordinates in which the published figures are.
        support={"innovation_scale": softplus_positive, "observation_scale": softplus_positive},
        data={"y": places.array("observed_locs"), "observed": observed.astype(np.float64)},
        log_likelihood=_brownian_observations,
        log_prior=_brownian_prior,
    )


# Name: the file of its data and what makes a model of them.
SAMPLING_MODELS: Mapping[str, tuple[str, Callable[[RawData], Model]]] = {
    "brownian": ("brownian.json", _brownian),
    "credit_noprior": ("german_credit.npz", _credit_noprior),
    "credit_sd10": ("german_credit.npz", _credit_sd10),
    "ionosphere": ("ionosphere.npz", _ionosphere),
    "seeds": ("seeds.json", _seeds),
}
