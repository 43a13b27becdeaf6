"""Readers of distrax's distributions.

Fields are read: properties broadcast them to the shapes that were stored before a vmap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vi_kit.divergences import distributions as d
from vi_kit.divergences._readers_bijectors import low_rank_scale
from vi_kit.divergences._reading import Read, Reader, class_logits, from_factor, from_root, leaf, mixture, transformed


def _diagonal(x: Any, read: Read) -> d.Distribution:
    return d.Independent(d.Normal(x._loc, x._scale_diag), 1)


def _triangular(x: Any, read: Read) -> d.Distribution:
    return (from_factor if x._is_lower else from_root)(x._loc, x._scale_tri)


def _low_rank(x: Any, read: Read) -> d.Distribution:
    return from_root(x._loc, low_rank_scale(x._scale_diag, x._scale_u_matrix, x._scale_v_matrix))


def _from_bijector(x: Any, read: Read) -> d.Distribution:
    if type(x._scale).__name__ == "DiagLinear":
        return d.Independent(d.Normal(x._loc, jnp.abs(x._scale._diag)), 1)
    return from_root(x._loc, x._scale.matrix)


def _joint(x: Any, read: Read) -> d.Distribution:
    return d.Joint(jax.tree.map(read, x._distributions, is_leaf=lambda part: hasattr(part, "log_prob")))


def _mixture(x: Any, read: Read) -> d.Distribution:
    return d.Mixture(class_logits(read(x._mixture_distribution)), read(x._components_distribution))


def _mixture_of_two(x: Any, read: Read) -> d.Distribution | None:
    logits = jnp.log(jnp.stack([jnp.asarray(x._prob_a), 1 - jnp.asarray(x._prob_a)], axis=-1))
    return mixture(logits, [read(x._component_a), read(x._component_b)])


def _steps(x: Any, read: Read) -> d.Distribution:
    edges = jnp.linspace(x._low, x._high, x._logits.shape[-1] + 1, axis=-1)
    return d.Mixture(x._logits, d.Uniform(edges[..., :-1], edges[..., 1:]))


_ODDS = {"probs": "_probs", "logits": "_logits"}


def _classes(family: Callable[..., d.Distribution]) -> Reader:
    """Return the reader of classes, whose logits distrax has normalized."""
    return lambda x, read: family(x._probs, x._logits, normalized=True)


READERS: dict[str, Reader] = {
    "Bernoulli": leaf(d.Bernoulli, **_ODDS),
    "Beta": leaf(d.Beta, "_alpha", "_beta"),
    "Categorical": _classes(d.Categorical),
    "CategoricalUniform": _steps,
    "Deterministic": leaf(d.Deterministic, "_loc"),
    "Dirichlet": leaf(d.Dirichlet, "_concentration"),
    "Gamma": leaf(d.Gamma, "_concentration", "_rate"),
    "Gumbel": leaf(d.Gumbel, "_loc", "_scale"),
    "Independent": lambda x, read: d.Independent(read(x._distribution), x._reinterpreted_batch_ndims),
    "Joint": _joint,
    "Laplace": leaf(d.Laplace, "_loc", "_scale"),
    "Logistic": leaf(d.Logistic, "_loc", "_scale"),
    "MixtureOfTwo": _mixture_of_two,
    "MixtureSameFamily": _mixture,
    "Multinomial": leaf(d.Multinomial, "_total_count", **_ODDS),
    "MultivariateNormalDiag": _diagonal,
    "MultivariateNormalDiagPlusLowRank": _low_rank,
    "MultivariateNormalFromBijector": _from_bijector,
    "MultivariateNormalTri": _triangular,
    "Normal": leaf(d.Normal, "_loc", "_scale"),
    "OneHotCategorical": _classes(d.OneHotCategorical),
    "Transformed": lambda x, read: transformed(read(x._distribution), x._bijector),
    "Uniform": leaf(d.Uniform, "_low", "_high"),
    "VonMises": leaf(d.VonMises, "_loc", "_concentration"),
}
