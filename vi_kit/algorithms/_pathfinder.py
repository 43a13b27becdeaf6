"""Pathfinder: the best, by its ELBO, of the Gaussians along a path of L-BFGS to a mode."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vi_kit import _distributions as distributions
from vi_kit._static import configuration
from vi_kit._types import Event, KeyArray, Scalar, StepInfo, Target, check_count
from vi_kit.algorithms._gaussian import all_finite, choose, mean_and_scale, with_mean_and_scale
from vi_kit.algorithms._quasi_newton import Descent, advance, begin
from vi_kit.families import FullRank, FullRankParams
from vi_kit.families._gaussian_forms import lower_factor


class PathfinderState(NamedTuple):
    """What Pathfinder remembers.

    Attributes:
        params: the best Gaussian so far.
        elbo: its ELBO as it was estimated, −infinity before the first.
        descent: the state of L-BFGS.
    """

    params: FullRankParams
    elbo: Scalar
    descent: Descent


@configuration
class Pathfinder:
    r"""Walk to a mode by L-BFGS; q is the path's Gaussian of highest ELBO. Cheap, and a start for other algorithms.

    $$ q_t(z) = N(z; \; x_t + H_t \nabla \log p(x_t), \; H_t), \quad
       t^* = \arg\max_t \tfrac1S \sum_s \log \tilde p(z_s) - \log q_t(z_s), \; z_s \sim q_t $$

    H is the inverse Hessian that L-BFGS has learned from its last `memory_size` moves, a multiple of the identity in
    all other directions (the paper's is diagonal there), so q is right on a Gaussian target after about dim moves,
    and for more than memory_size directions of unlike width it stays rough. Several paths, from dispersed starts, are
    `vk.algorithms.MultiPathPathfinder`.

    Args:
        family: `vk.families.FullRank`.
        num_samples: draws for an ELBO, S.
        memory_size: moves that L-BFGS remembers.

    The start's mean is where the path begins; its scale is not read. A step looks at one point of the line search, at
    a cost of 1 + num_samples evaluations. A point that is not finite is too far, and leaves the parameters as they
    were; a Gaussian whose ELBO is not finite is not taken.

    Raises:
        TypeError: for another family.
        ValueError: for no draws or no memory.

    Source: Zhang, Carpenter, Gelman and Vehtari, "Pathfinder: Parallel Quasi-Newton Variational Inference", 2022,
    https://arxiv.org/abs/2108.03782

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum((x - 3.0) ** 2 / jnp.array([1.0, 4.0])), 2)
        >>> algorithm = vk.algorithms.Pathfinder(vk.families.FullRank(2))
        >>> start = algorithm.family.init(jax.random.key(0))
        >>> fit = vk.optimize(jax.random.key(1), target, algorithm, start, num_steps=20)
        >>> algorithm.family.dist(fit.params).mean().round(1).tolist()
        [3.0, 3.0]
    """

    family: FullRank
    num_samples: int = 10
    memory_size: int = 10

    def __post_init__(self) -> None:
        """Check the family and the counts."""
        if not isinstance(self.family, FullRank):
            raise TypeError(f"family: expected vk.families.FullRank, got {self.family!r}")
        check_count("num_samples", self.num_samples)
        check_count("memory_size", self.memory_size)

    def evaluations(self, target: Target) -> int:
        """Target evaluations a step costs."""
        del target
        return 1 + self.num_samples

    def init(self, params: FullRankParams, target: Target, key: KeyArray) -> PathfinderState:
        """Return the first state, which is to look at the mean of the start."""
        del target, key
        mean, _ = mean_and_scale(self.family, params)
        return PathfinderState(params, jnp.full((), -math.inf, mean.dtype), begin(mean, self.memory_size))

    def step(self, state: PathfinderState, target: Target, key: KeyArray) -> tuple[PathfinderState, StepInfo]:
        """Look at one point; where the path goes there, see whether its Gaussian is the best so far."""
        point = state.descent.position + state.descent.trial
        value, gradient = jax.value_and_grad(lambda z: -target.log_density(z))(point)
        norm = jnp.linalg.norm(gradient)
        descent, taken = advance(state.descent, value, gradient, self.memory_size)
        factor = lower_factor(inverse_hessian_half(descent))
        params = with_mean_and_scale(self.family, descent.position + descent.direction, factor, key)
        elbo = self._elbo(params, target, key)
        better = taken & (elbo > state.elbo) & all_finite((params, elbo))
        best, highest = choose(better, (params, elbo), (state.params, state.elbo))
        return PathfinderState(best, highest, descent), StepInfo(value, norm, all_finite((value, norm)))

    def _elbo(self, params: FullRankParams, target: Target, key: KeyArray) -> Scalar:
        q = self.family.dist(params)

        def one(key: KeyArray) -> Scalar:
            z, log_q = distributions.sample_and_log_prob(q, key)
            return target.log_density(z) - log_q

        return jnp.mean(jax.vmap(one)(jax.random.split(key, self.num_samples)))

    def params(self, state: PathfinderState) -> FullRankParams:
        """Read the parameters off a state."""
        return state.params


def inverse_hessian_half(descent: Descent) -> Float[Array, "dim columns"]:
    """Return M with M Mᵀ the inverse Hessian of L-BFGS, of which `direction` is −M Mᵀ gradient.

    The recursion H′ = (I − ρ s yᵀ) H (I − ρ y sᵀ) + ρ s sᵀ for a factor: one more column a move.
    """
    memory: Any = descent.memory
    size = memory.weights_memory.shape[0]
    order = (memory.count - 1 + jnp.arange(size, dtype=memory.count.dtype)) % size  # the oldest first
    moves, turns = memory.diff_params_memory[order], memory.diff_updates_memory[order]
    weights = memory.weights_memory[order]
    steepest = jnp.sum(turns[-1] * turns[-1])
    learned = jnp.sum(moves[-1] * turns[-1]) / jnp.where(steepest > 0, steepest, 1)
    first = jnp.minimum(1, 1 / jnp.linalg.norm(descent.gradient))
    scale = jnp.sqrt(jnp.where(memory.count > 1, learned, first))
    dim = descent.position.shape[0]
    half = jnp.concatenate([scale * jnp.eye(dim, dtype=scale.dtype), jnp.zeros((dim, size), scale.dtype)], axis=1)

    def learn(half: Array, move: tuple[Array, Event, Event, Array]) -> tuple[Array, None]:
        column, s, y, weight = move
        half = half - weight * s[:, None] * (y @ half)[None]
        return half.at[:, column].set(jnp.sqrt(weight) * s), None

    half, _ = jax.lax.scan(learn, half, (dim + jnp.arange(size), moves, turns, weights))
    return half
