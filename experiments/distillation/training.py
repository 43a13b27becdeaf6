"""Training of many students at once, in one compiled program.

Every seed and learning rate is a batch entry; which loss is minimized is a number, so that another compiles nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array


@functools.partial(jax.jit, static_argnames=("losses", "judge", "num_steps", "every", "context_axis"))
def train(
    losses: tuple[Callable[..., Array], ...],
    judge: Callable[..., Any],
    choice: Array,
    keys: Array,
    models: Any,
    contexts: Any,
    rates: Array,
    *,
    num_steps: int,
    every: int,
    context_axis: int | None = 0,
) -> tuple[Any, Any]:
    """Minimize one of `losses(model, context, key)` by Adam from each seed's model, once with each rate.

    Args:
        losses: what a step may differentiate.
        judge: `judge(model, context, key)`, a tree of numbers, called after every `every` steps.
        choice: which of the losses, an index.
        keys: one a seed.
        models: the start, leaves with an axis of seeds.
        contexts: data and teachers, leaves with an axis of seeds, or the same for all.
        rates: learning rates, falling to a tenth along a cosine.
        num_steps: steps, a multiple of `every`.
        every: steps from one judgment to the next.
        context_axis: 0, or None if the context is the same for all.

    Returns:
        The models and the judgments, with axes (rates, seeds) and (rates, seeds, judgments) in front.
    """
    gradients = [jax.grad(loss) for loss in losses]

    def one(key: Array, model: Any, context: Any, rate: Array) -> tuple[Any, Any]:
        schedule = optax.cosine_decay_schedule(1.0, num_steps, alpha=0.1)
        optimizer = optax.chain(
            optax.clip_by_global_norm(1.0), optax.scale_by_adam(), optax.scale_by_schedule(schedule)
        )
        judge_key, step_key = jax.random.split(key)

        def step(carry: Any, i: Array) -> tuple[Any, None]:
            model, state = carry
            gradient = jax.lax.switch(choice, gradients, model, context, jax.random.fold_in(step_key, i))
            updates, state = optimizer.update(gradient, state, model)
            return (jax.tree.map(lambda leaf, change: leaf - rate * change, model, updates), state), None

        def segment(carry: Any, places: Array) -> tuple[Any, Any]:
            carry, _ = jax.lax.scan(step, carry, places)
            return carry, judge(carry[0], context, judge_key)

        places = jnp.arange(num_steps).reshape(-1, every)
        (model, _), judgments = jax.lax.scan(segment, (model, optimizer.init(model)), places)
        return model, judgments

    over_seeds = jax.vmap(one, in_axes=(0, 0, context_axis, None))
    return jax.vmap(over_seeds, in_axes=(None, None, None, 0))(keys, models, contexts, rates)
