"""KL between Gaussians, given as arrays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit.kl._compensated import expm1_minus, log_ratio
from vi_kit.kl._inputs import booleans, broadcast_shapes, floats

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Bool, Float


def elementwise(mask: ArrayLike | None = None, **named: ArrayLike) -> list[Array]:
    """Bring inputs to one floating dtype and one shape; all are 0 where the mask is False."""
    return events(dict.fromkeys(named, ""), mask, **named)


def events(cores: dict[str, str], mask: ArrayLike | None, **named: ArrayLike) -> list[Array]:
    """Bring inputs with event axes to one floating dtype and one batch shape.

    Args:
        cores: the event axes of each input, a letter each: those called `d` have the size of p_mean's last.
        mask: which events count; the others become 0, or the identity for a square core.
        **named: the inputs.

    Raises:
        ValueError: where event axes do not fit, or batch axes do not broadcast.
    """
    arrays = dict(zip(named, floats(**named), strict=True))
    kept = {} if mask is None else {"mask": booleans("mask", mask)}
    first = next(iter(arrays.values())).shape
    for name, array in arrays.items():
        sizes = array.shape[max(array.ndim - len(cores[name]), 0) :]
        if len(sizes) < len(cores[name]) or any(
            letter == "d" and size != first[-1] for letter, size in zip(cores[name], sizes, strict=True)
        ):
            dims = ", ".join(str(first[-1]) if letter == "d" and first else letter for letter in cores[name])
            raise ValueError(
                f"{name}: expected shape (…, {dims}) beside {next(iter(arrays))} of shape {first}, got {array.shape}"
            )
    batches = {name: array.shape[: array.ndim - len(cores[name])] for name, array in arrays.items()}
    batch = broadcast_shapes(**batches, **{name: m.shape for name, m in kept.items()})
    found = []
    for name, array in arrays.items():
        core = array.shape[array.ndim - len(cores[name]) :]
        value = jnp.broadcast_to(array, batch + core)
        if kept:
            keep = jnp.broadcast_to(kept["mask"], batch).reshape(batch + (1,) * len(core))
            neutral = jnp.eye(core[0], dtype=value.dtype) if cores[name] == "dd" else jnp.zeros(core, value.dtype)
            value = jnp.where(jnp.broadcast_to(keep, value.shape), value, jnp.broadcast_to(neutral, value.shape))
        found.append(value)
    return found


def normal(
    p_mean: Float[ArrayLike, "..."],
    p_log_scale: Float[ArrayLike, "..."],
    q_mean: Float[ArrayLike, "..."] = 0.0,
    q_log_scale: Float[ArrayLike, "..."] = 0.0,
    *,
    mask: Bool[ArrayLike, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""KL(p‖q) between normals, elementwise: mass-covering in q, mode-seeking in p.

    $$ KL = \tfrac12 \left[ e^{2a} - 1 - 2a + (m_p - m_q)^2 e^{-2 s_q} \right], \quad a = s_p - s_q $$

    Exact near equality and finite where a scale underflows, because scales enter by their logarithm: a model that
    gives log-variances halves them.

    Args:
        p_mean: means of p, any shape; all inputs broadcast.
        p_log_scale: log standard deviations of p.
        q_mean: means of q.
        q_log_scale: log standard deviations of q.
        mask: which elements count; the others give 0 and gradient 0, even if they hold NaN.

    Returns:
        KL in nats, one value an element: sum over the axis of the latents for a diagonal Gaussian.

    Raises:
        TypeError: for integer arrays.
        ValueError: for shapes that do not broadcast.

    Example:
        >>> import vi_kit.kl as kl
        >>> float(kl.normal(1.0, 0.0))
        0.5
    """
    p_mean, p_log_scale, q_mean, q_log_scale = elementwise(
        mask, p_mean=p_mean, p_log_scale=p_log_scale, q_mean=q_mean, q_log_scale=q_log_scale
    )
    difference = p_mean - q_mean
    # Where q is so narrow that 1/scale overflows, equal means are still no distance apart: 0, not 0·∞.
    overflows = -q_log_scale > math.log(float(np.finfo(q_log_scale.dtype).max))
    difference *= jnp.exp(-jnp.where(overflows & (difference == 0), jnp.zeros_like(q_log_scale), q_log_scale))
    return 0.5 * (expm1_minus(2 * (p_log_scale - q_log_scale)) + difference * difference)


@jax.custom_jvp
def _solve(lower: Array, right: Array) -> Array:
    """Solve lower · x = right."""
    return jax.lax.linalg.triangular_solve(lower, right, left_side=True, lower=True)


@_solve.defjvp
def _solve_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """Solve once for the tangents of both sides, where JAX's own rule solves for each."""
    lower, solved = primals[0], _solve(*primals)
    moved = jnp.matmul(jnp.tril(tangents[0]), solved, precision=jax.lax.Precision.HIGHEST)
    return solved, _solve(lower, tangents[1] - moved)


def multivariate_normal(
    p_mean: Float[ArrayLike, "... dim"],
    p_scale_tril: Float[ArrayLike, "... dim dim"],
    q_mean: Float[ArrayLike, "... dim"],
    q_scale_tril: Float[ArrayLike, "... dim dim"],
    *,
    mask: Bool[ArrayLike, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""KL(p‖q) between multivariate normals given by lower Cholesky factors: mass-covering in q, mode-seeking in p.

    $$ KL = \tfrac12 \left[ \|M\|_F^2 - d - 2 \sum_i \log M_{ii} + \|L_q^{-1}(m_p - m_q)\|^2 \right],
       \quad M = L_q^{-1} L_p $$

    One triangular solve, no inverse; exact near equality. Entries above the diagonals are not read.

    Args:
        p_mean: mean of p, shape (…, dim); the leading axes of all inputs broadcast.
        p_scale_tril: lower Cholesky factor of p's covariance, positive diagonal, shape (…, dim, dim).
        q_mean: mean of q.
        q_scale_tril: lower Cholesky factor of q's covariance, positive diagonal.
        mask: which events count, broadcasting to the result; the others give 0 and gradient 0, even if they hold NaN.

    Returns:
        KL in nats, one value an event: the leading shape. NaN where a diagonal is not positive or a number not finite.

    Raises:
        TypeError: for integer arrays.
        ValueError: for shapes that do not fit.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> float(kl.multivariate_normal(jnp.ones(2), jnp.eye(2), jnp.zeros(2), jnp.eye(2)))
        1.0
    """
    cores = {"p_mean": "d", "p_scale_tril": "dd", "q_mean": "d", "q_scale_tril": "dd"}
    p_mean, p_scale_tril, q_mean, q_scale_tril = events(
        cores, mask, p_mean=p_mean, p_scale_tril=p_scale_tril, q_mean=q_mean, q_scale_tril=q_scale_tril
    )
    # M − I is solved for, not M: near equality its entries keep their digits.
    p_lower, q_lower = jnp.tril(p_scale_tril), jnp.tril(q_scale_tril)
    right = jnp.concatenate([p_lower - q_lower, (p_mean - q_mean)[..., None]], axis=-1)
    solved = _solve(q_lower, right)
    off_diagonal, shift = jnp.tril(solved[..., :-1], -1), solved[..., -1]
    diagonals = [jnp.diagonal(lower, axis1=-2, axis2=-1) for lower in (p_lower, q_lower)]
    terms = expm1_minus(2 * log_ratio(*diagonals)) + jnp.sum(off_diagonal * off_diagonal, axis=-1) + shift * shift
    values = 0.5 * jnp.sum(terms, axis=-1)
    valid = jnp.all((diagonals[0] >= 0) & (diagonals[1] > 0), axis=-1)
    # What is not finite on either side is not in the difference. (XLA's largest entry may pass over NaN on CPUs.)
    valid &= jnp.sum(0 * right, axis=(-2, -1)) == 0
    return jnp.where(valid, values, jnp.full_like(values, jnp.nan))
