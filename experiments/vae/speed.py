"""What a training step costs: with `kl.normal` beside the same step with the KL written by hand, in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from losses import closed_form, doubly_reparameterized, importance_weighted
from model import VAE, draw
from train import step_function


def clock() -> float:
    """Return seconds: of processors on a CPU, which others may share, else of the wall."""
    return time.process_time() if jax.default_backend() == "cpu" else time.perf_counter()


def by_hand(model: VAE, x: jax.Array, key: jax.Array, step: jax.Array) -> jax.Array:
    """Negative ELBO, with the KL as it stands in many a tutorial."""
    mean, log_scale = model.encode(x)
    fit = jnp.mean(model.log_likelihood(x, draw((mean, log_scale), key, 1)))
    divergence = -0.5 * jnp.sum(1 + 2 * log_scale - mean**2 - jnp.exp(2 * log_scale), axis=-1)
    return 1.0 * jnp.mean(divergence) - fit


def bound_by_hand(num_draws: int) -> Callable[..., jax.Array]:
    """Negative importance-weighted bound by logsumexp."""

    def loss(model: VAE, x: jax.Array, key: jax.Array, step: jax.Array) -> jax.Array:
        q = model.encode(x)
        log_weights = model.log_weights(x, draw(q, key, num_draws), q)
        return -jnp.mean(jax.nn.logsumexp(log_weights, axis=0) - jnp.log(float(num_draws)))

    return loss


def compare(title: str, sizes: tuple[int, tuple[int, ...], int, int], losses: Any, repeats: int) -> dict[str, Any]:
    """Time the training steps of several losses in turn, one batch a call; the last is that written by hand."""
    pixels, hidden, latents, batch = sizes
    graph, params = nnx.split(VAE(pixels, hidden, latents, nnx.Rngs(0)))
    moments = optax.scale_by_adam().init(params)
    x = jax.random.bernoulli(jax.random.key(1), 0.3, (batch, pixels)).astype(jnp.float32)
    rest = x, jax.random.key(2), jnp.asarray(1e-3), jnp.asarray(0)
    programs = {n: jax.jit(step_function(graph, f)).lower(params, moments, *rest).compile() for n, f in losses.items()}
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for i in range(repeats):
        for name in list(losses) if i % 2 else list(losses)[::-1]:
            began = clock()
            for _ in range(10):
                jax.block_until_ready(programs[name](params, moments, *rest))
            seconds[name].append((clock() - began) / 10)
    *_, base = losses
    rows = []
    for name, program in programs.items():
        memory = program.memory_analysis()
        ratios = [a / b for a, b in zip(seconds[name], seconds[base], strict=True)]
        rows.append(
            {
                "step": title,
                "loss": name,
                "seconds": statistics.median(seconds[name]),
                "ratio to by hand": statistics.median(ratios),
                "state bytes": memory.argument_size_in_bytes - x.nbytes,
                "temporary bytes": memory.temp_size_in_bytes,
            }
        )
    return {"rows": rows}


def measure(repeats: int, draws: int, small: tuple[int, ...] = (64,)) -> list[dict[str, Any]]:
    """Return the rows for the digits' model, for the published sizes and for the importance-weighted bound.

    Few repeats are a smoke run's, which leaves out the published sizes.
    """
    elbo = {"kl.normal": closed_form(), "by hand": by_hand}
    bounds = {
        "kl.doubly_reparameterized": doubly_reparameterized(draws),
        "kl.importance_weighted_bound": importance_weighted(draws),
        "by hand": bound_by_hand(draws),
    }
    found = compare("k = 1, 64-64-16", (64, small, 16, 100), elbo, 4 * repeats)["rows"]
    found += compare("k = 1, 784-200-200-50", (784, (200, 200), 50, 100), elbo, repeats)["rows"] if repeats > 2 else []
    return found + compare(f"k = {draws}, 64-64-16", (64, small, 16, 100), bounds, repeats)["rows"]
