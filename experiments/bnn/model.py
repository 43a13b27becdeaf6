"""A network with noise in equinox, as a density of its parameters; and its fit by maximum a posteriori."""

from __future__ import annotations

import math
from typing import Any

import distrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import vi_kit as vk


class Regressor(eqx.Module):
    """y = network(x) + noise, whose standard deviation is learned too."""

    network: eqx.nn.MLP
    log_noise: jax.Array

    def __init__(self, inputs: int, hidden: int, key: Any) -> None:
        """Draw the weights."""
        self.network = eqx.nn.MLP(inputs, "scalar", hidden, depth=1, activation=jnp.tanh, key=key)
        self.log_noise = jnp.asarray(-0.5)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return mean and standard deviation of y for rows of x."""
        return jax.vmap(self.network)(x), jnp.exp(self.log_noise)


def arrays(model: Regressor) -> Any:
    """Return what is learned."""
    return eqx.filter(model, eqx.is_inexact_array)


def make_target(model: Regressor, data: Any, prior_scale: Any) -> vk.Target:
    """Return the posterior of the parameters; priors are N(0, prior_scale²), for weights divided by the inputs."""
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def log_likelihood(params: Any, data: Any) -> Any:
        mean, noise = eqx.combine(params, static)(data["x"])
        return jnp.sum(jax.scipy.stats.norm.logpdf(data["y"], mean, noise))

    def normal(leaf: jax.Array) -> Any:
        fan_in = leaf.shape[1] if leaf.ndim == 2 else 1
        return distrax.Normal(jnp.zeros_like(leaf), jnp.full_like(leaf, 1 / math.sqrt(fan_in)) * prior_scale)

    return vk.make_target(log_likelihood, params, data=data, prior=jax.tree.map(normal, params))


def maximum_a_posteriori(key: Any, target: vk.Target, z: Any, num_steps: int, learning_rate: float) -> Any:
    """Follow the gradient of minibatches' log posterior; z holds the parameters, flat."""
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))
    rows = len(target.data["y"])

    def step(carry: Any, key: Any) -> Any:
        z, state = carry
        gradient = jax.grad(lambda z: -target.subsample(key).log_density(z) / rows)(z)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(z, updates), state), None

    (z, _), _ = jax.lax.scan(step, (z, optimizer.init(z)), jax.random.split(key, num_steps))
    return z
