"""Coefficients that change in training: functions of the step, as optax's schedules are.

They are made once and called with an int or a traced step, under `jit` or inside optax. They serve as the weight β of a
KL, as the minimum of `free_bits`, as the target of `capacity`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax.numpy as jnp

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Float

    Schedule = Callable[[ArrayLike], Float[Array, "..."]]


def _count(name: str, value: int) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < 1:
        raise ValueError(f"{name}: expected a positive whole number, got {value!r}")
    return value.__index__()


def _make(num_steps: int, start: float, end: float, shape: Callable[[Array], Array]) -> Schedule:
    """Go from start to end as the shape goes from 0 to 1 with the fraction of the steps done."""
    total = _count("num_steps", num_steps)
    for name, value in {"start": start, "end": end}.items():
        if not math.isfinite(value):
            raise ValueError(f"{name}: expected a finite number, got {value}")

    def schedule(step: ArrayLike) -> Array:
        done = jnp.clip(jnp.asarray(step).astype(jnp.result_type(float)), 0, total)
        level = jnp.where(done > 0, jnp.where(done < total, shape(done), 1.0), 0.0)  # both ends exactly
        return (1 - level) * start + level * end

    return schedule


def linear(num_steps: int, start: float = 0.0, end: float = 1.0) -> Schedule:
    """Go from start to end in equal steps, then stay.

    Args:
        num_steps: steps until the end.
        start: value at step 0 and before.
        end: value from step `num_steps` on.

    Returns:
        A function of the step.

    Raises:
        ValueError: for a number of steps that is no positive int, or ends that are not finite.

    Example:
        >>> import vi_kit.kl as kl
        >>> beta = kl.schedules.linear(100)
        >>> [float(beta(step)) for step in (0, 50, 100, 1000)]
        [0.0, 0.5, 1.0, 1.0]
    """
    return _make(num_steps, start, end, lambda done: done / num_steps)


def cyclical(
    num_steps: int, num_cycles: int = 4, ramp_fraction: float = 0.5, start: float = 0.0, end: float = 1.0
) -> Schedule:
    """Go from start to end again and again, staying at the end of each cycle, then stay for good.

    Args:
        num_steps: steps of all cycles together.
        num_cycles: how many cycles; the steps need not divide evenly.
        ramp_fraction: the part of a cycle in which the value rises, above 0 and at most 1; it then stays at the end.
        start: value at the beginning of a cycle.
        end: value at the end of a cycle, and from step `num_steps` on.

    Returns:
        A function of the step.

    Raises:
        ValueError: for numbers that are no positive ints, a ramp fraction out of range, or ends that are not finite.

    Source: H. Fu, C. Li, X. Liu, J. Gao, A. Celikyilmaz, L. Carin, "Cyclical annealing schedule: a simple approach to
    mitigating KL vanishing" (2019), https://arxiv.org/abs/1903.10145.

    Example:
        >>> import vi_kit.kl as kl
        >>> beta = kl.schedules.cyclical(100, num_cycles=2)
        >>> [round(float(beta(step)), 3) for step in (0, 10, 25, 49, 50, 100)]
        [0.0, 0.4, 1.0, 1.0, 0.0, 1.0]
    """
    cycles = _count("num_cycles", num_cycles)
    if cycles > _count("num_steps", num_steps):
        raise ValueError(f"num_cycles: expected at most the {num_steps} steps, got {num_cycles}")
    if not 0 < ramp_fraction <= 1:
        raise ValueError(f"ramp_fraction: expected a number above 0 and at most 1, got {ramp_fraction}")

    def shape(done: Array) -> Array:
        position = done * cycles / num_steps  # whole at the beginning of a cycle, rounding or not
        return jnp.minimum((position - jnp.floor(position)) / ramp_fraction, 1)

    return _make(num_steps, start, end, shape)


def sigmoid(num_steps: int, start: float = 0.0, end: float = 1.0, *, steepness: float = 10.0) -> Schedule:
    r"""Go from start to end along a logistic curve centered at half of the steps, then stay.

    $$ \sigma\bigl(k (t/T - \tfrac12)\bigr), \quad \text{rescaled to be start at 0 and end at T exactly} $$

    Args:
        num_steps: steps T until the end.
        start: value at step 0 and before.
        end: value from step `num_steps` on.
        steepness: k, positive; near 0 it is the linear schedule, large it is a jump at T/2.

    Returns:
        A function of the step.

    Raises:
        ValueError: for a number of steps that is no positive int, a steepness that is not positive and finite, or
            ends that are not finite.

    Source: S. R. Bowman, L. Vilnis, O. Vinyals, A. M. Dai, R. Jozefowicz, S. Bengio, "Generating sentences from a
    continuous space" (2016), https://arxiv.org/abs/1511.06349.

    Example:
        >>> import vi_kit.kl as kl
        >>> beta = kl.schedules.sigmoid(100)
        >>> [round(float(beta(step)), 3) for step in (0, 25, 50, 75, 100)]
        [0.0, 0.07, 0.5, 0.93, 1.0]
    """
    if not 0 < steepness < math.inf:
        raise ValueError(f"steepness: expected a positive number, got {steepness}")
    half = math.tanh(steepness / 4)
    return _make(
        num_steps, start, end, lambda done: 0.5 + jnp.tanh(steepness / 2 * (done / num_steps - 0.5)) / (2 * half)
    )
