"""Distillation: a student's logits against a teacher's, and against labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import jax
import jax.numpy as jnp

from vi_kit.kl._categorical import categorical
from vi_kit.kl._core import row_shape
from vi_kit.kl._inputs import Axis, booleans, floats, fraction
from vi_kit.kl._labels import label_cross_entropy
from vi_kit.kl._reduce import Reduction, over_rows, reduce

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Float


class Divergence(Protocol):
    """What `distillation_loss` calls: (teacher, student), one value a row."""

    def __call__(
        self,
        p_logits: ArrayLike,
        q_logits: ArrayLike,
        /,
        *,
        axis: Axis,
        where: ArrayLike | None,
        mask: ArrayLike | None,
        temperature: ArrayLike,
    ) -> Float[Array, "..."]:
        """Return the divergence of each row."""


def forward(
    p_logits: ArrayLike,
    q_logits: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> Float[Array, "..."]:
    """KL(p‖q), target first: mass-covering, q is drawn to all that p does. The same as `categorical`.

    Args:
        p_logits: logits of the target (the teacher).
        q_logits: logits of the model (the student).
        axis: the class axis, or several.
        where: which classes exist.
        mask: which rows count.
        temperature: divides both logits.

    Returns:
        KL(p‖q) in nats, one value a row.

    Raises:
        TypeError: as `categorical`.
        ValueError: as `categorical`.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> teacher, student = jnp.array([2.0, 2.0, -4.0]), jnp.array([2.0, -4.0, -4.0])
        >>> bool(kl.forward(teacher, student) > kl.reverse(teacher, student))  # the student misses a mode
        True
    """
    return categorical(p_logits, q_logits, axis=axis, where=where, mask=mask, temperature=temperature)


def reverse(
    p_logits: ArrayLike,
    q_logits: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> Float[Array, "..."]:
    """KL(q‖p), target first: mode-seeking, q avoids what p does not do. `categorical` with its arguments swapped.

    Args:
        p_logits: logits of the target (the teacher).
        q_logits: logits of the model (the student).
        axis: the class axis, or several.
        where: which classes exist.
        mask: which rows count.
        temperature: divides both logits.

    Returns:
        KL(q‖p) in nats, one value a row.

    Raises:
        TypeError: as `categorical`.
        ValueError: as `categorical`.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> teacher, student = jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0])
        >>> bool(kl.reverse(teacher, student) == kl.forward(student, teacher))
        True
    """
    return categorical(q_logits, p_logits, axis=axis, where=where, mask=mask, temperature=temperature)


def distillation_loss(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    divergence: Divergence = forward,
    temperature: ArrayLike = 1.0,
    scale_by_temperature_squared: bool = True,
    label_weight: ArrayLike | None = None,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: ArrayLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Float[Array, "..."]:
    r"""Loss of a student against a teacher's distribution, mixed with the cross-entropy of labels where given.

    $$ (1 - w)\, T^2\, D(\mathrm{teacher} / T, \mathrm{student} / T) + w\, H(\mathrm{labels}, \mathrm{student}) $$

    The gradient of D shrinks as 1/T², so T² keeps its size, and with it the balance against the labels, whatever the
    temperature. The teacher is a constant: no gradient reaches its logits; to train both, call the divergence itself.

    Args:
        student_logits: logits of the student, any shape with a class axis.
        teacher_logits: logits of the teacher, same number of classes; the other axes broadcast.
        labels: integers, one class index a row, or floats, one probability a class (label smoothing).
        divergence: function of (teacher_logits, student_logits) that takes `axis`, `where`, `mask` and `temperature`:
            `kl.forward` = KL(teacher‖student), mass-covering; `kl.reverse` = KL(student‖teacher), mode-seeking;
            `kl.jensen_shannon`, `kl.skew`, with settings `functools.partial(kl.jensen_shannon, beta=0.1)`.
        temperature: T > 0, divides both logits in the divergence; a scalar or one a row.
        scale_by_temperature_squared: whether the divergence is multiplied by T².
        label_weight: w from 0 to 1, one half where labels are given; a part of weight 0 adds nothing.
        axis: the class axis, or several.
        where: which classes exist, for the labels too.
        mask: which rows count; the others may hold anything, also labels such as −100.
        weights: weights of the rows, see `reduce`.
        reduction: "mean" over rows that count, "sum" or "none", see `reduce`.
        normalizer: what the mean divides by, see `reduce`.
        axis_name: mapped axes to reduce over, see `reduce`.

    Returns:
        The loss in nats, one number; with "none" one a row.

    Raises:
        TypeError: for integer logits, or a divergence that is not a function.
        ValueError: for shapes that do not fit, numbers out of range, class indices out of range in rows that count
            (traced ones give NaN), or a label weight without labels.

    Source:
        G. Hinton, O. Vinyals, J. Dean, Distilling the Knowledge in a Neural Network, 2015,
        https://arxiv.org/abs/1503.02531

    Example:
        >>> import functools, jax.numpy as jnp, vi_kit.kl as kl
        >>> student, teacher = jnp.array([[0.0, 1.0], [2.0, 0.0]]), jnp.array([[0.0, 1.0], [0.0, 2.0]])
        >>> labels = jnp.array([1, -100])
        >>> loss = kl.distillation_loss(student, teacher, labels=labels, mask=labels != -100, temperature=2.0)
        >>> print(f"{loss:.4f}")  # half the cross-entropy of the first row, which agrees with its teacher
        0.1566
        >>> mixture = functools.partial(kl.jensen_shannon, beta=0.1)
        >>> bool(kl.distillation_loss(student, teacher, divergence=mixture) > 0)
        True
    """
    if not callable(divergence):
        raise TypeError(f"divergence: expected a function such as kl.forward or kl.reverse, got {divergence!r}")
    if labels is None and label_weight is not None:
        raise ValueError("labels: expected with label_weight, got None")
    student, teacher = floats(student_logits=student_logits, teacher_logits=teacher_logits)
    teacher = jax.lax.stop_gradient(teacher)
    shape, axes = row_shape(axis, {"teacher_logits": teacher, "student_logits": student})
    rows = tuple(n for i, n in enumerate(shape) if i not in axes)
    values = divergence(teacher, student, axis=axis, where=where, mask=mask, temperature=temperature)
    if values.shape != rows:
        raise ValueError(f"divergence: expected one value a row, of shape {rows}, got shape {values.shape}")
    if scale_by_temperature_squared:
        (heat,) = floats(temperature=temperature)
        heat = over_rows("temperature", heat.astype(values.dtype), rows)
        if mask is not None:  # a row that does not count may have any temperature
            heat = jnp.where(over_rows("mask", booleans("mask", mask), rows), heat, jnp.ones_like(heat))
        values *= heat * heat
    if labels is not None:
        weight = fraction("label_weight", 0.5 if label_weight is None else label_weight).astype(values.dtype)
        weight = over_rows("label_weight", weight, rows)
        student = jnp.broadcast_to(student, shape)
        hard = label_cross_entropy(student, labels, axis=axis, where=where, mask=mask)
        if hard.shape != rows:
            raise ValueError(f"labels: expected one probability a class, of shape {shape}, got {jnp.shape(labels)}")
        # 0·∞ is NaN: a part of weight 0 is left out.
        soft = jnp.where(weight == 1, jnp.zeros_like(values), values)
        hard = jnp.where(weight == 0, jnp.zeros_like(hard), hard)
        values = (1 - weight) * soft + weight * hard
    return reduce(values, mask=mask, weights=weights, reduction=reduction, normalizer=normalizer, axis_name=axis_name)
