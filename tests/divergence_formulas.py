"""KL by textbook formulas with 40 digits: vectors, matrices, heavy tails; gradients along directions by differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np

mp.mp.dps = 40
Values = dict[str, Any]
Number = Any


def _matrix(x: Any) -> Any:
    return mp.matrix([[mp.mpf(v) for v in row] for row in x])


def _lower(x: Any) -> Any:
    rows = list(x)
    return mp.matrix([[mp.mpf(v) if j <= i else mp.mpf(0) for j, v in enumerate(row)] for i, row in enumerate(rows)])


def _column(x: Any) -> Any:
    return mp.matrix([mp.mpf(v) for v in x])


def _trace(x: Any) -> Number:
    return mp.fsum(x[i, i] for i in range(x.rows))


def _log_det(x: Any) -> Number:
    return mp.log(mp.det(x))


def _normal(m: Any, s: Any, n: Any, t: Any) -> Number:
    precision, shift = mp.inverse(t), n - m
    return (_trace(precision * s) + (shift.T * precision * shift)[0] - s.rows + _log_det(t) - _log_det(s)) / 2


def _dense(v: Values) -> tuple[Any, Any]:
    """Return mean and covariance."""
    if "scale_tril" in v:
        factor = _lower(v["scale_tril"])
        return _column(v["loc"]), factor * factor.T
    diagonal = mp.diag([mp.mpf(s) ** 2 for s in (v["scale_diag"] if "factor" in v else v["scale"])])
    if "factor" in v:
        factor = _matrix(v["factor"])
        diagonal += factor * factor.T
    return _column(v["loc"]), diagonal


def normal(p: Values, q: Values) -> Number:
    return _normal(*_dense(p), *_dense(q))


def _kronecker(a: Any, b: Any) -> Any:
    return mp.matrix(
        [
            [a[i, j] * b[k, m] for j in range(a.cols) for m in range(b.cols)]
            for i in range(a.rows)
            for k in range(b.rows)
        ]
    )


def matrix_normal(p: Values, q: Values) -> Number:
    def dense(v: Values) -> tuple[Any, Any]:
        rows, columns = _lower(v["row_scale_tril"]), _lower(v["column_scale_tril"])
        return _column([x for row in v["loc"] for x in row]), _kronecker(rows * rows.T, columns * columns.T)

    return _normal(*dense(p), *dense(q))


def dirichlet(p: Values, q: Values) -> Number:
    a, b = ([mp.mpf(x) for x in v["concentration"]] for v in (p, q))
    total = mp.fsum(a)
    value = mp.loggamma(total) - mp.loggamma(mp.fsum(b))
    for x, y in zip(a, b, strict=True):
        value += mp.loggamma(y) - mp.loggamma(x) + (x - y) * (mp.digamma(x) - mp.digamma(total))
    return value


def beta(p: Values, q: Values) -> Number:
    return dirichlet(*({"concentration": [v["concentration1"], v["concentration0"]]} for v in (p, q)))


def gamma(p: Values, q: Values) -> Number:
    (a, r), (b, s) = ((mp.mpf(v["concentration"]), mp.mpf(v["rate"])) for v in (p, q))
    return (a - b) * mp.digamma(a) - mp.loggamma(a) + mp.loggamma(b) + b * mp.log(r / s) + a * (s - r) / r


def _log_gamma(k: int, x: Number) -> Number:
    return k * (k - 1) / mp.mpf(4) * mp.log(mp.pi) + mp.fsum(mp.loggamma(x - mp.mpf(i) / 2) for i in range(k))


def _wishart(v: Any, n: Number, w: Any, m: Number) -> Number:
    k = v.rows
    digamma = mp.fsum(mp.digamma((n - i) / 2) for i in range(k))
    return (
        m / 2 * (_log_det(w) - _log_det(v))
        + n / 2 * (_trace(mp.inverse(w) * v) - k)
        + _log_gamma(k, m / 2)
        - _log_gamma(k, n / 2)
        + (n - m) / 2 * digamma
    )


def _scale(v: Values) -> Any:
    factor = _lower(v["scale_tril"])
    return factor * factor.T


def wishart(p: Values, q: Values) -> Number:
    return _wishart(_scale(p), mp.mpf(p["df"]), _scale(q), mp.mpf(q["df"]))


def inverse_wishart(p: Values, q: Values) -> Number:
    return _wishart(mp.inverse(_scale(p)), mp.mpf(p["df"]), mp.inverse(_scale(q)), mp.mpf(q["df"]))


def _mean_given_precision(p: Values, q: Values, shift_squared: Number, size: int) -> Number:
    """Return the mean of KL between the two conditional normals; `shift_squared` is E Δᵀ Λ Δ."""
    ratio = mp.mpf(q["count"]) / mp.mpf(p["count"])
    return (size * (ratio - 1 - mp.log(ratio)) + mp.mpf(q["count"]) * shift_squared) / 2


def normal_gamma(p: Values, q: Values) -> Number:
    shift = mp.mpf(q["loc"]) - mp.mpf(p["loc"])
    scale = "rate" if "rate" in p else "scale"
    mean = mp.mpf(p["concentration"]) / mp.mpf(p[scale])
    first, second = ({"concentration": v["concentration"], "rate": v[scale]} for v in (p, q))
    return _mean_given_precision(p, q, mean * shift**2, 1) + gamma(first, second)


def normal_wishart(p: Values, q: Values) -> Number:
    shift = _column(q["loc"]) - _column(p["loc"])
    squared = mp.mpf(p["df"]) * (shift.T * _scale(p) * shift)[0]
    return _mean_given_precision(p, q, squared, shift.rows) + wishart(p, q)


def normal_inverse_wishart(p: Values, q: Values) -> Number:
    shift = _column(q["loc"]) - _column(p["loc"])
    squared = mp.mpf(p["df"]) * (shift.T * mp.inverse(_scale(p)) * shift)[0]
    return _mean_given_precision(p, q, squared, shift.rows) + inverse_wishart(p, q)


def _probabilities(v: Values) -> list[Number]:
    weights = [mp.exp(mp.mpf(x)) for x in v["logits"]] if "logits" in v else [mp.mpf(x) for x in v["probs"]]
    total = mp.fsum(weights)
    return [w / total for w in weights]


def categorical(p: Values, q: Values) -> Number:
    found = mp.mpf(0)
    for a, b in zip(_probabilities(p), _probabilities(q), strict=True):
        found += mp.inf if a > 0 and b == 0 else a * mp.log(a / b) if a > 0 else 0
    return found


def multinomial(p: Values, q: Values) -> Number:
    return mp.mpf(p["total_count"]) * categorical(p, q)


def _unit(x: Any) -> list[Number]:
    length = mp.sqrt(mp.fsum(mp.mpf(v) ** 2 for v in x))
    return [mp.mpf(v) / length for v in x]


def _fisher(size: int, kappa: Number) -> tuple[Number, Number]:
    """Return the log normalizer (to the uniform density) and the mean of the cosine."""
    order = mp.mpf(size) / 2 - 1
    if kappa == 0:
        return mp.mpf(0), mp.mpf(0)
    bessel = mp.besseli(order, kappa)
    log_normalizer = mp.log(bessel) + mp.loggamma(order + 1) - order * mp.log(kappa / 2)
    return log_normalizer, mp.besseli(order + 1, kappa) / bessel


def _cosine(p: Values, q: Values) -> Number:
    return mp.fsum(x * y for x, y in zip(_unit(p["mean_direction"]), _unit(q["mean_direction"]), strict=True))


def von_mises_fisher(p: Values, q: Values) -> Number:
    size = len(p["mean_direction"])
    a, b = mp.mpf(p["concentration"]), mp.mpf(q["concentration"])
    (first, mean), (second, _) = _fisher(size, a), _fisher(size, b)
    return (a - b * _cosine(p, q)) * mean - first + second


def von_mises_fisher_uniform(p: Values, q: Values) -> Number:
    normalizer, mean = _fisher(len(p["mean_direction"]), mp.mpf(p["concentration"]))
    return mp.mpf(p["concentration"]) * mean - normalizer


def _power(size: int, kappa: Number) -> tuple[Number, Number, Number]:
    """Return E log(1 + t), E t and the log of the normalizer (to the uniform density) of a power spherical cosine t."""
    half = mp.mpf(size - 1) / 2  # (1 + t) / 2 is Beta(half + kappa, half)
    a, b = half + kappa, half
    log_mean = mp.log(2) + mp.digamma(a) - mp.digamma(a + b)

    def log_beta(x: Number, y: Number) -> Number:
        return mp.loggamma(x) + mp.loggamma(y) - mp.loggamma(x + y)

    normalizer = kappa * mp.log(2) + log_beta(a, b) - log_beta(half, half)
    return log_mean, (a - b) / (a + b), normalizer


def power_spherical_uniform(p: Values, q: Values) -> Number:
    log_mean, _, normalizer = _power(len(p["mean_direction"]), mp.mpf(p["concentration"]))
    return mp.mpf(p["concentration"]) * log_mean - normalizer


def power_spherical_von_mises_fisher(p: Values, q: Values) -> Number:
    _, mean, _ = _power(len(p["mean_direction"]), mp.mpf(p["concentration"]))
    normalizer, _ = _fisher(len(p["mean_direction"]), mp.mpf(q["concentration"]))
    return power_spherical_uniform(p, {}) - mp.mpf(q["concentration"]) * mean * _cosine(p, q) + normalizer


def power_spherical(p: Values, q: Values) -> Number:
    """Take equal directions: another one has no closed form."""
    log_mean, _, first = _power(len(p["mean_direction"]), mp.mpf(p["concentration"]))
    _, _, second = _power(len(p["mean_direction"]), mp.mpf(q["concentration"]))
    return (mp.mpf(p["concentration"]) - mp.mpf(q["concentration"])) * log_mean - first + second


def uniform_von_mises_fisher(p: Values, q: Values) -> Number:
    return _fisher(len(q["mean_direction"]), mp.mpf(q["concentration"]))[0]


def uniform_power_spherical(p: Values, q: Values) -> Number:
    size = len(q["mean_direction"])
    kappa = mp.mpf(q["concentration"])
    log_mean, _, _ = _power(size, mp.mpf(0))
    return _power(size, kappa)[2] - kappa * log_mean


def _log_logistic(p: Values, q: Values, sign: int) -> Number:
    """Against a power k of a ratio to a scale c, of this sign in log x: quadrature loses digits where ks is near 1."""
    loc, s, k, c = (mp.mpf(v[n]) for v, n in ((p, "loc"), (p, "scale"), (q, "concentration"), (q, "scale")))
    if k * s >= 1:
        return mp.inf
    height = sign * k * (loc - mp.log(c))
    return mp.exp(height) * mp.gamma(1 + k * s) * mp.gamma(1 - k * s) - height - mp.log(k * s) - 2


def log_logistic_weibull(p: Values, q: Values) -> Number:
    return _log_logistic(p, q, 1)


def log_logistic_frechet(p: Values, q: Values) -> Number:
    return _log_logistic(p, q, -1)


FORMULAS: dict[tuple[str, str], Callable[[Values, Values], Number]] = {
    **{
        (a, b): normal
        for a in ("MultivariateNormal", "MultivariateNormalLowRank")
        for b in ("MultivariateNormal", "MultivariateNormalLowRank")
    },
    ("MatrixNormal", "MatrixNormal"): matrix_normal,
    ("Dirichlet", "Dirichlet"): dirichlet,
    ("Wishart", "Wishart"): wishart,
    ("InverseWishart", "InverseWishart"): inverse_wishart,
    ("NormalGamma", "NormalGamma"): normal_gamma,
    ("NormalInverseGamma", "NormalInverseGamma"): normal_gamma,
    ("NormalWishart", "NormalWishart"): normal_wishart,
    ("NormalInverseWishart", "NormalInverseWishart"): normal_inverse_wishart,
    ("Categorical", "Categorical"): categorical,
    ("OneHotCategorical", "OneHotCategorical"): categorical,
    ("Categorical", "OneHotCategorical"): categorical,
    ("OneHotCategorical", "Categorical"): categorical,
    ("Multinomial", "Multinomial"): multinomial,
    ("VonMisesFisher", "VonMisesFisher"): von_mises_fisher,
    ("VonMisesFisher", "SphericalUniform"): von_mises_fisher_uniform,
    ("LogLogistic", "Weibull"): log_logistic_weibull,
    ("LogLogistic", "Frechet"): log_logistic_frechet,
    ("SphericalUniform", "SphericalUniform"): lambda p, q: mp.mpf(0),
    ("SphericalUniform", "VonMisesFisher"): uniform_von_mises_fisher,
    ("SphericalUniform", "PowerSpherical"): uniform_power_spherical,
    ("PowerSpherical", "SphericalUniform"): power_spherical_uniform,
    ("PowerSpherical", "VonMisesFisher"): power_spherical_von_mises_fisher,
    ("PowerSpherical", "PowerSpherical"): power_spherical,
}


def directional(function: Callable[[Values, Values], Number], p: Values, q: Values, dp: Values, dq: Values) -> float:
    """Differentiate along a direction by central differences: 40 digits leave 25 of them."""
    step = mp.mpf(10) ** -12

    def moved(values: Values, change: Values, sign: int) -> Values:
        found = {}
        for name, value in values.items():
            if name not in change:
                found[name] = value
                continue
            array, towards = np.asarray(value), np.asarray(change[name])
            flat = [
                mp.mpf(float(x)) + sign * step * mp.mpf(float(t)) for x, t in zip(array.flat, towards.flat, strict=True)
            ]
            found[name] = np.array(flat, dtype=object).reshape(array.shape)
            if array.ndim == 0:
                found[name] = flat[0]
        return found

    high, low = (function(moved(p, dp, s), moved(q, dq, s)) for s in (1, -1))
    return float((high - low) / (2 * step))
