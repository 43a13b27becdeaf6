"""Cross-entropy of logits against labels: class indices, or one weight a class."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from vi_kit.kl._core import log_normalizer, rows
from vi_kit.kl._inputs import is_traced

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Bool, Float, Int

    from vi_kit.kl._inputs import Axis


def label_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> Float[Array, "..."]:
    """Return −Σ label · log softmax(logits) for each row; integer labels are indices of the flattened class axes.

    A label of 0 adds nothing where its logit is −∞. Rows that do not count, or have no class, give 0.

    Raises:
        TypeError: for integer logits.
        ValueError: for shapes that do not fit, or a concrete class index out of range in a row that counts; a traced
            one gives NaN.
    """
    if jnp.issubdtype(jnp.asarray(labels).dtype, jnp.integer):
        return _index_cross_entropy(logits, labels, axis, where, mask)
    given = rows(axis, where, mask, logits=logits, labels=labels)
    largest, log_total = log_normalizer(given.p_logits, given.scale, given.axes)
    log_probs = given.p_logits - largest - log_total
    label = jnp.where(given.q_logits == -jnp.inf, jnp.zeros_like(log_probs), given.q_logits)  # no class there
    absent = (label == 0) & (log_probs == -jnp.inf)
    terms = label * jnp.where(absent, jnp.zeros_like(log_probs), log_probs)
    return given.finish(-jnp.sum(terms, axis=given.axes, keepdims=True))


def _index_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, axis: Axis, where: ArrayLike | None, mask: ArrayLike | None
) -> Float[Array, "..."]:
    given = rows(axis, where, mask, logits=logits)
    ndim = given.p_logits.ndim
    # A flat index counts the class axes in the order in which they were given.
    order = given.axes if isinstance(axis, int | np.integer) else tuple(a % ndim for a in axis)
    flat = jnp.moveaxis(given.p_logits, order, range(-len(order), 0))
    batch = flat.shape[: ndim - len(order)]
    flat = flat.reshape((*batch, math.prod(flat.shape[len(batch) :])))
    index, known = _class_index(labels, flat.shape, mask)
    largest, log_total = (jnp.squeeze(a, given.axes) for a in log_normalizer(given.p_logits, given.scale, given.axes))
    values = log_total - (jnp.take_along_axis(flat, index[..., None], axis=-1)[..., 0] - largest)
    values = jnp.where(known, values, jnp.full_like(values, jnp.nan))
    counts = jnp.any(flat != -jnp.inf, axis=-1)
    return jnp.where(counts if given.mask is None else counts & given.mask, values, jnp.zeros_like(values))


def _class_index(
    labels: ArrayLike, shape: tuple[int, ...], mask: ArrayLike | None
) -> tuple[Int[Array, "..."], Bool[Array, "..."]]:
    """Return indices that are in range, and which rows have one."""
    batch, classes = shape[:-1], shape[-1]
    sizes = zip(jnp.shape(labels)[::-1], batch[::-1], strict=False)
    if jnp.ndim(labels) > len(batch) or any(size not in (1, expected) for size, expected in sizes):
        raise ValueError(f"labels: expected one class index a row, of shape {batch}, got shape {jnp.shape(labels)}")
    if not is_traced(labels) and not is_traced(mask):
        concrete = np.broadcast_to(np.asarray(labels), batch)
        counts = np.broadcast_to(True if mask is None else np.asarray(mask) != 0, batch)
        wrong = ((concrete < 0) | (concrete >= classes)) & counts
        if wrong.any():
            raise ValueError(
                f"labels: expected class indices from 0 to {classes - 1} in rows that count, got {concrete[wrong][0]}"
            )
    index = jnp.broadcast_to(jnp.asarray(labels).astype(jnp.int32), batch)
    known = (index >= 0) & (index < classes)
    return jnp.where(known, index, jnp.zeros_like(index)), known
