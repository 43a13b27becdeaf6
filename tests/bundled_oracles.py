"""Oracles of the bundled targets: scipy.stats in float64, data read anew, no code shared with vi_kit."""

from typing import Any, NamedTuple

import numpy as np
from scipy import stats


class Oracle(NamedTuple):
    """A log density over x without Jacobian, and the names of the positive variables (x = exp z)."""

    log_density: Any
    positive: tuple[str, ...] = ()

    def __call__(self, x: dict[str, np.ndarray]) -> float:
        log_jacobian = sum(np.log(x[name]).sum() for name in self.positive)
        return float(self.log_density(x) + log_jacobian)


def standardized(columns):
    return (columns - np.mean(columns, axis=0)) / np.std(columns, axis=0)


EFFECTS = np.array([28, 8, -3, 7, -1, 1, 18, 12])
STANDARD_ERRORS = np.array([15, 10, 16, 11, 9, 11, 10, 18])


def eight_schools(x):
    prior = stats.norm(0, 5).logpdf(x["mu"]) + stats.halfcauchy(0, 5).logpdf(x["tau"])
    theta = x["mu"] + x["tau"] * x["eta"]
    return prior + stats.norm.logpdf(x["eta"]).sum() + stats.norm(theta, STANDARD_ERRORS).logpdf(EFFECTS).sum()


def eight_schools_centered(x):
    prior = stats.norm(0, 5).logpdf(x["mu"]) + stats.halfcauchy(0, 5).logpdf(x["tau"])
    hierarchy = stats.norm(x["mu"], x["tau"]).logpdf(x["theta"]).sum()
    return prior + hierarchy + stats.norm(x["theta"], STANDARD_ERRORS).logpdf(EFFECTS).sum()


# Crowder's four groups, germinated/planted: O. aegyptiaca 75 on bean and cucumber, then 73 on both.
GROUPS = {
    (0, 0): "10/39 23/62 23/81 26/51 17/39",
    (0, 1): "5/6 53/74 55/72 32/51 46/79 10/13",
    (1, 0): "8/16 10/30 8/28 23/45 0/4",
    (1, 1): "3/12 22/41 15/30 32/51 3/7",
}


def seeds(x):
    total = sum(stats.norm(0, 10).logpdf(x[name]) for name in ("alpha0", "alpha1", "alpha2", "alpha12"))
    total += stats.halfnorm(0, 1).logpdf(x["sigma"]) + stats.norm.logpdf(x["offset"]).sum()
    plate = 0
    for (seed_type, root), rows in GROUPS.items():
        for row in rows.split():
            germinated, planted = map(int, row.split("/"))
            logit = x["alpha0"] + x["alpha1"] * seed_type + x["alpha2"] * root + x["alpha12"] * seed_type * root
            p = 1 / (1 + np.exp(-logit - x["sigma"] * x["offset"][plate]))
            total += stats.binom(planted, p).logpmf(germinated)
            plate += 1
    return total


def breast_cancer(x):
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    malignant = bunch.target == list(bunch.target_names).index("malignant")
    logit = standardized(bunch.data) @ x["weights"] + x["intercept"]
    prior = stats.norm(0, 5).logpdf(x["intercept"]) + stats.norm(0, 2.5).logpdf(x["weights"]).sum()
    return prior + stats.logistic.logcdf(logit[malignant]).sum() + stats.logistic.logsf(logit[~malignant]).sum()


def diabetes_weights(x):
    scale = x["global_scale"] * x["local_scale"]
    return x["offset"] * np.sqrt(scale**2 / (1 + scale**2))


def diabetes(x):
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    mean = x["intercept"] + standardized(bunch.data) @ diabetes_weights(x)
    prior = (
        stats.norm.logpdf(x["intercept"])
        + stats.halfnorm(0, 0.25).logpdf(x["global_scale"])
        + np.sum(np.log(2) + stats.t(5).logpdf(x["local_scale"]))
        + stats.norm.logpdf(x["offset"]).sum()
        + stats.halfnorm.logpdf(x["sigma"])
    )
    return prior + stats.norm(mean, x["sigma"]).logpdf(standardized(bunch.target)).sum()


def nile_flow():
    from statsmodels.datasets import nile

    return np.asarray(nile.load_pandas().data["volume"], float) / 100


def nile_covariance(observation_scale, level_scale, years=100):
    """Covariance of the flows given the initial level: the level has walked t - 1 steps by year t."""
    steps = np.arange(years)
    return observation_scale**2 * np.eye(years) + level_scale**2 * np.minimum.outer(steps, steps)


def nile(x):
    covariance = nile_covariance(x["observation_scale"], x["level_scale"])
    prior = (
        stats.norm(10, 5).logpdf(x["initial_level"])
        + stats.halfnorm(0, 2).logpdf(x["observation_scale"])
        + stats.halfnorm(0, 1).logpdf(x["level_scale"])
    )
    return prior + stats.multivariate_normal(np.full(100, x["initial_level"]), covariance).logpdf(nile_flow())


def doctor_visits(x):
    from statsmodels.datasets import randhie

    table = randhie.load_pandas()
    visits = np.asarray(table.endog, float)
    rate = np.exp(x["intercept"] + standardized(np.asarray(table.exog, float)) @ x["weights"])
    prior = stats.norm(0, 5).logpdf(x["intercept"]) + stats.norm(0, 1).logpdf(x["weights"]).sum()
    # The target leaves the factorials out.
    factorials = -stats.poisson(1).logpmf(visits) - 1
    return prior + np.sum(stats.poisson(rate).logpmf(visits) + factorials)


def correlated_gaussian(x):
    v = np.arange(1, 11)[:, None] / np.sqrt(385)
    variances = 10 ** (np.arange(10) * 2 / 9 - 1)
    reflection = np.eye(10) - 2 * v @ v.T
    covariance = reflection @ np.diag(variances) @ reflection.T
    return stats.multivariate_normal(np.arange(10) * 2 / 9 - 1, covariance).logpdf(x["x"])


def funnel(x):
    conditional = stats.norm(0, np.sqrt(np.exp(x["log_variance"])))
    return stats.norm(0, 3).logpdf(x["log_variance"]) + conditional.logpdf(x["x"]).sum()


def banana(x):
    first, second = x["x"]
    return stats.norm(0, 10).logpdf(first) + stats.norm().logpdf(second + 0.03 * first**2 - 3)


def mixture(x):
    heavy = stats.multivariate_normal([-3, -0.5], [[1, 0.6], [0.6, 1]]).pdf(x["x"])
    light = stats.multivariate_normal([3, 1], [[0.81, -0.45], [-0.45, 0.61]]).pdf(x["x"])
    return np.log(0.65 * heavy + 0.35 * light)


ORACLES = {
    "eight_schools": Oracle(eight_schools, ("tau",)),
    "eight_schools_centered": Oracle(eight_schools_centered, ("tau",)),
    "seeds": Oracle(seeds, ("sigma",)),
    "breast_cancer": Oracle(breast_cancer),
    "diabetes": Oracle(diabetes, ("global_scale", "local_scale", "sigma")),
    "nile": Oracle(nile, ("observation_scale", "level_scale")),
    "doctor_visits": Oracle(doctor_visits),
    "correlated_gaussian": Oracle(correlated_gaussian),
    "funnel": Oracle(funnel),
    "banana": Oracle(banana),
    "mixture": Oracle(mixture),
}
