"""Rényi and alpha divergences between categorical distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

from vi_kit.kl._categorical import safe_log
from vi_kit.kl._compensated import expm1_minus
from vi_kit.kl._core import Axes, Parts, divergence, rows
from vi_kit.kl._inputs import in_range

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Bool, Float

    from vi_kit.kl._inputs import Axis


def _relative_expm1(x: Array) -> Array:
    """Return (exp(x) − 1)/x: 1 at 0."""
    tiny = jnp.abs(x) < 1e-20
    safe = jnp.where(tiny, jnp.ones_like(x), x)
    return jnp.where(tiny, 1 + x / 2, jnp.expm1(safe) / safe)


def _log1p_over(x: Array, divisor: Array) -> Array:
    """Return log(1 + x)/divisor; 0 where the divisor is 0."""
    zero = divisor == 0
    return jnp.where(zero, jnp.zeros_like(x), jnp.log1p(x) / jnp.where(zero, jnp.ones_like(divisor), divisor))


def _renyi(parts: Parts, order: Array, axes: Axes) -> tuple[Array, Array, Array]:
    """D = log(1 + Σ p (exp(x) − 1 − x) + (α − 1) KL)/(α − 1) for x = (α − 1) log p/q: terms of one sign, and KL.

    The gradients are α (r − p)/(α − 1) and q − r, with r = p exp((α − 1)(log p/q − D)) the geometric mixture.
    """
    p, zero = parts.p, jnp.zeros_like(parts.p)
    excess = order - 1
    ratio = parts.log_ratio
    log_p = safe_log(p)
    power = jnp.where((p > 0) & (ratio < jnp.inf), excess * jnp.where(p > 0, ratio, zero), zero)
    bounded = jnp.abs(power) < 20
    far_terms = jnp.where(bounded, zero, jnp.exp(jnp.minimum(log_p + power, 60.0)) - p * (1 + power))
    terms = jnp.where(bounded, p * expm1_minus(jnp.where(bounded, power, zero)), far_terms)
    finite_kl = jnp.where(parts.kl < jnp.inf, parts.kl, jnp.zeros_like(parts.kl))
    total = jnp.sum(terms, axis=axes, keepdims=True) + excess * finite_kl  # Σ p^α q^(1−α) − 1
    fits = (jnp.abs(total) < 0.5) & (parts.kl < jnp.inf) & (excess != 0)
    near = _log1p_over(jnp.where(fits, total, jnp.zeros_like(total)), excess)
    near = jnp.where(excess == 0, parts.kl, near)
    fits = fits | (excess == 0)
    # Where that is large or a class is missing: the logarithm of Σ p exp((α − 1) log p/q) itself.
    missing = jnp.any((p > 0) & (ratio == jnp.inf), axis=axes, keepdims=True)
    infinite = missing & (excess >= 0)
    counts = (p > 0) & (ratio < jnp.inf) & ~fits
    exponents = jnp.where(counts, log_p + excess * jnp.where(counts, ratio, zero), jnp.full_like(p, -jnp.inf))
    largest = jnp.max(exponents, axis=axes, keepdims=True)
    largest = jnp.where(largest == -jnp.inf, jnp.zeros_like(largest), largest)
    sums = jnp.sum(jnp.exp(exponents - largest), axis=axes, keepdims=True)
    some = sums > 0
    safe = jnp.where(excess == 0, jnp.ones_like(excess), excess)
    far = (largest + jnp.log(jnp.where(some, sums, jnp.ones_like(sums)))) / safe
    far = jnp.where(some, far, jnp.full_like(far, jnp.inf))
    value = jnp.where(fits, near, jnp.where(infinite, jnp.full_like(far, jnp.inf), far))
    value = jnp.where(jnp.isnan(parts.kl + order), jnp.full_like(value, jnp.nan), value)

    finite = jnp.isfinite(ratio) & (value < jnp.inf)
    rest = jnp.where(finite, ratio, zero) - jnp.where(value < jnp.inf, value, jnp.zeros_like(value))
    moved = jnp.where(finite, excess * rest, jnp.full_like(p, -jnp.inf))
    close = jnp.abs(moved) < 1
    slope = jnp.where(
        close,
        p * jnp.where(close, rest, zero) * _relative_expm1(jnp.where(close, moved, zero)),
        (jnp.where(p > 0, jnp.exp(log_p + moved), zero) - p) / safe,
    )
    outward = jnp.where(ratio == jnp.inf, jnp.full_like(p, jnp.inf), jnp.full_like(p, -jnp.inf))
    to_p = jnp.where(value == jnp.inf, jnp.where(p > 0, outward, zero), order * slope)
    to_q = parts.difference - jnp.where(value == jnp.inf, zero, excess * slope)
    rest = jnp.where(value == jnp.inf, zero, to_p)  # adds up to 0 but for rounding, as in `project`
    to_p = jnp.where(value == jnp.inf, to_p, rest - p * jnp.sum(rest, axis=axes, keepdims=True))
    return value, to_p, to_q


def _alpha_divergence(parts: Parts, order: Array, axes: Axes) -> tuple[Array, Array, Array]:
    """A = (exp((α − 1) D) − 1)/(α (α − 1)) of the Rényi divergence D, and D's gradients times exp((α − 1) D)/α."""
    value, to_p, to_q = _renyi(parts, order, axes)
    excess, infinite = order - 1, value == jnp.inf
    safe = jnp.where(infinite, jnp.zeros_like(value), value)
    # Orders below 1 are bounded by 1/(α(1 − α)), where p and q have no class in common.
    below = excess < 0
    bound = jnp.where(below, -1 / (order * jnp.where(below, excess, -jnp.ones_like(excess))), jnp.inf)
    power = excess * safe
    large = power > 80  # more than float32 holds
    factor = jnp.exp(jnp.where(large, jnp.zeros_like(power), power)) / order
    factor = jnp.where(infinite & below, jnp.zeros_like(factor), factor)

    def scaled(gradient: Array) -> Array:
        finite = jnp.where(jnp.isfinite(gradient), gradient, jnp.zeros_like(gradient)) * factor
        endless = jnp.where(gradient == 0, gradient, jnp.sign(gradient) * jnp.inf)
        return jnp.where(large | (infinite & ~below), endless, finite)

    alpha = safe * _relative_expm1(jnp.where(large, jnp.zeros_like(power), power)) / order
    alpha = jnp.where(large, jnp.full_like(alpha, jnp.inf), alpha)
    return jnp.where(infinite, bound, alpha), scaled(to_p), scaled(to_q)


def _order(alpha: ArrayLike, logits: Array) -> Array:
    """Read an order; one axis of length 1 for each of the logits'."""
    order = in_range("alpha", alpha, "a finite number above 0", most=1e30, open_at_least=True).astype(logits.dtype)
    if order.ndim:
        raise ValueError(f"alpha: expected a scalar, got shape {order.shape}; use jax.vmap over several")
    return order.reshape((1,) * logits.ndim)


def renyi(
    p_logits: Float[ArrayLike, "..."],
    q_logits: Float[ArrayLike, "..."],
    *,
    alpha: Float[ArrayLike, ""],
    axis: Axis = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    mask: Bool[ArrayLike, "..."] | None = None,
    temperature: Float[ArrayLike, "..."] = 1.0,
) -> Float[Array, "..."]:
    r"""Rényi divergence of order α between categorical distributions given by logits.

    $$ D_\alpha(p \| q) = \frac{1}{\alpha - 1} \log \sum_i p_i^\alpha q_i^{1 - \alpha} $$

    KL(p‖q) at α = 1, and increasing in α: orders above 1 cover the mass more strictly in q, orders below 1 less, and
    are finite where q lacks a class of p. Exact where p and q are close; one to two digits are lost at α = 0.1.

    Args:
        p_logits: logits of p, any shape.
        q_logits: logits of q.
        alpha: the order, above 0; a scalar, may be traced.
        axis: the class axis, or several.
        where: which classes exist.
        mask: which rows count; the others give 0 and gradient 0.
        temperature: divides both logits.

    Returns:
        The divergence in nats, one value a row.

    Raises:
        TypeError: as `categorical`.
        ValueError: as `categorical`, and for a concrete alpha not above 0; a traced one gives NaN.

    Source:
        Tim van Erven and Peter Harremoës, "Rényi Divergence and Kullback-Leibler Divergence", 2014,
        https://arxiv.org/abs/1206.2459.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> p, q = jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0])
        >>> print(f"{kl.renyi(p, q, alpha=0.5):.4f} {kl.renyi(p, q, alpha=1.0):.4f} {kl.categorical(p, q):.4f}")
        0.2402 0.4621 0.4621
    """
    given = rows(axis, where, mask, temperature, p_logits=p_logits, q_logits=q_logits)
    return divergence(_renyi, given, _order(alpha, given.p_logits))


def alpha_divergence(
    p_logits: Float[ArrayLike, "..."],
    q_logits: Float[ArrayLike, "..."],
    *,
    alpha: Float[ArrayLike, ""],
    axis: Axis = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    mask: Bool[ArrayLike, "..."] | None = None,
    temperature: Float[ArrayLike, "..."] = 1.0,
) -> Float[Array, "..."]:
    r"""Alpha divergence between categorical distributions given by logits.

    $$ A_\alpha(p \| q) = \frac{\sum_i p_i^\alpha q_i^{1 - \alpha} - 1}{\alpha (\alpha - 1)} $$

    KL(p‖q) at α = 1 (mass-covering in q) and tends to KL(q‖p) as α goes to 0 (mode-seeking). At most 1/(α(1 − α)) below
    1; +∞ in float32 where (α − 1) D exceeds 80, D the Rényi divergence.

    Args:
        p_logits: logits of p, any shape.
        q_logits: logits of q.
        alpha: the order, above 0; a scalar, may be traced.
        axis: the class axis, or several.
        where: which classes exist.
        mask: which rows count; the others give 0 and gradient 0.
        temperature: divides both logits.

    Returns:
        The divergence, one value a row.

    Raises:
        TypeError: as `categorical`.
        ValueError: as `renyi`.

    Source:
        Tom Minka, "Divergence measures and message passing", 2005,
        https://www.microsoft.com/en-us/research/publication/divergence-measures-and-message-passing/.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> p, q = jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0])
        >>> print(f"{kl.alpha_divergence(p, q, alpha=0.5):.4f}")
        0.4527
    """
    given = rows(axis, where, mask, temperature, p_logits=p_logits, q_logits=q_logits)
    return divergence(_alpha_divergence, given, _order(alpha, given.p_logits))
