"""A Gaussian target with every answer known: exact gradients to test estimators and objectives against."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from registry import DIM

import vi_kit as vk

MEAN = np.array([1.0, -0.5])
FACTOR = np.array([[1.2, 0.0], [0.5, 0.7]])
LOG_NORMALIZER = 1.7


def log_density(x: jax.Array, data: tuple[jax.Array, jax.Array]) -> jax.Array:
    mean, factor = data
    whitened = jax.scipy.linalg.solve_triangular(factor, x - mean, lower=True)
    log_determinant = jnp.sum(jnp.log(jnp.diagonal(factor)))
    return LOG_NORMALIZER - 0.5 * whitened @ whitened - log_determinant - 0.5 * DIM * np.log(2 * np.pi)


def gaussian_target() -> Any:
    """The density of N(MEAN, FACTOR FACTORᵀ) times exp(LOG_NORMALIZER), with exact draws."""
    return vk.make_target(
        log_density,
        DIM,
        data=(MEAN, FACTOR),
        sample=lambda key, data: data[0] + data[1] @ jax.random.normal(key, (DIM,)),
        log_normalizer=LOG_NORMALIZER,
    )


def start(family: Any) -> Any:
    """Parameters some way off the target, couplings included."""
    params = family.init(jax.random.key(0), mean=jnp.array([0.2, 0.3]), scale=jnp.array([0.8, 1.1]))
    return jax.tree.map(lambda leaf: leaf + 0.1 * jnp.ones_like(leaf), params)


def reverse_kl(family: Any, params: Any) -> jax.Array:
    """KL(q‖p) in closed form, by the textbook formula."""
    q = family.dist(params)
    return gaussian_kl(q.mean(), q.covariance(), jnp.asarray(MEAN), jnp.asarray(FACTOR @ FACTOR.T))


def forward_kl(family: Any, params: Any) -> jax.Array:
    """KL(p‖q) in closed form, by the textbook formula."""
    q = family.dist(params)
    return gaussian_kl(jnp.asarray(MEAN), jnp.asarray(FACTOR @ FACTOR.T), q.mean(), q.covariance())


def gaussian_kl(p_mean: jax.Array, p_covariance: jax.Array, q_mean: jax.Array, q_covariance: jax.Array) -> jax.Array:
    precision, shift = jnp.linalg.inv(q_covariance), q_mean - p_mean
    log_ratio = jnp.linalg.slogdet(q_covariance)[1] - jnp.linalg.slogdet(p_covariance)[1]
    return 0.5 * (jnp.trace(precision @ p_covariance) + shift @ precision @ shift - p_mean.shape[0] + log_ratio)


def target_entropy() -> float:
    return float(np.sum(np.log(np.diag(FACTOR))) + 0.5 * DIM * (1 + np.log(2 * np.pi)))
