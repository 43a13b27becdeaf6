"""A mixture of Gaussians over known modes: weighted draws and expectation-maximization, on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from vi_kit._gaussian_fit import Evaluate, GaussianFit

_ROUNDS = 4
_DRAWS = 2_000
_ITERATIONS = 5
_WIDER, _SHARE_OF_WIDER = 1.6, 0.25  # draws that look beyond the components
_LEAST_SHARE = 1e-3
_PRIOR = 2.0  # draws that a component's covariance so far counts for, beside one for each coordinate


class MixtureFit(NamedTuple):
    """Weights, means and lower factors of the components."""

    weights: Float[np.ndarray, " n"]
    means: Float[np.ndarray, "n dim"]
    scales: Float[np.ndarray, "n dim dim"]

    def log_densities(self, points: Float[np.ndarray, "m dim"]) -> Float[np.ndarray, "m n"]:
        """Return log w + log density of every component at every point."""
        dim = points.shape[1]
        centered = points[None] - self.means[:, None]
        whitened = np.linalg.solve(self.scales, np.swapaxes(centered, 1, 2))
        volumes = np.sum(np.log(np.abs(np.diagonal(self.scales, axis1=1, axis2=2))), axis=1)
        logs = -0.5 * np.sum(whitened**2, axis=1) - volumes[:, None] - 0.5 * dim * math.log(2 * math.pi)
        found: np.ndarray = (logs + np.log(self.weights)[:, None]).T
        return found

    def draw(self, generator: np.random.Generator, count: int) -> Float[np.ndarray, "m dim"]:
        """Draw points."""
        which = generator.choice(len(self.weights), size=count, p=self.weights)
        noise = generator.normal(size=(count, self.means.shape[1]))
        points: np.ndarray = self.means[which] + np.einsum("nij,nj->ni", self.scales[which], noise)
        return points

    def widened(self) -> MixtureFit:
        """Return the mixture with a wider copy of every component beside it."""
        weights = np.concatenate([(1 - _SHARE_OF_WIDER) * self.weights, _SHARE_OF_WIDER * self.weights])
        return MixtureFit(
            weights, np.concatenate([self.means] * 2), np.concatenate([self.scales, _WIDER * self.scales])
        )


def fit_mixture(evaluate: Evaluate, fits: Sequence[GaussianFit], generator: np.random.Generator) -> MixtureFit:
    """Fit weights, means and covariances of one component a mode, from draws weighted by p̃/q: forward KL.

    Source: Cappé, Douc, Guillin, Marin and Robert, "Adaptive Importance Sampling in General Mixture Classes", 2008,
    https://arxiv.org/abs/0710.4242
    """
    scales = np.stack([np.diag(fit.scale) if fit.scale.ndim == 1 else fit.scale for fit in fits])
    elbos = np.array([fit.elbo for fit in fits])
    weights = np.maximum(np.exp(elbos - elbos.max()), _LEAST_SHARE)
    mixture = MixtureFit(weights / weights.sum(), np.stack([fit.mean for fit in fits]), scales)
    for _ in range(_ROUNDS):
        proposal = mixture.widened()
        points = proposal.draw(generator, _DRAWS)
        values, _ = evaluate(points)
        log_weights = values - _log_sum(proposal.log_densities(points))
        log_weights = np.where(np.isfinite(log_weights), log_weights, -np.inf)
        if not (log_weights > -np.inf).any():
            break
        own = np.exp(log_weights - log_weights.max())
        own = np.minimum(own, own.mean() * math.sqrt(_DRAWS))  # truncated, so that no draw decides alone
        own /= own.sum()
        for _ in range(_ITERATIONS):
            mixture = _maximize(mixture, points, own)
    return mixture


def _log_sum(logs: np.ndarray) -> np.ndarray:
    largest = logs.max(axis=1, keepdims=True)
    total: np.ndarray = largest + np.log(np.sum(np.exp(logs - largest), axis=1, keepdims=True))
    return total[:, 0]


def _maximize(mixture: MixtureFit, points: np.ndarray, own: np.ndarray) -> MixtureFit:
    """Take one step of expectation-maximization; a component without draws of its own stays as it is."""
    logs = mixture.log_densities(points)
    shares = np.exp(logs - _log_sum(logs)[:, None]) * own[:, None]
    totals = shares.sum(axis=0)
    effective = 1 / np.sum(own**2)
    prior = (_PRIOR + points.shape[1]) / effective
    weights = np.maximum(totals, _LEAST_SHARE * totals.max() / 10)
    means, scales = mixture.means.copy(), mixture.scales.copy()
    for k, total in enumerate(totals):
        if total * effective < 2:
            continue
        means[k] = (shares[:, k] @ points + prior * mixture.means[k]) / (total + prior)
        centered = points - means[k]
        kept = mixture.scales[k] @ mixture.scales[k].T
        covariance = (centered.T @ (centered * shares[:, k : k + 1]) + prior * kept) / (total + prior)
        scales[k] = np.linalg.cholesky(covariance)
    return MixtureFit(weights / weights.sum(), means, scales)
