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
    """Return KL between normals, NaN where a parameter is out of range."""
    return _normal(p.loc, p.scale, q.loc, q.scale)


# One rule for the value and one for its tangent, with few operations and few arrays in between: on a CPU they cost.
@jax.custom_jvp
def _normal(p_loc: Array, p_scale: Array, q_loc: Array, q_scale: Array) -> Array:
    shift = (p_loc - q_loc) / q_scale
    value = _scale_term(p_scale, q_scale) + 0.5 * (shift * shift)
    return jnp.where(jnp.isfinite(p_loc) & jnp.isfinite(q_loc), value, jnp.full_like(value, jnp.nan))


@_normal.defjvp
def _normal_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    p_loc, p_scale, q_loc, q_scale = primals
    to_p_loc, to_p_scale, to_q_loc, to_q_scale = tangents
    shift, relative = (p_loc - q_loc) / q_scale, (p_scale - q_scale) / q_scale
    excess = relative * (2 + relative)
    tangent = (shift * (to_p_loc - to_q_loc)) / q_scale
    tangent += (excess * to_p_scale) / p_scale - ((excess + shift * shift) * to_q_scale) / q_scale
    return _normal(*primals), tangent


def _scale_term(p: Array, q: Array) -> Array:
    """Return (r² − 1) / 2 − log r ≥ 0 of r = p/q without cancellation: with u = (r − 1)/(r + 1), log r = 2 artanh u.

    NaN where p or q is not positive and finite.
    """
    gap = p - q
    relative, u = gap / q, gap / (p + q)
    half, square = 0.5 * (relative * relative), u * u
    if u.dtype.itemsize > 4:
        series = jnp.zeros_like(u)  # 2 (artanh u − u) / u³
        for k in reversed(range(8)):
            series = 2 / (2 * k + 3) + square * series
    else:
        series = 2 / 3 + square * 0.4033  # 2/5 and what the terms left out add
    near = half * (2 - u) - (u * square) * series
    # The ratio itself may overflow, and 0 / 0 is wanted where p is 0.
    far = relative + half - 2 * jnp.log(p / (jnp.sqrt(p) * jnp.sqrt(q)))
    return jnp.where((square < 0.0156) & (q > 0), near, far)


def multivariate_normal(p: MultivariateNormal, q: MultivariateNormal) -> Array:
    """Return KL between multivariate normals, NaN where a parameter is out of range."""
    value = kl.multivariate_normal(p.loc, p.scale_tril, q.loc, q.scale_tril)
    least = jnp.min(jnp.diagonal(p.scale_tril, axis1=-2, axis2=-1), axis=-1, initial=jnp.inf)
    return value + jnp.where(least > 0, jnp.zeros_like(value), jnp.nan)


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
