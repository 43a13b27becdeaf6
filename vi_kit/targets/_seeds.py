"""Seeds: germination of 21 plates of seeds, binomial counts with a random effect a plate.

The prior is not that of the BUGS example. There the random effects' precision is Gamma(0.001, 0.001), which
puts four fifths of its mass on scales above e^100 and leaves the posterior at the mercy of its pole at zero
scale (Gelman 2006). Here the scale is half-normal with unit scale on the logit scale: proper, finite at zero,
and wide against the 0.3 or so that the data ask for. The coefficients get N(0, 10) in place of a precision of
1e-6.

Source: M. J. Crowder, "Beta-binomial ANOVA for proportions", Applied Statistics 27, 1978, table 3; the model
with random effects is the "Seeds" example of D. Spiegelhalter et al., "BUGS Examples Volume 1", 1996. Prior
of the scale: A. Gelman, "Prior distributions for variance parameters in hierarchical models", Bayesian
Analysis 1, 2006.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

from vi_kit import support
from vi_kit._types import Scalar, Target
from vi_kit.targets._make import make_target

_GERMINATED = [10, 23, 23, 26, 17, 5, 53, 55, 32, 46, 10, 8, 10, 8, 23, 0, 3, 22, 15, 32, 3]
_PLANTED = [39, 62, 81, 51, 39, 6, 74, 72, 51, 79, 13, 16, 30, 28, 45, 4, 12, 41, 30, 51, 7]
_SEED_TYPE = [0] * 11 + [1] * 10
_ROOT_EXTRACT = [0] * 5 + [1] * 6 + [0] * 5 + [1] * 5
_COEFFICIENT_SCALE = 10.0
_SIGMA_SCALE = 1.0


def _log_density(x: dict[str, Any], data: dict[str, Any]) -> Scalar:
    coefficients = jnp.stack([x["alpha0"], x["alpha1"], x["alpha2"], x["alpha12"]])
    logit = data["design"] @ coefficients + x["sigma"] * x["offset"]
    log_success = data["germinated"] * logit - data["planted"] * jax.nn.softplus(logit)
    log_likelihood = jnp.sum(data["log_choose"] + log_success)
    log_prior = (
        jnp.sum(norm.logpdf(coefficients, 0.0, _COEFFICIENT_SCALE))
        + math.log(2.0)
        + norm.logpdf(x["sigma"], 0.0, _SIGMA_SCALE)
        + jnp.sum(norm.logpdf(x["offset"]))
    )
    return log_prior + log_likelihood


def _plate_effects(x: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    del data
    return {"b": x["sigma"] * x["offset"]}


def seeds() -> Target:
    r"""Build the seeds posterior with non-centered random effects.

    $$r_i \sim \mathrm{Binomial}(n_i, p_i),\quad
    \mathrm{logit}\, p_i = \alpha_0 + \alpha_1 x_{1i} + \alpha_2 x_{2i} + \alpha_{12} x_{1i} x_{2i} + b_i$$
    $$\alpha \sim N(0, 10),\quad b_i = \sigma\,\mathrm{offset}_i,\quad \mathrm{offset}_i \sim N(0, 1),\quad
    \sigma \sim N^+(0, 1)$$

    x1 is the type of seed and x2 the root extract, both 0 or 1. `b` is a derived quantity.

    Returns:
        The target over alpha0, alpha1, alpha12, alpha2, offset (21,) and sigma > 0; dimension 26.
    """
    seed_type, root_extract = np.array(_SEED_TYPE, float), np.array(_ROOT_EXTRACT, float)
    data = {
        "germinated": np.array(_GERMINATED, float),
        "planted": np.array(_PLANTED, float),
        "design": np.stack([np.ones(21), seed_type, root_extract, seed_type * root_extract], axis=1),
        # From integers: the log-gammas in float32 would cost four digits.
        "log_choose": np.array([math.log(math.comb(n, r)) for n, r in zip(_PLANTED, _GERMINATED, strict=True)]),
    }
    return make_target(
        _log_density,
        {"alpha0": 0.0, "alpha1": 0.0, "alpha2": 0.0, "alpha12": 0.0, "sigma": 0.5, "offset": np.zeros(21)},
        support={"sigma": support.positive},
        data=data,
        derived=_plate_effects,
    )
