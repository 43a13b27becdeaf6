"""KL to a model from a teacher of which only the k largest probabilities were kept."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit.kl._categorical import categorical
from vi_kit.kl._inputs import booleans, broadcast_shapes, class_axes, floats, is_traced
from vi_kit.kl._reduce import over_rows

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Bool, Float, Int

    Logits = Float[Array, "... classes"]
    Tail = Callable[[Logits, Logits, Float[Array, "... 1"], Float[Array, "... 1"]], tuple[Logits, Logits]]


def bucket(
    p_top: Logits, q_top: Logits, p_rest: Float[Array, "... 1"], q_rest: Float[Array, "... 1"]
) -> tuple[Logits, Logits]:
    """Keep the tail of `top_k` as one class more: a lower bound of the full KL.

    Args:
        p_top: log probabilities of p on its k largest classes; −∞ where a class is absent.
        q_top: logits of q there.
        p_rest: log probability of all other classes together; −∞ where there are none.
        q_rest: the same of q, on the scale of its logits.

    Returns:
        Logits of p and of q over k + 1 classes.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> top, rest = jnp.log(jnp.array([0.5, 0.3])), jnp.log(jnp.array([0.2]))
        >>> p_logits, q_logits = kl.bucket(top, top, rest, rest)
        >>> p_logits.shape
        (3,)
    """
    return jnp.concatenate([p_top, p_rest], axis=-1), jnp.concatenate([q_top, q_rest], axis=-1)


def renormalize(
    p_top: Logits, q_top: Logits, p_rest: Float[Array, "... 1"], q_rest: Float[Array, "... 1"]
) -> tuple[Logits, Logits]:
    """Leave the tail of `top_k` out and compare what is left: blind to mass that q puts outside of the k classes.

    Args:
        p_top: log probabilities of p on its k largest classes; −∞ where a class is absent.
        q_top: logits of q there.
        p_rest: not used.
        q_rest: not used.

    Returns:
        Logits of p and of q over k classes.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> top, rest = jnp.log(jnp.array([0.5, 0.3])), jnp.log(jnp.array([0.2]))
        >>> p_logits, q_logits = kl.renormalize(top, top, rest, rest)
        >>> p_logits.shape
        (2,)
    """
    return p_top, q_top


def top_k(
    p_top_log_probs: Float[ArrayLike, "... k"],
    p_top_indices: Int[ArrayLike, "... k"],
    q_logits: Float[ArrayLike, "... classes"],
    *,
    tail: Tail = bucket,
    axis: int = -1,
    where: Bool[ArrayLike, "... classes"] | None = None,
    mask: Bool[ArrayLike, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""KL(p‖q) where of p only the k most probable classes are known: mass-covering in q.

    $$ \sum_{i=1}^k p_i \log\frac{p_i}{q_i} + p_0 \log\frac{p_0}{q_0}, \quad p_0 = 1 - \sum_{i=1}^k p_i $$

    With the default tail this is a lower bound of the full KL (merging classes never adds information), equal to it
    where k is the number of classes. It is never negative, as a plain sum over the k classes can be. The tail of p is
    a difference from 1 with an error of 1e-7: of a KL of 1e-4 that is 1e-5, of one of 1e-9 a hundredth. Renormalized
    log probabilities keep every digit, however close p and q are.

    There is no temperature, because the tail of a tempered p is not known from k probabilities: give log
    probabilities taken at temperature T with `q_logits / T`.

    Args:
        p_top_log_probs: log probabilities of p's k largest classes, normalized over all classes. Rounding may take
            their sum above 1 (by 1e-3, in half precision by 8 times its epsilon); nothing is left for the tail then.
        p_top_indices: their class indices, all different. An entry of log probability −∞ with an index out of range is
            padding.
        q_logits: logits of q over all classes; they need not be normalized. The other axes broadcast.
        tail: what becomes of the other classes: `kl.bucket`, `kl.renormalize` or a function like these.
        axis: the class axis, of all three arrays.
        where: which classes exist, broadcasting to `q_logits`; p loses the others and is normalized again.
        mask: which rows count; the others give 0 and gradient 0, whatever they hold.

    Returns:
        KL in nats, one value a row: the shape without the class axis.

    Raises:
        TypeError: for integer logits or indices that are not integers.
        ValueError: for shapes that do not fit, k of 0 or above the number of classes; for concrete indices that are
            out of range or repeated, or concrete probabilities that sum to more than 1, in rows that count (traced ones
            give NaN).

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit.kl as kl
        >>> teacher, student = jnp.array([3.0, 1.0, 0.0, -1.0]), jnp.array([1.0, 2.0, 0.0, 0.0])
        >>> log_probs, indices = jax.lax.top_k(jax.nn.log_softmax(teacher), 2)
        >>> bucket = kl.top_k(log_probs, indices, student)
        >>> print(f"{bucket:.3f} of {kl.categorical(teacher, student):.3f}")
        0.837 of 0.843
    """
    dtype = jnp.asarray(p_top_log_probs).dtype
    p, q = floats(p_top_log_probs=p_top_log_probs, q_logits=q_logits)
    index = jnp.asarray(p_top_indices)
    if not jnp.issubdtype(index.dtype, jnp.integer):
        raise TypeError(f"p_top_indices: expected integers, got {index.dtype}")
    axis = class_axes(axis, q.ndim)[0] - q.ndim
    exists = booleans("where", True if where is None else where)
    if broadcast_shapes(where=exists.shape, q_logits=q.shape) != q.shape:
        raise ValueError(f"where: expected a shape that broadcasts to the logits {q.shape}, got {exists.shape}")
    exists = jnp.broadcast_to(exists, q.shape)
    if min(p.ndim, index.ndim) < -axis:
        raise ValueError(f"p_top_log_probs: expected the class axis {axis}, got shapes {p.shape} and {index.shape}")
    p, index, q, exists = (jnp.moveaxis(a, axis, -1) for a in (p, index, q, exists))
    k, classes = p.shape[-1], q.shape[-1]
    if index.shape[-1] != k:
        raise ValueError(f"p_top_indices: expected {k} along the class axis, got {index.shape[-1]}")
    if not 0 < k <= classes:
        raise ValueError(f"p_top_log_probs: expected 1 to {classes} classes, as q_logits has, got {k}")
    batch = broadcast_shapes(p_top_log_probs=p.shape[:-1], p_top_indices=index.shape[:-1], q_logits=q.shape[:-1])
    p, index = jnp.broadcast_to(p, (*batch, k)), jnp.broadcast_to(index, (*batch, k))
    q, exists = jnp.broadcast_to(q, (*batch, classes)), jnp.broadcast_to(exists, (*batch, classes))
    index = index.astype(jnp.int64 if index.dtype.itemsize == 8 else jnp.int32)
    if mask is not None:
        counts = over_rows("mask", booleans("mask", mask), batch)[..., None]
        p = jnp.where(counts, p, jnp.full_like(p, -np.log(2 * k)))
        index = jnp.where(counts, index, jnp.broadcast_to(jnp.arange(k, dtype=index.dtype), index.shape))
        q = jnp.where(counts, q, jnp.zeros_like(q))
    tolerance = 8 * float(jnp.finfo(dtype).eps) if dtype.itemsize < 4 else 1e-3  # type: ignore[no-untyped-call]
    if any(map(is_traced, (p_top_log_probs, p_top_indices, mask))):
        wrong = functools.reduce(jnp.logical_or, _problems(jnp, p, index, classes, tolerance).values())
        p = jnp.where(wrong, jnp.full_like(p, jnp.nan), p)
    else:
        given = np.asarray(p_top_log_probs), np.asarray(p_top_indices).astype(np.int64)
        concrete_p, concrete_index = np.broadcast_arrays(*(np.moveaxis(a, axis, -1) for a in given))
        for message, found in _problems(np, concrete_p, concrete_index, classes, tolerance).items():
            if np.any(found[..., 0] & (True if mask is None else np.asarray(mask) != 0)):
                raise ValueError(message)
    inside = (index >= 0) & (index < classes)
    here = jnp.where(inside, index, jnp.zeros_like(index))
    known = inside & jnp.take_along_axis(exists, here, axis=-1)
    absent = jnp.full_like(p, -jnp.inf)
    p_top = jnp.where(known, p, absent)
    q_top = jnp.where(known, jnp.take_along_axis(q, here, axis=-1), absent)
    # q's tail is summed, not 1 − Σ, which would lose it where q is sure.
    rest = jnp.where(exists, q, jnp.full_like(q, -jnp.inf))
    outside = jnp.where(inside, index, jnp.full_like(index, classes))
    rest = jnp.put_along_axis(rest, outside, jnp.full_like(p, -jnp.inf), axis=-1, inplace=False, mode="drop")
    left = jnp.sum(exists, axis=-1, keepdims=True) > jnp.sum(known, axis=-1, keepdims=True)
    total = _log_sum(p)
    some = total < 0
    p_rest = jnp.log(-jnp.expm1(jnp.where(some, total, -jnp.ones_like(total))))
    p_rest = jnp.where(left & some, p_rest, jnp.full_like(p_rest, -jnp.inf))
    return categorical(*tail(p_top, q_top, p_rest, _log_sum(rest)), mask=mask)


def _log_sum(logits: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return log Σ exp over the last axis, kept; −∞ with gradient 0 where all are −∞."""
    some = jnp.max(logits, axis=-1, keepdims=True) != -jnp.inf
    total = jax.nn.logsumexp(jnp.where(some, logits, jnp.zeros_like(logits)), axis=-1, keepdims=True)
    return jnp.where(some, total, jnp.full_like(total, -jnp.inf))


def _problems(xp: Any, p: Any, index: Any, classes: int, tolerance: float) -> dict[str, Any]:
    """Return what keeps rows from being a top k, with the rows of which it holds."""
    inside = (index >= 0) & (index < classes)
    # Padding gets indices of its own, so that only real ones can be equal.
    own = xp.broadcast_to(xp.arange(classes, classes + index.shape[-1]), index.shape)
    ordered = xp.sort(xp.where(inside, index, own.astype(index.dtype)), axis=-1)
    total = xp.sum(xp.exp(xp.minimum(p.astype(xp.float32), 1)), axis=-1, keepdims=True)
    return {
        f"p_top_indices: expected class indices from 0 to {classes - 1}, got others": xp.any(
            ~inside & (p > -xp.inf), axis=-1, keepdims=True
        ),
        "p_top_indices: expected different classes in a row, got one twice": xp.any(
            ordered[..., 1:] == ordered[..., :-1], axis=-1, keepdims=True
        ),
        f"p_top_log_probs: expected probabilities whose sum is at most 1 (within {tolerance:.2g}), got more": (
            total > 1 + tolerance
        ),
    }
