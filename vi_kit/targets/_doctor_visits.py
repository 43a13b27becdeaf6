"""Doctor visits: Poisson regression of visits to a physician on insurance and health, twenty thousand rows.

Source: the RAND Health Insurance Experiment, as in A. C. Cameron and P. K. Trivedi, "Microeconometrics",
2005; the public-domain data set `randhie` of statsmodels.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from vi_kit._types import Scalar, Target
from vi_kit.targets._extras import import_for_data
from vi_kit.targets._make import make_target

_INTERCEPT_SCALE = 5.0
_WEIGHT_SCALE = 1.0


def _log_likelihood(x: dict[str, Any], data: dict[str, Any]) -> Scalar:
    log_rate = x["intercept"] + data["features"] @ x["weights"]
    return jnp.sum(data["visits"] * log_rate - jnp.exp(log_rate))


def doctor_visits() -> Target:
    r"""Build the posterior of a Poisson regression on the RAND Health Insurance Experiment.

    $$y_i \sim \mathrm{Poisson}(e^{\mathrm{intercept} + X_i w}),\quad \mathrm{intercept} \sim N(0, 5),\quad
    w_j \sim N(0, 1)$$

    20,190 person-years; y counts outpatient visits to a physician; the nine columns of X (lncoins, idp, lpi,
    fmde, physlm, disea, hlthg, hlthf, hlthp) are standardized (population standard deviation). The log
    likelihood leaves the constant −Σ log y_i! out, which would take most of float32's digits; log Z is
    without it too. The prior is declared apart, as distributions, so that the KL term of the ELBO has a
    closed form.

    Returns:
        The target over {"intercept": (), "weights": (9,)}; dimension 10.

    Raises:
        ImportError: If statsmodels is not installed.
    """
    from vi_kit._distributions import distrax

    dataset = import_for_data("statsmodels.datasets.randhie", "statsmodels", "doctor_visits")
    table = dataset.load_pandas().data
    features = table.drop(columns="mdvis").to_numpy(dtype=float)
    return make_target(
        _log_likelihood,
        {"intercept": 0.0, "weights": np.zeros(9)},
        data={
            "features": (features - features.mean(axis=0)) / features.std(axis=0),
            "visits": table["mdvis"].to_numpy(dtype=float),
        },
        prior={
            "intercept": distrax.Normal(0.0, _INTERCEPT_SCALE),
            "weights": distrax.Normal(0.0, _WEIGHT_SCALE),
        },
    )
