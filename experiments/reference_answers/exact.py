"""Exact marginals of the synthetic targets: mean, standard deviation and distribution function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import optimize, special, stats

_FUNNEL_LOG_VARIANCE_SCALE = 3.0
_BANANA_WIDTH, _BANANA_BEND = 10.0, 0.03


class Marginal(NamedTuple):
    """One coordinate's mean, standard deviation and distribution function."""

    mean: float
    sd: float
    cdf: Callable[[float], float]


def exact_marginals(name: str, target: Any) -> dict[str, Marginal]:
    """Return the marginal of every coordinate of a synthetic target, by label."""
    return {
        "correlated_gaussian": _correlated_gaussian,
        "funnel": _funnel,
        "banana": _banana,
        "mixture": _mixture,
    }[name](None if target.data is None else jax.tree.map(np.asarray, target.data))


def quantile(marginal: Marginal, level: float) -> float:
    """Return a quantile by root finding on the distribution function."""
    low, high = marginal.mean - 12.0 * marginal.sd, marginal.mean + 12.0 * marginal.sd
    return float(optimize.brentq(lambda c: marginal.cdf(c) - level, low, high, xtol=1e-12))


def _correlated_gaussian(data: Any) -> dict[str, Marginal]:
    sd = np.sqrt(np.sum((data["axes"] * np.exp(data["log_scale"])) ** 2, axis=1))
    pairs = enumerate(zip(data["mean"], sd, strict=True))
    return {f"x[{i}]": Marginal(float(m), float(s), stats.norm(m, s).cdf) for i, (m, s) in pairs}


def _funnel(data: Any) -> dict[str, Marginal]:
    del data
    log_variance = stats.norm(0.0, _FUNNEL_LOG_VARIANCE_SCALE)

    def x_cdf(x: float) -> float:
        return float(log_variance.expect(lambda v: special.ndtr(x * np.exp(-0.5 * v)), lb=-36.0, ub=36.0, epsabs=1e-12))

    # E x² = E e^v = exp(variance of v / 2).
    x = Marginal(0.0, float(np.exp(_FUNNEL_LOG_VARIANCE_SCALE**2 / 4.0)), x_cdf)
    first = Marginal(0.0, _FUNNEL_LOG_VARIANCE_SCALE, log_variance.cdf)
    return {"log_variance": first} | {f"x[{i}]": x for i in range(9)}


def _banana(data: Any) -> dict[str, Marginal]:
    del data
    first = stats.norm(0.0, _BANANA_WIDTH)

    def second_cdf(c: float) -> float:
        def given(a: float) -> float:
            return float(special.ndtr(c + _BANANA_BEND * (a**2 - _BANANA_WIDTH**2)))

        return float(first.expect(given, epsabs=1e-12))

    # The bend adds bend² Var(x1²) = 2 bend² width⁴ to the unit variance.
    sd = float(np.sqrt(1.0 + 2.0 * _BANANA_BEND**2 * _BANANA_WIDTH**4))
    return {"x[0]": Marginal(0.0, _BANANA_WIDTH, first.cdf), "x[1]": Marginal(0.0, sd, second_cdf)}


def _mixture(data: Any) -> dict[str, Marginal]:
    weights, means = np.exp(data["log_weights"]), data["means"]
    sds = np.sqrt(np.sum(data["scale_tril"] ** 2, axis=2))

    def cdf(i: int, c: float) -> float:
        return float(weights @ stats.norm.cdf(c, means[:, i], sds[:, i]))

    out = {}
    for i in range(2):
        mean = float(weights @ means[:, i])
        sd = float(np.sqrt(weights @ (sds[:, i] ** 2 + means[:, i] ** 2) - mean**2))
        out[f"x[{i}]"] = Marginal(mean, sd, partial(cdf, i))
    return out
