"""L-BFGS with a line search that looks at one point a step, so that steps cost the same and may be interrupted."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from vi_kit._types import Scalar
from vi_kit.algorithms._gaussian import all_finite, choose

_DECREASE, _CURVATURE = 1e-4, 0.9  # the constants of Wolfe's conditions, as usual for quasi-Newton methods
_MOST_TRIALS = 20
_MOST_EXTENSIONS = 10


class Descent(NamedTuple):
    """Where a descent is.

    Attributes:
        position: the last point taken.
        value: the function there, infinite before the first.
        gradient: its gradient there.
        direction: where it looks next.
        length: how far along that, between `low`, known to be short, and `high`, known to be long.
        low: a length after which the slope is still steep.
        high: a length after which the value is not low enough.
        trials: looks along this direction.
        memory: what optax remembers of points and gradients.
    """

    position: Float[Array, " n"]
    value: Scalar
    gradient: Float[Array, " n"]
    direction: Float[Array, " n"]
    length: Scalar
    low: Scalar
    high: Scalar
    trials: Int[Array, ""]
    memory: PyTree

    @property
    def trial(self) -> Float[Array, " n"]:
        """The move from the position to the point to be looked at."""
        return self.length * self.direction


def _optax_promotion() -> AbstractContextManager[None]:
    return jax.numpy_dtype_promotion("standard")  # type: ignore[no-any-return]


def begin(position: Float[Array, " n"], memory_size: int) -> Descent:
    """Return the descent whose first trial is the position itself."""
    zero, still = jnp.zeros((), position.dtype), jnp.zeros_like(position)
    memory = optax.scale_by_lbfgs(memory_size).init(position)
    return Descent(
        position, zero + math.inf, still, still, zero + 1, zero, zero + math.inf, jnp.zeros((), jnp.int32), memory
    )


def advance(
    state: Descent, value: Scalar, gradient: Float[Array, " n"], memory_size: int
) -> tuple[Descent, Bool[Array, ""]]:
    """Take the trial with this value and gradient, or look nearer or farther; say whether it was taken.

    A point is taken where it fulfils Wolfe's weak conditions (up to the rounding of the value). What is not finite is
    too far. After 20 looks in vain the memory is dropped, and the direction is the gradient's.
    """
    first = jnp.isinf(state.value)
    slope, new_slope = jnp.sum(state.gradient * state.direction), jnp.sum(gradient * state.direction)
    rounding = 8 * float(np.finfo(state.position.dtype).eps) * jnp.abs(state.value)
    low_enough = value <= state.value + _DECREASE * state.length * slope + rounding
    usable = all_finite((value, gradient)) & (first | low_enough)
    taken = usable & (first | (new_slope >= _CURVATURE * slope) | (state.trials >= _MOST_EXTENSIONS))
    return choose(taken, _take(state, value, gradient, memory_size), _look(state, usable, memory_size)), taken


def _take(state: Descent, value: Scalar, gradient: Array, memory_size: int) -> Descent:
    transform = optax.scale_by_lbfgs(memory_size)
    first = jnp.isinf(state.value)
    convex = jnp.sum((gradient - state.gradient) * state.direction) > 0
    position = state.position + state.trial
    memory = choose(first | convex, state.memory, transform.init(position))
    direction, memory = _precondition(gradient, memory, position, memory_size)
    return _search(state._replace(position=position, value=value, gradient=gradient, memory=memory), direction)


def _look(state: Descent, usable: Bool[Array, ""], memory_size: int) -> Descent:
    low, high = jnp.where(usable, state.length, state.low), jnp.where(usable, state.high, state.length)
    length = jnp.where(jnp.isinf(high), 2 * low, 0.5 * (low + jnp.where(jnp.isinf(high), 0, high)))
    nearer = state._replace(low=low, high=high, length=length, trials=state.trials + 1)
    fresh = optax.scale_by_lbfgs(memory_size).init(state.position)
    direction, memory = _precondition(state.gradient, fresh, state.position, memory_size)
    chosen: Descent = choose(nearer.trials < _MOST_TRIALS, nearer, _search(state._replace(memory=memory), direction))
    return chosen


def _search(state: Descent, direction: Array) -> Descent:
    zero = jnp.zeros_like(state.length)
    return state._replace(
        direction=direction, length=zero + 1, low=zero, high=zero + math.inf, trials=jnp.zeros_like(state.trials)
    )


def _precondition(gradient: Array, memory: PyTree, position: Array, memory_size: int) -> tuple[Array, PyTree]:
    with _optax_promotion():  # it raises floats to integer powers
        moved, new = optax.scale_by_lbfgs(memory_size).update(gradient, memory, position)
    return -moved, jax.tree.map(lambda x, y: x.astype(y.dtype), new, memory)
