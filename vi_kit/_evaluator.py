"""A log density and its gradient at points on the host: one compiled program, whatever their number."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vi_kit._budget import Budget, OutOfBudgetError
from vi_kit._checkpoint import Checkpoint
from vi_kit._types import Target

_CAPACITY = 512
_WIDTH = 8
_SLOW = 2.0  # seconds for points evaluated at once, beyond which they are evaluated one by one


@partial(jax.jit, static_argnums=(3,))
def _evaluate(
    target: Target, points: Float[Array, "capacity dim"], count: Int[Array, ""], width: int
) -> tuple[Array, Array]:
    """Evaluate the first `count` points, `width` at a time."""
    evaluate = jax.vmap(jax.value_and_grad(target.log_density))

    def body(i: Int[Array, ""], carry: tuple[Array, Array]) -> tuple[Array, Array]:
        values, gradients = carry
        some = jax.lax.dynamic_slice_in_dim(points, i * width, width)
        value, gradient = evaluate(some)
        return (
            jax.lax.dynamic_update_slice_in_dim(values, value.astype(values.dtype), i * width, 0),
            jax.lax.dynamic_update_slice_in_dim(gradients, gradient.astype(gradients.dtype), i * width, 0),
        )

    empty = jnp.zeros(points.shape[0], points.dtype), jnp.zeros_like(points)
    found: tuple[Array, Array] = jax.lax.fori_loop(0, -(-count // width), body, empty)
    return found


class Evaluator:
    """What the rungs of a fit without an algorithm evaluate: every point counts, none beyond the budget."""

    def __init__(self, target: Target, budget: Budget, checkpoint: Checkpoint | None = None) -> None:
        self.target = target
        self.checkpoint = checkpoint
        self.budget = budget
        self.compile_seconds = 0.0
        self._width = _WIDTH
        self._timed = False

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return values, shape (n,), and gradients, shape (n, dim), in double precision.

        Raises:
            OutOfBudgetError: where they would cost more than is left.
        """
        if not self._timed:
            self._time(points[:1])
        recalled = None if self.checkpoint is None else self.checkpoint.recall(points)
        if recalled is not None:
            self.budget.evaluations += len(points)
            return recalled
        self._afford(len(points))
        parts = [self._run(points[i : i + _CAPACITY]) for i in range(0, len(points), _CAPACITY)]
        values, gradients = (np.concatenate(part) for part in zip(*parts, strict=True))
        self.budget.evaluations += len(points)
        if self.checkpoint is not None:
            self.checkpoint.remember(points, values, gradients)
        return values, gradients

    def _run(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = len(points)
        padded = np.zeros((_CAPACITY, points.shape[1]), jnp.result_type(float))
        if count:  # none only compiles
            padded[:count], padded[count:] = points, points[-1]
        found: Any = jax.device_get(_evaluate(self.target, padded, np.int32(count), self._width))
        return found[0][:count].astype(np.float64), found[1][:count].astype(np.float64)

    def _time(self, point: np.ndarray) -> None:
        """Compile; then find out what an evaluation takes, and how many are to be made at once."""
        for width in (_WIDTH, 1):
            self._width = width
            self.compile_seconds += self._seconds(point[:0])
            taken = self._seconds(point)
            if taken < _SLOW:  # the machine may have been busy
                taken = min(taken, self._seconds(point))
            self.budget.evaluation_seconds = taken / width
            if taken < _SLOW or self.budget.seconds_left() <= 0:
                break
        self._timed = True

    def _seconds(self, points: np.ndarray) -> float:
        began = time.perf_counter()
        self._run(points)
        self.budget.evaluations += len(points)
        return time.perf_counter() - began

    def _afford(self, num: int) -> None:
        chunks = -(-num // self._width) * self._width
        seconds = chunks * self.budget.evaluation_seconds
        if num > self.budget.evaluations_left() or seconds > self.budget.seconds_left():
            raise OutOfBudgetError(self.budget.spent(num))
