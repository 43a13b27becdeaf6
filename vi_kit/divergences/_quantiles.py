"""Events from uniform numbers: what antithetic, stratified and quasi-Monte Carlo draws are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array

from vi_kit.divergences import distributions as d
from vi_kit.divergences._sampling import Drawn, pick, take
from vi_kit.divergences.distributions import Distribution


def _exponential(u: Array) -> Array:
    return -jnp.log1p(-u)


def _logit(u: Array) -> Array:
    return jnp.log(u) - jnp.log1p(-u)


def _laplace(u: Array) -> Array:
    return jnp.where(u < 0.5, jnp.log(2 * u), -jnp.log(2 * (1 - u)))


# Quantile functions, differentiable in the parameters.
QUANTILES: dict[type, Callable[[Any, Array], Array]] = {
    d.Cauchy: lambda p, u: p.loc - p.scale / jnp.tan(math.pi * u),
    d.Exponential: lambda p, u: _exponential(u) / p.rate,
    d.Frechet: lambda p, u: p.scale * (-jnp.log(u)) ** (-1 / p.concentration),
    d.Gumbel: lambda p, u: p.loc - p.scale * jnp.log(-jnp.log(u)),
    d.HalfCauchy: lambda p, u: p.scale * jnp.tan(0.5 * math.pi * u),
    d.HalfNormal: lambda p, u: p.scale * ndtri(0.5 + 0.5 * u),
    d.Kumaraswamy: lambda p, u: (-jnp.expm1(jnp.log1p(-u) / p.concentration0)) ** (1 / p.concentration1),
    d.Laplace: lambda p, u: p.loc + p.scale * _laplace(u),
    d.Logistic: lambda p, u: p.loc + p.scale * _logit(u),
    d.LogitNormal: lambda p, u: jax.nn.sigmoid(p.loc + p.scale * ndtri(u)),
    d.LogLogistic: lambda p, u: jnp.exp(p.loc + p.scale * _logit(u)),
    d.LogNormal: lambda p, u: jnp.exp(p.loc + p.scale * ndtri(u)),
    d.Normal: lambda p, u: p.loc + p.scale * ndtri(u),
    d.Pareto: lambda p, u: p.scale * jnp.exp(_exponential(u) / p.concentration),
    d.Rayleigh: lambda p, u: p.scale * jnp.sqrt(2 * _exponential(u)),
    d.Uniform: lambda p, u: p.low + (p.high - p.low) * u,
    d.Weibull: lambda p, u: p.scale * _exponential(u) ** (1 / p.concentration),
}


class FromUniforms(NamedTuple):
    """How many numbers from 0 to 1 make an event, and the map: (draws, …, dim) -> draws, leaves in order of the event.

    The axes between are 1 or those of the batch.
    """

    dim: int
    function: Callable[[Array], Drawn]


def from_uniforms(family: Distribution) -> FromUniforms | None:
    """Return the map from uniform numbers to events of a family, or None where it is not known here."""
    quantile = QUANTILES.get(type(family))
    if quantile is not None:
        return FromUniforms(1, lambda u: Drawn([quantile(family, u[..., 0])]))
    structure = _STRUCTURES.get(type(family))
    return None if structure is None else structure(family)


def _normal(family: d.MultivariateNormal) -> FromUniforms:
    def function(u: Array) -> Drawn:
        noise = jnp.einsum("...ij,...j->...i", jnp.tril(family.scale_tril), ndtri(u))
        return Drawn([family.loc + noise])

    return FromUniforms(np.shape(family.scale_tril)[-1], function)


def _low_rank(family: d.MultivariateNormalLowRank) -> FromUniforms:
    rank = np.shape(family.factor)[-1]

    def function(u: Array) -> Drawn:
        noise = ndtri(u)
        common = jnp.einsum("...ij,...j->...i", family.factor, noise[..., :rank])
        return Drawn([family.loc + common + family.scale_diag * noise[..., rank:]])

    return FromUniforms(rank + np.shape(family.factor)[-2], function)


def _independent(family: d.Independent) -> FromUniforms | None:
    base = from_uniforms(family.base)
    if base is None:
        return None
    shape = family.base.batch_shape[len(family.batch_shape) :]

    def function(u: Array) -> Drawn:
        inner = base.function(u.reshape(*u.shape[:-1], *shape, base.dim))
        return Drawn(
            inner.value,
            *(jnp.sum(v, axis=tuple(range(v.ndim - len(shape), v.ndim))) if np.ndim(v) else v for v in inner[1:]),
        )

    return FromUniforms(math.prod(shape) * base.dim, function)


def _transformed(family: d.Transformed) -> FromUniforms | None:
    base = from_uniforms(family.base)
    if base is None or any(type(t) not in _TRANSFORMS for t in family.transforms):
        return None

    def function(u: Array) -> Drawn:
        drawn = base.function(u)
        for transform in family.transforms:
            drawn = drawn._replace(value=[_TRANSFORMS[type(transform)](transform, v) for v in drawn.value])
        return drawn

    return FromUniforms(base.dim, function)


_TRANSFORMS: dict[type, Callable[[Any, Array], Array]] = {
    d.Affine: lambda t, x: t.loc + t.scale * x,
    d.Exp: lambda t, x: jnp.exp(x),
    d.Power: lambda t, x: x**t.exponent,
    d.Sigmoid: lambda t, x: jax.nn.sigmoid(x),
}


def _joint(family: d.Joint) -> FromUniforms | None:
    parts = [from_uniforms(x) for x in jax.tree.leaves(family.parts, is_leaf=lambda x: isinstance(x, Distribution))]
    known = [x for x in parts if x is not None]
    if len(known) < len(parts):
        return None
    ends = np.cumsum([x.dim for x in known])

    def function(u: Array) -> Drawn:
        drawn = [x.function(u[..., end - x.dim : end]) for x, end in zip(known, ends, strict=True)]
        return Drawn([v for x in drawn for v in x.value], sum(x.score for x in drawn), sum(x.choice for x in drawn))

    return FromUniforms(int(ends[-1]), function)


def _mixture(family: d.Mixture) -> FromUniforms | None:
    base = from_uniforms(family.base)
    if base is None:
        return None
    shape = np.broadcast_shapes(np.shape(family.logits), family.base.batch_shape)
    log_weights = jnp.broadcast_to(jax.nn.log_softmax(family.logits), shape)

    def function(u: Array) -> Drawn:
        num = u.shape[0]
        picked = jnp.broadcast_to(u[..., 0], (num, *shape[:-1]))
        index = jax.lax.stop_gradient(jnp.minimum(pick(log_weights, picked), shape[-1] - 1))
        inner = base.function(u[..., None, 1:])
        every = [jnp.broadcast_to(v, (num, *shape, *v.shape[len(shape) + 1 :])) for v in inner.value]
        choice = take(jnp.broadcast_to(log_weights, (num, *shape)), index)
        return Drawn([take(v, index) for v in every], 0.0, choice)

    return FromUniforms(1 + base.dim, function)


_STRUCTURES: dict[type, Callable[[Any], FromUniforms | None]] = {
    d.Independent: _independent,
    d.Joint: _joint,
    d.Mixture: _mixture,
    d.MultivariateNormal: _normal,
    d.MultivariateNormalLowRank: _low_rank,
    d.Transformed: _transformed,
}
