"""The Student-t families: independent coordinates, or any scale matrix."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from vi_kit._static import configuration
from vi_kit._types import Event, KeyArray
from vi_kit.families._full_rank import FullRank, FullRankParams
from vi_kit.families._gaussian import check_dim
from vi_kit.families._gaussian_forms import gaussian_of
from vi_kit.families._mean_field import MeanField
from vi_kit.families._student_t_distributions import IndependentStudentT, MultivariateStudentT


class StudentTParams(NamedTuple):
    """Parameters of a Student-t distribution.

    Attributes:
        coupling: as in `FullRankParams`, of the scale matrix; none for independent coordinates.
        log_excess: logarithm of the degrees of freedom less 2: one number, or one a coordinate where independent.
        log_scale: logarithm of the scales (independent) or of the diagonal of the factor, shape (dim,).
        mean: shape (dim,).
    """

    coupling: Float[Array, " pairs"]
    log_excess: Float[Array, "..."]
    log_scale: Event
    mean: Event


@configuration
class StudentT:
    r"""Student-t distributions over unconstrained z: Gaussians with heavier tails, as heavy as the target's.

    $$ z = m + L (\epsilon / \sqrt{g}), \quad \epsilon \sim N(0, I), \quad
       g \sim \Gamma(\nu/2, \nu/2), \quad \nu = 2 + e^r $$

    The degrees of freedom ν are learned. They exceed 2, so that mean and standard deviations exist. With
    `gaussian=MeanField` every coordinate has a g and ν of its own, with `gaussian=FullRank` all share one.

    Draws are differentiable in all parameters, in ν by implicit reparameterization of the gamma draws; in float32
    too, where beyond ν = 2,000 the derivative in ν is asymptotic, within 1e-4 of the exact one.

    Args:
        dim: number of unconstrained coordinates.
        gaussian: `MeanField` or `FullRank`, the Gaussians whose tails it makes heavier.

    Source: Figurnov, Mohamed and Mnih, "Implicit Reparameterization Gradients", 2018,
    https://arxiv.org/abs/1805.08498

    Example:
        >>> import jax, vi_kit as vk
        >>> family = vk.families.StudentT(3, gaussian=vk.families.FullRank)
        >>> q = family.dist(family.init(jax.random.key(0), scale=2.0))
        >>> [round(float(s), 4) for s in q.std()], round(float(q.df))
        ([2.0, 2.0, 2.0], 50)
    """

    dim: int
    gaussian: type[MeanField] | type[FullRank] = MeanField

    def __post_init__(self) -> None:
        """Check the dimension and the Gaussian family."""
        check_dim(self.dim)
        if self.gaussian not in (MeanField, FullRank):
            raise TypeError(f"gaussian: expected vk.families.MeanField or FullRank, got {self.gaussian!r}")

    @property
    def reparameterized(self) -> bool:
        """Draws are differentiable functions of the parameters."""
        return True

    def init(self, key: KeyArray, *, mean: Array | None = None, scale: Array | None = None) -> StudentTParams:
        """Return the member with this mean (zero) and scale (one): standard deviations, or a factor of the covariance.

        It begins nearly Gaussian, with 30 degrees of freedom a coordinate, or 10 · (dim + 2) for all: 0.001 nats a
        coordinate, or 0.003 in all, from the Gaussian. The key is not used.
        """
        base = self.gaussian(self.dim)
        return self.init_from(key, base.dist(base.init(key, mean=mean, scale=scale)))  # type: ignore[arg-type]

    def init_from(self, key: KeyArray, distribution: Any) -> StudentTParams:
        """Return the member with the mean of another family's distribution and its covariance or standard deviations.

        Of a Student-t distribution the degrees of freedom are taken over: the coordinates of an elliptical one start
        with exactly its marginals, and an elliptical one with the geometric mean of ν − 2 of independent ones. Others
        start nearly Gaussian, as in `init`. The key is not used.
        """
        gaussian = gaussian_of(distribution, self.dim)
        started = self.gaussian(self.dim).init_from(key, gaussian)
        independent = self.gaussian is MeanField
        shape = (self.dim,) if independent else ()
        if isinstance(distribution, IndependentStudentT | MultivariateStudentT):
            log_excess = jnp.log(distribution.excess)
            log_excess = log_excess if independent else jnp.mean(log_excess)
        else:
            log_excess = jnp.log(jnp.asarray(10.0 * (3 if independent else self.dim + 2) - 2, started.mean.dtype))
        log_excess = jnp.broadcast_to(log_excess, shape)
        log_scale = started.log_scale - 0.5 * jnp.log1p(2 * jnp.exp(-log_excess))
        coupling = getattr(started, "coupling", jnp.zeros((0,), started.mean.dtype))
        return StudentTParams(coupling, log_excess, log_scale, started.mean)

    def dist(self, params: StudentTParams) -> IndependentStudentT | MultivariateStudentT:
        """Build the distribution."""
        excess = jnp.exp(params.log_excess)
        if self.gaussian is MeanField:
            return IndependentStudentT(excess, params.mean, jnp.exp(params.log_scale))
        normal = FullRank(self.dim).dist(FullRankParams(params.coupling, params.log_scale, params.mean))
        return MultivariateStudentT(excess, normal.loc, normal.scale_tri)
