"""What is averaged over draws: columns whose means make the estimate, and what is differentiated in their place."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vi_kit.divergences import _kinds as kinds
from vi_kit.divergences._running_moments import Moments
from vi_kit.kl._compensated import expm1_minus

_LEAST_DRAWS = 50  # for a control variate
_LEAST_UNITS = 100  # for its fit
_REACH = 24.0  # √n is this many times more than a weight may be above 1
_FURTHEST = 5.0  # standard errors from 0 that its mean may be


class Values(NamedTuple):
    """What is known at some draws, each (draws, *batch) or a number.

    Attributes:
        log_p: log p.
        log_q: log q.
        log_draws: log density of what was drawn from, where that is neither of them.
        score: log density of the parts that carry no pathwise gradient.
        choice: log probability of the components of mixtures that were chosen.
        path: log p − log q as a function of the draws alone, where they carry a gradient.
    """

    log_p: Array
    log_q: Array
    log_draws: Array | None
    score: Any
    choice: Any
    path: Any = 0.0


class Fit(NamedTuple):
    """What the draws of the other fold say, for each fold (first axis).

    Attributes:
        weights: the estimate is this combination of the columns.
        coefficient: of the control variate.
        baseline: mean of the first column.
    """

    weights: Array
    coefficient: Array
    baseline: Array


class Integrand(Protocol):
    """What is averaged. The first column decides on the extent of the draws."""

    def columns(self, at: Values) -> Array:
        """Return (columns, draws, *batch)."""

    def fit(self, folds: Moments, smallest: Array, size: int) -> Fit:
        """Return how the columns combine, from moments by fold (columns, 2, *batch) of units of a size."""

    def surrogate(self, at: Values, fit: Fit) -> Array:
        """Return what is differentiated at each draw; the fit is that of the draw's fold."""


def _weight(at: Values) -> Array:
    assert at.log_draws is not None
    return jnp.exp(at.log_p - at.log_draws)


def _first(folds: Moments) -> Array:
    return jnp.zeros_like(folds.mean).at[0].set(1)


class LogRatio(NamedTuple):
    """log p − log q, with the control variate c (q/p − 1) where that has mean 0 and its fit can be trusted.

    The coefficient minimizes the variance over the other fold, so that it has no part in the draws it is used on: no
    bias. It is 0 unless those draws show that the mean of q/p can be had from draws of p at all, which takes a q whose
    tails are not much heavier than those of p: no weight q/p may be above 1 + √n / 24 (that of a q/p of infinite
    variance outgrows √n), and their mean must be 1 within five standard errors.

    Attributes:
        contained: where in the batch p > 0 wherever q > 0; None: not known to be so, no control variate.
    """

    contained: Array | None

    def columns(self, at: Values) -> Array:
        """Return r, and with a control variate r + q/p − 1 and q/p − 1; each weighted, and the weight."""
        ratio = at.log_p - at.log_q
        weight = None
        if at.log_draws is not None:
            weight = _weight(at)
            ratio = jnp.where(weight == 0, jnp.zeros_like(ratio), ratio)  # draws that p cannot make
        found = [ratio]
        if self.contained is not None:
            found += [expm1_minus(-ratio), jnp.expm1(-ratio)]
        return jnp.stack(found if weight is None else [*(weight * f for f in found), weight])

    def fit(self, folds: Moments, smallest: Array, size: int) -> Fit:
        """Return r + c (q/p − 1), in the form that loses no digits."""
        other = jax.tree.map(lambda v: jnp.flip(v, axis=v.ndim - smallest.ndim), folds)
        weights = _first(folds)
        coefficient = jnp.zeros_like(smallest)
        if self.contained is not None:
            mean, between, square = other.mean[2], other.comoment[1, 2], other.comoment[2, 2]
            slope = jnp.where(square > 0, between / jnp.where(square > 0, square, jnp.ones_like(square)), 0 * square)
            worse = (other.comoment[1, 1] > other.comoment[0, 0]).astype(slope.dtype)
            slope = jnp.where(other.number < _LEAST_UNITS, worse, slope)  # too few for more than c = 0 or 1
            variance = square / jnp.maximum(other.number * (other.number - 1), 1)
            draws = other.number * size
            extent = jnp.exp(-jnp.flip(smallest, axis=0))
            trusted = (draws >= _LEAST_DRAWS) & (extent <= 1 + jnp.sqrt(draws) / _REACH) & jnp.isfinite(slope)
            trusted &= mean * mean <= _FURTHEST**2 * variance
            trusted |= (square == 0) & (mean == 0)  # p = q
            coefficient = jnp.where(trusted & self.contained, 1 - slope, coefficient)
            near = (jnp.abs(coefficient) > 0.5).astype(coefficient.dtype)
            weights = jnp.zeros_like(weights).at[:3].set(jnp.stack([1 - near, near, coefficient - near]))
        return Fit(weights, coefficient, other.mean[0])

    def surrogate(self, at: Values, fit: Fit) -> Array:
        """Return what has the gradient of KL, by what depends on draws, on p alone, and on q alone.

        For q: −E[(1 − c q/p) ∇ log q], as E_q[∇ log q] = 0. Where c is 0 that is −E[∇ log q].
        """
        ratio = jax.lax.stop_gradient(at.log_p - at.log_q)
        score, log_q, weight = at.score + at.choice, at.log_q, None
        if at.log_draws is not None:
            weight, score = jax.lax.stop_gradient(_weight(at)), at.log_p
            ratio, score, log_q = (jnp.where(weight > 0, v, jnp.zeros_like(v)) for v in (ratio, score, log_q))
        none = fit.coefficient == 0
        excess = jnp.expm1(-jnp.where(none, jnp.zeros_like(ratio), ratio))
        of_q = 1 - fit.coefficient - fit.coefficient * excess
        found: Array = at.path + (ratio - fit.baseline) * score - of_q * log_q
        return found if weight is None else weight * found


class Generator(NamedTuple):
    """(q / m) f(p / q) at draws of m: of an f-divergence. With m = (p + q) / 2 the weights are at most 2.

    Attributes:
        kind: whose generator it is.
    """

    kind: kinds.Kind

    def columns(self, at: Values) -> Array:
        """Return the one column."""
        return self._value(at)[None]

    def fit(self, folds: Moments, smallest: Array, size: int) -> Fit:
        """Return the column itself."""
        other = jnp.flip(folds.mean, axis=1)
        return Fit(_first(folds), jnp.zeros_like(smallest), other[0])

    def surrogate(self, at: Values, fit: Fit) -> Array:
        """Return the integrand, and the score function of draws that carry no gradient."""
        value = self._value(at)
        found: Array = value + (jax.lax.stop_gradient(value) - fit.baseline) * (at.score + at.choice)
        return found

    def _value(self, at: Values) -> Array:
        log_m = at.log_draws
        if log_m is None:
            log_m = jnp.logaddexp(at.log_p, at.log_q) - jnp.log(jnp.full_like(at.log_p, 2))
        neither = (at.log_p == -jnp.inf) & (at.log_q == -jnp.inf)  # draws of a wider proposal
        ratio = jnp.where(neither, jnp.zeros_like(at.log_p), at.log_p) - jnp.where(neither, 0.0, at.log_q)
        above = ratio > 0
        # From the side on which the ratio is below 1: the other one would overflow.
        low = jnp.where(above, jnp.zeros_like(ratio), ratio)
        high = jnp.where(above, -ratio, jnp.zeros_like(ratio))
        below_part = jnp.exp(jnp.where(above, log_m, at.log_q) - log_m) * _at_limit(self.kind.generator, low)
        above_part = jnp.exp(jnp.where(above, at.log_p, log_m) - log_m) * _at_limit(_reversed(self.kind), high)
        return jnp.where(above, above_part, below_part)


def _at_limit(generator: Any, log_ratio: Array) -> Array:
    """Evaluate a generator, also at −∞: its limit there, which may come out as NaN, has no derivative."""
    plain = jax.lax.stop_gradient(generator(log_ratio))
    lost = (log_ratio == -jnp.inf) | (jnp.isnan(plain) & (log_ratio < -80))
    limit = jax.lax.stop_gradient(generator(jnp.full_like(log_ratio, -80)))
    value = generator(jnp.where(lost, jnp.zeros_like(log_ratio), log_ratio))
    return jnp.where(lost, jnp.where(jnp.isnan(plain), limit, plain), value)


def _reversed(kind: kinds.Kind) -> Any:
    """Return ℓ → e^ℓ f(e^{−ℓ}): the generator with p and q in each other's place."""
    if isinstance(kind, kinds.Alpha | kinds.Renyi) and kind.alpha != 1:
        alpha = kind.alpha
        scale = alpha * (alpha - 1)
        return lambda ratio: (expm1_minus((1 - alpha) * ratio) - (1 - alpha) * expm1_minus(ratio)) / scale
    symmetric = (kinds.Bhattacharyya, kinds.Hellinger, kinds.Jeffreys, kinds.JensenShannon, kinds.TotalVariation)
    if isinstance(kind, symmetric):
        return kind.generator
    return lambda ratio: jnp.exp(ratio) * kind.generator(-ratio)


def combined(weights: Array, columns: Array) -> Array:
    """Return a combination of columns; a column of weight 0 may be infinite."""
    return jnp.sum(jnp.where(weights == 0, jnp.zeros_like(columns), weights * columns), axis=0)
