"""Readers of NumPyro's distributions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit.divergences import distributions as d
from vi_kit.divergences._reading import Read, Reader, class_logits, from_factor, leaf, mixture, transformed
from vi_kit.divergences._simplify import is_zero, with_positive_diagonal


def _circulant(x: Any, read: Read) -> d.Distribution:
    size = x.loc.shape[-1]
    row = jnp.fft.irfft(x.covariance_rfft, size)
    lags = (np.arange(size)[:, None] - np.arange(size)) % size
    return from_factor(x.loc, jnp.linalg.cholesky(row[..., lags]))


def _autoregression(x: Any, read: Read) -> d.Distribution:
    adjacency = x.adj_matrix.toarray() if x.is_sparse else x.adj_matrix
    adjacency = jnp.asarray(adjacency, jnp.asarray(x.loc).dtype)
    degrees = jnp.sum(adjacency, axis=-1)
    diagonal = degrees[..., None] * jnp.eye(adjacency.shape[-1], dtype=adjacency.dtype)
    correlation, scale = (jnp.asarray(v)[..., None, None] for v in (x.correlation, x.conditional_precision))
    precision = scale * (diagonal - correlation * adjacency)
    # The factor of the inverse from that of the matrix with both axes reversed.
    flipped = jnp.linalg.cholesky(precision[..., ::-1, ::-1])[..., ::-1, ::-1]
    eye = jnp.broadcast_to(jnp.eye(flipped.shape[-1], dtype=flipped.dtype), flipped.shape)
    root = jax.scipy.linalg.solve_triangular(jnp.swapaxes(flipped, -1, -2), eye, lower=True)
    return from_factor(x.loc, root)


def _random_walk(x: Any, read: Read) -> d.Distribution:
    scale = jnp.asarray(x.scale)
    return from_factor(None, scale[..., None, None] * jnp.tril(jnp.ones((x.num_steps, x.num_steps), scale.dtype)))


def _low_rank(x: Any, read: Read) -> d.Distribution:
    return d.MultivariateNormalLowRank(x.loc, x.cov_factor, jnp.sqrt(x.cov_diag))


def _matrix_normal(x: Any, read: Read) -> d.Distribution:
    return d.MatrixNormal(x.loc, *(with_positive_diagonal(v) for v in (x.scale_tril_row, x.scale_tril_column)))


def _cholesky(family: Any) -> Reader:
    """Return the reader of the Cholesky factor of a Wishart matrix or of its inverse."""

    def reader(x: Any, read: Read) -> d.Distribution:
        base = family(with_positive_diagonal(x.scale_tril), x.concentration)
        return d.Transformed(base, (d.Bijector((), "Cholesky"),))

    return reader


def _of_factor(x: Any, read: Read) -> d.Distribution:
    """Read a distribution of matrices that is given as one of their Cholesky factors."""
    found = read(x.base_dist)
    assert isinstance(found, d.Transformed)
    return found.base


def _expanded(x: Any, read: Read) -> d.Distribution:
    base = read(x.base_dist)
    shape = list(base.batch_shape)
    for axis, size in x._interstitial_sizes.items():
        shape[axis] = size
    expanded = tuple(x._expanded_sizes[axis] for axis in sorted(x._expanded_sizes))
    return base.broadcast_to(expanded + tuple(shape))  # type: ignore[no-any-return]


def _masked(x: Any, read: Read) -> d.Distribution:
    return d.Masked(read(x.base_dist), jnp.asarray(x._mask, bool))


def _point(x: Any, read: Read) -> d.Distribution:
    return d.Deterministic(x.v, x.event_dim, None if is_zero(x.log_density) else x.log_density)


def _truncated(x: Any, read: Read) -> d.Distribution | None:
    base = read(x.base_dist)
    if not isinstance(base, d.Normal):
        return None
    low: Any = getattr(x, "low", -jnp.inf)
    high: Any = getattr(x, "high", jnp.inf)
    return d.TruncatedNormal(base.loc, base.scale, low, high)


def _mixture(x: Any, read: Read) -> d.Distribution | None:
    logits = class_logits(read(x._mixing_distribution))
    return mixture(logits, [read(component) for component in x._component_distributions])


def _mixture_of_one_family(x: Any, read: Read) -> d.Distribution:
    return d.Mixture(class_logits(read(x._mixing_distribution)), read(x._component_distribution))


def _located(family: Any) -> Reader:
    return leaf(family, "loc", "scale")


READERS: dict[str, Reader] = {
    "BernoulliLogits": leaf(d.Bernoulli, logits="logits"),
    "BernoulliProbs": leaf(d.Bernoulli, probs="probs"),
    "Beta": leaf(d.Beta, "concentration1", "concentration0"),
    "BinomialLogits": leaf(d.Binomial, "total_count", logits="logits"),
    "BinomialProbs": leaf(d.Binomial, "total_count", probs="probs"),
    "CAR": _autoregression,
    "CategoricalLogits": leaf(d.Categorical, logits="logits"),
    "CategoricalProbs": leaf(d.Categorical, probs="probs"),
    "Cauchy": _located(d.Cauchy),
    "Chi2": leaf(d.Chi2, "df"),
    "CirculantNormal": _circulant,
    "Delta": _point,
    "Dirichlet": leaf(d.Dirichlet, "concentration"),
    "DiscreteUniform": leaf(d.DiscreteUniform, "low", "high"),
    "ExpandedDistribution": _expanded,
    "Exponential": leaf(d.Exponential, "rate"),
    "Gamma": leaf(d.Gamma, "concentration", "rate"),
    "GammaPoisson": lambda x, read: d.NegativeBinomial(x.concentration, logits=-jnp.log(x.rate)),
    "GaussianRandomWalk": _random_walk,
    "GeometricLogits": leaf(d.Geometric, logits="logits"),
    "GeometricProbs": leaf(d.Geometric, probs="probs"),
    "Gumbel": _located(d.Gumbel),
    "HalfCauchy": leaf(d.HalfCauchy, "scale"),
    "HalfNormal": leaf(d.HalfNormal, "scale"),
    "Independent": lambda x, read: d.Independent(read(x.base_dist), x.reinterpreted_batch_ndims),
    "InverseGamma": leaf(d.InverseGamma, "concentration", "rate"),
    "InverseWishart": _of_factor,
    "InverseWishartCholesky": _cholesky(d.InverseWishart),
    "Kumaraswamy": leaf(d.Kumaraswamy, "concentration1", "concentration0"),
    "Laplace": _located(d.Laplace),
    "LeftTruncatedDistribution": _truncated,
    "Levy": _located(d.Levy),
    "LogNormal": _located(d.LogNormal),
    "Logistic": _located(d.Logistic),
    "LowRankMultivariateNormal": _low_rank,
    "MaskedDistribution": _masked,
    "MatrixNormal": _matrix_normal,
    "MixtureGeneral": _mixture,
    "MixtureSameFamily": _mixture_of_one_family,
    "MultinomialLogits": leaf(d.Multinomial, "total_count", logits="logits"),
    "MultinomialProbs": leaf(d.Multinomial, "total_count", probs="probs"),
    "MultivariateNormal": lambda x, read: from_factor(x.loc, x.scale_tril),
    "NegativeBinomialLogits": leaf(d.NegativeBinomial, "total_count", logits="logits"),
    "NegativeBinomialProbs": leaf(d.NegativeBinomial, "total_count", probs="probs"),
    "Normal": _located(d.Normal),
    "Pareto": leaf(d.Pareto, "alpha", "scale"),
    "Poisson": leaf(d.Poisson, "rate"),
    "RightTruncatedDistribution": _truncated,
    "StudentT": leaf(d.StudentT, "df", "loc", "scale"),
    "TransformedDistribution": lambda x, read: transformed(read(x.base_dist), *x.transforms),
    "TwoSidedTruncatedDistribution": _truncated,
    "Uniform": leaf(d.Uniform, "low", "high"),
    "VonMises": leaf(d.VonMises, "loc", "concentration"),
    "Weibull": leaf(d.Weibull, "concentration", "scale"),
    "Wishart": _of_factor,
    "WishartCholesky": _cholesky(d.Wishart),
}
