"""The ways to fit, each to all splits of a set at once: what they return are components of predictions."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from model import Regressor, arrays, make_target, maximum_a_posteriori

import vi_kit as vk

START_SCALE = 0.02


def setup(settings: Any, inputs: int, prior_scale: float, data: Any) -> tuple[Any, vk.Target]:
    """Return the network and its posterior given the rows of one split, in minibatches."""
    model = Regressor(inputs, settings.hidden, jax.random.key(0))
    return model, vk.targets.minibatch(make_target(model, data, prior_scale), settings.batch_size)


def starts(settings: Any, inputs: int, target: vk.Target, keys: Any) -> Any:
    """Draw the weights of a fresh network for every key, flat."""
    return jax.vmap(lambda key: target.unconstrain(arrays(Regressor(inputs, settings.hidden, key))))(keys)


def algorithm(settings: Any, family: Any) -> Any:
    """Return Adam on the reverse KL, with KL to the prior in closed form."""
    objective = vk.objectives.ReverseKL(
        family,
        vk.estimators.pathwise,
        num_samples=settings.draws,
        kl_term=vk.objectives.closed_form_kl,
    )
    rate = optax.cosine_decay_schedule(settings.variational_rate, settings.steps)
    return vk.algorithms.GradientDescent(objective, optax.adam, learning_rate=rate)


def variational(settings: Any, family: Any, target: vk.Target, rows: Any, means: Any) -> Any:
    """Fit q to the posterior of every split; return draws of parameters, (splits, draws, dim)."""
    method = algorithm(settings, family)

    def one(key: Any, data: Any, mean: Any) -> Any:
        start_key, fit_key, draw_key = jax.random.split(key, 3)
        start = family.init(start_key, mean=mean, scale=jnp.full_like(mean, START_SCALE))
        posterior = dataclasses.replace(target, data=data)
        q = family.dist(vk.optimize(fit_key, posterior, method, start, num_steps=settings.steps).params)
        return jax.vmap(lambda k: q.sample(seed=k))(jax.random.split(draw_key, settings.posterior_draws))

    return jax.vmap(one)(jax.random.split(jax.random.key(1), len(means)), rows, means)


def fit_one(settings: Any, target: vk.Target, key: Any) -> vk.Posterior:
    """Fit a mean-field Gaussian to the posterior of one split by `vk.fit`, from a fresh network."""
    family = vk.families.MeanField(target.dim)
    network_key, start_key, fit_key = jax.random.split(key, 3)
    mean = starts(settings, target.data["x"].shape[-1], target, network_key[None])[0]
    start = family.init(start_key, mean=mean, scale=jnp.full_like(mean, START_SCALE))
    return vk.fit(fit_key, target, algorithm(settings, family), start=start, num_steps=settings.steps, progress=False)


@eqx.filter_jit
def ensemble(settings: Any, target: vk.Target, rows: Any, members: Any) -> Any:
    """Fit networks from several starts to every split; return their parameters, (splits, members, dim)."""

    def one(key: Any, data: Any, z: Any) -> Any:
        posterior = dataclasses.replace(target, data=data)
        return maximum_a_posteriori(key, posterior, z, settings.steps, settings.learning_rate)

    keys = jax.random.split(jax.random.key(2), members.shape[:2])
    return jax.vmap(jax.vmap(one, in_axes=(0, None, 0)))(keys, rows, members)


@eqx.filter_jit
def predict_draws(model: Any, draws: Any, x: Any) -> tuple[Any, Any]:
    """Return means (draws, rows) and noises (draws, 1) at x of networks with a leading axis of draws."""
    static = eqx.filter(model, eqx.is_inexact_array, inverse=True)
    means, noises = jax.vmap(lambda params: eqx.combine(params, static)(x))(draws)
    return means, noises[:, None]


@eqx.filter_jit
def predict(model: Any, target: vk.Target, z: Any, x: Any) -> tuple[Any, Any]:
    """Return means (splits, components, rows) and noises (splits, components, 1) at x (splits, rows, inputs)."""
    static = eqx.filter(model, eqx.is_inexact_array, inverse=True)

    def one(z: Any, x: Any) -> tuple[Any, Any]:
        mean, noise = eqx.combine(target.constrain(z), static)(x)
        return mean, noise[None]

    return jax.vmap(jax.vmap(one, in_axes=(0, None)))(z, x)
