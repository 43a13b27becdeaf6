"""Far out, where no draw of q comes: p and q compared at points that fill the space there."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_SURE = 2.0  # standard errors
_LARGEST = 80.0  # exponents: more is as much as can be, and its square can still be squared
_MOST_MASS, _MOST_SPREAD = 0.05, 0.5  # that may be missing: a share, and of a variance (a fifth of an sd)


class FarPoints(NamedTuple):
    """Points around a Gaussian from near to far and, in the second half, opposite to them.

    Attributes:
        points: where they are, unconstrained.
        log_volumes: ∫ f there is about Σ exp(log_volume) f.
    """

    points: Float[np.ndarray, "n dim"]
    log_volumes: Float[np.ndarray, " n"]


class FarOut(NamedTuple):
    """What p has there and q has not, negative where q has more.

    Attributes:
        mass: of p's.
        mass_error: two standard errors of it.
        spread: squared deviation that it adds, in variances of q, of the coordinate where it is largest.
        spread_error: two standard errors of that.
        outside: mass of p where it is more than twice q, at most.
        outside_spread: squared deviation of that, in any coordinate, at most.
    """

    mass: float
    mass_error: float
    spread: float
    spread_error: float
    outside: float
    outside_spread: float

    @property
    def missing(self) -> str:
        """How much of p is not in q, in words; nothing where that is little or not sure."""
        much = self.mass > max(self.mass_error, _MOST_MASS)
        if not (much or self.spread > max(self.spread_error, _MOST_SPREAD)):
            return ""
        return (
            f"farther out than draws of q, p has about {max(self.mass, 0):.2g} of its mass and "
            f"{max(self.spread, 0):.2g} times a variance of q more than q has there, so its tails are too light"
        )


def compare_far_out(
    log_volumes: Float[np.ndarray, " n"],
    log_p: Float[np.ndarray, " n"],
    log_q: Float[np.ndarray, " n"],
    standardized: Float[np.ndarray, "n m"],
    log_normalizer: float,
    log_normalizer_error: float,
) -> FarOut:
    """Integrate p − q, and its product with squared coordinates, over the space that points fill.

    Args:
        log_volumes: of the points, from near to far and, in the second half, opposite to them.
        log_p: log p̃ there; where it is NaN, nothing is known.
        log_q: the fit's.
        standardized: coordinates there, in the user's space, less q's means, in q's standard deviations.
        log_normalizer: log Z.
        log_normalizer_error: its standard error.
    """
    p = np.exp(np.minimum(log_volumes + np.where(np.isnan(log_p), -np.inf, log_p) - log_normalizer, _LARGEST))
    q = np.exp(np.minimum(log_volumes + log_q, _LARGEST))
    some = (p > 0) | (q > 0)
    with np.errstate(over="ignore"):
        squares = np.minimum(np.where(some[:, None], standardized, 0.0) ** 2, math.exp(_LARGEST))
    squares = np.where(np.isnan(squares), 0.0, squares)  # coordinates that are not finite are named by the verdict
    missing = p - q
    mass, mass_error = _integral(missing[:, None])
    spreads, errors = _integral(missing[:, None] * squares)
    errors = np.hypot(errors, log_normalizer_error * (p @ squares))
    outside = np.where(p > 2 * q, p, 0.0)[:, None]
    most = np.add(*_integral(np.concatenate([outside, outside * squares], axis=1)) * np.array([[1.0], [_SURE]]))
    worst = int(np.argmax(spreads - _SURE * errors))
    known = not np.isnan(log_p).any()
    return FarOut(
        float(mass[0]),
        _SURE * math.hypot(float(mass_error[0]), log_normalizer_error * float(p.sum())),
        float(spreads[worst]),
        _SURE * float(errors[worst]),
        float(most[0]) if known else math.inf,
        float(most[1:].max()) if known else math.inf,
    )


def _integral(values: Float[np.ndarray, "n m"]) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Return integrals with their standard errors, from what neighbors differ by."""
    half = len(values) // 2
    pairs = values[:half] + values[half:]
    return pairs.sum(axis=0), np.sqrt(0.5 * np.sum(np.diff(pairs, axis=0) ** 2, axis=0))
