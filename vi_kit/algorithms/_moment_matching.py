"""Forward KL for Gaussians without gradients: the moments of weighted draws of p."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vi_kit._static import configuration, leaf
from vi_kit._types import Event, Family, KeyArray, Params, Scalar, StepInfo, Target
from vi_kit.algorithms._gaussian import Scale, all_finite, choose, matmul, mean_and_scale, spread, with_mean_and_scale
from vi_kit.families import FullRank, MeanField
from vi_kit.families._gaussian_forms import lower_factor
from vi_kit.objectives import ForwardKL
from vi_kit.objectives._checks import check_number

_DEFAULT_DECAY = 3.0


class MomentMatchingState(NamedTuple):
    """What moment matching remembers; the decay is here, by its inverse, so another one compiles nothing."""

    params: Params
    slowing: Float[Array, ""]
    step: Int[Array, ""]


@configuration
class MomentMatching:
    r"""Forward KL for Gaussians in closed form: q takes the mean and covariance of the objective's draws of p.

    $$ m' = (1 - \rho) m + \rho \bar z, \quad
       \Sigma' = (1 - \rho) \Sigma + \rho \bar S + \rho (1 - \rho) (\bar z - m)(\bar z - m)^T, \quad
       \bar z = \sum_i w_i z_i, \quad \bar S = \sum_i w_i (z_i - \bar z)(z_i - \bar z)^T $$

    That is a natural gradient step of length ρ, and at ρ = 1 the minimum of KL(p‖q) over these draws. The first step
    has ρ = 1, later ones ρ_t = 1 / (1 + t / decay), which averages over draws that are fresh each time. With given
    draws all is done in the first; further ones repeat it in the coordinates of the last q, which rounds less where
    coordinates are nearly collinear. With draws of q itself and weights p̃/q (`pareto_smoothed`, say), begin at a fit of
    reverse KL: far from p weights collapse on a few draws.

    Args:
        objective: `vk.objectives.ForwardKL` with a `FullRank` or `MeanField` family: it says where draws come from.
        decay: steps after which the length has halved; `jnp.inf` for no averaging. None: 3.

    A step costs what a call of the objective costs, and O(n dim²) for full-rank. Biased by O(1/n) with self-normalized
    weights, as the objective is. One that is not finite leaves the parameters as they were; so does one whose draws
    have no variance in some direction.

    Raises:
        TypeError: for another objective or family.
        ValueError: for a decay below 1.

    Source: Cappé, Douc, Guillin, Marin and Robert, "Adaptive Importance Sampling in General Mixture Classes", 2008,
    https://arxiv.org/abs/0710.4242

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> draws = 3.0 + 2.0 * jax.random.normal(jax.random.key(0), (1_000, 2))
        >>> objective = vk.objectives.ForwardKL(vk.families.FullRank(2), vk.objectives.given(draws))
        >>> algorithm = vk.algorithms.MomentMatching(objective)
        >>> target, start = vk.targets.from_draws(draws), algorithm.family.init(jax.random.key(1))
        >>> fit = vk.optimize(jax.random.key(2), target, algorithm, start, num_steps=2)
        >>> bool(jnp.allclose(fit.params.mean, draws.mean(axis=0), rtol=1e-5))
        True
    """

    objective: ForwardKL
    decay: float | Array | None = leaf(default=None)

    def __post_init__(self) -> None:
        """Check the objective, its family and the decay."""
        if not isinstance(self.objective, ForwardKL):
            raise TypeError(f"objective: expected vk.objectives.ForwardKL, got {self.objective!r}")
        if not isinstance(self.objective.family, FullRank | MeanField):
            raise TypeError(
                "objective: expected one over vk.families.FullRank or vk.families.MeanField, got "
                f"{self.objective.family!r}"
            )
        if self.decay is not None:
            check_number("decay", self.decay, least=1.0)

    @property
    def family(self) -> Family:
        """The family that the objective is over."""
        return self.objective.family

    def evaluations(self, target: Target) -> int:
        """Target evaluations a step costs."""
        return self.objective.evaluations(target)

    def init(self, params: Params, target: Target, key: KeyArray) -> MomentMatchingState:
        """Return the first state."""
        del target, key
        decay = jnp.asarray(_DEFAULT_DECAY if self.decay is None else self.decay, jax.tree.leaves(params)[0].dtype)
        # By its inverse: a compiler that knows the decay multiplies with that, and a resumed run has to be the run.
        return MomentMatchingState(params, 1 / decay, jnp.zeros((), jnp.int32))

    def step(self, state: MomentMatchingState, target: Target, key: KeyArray) -> tuple[MomentMatchingState, StepInfo]:
        """Draw, and move to the moments of the draws."""
        family: Any = self.objective.family  # one of two, as was checked
        mean, scale = mean_and_scale(family, state.params)
        # The loss is that of the same draws, before the step.
        loss = self.objective(state.params, target, jax.random.clone(key))  # type: ignore[no-untyped-call]
        z, log_weights = self.objective.source(target)(family, state.params, target, key, self.objective.num_samples)
        weights = jax.nn.softmax(log_weights)
        z = jnp.where((weights > 0)[:, None], z, mean[None])  # one of zero weight may not be finite
        rate = 1 / (1 + state.step.astype(state.slowing.dtype) * state.slowing)
        moved, root = _matched(scale, whitened(scale, z - mean[None]), weights, rate)
        candidate = with_mean_and_scale(family, mean + spread(scale, moved[None])[0], root, key)
        finite = all_finite((loss, moved, candidate))
        norm = jnp.linalg.norm(moved)
        new = MomentMatchingState(choose(finite, candidate, state.params), state.slowing, state.step + 1)
        return new, StepInfo(loss, norm, finite)

    def params(self, state: MomentMatchingState) -> Params:
        """Read the parameters off a state."""
        return state.params


def whitened(scale: Scale, centered: Float[Array, "n dim"]) -> Float[Array, "n dim"]:
    """Return L⁻¹ (z − m), row by row."""
    if scale.ndim == 1:
        return centered / scale[None]
    return jax.scipy.linalg.solve_triangular(scale, centered.T, lower=True).T


def _matched(
    scale: Scale, rows: Float[Array, "n dim"], weights: Float[Array, " n"], rate: Scalar
) -> tuple[Event, Scale]:
    """Return the whitened shift of the mean and the scale after a step; rows are whitened draws."""
    center = matmul(weights, rows)
    centered = rows - center[None]
    center += matmul(weights, centered)  # what rounding left
    away = jnp.sqrt(rate * (1 - rate)) * center
    if scale.ndim == 1:
        variances = (1 - rate) + rate * matmul(weights, jnp.square(centered)) + jnp.square(away)
        return rate * center, scale * jnp.sqrt(variances)
    parts = [
        jnp.sqrt(1 - rate) * jnp.eye(len(center), dtype=center.dtype),
        jnp.sqrt(rate * weights)[:, None] * centered,
        away[None],
    ]
    # By a factor and not by products, which would lose the narrow directions of a first, unwhitened step.
    return rate * center, lower_factor(matmul(scale, lower_factor(jnp.concatenate(parts).T)))
