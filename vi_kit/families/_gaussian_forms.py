"""One distribution read as a Gaussian, and one form of Gaussian as another: how a family starts from another's fit.

A factor B of a covariance B Bᵀ is carried from form to form, never the covariance itself, whose rounding would show in
its small directions. Matrices of dim × dim are formed only where the source or the family that starts has one.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vi_kit._arrays import namespace
from vi_kit._distributions import DiagonalNormal, LowRankNormal, TriangularNormal
from vi_kit._types import KeyArray
from vi_kit.families._block_diagonal_normal import BlockDiagonalNormal

Gaussian = DiagonalNormal | TriangularNormal | LowRankNormal | BlockDiagonalNormal

_FIRST = 0.01  # length of the columns of a first coupling: no entropy to speak of, and not the saddle that 0 is


def gaussian_of(distribution: Any, dim: int) -> Any:
    """Return the Gaussian with the mean and covariance of a distribution, in the cheapest form.

    A distribution of the families says which (`gaussian()`); of any other the mean and standard deviations are read.

    Raises:
        ValueError: when it is over another dimension.
    """
    found = tuple(distribution.mean().shape)
    if found != (dim,):
        raise ValueError(f"distribution: expected one over {dim} coordinates, got a mean of shape {found}")
    if isinstance(distribution, Gaussian):
        return distribution
    if hasattr(distribution, "gaussian"):
        return distribution.gaussian()
    return DiagonalNormal(distribution.mean(), distribution.std())


def root_rows(gaussian: Any, indices: Array | np.ndarray) -> Float[Array, "rows columns"]:
    """Return B with B Bᵀ the covariance of some coordinates."""
    if isinstance(gaussian, DiagonalNormal):
        return jnp.diag(gaussian.scale_diag[indices])
    if isinstance(gaussian, LowRankNormal):
        return jnp.concatenate([jnp.diag(gaussian.scale_diag[indices]), gaussian.factor[indices]], axis=1)
    root: Array = gaussian.root if isinstance(gaussian, BlockDiagonalNormal) else gaussian.scale_tri
    return root[indices]


def lower_factor(root: Float[Array, "rows columns"]) -> Float[Array, "rows rows"]:
    """Return the lower factor, with a positive diagonal, of B Bᵀ; for numpy and jax alike."""
    xp = namespace(root)
    upper = xp.linalg.qr(root.T, mode="r")
    lower: Array = xp.tril((upper * xp.sign(xp.diagonal(upper))[:, None]).T)
    return lower


def factor_of(gaussian: Any) -> Float[Array, "dim dim"]:
    """Return the lower factor of the whole covariance."""
    if isinstance(gaussian, TriangularNormal):
        return gaussian.scale_tri  # type: ignore[no-any-return]
    if isinstance(gaussian, DiagonalNormal):
        return jnp.diag(gaussian.scale_diag)
    return lower_factor(root_rows(gaussian, np.arange(gaussian.event_shape[0])))


def coupling_of(key: KeyArray, gaussian: Any, rank: int) -> Float[Array, "dim rank"]:
    """Return C so that D (I + C Cᵀ) D is near the covariance, and D to be had from the standard deviations.

    Exact from a diagonal and from a low-rank covariance of no more directions. Of more directions, the longest; of a
    dense or block-diagonal covariance the first principal axes of the correlation matrix, exact for dim − 1 of
    them. Columns that are left over get a length of 0.01.
    """
    if isinstance(gaussian, DiagonalNormal):
        known = jnp.zeros((gaussian.event_shape[0], 0), gaussian.loc.dtype)
    elif isinstance(gaussian, LowRankNormal):
        known = gaussian.coupling
        if known.shape[1] > rank:
            vectors, lengths, _ = jnp.linalg.svd(known, full_matrices=False)
            known = vectors[:, :rank] * lengths[None, :rank]
    else:
        known = _principal_coupling(gaussian, rank)
    dim, used = known.shape
    directions = jax.random.normal(key, (dim, rank - used), known.dtype)
    first = _FIRST * directions / jnp.linalg.norm(directions, axis=0, keepdims=True)
    return jnp.concatenate([known, first], axis=1)


def _principal_coupling(gaussian: Any, rank: int) -> Float[Array, "dim columns"]:
    """Of the correlation matrix R = U diag(λ) Uᵀ keep axes: R ≈ Ψ + F Fᵀ, F = U √(λ − ψ), and C = Ψ^(−½) F.

    ψ is the mean of the eigenvalues that are left out, block by block; Ψ keeps the diagonal at one.
    """
    deviations = gaussian.std()
    dim = deviations.shape[0]
    if isinstance(gaussian, BlockDiagonalNormal):
        blocks = [(b.indices, b.factors) for b in gaussian.blocks]
    else:
        blocks = [(np.arange(dim)[None], gaussian.scale_tri[None])]
    rank = min(rank, sum(indices.size - len(indices) for indices, _ in blocks))  # all but one axis of each block
    axes = [jnp.linalg.svd(factors / deviations[indices][..., None])[:2] for indices, factors in blocks]
    values = [jnp.square(lengths) for _, lengths in axes]  # falling within each block
    offered = jnp.concatenate([v.at[:, -1].set(-jnp.ones_like(v[:, -1])).reshape(-1) for v in values])
    chosen = jax.nn.one_hot(jax.lax.top_k(offered, rank)[1], len(offered), dtype=offered.dtype).T
    coupling, start = jnp.zeros((dim, rank), deviations.dtype), 0
    for (indices, _), (vectors, _), value in zip(blocks, axes, values, strict=True):
        columns = chosen[start : start + value.size].reshape(*value.shape, rank)
        start += value.size
        kept = jnp.sum(columns, axis=2)
        floor = jnp.sum((1 - kept) * value, axis=1, keepdims=True) / jnp.sum(1 - kept, axis=1, keepdims=True)
        own = jnp.sum(jnp.square(vectors) * (kept * floor + (1 - kept) * value)[:, None, :], axis=2)
        lengths = kept * jnp.sqrt(jnp.maximum(value - floor, 0))
        axis = jnp.einsum("nik,nk,nkr->nir", vectors, lengths, columns, precision=jax.lax.Precision.HIGHEST)
        coupling = coupling.at[indices].set(axis / jnp.sqrt(own)[..., None])
    return coupling
