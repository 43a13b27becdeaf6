"""The Laplace approximation: a mode by Newton's method, and the Gaussian of the curvature there."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vi_kit._static import configuration
from vi_kit._types import Event, KeyArray, Params, Scalar, StepInfo, Target
from vi_kit.algorithms._gaussian import (
    Scale,
    all_finite,
    check_gaussian,
    choose,
    matmul,
    mean_and_scale,
    with_mean_and_scale,
)
from vi_kit.families import FullRank, MeanField
from vi_kit.families._gaussian_forms import lower_factor

_SHORTER, _LONGER = 0.25, 2.0


class LaplaceState(NamedTuple):
    """What the Laplace approximation remembers.

    Attributes:
        params: the Gaussian of the curvature at the last point taken.
        loss: −log p there, infinite before the first.
        direction: Newton's step from there.
        candidate: the point to look at next.
        length: what Newton's step is multiplied with.
        concave: whether the curvature at the last point is that of a mode, positive in every direction.
    """

    params: Params
    loss: Scalar
    direction: Float[Array, " dim"]
    candidate: Event
    length: Scalar
    concave: Bool[Array, ""]


@configuration
class Laplace:
    r"""Climb to a mode of log p by Newton's method; q is the Gaussian of the curvature there.

    $$ q(z) = N(z; \hat z, H^{-1}), \quad H = -\nabla^2 \log p(\hat z); \quad
       \text{mean-field: standard deviations } H_{ii}^{-1/2} $$

    Where the curvature is not that of a mode (on the way, or at a saddle) its eigenvalues count by their absolute
    values, so that steps climb; `state.concave` says whether that was so at the last point. A step that does not climb
    is tried again at a quarter of its length. The mode is one of the density over unconstrained z. Minimizes no
    divergence: q is right where p is Gaussian, and else a start for other algorithms (`vk.fit(..., start=...)`).

    Args:
        family: `vk.families.FullRank` or `vk.families.MeanField`.

    A step costs 1 + dim evaluations (of which dim are products of the Hessian with a vector) and O(dim³). The first
    one looks at the start; a Gaussian target takes two. One that is not finite leaves the parameters as they were: so
    do all at a point where the curvature vanishes in a coordinate.

    Raises:
        TypeError: for another family.

    Source: Tierney and Kadane, "Accurate Approximations for Posterior Moments and Marginal Densities", 1986,
    https://doi.org/10.1080/01621459.1986.10478240; absolute eigenvalues: Dauphin et al., "Identifying and Attacking
    the Saddle Point Problem in High-Dimensional Non-Convex Optimization", 2014, https://arxiv.org/abs/1406.2572

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum((x - 3.0) ** 2 / jnp.array([1.0, 4.0])), 2)
        >>> algorithm = vk.algorithms.Laplace(vk.families.FullRank(2))
        >>> start = algorithm.family.init(jax.random.key(0))
        >>> fit = vk.optimize(jax.random.key(1), target, algorithm, start, num_steps=2)
        >>> algorithm.family.dist(fit.params).std().round(2).tolist()
        [1.0, 2.0]
    """

    family: FullRank | MeanField

    def __post_init__(self) -> None:
        """Check the family."""
        check_gaussian(self.family)

    def evaluations(self, target: Target) -> int:
        """Target evaluations a step costs."""
        del target
        return 1 + self.family.dim

    def init(self, params: Params, target: Target, key: KeyArray) -> LaplaceState:
        """Return the first state, which is to look at the mean of the start."""
        del target, key
        mean, _ = mean_and_scale(self.family, params)
        zero = jnp.zeros((), mean.dtype)
        return LaplaceState(params, zero + math.inf, jnp.zeros_like(mean), mean, zero + 1, jnp.zeros((), bool))

    def step(self, state: LaplaceState, target: Target, key: KeyArray) -> tuple[LaplaceState, StepInfo]:
        """Look at the candidate; go on from it, or back and less far. The key is not used."""
        value, gradient = jax.value_and_grad(target.log_density)(state.candidate)
        direction, scale, concave = _newton(self.family, gradient, -jax.hessian(target.log_density)(state.candidate))
        params = with_mean_and_scale(self.family, state.candidate, scale, key)
        loss, norm = -value, jnp.linalg.norm(gradient)
        finite = all_finite((loss, norm, direction, params))
        rounding = 8 * float(np.finfo(loss.dtype).eps) * jnp.abs(loss)
        taken = finite & (loss <= state.loss + rounding)
        old_mean, _ = mean_and_scale(self.family, state.params)
        origin = jnp.where(taken, state.candidate, old_mean)
        params, best, direction, concave = choose(
            taken, (params, loss, direction, concave), (state.params, state.loss, state.direction, state.concave)
        )
        length = jnp.where(taken, jnp.minimum(state.length * _LONGER, 1), state.length * _SHORTER)
        new = LaplaceState(params, best, direction, origin + length * direction, length, concave)
        return new, StepInfo(loss, norm, finite)

    def params(self, state: LaplaceState) -> Params:
        """Read the parameters off a state."""
        return state.params


def _newton(
    family: FullRank | MeanField, gradient: Event, hessian: Float[Array, "dim dim"]
) -> tuple[Event, Scale, Bool[Array, ""]]:
    """Return Newton's step uphill, the scale of the Gaussian, and whether all of the curvature is positive."""
    units = 1 / jnp.sqrt(jnp.abs(jnp.diagonal(hessian)))  # so that units of the coordinates cost no digits
    scaled = hessian * units[:, None] * units[None]
    values, vectors = jnp.linalg.eigh((scaled + scaled.T) / 2)
    half = units[:, None] * vectors / jnp.sqrt(jnp.abs(values))[None]
    step = matmul(half, matmul(half.T, gradient))
    scale = lower_factor(half) if isinstance(family, FullRank) else units
    return step, scale, jnp.all(values > 0)
