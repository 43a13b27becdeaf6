"""KL losses under optax's names and in its argument order (prediction first), to replace an import of `optax.losses`.

Values and gradients to logits are those of optax wherever optax is right. What is different on purpose: masked
classes, zero targets and nearly equal distributions give right values and no NaN gradient; distributions are
normalized again, so `where` enters the normalizer; class indices out of range are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

from vi_kit.kl._categorical import categorical_from_log_probs, evaluate, safe_log
from vi_kit.kl._compensated import expm1_minus
from vi_kit.kl._core import divergence, rows
from vi_kit.kl._inputs import booleans, in_range, is_traced
from vi_kit.kl._labels import label_cross_entropy
from vi_kit.kl._probabilities import probability_rows

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Bool, Float, Int

    from vi_kit.kl._inputs import Axis

__all__ = [
    "generalized_kl_divergence",
    "kl_divergence",
    "kl_divergence_with_log_targets",
    "safe_softmax_cross_entropy",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
]


def kl_divergence(
    log_predictions: Float[ArrayLike, "..."],
    targets: Float[ArrayLike, "..."],
    axis: Axis | None = -1,
    where: Bool[ArrayLike, "..."] | None = None,
) -> Float[Array, "..."]:
    """KL(targets‖predictions) from log probabilities of the prediction and probabilities of the target: mass-covering.

    In place of `optax.losses.kl_divergence`, with two deliberate differences. Both sides are normalized again:
    logits will do for `log_predictions`, the gradient to it is prediction − target in place of −target (the same
    once it has passed through `log_softmax`), and targets that do not sum to one are refused (NaN if traced; see
    `generalized_kl_divergence`). A target of 0 adds nothing, and no gradient, where optax's is NaN.

    Probabilities carry a rounding of 6e-8, which is 1e-5 of a KL of 1e-6 and 1e-3 of one of 1e-10; where the two are
    that close take log targets, which keep every digit.

    Args:
        log_predictions: log probabilities (or logits) of the prediction.
        targets: probabilities of the target.
        axis: the class axis, or several; None for all.
        where: which classes exist; a row with none gives 0.

    Returns:
        KL in nats, one value a row.

    Raises:
        TypeError: for integers.
        ValueError: for shapes that do not fit, or concrete targets that do not sum to one.

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit.kl as kl
        >>> one_hot = jnp.array([0.0, 1.0])
        >>> loss = lambda z: kl.losses.kl_divergence(jax.nn.log_softmax(z), one_hot)
        >>> print(f"{loss(jnp.zeros(2)):.4f}", jax.grad(loss)(jnp.zeros(2)))
        0.6931 [ 0.5 -0.5]
    """
    axis = _axes(axis, log_predictions)
    given = rows(axis, where, None, targets=targets, log_predictions=log_predictions)
    spread = targets if jnp.shape(targets) == given.p_logits.shape else jnp.broadcast_to(targets, given.p_logits.shape)
    checked, valid = probability_rows(axis, where, None, targets=spread)
    values = divergence(evaluate, given._replace(p_logits=safe_log(checked.p_logits)))
    return jnp.where(jnp.squeeze(valid, given.axes), values, jnp.full_like(values, jnp.nan))


def kl_divergence_with_log_targets(
    log_predictions: Float[ArrayLike, "..."],
    log_targets: Float[ArrayLike, "..."],
    axis: Axis | None = -1,
    where: Bool[ArrayLike, "..."] | None = None,
) -> Float[Array, "..."]:
    """KL(targets‖predictions) from log probabilities of both: mass-covering in the prediction.

    In place of `optax.losses.kl_divergence_with_log_targets`, with one deliberate difference: both sides are normalized
    again, so that logits will do and the gradient is the one along the simplex. Targets of −∞ add nothing.

    Args:
        log_predictions: log probabilities (or logits) of the prediction.
        log_targets: log probabilities (or logits) of the target.
        axis: the class axis, or several; None for all.
        where: which classes exist; a row with none gives 0.

    Returns:
        KL in nats, one value a row.

    Raises:
        TypeError: for integers.
        ValueError: for shapes that do not fit.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> log_targets = jnp.log(jnp.array([0.0, 1.0]))
        >>> print(f"{kl.losses.kl_divergence_with_log_targets(jnp.log(jnp.array([0.5, 0.5])), log_targets):.4f}")
        0.6931
    """
    return categorical_from_log_probs(log_targets, log_predictions, axis=_axes(axis, log_predictions), where=where)


def generalized_kl_divergence(
    log_predictions: Float[ArrayLike, "..."],
    targets: Float[ArrayLike, "..."],
    axis: Axis | None = -1,
    where: Bool[ArrayLike, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""Generalized KL between measures that need not sum to one: nothing is normalized.

    $$ \sum_i t_i \log\frac{t_i}{e^{l_i}} + e^{l_i} - t_i $$

    In place of `optax.losses.generalized_kl_divergence`, whose gradient is NaN at a target of 0; here that target adds
    the prediction $e^{l_i}$ and has gradient 0. Every term is nonnegative and keeps its digits near equality.

    Args:
        log_predictions: logarithms of the predicted measure.
        targets: the target measure, 0 or larger.
        axis: the axis, or several, to sum over; None for all.
        where: which entries exist.

    Returns:
        The divergence in nats, one value a row.

    Raises:
        TypeError: for integers.
        ValueError: for shapes that do not fit, or negative concrete targets (traced ones give NaN).

    Source:
        L. M. Bregman, The relaxation method of finding the common point of convex sets and its application to the
        solution of problems in convex programming, 1967.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> print(f"{kl.losses.generalized_kl_divergence(jnp.log(jnp.array([2.0])), jnp.array([1.0])):.4f}")
        0.3069
    """
    axis = _axes(axis, log_predictions)
    exists = True if where is None else where
    if not is_traced(targets) and not is_traced(exists):
        in_range("targets", jnp.where(booleans("where", exists), targets, 0), "numbers from 0 up", open_at_least=False)
    given = rows(axis, where, None, targets=targets, log_predictions=log_predictions)
    zero = jnp.zeros_like(given.p_logits)
    absent = given.p_logits == -jnp.inf  # written by `rows` where an entry does not exist
    t, s = jnp.where(absent, zero, given.p_logits), given.q_logits
    q = jnp.exp(s)
    close = (t > 0) & (jnp.abs(t - q) < 0.5 * q) & (q < jnp.inf)
    near = jnp.log1p(jnp.where(close, t - q, zero) / jnp.where(close, q, 1))
    apart = (t > 0) & ~close
    far = jnp.where(apart, safe_log(t) - s, zero)
    terms = jnp.where(close, t * expm1_minus(-near), q - t + t * far)
    terms = jnp.where(t >= 0, terms, jnp.full_like(t, jnp.nan))
    return given.finish(jnp.sum(terms, axis=given.axes, keepdims=True))


def softmax_cross_entropy(
    logits: Float[ArrayLike, "..."],
    labels: ArrayLike,
    axis: Axis | None = -1,
    where: Bool[ArrayLike, "..."] | None = None,
) -> Float[Array, "..."]:
    """Cross-entropy −Σ label · log softmax(logits) of one weight a class, which need not sum to one.

    In place of `optax.losses.softmax_cross_entropy`: the same, but a label of 0 adds nothing at a logit of −∞, where
    optax gives NaN.

    Args:
        logits: logits of the prediction.
        labels: weights of the classes, as one-hot rows or probabilities.
        axis: the class axis, or several; None for all.
        where: which classes exist, or which rows count (without the class axis); a row without classes gives 0.

    Returns:
        Cross-entropy in nats, one value a row.

    Raises:
        TypeError: for integer logits.
        ValueError: for shapes that do not fit.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> logits, one_hot = jnp.array([0.0, 0.0, -jnp.inf]), jnp.array([1.0, 0.0, 0.0])
        >>> print(f"{kl.losses.softmax_cross_entropy(logits, one_hot):.4f}")
        0.6931
    """
    axis = _axes(axis, logits)
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.floating):  # one-hot rows of integers or booleans are weights too
        labels = labels.astype(jnp.float32)
    return label_cross_entropy(logits, labels, axis=axis, where=_row_where(where, logits, axis))


def safe_softmax_cross_entropy(logits: Float[ArrayLike, "..."], labels: ArrayLike) -> Float[Array, "..."]:
    """`softmax_cross_entropy` over the last axis, in place of `optax.losses.safe_softmax_cross_entropy`.

    Args:
        logits: logits of the prediction.
        labels: weights of the classes.

    Returns:
        Cross-entropy in nats, one value a row.

    Raises:
        TypeError: for integer logits.
        ValueError: for shapes that do not fit.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> print(f"{kl.losses.safe_softmax_cross_entropy(jnp.zeros(4), jnp.array([0.0, 1.0, 0.0, 0.0])):.4f}")
        1.3863
    """
    return softmax_cross_entropy(logits, labels)


def softmax_cross_entropy_with_integer_labels(
    logits: Float[ArrayLike, "..."],
    labels: Int[ArrayLike, "..."],
    axis: Axis = -1,
    where: Bool[ArrayLike, "..."] | None = None,
) -> Float[Array, "..."]:
    """Cross-entropy −log softmax(logits)[label] of one class index a row.

    In place of `optax.losses.softmax_cross_entropy_with_integer_labels`, with one deliberate difference: an index out
    of range is refused (NaN if traced), where optax counts negative ones from the end.

    Args:
        logits: logits of the prediction.
        labels: class indices, one a row; of several class axes, indices of the flattened ones in the order given.
        axis: the class axis, or several.
        where: which classes exist, or which rows count (without the class axis); the others may hold any label.

    Returns:
        Cross-entropy in nats, one value a row.

    Raises:
        TypeError: for integer logits or labels that are not integers.
        ValueError: for shapes that do not fit, or a concrete label out of range in a row that counts.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> labels = jnp.array([1, -100])
        >>> losses = kl.losses.softmax_cross_entropy_with_integer_labels(jnp.zeros((2, 4)), labels, where=labels >= 0)
        >>> [f"{loss:.4f}" for loss in losses]
        ['1.3863', '0.0000']
    """
    if not jnp.issubdtype(jnp.asarray(labels).dtype, jnp.integer):
        raise TypeError(f"labels: expected integers, got {jnp.asarray(labels).dtype}")
    mask = where if where is not None and jnp.ndim(where) != jnp.ndim(logits) else None
    return label_cross_entropy(logits, labels, axis=axis, where=where if mask is None else None, mask=mask)


def _axes(axis: Axis | None, logits: ArrayLike) -> Axis:
    return tuple(range(jnp.ndim(logits))) if axis is None else axis


def _row_where(where: ArrayLike | None, logits: ArrayLike, axis: Axis) -> ArrayLike | None:
    """Put a mask of rows beside the classes, as optax does; one of classes stays what it is."""
    if where is None or jnp.ndim(where) == jnp.ndim(logits):
        return where
    return jnp.expand_dims(where, axis if isinstance(axis, int) else tuple(axis))
