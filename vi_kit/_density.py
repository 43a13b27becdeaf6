"""Densities of draws, for figures."""

from __future__ import annotations

import math

import numpy as np

_MOST_KERNELS = 4_000
_NORMAL_QUARTER = 0.6373  # sds between the quantiles 3/8 and 5/8 of a normal


def density(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Estimate a density by Gaussian kernels, reflected where draws pile up at the smallest or largest one.

    The reflection keeps the mass of a bounded variable on its side. The width follows the shortest interval that
    holds a quarter of the draws, so that separate modes are not smeared into one.

    Args:
        values: draws, shape (n,).
        points: where to evaluate, ascending, shape (m,).

    Returns:
        The density there, shape (m,).
    """
    values = np.sort(np.asarray(values, np.float64)[:: max(1, len(values) // _MOST_KERNELS)])
    quarter = max(1, len(values) // 4)
    shortest = float((values[quarter:] - values[:-quarter]).min()) / _NORMAL_QUARTER
    spread = min(float(values.std()), shortest) or float(values.std())
    if spread == 0:
        return np.zeros_like(points)
    width = 0.9 * spread * len(values) ** -0.2
    low, high = values[0], values[-1]
    near, inside = [values], np.ones(len(points), bool)
    if _piles_up(values - low, width):
        near.append(2 * low - values[values < low + 4 * width])
        inside &= points >= low
    if _piles_up(high - values, width):
        near.append(2 * high - values[values > high - 4 * width])
        inside &= points <= high
    kernels = np.exp(-0.5 * ((points[:, None] - np.concatenate(near)[None, :]) / width) ** 2)
    estimate = kernels.sum(axis=1) / (len(values) * width * math.sqrt(2 * math.pi))
    return np.where(inside, estimate, 0.0)


def _piles_up(distance: np.ndarray, width: float) -> bool:
    """Tell whether many draws lie at an edge, not few as where a tail thins out."""
    at_edge, behind = np.sum(distance < width), np.sum((distance >= width) & (distance < 2 * width))
    return bool(at_edge >= 20 and at_edge >= 0.2 * behind)
