r"""KL over classes that arrive in tiles: what is kept of the tiles seen, and how two summaries become one.

KL obeys a chain rule: over groups of classes it is KL between the masses of the groups, plus KL within each weighted by
p's mass. Every term is nonnegative, so tiles whose own KL is compensated (as in `vi_kit.kl._core`) add up without
cancellation. A group enters such a sum as one class, whose logit is the group's log normalizer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp

from vi_kit.kl._compensated import series
from vi_kit.kl._core import _subtract
from vi_kit.kl._mixtures import _log_mixture

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, Float

_ABSENT = 1e30  # stands for the gap of a class that p lacks: finite, so that it vanishes when multiplied by p


class Summary(NamedTuple):
    """Two rows of logits, t of p and s of q, after some of their classes; no class axis.

    Attributes:
        p_largest: the largest t; −∞ where p has none of the classes.
        q_largest: the largest s.
        p_total: Σ exp(scale·(t − p_largest)); 0 where p has none of the classes.
        q_total: the same of q.
        offset: p's log normalizer minus q's, less scale·(p_largest − q_largest); keeps its digits near 0.
        kl: KL(p‖q) over these classes alone.
    """

    p_largest: Float[Array, " rows"]
    q_largest: Float[Array, " rows"]
    p_total: Float[Array, " rows"]
    q_total: Float[Array, " rows"]
    offset: Float[Array, " rows"]
    kl: Float[Array, " rows"]


def empty(rows: int, dtype: jnp.dtype) -> Summary:
    """Return the summary of no classes."""
    zero = jnp.zeros(rows, dtype)
    return Summary(zero - jnp.inf, zero - jnp.inf, zero, zero, zero, zero)


def summarize(t: Array, s: Array, scale: Array) -> Summary:
    """Summarize logits (rows, classes)."""
    p_largest, q_largest = jnp.max(t, axis=1), jnp.max(s, axis=1)
    p_zero, q_zero = _finite(p_largest)[:, None], _finite(q_largest)[:, None]
    weight, exponent = jnp.exp((t - p_zero) * scale), (s - q_zero) * scale
    h = _relative(t, s, p_zero, q_zero) * scale
    return Summary(p_largest, q_largest, *_compare(weight, jnp.ones_like(weight), exponent, h, jnp.zeros_like(weight)))


def merge(a: Summary, b: Summary, scale: Array) -> Summary:
    """Return the summary of the classes of both."""
    p_largest, q_largest = jnp.maximum(a.p_largest, b.p_largest), jnp.maximum(a.q_largest, b.q_largest)
    p_zero, q_zero = _finite(p_largest)[:, None], _finite(q_largest)[:, None]
    both = Summary(*[jnp.stack(x, axis=1) for x in zip(a, b, strict=True)])
    weight = both.p_total * jnp.exp((both.p_largest - p_zero) * scale)
    h = _relative(both.p_largest, both.q_largest, p_zero, q_zero) * scale + both.offset
    exponent = (both.q_largest - q_zero) * scale
    return Summary(p_largest, q_largest, *_compare(weight, both.q_total, exponent, h, both.kl))


def _compare(weight: Array, count: Array, exponent: Array, h: Array, within: Array) -> tuple[Array, ...]:
    """Return p_total, q_total, offset and KL of classes that may be groups.

    Args:
        weight: p, not normalized.
        count: q is count·exp(exponent), not normalized.
        exponent: at most 0.
        h: log weight − log count − exponent, right where it is near 0.
        within: KL inside the group.
    """
    total = jnp.sum(weight, axis=1)
    p = weight * (1 / _nonzero(total))[:, None]
    h = jnp.where(weight > 0, h, jnp.full_like(h, _ABSENT))
    mean = jnp.sum(p * h, axis=1)
    lacks = mean == jnp.inf  # p has a class that q lacks
    mean = jnp.where(lacks, jnp.zeros_like(mean), mean)
    log_total = jnp.log(_nonzero(total))
    shift = mean - log_total
    # KL is at least the shift: where that is large the difference of the normalizers is as good, and cannot overflow.
    far = lacks | (shift > 4) | (total == 0)
    mass = count * jnp.exp(exponent + jnp.where(far, jnp.zeros_like(shift), shift)[:, None])
    gap = h - mean[:, None]
    near = jnp.abs(gap) < 1
    term = jnp.where(near, p * series(-jnp.where(near, gap, jnp.zeros_like(gap))), mass - p * (1 - gap))
    sums = jnp.sum(jnp.where(far[:, None], mass, term), axis=1)
    one = jnp.ones_like(sums)
    log_q_total = jnp.log(_nonzero(jnp.where(far, sums, one)))
    kl = jnp.where(far, shift + log_q_total, jnp.log1p(jnp.where(far, one, sums)))
    offset = jnp.where(far, log_total - log_q_total, mean - kl)
    q_total = jnp.where(far, sums, total * jnp.exp(-jnp.where(far, one, offset)))
    kl += jnp.sum(jnp.where(p > 0, p * within, jnp.zeros_like(p)), axis=1)
    return total, q_total, offset, jnp.where(lacks, jnp.full_like(kl, jnp.inf), kl)


def _relative(t: Array, s: Array, p_zero: Array, q_zero: Array) -> Array:
    """Return (t − s) − (p_zero − q_zero) with what rounding takes from the two: logits may be far from 0."""
    (h, lost), (zero, zero_lost) = _subtract(t, s), _subtract(p_zero, q_zero)
    return (h - zero) + (lost - zero_lost)


def _finite(largest: Array) -> Array:
    return jnp.where(largest == -jnp.inf, jnp.zeros_like(largest), largest)


def _nonzero(total: Array) -> Array:
    return jnp.where(total == 0, jnp.ones_like(total), total)


def close(summary: Summary) -> Summary:
    """Return the summary of all classes: a row of p without classes beside one of q that has some has no KL."""
    undefined = (summary.p_total == 0) & (summary.q_total > 0)
    return summary._replace(kl=jnp.where(undefined, jnp.full_like(summary.kl, jnp.nan), summary.kl))


def terms(t: Array, s: Array, scale: Array, beta: Array | None, rows: Summary) -> tuple[Array, ...]:
    """Return what a tile adds to each row: p, q, their slopes, and for Jensen–Shannon the divergence's terms.

    A divergence's gradient to the logits of p is its slope − p Σ slope, over all classes; likewise for q. That of
    KL is complete as it is.
    """
    p_zero, q_zero = _finite(rows.p_largest)[:, None], _finite(rows.q_largest)[:, None]
    p = jnp.exp((t - p_zero) * scale) * (1 / _nonzero(rows.p_total))[:, None]
    q = jnp.exp((s - q_zero) * scale) * (1 / _nonzero(rows.q_total))[:, None]
    ratio = _relative(t, s, p_zero, q_zero) * scale - rows.offset[:, None]
    zero = jnp.zeros_like(ratio)
    ratio = jnp.where((t == -jnp.inf) & (s == -jnp.inf), zero, ratio)
    near = jnp.abs(ratio) < 1
    difference = jnp.where(near, p * series(-jnp.where(near, ratio, zero), first=1), q - p)
    if beta is None:
        return p, q, jnp.where(p == 0, zero, p * (ratio - rows.kl[:, None])), difference
    to_p, p_value, _ = _log_mixture(p, difference, ratio, beta, 1 - beta)
    to_q, q_value, _ = _log_mixture(q, -difference, -ratio, 1 - beta, beta)
    return p, q, -to_p, -to_q, p_value + q_value
