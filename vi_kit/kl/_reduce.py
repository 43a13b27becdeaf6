"""From one value a row to one number, over masked rows, micro-batches and devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit.kl._inputs import booleans, broadcast_shapes, floats, in_range

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Float

Reduction = Literal["mean", "sum", "none"]


def reduce(
    values: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: ArrayLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Float[Array, "..."]:
    r"""Reduce one value a row to one number: the weighted mean over the rows that count.

    $$ \text{mean} = \frac{\sum_i w_i v_i}{\sum_i w_i}, \qquad w_i = 0 \text{ where the mask is False} $$

    The mean is over rows, never over classes. Where no row counts it is 0, not 0/0; that is the only case in which
    the denominator is not the one above. Rows that do not count may hold NaN or infinity: their value and gradient
    are 0. What computed them cannot be mended from here, so give the same mask to the divergence as well.

    Args:
        values: one value a row, any shape.
        mask: rows that count, broadcast to the shape of `values`.
        weights: weights of the rows, 0 or larger, broadcast to the shape of `values`; 1 where not given.
        reduction: "mean", "sum" (of w·v), or "none" (w·v for each row).
        normalizer: with "mean", what the sum is divided by in place of Σ w: the total over all micro-batches and
            devices. Means of micro-batches taken with it add up to the mean of the whole batch.
        axis_name: mapped axis or axes of `jax.shard_map`, `jax.vmap` or `jax.pmap` over which the sums are taken too.
            A gradient taken inside `jax.shard_map` is that of the whole mean; inside `jax.vmap` and `jax.pmap` the
            caller averages it over the axis (`jax.lax.pmean`), as after every collective sum there.

    Returns:
        One number in the unit of `values` (nats), or with "none" one a row; float32 at least.

    Raises:
        TypeError: for integer values or a mask of floats.
        ValueError: for an unknown reduction, shapes that do not fit, negative concrete weights or normalizer (traced
            ones give NaN), or an argument that the reduction does not use.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> values, mask = jnp.array([1.0, 2.0, jnp.nan]), jnp.array([True, True, False])
        >>> float(kl.reduce(values, mask=mask))
        1.5
        >>> float(kl.reduce(values, mask=mask, normalizer=6))  # a third of a batch with six rows that count
        0.5
    """
    if reduction not in get_args(Reduction):
        raise ValueError(f'reduction: expected "mean", "sum" or "none", got {reduction!r}')
    if normalizer is not None and reduction != "mean":
        raise ValueError(f'normalizer: expected only with reduction "mean", got it with {reduction!r}')
    if axis_name is not None and reduction == "none":
        raise ValueError('axis_name: expected only with reduction "mean" or "sum", got it with "none"')
    (values,) = floats(values=values)
    weight = jnp.ones_like(values)
    if weights is not None:
        weight = over_rows("weights", _nonnegative("weights", weights, values.dtype), values.shape)
    if mask is not None:
        weight = jnp.where(over_rows("mask", booleans("mask", mask), values.shape), weight, jnp.zeros_like(weight))
    # 0·NaN is NaN: a row of weight 0 is 0. Its finite value is kept, since the gradient in the weight needs it.
    values = jnp.where((weight == 0) & ~jnp.isfinite(values), jnp.zeros_like(values), values)
    weighted = weight * values
    if reduction == "none":
        return weighted
    total, count = jnp.sum(weighted), jnp.sum(weight)
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)  # type: ignore[no-untyped-call]
    if reduction == "sum":
        return total
    empty = count == 0
    if normalizer is not None:
        count = _nonnegative("normalizer", normalizer, values.dtype)
        if count.ndim:
            raise ValueError(f"normalizer: expected one number, got shape {count.shape}")
    return jnp.where(empty, jnp.zeros_like(total), total) / jnp.where(empty, jnp.ones_like(count), count)


def _nonnegative(name: str, value: ArrayLike, dtype: np.dtype) -> Float[Array, "..."]:
    """Return finite numbers from 0 up in this dtype; counts and booleans are welcome."""
    if not jnp.issubdtype(jnp.asarray(value).dtype, jnp.floating):
        value = value.astype(dtype) if isinstance(value, jax.core.Tracer) else np.asarray(value).astype(dtype)
    most = float(np.finfo(np.float32).max)
    return in_range(name, value, "finite numbers from 0 up", most=most, open_at_least=False).astype(dtype)


def over_rows(name: str, array: Array, shape: tuple[int, ...]) -> Array:
    """Broadcast what belongs to the rows to their shape."""
    if broadcast_shapes(**{name: array.shape, "rows": shape}) != shape:
        raise ValueError(f"{name}: expected a shape that broadcasts to {shape}, got {array.shape}")
    return jnp.broadcast_to(array, shape)
