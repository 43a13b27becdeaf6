"""A Gaussian fitted on the host, in double precision, by natural gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from vi_kit.algorithms._expected_derivatives import ExpectedDerivatives, means_of, points_of
from vi_kit.algorithms._gaussian import log_determinant, pull_back
from vi_kit.algorithms._natural_gradient import move_full_rank, move_mean_field

_MEAN_FIELD_PAIRS = 16
_DECAY = 3.0  # settled steps after which lengths have fallen to half; with the next, chosen in experiments/no_tuning
_SETTLED = 20  # settled steps after which the fit is done
_SMALL = 0.01  # nats that a step of full length would gain, below which the fit is done
_TOLERANCE = 2.0  # standard errors by which the loss may rise, beside one nat
_SHORTER, _LONGER = 0.25, 2.0
_MOST_REFUSED = 12

Evaluate = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class GaussianFit(NamedTuple):
    """A Gaussian and how its fit went.

    Attributes:
        mean: shape (dim,).
        scale: lower factor, shape (dim, dim), or standard deviations, shape (dim,).
        elbo: as its last step estimated it.
        steps: steps taken.
        settled: whether the fit ended because there was nothing to gain.
        widest: the coordinate that grew most in the last step, and by what factor.
        losses: the negative ELBO at every step, estimated.
    """

    mean: Float[np.ndarray, " dim"]
    scale: Float[np.ndarray, "..."]
    elbo: float
    steps: int
    settled: bool
    widest: tuple[int, float]
    losses: tuple[float, ...]

    def whiten(self, points: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n dim"]:
        """Take points to the coordinates in which this Gaussian is standard normal."""
        centered = points - self.mean
        flat = self.scale.ndim == 1
        found: np.ndarray = centered / self.scale if flat else np.linalg.solve(self.scale, centered.T).T
        return found

    def place(self, whitened: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n dim"]:
        """Take points back from those coordinates."""
        found: np.ndarray = self.mean + (whitened * self.scale if self.scale.ndim == 1 else whitened @ self.scale.T)
        return found


def _rule(generator: np.random.Generator, dim: int, num_pairs: int) -> tuple[Any, Any]:
    """Return orthonormal directions and their radii, chi with dim + 2 degrees of freedom."""
    factor, triangle = np.linalg.qr(generator.normal(size=(dim, num_pairs)))
    directions = (factor * np.sign(np.diagonal(triangle))).T
    return directions, np.sqrt(generator.chisquare(dim + 2, size=num_pairs))


def fit_gaussian(
    evaluate: Evaluate,
    mean: np.ndarray,
    scale: np.ndarray,
    generator: np.random.Generator,
    *,
    most_steps: int,
    watch: Callable[[GaussianFit], bool] = lambda _: False,
) -> GaussianFit | None:
    """Fit by the steps of `vk.algorithms.NaturalGradient`; stop where nothing is left to gain.

    Args:
        evaluate: log density and gradient at points.
        mean: where to start.
        scale: lower factor, or standard deviations for a mean-field fit.
        generator: of the directions.
        most_steps: steps at most.
        watch: is told of every step that was taken; True ends the fit.

    Returns:
        The fit, or None where the density is not finite around the start.
    """
    dim = len(mean)
    pairs = dim if scale.ndim == 2 else min(dim, _MEAN_FIELD_PAIRS)
    move = move_full_rank if scale.ndim == 2 else move_mean_field
    best: GaussianFit | None = None
    known: ExpectedDerivatives | None = None
    candidate: tuple[Any, Any] = (mean, scale)
    loss, length, settled, refused = math.inf, 1.0, 0, 0
    losses: list[float] = []
    for step in range(1, most_steps + 1):
        directions, radii = _rule(generator, dim, pairs)
        points: Any = points_of(*candidate, directions, radii)
        looked_up: tuple[Any, Any] = evaluate(points)
        values, gradients = looked_up
        with np.errstate(all="ignore"):
            found = means_of(values, pull_back(candidate[1], gradients), directions, radii)
            entropy = log_determinant(candidate[1]) + 0.5 * dim * (1 + math.log(2 * math.pi))
            new_loss = float(-found.log_density - entropy)
            noise = _TOLERANCE * float(found.error + (known.error if known is not None else 0.0))
        losses.append(new_loss)
        usable = math.isfinite(new_loss) and bool(np.isfinite(gradients).all())
        if usable and new_loss <= loss + 1 + noise:
            settled += new_loss >= loss - noise
            widest = _growth_of(candidate[1], best.scale if best is not None else candidate[1])
            known, loss, refused = found, new_loss, 0
            done = settled >= _SETTLED or _gain(found, full=scale.ndim == 2) < _SMALL
            best = GaussianFit(*candidate, -new_loss, step, done, widest, tuple(losses))
            length = min(_LONGER * length, 1.0)
            if watch(best) or done:
                return best
        else:
            length, refused = _SHORTER * length, refused + 1
            if known is None or refused == _MOST_REFUSED:
                break
        assert best is not None, "a step was taken"
        assert known is not None, "a step was taken"
        here: tuple[Any, Any] = (best.mean, best.scale)
        candidate = move(*here, known, length / (1 + settled / _DECAY))
    return best


def _gain(found: ExpectedDerivatives, *, full: bool) -> float:
    """Return what a step of full length would gain, to second order: KL(q‖q')."""
    if full:
        off = found.matrix() - np.eye(len(found.gradient))
        return float(0.5 * np.sum(found.gradient**2) + 0.25 * np.sum(off**2))
    return float(0.5 * np.sum(found.gradient**2) + 0.25 * np.sum((found.diagonal() - 1) ** 2))


def _growth_of(scale: np.ndarray, before: np.ndarray) -> tuple[int, float]:
    new, old = (np.abs(s) if s.ndim == 1 else np.sqrt(np.sum(s**2, axis=1)) for s in (scale, before))
    which = int(np.argmax(new / old))
    return which, float(new[which] / old[which])
