"""KL between Gaussians whose covariances are low rank plus diagonal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from vi_kit.kl._compensated import expm1_minus
from vi_kit.kl._gaussian import events

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Bool, Float


def _product(x: Array, y: Array) -> Array:
    """Return xᵀy in full float32 (accelerators round matrix products otherwise)."""
    return jnp.matmul(jnp.swapaxes(x, -1, -2), y, precision=jax.lax.Precision.HIGHEST)


def _total(x: Array) -> Array:
    return jnp.sum(x, axis=(-2, -1))


def _plus_identity(x: Array, weights: Array | float = 1.0) -> Array:
    return x + jnp.broadcast_to(jnp.eye(x.shape[-1], dtype=x.dtype), x.shape) * weights


def _log_determinant(lower: Array) -> Array:
    return 2 * jnp.sum(jnp.log(jnp.diagonal(lower, axis1=-2, axis2=-1)), axis=-1)


def _log_determinant_in_scales(factor: Array, log_scale: Array) -> Array:
    """Return log det(I + SᵀS) with S = diag(e^{−log_scale}) F, whose columns may overflow: they are divided first."""
    top = jnp.max(-log_scale, axis=-1, keepdims=True, initial=0)  # of the logarithms of e^{−s}, or 0
    sizes = jnp.max(jnp.abs(factor * jnp.exp(-log_scale - top)[..., None]), axis=-2, initial=0)
    log_sizes = jax.lax.stop_gradient(jnp.maximum(jnp.log(sizes) + top, 0))
    # Only a column of zeros has such a scale left after the division.
    columns = factor * jnp.exp(jnp.minimum(-log_scale[..., None] - log_sizes[..., None, :], 80))
    lower = jnp.linalg.cholesky(_plus_identity(_product(columns, columns), jnp.exp(-2 * log_sizes)[..., None, :]))
    return _log_determinant(lower) + 2 * jnp.sum(log_sizes, axis=-1)


def excess(y: Array) -> Array:
    """Return tr Y − log det(I + Y) ≥ 0 of a symmetric Y without cancellation: the pivots of I + Y, less 1."""
    off_diagonal = jnp.tril(jnp.linalg.cholesky(_plus_identity(y)), -1)
    squares = jnp.sum(off_diagonal * off_diagonal, axis=-1)
    pivots = jnp.diagonal(y, axis1=-2, axis2=-1) - squares
    return jnp.sum(squares + expm1_minus(jnp.log1p(pivots)), axis=-1)


def multivariate_normal_low_rank(
    p_mean: Float[ArrayLike, "... dim"],
    p_factor: Float[ArrayLike, "... dim p_rank"],
    p_log_scale: Float[ArrayLike, "... dim"],
    q_mean: Float[ArrayLike, "... dim"],
    q_factor: Float[ArrayLike, "... dim q_rank"],
    q_log_scale: Float[ArrayLike, "... dim"],
    *,
    mask: Bool[ArrayLike, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""KL(p‖q) between multivariate normals with covariance F Fᵀ + diag(e^{2s}): mass-covering in q, mode-seeking in p.

    $$ KL = \tfrac12 \left[ \mathrm{tr}(\Sigma_q^{-1} \Sigma_p) - d + \log\frac{\det \Sigma_q}{\det \Sigma_p}
       + (m_p - m_q)^\top \Sigma_q^{-1} (m_p - m_q) \right], \quad \Sigma = F F^\top + \mathrm{diag}(e^{2s}) $$

    By the matrix determinant lemma and Woodbury's identity: three Cholesky factors of rank × rank, O(d r²) time,
    O(d r) memory, never an array of d × d. A factor with no columns is a diagonal Gaussian.

    Where factors and scales are close entry by entry (a copy that is being updated, a trust region), everything is
    computed from their differences: the value is right to 1e-5 of itself in float32, however close they are, the
    gradient to 3e-5 in norm, and both are 0 at equality. Two different factors with the same F Fᵀ are not seen to be
    equal: their KL is 0 up to an absolute 1e-7 or so times d. The scales of p may underflow (log-variances of −200),
    those of q must be above e^{−40}; where columns of q's F are multiples of each other, they must not exceed its
    diagonal part a thousandfold: NaN otherwise.

    Args:
        p_mean: mean of p, shape (…, d); the leading axes of all inputs broadcast.
        p_factor: F of p, shape (…, d, r); ranks may differ.
        p_log_scale: log standard deviations of p's diagonal part, shape (…, d).
        q_mean: mean of q.
        q_factor: F of q.
        q_log_scale: log standard deviations of q's diagonal part.
        mask: which events count, broadcasting to the result; the others give 0 and gradient 0, even if they hold NaN.

    Returns:
        KL in nats, one value an event: the leading shape.

    Raises:
        TypeError: for integer arrays.
        ValueError: for shapes that do not fit.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> mean, log_scale, factor = jnp.zeros(1000), jnp.zeros(1000), jnp.ones((1000, 1))
        >>> value = kl.multivariate_normal_low_rank(mean, factor, log_scale, mean, jnp.zeros((1000, 0)), log_scale)
        >>> print(f"{value:.2f}")  # (1000 − log 1001) / 2
        496.55
    """
    cores = {"p_mean": "d", "p_factor": "dr", "p_log_scale": "d", "q_mean": "d", "q_factor": "dr", "q_log_scale": "d"}
    p_mean, p_factor, p_log_scale, q_mean, q_factor, q_log_scale = events(
        cores,
        mask,
        p_mean=p_mean,
        p_factor=p_factor,
        p_log_scale=p_log_scale,
        q_mean=q_mean,
        q_factor=q_factor,
        q_log_scale=q_log_scale,
    )
    return low_rank(p_mean, p_factor, p_log_scale, q_mean, q_factor, q_log_scale, p_log_scale - q_log_scale)


def low_rank(
    p_mean: Array,
    p_factor: Array,
    p_log_scale: Array,
    q_mean: Array,
    q_factor: Array,
    q_log_scale: Array,
    log_ratio: Array,
) -> Array:
    """Return the KL of inputs of one batch shape, given p_log_scale − q_log_scale as well as it is known."""
    rank = max(p_factor.shape[-1], q_factor.shape[-1], 1)
    p_factor, q_factor = (jnp.pad(f, [(0, 0)] * (f.ndim - 1) + [(0, rank - f.shape[-1])]) for f in (p_factor, q_factor))
    # In units of q's diagonal part: Σ_q = I + BBᵀ, Σ_p = diag(e^g) + AAᵀ with A = B + H.
    precision = jnp.exp(-q_log_scale)[..., None]
    b, h, shift = q_factor * precision, (p_factor - q_factor) * precision, (p_mean - q_mean)[..., None] * precision
    gap = 2 * log_ratio
    lower = jnp.linalg.cholesky(_plus_identity(_product(b, b)))

    def whiten(x: Array) -> Array:
        return jax.lax.linalg.triangular_solve(lower, x, left_side=False, lower=True, transpose_a=True)

    v, n = whiten(b), whiten(h)  # Σ_q⁻¹ = I − VVᵀ
    # xᵀ Σ_q⁻¹ x as ‖Σ_q⁻¹x‖² + ‖BᵀΣ_q⁻¹x‖²: a difference would cancel along the columns of B.
    columns = jnp.concatenate([h, b + h, shift], axis=-1)
    inner = _product(v, columns)
    solved = columns - _product(jnp.swapaxes(v, -1, -2), inner)
    back = jax.lax.linalg.triangular_solve(lower, inner, left_side=True, lower=True, transpose_a=True)
    quadratic = jnp.sum(solved * solved, axis=-2) + jnp.sum(back * back, axis=-2)
    leverage = jnp.sum(v * v, axis=-1)
    shared = jnp.sum((1 - leverage) * expm1_minus(gap), axis=-1) + quadratic[..., -1]

    far = (
        jnp.sum(quadratic[..., rank:-1], axis=-1)
        - jnp.sum((1 + gap) * leverage, axis=-1)
        + _log_determinant(lower)
        - _log_determinant_in_scales(p_factor, p_log_scale)
    )

    # Near equality the terms of first order are gone by algebra: what is left is of second order in (g, H).
    close = (jnp.max(jnp.abs(gap), axis=-1, initial=0) <= 1) & (_total(n * n) <= 0.09)
    near_gap = jnp.where(jnp.broadcast_to(close[..., None], gap.shape), gap, jnp.zeros_like(gap))
    n = jnp.where(jnp.broadcast_to(close[..., None, None], n.shape), n, jnp.zeros_like(n))
    shrink = jnp.expm1(-near_gap)[..., None]
    cross = _product(v, n)
    y = cross + jnp.swapaxes(cross, -1, -2) + _product(n, n) + _product(v + n, shrink * (v + n))
    near = (
        jnp.sum(quadratic[..., :rank], axis=-1)
        - _total(n * n + shrink * (2 * v + n) * n)
        - jnp.sum(leverage * expm1_minus(-near_gap), axis=-1)
        + excess(y)
    )
    return 0.5 * (shared + jnp.where(close, near, far))
