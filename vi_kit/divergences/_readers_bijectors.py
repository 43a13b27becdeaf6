"""What the bijectors of distrax, TensorFlow Probability and NumPyro are."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit._value_key import value_key
from vi_kit.divergences import distributions as d

Transforms = tuple[d.Transform, ...]

LIBRARIES = {
    "distrax.": "distrax",
    "tensorflow_probability.substrates.jax.": "tfp",
    "numpyro.": "numpyro",
    "vi_kit._distributions.": "vi_kit",
    "vi_kit.families.": "vi_kit",
}


def library_of(kind: type) -> str:
    """Return the library that a class is from, or nothing."""
    module = f"{kind.__module__}."
    return next((name for prefix, name in LIBRARIES.items() if module.startswith(prefix)), "")


def read_bijector(bijector: Any, event: Any) -> Transforms:
    """Return a bijector as transforms, the one applied first in front.

    Args:
        bijector: of any of the libraries.
        event: shape of the events that it is applied to.
    """
    found = BIJECTORS.get((library_of(type(bijector)), type(bijector).__name__))
    transforms = None if found is None else found(bijector, event)
    return _any(bijector, event) if transforms is None else transforms


def _chain(parts: Any, event: Any) -> Transforms:
    """Read several, the one applied first in front."""
    found: Transforms = ()
    for part in parts:
        more = read_bijector(part, event)
        for transform in more:
            event = transform.event_shape(event)
        found += more
    return found


def _inverted(bijector: Any, event: Any) -> Transforms | None:
    # What comes out of the inverse goes into the bijector: shapes are known where they do not change.
    inner = read_bijector(bijector, event)
    return tuple(d.inverse(t) for t in reversed(inner)) if all(t.elementwise for t in inner) else None


def _named(*transforms: d.Transform) -> Callable[[Any, Any], Transforms]:
    return lambda bijector, event: transforms


def _kind(name: str) -> Callable[[Any, Any], Transforms]:
    return _named(d.Bijector((), name))


def _power(exponent: Any) -> Transforms | None:
    known = not isinstance(exponent, jax.core.Tracer) and np.ndim(exponent) == 0
    return (d.Power(float(exponent)),) if known else None


def _on_interval(b: Any, event: Any) -> Transforms:
    if b.low is None and b.high is None:
        return (d.Sigmoid(),)
    return d.Sigmoid(), d.Affine(b.low, b.high - b.low)


def _softplus(b: Any, event: Any) -> Transforms | None:
    return (d.Bijector((), "softplus"),) if b.hinge_softness is None and b.low is None else None


def _linear(matrix: Any, loc: Any = None) -> Transforms:
    matrix = jnp.asarray(matrix)
    return (d.Linear(jnp.zeros(matrix.shape[-1:], matrix.dtype) if loc is None else loc, matrix),)


def _operator(b: Any, event: Any) -> Transforms:
    matrix = jnp.asarray(b.scale.to_dense())
    return _linear(jnp.swapaxes(matrix, -1, -2) if b.adjoint else matrix)


def _diagonal(diagonal: Any) -> Transforms:
    return (d.Affine(jnp.zeros((), jnp.asarray(diagonal).dtype), diagonal),)


_FUNCTIONS: dict[Any, d.Transform] = {
    jnp.exp: d.Exp(),
    jnp.log: d.Bijector((), "log"),
    jax.nn.sigmoid: d.Sigmoid(),
    jnp.tanh: d.Bijector((), "tanh"),
    jax.nn.softplus: d.Bijector((), "softplus"),
    jnp.reciprocal: d.Power(-1.0),
    jnp.sinh: d.Bijector((), "sinh"),
}


def _function(b: Any, event: Any) -> Transforms | None:
    """Read distrax's Lambda, which is known by its function."""
    if b._forward is None:
        return tuple(d.inverse(t) for t in _of_function(b._inverse, b))
    return _of_function(b._forward, b)


def _of_function(function: Any, b: Any) -> Transforms:
    known = _FUNCTIONS.get(function)
    if known is not None:
        return (known,)
    if b.event_ndims_in == 0 == b.event_ndims_out:
        return (d.Bijector((), ("function", value_key(function))),)
    return ()


Reader = Callable[[Any, Any], Transforms | None]

BIJECTORS: dict[tuple[str, str], Reader] = {
    ("distrax", "BijectorFromTFP"): lambda b, e: read_bijector(b._tfp_bijector, e),
    ("distrax", "Block"): lambda b, e: read_bijector(b._bijector, e),
    ("distrax", "Chain"): lambda b, e: _chain(reversed(b._bijectors), e),
    ("distrax", "Inverse"): lambda b, e: _inverted(b._bijector, e),
    ("distrax", "Lambda"): lambda b, e: _function(b, e) or None,
    ("distrax", "ScalarAffine"): lambda b, e: (d.Affine(b._shift, b._scale),),
    ("distrax", "Shift"): lambda b, e: (d.Affine(b._shift, jnp.ones_like(b._shift)),),
    ("distrax", "Sigmoid"): _named(d.Sigmoid()),
    ("distrax", "Tanh"): _kind("tanh"),
    ("distrax", "GumbelCDF"): _kind("Gumbel distribution function"),
    ("distrax", "DiagLinear"): lambda b, e: _diagonal(b._diag),
    ("distrax", "TriangularLinear"): lambda b, e: _linear(b._matrix),
    ("distrax", "DiagPlusLowRankLinear"): lambda b, e: _linear(low_rank_scale(b._diag, b._u_matrix, b._v_matrix)),
    ("distrax", "UnconstrainedAffine"): lambda b, e: _linear(b._matrix, b._bias),
    ("distrax", "LowerUpperTriangularAffine"): lambda b, e: _linear(b._lower._matrix @ b._upper._matrix, b._bias),
    ("tfp", "Identity"): _named(),
    ("tfp", "Exp"): _named(d.Exp()),
    ("tfp", "Log"): _kind("log"),
    ("tfp", "Reciprocal"): _named(d.Power(-1.0)),
    ("tfp", "Square"): _named(d.Power(2.0)),
    ("tfp", "Power"): lambda b, e: _power(b.parameters["power"]),
    ("tfp", "Sigmoid"): _on_interval,
    ("tfp", "Softplus"): _softplus,
    ("tfp", "Tanh"): _kind("tanh"),
    ("tfp", "Sinh"): _kind("sinh"),
    ("tfp", "Shift"): lambda b, e: (d.Affine(b.shift, jnp.ones_like(b.shift)),),
    ("tfp", "Scale"): lambda b, e: _diagonal(jnp.exp(b.log_scale) if b.scale is None else b.scale),
    ("tfp", "ScaleMatvecDiag"): lambda b, e: _diagonal(b.scale.diag_part()),
    ("tfp", "ScaleMatvecTriL"): _operator,
    ("tfp", "ScaleMatvecLinearOperator"): _operator,
    ("tfp", "Chain"): lambda b, e: _chain(reversed(b.bijectors), e),
    ("tfp", "Invert"): lambda b, e: _inverted(b.bijector, e),
    ("numpyro", "IdentityTransform"): _named(),
    ("numpyro", "ExpTransform"): _named(d.Exp()),
    ("numpyro", "SigmoidTransform"): _named(d.Sigmoid()),
    ("numpyro", "SoftplusTransform"): _kind("softplus"),
    ("numpyro", "PowerTransform"): lambda b, e: _power(b.exponent),
    ("numpyro", "AffineTransform"): lambda b, e: (d.Affine(b.loc, b.scale),),
    ("numpyro", "LowerCholeskyAffine"): lambda b, e: _linear(b.scale_tril, b.loc),
    ("numpyro", "ComposeTransform"): lambda b, e: _chain(b.parts, e),
    ("numpyro", "IndependentTransform"): lambda b, e: read_bijector(b.base_transform, e),
    ("numpyro", "_InverseTransform"): lambda b, e: _inverted(b._inv, e),
}


def low_rank_scale(diagonal: Any, u: Any, v: Any) -> Any:
    """Return diag + u vᵀ."""
    eye = jnp.eye(u.shape[-2], dtype=u.dtype)
    return diagonal[..., None] * eye + jnp.einsum("...ik,...jk->...ij", u, v)


# --- any other -------------------------------------------------------------------------------------------------------

_NOT_MEANT = frozenset({"name", "validate_args", "dtype", "parameters", "_batch_shape", "_dtype", "_domain", "domain"})


def _any(bijector: Any, event: Any) -> Transforms:
    """Read a bijector as its kind, settings and arrays."""
    arrays: list[Any] = []
    kind = _signature(bijector, arrays, set())
    before, after = _event_ndims(bijector)
    leaf: Any = jax.ShapeDtypeStruct
    arguments = jax.tree.map(lambda s: leaf(s, jnp.result_type(float)), event, is_leaf=_is_shape)
    image = jax.tree.map(lambda x: tuple(x.shape), jax.eval_shape(_forward(bijector), arguments))
    if not (_is_shape(event) and _is_shape(image)):
        return (d.Bijector(tuple(arrays), kind, (event, image)),)
    if before == after == 0:
        return (d.Bijector(tuple(arrays), kind, None, image),)
    ndims = len(event) - before + after
    split = len(image) - ndims
    return (d.Bijector(tuple(arrays), kind, (tuple(event), image[split:]), image[:split]),)


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(n, int) for n in value)


def _forward(bijector: Any) -> Callable[[Any], Any]:
    return bijector.forward if hasattr(bijector, "forward") else bijector  # type: ignore[no-any-return]


def _event_ndims(bijector: Any) -> tuple[Any, Any]:
    library = library_of(type(bijector))
    if library == "tfp":
        return bijector.forward_min_event_ndims, bijector.inverse_min_event_ndims
    if library == "numpyro" or not hasattr(bijector, "event_ndims_in"):
        return bijector.domain.event_dim, bijector.codomain.event_dim
    return bijector.event_ndims_in, bijector.event_ndims_out


def _signature(value: Any, arrays: list[Any], seen: set[int]) -> Any:
    """Return what identifies an object beside its arrays, which are put aside, in something hashable."""
    if isinstance(value, jax.Array | np.ndarray | np.generic | float):
        arrays.append(value)
        return "array"
    if value is None or isinstance(value, str | bool | int | type | np.dtype):
        return value_key(value)
    if isinstance(value, dict):
        return tuple((k, _signature(value[k], arrays, seen)) for k in sorted(value, key=str) if k not in _NOT_MEANT)
    if isinstance(value, list | tuple):
        return tuple(_signature(v, arrays, seen) for v in value)
    if id(value) in seen or (isinstance(value, types.MethodType) and id(value.__self__) in seen):
        return "itself"
    if library_of(type(value)) or hasattr(value, "forward"):
        seen.add(id(value))
        own = value.parameters if library_of(type(value)) == "tfp" else vars(value)
        return (type(value), _signature(dict(own), arrays, seen))
    return value_key(value)
