"""A mixture of Gaussians over known modes, or over one that is no Gaussian: weighted draws, on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from vi_kit._gaussian_fit import Evaluate, GaussianFit

_WIDER, _SHARE_OF_WIDER = 1.6, 0.25  # draws that look beyond the components
_LEAST_SHARE = 1e-3
_PRIOR = 2.0  # draws that a component's covariance so far counts for, beside one for each coordinate
_NARROWER, _WIDEST = 0.7, 1.5  # scales of the parts of a component: all but one, and that one
_LOOKS = 3  # rounds after which a mixture that is not getting there is given up
_STALLED = 2  # rounds in a row without a gain, which end it


@dataclass(frozen=True)
class Adaptation:
    """How long a mixture is adapted.

    Attributes:
        rounds: of draws and of maximizing, at most.
        draws: a round.
        iterations: of expectation-maximization a round.
        last: rounds whose draws, taken together, make the last fit.
        least_worth: share of the draws that the weighted ones must be worth after three rounds, or it is given up.
    """

    rounds: int
    draws: int
    iterations: int
    last: int = 4
    least_worth: float = 0.0


MODES = Adaptation(4, 2_000, 5)
PARTS = Adaptation(8, 4_000, 10, least_worth=0.1)


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


def of_modes(fits: Sequence[GaussianFit]) -> MixtureFit:
    """Return one component a mode, weighted by their evidence lower bounds."""
    scales = np.stack([np.diag(fit.scale) if fit.scale.ndim == 1 else fit.scale for fit in fits])
    elbos = np.array([fit.elbo for fit in fits])
    weights = np.maximum(np.exp(elbos - elbos.max()), _LEAST_SHARE)
    return MixtureFit(weights / weights.sum(), np.stack([fit.mean for fit in fits]), scales)


def parted(mixture: MixtureFit, generator: np.random.Generator, num_parts: int) -> MixtureFit:
    """Return so many parts for every component: a wider one at its center, narrower ones at draws of it."""
    dim = mixture.means.shape[1]
    noise = generator.normal(size=(len(mixture.weights), num_parts, dim))
    noise[:, 0] = 0.0
    means = mixture.means[:, None] + np.einsum("nij,npj->npi", mixture.scales, noise)
    factors = np.where(np.arange(num_parts) == 0, _WIDEST, _NARROWER)
    scales = factors[None, :, None, None] * mixture.scales[:, None]
    weights = np.repeat(mixture.weights / num_parts, num_parts)
    return MixtureFit(weights, means.reshape(-1, dim), scales.reshape(-1, dim, dim))


def fit_mixture(
    evaluate: Evaluate, mixture: MixtureFit, generator: np.random.Generator, adaptation: Adaptation
) -> MixtureFit | None:
    """Fit weights, means and covariances from draws weighted by p̃/q: forward KL; None where it is given up.

    It ends early where weights of the draws no longer get more even; the last rounds' draws are then taken together.

    Source: Cappé, Douc, Guillin, Marin and Robert, "Adaptive Importance Sampling in General Mixture Classes", 2008,
    https://arxiv.org/abs/0710.4242
    """
    best, stalled = 0.0, 0
    seen: list[_Round] = []
    for i in range(adaptation.rounds):
        proposal = mixture.widened()
        points = proposal.draw(generator, adaptation.draws)
        values, _ = evaluate(points)
        seen.append(_Round(proposal, points, np.where(np.isfinite(values), values, -np.inf)))
        own = _weights(seen[-1:])
        if own is None:
            return mixture
        worth = 1 / (len(own) * float(np.sum(own**2)))
        stalled = 0 if worth > best else stalled + 1
        best = max(best, worth)
        if i + 1 >= _LOOKS and best < adaptation.least_worth:
            return None
        for _ in range(adaptation.iterations):
            mixture = _maximize(mixture, points, own)
        if stalled == _STALLED:
            break
    last = seen[-adaptation.last :]
    together = _weights(last)
    assert together is not None, "each round had weights"
    points = np.concatenate([one.points for one in last])
    for _ in range(adaptation.iterations):
        mixture = _maximize(mixture, points, together)
    return mixture


class _Round(NamedTuple):
    """Draws of a proposal, with log p̃ there."""

    proposal: MixtureFit
    points: Float[np.ndarray, "n dim"]
    values: Float[np.ndarray, " n"]


def _weights(rounds: Sequence[_Round]) -> Float[np.ndarray, " n"] | None:
    """Return weights of all draws, as of one mixture of the proposals; None where none is positive."""
    points = np.concatenate([one.points for one in rounds])
    logs = np.stack([_log_sum(one.proposal.log_densities(points)) for one in rounds], axis=1)
    log_weights = np.concatenate([one.values for one in rounds]) - _log_sum(logs)
    if not (log_weights > -np.inf).any():
        return None
    own: np.ndarray = np.exp(log_weights - log_weights.max())
    own = np.minimum(own, own.mean() * math.sqrt(len(own)))  # truncated, so that no draw decides alone
    own /= own.sum()
    return own


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
