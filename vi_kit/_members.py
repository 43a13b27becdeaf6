"""Families and parameters that equal what was fitted on the host, and what a story calls them."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit import families
from vi_kit._gaussian_fit import GaussianFit
from vi_kit._mixture_fit import MixtureFit
from vi_kit._types import Family, KeyArray, Params
from vi_kit.families._mixture import MixtureParams


def gaussian_member(fit: GaussianFit) -> tuple[Family, Params]:
    """Return the full-rank or mean-field Gaussian."""
    dim, dtype = len(fit.mean), jnp.result_type(float)
    family: Any = families.FullRank(dim) if fit.scale.ndim == 2 else families.MeanField(dim)
    return family, _with_moments(np.asarray(fit.mean, dtype), np.asarray(fit.scale, dtype), family)


@partial(jax.jit, static_argnums=(2,))  # one program, not one an operation
def _with_moments(mean: Array, scale: Array, family: Any) -> Params:
    params: Params = family.init(jax.random.key(0), mean=mean, scale=scale)  # its key is not used
    return params


def mixture_member(fit: MixtureFit) -> tuple[Family, Params]:
    """Return the mixture of full-rank Gaussians."""
    (count, dim), dtype = fit.means.shape, jnp.result_type(float)

    each = [
        _with_moments(*pair, families.FullRank(dim))
        for pair in zip(np.asarray(fit.means, dtype), np.asarray(fit.scales, dtype), strict=True)
    ]
    components = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *each)
    params = MixtureParams(components, jnp.asarray(np.log(fit.weights), dtype))
    return families.Mixture(dim, count, families.FullRank), params


@partial(jax.jit, static_argnums=(2, 3))
def start_from(key: KeyArray, params: Params, family: Family, richer: Any) -> Params:
    """Return the member of a richer family that equals a fitted one."""
    found: Params = richer.init_from(key, family.dist(params))
    return found


def short_name(family: Any) -> str:
    """Name a family without its settings, as a story does."""
    name = type(family).__name__
    return f"{name} on Student-t" if isinstance(family, families.Flow) and family.base is families.StudentT else name
