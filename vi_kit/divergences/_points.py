"""KL from a point: −log q there, by the convention of TensorFlow Probability, NumPyro and Pyro."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vi_kit.divergences import distributions as d
from vi_kit.divergences._densities import DENSITIES
from vi_kit.divergences._support import where_contained


def from_point(p: d.Deterministic, q: d.Distribution) -> Array | None:
    """Return −log q at the point; 0 or +inf from another point; None where the density is not known."""
    if isinstance(q, d.Deterministic):
        distance = jnp.abs(p.loc - q.loc)
        value = jnp.zeros(p.batch_shape, p.loc.dtype)
        margin = -jnp.sum(distance, axis=tuple(range(len(p.batch_shape), distance.ndim)))
        value = where_contained(value, margin)
        return _add(_add(value, p.log_density, 1), q.log_density, -1)
    density = log_density(q, p.loc)
    return None if density is None else _add(-density, p.log_density, 1)


def _add(value: Array, log_density: Array | None, sign: int) -> Array:
    return value if log_density is None else value + sign * log_density


def log_density(q: d.Distribution, x: Array) -> Array | None:
    """Return the log density of events, one an entry of q's batch; None where it is not written down."""
    q = q.broadcast_to(q.batch_shape)
    if isinstance(q, d.Independent):
        base = q.base.broadcast_to(q.base.batch_shape)
        values = log_density(base, x)
        return None if values is None else jnp.sum(values, axis=tuple(range(values.ndim - q.ndims, values.ndim)))
    if isinstance(q, d.Transformed):
        return _of_image(q, x)
    if isinstance(q, d.Mixture):
        axis = len(q.batch_shape)
        count = q.logits.shape[-1]
        values = log_density(q.base, jnp.repeat(jnp.expand_dims(x, axis), count, axis=axis))
        return None if values is None else jax.nn.logsumexp(jax.nn.log_softmax(q.logits, axis=-1) + values, axis=-1)
    if isinstance(q, d.MultivariateNormal):
        lower = jnp.tril(q.scale_tril)
        z = jax.lax.linalg.triangular_solve(lower, (x - q.loc)[..., None], left_side=True, lower=True)[..., 0]
        logs = jnp.log(jnp.diagonal(lower, axis1=-2, axis2=-1))
        return -0.5 * jnp.sum(z * z, axis=-1) - jnp.sum(logs, axis=-1) - 0.5 * z.shape[-1] * math.log(2 * math.pi)
    if isinstance(q, d.Dirichlet):
        total = jnp.sum(q.concentration, axis=-1)
        normalizer = jnp.sum(jax.lax.lgamma(q.concentration), axis=-1) - jax.lax.lgamma(total)
        inside = jnp.all(x >= 0, axis=-1) & (jnp.abs(jnp.sum(x, axis=-1) - 1) < 1e-5)
        value = jnp.sum(jax.scipy.special.xlogy(q.concentration - 1, x), axis=-1) - normalizer
        return jnp.where(inside, value, -jnp.inf)
    return _of_number(q, x)


def _of_number(q: Any, x: Array) -> Array | None:
    density = DENSITIES.get(type(q))
    if density is None:
        return None
    low, high = (jnp.broadcast_to(jnp.asarray(end, x.dtype), x.shape) for end in density.ends(q))
    inside = (x >= low) & (x <= high)
    if density.discrete:
        inside = inside & (x == jnp.round(x))
    # Outside, an ordinary point stands in, so that nothing is NaN there to first order.
    safe = jnp.where(inside, x, jnp.clip(density.place(q)[0], low, high))
    value = density.log(q, safe, safe - low, high - safe)
    contained = -where_contained(-value, x - low, high - x)
    return jnp.where(inside | (x < low) | (x > high), contained, -jnp.inf) if density.discrete else contained


def _of_image(q: d.Transformed, x: Array) -> Array | None:
    """Return the density of the image of numbers under transforms that are known."""
    if not all(t.elementwise for t in q.transforms):
        return None
    slope = jnp.zeros_like(x)
    for transform in reversed(q.transforms):
        if isinstance(transform, d.Exp):
            x = jnp.log(x)
            slope = slope - x
        elif isinstance(transform, d.Sigmoid):
            slope = slope - jnp.log(x) - jnp.log1p(-x)
            x = jnp.log(x) - jnp.log1p(-x)
        elif isinstance(transform, d.Power):
            inverse = 1 / transform.exponent
            slope = slope + math.log(abs(inverse)) + (inverse - 1) * jnp.log(x)
            x = x**inverse
        elif isinstance(transform, d.Affine):
            x = (x - transform.loc) / transform.scale
            slope = slope - jnp.log(jnp.abs(transform.scale))
        else:
            return None
    values = log_density(q.base, x)
    return None if values is None else values + jnp.sum(slope, axis=tuple(range(values.ndim, slope.ndim)))
