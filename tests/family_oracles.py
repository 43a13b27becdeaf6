"""Log densities of the families that are not Gaussian, from their parameters by scipy and the textbook's formulas."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from scipy import special, stats


def _factor(params: Any) -> np.ndarray:
    dim = len(params.mean)
    unit = np.eye(dim)
    unit[np.tril_indices(dim, -1)] = params.coupling
    return np.exp(np.asarray(params.log_scale, float))[:, None] * unit


def independent_student_t(params: Any, points: np.ndarray) -> np.ndarray:
    df, scale = (np.exp(np.asarray(x, float)) for x in (params.log_excess, params.log_scale))
    return stats.t(2 + df, np.asarray(params.mean, float), scale).logpdf(points).sum(axis=-1)


def multivariate_student_t(params: Any, points: np.ndarray) -> np.ndarray:
    factor = _factor(params)
    df = 2 + float(np.exp(params.log_excess))
    return stats.multivariate_t(np.asarray(params.mean, float), factor @ factor.T, df).logpdf(points)


def _diagonal(params: Any, points: np.ndarray) -> np.ndarray:
    scale = np.exp(np.asarray(params.log_scale, float))
    return stats.norm(np.asarray(params.mean, float), scale).logpdf(points).sum(axis=-1)


def _full(params: Any, points: np.ndarray) -> np.ndarray:
    factor = _factor(params)
    return stats.multivariate_normal(np.asarray(params.mean, float), factor @ factor.T).logpdf(points)


def mixture_of(component: Any) -> Any:
    """Return the oracle of a mixture of components with this one."""

    def oracle(params: Any, points: np.ndarray) -> np.ndarray:
        log_weights = special.log_softmax(np.asarray(params.logits, float))
        each = [
            component(jax.tree.map(lambda x, k=k: x[k], params.components), points) for k in range(len(log_weights))
        ]
        return special.logsumexp(log_weights[:, None] + np.stack(each), axis=0)

    return oracle


mixture_of_diagonal_normals = mixture_of(_diagonal)
mixture_of_full_normals = mixture_of(_full)
