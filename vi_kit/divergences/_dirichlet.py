"""KL between Dirichlet distributions, of any length: Beta distributions are those of length two."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array

from vi_kit.divergences._special import scaled_remainder, stirling_remainder
from vi_kit.divergences.distributions import Beta, Dirichlet


def _component(p: Array, q: Array, change: Array, p_total: Array, q_total: Array, total_change: Array) -> Array:
    """Return what one concentration adds: to KL(mean of q‖mean of p) · total of q, and to the shapes."""
    return scaled_remainder(q, p, change, q_total, p_total, total_change) + stirling_remainder(q, p, change)


def dirichlet_dirichlet(p: Dirichlet, q: Dirichlet) -> Array:
    """Return KL between Dirichlet distributions: that of their means, and that of their shapes."""
    # A short last axis is put in front: compiled loops over it would be slow.
    axis = 0 if p.concentration.shape[-1] <= 16 else -1
    a, b = (jnp.moveaxis(x, -1, axis) for x in (p.concentration, q.concentration))
    p_total, q_total, change = (jnp.sum(x, axis=axis) for x in (a, b, b - a))
    terms = _component(a, b, b - a, *(jnp.expand_dims(x, axis) for x in (p_total, q_total, change)))
    return jnp.sum(terms, axis=axis) - stirling_remainder(q_total, p_total, change)


def beta_kl(p: tuple[Array, Array], q: tuple[Array, Array], changes: tuple[Array, Array]) -> Array:
    """Return KL between Beta distributions with these concentrations, of which q's are so much more than p's."""
    p_total, q_total, change = (x[0] + x[1] for x in (p, q, changes))
    first, second = (_component(*x, p_total, q_total, change) for x in zip(p, q, changes, strict=True))
    return first + second - stirling_remainder(q_total, p_total, change)


def beta_beta(p: Beta, q: Beta) -> Array:
    """Return KL between Beta distributions."""
    a, b = ((x.concentration1, x.concentration0) for x in (p, q))
    return beta_kl(a, b, (b[0] - a[0], b[1] - a[1]))
