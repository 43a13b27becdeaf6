"""Entropy and cross-entropy of categorical distributions, and the distance to the uniform one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from vi_kit.kl._categorical import evaluate
from vi_kit.kl._core import Axes, Parts, divergence, project, rows

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Bool, Float

    from vi_kit.kl._inputs import Axis


def _mean_surprise(parts: Parts, parameter: Any, axes: Axes) -> tuple[Array, Array, Array]:
    """The mean of −log q under p, p (−log q − that mean) and q − p; for q = p the entropy and its gradient."""
    surprise = parts.p * -jnp.where(parts.p > 0, parts.log_q, jnp.zeros_like(parts.p))
    value = jnp.sum(surprise, axis=axes, keepdims=True)
    value = jnp.where(jnp.isnan(parts.kl), parts.kl, value)
    return value, project(parts.p, surprise, axes), parts.difference


def entropy(
    logits: Float[ArrayLike, "..."],
    *,
    axis: Axis = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    mask: Bool[ArrayLike, "..."] | None = None,
    temperature: Float[ArrayLike, "..."] = 1.0,
) -> Float[Array, "..."]:
    r"""Entropy of a categorical distribution given by logits.

    $$ H = -\sum_i p_i \log p_i $$

    Args:
        logits: logits, any shape; −∞ is a class that is absent.
        axis: the class axis, or several.
        where: which classes exist.
        mask: which rows count; the others give 0 and gradient 0.
        temperature: divides the logits.

    Returns:
        Entropy in nats, one value a row, from 0 to the logarithm of the number of classes.

    Raises:
        TypeError: as `categorical`.
        ValueError: as `categorical`.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> print(f"{kl.entropy(jnp.zeros(8)):.4f}")
        2.0794
    """
    return divergence(_mean_surprise, rows(axis, where, mask, temperature, logits=logits))


def cross_entropy(
    p_logits: Float[ArrayLike, "..."],
    q_logits: Float[ArrayLike, "..."],
    *,
    axis: Axis = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    mask: Bool[ArrayLike, "..."] | None = None,
    temperature: Float[ArrayLike, "..."] = 1.0,
) -> Float[Array, "..."]:
    r"""Cross-entropy of q under p: what coding draws of p with q costs; KL(p‖q) = cross-entropy − entropy of p.

    $$ H(p, q) = -\sum_i p_i \log q_i $$

    Where p and q are close take `categorical`, not the difference of this and `entropy`, which has no digits left.

    Args:
        p_logits: logits of p, any shape.
        q_logits: logits of q.
        axis: the class axis, or several.
        where: which classes exist.
        mask: which rows count; the others give 0 and gradient 0.
        temperature: divides both logits.

    Returns:
        Cross-entropy in nats, one value a row; +∞ where q lacks a class of p.

    Raises:
        TypeError: as `categorical`.
        ValueError: as `categorical`.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> p, q = jnp.array([0.0, 1.0]), jnp.array([0.5, -0.5])
        >>> print(f"{kl.cross_entropy(p, q) - kl.entropy(p):.4f} {kl.categorical(p, q):.4f}")
        0.4621 0.4621
    """
    given = rows(axis, where, mask, temperature, p_logits=p_logits, q_logits=q_logits)
    return divergence(_mean_surprise, given)


def to_uniform(
    logits: Float[ArrayLike, "..."],
    *,
    axis: Axis = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    mask: Bool[ArrayLike, "..."] | None = None,
    temperature: Float[ArrayLike, "..."] = 1.0,
) -> Float[Array, "..."]:
    r"""KL(p‖uniform) of a categorical distribution given by logits, as for a discrete latent variable.

    $$ KL = \log K - H(p) $$

    K is the number of classes that exist: a class at −∞ counts, one that `where` excludes does not. Exact near
    uniformity, where $\log K - H$ would cancel.

    Args:
        logits: logits, any shape.
        axis: the class axis, or several.
        where: which classes exist.
        mask: which rows count; the others give 0 and gradient 0.
        temperature: divides the logits.

    Returns:
        KL in nats, one value a row, from 0 to log K.

    Raises:
        TypeError: as `categorical`.
        ValueError: as `categorical`.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> float(kl.to_uniform(jnp.zeros(10)))
        0.0
    """
    uniform = jnp.zeros_like(jnp.asarray(logits))
    return divergence(evaluate, rows(axis, where, mask, temperature, logits=logits, uniform=uniform))
