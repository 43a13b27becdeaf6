"""KL between distributions of trials that succeed or fail, given by probabilities or log odds on either side.

With p, q the probabilities of success, KL of one trial is a sum of two remainders, neither negative nor cancelling:

    [p log(p / q) − p + q] + [(1 − p) log((1 − p) / (1 − q)) − (1 − p) + (1 − q)]
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit.divergences._rules import require
from vi_kit.divergences._support import where_contained
from vi_kit.divergences.distributions import Bernoulli, Binomial, Geometric, NegativeBinomial
from vi_kit.kl._categorical import safe_log
from vi_kit.kl._compensated import expm1_minus, series

Given = tuple[Array | None, Array | None]  # probabilities, log odds: one of them is None


class Odds(NamedTuple):
    """Probabilities of the two outcomes with their logarithms, each without the rounding of 1 − p."""

    yes: Array
    no: Array
    log_yes: Array
    log_no: Array
    centered: Array  # yes − ½

    def swap(self) -> Odds:
        """Return the same with the outcomes renamed."""
        return Odds(self.no, self.yes, self.log_no, self.log_yes, -self.centered)


class _Gap(NamedTuple):
    """What lies between p and q: log ratios of the two outcomes' probabilities, q − p, and log odds."""

    yes: Array
    no: Array
    difference: Array
    odds: Array


def odds_of(probs: Array | None, logits: Array | None) -> Odds:
    """Read what is given."""
    if probs is not None:
        below = probs < 1
        log_no = jnp.log1p(-jnp.where(below, probs, jnp.zeros_like(probs)))
        log_no = jnp.where(below, log_no, jnp.full_like(probs, -jnp.inf))
        return Odds(probs, 1 - probs, safe_log(probs), log_no, probs - 0.5)
    assert logits is not None
    sigmoid, log_sigmoid = jax.nn.sigmoid, jax.nn.log_sigmoid
    return Odds(
        sigmoid(logits), sigmoid(-logits), log_sigmoid(logits), log_sigmoid(-logits), 0.5 * jnp.tanh(0.5 * logits)
    )


def log_ratio_of(p: Array, q: Array, change: Array, log_p: Array, log_q: Array) -> Array:
    """Return log(p / q), change being q − p: from it where p and q are near, else from their logarithms."""
    near = jnp.abs(change) < 0.5 * q
    small = jnp.where(near, change / jnp.where(near, q, jnp.ones_like(q)), jnp.zeros_like(q))
    same = log_p == log_q  # both −∞: no mass on either side
    far = jnp.where(same, jnp.zeros_like(p), log_p) - jnp.where(same, jnp.zeros_like(q), log_q)
    return jnp.where(near, jnp.log1p(-small), far)


def _gap(p: Odds, q: Odds, shift: Array | None) -> _Gap:
    """Compare; `shift` is the difference of the log odds where both sides are given by them."""
    # q − p, each time of numbers that are exact near 0, 1 or ½.
    middle = jnp.where(p.no < 0.375, p.no - q.no, q.centered - p.centered)
    change = jnp.where(p.yes < 0.375, q.yes - p.yes, middle)
    if shift is None:
        yes = log_ratio_of(p.yes, q.yes, change, p.log_yes, q.log_yes)
        no = log_ratio_of(p.no, q.no, -change, p.log_no, q.log_no)
        return _Gap(yes, no, change, yes - no)
    near = jnp.abs(shift) < 1
    small = jnp.where(near, shift, jnp.zeros_like(shift))
    yes = jnp.where(near, jnp.log1p(p.no * jnp.expm1(small)), p.log_yes - q.log_yes)
    no = jnp.where(near, jnp.log1p(p.yes * jnp.expm1(-small)), p.log_no - q.log_no)
    return _Gap(yes, no, jnp.where(near, p.yes * jnp.expm1(-jnp.where(near, yes, small)), change), shift)


def remainder(p: Array, q: Array, ratio: Array) -> Array:
    """Return p log(p / q) − p + q ≥ 0 for p, q ≥ 0 from ratio = log(p / q)."""
    near = jnp.abs(ratio) < 1
    far = jnp.where(p > 0, p, jnp.zeros_like(p)) * jnp.where(p > 0, ratio, jnp.zeros_like(p)) + (q - p)
    return jnp.where(near, p * series(-jnp.where(near, ratio, jnp.zeros_like(ratio))), far)


def slope(change: Array, p: Array, q: Array) -> Array:
    """Return change / q = (q − p) / q; where q is 0, −∞ if p is not, else 1: KL grows as q leaves an empty p."""
    some = q > 0
    edge = jnp.where(p > 0, jnp.full_like(q, -jnp.inf), jnp.ones_like(q))
    return jnp.where(some, change / jnp.where(some, q, jnp.ones_like(q)), edge)


def times(weight: Array, value: Array) -> Array:
    """Return the product, 0 where the weight is, whatever the value."""
    some = weight > 0
    return jnp.where(some, weight * jnp.where(some, value, jnp.zeros_like(value)), jnp.zeros_like(value))


def _divide(value: Array, by: Array) -> Array:
    """Return the ratio to a number of at least 0; 0 / 0 is 0."""
    some = by > 0
    edge = jnp.where(value == 0, jnp.zeros_like(value), jnp.sign(value) * jnp.inf)
    return jnp.where(some, value / jnp.where(some, by, jnp.ones_like(by)), edge)


def _compare(p: Given, q: Given) -> tuple[Odds, Odds, _Gap]:
    shift = None
    if p[1] is not None and q[1] is not None:
        same = jnp.isinf(p[1]) & (p[1] == q[1])  # their difference would be NaN
        shift = jnp.where(same, jnp.zeros_like(p[1]), p[1] - q[1])
    first, second = odds_of(*p), odds_of(*q)
    return first, second, _gap(first, second, shift)


def the_one(array: Given) -> Array:
    """Return the one that is given."""
    found = array[1] if array[0] is None else array[0]
    assert found is not None
    return found


def log_odds_between(p: Given, q: Given) -> Array:
    """Return the log odds of p minus those of q, from their probabilities where those are given."""
    return _compare(p, q)[2].odds


@jax.custom_jvp
def _one_trial(p: Given, q: Given) -> Array:
    """KL of one trial: p log(p / q) + (1 − p) log((1 − p) / (1 − q)), as a sum of two remainders."""
    first, second, gap = _compare(p, q)
    return remainder(first.yes, second.yes, gap.yes) + remainder(first.no, second.no, gap.no)


@_one_trial.defjvp
def _one_trial_jvp(primals: tuple[Given, Given], tangents: tuple[Given, Given]) -> tuple[Array, Array]:
    p, q = primals
    first, second, gap = _compare(p, q)
    to_p = gap.odds if p[1] is None else times(first.yes * first.no, gap.odds)
    to_q = gap.difference
    if q[1] is None:
        to_q = slope(to_q, first.yes, second.yes) - slope(-to_q, first.no, second.no)
    return _one_trial(p, q), to_p * the_one(tangents[0]) + to_q * the_one(tangents[1])


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _until_end(sign: int, p: Given, q: Given) -> Array:
    """KL of trials until one ends them: that of one trial times their mean number, 1 / p's probability to end.

    The end is a failure (sign 1) or a success (sign −1).
    """
    first, second, gap = _compare_ends(sign, p, q)
    some = first.no > 0
    others = remainder(first.yes, second.yes, gap.yes) / jnp.where(some, first.no, jnp.ones_like(first.no))
    return expm1_minus(-gap.no) + jnp.where(some, others, jnp.zeros_like(others))


def _compare_ends(sign: int, p: Given, q: Given) -> tuple[Odds, Odds, _Gap]:
    first, second, gap = _compare(p, q)
    if sign > 0:
        return first, second, gap
    swapped = _Gap(gap.no, gap.yes, -gap.difference, -gap.odds)
    return first.swap(), second.swap(), swapped


@_until_end.defjvp
def _until_end_jvp(sign: int, primals: tuple[Given, Given], tangents: tuple[Given, Given]) -> tuple[Array, Array]:
    p, q = primals
    first, second, gap = _compare_ends(sign, p, q)
    tiny = float(np.finfo(first.no.dtype).eps)
    change = jnp.expm1(-gap.no)  # (p − q) / (1 − p)
    both_rare = (first.no < tiny) & (second.no < tiny)
    to_p = jnp.where(both_rare, change, _divide(gap.yes, first.no))
    to_p = times(first.yes, to_p) if p[1] is not None else _divide(to_p, first.no)
    to_q = -change
    if q[1] is None:
        at_none = (second.yes == 0) & (change == 0)
        to_q = jnp.where(at_none, jnp.ones_like(change), _divide(to_q, second.yes * second.no))
    return _until_end(sign, p, q), sign * (to_p * the_one(tangents[0]) + to_q * the_one(tangents[1]))


def bernoulli(p: Bernoulli, q: Bernoulli) -> Array:
    """Return KL between Bernoulli distributions."""
    return _one_trial((p.probs, p.logits), (q.probs, q.logits))


def binomial(p: Binomial, q: Binomial) -> Array:
    """Return KL between binomials: NaN where q has more trials than p (unless p has no successes), +inf where fewer."""
    yes = odds_of(p.probs, p.logits).yes
    count = jnp.where(yes == 0, q.total_count, p.total_count)
    value = times(count, _one_trial((p.probs, p.logits), (q.probs, q.logits)))
    known = (count == q.total_count) | (q.total_count < p.total_count)
    value = require(value, known, "`total_count` has to be the same on both sides, unless q's is smaller: +inf")
    return where_contained(value, (q.total_count - p.total_count) * yes)


def geometric(p: Geometric, q: Geometric) -> Array:
    """Return KL between geometric distributions."""
    return _until_end(-1, (p.probs, p.logits), (q.probs, q.logits))


def negative_binomial(p: NegativeBinomial, q: NegativeBinomial) -> Array:
    """Return KL between negative binomials that end at the same number of failures."""
    return p.total_count * _until_end(1, (p.probs, p.logits), (q.probs, q.logits))
