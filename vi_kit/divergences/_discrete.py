"""KL between distributions of counts and of classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vi_kit.divergences._support import nan_unless_valid, where_contained
from vi_kit.divergences._trials import Given, Odds, log_ratio_of, odds_of, remainder, slope, the_one, times
from vi_kit.divergences.distributions import (
    Bernoulli,
    Binomial,
    Categorical,
    DiscreteUniform,
    Multinomial,
    OneHotCategorical,
    Poisson,
)
from vi_kit.kl._categorical import evaluate, safe_log
from vi_kit.kl._core import Parts, compare, divergence, rows

# --- counts ----------------------------------------------------------------------------------------------------------


def _log_rates(p: Array, q: Array) -> Array:
    return log_ratio_of(p, q, q - p, safe_log(p), safe_log(q))


@jax.custom_jvp
def _rates(p: Array, q: Array) -> Array:
    return remainder(p, q, _log_rates(p, q))


@_rates.defjvp
def _rates_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    p, q = primals
    return _rates(p, q), _log_rates(p, q) * tangents[0] + slope(q - p, p, q) * tangents[1]


def poisson(p: Poisson, q: Poisson) -> Array:
    """Return KL between Poisson distributions."""
    return _rates(p.rate, q.rate)


def _trial_gap(odds: Odds, q: Array) -> tuple[Array, Array]:
    """Return q − p and log(p / q)."""
    change = jnp.where(odds.no < 0.375, odds.no - (1 - q), q - odds.yes)
    return change, log_ratio_of(odds.yes, q, change, odds.log_yes, safe_log(q))


@jax.custom_jvp
def _trial_rate(p: Given, q: Array) -> Array:
    """KL of Poisson(p) from Poisson(q), and what Poisson(p) has above 1: p + (1 − p) log(1 − p)."""
    odds = odds_of(*p)
    return remainder(odds.yes, q, _trial_gap(odds, q)[1]) + remainder(odds.no, jnp.ones_like(q), odds.log_no)


@_trial_rate.defjvp
def _trial_rate_jvp(primals: tuple[Given, Array], tangents: tuple[Given, Array]) -> tuple[Array, Array]:
    p, q = primals
    odds = odds_of(*p)
    change, ratio = _trial_gap(odds, q)
    to_p = ratio - odds.log_no
    to_p = to_p if p[1] is None else times(odds.yes * odds.no, to_p)
    return _trial_rate(p, q), to_p * the_one(tangents[0]) + slope(change, odds.yes, q) * tangents[1]


def bernoulli_poisson(p: Bernoulli, q: Poisson) -> Array:
    """Return KL of a Bernoulli from a Poisson distribution."""
    return _trial_rate((p.probs, p.logits), q.rate)


def discrete_uniform(p: DiscreteUniform, q: DiscreteUniform) -> Array:
    """Return KL between uniform distributions of whole numbers."""
    below, above = p.low - q.low, q.high - p.high
    more = jnp.where(below >= 0, below, jnp.zeros_like(below)) + jnp.where(above >= 0, above, jnp.zeros_like(above))
    return where_contained(jnp.log1p(more / (p.high - p.low + 1)), below, above)


# --- classes ---------------------------------------------------------------------------------------------------------


def _classes_of(probs: Array | None, logits: Array | None) -> tuple[Array, Array]:
    """Return probabilities and their logarithms."""
    if probs is not None:
        return probs, safe_log(probs)
    assert logits is not None
    return jax.nn.softmax(logits), jax.nn.log_softmax(logits)


def _parts(p: Given, q: Given) -> Parts:
    """Compare classes; their log ratios are formed from the probabilities where those are near."""
    (p_probs, log_p), (q_probs, log_q) = _classes_of(*p), _classes_of(*q)
    ratio = log_ratio_of(p_probs, q_probs, q_probs - p_probs, log_p, log_q)
    return compare(log_p, log_q, ratio, jnp.ones((1,) * ratio.ndim, ratio.dtype), (ratio.ndim - 1,))


@jax.custom_jvp
def _classes(p: Given, q: Given) -> Array:
    return _parts(p, q).kl[..., 0]


@_classes.defjvp
def _classes_jvp(primals: tuple[Given, Given], tangents: tuple[Given, Given]) -> tuple[Array, Array]:
    """Take the gradients to the logits, divided by the probabilities where those are given."""
    p, q = primals
    parts = _parts(p, q)
    value, to_p, to_q = evaluate(parts, (), (parts.p.ndim - 1,))
    if p[0] is not None:
        some = p[0] > 0
        to_p = jnp.where(some, to_p / jnp.where(some, p[0], jnp.ones_like(p[0])), jnp.zeros_like(to_p))
    if q[0] is not None:
        to_q = slope(to_q, parts.p, q[0])
    return value[..., 0], jnp.sum(to_p * the_one(tangents[0]) + to_q * the_one(tangents[1]), axis=-1)


def categorical(p: Categorical | OneHotCategorical, q: Categorical | OneHotCategorical) -> Array:
    """Return KL between distributions of a class, NaN where parameters are out of range.

    Raises:
        ValueError: for different numbers of classes.
    """
    normalized = p.normalized and q.normalized
    value = _of_classes((p.probs, p.logits), (q.probs, q.logits), normalized=normalized)
    if p.logits is None or q.logits is None:
        return nan_unless_valid(value, p, q)
    if normalized:
        return value  # what is out of range has become NaN where it was normalized
    # A logit that is NaN, which the largest may pass over, has made the value NaN.
    valid = jnp.isfinite(jnp.max(p.logits, axis=-1)) & jnp.isfinite(jnp.max(q.logits, axis=-1))
    return value + jnp.where(valid, jnp.zeros_like(value), jnp.nan)


def _of_classes(p: Given, q: Given, *, normalized: bool = False) -> Array:
    sizes = [the_one(x).shape[-1] for x in (p, q)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"q: expected {sizes[0]} classes as p has, got {sizes[1]}")
    if p[1] is None or q[1] is None:
        return _classes(p, q)
    return divergence(evaluate, rows(-1, None, None, p_logits=p[1], q_logits=q[1])._replace(normalized=normalized))


def multinomial(p: Multinomial, q: Multinomial) -> Array:
    """Return KL between multinomials; different numbers of draws have no event in common."""
    value = times(p.total_count, _of_classes((p.probs, p.logits), (q.probs, q.logits)))
    return where_contained(value, -jnp.abs(p.total_count - q.total_count))


# --- what is contained in what ----------------------------------------------------------------------------------------


def bernoulli_as_binomial(p: Bernoulli) -> Binomial:
    """Return one trial as a number of trials."""
    return Binomial(jnp.ones_like(the_one((p.probs, p.logits))), p.probs, p.logits)


def one_hot_as_multinomial(p: OneHotCategorical) -> Multinomial:
    """Return one draw as a number of draws."""
    return Multinomial(jnp.ones_like(the_one((p.probs, p.logits))[..., 0]), p.probs, p.logits)
