"""Far out, where no draw of q comes: p and q compared at points that fill the space there."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_SURE = 2.0  # standard errors
_MOST_MASS, _MOST_SPREAD = 0.05, 0.5  # that may be missing: a share, and of a variance (a fifth of an sd)


class FarPoints(NamedTuple):
    """Points around a Gaussian from near to far and, in the second half, opposite to them.

    Attributes:
        points: where they are, unconstrained.
        standardized: how far each coordinate is from the Gaussian's mean, in its standard deviations.
        log_volumes: ∫ f there is about Σ exp(log_volume) f.
    """

    points: Float[np.ndarray, "n dim"]
    standardized: Float[np.ndarray, "n dim"]
    log_volumes: Float[np.ndarray, " n"]


class FarOut(NamedTuple):
    """What p has there and q has not, negative where q has more.

    Attributes:
        mass: of p's.
        mass_error: two standard errors of it.
        spread: squared deviation that it adds, in variances of the Gaussian, of the coordinate where it is largest.
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
        distance = f", about {math.sqrt(max(self.spread, 0) / self.mass):.1f} sd," if self.mass > 0 else ""
        return (
            f"farther out{distance} than draws of q, p has {max(self.mass, 0):.2%} of its mass and "
            f"{max(self.spread, 0):.2g} times the variance of q more than q has there, so its tails are too light"
        )


def compare_far_out(
    far: FarPoints,
    log_p: Float[np.ndarray, " n"],
    log_q: Float[np.ndarray, " n"],
    log_normalizer: float,
    log_normalizer_error: float,
) -> FarOut:
    """Integrate p − q, and its product with squared coordinates, over the space that the points fill."""
    with np.errstate(all="ignore"):
        p = np.exp(far.log_volumes + log_p - log_normalizer)
        q = np.exp(far.log_volumes + log_q)
    p, q = np.where(np.isfinite(p), p, 0.0), np.where(np.isfinite(q), q, 0.0)
    missing = p - q
    scale = log_normalizer_error * p.sum()
    mass, mass_error = _integral(missing[:, None])
    squares = far.standardized**2
    spreads, errors = _integral(missing[:, None] * squares)
    errors = np.hypot(errors, log_normalizer_error * (p @ squares))
    outside = np.where(p > 2 * q, p, 0.0)[:, None]
    most = np.add(*_integral(np.concatenate([outside, outside * squares], axis=1)) * np.array([[1.0], [_SURE]]))
    worst = int(np.argmax(spreads - _SURE * errors))
    return FarOut(
        float(mass[0]),
        _SURE * math.hypot(float(mass_error[0]), scale),
        float(spreads[worst]),
        _SURE * float(errors[worst]),
        float(most[0]),
        float(most[1:].max()),
    )


def _integral(values: Float[np.ndarray, "n m"]) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Return integrals with their standard errors, from what neighbors differ by: they are equally far out."""
    half = len(values) // 2
    pairs = values[:half] + values[half:]
    return pairs.sum(axis=0), np.sqrt(0.5 * np.sum(np.diff(pairs, axis=0) ** 2, axis=0))
