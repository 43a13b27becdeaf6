"""Oracles of the posteriordb models: loops and scipy.stats in float64, written from their descriptions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def regression(design: Callable[[dict], Any], sigma_prior: Callable[[float], float] = lambda sigma: 0.0):
    """Oracle of a regression: response and columns by name, a loop over rows."""

    def log_density(x, data):
        response, columns = design(data)
        mean = [sum(b * column[i] for b, column in zip(x["beta"], columns, strict=True)) for i in range(len(response))]
        return sigma_prior(x["sigma"]) + sum(stats.norm.logpdf(response, mean, x["sigma"]))

    return log_density


def arrays(data, *keys):
    return [np.array(data[key], float) for key in keys]


def earnings(data):
    earn, height, male = arrays(data, "earn", "height", "male")
    return np.log(earn), [np.ones(len(earn)), height, male, height * male]


def kidiq(data):
    score, schooling, iq = arrays(data, "kid_score", "mom_hs", "mom_iq")
    return score, [np.ones(len(score)), schooling, iq, schooling * iq]


def mesquite(data):
    keys = ("diam1", "diam2", "canopy_height", "total_height", "density")
    weight, group = arrays(data, "weight", "group")
    return np.log(weight), [np.ones(len(weight)), *np.log(arrays(data, *keys)), group]


def nes(data):
    y, ideology, race, age, education, gender, income = arrays(
        data, "partyid7", "real_ideo", "race_adj", "age_discrete", "educ1", "gender", "income"
    )
    return y, [np.ones(len(y)), ideology, race, age == 2, age == 3, age == 4, education, gender, income]


def blr(data):
    return np.array(data["y"]), list(np.array(data["X"]).T)


def blr_log_density(x, data):
    prior = stats.norm.logpdf(x["beta"], 0, 10).sum() + stats.norm.logpdf(x["sigma"], 0, 10)
    return prior + regression(blr)(x, data)


def kilpisjarvi(x, data):
    prior = stats.norm.logpdf(x["alpha"], data["pmualpha"], data["psalpha"])
    prior += stats.norm.logpdf(x["beta"], data["pmubeta"], data["psbeta"])
    mean = x["alpha"] + x["beta"] * np.array(data["x"], float)
    return prior + stats.norm.logpdf(data["y"], mean, x["sigma"]).sum()


def schools(x, data):
    hyperprior = stats.norm.logpdf(x["mu"], 0, 5) + stats.cauchy.logpdf(x["tau"], 0, 5)
    if "theta" in x:
        theta, prior = x["theta"], stats.norm.logpdf(x["theta"], x["mu"], x["tau"]).sum()
    else:
        theta, prior = x["mu"] + x["tau"] * x["theta_trans"], stats.norm.logpdf(x["theta_trans"]).sum()
    return hyperprior + prior + stats.norm.logpdf(data["y"], theta, data["sigma"]).sum()


def autoregression(x, data):
    total = stats.norm.logpdf([x["alpha"], *x["beta"]], 0, 10).sum() + stats.cauchy.logpdf(x["sigma"], 0, 2.5)
    for t in range(5, data["T"]):
        mean = x["alpha"] + sum(x["beta"][k] * data["y"][t - 1 - k] for k in range(5))
        total += stats.norm.logpdf(data["y"][t], mean, x["sigma"])
    return total


def garch(x, data):
    # In (alpha1, beta1): the fraction's Jacobian 1 - alpha1 is part of the transform, not of this density.
    y, beta1 = data["y"], x["beta1_fraction"] * (1 - x["alpha1"])
    variance, total = data["sigma1"] ** 2, 0.0
    for t in range(data["T"]):
        if t > 0:
            variance = x["alpha0"] + x["alpha1"] * (y[t - 1] - x["mu"]) ** 2 + beta1 * variance
        total += stats.norm.logpdf(y[t], x["mu"], np.sqrt(variance))
    return total


def hidden_markov(x, data):
    forward, log_scale = np.ones(2), 0.0
    rows = np.stack([x["theta1"], x["theta2"]])
    for t, y in enumerate(data["y"]):
        forward = (forward @ rows if t else forward) * stats.norm.pdf(y, x["mu"], 1)
        log_scale, forward = log_scale + np.log(forward.sum()), forward / forward.sum()
    return log_scale + stats.norm.logpdf(x["mu"], [3, 10], 1).sum()


def gaussian_process(x, data):
    places = np.array(data["x"], float)
    kernel = x["alpha"] ** 2 * np.exp(-(np.subtract.outer(places, places) ** 2) / (2 * x["rho"] ** 2))
    kernel += x["sigma"] * np.eye(len(places))
    prior = stats.gamma.logpdf(x["rho"], 25, scale=1 / 4) + stats.norm.logpdf(x["alpha"], 0, 2)
    prior += stats.norm.logpdf(x["sigma"], 0, 1)
    return prior + stats.multivariate_normal.logpdf(data["y"], np.zeros(len(places)), kernel)


def gauss_mix(x, data):
    densities = [stats.norm.pdf(data["y"], x["mu"][k], x["sigma"][k]) for k in (0, 1)]
    total = np.log(x["theta"] * densities[0] + (1 - x["theta"]) * densities[1]).sum()
    total += stats.norm.logpdf([*x["mu"], *x["sigma"]], 0, 2).sum()
    return total + stats.beta.logpdf(x["theta"], 5, 5)


class Oracle(NamedTuple):
    """One model, in the order of its description.

    to_free maps the described z to its free constrained parameters (complex z too, for Jacobians by complex
    steps), to_variables maps those to the target's variables, from_draw a reference draw to the free ones.
    """

    log_density: Callable[..., float]
    to_free: Callable[[np.ndarray], list]
    to_variables: Callable[[np.ndarray], dict]
    from_draw: Callable[[np.ndarray], np.ndarray] = lambda draw: draw


def last_positive(z):
    return [*z[:-1], np.exp(z[-1])]


def beta_sigma(v):
    return {"beta": v[:-1], "sigma": v[-1]}


def garch_free(z):
    alpha1 = sigmoid(z[2])
    return [z[0], np.exp(z[1]), alpha1, (1 - alpha1) * sigmoid(z[3])]


ORACLES = {
    "arK-arK": Oracle(autoregression, last_positive, lambda v: {"alpha": v[0], "beta": v[1:6], "sigma": v[6]}),
    "earnings-logearn_interaction": Oracle(regression(earnings), last_positive, beta_sigma),
    "eight_schools-eight_schools_centered": Oracle(
        schools, last_positive, lambda v: {"theta": v[:8], "mu": v[8], "tau": v[9]}
    ),
    "eight_schools-eight_schools_noncentered": Oracle(
        schools,
        last_positive,
        lambda v: {"theta_trans": v[:8], "mu": v[8], "tau": v[9]},
        lambda draw: np.concatenate([(draw[:8] - draw[8]) / draw[9], draw[8:]]),
    ),
    "garch-garch11": Oracle(
        garch,
        garch_free,
        lambda v: {"mu": v[0], "alpha0": v[1], "alpha1": v[2], "beta1_fraction": v[3] / (1 - v[2])},
    ),
    "gp_pois_regr-gp_regr": Oracle(
        gaussian_process, lambda z: list(np.exp(z)), lambda v: {"rho": v[0], "alpha": v[1], "sigma": v[2]}
    ),
    "hmm_example-hmm_example": Oracle(
        hidden_markov,
        lambda z: [sigmoid(z[0]), sigmoid(z[1]), np.exp(z[2]), np.exp(z[2]) + np.exp(z[3])],
        lambda v: {
            "theta1": np.array([v[0], 1 - v[0]]),
            "theta2": np.array([v[1], 1 - v[1]]),
            "mu": v[2:],
        },
        lambda draw: draw[[0, 2, 4, 5]],
    ),
    "kidiq-kidscore_interaction": Oracle(
        regression(kidiq, lambda sigma: stats.cauchy.logpdf(sigma, 0, 2.5)), last_positive, beta_sigma
    ),
    "kilpisjarvi_mod-kilpisjarvi": Oracle(
        kilpisjarvi, last_positive, lambda v: {"alpha": v[0], "beta": v[1], "sigma": v[2]}
    ),
    "low_dim_gauss_mix-low_dim_gauss_mix": Oracle(
        gauss_mix,
        lambda z: [z[0], z[0] + np.exp(z[1]), np.exp(z[2]), np.exp(z[3]), sigmoid(z[4])],
        lambda v: {"mu": v[:2], "sigma": v[2:4], "theta": v[4]},
    ),
    "mesquite-logmesquite": Oracle(regression(mesquite), last_positive, beta_sigma),
    "nes1980-nes": Oracle(regression(nes), last_positive, beta_sigma),
    "sblrc-blr": Oracle(blr_log_density, last_positive, beta_sigma),
}
