"""KL between categorical distributions."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from vi_kit.kl._compensated import log_ratio
from vi_kit.kl._core import Axes, Parts, center, compare, divergence, rows
from vi_kit.kl._inputs import broadcast_shapes, floats
from vi_kit.kl._probabilities import probability_rows

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Bool, Float

    from vi_kit.kl._inputs import Axis


def evaluate(parts: Parts, parameter: Any, axes: Axes) -> tuple[Array, Array, Array]:
    """KL(p‖q), p (log p/q − KL) and q − p."""
    return parts.kl, center(parts.p, parts.p * parts.gap, axes), parts.difference


def categorical(
    p_logits: Float[ArrayLike, "..."],
    q_logits: Float[ArrayLike, "..."],
    *,
    axis: Axis = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    mask: Bool[ArrayLike, "..."] | None = None,
    temperature: Float[ArrayLike, "..."] = 1.0,
) -> Float[Array, "..."]:
    r"""KL(p‖q) between categorical distributions given by logits: mass-covering in q, mode-seeking in p.

    $$ KL = \sum_i p_i \log\frac{p_i}{q_i}, \quad p = \mathrm{softmax}(t / T), \quad q = \mathrm{softmax}(s / T) $$

    Right to 1e-5 of its value in float32 for up to 128 256 classes, however close p and q are, and never negative:
    the logits are subtracted before anything else. The gradients $p (\log(p/q) - KL)$ and $q - p$ are formed
    the same way. Half precision is computed, and returned, in float32.

    A class at −∞ is absent: where p lacks it, it adds nothing (nor a gradient to that logit of p). Where q lacks a
    class that p has, KL is +∞; the gradient to q's logits is then q − p still, and the one to p's logits +∞ at those
    classes, −∞ at the others. A probability too small for the dtype counts as 0.

    Args:
        p_logits: logits of p, any shape; they need not be normalized.
        q_logits: logits of q, same number of classes; the other axes broadcast.
        axis: the class axis, or several.
        where: which classes exist, broadcasting to the logits; the others may hold anything. A row with none gives 0.
        mask: which rows count, broadcasting to the result; the others give 0 and gradient 0, even if they hold NaN.
        temperature: divides both logits; positive, a scalar or one a row.

    Returns:
        KL in nats, one value a row: the shape without the class axes.

    Raises:
        TypeError: for logits of integers, a mask of floats.
        ValueError: for different numbers of classes or none, shapes that do not broadcast, a temperature not above 0
            (a traced one gives NaN).

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> p, q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
        >>> print(f"{kl.categorical(p, q):.4f}")
        0.1438
    """
    return divergence(evaluate, rows(axis, where, mask, temperature, p_logits=p_logits, q_logits=q_logits))


def categorical_from_log_probs(
    log_p: Float[ArrayLike, "..."],
    log_q: Float[ArrayLike, "..."],
    *,
    axis: Axis = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    mask: Bool[ArrayLike, "..."] | None = None,
    temperature: Float[ArrayLike, "..."] = 1.0,
) -> Float[Array, "..."]:
    r"""KL(p‖q) between categorical distributions given by log probabilities: mass-covering in q, mode-seeking in p.

    The same as `categorical`, since log probabilities are logits. They are normalized again, so that the rounding of
    their sum (1e-7) does not drown a smaller KL; gradients are those along the simplex.

    Args:
        log_p: log probabilities of p.
        log_q: log probabilities of q.
        axis: the class axis, or several.
        where: which classes exist.
        mask: which rows count.
        temperature: divides both.

    Returns:
        KL in nats, one value a row.

    Raises:
        TypeError: as `categorical`.
        ValueError: as `categorical`.

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit.kl as kl
        >>> log_p = jax.nn.log_softmax(jnp.array([0.0, 1.0, 2.0]))
        >>> float(kl.categorical_from_log_probs(log_p, log_p))
        0.0
    """
    return divergence(evaluate, rows(axis, where, mask, temperature, log_p=log_p, log_q=log_q))


def categorical_from_probs(
    p: Float[ArrayLike, "..."],
    q: Float[ArrayLike, "..."],
    *,
    axis: Axis = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    mask: Bool[ArrayLike, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""KL(p‖q) between categorical distributions given by probabilities: mass-covering in q, mode-seeking in p.

    $$ KL = \sum_i p_i \log\frac{p_i}{q_i} $$

    Exact near equality, where $\log(p/q)$ is formed from $(p - q)/q$. Prefer logits where you have them: a probability
    below the dtype's smallest number is lost. Rows are normalized again, so that the rounding of their sum does not
    drown a small KL; a row further than `check_probabilities` allows from a sum of one is refused if concrete, NaN if
    traced. Gradients are those along the simplex: $(\log(p/q) - KL)$ to p, 0 at a zero of p, and $1 - p/q$ to q, −∞
    at a zero of q that p does not share.

    Args:
        p: probabilities, any shape.
        q: probabilities, same number of classes; the other axes broadcast.
        axis: the class axis, or several.
        where: which classes exist; the others may hold anything.
        mask: which rows count; the others give 0 and gradient 0.

    Returns:
        KL in nats, one value a row.

    Raises:
        TypeError: as `categorical`.
        ValueError: as `categorical`, and for concrete rows that are negative or do not sum to one.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> print(f"{kl.categorical_from_probs(jnp.array([1.0, 0.0]), jnp.array([0.5, 0.5])):.4f}")
        0.6931
    """
    given, valid = probability_rows(axis, where, mask, p=p, q=q)
    values = _from_probs(given.axes, given.p_logits, given.q_logits)
    return given.finish(jnp.where(valid, values, jnp.full_like(values, jnp.nan)))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _from_probs(axes: Axes, p: Array, q: Array) -> Array:
    return _compare_probs(axes, p, q).kl


def _compare_probs(axes: Axes, p: Array, q: Array) -> Parts:
    both = (p > 0) & (q > 0)
    one = jnp.ones_like(p)
    difference = jnp.where(both, log_ratio(jnp.where(both, p, one), jnp.where(both, q, one)), safe_log(p) - safe_log(q))
    return compare(safe_log(p), safe_log(q), difference, jnp.ones((1,) * p.ndim, p.dtype), axes)


def safe_log(p: Array) -> Array:
    """Return log p; −∞ at 0, with gradient 0 there."""
    positive = p > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, p, jnp.ones_like(p))), jnp.full_like(p, -jnp.inf))


@_from_probs.defjvp
def _from_probs_jvp(axes: Axes, primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """Take the gradients to the logits, divided by the probabilities; along the rows' totals there is none."""
    p, q = primals
    parts = _compare_probs(axes, p, q)
    _, slope, _ = evaluate(parts, (), axes)
    total = jnp.sum(q, axis=axes, keepdims=True)
    one = jnp.ones_like(p)
    to_p = jnp.where(p > 0, slope / jnp.where(p > 0, p, one), jnp.zeros_like(p))
    # (q − p)/q: 1 where p is 0, −∞ where only q is.
    ratio = parts.difference / jnp.where(q > 0, q / total, one)
    only_p = jnp.where(parts.p > 0, jnp.full_like(p, -jnp.inf), one)
    to_q = jnp.where(q > 0, ratio, only_p) / total
    return parts.kl, jnp.sum(to_p * tangents[0] + to_q * tangents[1], axis=axes, keepdims=True)


def bernoulli(
    p_logits: Float[ArrayLike, "..."],
    q_logits: Float[ArrayLike, "..."],
    *,
    mask: Bool[ArrayLike, "..."] | None = None,
    temperature: Float[ArrayLike, "..."] = 1.0,
) -> Float[Array, "..."]:
    r"""KL(p‖q) between Bernoulli distributions given by logits, elementwise: mass-covering in q, mode-seeking in p.

    $$ KL = \sigma(t)\,(\log\sigma(t) - \log\sigma(s)) + \sigma(-t)\,(\log\sigma(-t) - \log\sigma(-s)) $$

    The two-class case of `categorical`, exact near equality. A logit of ±∞ is a sure outcome.

    Args:
        p_logits: log odds under p, any shape.
        q_logits: log odds under q.
        mask: which elements count; the others give 0 and gradient 0.
        temperature: divides both logits.

    Returns:
        KL in nats, one value an element.

    Raises:
        TypeError: as `categorical`.
        ValueError: as `categorical`.

    Example:
        >>> import vi_kit.kl as kl
        >>> print(f"{kl.bernoulli(0.0, 1.0):.4f}")
        0.1201
    """
    p, q = floats(p_logits=p_logits, q_logits=q_logits)
    shape = broadcast_shapes(p_logits=p.shape, q_logits=q.shape)
    pairs = []
    for logits in (p, q):
        logits = jnp.broadcast_to(logits, shape)
        sure, other = jnp.isinf(logits), jnp.zeros_like(logits)
        # log odds ±∞: the other outcome is absent
        yes = jnp.where(sure, jnp.where(logits > 0, other, jnp.full_like(logits, -jnp.inf)), logits)
        no = jnp.where(sure & (logits > 0), jnp.full_like(logits, -jnp.inf), other)
        pairs.append(jnp.stack([yes, no], axis=-1))
    return divergence(evaluate, rows(-1, None, mask, temperature, p_logits=pairs[0], q_logits=pairs[1]))
