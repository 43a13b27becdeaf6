"""Gaussian score matching: the nearest Gaussian whose score agrees with the target's, draw by draw."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vi_kit import _distributions as distributions
from vi_kit._static import configuration
from vi_kit._types import Event, KeyArray, StepInfo, Target, check_count
from vi_kit.algorithms._gaussian import Scale, all_finite, choose, matmul, pull_back
from vi_kit.families import FullRank, FullRankParams
from vi_kit.families._gaussian_forms import lower_factor


class GaussianScoreMatchingState(NamedTuple):
    """What Gaussian score matching remembers."""

    params: FullRankParams


@configuration
class GaussianScoreMatching:
    r"""Move to the nearest Gaussian with the target's score at a draw: a closed form, with no step size to tune.

    $$ q_b = \arg\min_{q'} KL(q\|q') \;\text{ such that }\; \nabla \log q'(z_b) = \nabla \log p(z_b), \quad
       m' = \tfrac1B \sum_b m_b, \quad \Sigma' = \tfrac1B \sum_b \Sigma_b $$

    Each of the covariances is made by a factor, and so is their mean, which stays positive definite. A Gaussian target
    is a fixed point, draw by draw, and q converges to it; elsewhere steps do not get smaller, and q goes on moving
    around where the scores agree on average: `BatchAndMatch` settles down.

    Args:
        family: `vk.families.FullRank`.
        batch_size: draws a step, B.

    A step costs `batch_size` evaluations, and O(batch_size · dim³). One whose result is not finite leaves the
    parameters as they were. Minimizes no KL of q to p.

    Raises:
        TypeError: for another family.
        ValueError: for no draws.

    Source: Modi, Margossian, Yao, Gower, Blei and Saul, "Variational Inference with Gaussian Score Matching", 2023,
    https://arxiv.org/abs/2307.07849

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum((x - 3.0) ** 2 / jnp.array([1.0, 4.0])), 2)
        >>> algorithm = vk.algorithms.GaussianScoreMatching(vk.families.FullRank(2))
        >>> start = algorithm.family.init(jax.random.key(0))
        >>> fit = vk.optimize(jax.random.key(1), target, algorithm, start, num_steps=100)
        >>> algorithm.family.dist(fit.params).std().round(2).tolist()
        [1.0, 2.0]
    """

    family: FullRank
    batch_size: int = 2

    def __post_init__(self) -> None:
        """Check the family and the batch."""
        if not isinstance(self.family, FullRank):
            raise TypeError(f"family: expected vk.families.FullRank, got {self.family!r}")
        check_count("batch_size", self.batch_size)

    def evaluations(self, target: Target) -> int:
        """Target evaluations a step costs."""
        del target
        return self.batch_size

    def init(self, params: FullRankParams, target: Target, key: KeyArray) -> GaussianScoreMatchingState:
        """Return the first state."""
        del target, key
        return GaussianScoreMatchingState(params)

    def step(
        self, state: GaussianScoreMatchingState, target: Target, key: KeyArray
    ) -> tuple[GaussianScoreMatchingState, StepInfo]:
        """Take one step."""
        q = self.family.dist(state.params)
        keys = jax.random.split(key, self.batch_size)
        z, log_q = jax.vmap(lambda k: distributions.sample_and_log_prob(q, k))(keys)
        log_p, scores = jax.vmap(jax.value_and_grad(target.log_density))(z)
        mean, factor = _matched(q.loc, q.scale_tri, z, scores)
        params = self.family.init(key, mean=mean, scale=factor)
        loss, norm = jnp.mean(log_q - log_p), jnp.linalg.norm(jnp.mean(scores, axis=0))
        finite = all_finite((loss, norm, params))
        return GaussianScoreMatchingState(choose(finite, params, state.params)), StepInfo(loss, norm, finite)

    def params(self, state: GaussianScoreMatchingState) -> FullRankParams:
        """Read the parameters off a state."""
        return state.params


def _matched(mean: Event, lower: Scale, z: Array, scores: Array) -> tuple[Event, Scale]:
    """Return the mean and the lower factor of the average of the Gaussians that match one score each."""
    whitened = jax.scipy.linalg.solve_triangular(lower, (mean[None] - z).T, lower=True).T
    shifts, halves = jax.vmap(_match_one)(whitened, pull_back(lower, scores))
    stacked = jnp.concatenate(list(jnp.swapaxes(halves, 1, 2))) / jnp.sqrt(jnp.asarray(z.shape[0], z.dtype))
    moved = jnp.mean(z + matmul(shifts, lower.T), axis=0)
    return moved, lower_factor(matmul(lower, stacked.T))


def _match_one(offset: Event, score: Event) -> tuple[Event, Array]:
    """Return mean − z and a half of the covariance of the match to one score, where q is N(z + offset, I).

    With N = I + a aᵀ, a the offset, g the score and ρ (1 + ρ) = gᵀ N g, the covariance is N − N g (N g)ᵀ / (1 + ρ)²
    and the mean z + N g / (1 + ρ): half of it is √N (I − c √N g (√N g)ᵀ), which cannot lose its sign.
    """
    squared = offset @ offset
    rooted = score + offset * (offset @ score) / (jnp.sqrt(1 + squared) + 1)  # √N g
    moved = score + offset * (offset @ score)  # N g
    rho = 0.5 * (jnp.sqrt(1 + 4 * (rooted @ rooted)) - 1)
    root = jnp.eye(offset.shape[0], dtype=offset.dtype) + offset[:, None] * offset[None] / (jnp.sqrt(1 + squared) + 1)
    shrink = 1 / ((1 + rho) ** 1.5 * (jnp.sqrt(1 + rho) + 1))
    return moved / (1 + rho), root - shrink * moved[:, None] * rooted[None]
