"""Linear regressions of posteriordb, in the raw units of their data.

Source: posteriordb (https://github.com/stan-dev/posteriordb); the data sets of earnings, kidiq, mesquite and
nes from Gelman and Hill, "Data Analysis Using Regression and Multilevel/Hierarchical Models", 2006.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from vi_kit import support
from vi_kit.targets._models._log_densities import Scalar, cauchy, normal, predict
from vi_kit.targets._models._model import Model, RawData, Variables


def _linear(x: Variables, data: Variables) -> Scalar:
    """Log likelihood of y ~ normal(X beta, sigma)."""
    return normal(data["y"] - predict(data["X"], x["beta"]), x["sigma"])


def _model(response: np.ndarray, columns: list[np.ndarray], log_prior: Any = None) -> Model:
    # Products and logarithms of columns are taken here, in float64, so that float32 rounds each entry once.
    design = np.stack([np.broadcast_to(column, response.shape) for column in columns], axis=1)
    return _design_model(response, design, log_prior)


def _design_model(response: np.ndarray, design: np.ndarray, log_prior: Any) -> Model:
    return Model(
        like={"beta": np.zeros(design.shape[1]), "sigma": 1.0},
        support={"sigma": support.positive},
        data={"X": design, "y": response},
        log_likelihood=_linear,
        log_prior=log_prior,
    )


def earnings_logearn_interaction(raw: RawData) -> Model:
    """Log earnings on height, sex and their product; all priors flat."""
    height, male = raw.columns("height", "male")
    (earnings,) = raw.columns("earn", positive=True)
    return _model(np.log(earnings), [np.ones(()), height, male, height * male])


def _kidiq_prior(x: Variables) -> Scalar:
    return cauchy(x["sigma"], 2.5)


def kidiq_kidscore_interaction(raw: RawData) -> Model:
    """Child's test score on mother's schooling, IQ and their product; sigma ~ cauchy(0, 2.5), beta flat."""
    score, schooling, iq = raw.columns("kid_score", "mom_hs", "mom_iq")
    return _model(score, [np.ones(()), schooling, iq, schooling * iq], _kidiq_prior)


def mesquite_logmesquite(raw: RawData) -> Model:
    """Log weight of mesquite bushes on log sizes and group; all priors flat."""
    sizes = raw.columns("weight", "diam1", "diam2", "canopy_height", "total_height", "density", positive=True)
    (group,) = raw.columns("group")
    weight, *logs = [np.log(column) for column in sizes]
    return _model(weight, [np.ones(()), *logs, group])


def nes1980_nes(raw: RawData) -> Model:
    """Party identification on ideology, race, age group, education, gender and income; all priors flat."""
    keys = ("partyid7", "real_ideo", "race_adj", "age_discrete", "educ1", "gender", "income")
    party, ideology, race, age, education, gender, income = raw.columns(*keys)
    ages = [(age == group).astype(np.float64) for group in (2, 3, 4)]
    return _model(party, [np.ones(()), ideology, race, *ages, education, gender, income])


def _sblrc_prior(x: Variables) -> Scalar:
    return normal(x["beta"], 10.0) + normal(x["sigma"], 10.0)


def sblrc_blr(raw: RawData) -> Model:
    """Regression on strongly correlated columns; beta ~ normal(0, 10), sigma ~ normal(0, 10)."""
    (response,) = raw.columns("y")
    design = raw.array("X", 2)
    if design.shape[0] != response.size:
        raise ValueError(f"data: {raw.name} needs one row of 'X' per 'y', got {design.shape[0]} and {response.size}.")
    return _design_model(response, design, _sblrc_prior)


def _trend(x: Variables, data: Variables) -> Scalar:
    """Log likelihood of y ~ normal(alpha + beta x, sigma)."""
    return normal(data["y"] - (x["alpha"] + x["beta"] * data["x"]), x["sigma"])


def kilpisjarvi_mod_kilpisjarvi(raw: RawData) -> Model:
    """Summer temperature with a linear trend in years; normal priors given with the data, sigma flat."""
    years, temperature = raw.columns("x", "y")
    alpha_mean, beta_mean = float(raw.array("pmualpha", 0)), float(raw.array("pmubeta", 0))
    alpha_scale = float(raw.array("psalpha", 0, positive=True))
    beta_scale = float(raw.array("psbeta", 0, positive=True))

    def log_prior(x: Variables) -> jax.Array:
        return normal(x["alpha"] - alpha_mean, alpha_scale) + normal(x["beta"] - beta_mean, beta_scale)

    return Model(
        like={"alpha": 0.0, "beta": 0.0, "sigma": 1.0},
        support={"sigma": support.positive},
        data={"x": years, "y": temperature},
        log_likelihood=_trend,
        log_prior=log_prior,
    )
