"""Log densities of all that a distribution object is read as, written out with numpy and scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
from divergence_densities import DENSITIES
from scipy import special, stats

from vi_kit.divergences import distributions as d


def _classes(v: dict[str, Any]) -> np.ndarray:
    return special.log_softmax(v["logits"]) if v.get("logits") is not None else special.xlogy(1.0, v["probs"])


def _factor(matrix: np.ndarray) -> np.ndarray:
    return np.tril(matrix)


def _normal(v: dict[str, Any], x: np.ndarray) -> float:
    root = _factor(v["scale_tril"])
    return stats.multivariate_normal.logpdf(x, v["loc"], root @ root.T)


def _low_rank(v: dict[str, Any], x: np.ndarray) -> float:
    return stats.multivariate_normal.logpdf(x, v["loc"], v["factor"] @ v["factor"].T + np.diag(v["scale_diag"] ** 2))


def _matrix_normal(v: dict[str, Any], x: np.ndarray) -> float:
    rows, columns = _factor(v["row_scale_tril"]), _factor(v["column_scale_tril"])
    return stats.multivariate_normal.logpdf(x.ravel(), v["loc"].ravel(), np.kron(rows @ rows.T, columns @ columns.T))


def _sphere_area(dim: int) -> float:
    return np.log(2) + dim / 2 * np.log(np.pi) - special.gammaln(dim / 2)


def _power_spherical(v: dict[str, Any], x: np.ndarray) -> float:
    dim, k = len(x), v["concentration"]
    a, b = (dim - 1) / 2 + k, (dim - 1) / 2
    normalizer = (a + b) * np.log(2) + b * np.log(np.pi) + special.gammaln(a) - special.gammaln(a + b)
    return k * np.log1p(v["mean_direction"] @ x) - normalizer


def _von_mises_fisher(v: dict[str, Any], x: np.ndarray) -> float:
    return stats.vonmises_fisher(v["mean_direction"], v["concentration"]).logpdf(x)


def _wishart(v: dict[str, Any], x: np.ndarray) -> float:
    root = _factor(v["scale_tril"])
    return stats.wishart.logpdf(x, v["df"], root @ root.T)


def _inverse_wishart(v: dict[str, Any], x: np.ndarray) -> float:
    root = _factor(v["scale_tril"])
    return stats.invwishart.logpdf(x, v["df"], root @ root.T)


EVENTS = {
    "Categorical": lambda v, x: _classes(v)[int(x)],
    "OneHotCategorical": lambda v, x: _classes(v)[int(np.argmax(x))],
    "Multinomial": lambda v, x: stats.multinomial.logpmf(x, v["total_count"], special.softmax(_classes(v))),
    "MultivariateNormal": _normal,
    "MultivariateNormalLowRank": _low_rank,
    "Dirichlet": lambda v, x: stats.dirichlet.logpdf(x / x.sum(), v["concentration"]),
    "MatrixNormal": _matrix_normal,
    "Wishart": _wishart,
    "InverseWishart": _inverse_wishart,
    "PowerSpherical": _power_spherical,
    "VonMisesFisher": _von_mises_fisher,
}


def _leaf(family: d.Distribution, x: np.ndarray) -> np.ndarray:
    name, batch = type(family).__name__, family.batch_shape
    values = {k: np.asarray(v, float) for k, (v, _) in family.broadcast_to(batch).parameters.items()}
    found = np.zeros(batch)
    for index in np.ndindex(*batch):
        v = {k: a[index] for k, a in values.items()}
        if name in EVENTS:
            found[index] = EVENTS[name](v, x[index])
        else:
            density = DENSITIES[name]
            low, high = density.support(v)
            inside = low <= x[index] <= high
            found[index] = density.log(x[index], x[index] - low, high - x[index], v) if inside else -np.inf
    return found


def _log_slope(transform: d.Transform, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the image of x under the inverse of a transform of numbers, and the log slope of that inverse."""
    if isinstance(transform, d.Exp):
        return np.log(x), -np.log(x)
    if isinstance(transform, d.Sigmoid):
        return special.logit(x), -np.log(x) - np.log1p(-x)
    if isinstance(transform, d.Power):
        e = 1 / transform.exponent
        return x**e, np.log(abs(e)) + (e - 1) * np.log(x)
    if isinstance(transform, d.Affine):
        loc, scale = np.asarray(transform.loc, float), np.asarray(transform.scale, float)
        return (x - loc) / scale, -np.log(np.abs(scale)) + 0 * x
    if isinstance(transform, d.Bijector):
        if transform.kind == "logit":
            return special.expit(x), -np.logaddexp(0, x) - np.logaddexp(0, -x)
        if transform.kind == "log":
            return np.exp(x), x
        if transform.kind == "tanh":
            return np.arctanh(x), -np.log1p(-x * x)
        if transform.kind == "softplus":
            return np.log(np.expm1(x)), x - np.log(np.expm1(x))
        if transform.kind == ("inverse", "softplus"):
            return np.logaddexp(0, x), -np.logaddexp(0, -x)
        if transform.kind == "outcomes":
            (outcomes,) = transform.arrays
            return np.argmin(np.abs(np.asarray(outcomes) - x[..., None]), axis=-1), 0 * x
        if isinstance(transform.kind, tuple) and transform.kind[0] == "blocks":
            ends = np.cumsum(transform.kind[1])
            pieces = np.split(x, ends[:-1], axis=-1)
            events = transform.events[0]
            return tuple(v if e else v[..., 0] for v, e in zip(pieces, events, strict=True)), np.zeros(x.shape[:-1])
    raise NotImplementedError(transform)


def log_density(family: d.Distribution, x: Any) -> np.ndarray:
    """Return the log density of one event an entry of the batch."""
    if isinstance(family, d.Joint):
        parts = zip(family._children(), _leaves(family.parts, x), strict=True)
        return sum(log_density(part, value) for part, value in parts)
    x = np.asarray(x, float)
    if isinstance(family, d.Independent):
        base = family.base.broadcast_to(family.base.batch_shape)
        values = log_density(base, x)
        return values.sum(axis=tuple(range(values.ndim - family.ndims, values.ndim)))
    if isinstance(family, d.Sample):
        ndim = len(family.shape)
        over = tuple(range(len(family.batch_shape), len(family.batch_shape) + ndim))
        draws = np.moveaxis(x, over, tuple(range(ndim)))
        return sum(log_density(family.base, draws[i]) for i in np.ndindex(*family.shape))
    if isinstance(family, d.Masked):
        return np.where(np.asarray(family.mask), log_density(family.base, x), 0.0)
    if isinstance(family, d.Transformed):
        family = family.broadcast_to(family.batch_shape)
        total: Any = 0.0
        for transform in reversed(family.transforms):
            x, slope = _log_slope(transform, x)
            total = total + slope
        values = log_density(family.base, x)
        return values + total.sum(axis=tuple(range(values.ndim, total.ndim)))
    if isinstance(family, d.Mixture):
        family = family.broadcast_to(family.batch_shape)
        weights = special.log_softmax(np.asarray(family.logits, float), axis=-1)
        axis = len(family.batch_shape)
        values = log_density(
            family.base, np.broadcast_to(np.expand_dims(x, axis), (*x.shape[:axis], weights.shape[-1], *x.shape[axis:]))
        )
        return special.logsumexp(weights + values, axis=-1)
    if isinstance(family, d.Deterministic):
        axes = tuple(range(x.ndim - family.ndims, x.ndim))
        inside = np.all(x == np.asarray(family.loc), axis=axes)
        density = 0.0 if family.log_density is None else np.asarray(family.log_density)
        return np.where(inside, density, -np.inf)
    if isinstance(family, d.SphericalUniform):
        return np.full(family.batch_shape, -_sphere_area(family.dim))
    return _leaf(family, x)


def _leaves(parts: Any, x: Any) -> list[Any]:
    if isinstance(parts, dict):
        return [x[k] for k in sorted(parts)]
    return list(x)
