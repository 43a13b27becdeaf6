"""One form for what can be written in several ways, so that the same distribution is recognized on both sides."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit.divergences import distributions as d


def simplify(distribution: d.Distribution) -> d.Distribution:
    """Return the same distribution with nested structures merged and affine maps taken into parameters."""
    if isinstance(distribution, d.Joint):
        parts = jax.tree.map(simplify, distribution.parts, is_leaf=lambda x: isinstance(x, d.Distribution))
        return d.Joint(parts)
    base = getattr(distribution, "base", None)
    if base is None:
        return distribution
    base = simplify(base)
    if isinstance(distribution, d.Independent):
        return independent(base, distribution.ndims)
    if isinstance(distribution, d.Transformed):
        return transformed(base, distribution.transforms)
    if isinstance(distribution, d.Sample) and distribution.shape == ():
        return base
    if isinstance(distribution, d.Mixture) and np.shape(distribution.logits)[-1:] == (1,):
        base = base.broadcast_to((*distribution.batch_shape, 1))
        only = reshape_batch(base, distribution.batch_shape)
        return d.Mixture(distribution.logits, base) if only is None else only
    return dataclasses.replace(distribution, base=base)  # type: ignore[type-var]


def independent(base: d.Distribution, ndims: int) -> d.Distribution:
    """Return independent copies of a base that is none itself."""
    if ndims == 0:
        return base
    if isinstance(base, d.Independent):
        return d.Independent(base.base, base.ndims + ndims)
    if isinstance(base, d.Deterministic) and base.log_density is None:
        return d.Deterministic(base.loc, base.ndims + ndims)
    return d.Independent(base, ndims)


def transformed(base: d.Distribution, transforms: tuple[d.Transform, ...]) -> d.Distribution:
    """Return the image of a base, as a distribution of numbers and without a transform where there is such a form."""
    if isinstance(base, d.Transformed):
        inner: Any = base
        base, transforms = inner.base, inner.transforms + tuple(transforms)
    kept: list[d.Transform] = []
    for transform in transforms:
        if kept and _parameterless(transform) and same_kind(kept[-1], d.inverse(transform)):
            kept.pop()
        else:
            kept.append(transform)
    if isinstance(base, d.Independent) and all(t.elementwise for t in kept):
        return independent(transformed(base.base, tuple(kept)), base.ndims)
    while kept:
        absorbed = absorb(base, kept[0])
        if absorbed is None:
            return d.Transformed(base, tuple(kept))
        base = absorbed
        kept.pop(0)
    return base


def _parameterless(transform: d.Transform) -> bool:
    return not jax.tree.leaves(transform)


def same_kind(first: d.Transform, second: d.Transform) -> bool:
    """Tell whether two transforms without arrays are the same."""
    structures: Any = jax.tree.structure(first), jax.tree.structure(second)
    return _parameterless(first) and bool(structures[0] == structures[1])


# --- images that are families ----------------------------------------------------------------------------------------

# (family, transform) -> the family of its image, with the same parameters in the same order.
_IMAGES: dict[tuple[type, str], Callable[..., d.Distribution]] = {
    (d.Normal, "exp"): d.LogNormal,
    (d.Normal, "sigmoid"): d.LogitNormal,
    (d.Logistic, "exp"): d.LogLogistic,
    (d.ExpGamma, "exp"): d.Gamma,
    (d.ExpInverseGamma, "exp"): d.InverseGamma,
    (d.LogNormal, "log"): d.Normal,
    (d.LogLogistic, "log"): d.Logistic,
    (d.Gamma, "log"): d.ExpGamma,
    (d.InverseGamma, "log"): d.ExpInverseGamma,
    (d.LogitNormal, "logit"): d.Normal,
    (d.Gamma, "reciprocal"): d.InverseGamma,
    (d.InverseGamma, "reciprocal"): d.Gamma,
}


def _image(base: d.Distribution, transform: d.Transform) -> d.Distribution | None:
    family = _IMAGES.get((type(base), _name(transform)))
    if family is not None:
        return family(*(getattr(base, f.name) for f in dataclasses.fields(base)))  # type: ignore[arg-type]
    if isinstance(base, d.Gamma | d.Exponential) and isinstance(transform, d.Power):
        one = jnp.ones_like(jnp.asarray(base.rate))
        concentration = base.concentration if isinstance(base, d.Gamma) else one
        return d.GeneralizedGamma(concentration, one, one / transform.exponent, base.rate)
    return None


def _name(transform: d.Transform) -> str:
    if isinstance(transform, d.Bijector):
        return transform.kind if isinstance(transform.kind, str) else ""
    if isinstance(transform, d.Power):
        return "reciprocal" if transform.exponent == -1 else ""
    return type(transform).__name__.lower()


# --- affine maps -----------------------------------------------------------------------------------------------------

_SYMMETRIC = (d.Normal, d.Laplace, d.Logistic, d.Cauchy, d.StudentT, d.GeneralizedNormal)
_LOCATED = (*_SYMMETRIC, d.Gumbel, d.Moyal, d.GeneralizedExtremeValue, d.Levy)
_SCALED = (
    *(d.InverseGamma, d.HalfNormal, d.HalfCauchy, d.Rayleigh, d.Maxwell, d.Weibull, d.Frechet, d.Pareto),
    *(d.Gamma, d.Exponential, d.InverseGaussian, d.LogNormal, d.LogLogistic),
)


def absorb(base: d.Distribution, transform: d.Transform) -> d.Distribution | None:
    """Return the image of a family under a transform as a family, where it is one."""
    if isinstance(transform, d.Linear):
        return _absorb_linear(base, transform.loc, transform.matrix)
    if not isinstance(transform, d.Affine):
        return _image(base, transform)
    loc, scale = transform.loc, transform.scale
    if isinstance(base, d.MultivariateNormal):
        moved = loc + scale * base.loc
        rows = jnp.broadcast_to(scale, np.broadcast_shapes(np.shape(scale), moved.shape[-1:]))
        return d.MultivariateNormal(moved, with_positive_diagonal(rows[..., None] * base.scale_tril))
    sign = _sign(scale)
    if isinstance(base, d.Uniform | d.TruncatedNormal) and sign != 0:
        ends = [loc + scale * base.low, loc + scale * base.high]
        low, high = ends if sign > 0 else ends[::-1]
        if isinstance(base, d.Uniform):
            return d.Uniform(low, high)
        return d.TruncatedNormal(loc + scale * base.loc, jnp.abs(scale) * base.scale, low, high)
    if isinstance(base, _SYMMETRIC):
        return dataclasses.replace(base, loc=loc + scale * base.loc, scale=jnp.abs(scale) * base.scale)
    if isinstance(base, _LOCATED) and sign > 0:
        return dataclasses.replace(base, loc=loc + scale * base.loc, scale=scale * base.scale)
    if isinstance(base, _SCALED) and sign > 0 and is_zero(loc):
        if isinstance(base, d.Gamma | d.Exponential):
            return dataclasses.replace(base, rate=base.rate / scale)
        if isinstance(base, d.LogNormal | d.LogLogistic):
            return dataclasses.replace(base, loc=base.loc + jnp.log(scale))
        if isinstance(base, d.InverseGaussian):
            return d.InverseGaussian(base.loc * scale, base.concentration * scale)
        return dataclasses.replace(base, scale=base.scale * scale)
    return None


def _absorb_linear(base: d.Distribution, loc: Array, matrix: Array) -> d.Distribution | None:
    if isinstance(base, d.Independent) and base.ndims == 1 and isinstance(base.base, d.Normal):
        mean, scale = (jnp.broadcast_to(x, base.base.batch_shape) for x in (base.base.loc, base.base.scale))
        root = matrix * scale[..., None, :]
    elif isinstance(base, d.MultivariateNormal):
        mean, root = base.loc, matrix @ base.scale_tril
    else:
        return None
    return d.MultivariateNormal(loc + jnp.einsum("...ij,...j->...i", matrix, mean), triangular(root))


def with_positive_diagonal(factor: Array) -> Array:
    """Return the factor of the same covariance whose diagonal is positive."""
    diagonal = jnp.diagonal(factor, axis1=-2, axis2=-1)
    return factor * jnp.where(diagonal < 0, -1, 1).astype(factor.dtype)[..., None, :]


def triangular(root: Array) -> Array:
    """Return the Cholesky factor of root · rootᵀ, without squaring."""
    root = root.astype(jnp.promote_types(root.dtype, jnp.float32))
    return with_positive_diagonal(jnp.swapaxes(jnp.linalg.qr(jnp.swapaxes(root, -1, -2))[1], -1, -2))


def is_zero(value: Any) -> bool:
    """Tell whether a number is known to be 0 now."""
    return not isinstance(value, jax.core.Tracer) and not np.any(np.asarray(value))


def _sign(value: Any) -> int:
    """Return the sign that all entries have, 0 where they differ; traced ones are taken to be positive.

    A traced negative scale makes a negative parameter, which gives NaN.
    """
    if isinstance(value, jax.core.Tracer):
        return 1
    return 1 if np.all(np.asarray(value) > 0) else -1 if np.all(np.asarray(value) < 0) else 0


# --- batches ---------------------------------------------------------------------------------------------------------


def map_batch(function: Callable[..., Array], *distributions: d.Distribution) -> d.Distribution | None:
    """Apply a function of arrays, which works on their leading axes, to all parameters; None where that is no answer.

    Args:
        function: takes one array of each distribution, with the batch in front.
        distributions: of one structure, each brought to its batch shape.
    """
    structures = {jax.tree.structure(x) for x in distributions}
    nodes = jax.tree.leaves(distributions, is_leaf=_batchless)
    if len(structures) != 1 or any(_batchless(x) for x in nodes):
        return None
    result: d.Distribution = jax.tree.map(function, *distributions)
    return result


def _batchless(node: Any) -> bool:
    """Tell whether a part has arrays, or a shape, without the batch in front."""
    return isinstance(node, d.Opaque | d.Bijector | d.SphericalUniform)


def reshape_batch(distribution: d.Distribution, shape: tuple[int, ...]) -> d.Distribution | None:
    """Return the same distribution with its batch in another shape."""
    old = len(distribution.batch_shape)
    found = distribution.broadcast_to(distribution.batch_shape)
    return map_batch(lambda x: jnp.reshape(x, shape + jnp.shape(x)[old:]), found)


def image_of_independent(p: d.Independent) -> d.Distribution | None:
    """Return independent images under a transform as the image of something independent."""
    base = p.base
    for (inner, name), family in _IMAGES.items():
        if type(base) is family and name in ("exp", "sigmoid"):
            values = (getattr(base, f.name) for f in dataclasses.fields(base))  # type: ignore[arg-type]
            outer: d.Transform = d.Exp() if name == "exp" else d.Sigmoid()
            return d.Transformed(independent(inner(*values), p.ndims), (outer,))
    return None


def sample_as_independent(sample: d.Sample) -> d.Distribution | None:
    """Return draws of one distribution as independent coordinates."""
    batch, shape = sample.batch_shape, sample.shape
    base = reshape_batch(sample.base, batch + (1,) * len(shape))
    return None if base is None else independent(base.broadcast_to(batch + shape), len(shape))
