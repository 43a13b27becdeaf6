"""Gaussian targets of any condition number, and KL(q‖p) to them in double precision."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vi_kit as vk


class GaussianProblem(NamedTuple):
    """A target with its mean and covariance."""

    target: Any
    mean: np.ndarray
    covariance: np.ndarray

    def kl(self, family: Any, params: Any) -> float:
        """KL(q‖p), by the textbook formula."""
        q = family.dist(params)
        own, shift = np.asarray(q.covariance(), np.float64), np.asarray(q.mean(), np.float64) - self.mean
        precision = np.linalg.inv(self.covariance)
        logs = np.linalg.slogdet(self.covariance)[1] - np.linalg.slogdet(own)[1]
        return float(0.5 * (np.trace(precision @ own) - len(shift) + logs + shift @ precision @ shift))

    def params(self, family: Any) -> Any:
        """Parameters of p itself."""
        return family.init(
            jax.random.key(0), mean=jnp.asarray(self.mean), scale=jnp.asarray(np.linalg.cholesky(self.covariance))
        )


def _log_density(x: jax.Array, data: tuple[jax.Array, jax.Array]) -> jax.Array:
    mean, precision = data
    return -0.5 * (x - mean) @ precision @ (x - mean)


def gaussian(dim: int, condition: float, *, widest: float | None = None, seed: int = 0) -> GaussianProblem:
    """Return a rotated Gaussian with variances from widest / condition to widest, by default 1 to condition."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    variances = np.geomspace(1, condition, dim) * (condition if widest is None else widest) / condition
    mean = rng.normal(size=dim)
    data = (jnp.asarray(mean), jnp.asarray(rotation / variances @ rotation.T))
    return GaussianProblem(vk.make_target(_log_density, dim, data=data), mean, rotation * variances @ rotation.T)
