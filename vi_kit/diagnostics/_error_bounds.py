"""How far expectations under p can be from those under q: bounds made from the importance weights.

For every f, by Cauchy and Schwarz, |E_p f − E_q f| = |E_q (p/q − 1) f| ≤ sd_q(f) √χ²(p‖q). With 1-Lipschitz f this
bounds the Wasserstein distance W₁; with squares, standard deviations and W₂.

Source: Huggins, Kasprzak, Campbell and Broderick, "Validated Variational Inference via Practical Posterior Error
Bounds", 2020, https://arxiv.org/abs/1910.04102
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from vi_kit._weights import fit_generalized_pareto, tail_size

_CONFIDENCE = 1.645  # standard errors, one-sided, 95 %
_LEAST_DRAWS = 400  # with fewer the limit covers less than it says
_LEAST_SPREAD = 0.5  # of the tail's weights that are above its cutoff
_EQUAL = 1e-6  # spread of weights that rounding explains


class WassersteinBounds(NamedTuple):
    """Bounds on W₁ and W₂ between p and q."""

    first: float
    second: float


def chi_square_limit(log_weights: Float[np.ndarray, " n"]) -> float | None:
    """Return an upper 95 % confidence limit of χ²(p‖q), or None where the weights give no honest one.

    The largest weights are replaced by a generalized Pareto tail of the largest shape that they allow, beside the
    ordinary error of a mean: a sample mean of squared weights alone is far too low where the tail is heavy.

    Args:
        log_weights: log p̃/q at draws of q.
    """
    num = len(log_weights)
    if num < _LEAST_DRAWS or not np.isfinite(log_weights).all():
        return None
    weights = np.sort(np.exp(log_weights - log_weights.max()))
    weights /= weights.mean()
    if weights[-1] - weights[0] < _EQUAL:
        return 0.0
    size = tail_size(num)
    cutoff, body = weights[num - size - 1], weights[: num - size]
    excess = weights[num - size :] - cutoff
    squares = weights**2
    influence = squares - 2 * squares.mean() * weights  # of E w² / (E w)²
    noise = _CONFIDENCE * float(influence.std()) / math.sqrt(num)
    plain = float(squares.mean() - 1) + noise
    if not (excess > 0).any():  # a largest weight that many draws have
        return plain
    if np.mean(excess > 0) < _LEAST_SPREAD:  # most of the tail is ties, which say nothing of its shape
        return None
    shape, scale = map(float, fit_generalized_pareto(excess))
    shape += _CONFIDENCE * (1 + shape) / math.sqrt(size)
    if not shape < 0.5:  # its square has no mean
        return None
    square = cutoff**2 + 2 * cutoff * scale / (1 - shape) + 2 * scale**2 / ((1 - shape) * (1 - 2 * shape))
    limit = float(np.sum(body**2) / num + size / num * square - 1) + noise
    return max(limit, plain) if math.isfinite(limit) else None


def moment_bounds(
    values: Float[np.ndarray, "n k"], chi_square: float
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Return how far the means and the standard deviations of p can be from those of these draws of q."""
    root = math.sqrt(max(chi_square, 0.0))
    squares = (values - values.mean(axis=0)) ** 2
    variance = squares.mean(axis=0)
    means = root * np.sqrt(variance)
    change = root * squares.std(axis=0)
    wider = np.sqrt(variance + change) - np.sqrt(variance)
    narrower = np.sqrt(variance) - np.sqrt(np.maximum(variance - change - means**2, 0.0))
    return means, np.maximum(wider, narrower)


def wasserstein_bounds(z: Float[np.ndarray, "n dim"], chi_square: float) -> WassersteinBounds:
    """Return bounds on the Wasserstein distances between p and q, from draws of q."""
    root = math.sqrt(max(chi_square, 0.0))
    lengths = np.sum((z - z.mean(axis=0)) ** 2, axis=1)
    second = math.sqrt(2 * root * math.sqrt(float(np.mean(lengths**2))))
    return WassersteinBounds(root * math.sqrt(float(np.mean(lengths))), second)
