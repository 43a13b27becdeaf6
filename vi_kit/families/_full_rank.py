"""The full-rank Gaussian family."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vi_kit._distributions import TriangularNormal
from vi_kit._static import configuration
from vi_kit._types import Event, KeyArray
from vi_kit.families._gaussian import check_dim, read_mean, read_scale
from vi_kit.families._gaussian_forms import factor_of, gaussian_of


class FullRankParams(NamedTuple):
    """Parameters of a full-rank Gaussian.

    Attributes:
        coupling: entries below the diagonal of diag(L)⁻¹ L, row by row, shape (dim·(dim − 1)/2,).
        log_scale: logarithm of the diagonal of the covariance's lower factor L, shape (dim,).
        mean: shape (dim,).
    """

    coupling: Float[Array, " pairs"]
    log_scale: Event
    mean: Event


@configuration
class FullRank:
    r"""Gaussians with any covariance over unconstrained z.

    $$ q(z) = N(z; m, L L^T), \quad L = diag(e^s) (I + C), \quad C \text{ strictly lower triangular} $$

    Scales enter by their logarithm and couplings relative to them, so a step means the same in every unit.

    Args:
        dim: number of unconstrained coordinates.

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> family = vk.families.FullRank(2)
        >>> params = family.init(jax.random.key(0), scale=jnp.array([[1.0, 0.0], [3.0, 4.0]]))
        >>> family.dist(params).std().tolist()
        [1.0, 5.0]
    """

    dim: int

    def __post_init__(self) -> None:
        """Check the dimension."""
        check_dim(self.dim)

    @property
    def reparameterized(self) -> bool:
        """Draws are differentiable functions of the parameters."""
        return True

    def init(self, key: KeyArray, *, mean: Array | None = None, scale: Array | None = None) -> FullRankParams:
        """Return the member with this mean (zero) and scale (one): standard deviations or a lower factor.

        The key is not used.
        """
        del key
        center = read_mean(mean, self.dim)
        factor = read_scale(scale, center, matrix=True)
        factor = jnp.diag(factor) if factor.ndim == 1 else jnp.tril(factor)
        return self.with_factor(center, factor)

    def init_from(self, key: KeyArray, distribution: Any) -> FullRankParams:
        """Return the member with the mean and covariance of another family's distribution; the key is not used.

        It equals the distribution where that is a Gaussian of whatever family. Mean and covariance of flows, which have
        none in closed form, are those of fixed draws.
        """
        del key
        gaussian = gaussian_of(distribution, self.dim)
        return self.with_factor(gaussian.mean(), factor_of(gaussian))

    def with_factor(self, center: Event, factor: Float[Array, "dim dim"]) -> FullRankParams:
        diagonal = jnp.diagonal(factor)
        rows, columns = np.tril_indices(self.dim, -1)
        coupling = (factor / diagonal[:, None])[rows, columns]
        return FullRankParams(mean=center, log_scale=jnp.log(diagonal), coupling=coupling)

    def dist(self, params: FullRankParams) -> TriangularNormal:
        """Build the distribution."""
        rows, columns = np.tril_indices(self.dim, -1)
        unit = jnp.eye(self.dim, dtype=params.mean.dtype).at[rows, columns].set(params.coupling)
        return TriangularNormal(params.mean, jnp.exp(params.log_scale)[:, None] * unit)
