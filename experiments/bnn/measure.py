"""What is measured of predictions, which are mixtures of normals: log-likelihood, error, coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm

LEVELS = (0.5, 0.8, 0.9, 0.95)


def scores(means: Any, noises: Any, y: Any) -> dict[str, Any]:
    """Score equal mixtures of N(means[i], noises[i]²), arrays (components, rows) and (components, 1), at y (rows,).

    Returns:
        log-likelihood a row in nats, root mean square error, coverage of central intervals, where y lies in them.
    """
    means, noises, y = (np.asarray(a, np.float64) for a in (means, noises, y))
    log_density = logsumexp(norm.logpdf(y, means, noises), axis=0) - np.log(len(means))
    ranks = norm.cdf(y, means, noises).mean(axis=0)
    return {
        "log-likelihood": float(log_density.mean()),
        "error": float(np.sqrt(np.mean((means.mean(axis=0) - y) ** 2))),
        **{f"coverage {level:g}": float(np.mean(2 * np.abs(ranks - 0.5) < level)) for level in LEVELS},
        "ranks": ranks.round(4).tolist(),
    }


def linear(train: Any, x: Any) -> tuple[Any, Any]:
    """Return mean and standard deviation of least squares' predictions, the coefficients' uncertainty included."""
    design, new = (np.column_stack([np.ones(len(a)), np.asarray(a, np.float64)]) for a in (train["x"], x))
    y = np.asarray(train["y"], np.float64)
    coefficients, *_ = np.linalg.lstsq(design, y, rcond=None)
    variance = np.sum((y - design @ coefficients) ** 2) / (len(y) - design.shape[1])
    leverage = np.einsum("ij,jk,ik->i", new, np.linalg.inv(design.T @ design), new)
    return (new @ coefficients)[None], np.sqrt(variance * (1 + leverage))[None]
