"""Symmetric divergences between categorical distributions: Jeffreys' and total variation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from vi_kit.kl._categorical import categorical
from vi_kit.kl._core import Axes, Parts, divergence, rows
from vi_kit.kl._inputs import floats

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Bool, Float

    from vi_kit.kl._inputs import Axis


def jeffreys(
    p_logits: Float[ArrayLike, "..."],
    q_logits: Float[ArrayLike, "..."],
    *,
    axis: Axis = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    mask: Bool[ArrayLike, "..."] | None = None,
    temperature: Float[ArrayLike, "..."] = 1.0,
) -> Float[Array, "..."]:
    r"""Jeffreys' divergence, KL(p‖q) + KL(q‖p): covers the mass and seeks the mode at once.

    $$ J = \sum_i (p_i - q_i) \log\frac{p_i}{q_i} $$

    Args:
        p_logits: logits of p, any shape.
        q_logits: logits of q.
        axis: the class axis, or several.
        where: which classes exist.
        mask: which rows count; the others give 0 and gradient 0.
        temperature: divides both logits.

    Returns:
        The sum of both KL divergences (not their mean) in nats, one value a row.

    Raises:
        TypeError: as `categorical`.
        ValueError: as `categorical`.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> p, q = jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0])
        >>> print(f"{kl.jeffreys(p, q):.4f}")
        0.9242
    """
    options: dict[str, Any] = {"axis": axis, "where": where, "mask": mask, "temperature": temperature}
    p, q = floats(p_logits=p_logits, q_logits=q_logits)  # first, so that both gradients are added in float32
    return categorical(p, q, **options) + categorical(q, p, **options)


def _total_variation(parts: Parts, parameter: Any, axes: Axes) -> tuple[Array, Array, Array]:
    value = 0.5 * jnp.sum(jnp.abs(parts.difference), axis=axes, keepdims=True)
    above = parts.difference > 0
    below = parts.difference < 0

    def slope(p: Array) -> Array:
        """Return p (sign − E_p[sign])/2 without subtracting nearly equal numbers."""
        masses = [jnp.sum(jnp.where(x, p, jnp.zeros_like(p)), axis=axes, keepdims=True) for x in (above, below)]
        even = jnp.sum(jnp.where(above | below, jnp.zeros_like(p), p), axis=axes, keepdims=True)
        up, down = even / 2 + masses[1], even / 2 + masses[0]
        return p * jnp.where(above, up, jnp.where(below, -down, (masses[1] - masses[0]) / 2))

    return value, -slope(parts.p), slope(parts.q)


def total_variation(
    p_logits: Float[ArrayLike, "..."],
    q_logits: Float[ArrayLike, "..."],
    *,
    axis: Axis = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    mask: Bool[ArrayLike, "..."] | None = None,
    temperature: Float[ArrayLike, "..."] = 1.0,
) -> Float[Array, "..."]:
    r"""Total variation distance between categorical distributions given by logits.

    $$ TV = \tfrac12 \sum_i |p_i - q_i| \le \sqrt{KL / 2} $$

    The largest difference of the two probabilities of an event, from 0 to 1. Not differentiable where a probability
    is the same in both; there the gradient is that of the other classes.

    Args:
        p_logits: logits of p, any shape.
        q_logits: logits of q.
        axis: the class axis, or several.
        where: which classes exist.
        mask: which rows count; the others give 0 and gradient 0.
        temperature: divides both logits.

    Returns:
        The distance, one value a row; a probability, not nats.

    Raises:
        TypeError: as `categorical`.
        ValueError: as `categorical`.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> print(f"{kl.total_variation(jnp.array([0.0, 0.0]), jnp.array([0.0, -jnp.inf])):.2f}")
        0.50
    """
    return divergence(_total_variation, rows(axis, where, mask, temperature, p_logits=p_logits, q_logits=q_logits))
