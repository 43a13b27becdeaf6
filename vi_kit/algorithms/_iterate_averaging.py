"""The average of an algorithm's iterates, in place of the last one."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from vi_kit._static import configuration, leaf
from vi_kit._types import Algorithm, Family, KeyArray, Params, StepInfo, Target
from vi_kit.algorithms._gaussian import choose
from vi_kit.objectives._checks import check_number


class IterateAveragingState(NamedTuple):
    """What averaging remembers.

    Attributes:
        algorithm_state: the state of the algorithm whose iterates are averaged; the average is not fed back to it.
        average: the weighted mean of its parameters so far, those of the start before the first step.
        num_averaged: how many parameters are in the average.
    """

    algorithm_state: PyTree
    average: Params
    num_averaged: Int[Array, ""]


@configuration
class IterateAveraging:
    r"""The weighted mean of the parameters that an algorithm goes through, for steps that do not get smaller.

    $$ \bar\theta_t = \bar\theta_{t-1} + \tfrac{a + 1}{t + a} (\theta_t - \bar\theta_{t-1}), \quad
       \text{weight of } \theta_k \propto \Gamma(k + a) / \Gamma(k) \approx k^a $$

    At a constant rate the last iterate goes on moving around the optimum at a distance that the rate sets; the mean of
    the iterates has most of that noise averaged away, and no schedule has to know the number of steps. The larger the
    power, the sooner the way there is forgotten, and the fewer iterates are averaged: about the last 1/(a + 1) of them.

    Args:
        algorithm: the algorithm whose iterates are averaged, in the coordinates of its parameters.
        power: a, at least 0, which is the plain mean (another number compiles nothing).

    Costs what the algorithm costs. A step that is not finite is not counted.

    Raises:
        TypeError: for an argument of the wrong kind.
        ValueError: for a negative power.

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992,
    https://doi.org/10.1137/0330046; the weights are those of Shamir and Zhang, "Stochastic Gradient Descent for
    Non-smooth Optimization", 2013, https://arxiv.org/abs/1212.1824

    Example:
        >>> import jax, jax.numpy as jnp, optax, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum((x - 3.0) ** 2), 2)
        >>> objective = vk.objectives.ReverseKL(vk.families.MeanField(2), vk.estimators.pathwise)
        >>> descent = vk.algorithms.GradientDescent(objective, optax.sgd, learning_rate=0.1)
        >>> algorithm = vk.algorithms.IterateAveraging(descent)
        >>> start = algorithm.family.init(jax.random.key(0))
        >>> fit = vk.optimize(jax.random.key(1), target, algorithm, start, num_steps=1_000)
        >>> fit.params.mean.round(1).tolist()
        [3.0, 3.0]
    """

    algorithm: Algorithm
    power: float | Array = leaf(default=3.0)

    def __post_init__(self) -> None:
        """Check the algorithm and the power."""
        if not callable(getattr(self.algorithm, "step", None)):
            raise TypeError(f"algorithm: expected one of vi_kit.algorithms, got {self.algorithm!r}")
        check_number("power", self.power, least=0.0)

    @property
    def family(self) -> Family:
        """The family that the algorithm fits."""
        return self.algorithm.family

    @property
    def objective(self) -> Any:
        """The algorithm's objective, where it has one."""
        # Not in the Protocol: where there is none, `getattr` with a default is to see the AttributeError.
        return self.algorithm.objective  # type: ignore[attr-defined]

    def evaluations(self, target: Target) -> int:
        """Target evaluations a step costs."""
        return self.algorithm.evaluations(target)

    def init(self, params: Params, target: Target, key: KeyArray) -> IterateAveragingState:
        """Return the first state."""
        state = self.algorithm.init(params, target, key)
        return IterateAveragingState(state, self.algorithm.params(state), jnp.zeros((), jnp.int32))

    def step(
        self, state: IterateAveragingState, target: Target, key: KeyArray
    ) -> tuple[IterateAveragingState, StepInfo]:
        """Take one step of the algorithm, and take its parameters into the average."""
        inner, info = self.algorithm.step(state.algorithm_state, target, key)
        num = state.num_averaged + 1

        def mixed(average: Array, new: Array) -> Array:
            power = jnp.asarray(self.power, average.dtype)
            return average + (power + 1) / (num.astype(average.dtype) + power) * (new - average)

        average = jax.tree.map(mixed, state.average, self.algorithm.params(inner))
        average, num = choose(info.finite, (average, num), (state.average, state.num_averaged))
        return IterateAveragingState(inner, average, num), info

    def params(self, state: IterateAveragingState) -> Params:
        """Read the average off a state."""
        return state.average
