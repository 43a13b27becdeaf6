"""What is minimized: each function makes a loss of (model, x, key, step), in nats an image."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from model import VAE, draw

from vi_kit import kl

Loss = Callable[[VAE, jax.Array, jax.Array, jax.Array], jax.Array]


def constant(step: Any) -> float:
    """Weigh the KL as the ELBO does."""
    return 1.0


@functools.cache
def closed_form(schedule: Callable[[Any], Any] = constant) -> Loss:
    """Negative ELBO with KL(q‖p) in closed form, weighted by a schedule."""

    def loss(model: VAE, x: jax.Array, key: jax.Array, step: jax.Array) -> jax.Array:
        q = model.encode(x)
        fit = jnp.mean(model.log_likelihood(x, draw(q, key, 1)))
        return schedule(step) * jnp.mean(jnp.sum(kl.normal(*q), axis=-1)) - fit

    return loss


@functools.cache
def free_bits(minimum: float) -> Loss:
    """Negative ELBO, with so many nats a latent (averaged over the batch) that cost nothing."""

    def loss(model: VAE, x: jax.Array, key: jax.Array, step: jax.Array) -> jax.Array:
        q = model.encode(x)
        fit = jnp.mean(model.log_likelihood(x, draw(q, key, 1)))
        return jnp.sum(kl.free_bits(kl.normal(*q), minimum, order=kl.batch_then_clip)) - fit

    return loss


@functools.cache
def importance_weighted(num_draws: int) -> Loss:
    """Negative importance-weighted bound; with one draw the negative ELBO, its KL by that draw."""

    def loss(model: VAE, x: jax.Array, key: jax.Array, step: jax.Array) -> jax.Array:
        q = model.encode(x)
        return -jnp.mean(kl.importance_weighted_bound(model.log_weights(x, draw(q, key, num_draws), q)))

    return loss


@functools.cache
def doubly_reparameterized(num_draws: int) -> Loss:
    """The same value, with doubly reparameterized gradients for the encoder."""

    def loss(model: VAE, x: jax.Array, key: jax.Array, step: jax.Array) -> jax.Array:
        stop = jax.lax.stop_gradient
        q = model.encode(x)
        z = draw(q, key, num_draws)
        graph, params = nnx.split(model)
        frozen = nnx.merge(graph, stop(params))
        to_encoder = kl.importance_weighted_bound(frozen.log_weights(x, z, stop(q)), gradient=kl.doubly_reparameterized)
        to_decoder = kl.importance_weighted_bound(model.log_weights(x, stop(z), stop(q)))
        return -jnp.mean(to_encoder + to_decoder - stop(to_decoder))  # the value once, both gradients

    return loss
