"""The family of Gaussians whose covariance is low rank plus diagonal."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from vi_kit._distributions import DiagonalNormal, LowRankNormal
from vi_kit._static import configuration
from vi_kit._types import Event, KeyArray, check_count
from vi_kit.families._gaussian import check_dim, read_mean, read_scale
from vi_kit.families._gaussian_forms import coupling_of, gaussian_of


class LowRankParams(NamedTuple):
    """Parameters of a low-rank Gaussian.

    Attributes:
        coupling: C, shape (dim, rank).
        log_scale: logarithm of s, shape (dim,).
        mean: shape (dim,).
    """

    coupling: Float[Array, "dim rank"]
    log_scale: Event
    mean: Event


@configuration
class LowRank:
    r"""Gaussians over unconstrained z with `rank` directions of correlation.

    $$ q(z) = N(z; m, D (I + C C^T) D), \quad D = diag(e^s), \quad C \in R^{dim \times rank} $$

    Memory and time are linear in dim: nothing of dim × dim is formed. Couplings are in units of the scales, so a step
    means the same in every unit. C = 0 is a saddle of every objective, so `init` begins beside it, with columns of
    length 0.01: KL from the mean-field member below 1e-8 · rank.

    Args:
        dim: number of unconstrained coordinates.
        rank: number of directions.

    Source: Ong, Nott and Smith, "Gaussian Variational Approximation with a Factor Covariance Structure", 2018,
    https://arxiv.org/abs/1701.03208

    Example:
        >>> import jax, vi_kit as vk
        >>> family = vk.families.LowRank(100_000, 10)
        >>> q = family.dist(family.init(jax.random.key(0), scale=0.5))
        >>> q.std()[:2].tolist()
        [0.5, 0.5]
    """

    dim: int
    rank: int = 10

    def __post_init__(self) -> None:
        """Check the sizes."""
        check_dim(self.dim)
        check_count("rank", self.rank)

    @property
    def reparameterized(self) -> bool:
        """Draws are differentiable functions of the parameters."""
        return True

    def init(self, key: KeyArray, *, mean: Array | None = None, scale: Array | None = None) -> LowRankParams:
        """Return a member with this mean (zero) and these standard deviations (one), hardly correlated.

        The key draws the directions of the couplings.
        """
        center = read_mean(mean, self.dim)
        return self.init_from(key, DiagonalNormal(center, read_scale(scale, center, matrix=False)))

    def init_from(self, key: KeyArray, distribution: Any) -> LowRankParams:
        """Return the member that is nearest to another family's distribution; its mean and standard deviations exactly.

        Couplings are exact from a mean-field Gaussian and from one of no more directions, except that unused columns
        begin with a length of 0.01. Of another covariance the first principal axes of its correlation matrix are taken.
        The key draws the directions of unused columns.
        """
        gaussian = gaussian_of(distribution, self.dim)
        coupling = coupling_of(key, gaussian, self.rank)
        widened = 0.5 * jnp.log1p(jnp.sum(jnp.square(coupling), axis=1))
        return LowRankParams(coupling, jnp.log(gaussian.std()) - widened, gaussian.mean())

    def dist(self, params: LowRankParams) -> LowRankNormal:
        """Build the distribution."""
        return LowRankNormal(params.mean, jnp.exp(params.log_scale), params.coupling)
