"""KL between Gaussians: scalars, vectors (dense, low rank) and matrices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vi_kit import kl
from vi_kit.divergences.distributions import (
    Independent,
    MatrixNormal,
    MultivariateNormal,
    MultivariateNormalLowRank,
    Normal,
)
from vi_kit.kl._compensated import expm1_minus, log_ratio
from vi_kit.kl._low_rank import low_rank as kl_low_rank


def normal_normal(p: Normal, q: Normal) -> Array:
    """Return KL between normals."""
    shift = (p.loc - q.loc) / q.scale
    return 0.5 * (_scale_term(p.scale, q.scale) + shift * shift)


@jax.custom_jvp
def _scale_term(p: Array, q: Array) -> Array:
    """Return r² − 1 − log r² ≥ 0 of r = p/q without cancellation: with u = (r − 1)/(r + 1), log r² = 4 artanh u."""
    gap = p - q
    relative, u = gap / q, gap / (p + q)
    square = u * u
    series = jnp.zeros_like(u)  # (artanh u − u) / u³
    for k in reversed(range(8 if u.dtype.itemsize > 4 else 3)):
        series = 1 / (2 * k + 3) + square * series
    near = relative * relative * (2 - u) - 4 * (u * square) * series
    far = relative * (2 + relative) - 4 * jnp.log(jnp.sqrt(p) / jnp.sqrt(q))  # the ratio itself may overflow
    return jnp.where(jnp.abs(u) < 0.125, near, far)


@_scale_term.defjvp
def _scale_term_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    p, q = primals
    return _scale_term(p, q), 2 * _square_less_one(p, q) * (tangents[0] / p - tangents[1] / q)


def _square_less_one(p: Array, q: Array) -> Array:
    relative = (p - q) / q
    return relative * (2 + relative)


def multivariate_normal(p: MultivariateNormal, q: MultivariateNormal) -> Array:
    """Return KL between multivariate normals."""
    return kl.multivariate_normal(p.loc, p.scale_tril, q.loc, q.scale_tril)


def low_rank(p: MultivariateNormalLowRank, q: MultivariateNormalLowRank) -> Array:
    """Return KL between low-rank multivariate normals, without an array of dim × dim."""
    # The logarithms of nearly equal scales would lose the digits in which they differ.
    logs, ratio = (jnp.log(p.scale_diag), jnp.log(q.scale_diag)), log_ratio(p.scale_diag, q.scale_diag)
    return kl_low_rank(p.loc, p.factor, logs[0], q.loc, q.factor, logs[1], ratio)


def matrix_normal(p: MatrixNormal, q: MatrixNormal) -> Array:
    """Return KL between matrix normals, from the factors of rows and columns alone."""

    def solve(lower: Array, right: Array) -> Array:
        return jax.lax.linalg.triangular_solve(jnp.tril(lower), right, left_side=True, lower=True)

    def factor_terms(p_lower: Array, q_lower: Array) -> tuple[Array, Array]:
        """Return log(‖M‖² / n) and n log(‖M‖² / n) − 2 log det M ≥ 0 of M = L_q⁻¹ L_p."""
        size = p_lower.shape[-1]
        shifted = jnp.tril(solve(q_lower, jnp.tril(p_lower) - jnp.tril(q_lower)), -1)
        diagonals = [jnp.diagonal(x, axis1=-2, axis2=-1) for x in (p_lower, q_lower)]
        log_diagonal = 2 * log_ratio(*diagonals)
        mean = jnp.mean(log_diagonal, axis=-1, keepdims=True)
        # In units of the geometric mean of the diagonal, whose logarithms sum to 0.
        excess = expm1_minus(log_diagonal - mean)
        squares = jnp.sum(shifted * shifted, axis=(-2, -1)) * jnp.exp(-mean[..., 0])
        log_mean = jnp.log1p((jnp.sum(excess, axis=-1) + squares) / size)
        return mean[..., 0] + log_mean, size * log_mean

    rows, columns = p.loc.shape[-2:]
    row_scale, row_excess = factor_terms(p.row_scale_tril, q.row_scale_tril)
    column_scale, column_excess = factor_terms(p.column_scale_tril, q.column_scale_tril)
    shift = solve(q.row_scale_tril, p.loc - q.loc)
    shift = solve(q.column_scale_tril, jnp.swapaxes(shift, -1, -2))
    scale = rows * columns * expm1_minus(row_scale + column_scale)
    return 0.5 * (scale + columns * row_excess + rows * column_excess + jnp.sum(shift * shift, axis=(-2, -1)))


def diagonal_as_low_rank(p: Independent) -> MultivariateNormalLowRank | None:
    """Return independent normals in a vector as a low-rank normal of rank 0."""
    if not isinstance(p.base, Normal) or p.ndims != 1:
        return None
    base = p.base.broadcast_to(p.base.batch_shape)
    return MultivariateNormalLowRank(base.loc, jnp.zeros((*base.loc.shape, 0), base.loc.dtype), base.scale)


def low_rank_as_dense(p: MultivariateNormalLowRank) -> MultivariateNormal:
    """Return a low-rank normal with the Cholesky factor of its covariance."""
    size = p.loc.shape[-1]
    eye = jnp.eye(size, dtype=p.scale_diag.dtype)
    if p.factor.shape[-1] == 0:
        return MultivariateNormal(p.loc, p.scale_diag[..., None] * jnp.broadcast_to(eye, (*p.loc.shape, size)))
    outer = jnp.matmul(p.factor, jnp.swapaxes(p.factor, -1, -2), precision=jax.lax.Precision.HIGHEST)
    diagonal = (p.scale_diag * p.scale_diag)[..., None] * jnp.broadcast_to(eye, outer.shape)
    return MultivariateNormal(p.loc, jnp.linalg.cholesky(outer + diagonal))
