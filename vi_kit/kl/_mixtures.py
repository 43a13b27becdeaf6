"""Divergences to a mixture of p and q: Jensen–Shannon and skew KL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

from vi_kit.kl._core import Axes, Parts, divergence, project, rows
from vi_kit.kl._inputs import fraction

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Bool, Float

    from vi_kit.kl._inputs import Axis


_OVERFLOW = 80.0  # e to it is a float32


def _slope(x: Array) -> Array:
    """Return log(1 + x)/x for x > −1: 1 at 0."""
    tiny = jnp.abs(x) < 1e-20
    safe = jnp.where(tiny, jnp.ones_like(x), x)
    return jnp.where(tiny, 1 - x / 2, jnp.log1p(safe) / safe)


def _curvature(x: Array) -> Array:
    """Return (x − log(1 + x))/x² for x > −1: ½ at 0."""
    small = jnp.abs(x) < 0.1
    near = jnp.where(small, x, jnp.zeros_like(x))
    last = 9 if x.dtype.itemsize <= 4 else 17
    series = jnp.full_like(x, 1 / last)
    for k in range(last - 1, 1, -1):
        series = 1 / k - near * series
    far = jnp.where(small, jnp.ones_like(x), x)
    return jnp.where(small, series, (far - jnp.log1p(far)) / (far * far))


def _log_mixture(p: Array, difference: Array, ratio: Array, share: Array, rest: Array) -> tuple[Array, Array, Array]:
    """Return p log(m/p)/rest, q − p less it, and m/p − 1, for m = share·p + rest·q and log p/q = ratio.

    The first vanishes with q − p and the second, which is never negative, with its square: both keep their digits.
    As rest goes to 0 the first goes to q − p.
    """
    relative = jnp.expm1(-jnp.maximum(ratio, -_OVERFLOW))  # q/p − 1
    u = rest * relative
    close = (jnp.abs(ratio) < 1) | (jnp.abs(u) < 0.5)
    near = jnp.where(close, u, jnp.zeros_like(u))
    bounded = jnp.where(close | (p == 0), jnp.zeros_like(ratio), ratio)
    some = jnp.where(rest == 0, jnp.ones_like(rest), rest)
    logarithm = jnp.logaddexp(jnp.broadcast_to(jnp.log(share), bounded.shape), jnp.log(some) - bounded)
    far = jnp.where(p > 0, p * logarithm / some, jnp.zeros_like(p))
    first = jnp.where(close, difference * _slope(near), far)
    return first, jnp.where(close, difference * near * _curvature(near), difference - far), u


def _jensen_shannon(parts: Parts, beta: Array, axes: Axes) -> tuple[Array, Array, Array]:
    """The divergence over β(1 − β); its slopes are those of β KL(p‖m) and (1 − β) KL(q‖m)."""
    ratio = parts.log_ratio
    to_p, p_value, _ = _log_mixture(parts.p, parts.difference, ratio, beta, 1 - beta)
    to_q, q_value, _ = _log_mixture(parts.q, -parts.difference, -ratio, 1 - beta, beta)
    value = jnp.sum(p_value + q_value, axis=axes, keepdims=True)
    return value, project(parts.p, -to_p, axes), project(parts.q, -to_q, axes)


def jensen_shannon(
    p_logits: Float[ArrayLike, "..."],
    q_logits: Float[ArrayLike, "..."],
    *,
    beta: Float[ArrayLike, ""] = 0.5,
    normalize: bool = False,
    axis: Axis = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    mask: Bool[ArrayLike, "..."] | None = None,
    temperature: Float[ArrayLike, "..."] = 1.0,
) -> Float[Array, "..."]:
    r"""Jensen–Shannon divergence: between mass-covering (β near 0) and mode-seeking (β near 1) in q.

    $$ JS_\beta = \beta\, KL(p \| m) + (1 - \beta)\, KL(q \| m), \quad m = \beta p + (1 - \beta) q $$

    For 0 < β < 1; by convention β = 0 is KL(p‖q) and β = 1 is KL(q‖p), to which the formula does not tend: it vanishes
    like β(1 − β). `normalize=True` divides by that, which makes it continuous in β, with those ends.
    Symmetric and at most log 2 for β = ½. Exact where p and q are close, and finite where both probabilities of a
    class underflow.

    Args:
        p_logits: logits of p (the teacher), any shape.
        q_logits: logits of q (the student).
        beta: the weight of p in the mixture, from 0 to 1; a scalar, may be traced.
        normalize: whether to divide by β(1 − β).
        axis: the class axis, or several.
        where: which classes exist.
        mask: which rows count; the others give 0 and gradient 0.
        temperature: divides both logits.

    Returns:
        The divergence in nats, one value a row.

    Raises:
        TypeError: as `categorical`.
        ValueError: as `categorical`, and for a concrete beta outside [0, 1]; a traced one gives NaN.

    Source:
        Rishabh Agarwal et al., "On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes",
        2024, https://arxiv.org/abs/2306.13649.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> p, q = jnp.array([0.0, 9.0]), jnp.array([9.0, 0.0])
        >>> print(f"{kl.jensen_shannon(p, q):.3f}, at most {jnp.log(2.0):.3f}")
        0.692, at most 0.693
    """
    given = rows(axis, where, mask, temperature, p_logits=p_logits, q_logits=q_logits)
    share = _share("beta", beta, given.p_logits)
    # JS_β(p, q) = JS_(1−β)(q, p): the side that may underflow is never the one that logarithms are taken of.
    flip, p, q = share > 0.5, given.p_logits, given.q_logits
    given = given._replace(p_logits=jnp.where(flip, q, p), q_logits=jnp.where(flip, p, q))
    values = divergence(_jensen_shannon, given, jnp.where(flip, 1 - share, share))
    if normalize:
        return values
    interior = share * (1 - share)
    return values * jnp.where((share == 0) | (share == 1), jnp.ones_like(share), interior).reshape((1,) * values.ndim)


def _skew(parts: Parts, alpha: Array, axes: Axes) -> tuple[Array, Array, Array]:
    """KL(p‖m) for m = αp + (1 − α)q, and its slopes p log(p/m) + α p (m − p)/m, (1 − α) q (m − p)/m."""
    p, q, difference = parts.p, parts.q, parts.difference
    rest = 1 - alpha
    first, second, u = _log_mixture(p, difference, parts.log_ratio, alpha, rest)
    value = rest * jnp.sum(second, axis=axes, keepdims=True)
    mixture = alpha * p + rest * q
    some = jnp.where(mixture == 0, jnp.ones_like(p), mixture)
    # p log(p/m) + αp (m − p)/m, and where the two nearly cancel, in terms of v = p/m − 1
    close = jnp.abs(u) < 0.3
    near = jnp.where(close, u, jnp.zeros_like(u))
    v = -near / (1 + near)
    to_p = jnp.where(close, p * v * (rest - v * _curvature(v)), -rest * first + alpha * rest * difference * (p / some))
    to_q = rest * difference * jnp.where(mixture == 0, jnp.ones_like(p), rest * q / some)
    return value, project(p, to_p, axes), project(q, to_q, axes)


def skew(
    p_logits: Float[ArrayLike, "..."],
    q_logits: Float[ArrayLike, "..."],
    *,
    alpha: Float[ArrayLike, ""] = 0.1,
    axis: Axis = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    mask: Bool[ArrayLike, "..."] | None = None,
    temperature: Float[ArrayLike, "..."] = 1.0,
) -> Float[Array, "..."]:
    r"""Skew KL from p to a mixture of p and q: finite for any q, mass-covering in q, mode-seeking in p.

    $$ SKL_\alpha = KL(p \,\|\, \alpha p + (1 - \alpha) q) $$

    KL(p‖q) at α = 0, at most −log α above. The skew reverse KL is the same function with the arguments swapped.

    Args:
        p_logits: logits of p, any shape.
        q_logits: logits of q.
        alpha: the weight of p in the mixture, from 0 to 1; a scalar, may be traced.
        axis: the class axis, or several.
        where: which classes exist.
        mask: which rows count; the others give 0 and gradient 0.
        temperature: divides both logits.

    Returns:
        The divergence in nats, one value a row.

    Raises:
        TypeError: as `categorical`.
        ValueError: as `categorical`, and for a concrete alpha outside [0, 1]; a traced one gives NaN.

    Source:
        Jongwoo Ko et al., "DistiLLM: Towards Streamlined Distillation for Large Language Models", 2024,
        https://arxiv.org/abs/2402.03898.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> p, q = jnp.array([0.0, 0.0]), jnp.array([0.0, -jnp.inf])
        >>> print(f"{kl.categorical(p, q)} {kl.skew(p, q):.4f}")
        inf 0.8304
    """
    given = rows(axis, where, mask, temperature, p_logits=p_logits, q_logits=q_logits)
    return divergence(_skew, given, _share("alpha", alpha, given.p_logits))


def _share(name: str, value: ArrayLike, logits: Array) -> Array:
    """Read a weight; one axis of length 1 for each of the logits'."""
    share = fraction(name, value).astype(logits.dtype)
    if share.ndim:
        raise ValueError(f"{name}: expected a scalar, got shape {share.shape}; use jax.vmap over several")
    return share.reshape((1,) * logits.ndim)
