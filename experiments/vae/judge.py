"""What is reported of a trained model, on test images: bounds, KL, and which latents it uses."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import workbench
from flax import nnx
from images import Images, binarized
from train import test_bound

from vi_kit import kl


@functools.partial(jax.jit, static_argnums=0)
def latents(graph: Any, params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the mean KL to N(0, 1) of every latent and whether it is active: shape (seeds, latents) each."""

    def one(params: Any) -> tuple[jax.Array, jax.Array]:
        mean, log_scale = nnx.merge(graph, params).encode(x)
        return jnp.mean(kl.normal(mean, log_scale), axis=0), kl.active_units(mean)

    return jax.vmap(one)(params)


def judge(fitted: dict[str, Any], images: Images, num_draws: int) -> dict[str, Any]:
    """Return test bound, ELBO, KL and active units, one value a seed, with standard errors over seeds."""
    graph, params = fitted["graph"], fitted["params"]
    x = jnp.asarray(binarized(images.test, seed=3))
    bounds = np.asarray(test_bound(graph, params, x, jax.random.key(4), num_draws), np.float64)
    elbos = np.asarray(test_bound(graph, params, x, jax.random.key(5), 1), np.float64)
    divergences, active = (np.asarray(array) for array in latents(graph, params, x))
    return {
        "bound": workbench.summary(bounds.mean(axis=1)),
        "elbo": workbench.summary(elbos.mean(axis=1)),
        "KL to N(0, I)": workbench.summary(divergences.sum(axis=1)),
        "active units": workbench.summary(active.sum(axis=1)),
        "latents": int(active.shape[1]),
        "KL a unit, largest first": np.sort(divergences, axis=1)[:, ::-1].mean(axis=0).tolist(),
        "error over test images": float(bounds.mean(axis=0).std(ddof=1) / np.sqrt(len(x))),
        "validation": workbench.summary(fitted["history"].max(axis=0)),
        "validation bounds by look": fitted["history"].mean(axis=1).tolist(),
        "looks until the best": (fitted["history"].argmax(axis=0) + 1).tolist(),
        "parameters of one model": sum(leaf[0].size for leaf in jax.tree.leaves(params)),
        "seconds a step": fitted["seconds a step"],
    }


def paired(better: dict[str, Any], than: dict[str, Any]) -> dict[str, Any]:
    """Return how far one test bound is above another, seed by seed, and that in standard errors."""
    found = workbench.summary(np.subtract(better["bound"]["values"], than["bound"]["values"]).tolist())
    error = found["standard_error"]
    return found | {"standard errors": found["mean"] / error if error else None}
