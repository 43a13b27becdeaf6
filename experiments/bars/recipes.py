"""How each fit is made: one recipe a family and direction, the same for every target."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from problems import Problem

import vi_kit as vk

START_SCALE = 0.1  # what `vk.fit` starts reverse KL from
NUM_JUDGED = 100_000


class Effort(NamedTuple):
    """How many seeds, steps and draws; a smoke test takes few."""

    seeds: tuple[int, ...] = (0, 1, 2)
    share: float = 1.0
    judged: int = NUM_JUDGED

    def steps(self, num: int) -> int:
        """Return so many steps, or a share of them."""
        return max(2, round(self.share * num))


class Fits(NamedTuple):
    """Fits of one family with every seed.

    Attributes:
        family: the family.
        params: its parameters, with a leading axis of seeds.
        evaluations: of the density or its gradient, for one seed.
    """

    family: Any
    params: Any
    evaluations: int


def descend(problem: Problem, stages: list[tuple[Any, int]], effort: Effort, start: Any = None) -> Fits:
    """Run one algorithm after the other, all seeds at once, from the kit's own start or from these parameters."""
    evaluations = 0
    seeds = jnp.asarray(effort.seeds)
    family = stages[0][0].family
    params = start
    if start is None:
        one = family.init(jax.random.key(0), scale=jnp.asarray(START_SCALE))
        params = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(seeds), *leaf.shape)), one)
    for number, (algorithm, num) in enumerate(stages):
        steps = effort.steps(num)
        evaluations += steps * algorithm.evaluations(problem.target)

        def one_fit(
            seed: Any, params: Any, target: Any, algorithm: Any = algorithm, steps: int = steps, number: int = number
        ) -> Any:
            key = jax.random.fold_in(jax.random.key(seed), number)
            return vk.optimize(key, target, algorithm, params, num_steps=steps).params

        params = jax.block_until_ready(
            jax.jit(jax.vmap(one_fit, in_axes=(0, 0, None)))(seeds, params, problem.target.refreshed())
        )
    return Fits(family, params, evaluations)


def full_rank(problem: Problem, effort: Effort) -> Fits:
    """Reverse KL, full-rank: natural gradients at full length, then shorter and shorter ones, averaged."""
    family = vk.families.FullRank(problem.target.dim)
    full = vk.algorithms.NaturalGradient(family, decay=jnp.inf)
    shorter = vk.algorithms.IterateAveraging(vk.algorithms.NaturalGradient(family), power=1.0)
    return descend(problem, [(full, 100), (shorter, 300)], effort)


def mean_field(problem: Problem, effort: Effort) -> Fits:
    """Reverse KL, mean-field."""
    family = vk.families.MeanField(problem.target.dim)
    return descend(problem, [(vk.algorithms.FixedDraws(family, 256), 400)], effort)


def forward(problem: Problem, effort: Effort, start: Fits) -> Fits:
    """Forward KL from the density alone, full-rank, from the fits of reverse KL."""
    objective = vk.objectives.ForwardKL(start.family, num_samples=32_768)  # weighted draws of q
    return descend(problem, [(vk.algorithms.MomentMatching(objective), 20)], effort, start.params)


def richer(problem: Problem, effort: Effort, start: Fits) -> Fits:
    """Reverse KL, a flow that starts as the full-rank fits."""
    family = vk.families.Flow(problem.target.dim)
    keys = jax.vmap(lambda seed: jax.random.key(100 + seed))(jnp.asarray(effort.seeds))
    first = jax.vmap(lambda key, params: family.init_from(key, start.family.dist(params)))(keys, start.params)
    stages = []
    for num_samples, rate, num in ((32, 1e-2, 3_000), (256, 3e-3, 500)):
        schedule = optax.cosine_decay_schedule(rate, effort.steps(num))
        objective = vk.objectives.ReverseKL(family, num_samples=num_samples)
        stages.append((vk.algorithms.GradientDescent(objective, optax.adam, learning_rate=schedule), num))
    return descend(problem, stages, effort, first)


def member(fits: Fits, i: int) -> Any:
    """Return the parameters of one seed."""
    return jax.tree.map(lambda leaf: leaf[i], fits.params)


def judge(problem: Problem, fits: Fits, effort: Effort) -> list[Any]:
    """Return the report of every seed, over its own fresh draws."""
    return [
        vk.diagnose(
            jax.random.key(1_000 + seed), problem.target, fits.family, member(fits, i), num_samples=effort.judged
        )
        for i, seed in enumerate(effort.seeds)
    ]


def moments(fits: Fits, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of a Gaussian fit, in double precision."""
    q = fits.family.dist(member(fits, i))
    factor = np.asarray(q.scale_tri, np.float64)
    return np.asarray(q.mean(), np.float64), factor @ factor.T
