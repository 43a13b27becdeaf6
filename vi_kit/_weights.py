"""Importance weights: effective sample size, Pareto smoothing and its shape k̂. All jittable."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from vi_kit._arrays import namespace

_PRIOR_SHAPE, _PRIOR_SIZE = 0.5, 10  # weakly informative prior on k̂: ten observations of 0.5
_FLOOR = -80.0
_LEAST_EXCESSES = 5


class SmoothedWeights(NamedTuple):
    """Pareto-smoothed weights: normalized log weights and the tail's shape."""

    log_weights: Float[Any, " n"]
    khat: Float[Any, ""]


@np.errstate(all="ignore")
def effective_sample_size(log_weights: Float[Any, " n"]) -> Float[Any, ""]:
    """Return (Σw)² / Σw², between 0 (no weight is positive and finite) and n."""
    xp = namespace(log_weights)
    weights = xp.exp(log_weights - _finite_max(log_weights))
    total = xp.sum(weights)
    squares = xp.maximum(xp.sum(weights * weights), float(np.finfo(weights.dtype).tiny))
    return xp.where(total > 0, total * total / squares, 0)


def _finite_max(values: Float[Any, " n"]) -> Float[Any, ""]:
    xp = namespace(values)
    largest = xp.max(values)
    return xp.where(xp.isfinite(largest), largest, xp.zeros_like(largest))


def khat_threshold(num_draws: int) -> float:
    """Return the largest k̂ at which weights of this many draws can be trusted: min(1 − 1/log₁₀ n, 0.7).

    Source: Vehtari et al., "Pareto Smoothed Importance Sampling", 2024, https://arxiv.org/abs/1507.02646
    """
    return min(1.0 - 1.0 / math.log10(max(num_draws, 11)), 0.7)


def tail_size(num_draws: int) -> int:
    """Return how many of the largest weights are the tail."""
    return math.ceil(min(0.2 * num_draws, 3.0 * math.sqrt(num_draws)))


@np.errstate(all="ignore")
def pareto_smooth(log_weights: Float[Any, " n"]) -> SmoothedWeights:
    r"""Fit a generalized Pareto distribution to the largest weights and replace them by its quantiles.

    The tail is the largest min(n/5, 3√n) weights. k̂ < 0.5: the weights have a variance; k̂ < 0.7: averages under
    them converge usefully; beyond, they do not.

    An array of numpy is smoothed by numpy, which compiles nothing.

    Args:
        log_weights: log importance weights, up to a constant; −inf counts as zero, NaN makes k̂ infinite.

    Returns:
        Normalized smoothed log weights and k̂: −inf when all weights of the tail are equal, infinite (and nothing
        smoothed) when the tail spans more than e⁸⁰ or reaches zero weights.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry, "Pareto Smoothed Importance Sampling", 2024,
    https://arxiv.org/abs/1507.02646; the fit is Zhang and Stephens, "A New and Efficient Estimation Method for the
    Generalized Pareto Distribution", 2009.
    """
    num = log_weights.shape[0]
    if num < 25:
        raise ValueError(f"log_weights: Pareto smoothing needs at least 25 draws, got {num}")
    xp = namespace(log_weights)
    size = tail_size(num)
    shifted = log_weights - _finite_max(log_weights)
    order = xp.argsort(shifted)
    ascending = shifted[order]
    # Weights relative to the cutoff's, so that nearly equal ones keep their digits; the floor keeps exp finite.
    cutoff = ascending[num - size - 1]
    base = xp.maximum(cutoff, _FLOOR)
    offset = xp.expm1(cutoff - base)
    excess = xp.expm1(ascending[num - size :] - base) - offset
    khat, scale = fit_generalized_pareto(excess)
    probabilities = xp.asarray((np.arange(size) + 0.5) / size, shifted.dtype)
    safe = xp.where(xp.abs(khat) < 1e-6, xp.ones_like(khat), khat)
    log_survival = xp.log1p(-probabilities)
    quantiles = xp.where(xp.abs(khat) < 1e-6, -scale * log_survival, scale * xp.expm1(-safe * log_survival) / safe)
    # No smoothed weight may exceed the largest raw one.
    smoothed = xp.minimum(base + xp.log1p(quantiles + offset), xp.zeros((), shifted.dtype))
    usable = xp.isfinite(khat) & (cutoff > _FLOOR) & (xp.sum(excess > 0) >= _LEAST_EXCESSES)
    tail = xp.where(usable, smoothed, ascending[num - size :])
    replaced = xp.concatenate([ascending[: num - size], tail])[xp.argsort(order)]
    # A tail that spans e⁸⁰ hangs on a few draws: no shape can be fitted, and none would help.
    settled = (cutoff > _FLOOR) & ((xp.sum(excess > 0) >= _LEAST_EXCESSES) | ~(excess[-1] > 0))
    khat = xp.where(settled, khat, xp.inf)
    bad = xp.any(xp.isnan(log_weights) | (log_weights == xp.inf)) | ~xp.any(xp.isfinite(log_weights))
    largest = xp.max(replaced)
    log_total = largest + xp.log(xp.sum(xp.exp(replaced - largest)))
    return SmoothedWeights(replaced - log_total, xp.where(bad, xp.inf, khat))


@np.errstate(all="ignore")
def fit_generalized_pareto(excess: Float[Any, " n"]) -> tuple[Any, Any]:
    """Return the shape and scale of a generalized Pareto distribution for sorted, non-negative excesses."""
    xp = namespace(excess)
    n = excess.shape[0]
    num_grid = 30 + int(math.sqrt(n))
    quartile, largest = excess[int(n / 4 + 0.5) - 1], excess[-1]
    degenerate = ~(largest > 0)
    largest = xp.where(degenerate, xp.ones_like(largest), largest)
    # Ties at the cutoff (weights equal to rounding): the smallest excess there is says what the scale is.
    smallest = xp.min(xp.where(excess > 0, excess, largest))
    quartile = xp.where(quartile > 0, quartile, smallest)
    grid = 1 - xp.sqrt(num_grid / (xp.arange(1, num_grid + 1, dtype=excess.dtype) - 0.5))
    theta = grid / (3 * quartile) + 1 / largest
    shape = xp.mean(xp.log1p(-theta[:, None] * excess[None, :]), axis=1)
    log_likelihood = n * (xp.log(-theta / shape) - shape - 1)
    posterior = xp.exp(log_likelihood - xp.max(log_likelihood))
    posterior = posterior / xp.sum(posterior)
    theta_mean = xp.sum(theta * posterior)
    k = xp.mean(xp.log1p(-theta_mean * excess))
    scale = -k / theta_mean
    k = (n * k + _PRIOR_SIZE * _PRIOR_SHAPE) / (n + _PRIOR_SIZE)
    return xp.where(degenerate, -xp.inf, k), scale
