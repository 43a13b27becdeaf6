"""Points far out: on shells around a Gaussian, and along single directions."""

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
    sphere = math.log(2) + 0.5 * dim * math.log(math.pi) - math.lgamma(0.5 * dim)
    spacing = math.log(FARTHEST / NEAREST) / (count // 2 - 1)
    log_volumes = dim * np.log(np.linalg.norm(whitened, axis=1)) + sphere + _log_volume(fit) + math.log(0.5 * spacing)
    log_volumes[[0, count // 2]] -= math.log(2)  # the nearest shell counts half: the trapezoidal rule
    return FarPoints(fit.place(whitened), log_volumes)


def along(fit: GaussianFit, ways: Float[np.ndarray, "m dim"], generator: np.random.Generator, count: int) -> FarPoints:
    """Return points far out along single directions, and along the others as the Gaussian has them.

    Every direction has as many points; distances t are spread evenly in logarithm. Their density is that of the
    Gaussian times the mean over directions of g(t)/φ(t), where g is even in log |t|.

    Args:
        fit: the Gaussian.
        ways: unit vectors in whitened coordinates.
        generator: of the points.
        count: points, at most.
    """
    each = count // 2 // len(ways)
    log_range = math.log(FARTHEST / NEAREST)
    strata = (np.arange(each)[None, :] + generator.uniform(size=(len(ways), each))) / each
    distances = NEAREST * np.exp(log_range * strata).reshape(-1)
    mine = np.repeat(ways, each, axis=0)
    noise = generator.normal(size=mine.shape)
    one_way = noise + (distances - np.sum(noise * mine, axis=1))[:, None] * mine
    whitened = np.concatenate([one_way, -one_way])
    lengths = np.abs(whitened @ ways.T)
    within = (lengths >= NEAREST) & (lengths <= FARTHEST)
    own = (np.arange(len(whitened)), np.tile(np.repeat(np.arange(len(ways)), each), 2))
    within[own], lengths[own] = True, np.tile(distances, 2)  # as they were drawn, without rounding
    ratios = np.where(within, 0.5 * lengths**2 - np.log(np.where(within, lengths, 1.0)), -np.inf)
    largest = ratios.max(axis=1)
    constant = 0.5 * math.log(2 * math.pi) - math.log(2 * log_range)
    log_ratio = largest + np.log(np.mean(np.exp(ratios - largest[:, None]), axis=1)) + constant
    log_q = -0.5 * np.sum(whitened**2, axis=1) - _log_volume(fit) - 0.5 * len(fit.mean) * math.log(2 * math.pi)
    return FarPoints(fit.place(whitened), -log_q - log_ratio - math.log(len(whitened)))


def coordinate_ways(fit: GaussianFit) -> Float[np.ndarray, "dim dim"]:
    """Return the whitened directions in which single coordinates are far out, given the others."""
    if fit.scale.ndim == 1:
        return np.eye(len(fit.mean))
    found: np.ndarray = fit.scale / np.linalg.norm(fit.scale, axis=1, keepdims=True)
    return found


def heavy_ways(
    whitened: Float[np.ndarray, "n dim"], logs: Float[np.ndarray, " n"], most: int
) -> Float[np.ndarray, "m dim"]:
    """Return the principal directions in which points lie that hold mass, by the variance that it adds there.

    Args:
        whitened: the points.
        logs: logarithms of the mass that each stands for.
        most: directions, at most.
    """
    lengths = np.linalg.norm(whitened, axis=1)
    logs = np.where(np.isfinite(logs), logs, -np.inf) + 2 * np.log(lengths)
    if not np.isfinite(logs.max()):
        return np.zeros((0, whitened.shape[1]))
    weights = np.exp(logs - logs.max())
    rows = (whitened / lengths[:, None]) * np.sqrt(weights / weights.sum())[:, None]
    found: np.ndarray = np.linalg.svd(rows, full_matrices=False)[2][:most]
    return found


def _log_volume(fit: GaussianFit) -> float:
    return float(np.sum(np.log(np.abs(fit.scale if fit.scale.ndim == 1 else np.diagonal(fit.scale)))))
