"""Log densities of the families of numbers, written out, with where their mass lies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

Values = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Density:
    """A family of numbers.

    Attributes:
        log: log density of x from (x, x − low, high − x, parameters), the distances without rounding near the ends.
        support: (low, high) of parameters.
        where: (center, width) of parameters.
        kink: where the density has one, of parameters.
        discrete: whether x is whole.
        circle: whether the ends are one point.
        moving: parameters on which the support depends.
    """

    log: Callable[..., np.ndarray]
    support: Callable[[Values], tuple[float, float]]
    where: Callable[[Values], tuple[float, float]]
    kink: Callable[[Values], float] | None = None
    discrete: bool = False
    circle: bool = False
    moving: tuple[str, ...] = ()


def _line(v):
    return (-np.inf, np.inf)


def _half(v):
    return (0.0, np.inf)


def _one(v):
    return (0.0, 1.0)


def _natural(v):
    return (0.0, np.inf)


def _AT_LOC(v):
    return (float(v["loc"]), float(v["scale"]))


lgamma, log, exp = special.gammaln, np.log, np.exp


def _located(function: Callable[..., np.ndarray], kink: bool = False) -> Density:
    """Make the family of loc and scale from a log density at y = (x − loc) / scale."""

    def log_density(x: np.ndarray, left: np.ndarray, right: np.ndarray, v: Values) -> np.ndarray:
        return function((x - v["loc"]) / v["scale"], v) - log(v["scale"])

    return Density(log_density, _line, _AT_LOC, (lambda v: float(v["loc"])) if kink else None)


def _gamma_log(log_x: Any, x: Any, a: Any, rate: Any) -> Any:
    # In units of the mean: no large terms that cancel.
    t = log_x + log(rate / a)
    series = np.polyval([1 / special.factorial(k) for k in range(9, 1, -1)], t) * t * t
    excess = np.where(np.abs(t) < 0.02, series, x * (rate / a) - 1 - t)
    if a < 20:
        stirling = lgamma(a) - (a * log(a) - a)
    else:
        stirling = 0.5 * log(2 * np.pi / a) + 1 / (12 * a) - 1 / (360 * a**3) + 1 / (1260 * a**5) - 1 / (1680 * a**7)
    return -a * excess - stirling - log_x


def _positive(function: Callable[..., np.ndarray], where: Callable[[Values], tuple[float, float]]) -> Density:
    return Density(lambda x, left, right, v: function(left, v), _half, where)


def _odds(v: Values) -> tuple[Any, Any]:
    """Return log probability and log of its complement."""
    if "logits" in v and v["logits"] is not None:
        return -np.logaddexp(0, -v["logits"]), -np.logaddexp(0, v["logits"])
    return special.xlogy(1.0, v["probs"]), np.log1p(-v["probs"])


def _probability(v: Values) -> float:
    return float(special.expit(v["logits"])) if "logits" in v else float(v["probs"])


def _times(count: Any, log_probability: Any) -> Any:
    return np.where(count == 0, 0.0, count * log_probability)


def _log_binomial(n: Any, k: Any) -> Any:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _continuous_bernoulli(x: np.ndarray, left: np.ndarray, right: np.ndarray, v: Values) -> np.ndarray:
    slope = v["logits"] if "logits" in v else special.logit(v["probs"])
    # log(slope / (e^slope − 1)) = −slope/2 − log(sinh(slope/2) / (slope/2))
    half = np.abs(slope / 2)
    if half < 1e-2:
        log_sinh = half**2 / 6 - half**4 / 180 + half**6 / 2835
    else:
        log_sinh = half + np.log1p(-np.exp(-2 * half)) - log(2 * half)
    return slope * (left - right) / 2 - log_sinh


def _kumaraswamy(x: np.ndarray, left: np.ndarray, right: np.ndarray, v: Values) -> np.ndarray:
    a, b = v["concentration1"], v["concentration0"]
    log_x = np.where(right < 0.5, np.log1p(-right), log(left))
    return log(a) + log(b) + (a - 1) * log_x + (b - 1) * log(-np.expm1(a * log_x))


def _beta(x: np.ndarray, left: np.ndarray, right: np.ndarray, v: Values) -> np.ndarray:
    a, b = v["concentration1"], v["concentration0"]
    log_x = np.where(right < 0.5, np.log1p(-right), log(left))
    log_rest = np.where(left < 0.5, np.log1p(-left), log(right))
    return (a - 1) * log_x + (b - 1) * log_rest - special.betaln(a, b)


def _truncated_normal(x: np.ndarray, left: np.ndarray, right: np.ndarray, v: Values) -> np.ndarray:
    low, high = (v["low"] - v["loc"]) / v["scale"], (v["high"] - v["loc"]) / v["scale"]
    if low > 0:
        low, high = -high, -low
    first, last = special.log_ndtr(low), special.log_ndtr(high)
    mass = last + np.log1p(-exp(first - last))
    return -0.5 * ((x - v["loc"]) / v["scale"]) ** 2 - 0.5 * log(2 * np.pi) - log(v["scale"]) - mass


def _extreme_value(x: np.ndarray, left: np.ndarray, right: np.ndarray, v: Values) -> np.ndarray:
    shape = v["concentration"]
    y = (x - v["loc"]) / v["scale"]
    t = y if shape == 0 else np.log1p(shape * y) / shape
    return -t * (1 + shape) - exp(-t) - log(v["scale"])


def _extreme_value_support(v: Values) -> tuple[float, float]:
    shape = float(v["concentration"])
    end = float(v["loc"]) - float(v["scale"]) / shape if shape else np.inf
    return (end, np.inf) if shape > 0 else (-np.inf, end)


def _half_line_from(name: str) -> Callable[[Values], tuple[float, float]]:
    return lambda v: (float(v[name]), np.inf)


def _between(v: Values) -> tuple[float, float]:
    return float(v["low"]), float(v["high"])


DENSITIES: dict[str, Density] = {
    "Normal": _located(lambda y, v: -0.5 * y * y - 0.5 * log(2 * np.pi)),
    "Laplace": _located(lambda y, v: -np.abs(y) - log(2), kink=True),
    "Logistic": _located(lambda y, v: -np.abs(y) - 2 * np.log1p(exp(-np.abs(y)))),
    "Gumbel": _located(lambda y, v: -y - exp(-y)),
    "Cauchy": _located(lambda y, v: -log(np.pi) - 2 * log(np.hypot(1, y))),
    "StudentT": _located(
        lambda y, v: lgamma((v["df"] + 1) / 2) - lgamma(v["df"] / 2) - 0.5 * log(v["df"] * np.pi)
        - (v["df"] + 1) * log(np.hypot(1, y / np.sqrt(v["df"])))
    ),
    "Moyal": _located(lambda y, v: -0.5 * (y + exp(-y)) - 0.5 * log(2 * np.pi)),
    "GeneralizedNormal": _located(
        lambda y, v: log(v["power"] / 2) - lgamma(1 / v["power"]) - np.abs(y) ** v["power"], kink=True
    ),
    "ExpGamma": Density(
        lambda x, left, right, v: _gamma_log(x, exp(x), v["concentration"], v["rate"]) + x,
        _line,
        lambda v: (float(log(v["concentration"] / v["rate"])), float(v["concentration"]) ** -0.5),
    ),
    "ExpInverseGamma": Density(
        lambda x, left, right, v: _gamma_log(-x, exp(-x), v["concentration"], v["scale"]) - x,
        _line,
        lambda v: (float(log(v["scale"] / v["concentration"])), float(v["concentration"]) ** -0.5),
    ),
    "GeneralizedExtremeValue": Density(
        _extreme_value, _extreme_value_support, _AT_LOC, moving=("loc", "scale", "concentration")
    ),
    "Gamma": _positive(
        lambda x, v: _gamma_log(log(x), x, v["concentration"], v["rate"]),
        lambda v: (float(v["concentration"] / v["rate"]), float(v["concentration"]) ** 0.5 / float(v["rate"])),
    ),
    "GeneralizedGamma": _positive(
        lambda x, v: _gamma_log(
            v["power"] * log(x / v["scale"]), (x / v["scale"]) ** v["power"], v["concentration"], v["rate"]
        )
        + log(np.abs(v["power"]) / x) + v["power"] * log(x / v["scale"]),
        lambda v: (
            (m := float(v["scale"]) * float(v["concentration"] / v["rate"]) ** (1 / float(v["power"]))),
            m * min(1, 1 / abs(float(v["power"])) / float(v["concentration"]) ** 0.5),
        ),
    ),
    "Exponential": _positive(lambda x, v: log(v["rate"]) - v["rate"] * x, lambda v: (1 / float(v["rate"]),) * 2),
    "Chi2": _positive(
        lambda x, v: _gamma_log(log(x), x, v["df"] / 2, 0.5), lambda v: (float(v["df"]), (2 * float(v["df"])) ** 0.5)
    ),
    "Chi": _positive(
        lambda x, v: _gamma_log(2 * log(x), x * x, v["df"] / 2, 0.5) + log(2 * x),
        lambda v: (float(v["df"]) ** 0.5, 0.7 * min(1, float(v["df"]) ** 0.5)),
    ),
    "InverseGamma": _positive(
        lambda x, v: _gamma_log(-log(x), 1 / x, v["concentration"], v["scale"]) - 2 * log(x),
        lambda v: (float(v["scale"] / v["concentration"]), float(v["scale"]) / float(v["concentration"]) ** 1.5),
    ),
    "HalfNormal": _positive(
        lambda x, v: 0.5 * log(2 / np.pi) - log(v["scale"]) - 0.5 * (x / v["scale"]) ** 2,
        lambda v: (0.0, float(v["scale"])),
    ),
    "HalfCauchy": _positive(
        lambda x, v: log(2 / np.pi) - log(v["scale"]) - 2 * log(np.hypot(1, x / v["scale"])),
        lambda v: (0.0, float(v["scale"])),
    ),
    "Rayleigh": _positive(
        lambda x, v: log(x) - 2 * log(v["scale"]) - 0.5 * (x / v["scale"]) ** 2, lambda v: (float(v["scale"]),) * 2
    ),
    "Maxwell": _positive(
        lambda x, v: 0.5 * log(2 / np.pi) + 2 * log(x) - 3 * log(v["scale"]) - 0.5 * (x / v["scale"]) ** 2,
        lambda v: (float(v["scale"]),) * 2,
    ),
    "Weibull": _positive(
        lambda x, v: log(v["concentration"]) - log(x) + v["concentration"] * log(x / v["scale"])
        - (x / v["scale"]) ** v["concentration"],
        lambda v: (float(v["scale"]), float(v["scale"]) / max(1, float(v["concentration"]))),
    ),
    "Frechet": _positive(
        lambda x, v: log(v["concentration"]) - log(x) - v["concentration"] * log(x / v["scale"])
        - (x / v["scale"]) ** -v["concentration"],
        lambda v: (float(v["scale"]), float(v["scale"]) / max(1, float(v["concentration"]))),
    ),
    "InverseGaussian": _positive(
        lambda x, v: 0.5 * log(v["concentration"] / (2 * np.pi)) - 1.5 * log(x)
        - v["concentration"] * (x - v["loc"]) ** 2 / (2 * v["loc"] ** 2 * x),
        lambda v: (float(v["loc"]), min(float(v["loc"]), float(v["loc"]) ** 1.5 / float(v["concentration"]) ** 0.5)),
    ),
    "LogNormal": _positive(
        lambda x, v: -log(x) - log(v["scale"]) - 0.5 * log(2 * np.pi) - 0.5 * ((log(x) - v["loc"]) / v["scale"]) ** 2,
        lambda v: (float(exp(v["loc"])), float(exp(v["loc"])) * min(1, float(v["scale"]))),
    ),
    "LogLogistic": _positive(
        lambda x, v: -log(x) - log(v["scale"]) - np.abs((log(x) - v["loc"]) / v["scale"])
        - 2 * np.log1p(exp(-np.abs((log(x) - v["loc"]) / v["scale"]))),
        lambda v: (float(exp(v["loc"])), float(exp(v["loc"])) * min(1, float(v["scale"]))),
    ),
    "Levy": Density(
        lambda x, left, right, v: 0.5 * log(v["scale"] / (2 * np.pi)) - 1.5 * log(left) - v["scale"] / (2 * left),
        _half_line_from("loc"), lambda v: (float(v["loc"] + v["scale"]), float(v["scale"])), moving=("loc",),
    ),
    "Pareto": Density(
        lambda x, left, right, v: log(v["concentration"]) - log(x)
        - v["concentration"] * np.where(left < 0.5 * v["scale"], np.log1p(left / v["scale"]), log(x / v["scale"])),
        _half_line_from("scale"),
        lambda v: (float(v["scale"]), float(v["scale"]) / max(1, float(v["concentration"]))), moving=("scale",),
    ),
    "Beta": Density(
        _beta, _one,
        lambda v: (
            (m := float(v["concentration1"] / (v["concentration1"] + v["concentration0"]))),
            (m * (1 - m) / (1 + float(v["concentration1"] + v["concentration0"]))) ** 0.5,
        ),
    ),
    "Kumaraswamy": Density(_kumaraswamy, _one, lambda v: (0.5, 0.2)),
    "ContinuousBernoulli": Density(_continuous_bernoulli, _one, lambda v: (0.5, 0.2)),
    "LogitNormal": Density(
        lambda x, left, right, v: -log(left) - log(right) - log(v["scale"]) - 0.5 * log(2 * np.pi)
        - 0.5 * ((log(left) - log(right) - v["loc"]) / v["scale"]) ** 2,
        _one,
        lambda v: (
            float(special.expit(v["loc"])),
            float(special.expit(v["loc"]) * special.expit(-v["loc"])) * min(1, float(v["scale"])),
        ),
    ),
    "Uniform": Density(
        lambda x, left, right, v: -log(v["high"] - v["low"]) + 0 * x, _between,
        lambda v: (float(v["low"] + v["high"]) / 2, float(v["high"] - v["low"]) / 4), moving=("low", "high"),
    ),
    "TruncatedNormal": Density(_truncated_normal, _between, _AT_LOC, moving=("low", "high")),
    "TruncatedExponential": Density(
        lambda x, left, right, v: log(v["rate"]) - v["rate"] * x - log(-np.expm1(-v["rate"] * v["high"])),
        lambda v: (0.0, float(v["high"])), lambda v: (0.0, min(1 / float(v["rate"]), float(v["high"]) / 4)),
        moving=("high",),
    ),
    "VonMises": Density(
        lambda x, left, right, v: -2 * v["concentration"] * np.sin((x - v["loc"]) / 2) ** 2
        - log(2 * np.pi * special.ive(0, v["concentration"])),
        lambda v: (float(v["loc"]) - np.pi, float(v["loc"]) + np.pi),
        lambda v: (float(v["loc"]), min(1.0, max(float(v["concentration"]), 1e-9) ** -0.5)),
        circle=True,
    ),
    "Bernoulli": Density(
        lambda x, left, right, v: _times(x, _odds(v)[0]) + _times(1 - x, _odds(v)[1]), _one, lambda v: (0.5, 1),
        discrete=True,
    ),
    "Binomial": Density(
        lambda x, left, right, v: _log_binomial(v["total_count"], x) + _times(x, _odds(v)[0])
        + _times(v["total_count"] - x, _odds(v)[1]),
        lambda v: (0.0, float(v["total_count"])),
        lambda v: (float(v["total_count"]) * _probability(v),
                   (float(v["total_count"]) * _probability(v) * (1 - _probability(v))) ** 0.5),
        discrete=True,
    ),
    "Geometric": Density(
        lambda x, left, right, v: _odds(v)[0] + _times(x, _odds(v)[1]), _natural,
        lambda v: (1 / max(_probability(v), 1e-4), 1 / max(_probability(v), 1e-4)), discrete=True,
    ),
    "NegativeBinomial": Density(
        lambda x, left, right, v: lgamma(x + v["total_count"]) - lgamma(x + 1) - lgamma(v["total_count"])
        + _times(x, _odds(v)[0]) + v["total_count"] * _odds(v)[1],
        _natural,
        lambda v: (float(v["total_count"]) * _probability(v) / (1 - _probability(v)),
                   2 + (float(v["total_count"]) * _probability(v)) ** 0.5 / (1 - _probability(v))),
        discrete=True,
    ),
    "Poisson": Density(
        lambda x, left, right, v: _times(x, log(np.maximum(v["rate"], 1e-300))) - v["rate"] - lgamma(x + 1),
        _natural, lambda v: (float(v["rate"]), float(v["rate"]) ** 0.5), discrete=True,
    ),
    "DiscreteUniform": Density(
        lambda x, left, right, v: -log(v["high"] - v["low"] + 1) + 0 * x, _between,
        lambda v: (float(v["low"] + v["high"]) / 2, float(v["high"] - v["low"]) / 2), discrete=True,
        moving=("low", "high"),
    ),
}  # fmt: skip
