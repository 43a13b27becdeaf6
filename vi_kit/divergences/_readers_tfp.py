"""Readers of TensorFlow Probability's distributions (on JAX)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit.divergences import distributions as d
from vi_kit.divergences._reading import (
    Read,
    Reader,
    class_logits,
    from_factor,
    from_root,
    leaf,
    located,
    mixture,
    moved,
    transformed,
)
from vi_kit.divergences._simplify import map_batch, reshape_batch, with_positive_diagonal


def _either(x: Any, name: str) -> Any:
    """Return a parameter that may be given as its logarithm."""
    value = getattr(x, name)
    return jnp.exp(getattr(x, f"log_{name}")) if value is None else value


def _normal(x: Any, read: Read) -> d.Distribution:
    """Read any multivariate normal by its linear operator."""
    operator = x.scale
    kind = type(operator).__name__
    if kind in ("LinearOperatorDiag", "LinearOperatorIdentity", "LinearOperatorScaledIdentity"):
        scale = operator.diag_part()
        return d.Independent(d.Normal(located(x.loc, scale.shape[-1], scale.dtype), scale), 1)
    return (from_factor if kind == "LinearOperatorLowerTriangular" else from_root)(x.loc, operator.to_dense())


def _low_rank_covariance(x: Any, read: Read) -> d.Distribution | None:
    operator = x.cov_operator
    if not hasattr(operator, "base_operator"):
        return None
    scale = jnp.sqrt(operator.base_operator.diag_part())
    return d.MultivariateNormalLowRank(located(x.loc, scale.shape[-1], scale.dtype), operator.u, scale)


def _matrix_normal(x: Any, read: Read) -> d.Distribution:
    rows, columns = (with_positive_diagonal(s.to_dense()) for s in (x.scale_row, x.scale_column))
    return d.MatrixNormal(x.loc, rows, columns)


def _wishart(x: Any, read: Read) -> d.Distribution:
    found = d.Wishart(with_positive_diagonal(x._scale.to_dense()), x.df)
    return d.Transformed(found, (d.Bijector((), "Cholesky"),)) if x.input_output_cholesky else found


def _probit(x: Any, read: Read) -> d.Distribution:
    if x._probs is not None:
        return d.Bernoulli(probs=x._probs)
    return d.Bernoulli(logits=jax.scipy.special.log_ndtr(x._probits) - jax.scipy.special.log_ndtr(-x._probits))


def _finite(x: Any, read: Read) -> d.Distribution:
    return d.Transformed(read(x._categorical), (d.Bijector((x.outcomes,), "outcomes"),))


def _classes(x: Any, read: Read) -> d.Distribution:
    return d.Categorical(logits=x.categorical_log_probs())


def _independent(x: Any, read: Read) -> d.Distribution:
    return d.Independent(read(x.distribution), int(x._static_reinterpreted_batch_ndims))


def _sample(x: Any, read: Read) -> d.Distribution:
    return d.Sample(read(x.distribution), tuple(int(n) for n in np.atleast_1d(np.asarray(x.sample_shape, int))))


def _blockwise(x: Any, read: Read) -> d.Distribution:
    parts = tuple(read(part) for part in x.distributions)
    events = tuple(part.event_shape for part in parts)
    sizes = tuple(event[0] if event else 1 for event in events)
    return d.Transformed(d.Joint(parts), (d.Bijector((), ("blocks", sizes), (events, (sum(sizes),))),))


def _broadcast(x: Any, read: Read) -> d.Distribution:
    base = read(x.distribution)
    shape = x.parameters["with_shape"] if x.parameters["to_shape"] is None else x.parameters["to_shape"]
    return base.broadcast_to(np.broadcast_shapes(base.batch_shape, _shape(shape)))  # type: ignore[no-any-return]


def _reshape(x: Any, read: Read) -> d.Distribution | None:
    base, shape = read(x.distribution), _shape(x.parameters["batch_shape"])
    if -1 in shape:
        known = int(np.prod([n for n in shape if n != -1]))
        shape = tuple(int(np.prod(base.batch_shape)) // known if n == -1 else n for n in shape)
    return reshape_batch(base, shape)


def _concatenate(x: Any, read: Read) -> d.Distribution | None:
    parts = [read(part) for part in x.distributions]
    axis = x.parameters["axis"]
    ndims = max(len(part.batch_shape) for part in parts)
    axis = axis % ndims
    shapes = [list(part.batch_shape) for part in parts]
    batch = list(np.broadcast_shapes(*((*shape[:axis], 1, *shape[axis + 1 :]) for shape in shapes)))
    parts = [
        part.broadcast_to((*batch[:axis], shape[axis], *batch[axis + 1 :]))
        for part, shape in zip(parts, shapes, strict=True)
    ]
    return map_batch(lambda *a: jnp.concatenate(a, axis=axis), *parts)


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in np.atleast_1d(np.asarray(value, int)))


def _joint(x: Any, read: Read) -> d.Distribution | None:
    """Read a joint distribution of independent parts; where parts are functions of others it is not known."""
    model = x.model._asdict() if hasattr(x.model, "_asdict") else x.model
    parts = model.values() if isinstance(model, dict) else model
    if not all(hasattr(part, "log_prob") for part in parts):
        return None
    automatic = "AutoBatched" in type(x).__name__

    def part(value: Any) -> d.Distribution:
        found = read(value)
        # The batch axes beyond those of the whole are axes of the event.
        return d.Independent(found, max(len(found.batch_shape) - (x.batch_ndims or 0), 0)) if automatic else found

    return d.Joint({k: part(v) for k, v in model.items()} if isinstance(model, dict) else tuple(map(part, model)))


def _mixture(x: Any, read: Read) -> d.Distribution | None:
    return mixture(class_logits(read(x.cat)), [read(component) for component in x.components])


def _mixture_of_one_family(x: Any, read: Read) -> d.Distribution:
    return d.Mixture(class_logits(read(x.mixture_distribution)), read(x.components_distribution))


def _located(family: Any) -> Reader:
    return leaf(family, "loc", "scale")


_ODDS = {"probs": "_probs", "logits": "_logits"}

READERS: dict[str, Reader] = {
    "BatchBroadcast": _broadcast,
    "BatchConcat": _concatenate,
    "BatchReshape": _reshape,
    "Bernoulli": leaf(d.Bernoulli, **_ODDS),
    "Beta": leaf(d.Beta, "concentration1", "concentration0"),
    "Binomial": leaf(d.Binomial, "total_count", **_ODDS),
    "Blockwise": _blockwise,
    "Categorical": leaf(d.Categorical, **_ODDS),
    "Cauchy": _located(d.Cauchy),
    "Chi": leaf(d.Chi, "df"),
    "Chi2": leaf(d.Chi2, "df"),
    "ContinuousBernoulli": leaf(d.ContinuousBernoulli, **_ODDS),
    "Deterministic": leaf(d.Deterministic, "loc"),
    "Dirichlet": leaf(d.Dirichlet, "concentration"),
    "ExpGamma": lambda x, read: d.ExpGamma(x.concentration, _either(x, "rate")),
    "ExpInverseGamma": lambda x, read: d.ExpInverseGamma(x.concentration, _either(x, "scale")),
    "Exponential": leaf(d.Exponential, "rate"),
    "FiniteDiscrete": _finite,
    "FlatDirichlet": leaf(d.Dirichlet, "concentration"),
    "Gamma": lambda x, read: d.Gamma(x.concentration, _either(x, "rate")),
    "GaussianProcess": lambda x, read: read(x.get_marginal_distribution()),
    "GeneralizedExtremeValue": leaf(d.GeneralizedExtremeValue, "loc", "scale", "concentration"),
    "GeneralizedNormal": leaf(d.GeneralizedNormal, "loc", "scale", "power"),
    "Geometric": leaf(d.Geometric, **_ODDS),
    "Gumbel": _located(d.Gumbel),
    "HalfCauchy": lambda x, read: moved(d.HalfCauchy(x.scale), x.loc),
    "HalfNormal": leaf(d.HalfNormal, "scale"),
    "Independent": _independent,
    "InverseGamma": leaf(d.InverseGamma, "concentration", "scale"),
    "InverseGaussian": leaf(d.InverseGaussian, "loc", "concentration"),
    "JointDistributionNamed": _joint,
    "JointDistributionNamedAutoBatched": _joint,
    "JointDistributionSequential": _joint,
    "JointDistributionSequentialAutoBatched": _joint,
    "Kumaraswamy": leaf(d.Kumaraswamy, "concentration1", "concentration0"),
    "Laplace": _located(d.Laplace),
    "LogLogistic": _located(d.LogLogistic),
    "LogNormal": _located(d.LogNormal),
    "Logistic": _located(d.Logistic),
    "LogitNormal": _located(d.LogitNormal),
    "Masked": lambda x, read: d.Masked(read(x.distribution), jnp.asarray(x.validity_mask)),
    "MatrixNormalLinearOperator": _matrix_normal,
    "Mixture": _mixture,
    "MixtureSameFamily": _mixture_of_one_family,
    "Moyal": _located(d.Moyal),
    "Multinomial": leaf(d.Multinomial, "total_count", **_ODDS),
    "MultivariateNormalDiagPlusLowRankCovariance": _low_rank_covariance,
    "MultivariateNormalLinearOperator": _normal,
    "NegativeBinomial": leaf(d.NegativeBinomial, "total_count", **_ODDS),
    "Normal": _located(d.Normal),
    "OneHotCategorical": leaf(d.OneHotCategorical, **_ODDS),
    "OrderedLogistic": _classes,
    "PERT": lambda x, read: read(x._transformed_beta()),
    "Pareto": leaf(d.Pareto, "concentration", "scale"),
    "Poisson": lambda x, read: d.Poisson(_either(x, "rate")),
    "PowerSpherical": leaf(d.PowerSpherical, "mean_direction", "concentration"),
    "ProbitBernoulli": _probit,
    "RelaxedBernoulli": lambda x, read: read(x._transformed_logistic()),
    "Sample": _sample,
    "SigmoidBeta": lambda x, read: d.Transformed(d.Beta(x.concentration1, x.concentration0), (d.inverse(d.Sigmoid()),)),
    "SphericalUniform": lambda x, read: d.SphericalUniform(int(x.dimension), tuple(x.batch_shape)),
    "StoppingRatioLogistic": _classes,
    "StudentT": leaf(d.StudentT, "df", "loc", "scale"),
    "TransformedDistribution": lambda x, read: transformed(read(x.distribution), x.bijector),
    "TruncatedNormal": leaf(d.TruncatedNormal, "loc", "scale", "low", "high"),
    "Uniform": leaf(d.Uniform, "low", "high"),
    "VectorDeterministic": lambda x, read: d.Deterministic(x.loc, 1),
    "VonMises": leaf(d.VonMises, "loc", "concentration"),
    "VonMisesFisher": leaf(d.VonMisesFisher, "mean_direction", "concentration"),
    "Weibull": leaf(d.Weibull, "concentration", "scale"),
    "WishartLinearOperator": _wishart,
}
