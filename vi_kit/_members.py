"""Families and parameters that equal what was fitted on the host, and what a story calls them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vi_kit import families
from vi_kit._gaussian_fit import GaussianFit
from vi_kit._mixture_fit import MixtureFit
from vi_kit._types import Family, Params
from vi_kit.families._mixture import MixtureParams


def gaussian_member(fit: GaussianFit) -> tuple[Family, Params]:
    """Return the full-rank or mean-field Gaussian."""
    dim, dtype = len(fit.mean), jnp.result_type(float)
    family: Any = families.FullRank(dim) if fit.scale.ndim == 2 else families.MeanField(dim)
    mean, scale = jnp.asarray(fit.mean, dtype), jnp.asarray(fit.scale, dtype)
    return family, family.init(jax.random.key(0), mean=mean, scale=scale)  # its key is not used


def mixture_member(fit: MixtureFit) -> tuple[Family, Params]:
    """Return the mixture of full-rank Gaussians."""
    (count, dim), dtype = fit.means.shape, jnp.result_type(float)

    def make(mean: Array, scale: Array) -> Params:  # the key is not used
        return families.FullRank(dim).init(jax.random.key(0), mean=mean, scale=scale)

    components = jax.vmap(make)(jnp.asarray(fit.means, dtype), jnp.asarray(fit.scales, dtype))
    params = MixtureParams(components, jnp.log(jnp.asarray(fit.weights, dtype)))
    return families.Mixture(dim, count, families.FullRank), params


def short_name(family: Any) -> str:
    """Name a family without its settings, as a story does."""
    name = type(family).__name__
    return f"{name} on Student-t" if isinstance(family, families.Flow) and family.base is families.StudentT else name
