"""How the ladder trains a family by gradients, and how many steps of that its budget allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import optax

from vi_kit._budget import Budget
from vi_kit._checkpoint import Checkpoint
from vi_kit.algorithms import GradientDescent
from vi_kit.objectives import ReverseKL

_SHARE = 0.6  # of the seconds that are left, for one training


@dataclass(frozen=True)
class Training:
    """How a family is trained: tried by hand on the targets marked * in experiments/no_tuning."""

    num_samples: int
    learning_rate: float
    steps: int = 2_000
    least_steps: int = 500

    def algorithm(self, family: Any, steps: int) -> GradientDescent:
        """Return Adam on reverse KL, with a rate that falls to zero in so many steps."""
        rate = optax.cosine_decay_schedule(self.learning_rate, steps)
        return GradientDescent(ReverseKL(family, num_samples=self.num_samples), optax.adam, learning_rate=rate)


def steps_within(
    training: Training, budget: Budget, compile_seconds: float, checkpoint: Checkpoint | None, name: str
) -> int:
    """Return how many steps to take, 0 where too few could be; a training that was begun before keeps its number.

    Args:
        training: how.
        budget: what is left.
        compile_seconds: what compiling is taken to cost.
        checkpoint: where that number is kept, if anywhere.
        name: the training's name there.
    """
    begun = {} if checkpoint is None else checkpoint.section(f"{name} steps")
    if begun:
        return int(begun["steps"])
    seconds = training.num_samples * budget.evaluation_seconds
    seconds_left = budget.seconds_left() - compile_seconds
    affordable = min(
        training.steps,
        _SHARE * seconds_left / max(seconds, 1e-9),
        budget.evaluations_left() / training.num_samples,
    )
    if affordable < training.least_steps:
        return 0
    if checkpoint is not None:
        checkpoint.keep(f"{name} steps", {"steps": int(affordable)})
    return int(affordable)
