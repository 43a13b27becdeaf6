"""KL between Gaussians, given as arrays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit.kl._compensated import expm1_minus, log_ratio

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Float


def _floats(*values: ArrayLike) -> list[Array]:
    """Bring inputs to one floating dtype, at least float32."""
    arrays = [jnp.asarray(value) for value in values]
    floating = [a.dtype for a in arrays if jnp.issubdtype(a.dtype, jnp.floating) and not a.weak_type]
    with jax.numpy_dtype_promotion("standard"):  # half precision is brought up, where promotion is strict too
        dtype = jnp.result_type(*floating, jnp.float32) if floating else jnp.result_type(float)
    return [a.astype(dtype) for a in arrays]


def normal(
    p_mean: ArrayLike, p_log_scale: ArrayLike, q_mean: ArrayLike = 0.0, q_log_scale: ArrayLike = 0.0
) -> Float[Array, "..."]:
    r"""KL(p‖q) between normals, elementwise.

    $$ KL = \tfrac12 \left[ e^{2a} - 1 - 2a + (m_p - m_q)^2 e^{-2 s_q} \right], \quad a = s_p - s_q $$

    Exact near equality and finite where a scale underflows, because scales enter by their logarithm.

    Args:
        p_mean: means of p, any shape.
        p_log_scale: log standard deviations of p.
        q_mean: means of q.
        q_log_scale: log standard deviations of q.

    Returns:
        KL in nats, one value an element: sum over the axis of the latents for a diagonal Gaussian.

    Example:
        >>> import vi_kit.kl as kl
        >>> float(kl.normal(1.0, 0.0))
        0.5
    """
    p_mean, p_log_scale, q_mean, q_log_scale = _floats(p_mean, p_log_scale, q_mean, q_log_scale)
    difference = p_mean - q_mean
    # Where q is so narrow that 1/scale overflows, equal means are still no distance apart: 0, not 0·∞.
    overflows = -q_log_scale > math.log(float(np.finfo(q_log_scale.dtype).max))
    difference *= jnp.exp(-jnp.where(overflows & (difference == 0), jnp.zeros_like(q_log_scale), q_log_scale))
    return 0.5 * (expm1_minus(2 * (p_log_scale - q_log_scale)) + difference * difference)


def multivariate_normal(
    p_mean: Float[Array, " dim"],
    p_scale_tril: Float[Array, "dim dim"],
    q_mean: Float[Array, " dim"],
    q_scale_tril: Float[Array, "dim dim"],
) -> Float[Array, ""]:
    r"""KL(p‖q) between multivariate normals given by lower Cholesky factors.

    $$ KL = \tfrac12 \left[ \|M\|_F^2 - d - 2 \sum_i \log M_{ii} + \|L_q^{-1}(m_p - m_q)\|^2 \right],
       \quad M = L_q^{-1} L_p $$

    One triangular solve, no inverse; exact near equality. One event: use `jax.vmap` for batches.

    Args:
        p_mean: mean of p.
        p_scale_tril: lower Cholesky factor of p's covariance, positive diagonal.
        q_mean: mean of q.
        q_scale_tril: lower Cholesky factor of q's covariance, positive diagonal.

    Returns:
        KL in nats.

    Raises:
        ValueError: when the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> float(kl.multivariate_normal(jnp.ones(2), jnp.eye(2), jnp.zeros(2), jnp.eye(2)))
        1.0
    """
    p_mean, p_scale_tril, q_mean, q_scale_tril = _floats(p_mean, p_scale_tril, q_mean, q_scale_tril)
    dim = p_mean.shape[-1] if p_mean.ndim == 1 else -1
    named = {"p_scale_tril": p_scale_tril, "q_mean": q_mean, "q_scale_tril": q_scale_tril}
    for name, array in named.items():
        expected = (dim,) if name == "q_mean" else (dim, dim)
        if dim < 0 or array.shape != expected:
            raise ValueError(
                f"{name}: expected shape {expected} beside p_mean of shape {p_mean.shape}, got {array.shape}"
            )
    # M − I is solved for, not M: near equality its entries keep their digits.
    p_lower, q_lower = jnp.tril(p_scale_tril), jnp.tril(q_scale_tril)
    rest = jax.scipy.linalg.solve_triangular(q_lower, p_lower - q_lower, lower=True)
    log_diagonal = log_ratio(jnp.diagonal(p_lower), jnp.diagonal(q_lower))
    shift = jax.scipy.linalg.solve_triangular(q_lower, p_mean - q_mean, lower=True)
    off_diagonal = jnp.sum(jnp.square(jnp.tril(rest, -1)))
    return 0.5 * (jnp.sum(expm1_minus(2 * log_diagonal)) + off_diagonal + jnp.sum(shift * shift))
