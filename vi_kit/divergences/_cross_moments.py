"""KL between different families from moments: −entropy of p − E log density of q.

What p can say is in `_known_moments.py`, what q asks for is here; every pair where the two meet has a closed form. It
is a sum of what is not negative, as far as there is such a form: p is compared with the member of q's family that has
the same moments, and that with q.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vi_kit.divergences import _expectations as e
from vi_kit.divergences import _remainders as r
from vi_kit.divergences import distributions as d
from vi_kit.divergences._bounded_expectations import logit_beta
from vi_kit.divergences._known_moments import (
    ABSOLUTE,
    GAMMA,
    LINE,
    LOG_GAMMA,
    POSITIVE,
    TILTED,
    ends,
    entropy,
    line,
    mean,
    spread,
)
from vi_kit.divergences._support import where_contained
from vi_kit.kl._compensated import expm1_minus, log_ratio


@dataclasses.dataclass(frozen=True)
class Question:
    """What −E log q asks of p.

    Attributes:
        value: the KL.
        formula: the mathematics in one line.
        kinds: the families that can answer.
    """

    value: Callable[[Any, Any], Array]
    formula: str
    kinds: frozenset[type[d.Distribution]]


def cross_moment(p: d.Distribution, q: d.Distribution) -> Array | None:
    """Return KL between two families by moments of p, one value an entry of the batch; None where one is not known."""
    question = QUESTIONS.get(type(q))
    if question is None or type(p) not in question.kinds:
        return None
    value = _within(question.value(p, q), *(spread(x) for x in (p, q)))
    # What rounding has brought below 0 is 0; the gradient is as it was.
    return jnp.where(value < 0, value - jax.lax.stop_gradient(value), value)


def _within(value: Array, *margins: Array | None) -> Array:
    """Return the value where every margin is above 0, else +inf."""
    strict = (jnp.where(m > 0, m, m - 1) for m in margins if m is not None)
    return where_contained(value, *(jnp.broadcast_to(m, value.shape) for m in strict))


def _normal(x: e.Cumulants, place: e.Place, scale: Array) -> Array:
    """Return KL from a normal: that of the normal with the moments of y, and the negentropy."""
    z = (x.place.minus(place) + x.shift) / scale
    ratio = expm1_minus(2 * log_ratio(jnp.sqrt(x.variance), scale))
    return _within(x.negentropy + 0.5 * (ratio + z * z), x.moments)


def _log_gamma(x: e.Cumulants, q: e.LogGamma) -> Array:
    """Return KL from the logarithm of a Gamma variable: −E log q has α E φ(k (y − place)) and a normalizer."""
    cumulant, excess = x.cumulant(q.power)
    a = q.concentration
    log_mean = q.power * (x.place.minus(q.place) + x.shift) + cumulant
    spread = _spread(a * q.power * q.power * x.variance, a * cumulant, a * excess)
    return _within(a * expm1_minus(log_mean) + spread + r.stirling(a)[0] + x.negentropy, x.room(q.power))


def _log_inverse_gaussian(x: e.Cumulants, q: d.InverseGaussian) -> Array:
    """Return KL from the logarithm of an inverse Gaussian variable, of density ∝ e^{−y / 2 − c (cosh y − 1)}."""
    up, down = x.cumulant(1.0), x.cumulant(-1.0)
    c = q.concentration / q.loc
    offset = x.place.minus(e.at_log(q.loc)) + x.shift
    spread = _spread(c * x.variance, 0.5 * c * (up[0] + down[0]), 0.5 * c * (up[1] + down[1]))
    tails = expm1_minus(up[0] + offset) + expm1_minus(down[0] - offset)
    return _within(0.5 * (c * tails + offset) + spread + x.negentropy, x.room(1.0), x.room(-1.0))


def _spread(precision: Array, cumulant: Array, excess: Array) -> Array:
    """Return cumulant − ½ − ½ log precision: a remainder and a small excess where the precision is near 1."""
    log = jnp.log(precision)
    return jnp.where(precision < 2, 0.5 * expm1_minus(log) + excess, cumulant - 0.5 - 0.5 * log)


def _from_laplace(p: d.Distribution, q: d.Laplace) -> Array:
    distance = ABSOLUTE[type(p)](p, q.loc)
    value = expm1_minus(log_ratio(distance, q.scale)) + 1 + jnp.log(2 * distance) - entropy(p)
    return _within(value, POSITIVE[type(p)](p).room(1.0) if type(p) in POSITIVE else None)


def _from_continuous_bernoulli(p: d.Distribution, q: d.ContinuousBernoulli) -> Array:
    tilt = ends(q)[2]
    return r.log_sinhc(0.5 * tilt) - tilt * (mean(p) - 0.5) - entropy(p)


def _from_positive(p: d.Distribution, q: Any) -> Array:
    """Return KL where q is positive, and so is p, or it is on an interval that may be."""
    margin = p.low if isinstance(p, d.Uniform) else None
    if type(p) in TILTED and isinstance(q, d.Exponential | d.HalfNormal):
        value = _from_decay(p, q, margin)
    else:
        value = _from_log(p, q)
    return value if margin is None else where_contained(value, margin)


def _from_decay(p: d.Distribution, q: d.Exponential | d.HalfNormal, margin: Array | None) -> Array:
    """Return KL where the density of q has no power of x: E log x, which p may not know, does not matter."""
    size = mean(p) if margin is None else jnp.where(margin >= 0, mean(p), jnp.ones_like(margin))
    if isinstance(q, d.Exponential):
        return expm1_minus(log_ratio(size, 1 / q.rate)) + 1 + jnp.log(size) - entropy(p)
    size = jnp.sqrt(size * size + LINE[type(p)](p).variance)
    shape = jnp.log(size) + 0.5 * (1 + math.log(math.pi / 2)) - entropy(p)
    return 0.5 * expm1_minus(2 * log_ratio(size, q.scale)) + shape


def _from_log(p: d.Distribution, q: Any) -> Array:
    x = POSITIVE[type(p)](p)
    if isinstance(q, d.LogNormal):
        return _normal(x, e.Place(q.loc), q.scale)
    return _log_inverse_gaussian(x, q) if isinstance(q, d.InverseGaussian) else _log_gamma(x, GAMMA[type(q)](q))


def _from_line(p: d.Distribution, q: Any) -> Array:
    return _log_gamma(LINE[type(p)](p), LOG_GAMMA[type(q)](q))


def _from_normal(p: d.Distribution, q: d.Normal) -> Array:
    return _normal(line(p), e.Place(q.loc), q.scale)


def _from_logit_normal(p: d.Beta, q: d.LogitNormal) -> Array:
    return _normal(logit_beta(p), e.Place(q.loc), q.scale)


_UNKNOWING = {d.StudentT, d.GeneralizedNormal, d.Beta}  # of E e^{kx}
_LINE = frozenset(LINE) - _UNKNOWING
_LOG = frozenset(POSITIVE) - frozenset(GAMMA)
_DECAY = frozenset(TILTED)
_ANY_POWER = {d.Weibull, d.Frechet, d.GeneralizedGamma}


def _positive_kinds(q: type[d.Distribution]) -> frozenset[type[d.Distribution]]:
    """Return the families whose logarithm knows E e^{ky}; powers of Gamma variables have a row of the table."""
    kinds = _LOG - {d.InverseGaussian} if q in _ANY_POWER else _LOG
    return kinds | _DECAY if q in (d.Exponential, d.HalfNormal) else kinds


# What each q asks.
QUESTIONS: dict[type[d.Distribution], Question] = {
    d.Normal: Question(
        _from_normal,
        "½[v/s² − 1 − log(v/s²) + (E x − m)²/s²] + ½ log 2πe v − H(p), v = Var x",
        frozenset({*LINE, *POSITIVE}) - {d.Normal},
    ),
    d.LogNormal: Question(
        _from_positive, "as Normal, of log x", frozenset(POSITIVE) - {d.LogNormal, d.InverseGaussian}
    ),
    d.LogitNormal: Question(_from_logit_normal, "as Normal, of logit x", frozenset({d.Beta})),
    d.Laplace: Question(_from_laplace, "E|x − m|/s + log 2s − H(p)", frozenset(ABSOLUTE)),
    d.ContinuousBernoulli: Question(
        _from_continuous_bernoulli,
        "log((e^λ − 1)/λ) − λ E x − H(p), λ = logits",
        frozenset({d.Beta, d.Kumaraswamy}),
    ),
    d.InverseGaussian: Question(
        _from_positive,
        "λ E (x − m)²/(2m²x) + 3/2 E log x − ½ log(λ/2π) − H(p)",
        frozenset(POSITIVE) - {d.InverseGaussian},
    ),
    **{
        q: Question(_from_line, "α E φ(k (x − c)) + log(Γ(α) e^α/(α^α |k|)) − H(p), φ(z) = e^z − 1 − z", _LINE - {q})
        for q in LOG_GAMMA
    },
    **{q: Question(_from_positive, "as ExpGamma, of log x: E x^k and E log x", _positive_kinds(q)) for q in GAMMA},
}


def moment_pairs() -> Iterator[tuple[type[d.Distribution], type[d.Distribution], str]]:
    """Yield the pairs of families that have a closed form by moments, with the formula."""
    for q, question in QUESTIONS.items():
        for p in sorted(question.kinds, key=lambda kind: kind.__name__):
            yield p, q, question.formula
