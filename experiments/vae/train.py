"""Training, all seeds in one compiled program, and the bound by which models are judged."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import workbench
from flax import nnx
from images import Images, binarized
from losses import Loss
from model import VAE, draw

from vi_kit import kl

EPOCHS_A_LOOK = 10
VALIDATION_DRAWS = 50
Build = Callable[[nnx.Rngs], VAE]


@functools.partial(jax.jit, static_argnums=(0, 4))
def test_bound(graph: Any, params: Any, x: jax.Array, key: jax.Array, num_draws: int) -> jax.Array:
    """Return the importance-weighted bound of every image by every seed's model, in nats: shape (seeds, images).

    The draws of q are made of the same noise for all models. Images come one after another, so that memory is that of
    one image's draws.
    """

    def one(params: Any) -> jax.Array:
        model = nnx.merge(graph, params)

        def bound(image: tuple[jax.Array, jax.Array]) -> jax.Array:
            q = model.encode(image[0])
            return kl.importance_weighted_bound(model.log_weights(image[0], draw(q, image[1], num_draws), q))

        return jax.lax.map(bound, (x, jax.random.split(key, len(x))))

    return jax.lax.map(one, params)


def step_function(graph: Any, loss: Loss) -> Callable[..., Any]:
    """Return one step of Adam on one batch; the rate comes with the call."""
    adam = optax.scale_by_adam()

    def step(params: Any, moments: Any, x: jax.Array, key: jax.Array, rate: jax.Array, number: jax.Array) -> Any:
        value, gradient = jax.value_and_grad(lambda p: loss(nnx.merge(graph, p), x, key, number))(params)
        updates, moments = adam.update(gradient, moments)
        params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
        return params, moments, value

    return step


@functools.cache
def epochs_function(graph: Any, loss: Loss, size: int, total_steps: int) -> Callable[..., Any]:
    """Return a compiled function that goes over the images a few times, for all seeds at once.

    Order, binarization and draws of an epoch follow from the seed and the epoch's number alone. The rate falls along
    a cosine.
    """
    step = step_function(graph, loss)

    def one(params: Any, moments: Any, key: jax.Array, rate: jax.Array, first: jax.Array, images: jax.Array) -> Any:
        num = len(images) // size

        def epoch(carry: Any, number: jax.Array) -> Any:
            order_key, batch_key = jax.random.split(jax.random.fold_in(key, number))
            order = jax.random.permutation(order_key, len(images))[: num * size].reshape(num, size)

            def batch(carry: Any, now: Any) -> Any:
                params, moments = carry
                rows, key, i = now
                pixel_key, key = jax.random.split(key)
                x = jax.random.bernoulli(pixel_key, images[rows]).astype(images.dtype)
                at = number * num + i
                here = rate * 0.5 * (1 + jnp.cos(jnp.pi * at / total_steps))
                params, moments, value = step(params, moments, x, key, here, at)
                return (params, moments), value

            keys = jax.random.split(batch_key, num)
            carry, values = jax.lax.scan(batch, carry, (order, keys, jnp.arange(num)))
            return carry, jnp.mean(values)

        carry, values = jax.lax.scan(epoch, (params, moments), first + jnp.arange(EPOCHS_A_LOOK))
        return *carry, jnp.mean(values)

    return jax.jit(jax.vmap(one, (0, 0, 0, 0, None, None)))


def train(
    run: workbench.Run,
    name: str,
    build: Build,
    loss: Loss,
    images: Images,
    *,
    seeds: tuple[int, ...],
    rates: tuple[float, ...],
    epochs: int,
    batch: int,
) -> dict[str, Any]:
    """Train a model a seed, each at its rate; return those of the best validation bound, and how it went.

    It goes on where it was stopped. What the validation bounds were is in `history`, shape (looks, seeds).
    """
    looks = -(-epochs // EPOCHS_A_LOOK)
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    split = jax.vmap(lambda key: jax.random.split(key, 2))(keys)
    models = [nnx.split(build(nnx.Rngs(key))) for key in split[:, 0]]
    graph = models[0][0]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(leaves for _, leaves in models))
    state = {
        "params": params,
        "moments": jax.vmap(optax.scale_by_adam().init)(params),
        "best": params,
        "history": jnp.full((looks, len(seeds)), -jnp.inf),
        "looks": jnp.asarray(0),
        "seconds": jnp.asarray(0.0),
    }
    state = run.restore(name, state) or state
    validation = jnp.asarray(binarized(images.validation, seed=1))
    train_images = jnp.asarray(images.train)
    num_steps = EPOCHS_A_LOOK * (len(images.train) // batch)
    several = epochs_function(graph, loss, batch, looks * num_steps)
    first = int(state["looks"])
    for look in range(first, looks):
        began = time.process_time()
        start = jnp.asarray(look * EPOCHS_A_LOOK)
        moved = several(state["params"], state["moments"], split[:, 1], jnp.asarray(rates), start, train_images)
        params, moments, values = jax.block_until_ready(moved)
        # The first look of a process compiles: what was measured before, if anything was, stands.
        seconds = time.process_time() - began if look > first else float(state["seconds"])
        bound = test_bound(graph, params, validation, jax.random.key(2), VALIDATION_DRAWS).mean(axis=1)
        better = bound > jnp.max(state["history"], axis=0)
        best = jax.tree.map(functools.partial(_choose, better), params, state["best"])
        history = state["history"].at[look].set(bound)
        state = {"params": params, "moments": moments, "best": best, "history": history}
        state |= {"looks": jnp.asarray(look + 1), "seconds": jnp.asarray(seconds)}
        run.save(name, state)
        at = f"{name}: epoch {(look + 1) * EPOCHS_A_LOOK}"
        print(f"{at}, loss {values.mean():.3f}, validation {bound.mean():.3f}", flush=True)
    each = float(state["seconds"]) / (num_steps * len(seeds)) or None  # None: never measured
    return {"graph": graph, "params": state["best"], "history": np.asarray(state["history"]), "seconds a step": each}


def _choose(better: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)
