"""Means and comoments of several columns, merged block by block without a second pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array


class Moments(NamedTuple):
    """Of columns (the first axis): how many rows, their mean, sums of products of deviations from it.

    Source:
        T. F. Chan, G. H. Golub and R. J. LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample
        Variances (1979), http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf
    """

    number: Array
    mean: Array
    comoment: Array


def moments(values: Array, counts: Array, axis: int) -> Moments:
    """Return the moments over an axis of values (columns, …) of the rows that count (…, broadcasting)."""
    counts = jnp.broadcast_to(counts[None], values.shape)[0]
    number = jnp.sum(counts, axis=axis, dtype=values.dtype)
    total = jnp.sum(jnp.where(counts[None], values, jnp.zeros_like(values)), axis=axis + 1)
    mean = total / jnp.maximum(number, 1)[None]
    deviation = jnp.where(counts[None], values - jnp.expand_dims(mean, axis + 1), jnp.zeros_like(values))
    comoment = jnp.sum(deviation[:, None] * deviation[None, :], axis=axis + 2)
    return Moments(number, mean, comoment)


def merged(a: Moments, b: Moments) -> Moments:
    """Return the moments of all rows of both."""
    number = a.number + b.number
    share = b.number / jnp.maximum(number, 1)
    change = b.mean - a.mean
    # An infinite mean stays infinite: the difference of two would be NaN.
    mean = jnp.where(
        jnp.isfinite(a.mean), a.mean + change * share, a.mean + jnp.where(b.number == 0, 0 * b.mean, b.mean)
    )
    mean = jnp.where(b.number == 0, a.mean, jnp.where(a.number == 0, b.mean, mean))
    between = change[:, None] * change[None, :] * (a.number * share)
    between = jnp.where((a.number == 0) | (b.number == 0), jnp.zeros_like(between), between)
    return Moments(number, mean, a.comoment + b.comoment + between)


def no_rows(columns: int, shape: tuple[int, ...], dtype: Any) -> Moments:
    """Return the moments of nothing."""
    zeros = [jnp.zeros((columns,) * n + shape, dtype) for n in range(3)]
    return Moments(*zeros)
