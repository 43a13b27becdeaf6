"""Breast cancer: Bayesian logistic regression of malignancy on thirty measurements of cell nuclei.

Source: W. N. Street, W. H. Wolberg and O. L. Mangasarian, "Nuclear feature extraction for breast tumor
diagnosis", 1993 (Wisconsin diagnostic data, UCI Machine Learning Repository, doi:10.24432/C5DW2B), as
scikit-learn bundles them.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit._types import Scalar, Target
from vi_kit.targets._extras import import_for_data
from vi_kit.targets._make import make_target

_INTERCEPT_SCALE = 5.0
_WEIGHT_SCALE = 2.5


def _log_likelihood(x: dict[str, Any], data: dict[str, Any]) -> Scalar:
    logit = x["intercept"] + data["features"] @ x["weights"]
    # One softplus of the signed logit keeps the digits that y·logit − softplus(logit) cancels away.
    return -jnp.sum(jax.nn.softplus(jnp.where(data["malignant"] > 0.5, -logit, logit)))


def breast_cancer() -> Target:
    r"""Build the posterior of a logistic regression on the Wisconsin diagnostic breast-cancer data.

    $$y_i \sim \mathrm{Bernoulli}(\mathrm{logit}^{-1}(\mathrm{intercept} + X_i w)),\quad
    \mathrm{intercept} \sim N(0, 5),\quad w_j \sim N(0, 2.5)$$

    569 rows; y is 1 for a malignant tumor; the 30 columns of X are standardized (population standard
    deviation). The prior is declared apart, as distributions, so that the KL term of the ELBO has a closed
    form.

    Returns:
        The target over {"intercept": (), "weights": (30,)}; dimension 31.

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    from vi_kit._distributions import distrax

    datasets = import_for_data("sklearn.datasets", "scikit-learn", "breast_cancer")
    features, benign = datasets.load_breast_cancer(return_X_y=True)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    return make_target(
        _log_likelihood,
        {"intercept": 0.0, "weights": np.zeros(30)},
        data={"features": features, "malignant": 1.0 - benign.astype(float)},
        prior={
            "intercept": distrax.Normal(0.0, _INTERCEPT_SCALE),
            "weights": distrax.Normal(0.0, _WEIGHT_SCALE),
        },
    )
