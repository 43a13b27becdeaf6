"""Normalizing flows: couplings between a base distribution and an affine map."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vi_kit._distributions import DiagonalNormal
from vi_kit._static import configuration
from vi_kit._types import KeyArray, check_count
from vi_kit.families._couplings import AffineCoupling, ConditionerParams, Coupling, init_conditioners
from vi_kit.families._flow_distribution import FlowDistribution, NormalFlowDistribution
from vi_kit.families._full_rank import FullRank, FullRankParams
from vi_kit.families._gaussian import check_dim
from vi_kit.families._mean_field import MeanField, MeanFieldParams
from vi_kit.families._student_t import StudentT
from vi_kit.families._student_t_distributions import IndependentStudentT, MultivariateStudentT

_DENSE = 64  # most coordinates with a full factor in the affine map


class FlowParams(NamedTuple):
    """Parameters of a flow.

    Attributes:
        affine: the last map, as the Gaussian that it makes of a standard normal.
        conditioners: networks of the couplings.
        log_excess: of a Student-t base, logarithm of the degrees of freedom less 2, shape (dim,); else shape (0,).
    """

    affine: FullRankParams | MeanFieldParams
    conditioners: ConditionerParams
    log_excess: Float[Array, "..."]


@configuration
class Flow:
    r"""Normalizing flows over unconstrained z: a base, coupling layers, then an affine map.

    $$ z = m + L f_K(\dots f_1(\epsilon)), \quad
       \log q(z) = \log b(\epsilon) - \sum_k \log|\det J_{f_k}| - \log|\det L| $$

    Each layer maps half of the coordinates by a function whose parameters a small network reads off the other half.
    It starts as the Gaussian (or Student-t) of the affine map, since couplings begin as the identity. L is a
    full factor up to 64 coordinates and diagonal beyond. Draws come with their log density without an inverse; the
    density of any point costs as much. Mean and standard deviations have no closed form: they are those of 4,096 fixed
    draws.

    Args:
        dim: number of unconstrained coordinates.
        coupling: `AffineCoupling()`, cheap and best where scales vary (funnels, bananas), or `SplineCoupling()`,
            which also splits one mode in two.
        num_layers: None: 2 · log₂(dim) rounded up, so that every coordinate depends on every other, and at least 4.
        width: units in each of the two hidden layers of a network.
        base: `MeanField` for a standard normal, `StudentT` for independent Student-t coordinates whose degrees of
            freedom are learned: heavy tails are beyond the reach of couplings.

    Source: Papamakarios, Nalisnick, Rezende, Mohamed and Lakshminarayanan, "Normalizing Flows for Probabilistic
    Modeling and Inference", 2021, https://arxiv.org/abs/1912.02762

    Example:
        >>> import jax, vi_kit as vk
        >>> family = vk.families.Flow(2)
        >>> q = family.dist(family.init(jax.random.key(0), scale=3.0))
        >>> [round(float(s), 3) for s in q.std()]
        [3.0, 3.0]
    """

    dim: int
    coupling: Coupling = AffineCoupling()
    num_layers: int | None = None
    width: int = 32
    base: type[MeanField] | type[StudentT] = MeanField

    def __post_init__(self) -> None:
        """Check the sizes and what it is made of."""
        check_dim(self.dim)
        check_count("width", self.width)
        if self.num_layers is not None:
            check_count("num_layers", self.num_layers)
        if not (hasattr(self.coupling, "num_params") and hasattr(self.coupling, "bijector")):
            raise TypeError(f"coupling: expected a SplineCoupling or AffineCoupling, got {self.coupling!r}")
        if self.base not in (MeanField, StudentT):
            raise TypeError(f"base: expected vk.families.MeanField or StudentT, got {self.base!r}")

    @property
    def reparameterized(self) -> bool:
        """Draws are differentiable functions of the parameters."""
        return True

    @property
    def steep_inverse(self) -> bool:
        """Whether log q changes so fast in places that `pathwise` is the better gradient: with splines it does."""
        return bool(getattr(self.coupling, "steep_inverse", False))

    @property
    def continuous_score(self) -> bool:
        """Whether the gradient of log q is continuous: that of splines jumps at their knots."""
        return bool(getattr(self.coupling, "continuous_score", True))

    @property
    def _affine(self) -> FullRank | MeanField:
        return FullRank(self.dim) if self.dim <= _DENSE else MeanField(self.dim)

    def init(self, key: KeyArray, *, mean: Array | None = None, scale: Array | None = None) -> FlowParams:
        """Return the Gaussian with this mean (zero) and scale (one), or nearly that with a Student-t base.

        The scale is a number, standard deviations, or up to 64 coordinates a lower factor. The key draws the
        networks, all but their last layers.
        """
        affine: Any = self._affine
        started = affine.init(jax.random.clone(key), mean=mean, scale=scale)  # type: ignore[no-untyped-call]
        return self.init_from(key, affine.dist(started))

    def init_from(self, key: KeyArray, distribution: Any) -> FlowParams:
        """Return the flow without couplings that has the mean and covariance of another family's distribution.

        It equals a Gaussian; beyond 64 coordinates one without correlations. With a Student-t base it equals one of
        independent Student-t coordinates, takes the degrees of freedom over from an elliptical one, and starts nearly
        Gaussian from others (30 degrees of freedom a coordinate). The key draws the networks.
        """
        affine_key, key = jax.random.split(key)
        layers = self.num_layers or max(4, 2 * (self.dim - 1).bit_length())
        affine = self._affine.init_from(affine_key, distribution)
        out = self.dim * self.coupling.num_params
        conditioners = init_conditioners(key, layers, self.dim, self.width, out, affine.mean.dtype)
        if self.base is MeanField:
            return FlowParams(affine, conditioners, jnp.zeros((0,), affine.mean.dtype))
        if isinstance(distribution, IndependentStudentT | MultivariateStudentT):
            log_excess = jnp.broadcast_to(jnp.log(distribution.excess), (self.dim,))
        else:
            log_excess = jnp.full((self.dim,), jnp.log(28.0), affine.mean.dtype)
        narrowed = _with_columns_scaled(affine, -0.5 * jnp.log1p(2 * jnp.exp(-log_excess)))
        return FlowParams(narrowed, conditioners, log_excess)

    def dist(self, params: FlowParams) -> FlowDistribution:
        """Build the distribution."""
        center = jnp.zeros_like(params.affine.mean)
        affine = self._affine.dist(params.affine)  # type: ignore[arg-type]
        if self.base is MeanField:
            base = DiagonalNormal(center, jnp.ones_like(center))
            return NormalFlowDistribution(base, self.coupling, params.conditioners, affine)
        heavy = IndependentStudentT(jnp.exp(params.log_excess), center, jnp.ones_like(center))
        return FlowDistribution(heavy, self.coupling, params.conditioners, affine)


def _with_columns_scaled(affine: Any, log_factors: Array) -> Any:
    """Return L diag(e^f) in the parameters of L."""
    if isinstance(affine, MeanFieldParams):
        return affine._replace(log_scale=affine.log_scale + log_factors)
    family = FullRank(len(log_factors))
    factor = family.dist(affine).scale_tri * jnp.exp(log_factors)[None, :]
    return family.with_factor(affine.mean, factor)
