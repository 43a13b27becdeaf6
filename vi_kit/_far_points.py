"""Points far out: on shells around a Gaussian, and along single coordinates."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from vi_kit._gaussian_fit import GaussianFit
from vi_kit.diagnostics._far_out import FarPoints

NEAREST, FARTHEST = 1.5, 40.0  # standard deviations: of one coordinate, or times √dim where all are far out


def directions(generator: np.random.Generator, count: int, dim: int) -> Float[np.ndarray, "n dim"]:
    """Return whitened points, from near to far, in random directions and then opposite to them."""
    ways = generator.normal(size=(count // 2, dim))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    one_way = ways * (np.geomspace(NEAREST, FARTHEST, count // 2) * math.sqrt(dim))[:, None]
    return np.concatenate([one_way, -one_way])


def on_shells(fit: GaussianFit, generator: np.random.Generator, count: int) -> FarPoints:
    """Return points in all directions; radii are evenly spaced in logarithm."""
    dim = len(fit.mean)
    whitened = directions(generator, count, dim)
    points = fit.place(whitened)
    sphere = math.log(2) + 0.5 * dim * math.log(math.pi) - math.lgamma(0.5 * dim)
    spacing = math.log(FARTHEST / NEAREST) / (count // 2 - 1)
    log_volumes = dim * np.log(np.linalg.norm(whitened, axis=1)) + sphere + _log_volume(fit) + math.log(0.5 * spacing)
    log_volumes[[0, count // 2]] -= math.log(2)  # the nearest shell counts half: the trapezoidal rule
    return FarPoints(points, (points - fit.mean) / _sds(fit), log_volumes)


def along_coordinates(fit: GaussianFit, generator: np.random.Generator, count: int) -> FarPoints:
    """Return points with one coordinate far out and the others as the Gaussian has them, given that one.

    Their density is q times the mean over coordinates of g/φ, with g even in the logarithm of the distance.
    """
    dim, half = len(fit.mean), count // 2
    sds = _sds(fit)
    points = fit.place(generator.normal(size=(half, dim)))
    which = generator.permutation(np.arange(half) % dim)
    rows = np.arange(half)
    shift = np.geomspace(NEAREST, FARTHEST, half) - (points[rows, which] - fit.mean[which]) / sds[which]
    if fit.scale.ndim == 1:
        points[rows, which] += shift * sds[which]
    else:
        covariance = fit.scale @ fit.scale.T
        points += shift[:, None] * covariance[which] / sds[which][:, None]
    points = np.concatenate([points, 2 * fit.mean - points])
    standardized = (points - fit.mean) / sds
    distance = np.abs(standardized)
    within = (distance >= NEAREST * (1 - 1e-9)) & (distance <= FARTHEST * (1 + 1e-9))
    with np.errstate(divide="ignore"):
        ratios = np.where(within, 0.5 * distance**2 - np.log(distance), -np.inf)
    largest = ratios.max(axis=1)
    constant = 0.5 * math.log(2 * math.pi) - math.log(2 * math.log(FARTHEST / NEAREST))
    log_ratio = largest + np.log(np.mean(np.exp(ratios - largest[:, None]), axis=1)) + constant
    log_q = -0.5 * np.sum(fit.whiten(points) ** 2, axis=1) - _log_volume(fit) - 0.5 * dim * math.log(2 * math.pi)
    return FarPoints(points, standardized, -log_q - log_ratio - math.log(count))


def _sds(fit: GaussianFit) -> Float[np.ndarray, " dim"]:
    found: np.ndarray = fit.scale if fit.scale.ndim == 1 else np.linalg.norm(fit.scale, axis=1)
    return found


def _log_volume(fit: GaussianFit) -> float:
    return float(np.sum(np.log(np.abs(fit.scale if fit.scale.ndim == 1 else np.diagonal(fit.scale)))))
