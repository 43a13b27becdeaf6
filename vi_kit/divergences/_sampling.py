"""Drawing from distribution objects of any library: which draws carry a gradient, and what is missing in the others."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit import kl
from vi_kit._types import KeyArray
from vi_kit.divergences._arguments import Product, flatten, is_a, is_distribution, library_of
from vi_kit.divergences._door import name_of
from vi_kit.divergences._readers import read
from vi_kit.divergences.distributions import Distribution, Joint, Opaque

# distrax has no attribute to ask: the classes whose draws are differentiable in every parameter
_DISTRAX_PATHWISE = frozenset(
    {
        "Beta",
        "Deterministic",
        "Dirichlet",
        "Gamma",
        "Gumbel",
        "Laplace",
        "Logistic",
        "LogStddevNormal",
        "MultivariateNormalDiag",
        "MultivariateNormalDiagPlusLowRank",
        "MultivariateNormalFullCovariance",
        "MultivariateNormalTri",
        "Normal",
        "Uniform",
        "VonMises",
    }
)
_JOINTS = ("Joint", "Product")
_MIXTURES = ("Mixture", "MixtureGeneral", "MixtureOfTwo", "MixtureSameFamily")


class Drawn(NamedTuple):
    """Draws, and what a score-function gradient needs of them.

    Attributes:
        value: events with a leading axis of draws, then the batch; they carry the gradient of reparameterized parts.
        score: log density of the parts that carry none, a summand of log p.
        choice: log probability of the components that were chosen: not a summand of log p.
    """

    value: Any
    score: Any = 0.0
    choice: Any = 0.0


@contextlib.contextmanager
def as_the_libraries_expect() -> Iterator[None]:
    """Run library code under JAX's default promotion, and without warnings that are the library's own."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message="Explicitly requested dtype")
        yield


def sample(x: Any, key: KeyArray, shape: tuple[int, ...]) -> Any:
    """Draw events of this leading shape from a distribution of any library."""
    if isinstance(x, Product):
        parts, structure = flatten(x.parts)
        keys = jax.random.split(key, len(parts))
        return structure.unflatten([sample(part, k, shape) for part, k in zip(parts, keys, strict=True)])
    with as_the_libraries_expect():
        libraries = {library_of(base) for base in type(x).__mro__}
        if libraries & {"distrax", "tensorflow_probability"} or "seed" in inspect.signature(x.sample).parameters:
            return x.sample(seed=key, sample_shape=shape)
        return x.sample(key, shape)


def family_of(x: Any) -> Distribution:
    """Return a distribution object as a family with parameters."""
    if isinstance(x, Product):
        return Joint(jax.tree.map(family_of, x.parts, is_leaf=is_distribution))
    return read(x)


def batch_shape_of(x: Any, family: Distribution) -> tuple[int, ...]:
    """Return the batch shape of a distribution, from its parameters where its family is known."""
    if not isinstance(family, Opaque):
        return tuple(family.batch_shape)
    shapes = getattr(x, "batch_shape", ())
    try:
        return tuple(map(int, shapes))
    except TypeError:  # of the parts of a joint distribution
        leaves = jax.tree.leaves(shapes, is_leaf=lambda s: not isinstance(s, dict) and all(map(np.isscalar, s)))
        return tuple(np.broadcast_shapes(*(tuple(map(int, s)) for s in leaves)))


def parts_of(x: Any) -> Any:
    """Return the independent parts of a joint distribution, a pytree, or None."""
    if not is_a(x, *_JOINTS):
        return None
    return x.parts if isinstance(x, Product) else x.distributions


def is_mixture(x: Any) -> bool:
    """Tell whether a distribution is a mixture whose components can be drawn from one by one."""
    return is_a(x, *_MIXTURES)


def base_of(x: Any) -> tuple[Any, int] | None:
    """Return what an Independent is made of."""
    if not is_a(x, "Independent"):
        return None
    ndims = getattr(x, "reinterpreted_batch_ndims", None)
    ndims = x._reinterpreted_batch_ndims if ndims is None else ndims
    return (x.base_dist if hasattr(x, "base_dist") else x.distribution), int(ndims)


def reparameterized(x: Any) -> bool:
    """Tell whether draws are differentiable in every parameter, and that rightly: of one leaf, whole."""
    if hasattr(x, "reparameterization_type"):
        kinds = jax.tree.leaves(x.reparameterization_type)
        return bool(kinds) and all("FULLY" in str(kind) for kind in kinds)
    if hasattr(x, "has_rsample"):
        return bool(x.has_rsample)
    if is_a(x, "Transformed"):
        return reparameterized(x.distribution)
    for base in type(x).__mro__:
        if library_of(base) == "distrax":
            return base.__name__ in _DISTRAX_PATHWISE
        if any(name in vars(base) for name in ("_sample_n", "sample")):
            return False
    return False


def carries_gradient(x: Any) -> bool:
    """Tell whether some part of the draws is differentiable in the parameters."""
    parts, base = parts_of(x), base_of(x)
    if parts is not None:
        return any(map(carries_gradient, flatten(parts)[0]))
    if base is not None:
        return carries_gradient(base[0])
    if is_mixture(x):
        components = components_of(x)[1]
        return any(map(carries_gradient, components if isinstance(components, list | tuple) else [components]))
    return reparameterized(x)


def obstacles(x: Any, name: str) -> list[str]:
    """Say of each part whose draws carry no gradient what it is."""
    parts, base = parts_of(x), base_of(x)
    if parts is not None:
        paths = jax.tree_util.tree_flatten_with_path(parts, is_leaf=is_distribution)[0]
        return [found for path, part in paths for found in obstacles(part, name + jax.tree_util.keystr(path))]
    if base is not None:
        return obstacles(base[0], name)
    if is_mixture(x):
        return [f"{name} is a {name_of(x)}, whose choice of a component has no derivative"]
    return [] if reparameterized(x) else [f"{name} is a {name_of(x)}, whose draws carry no gradient"]


def draw(x: Any, key: KeyArray, num: int, gradient: Any, uniform: Array | None = None) -> Drawn:
    """Draw events with what their gradient needs.

    Args:
        x: the distribution.
        key: a typed key.
        num: number of draws.
        gradient: `kl.score` for constant draws, whose score is that of x; otherwise pathwise, and score function where
            that cannot be.
        uniform: what picks the component of a mixture, (num,) and broadcasting to the batch; None: drawn.
    """
    parts, base = parts_of(x), base_of(x)
    if gradient is kl.score:
        return Drawn(jax.lax.stop_gradient(sample(x, key, (num,))))
    if not (parts is not None or base is not None or is_mixture(x)):
        value = sample(x, key, (num,))
        if reparameterized(x):
            return Drawn(value)
        value = jax.lax.stop_gradient(value)
        return Drawn(value, log_density(x, value))
    if parts is not None:
        leaves, structure = flatten(parts)
        drawn = [
            draw(part, k, num, gradient) for part, k in zip(leaves, jax.random.split(key, len(leaves)), strict=True)
        ]
        return Drawn(
            structure.unflatten([d.value for d in drawn]), sum(d.score for d in drawn), sum(d.choice for d in drawn)
        )
    if base is not None:
        inner = draw(base[0], key, num, gradient)
        return Drawn(inner.value, *(sum_last(v, base[1]) for v in inner[1:]))
    return _draw_mixture(x, key, num, gradient, uniform)


def sum_last(values: Any, ndims: int) -> Any:
    """Add up over the last axes, of what is an array."""
    return jnp.sum(values, axis=tuple(range(values.ndim - ndims, values.ndim))) if np.ndim(values) else values


def log_density(x: Any, value: Any) -> Array:
    """Return the log density at events with leading axes, at least float32."""
    with as_the_libraries_expect():
        if not jax.tree.leaves(value)[1:]:
            value = _in_dtype_of(x, value)
        found = jnp.asarray(x.log_prob(value))
    return found if found.dtype.itemsize >= 4 else found.astype(jnp.float32)


def _in_dtype_of(x: Any, value: Any) -> Any:
    dtype = getattr(x, "dtype", None)  # TensorFlow Probability refuses events of another one
    if library_of(type(x)) != "tensorflow_probability" or dtype is None or isinstance(dtype, dict | list | tuple):
        return value
    return jax.tree.map(lambda v: v.astype(jnp.dtype(dtype)) if v.dtype != jnp.dtype(dtype) else v, value)


# --- mixtures --------------------------------------------------------------------------------------------------------


def components_of(x: Any) -> tuple[Any, Any]:
    """Return the log weights, last axis over the components, and one distribution over them or a list of several."""
    if is_a(x, "MixtureOfTwo"):
        log_weights = jnp.stack([jnp.log(x._prob_a), jnp.log1p(-x._prob_a)], axis=-1)
        return log_weights, [x._component_a, x._component_b]
    for weights, components in (
        ("mixture_distribution", "components_distribution"),
        ("mixing_distribution", "component_distribution"),
        ("mixing_distribution", "component_distributions"),
        ("cat", "components"),
    ):
        if hasattr(x, weights) and hasattr(x, components):
            chosen, found = getattr(x, weights), getattr(x, components)
            break
    num = len(found) if isinstance(found, list | tuple) else tuple(found.batch_shape)[-1]
    classes = jnp.arange(num).reshape(num, *(1,) * len(tuple(chosen.batch_shape)))
    with as_the_libraries_expect():
        log_weights = jnp.moveaxis(jnp.asarray(chosen.log_prob(classes)), 0, -1)
    return log_weights, found


def num_components(x: Any) -> int:
    """Return how many components a mixture has."""
    return int(components_of(x)[0].shape[-1])


def pick(log_weights: Array, uniform: Array) -> Array:
    """Return the class that a number from 0 to 1 falls to; one of weight 0 never comes up."""
    ends = jnp.cumsum(jnp.exp(log_weights), axis=-1)
    ends = ends / ends[..., -1:]
    return jnp.sum(uniform[..., None] >= ends, axis=-1)


def take(values: Array, index: Array) -> Array:
    """Take from the axis that follows the index's own."""
    at = index.reshape(index.shape + (1,) * (values.ndim - index.ndim))
    return jnp.take_along_axis(values, at, axis=index.ndim).squeeze(index.ndim)


def _draw_mixture(x: Any, key: KeyArray, num: int, gradient: Any, uniform: Array | None) -> Drawn:
    log_weights, components = components_of(x)
    batch = tuple(x.batch_shape)
    num_kinds = log_weights.shape[-1]
    choice_key, key = jax.random.split(key)
    if uniform is None:
        uniform = jax.random.uniform(choice_key, (num, *batch), log_weights.dtype)
    with as_the_libraries_expect():
        log_weights = jnp.broadcast_to(log_weights, (*batch, num_kinds))
        uniform = jnp.broadcast_to(
            uniform.reshape(num, *(1,) * (len(batch) + 1 - uniform.ndim), *uniform.shape[1:]), (num, *batch)
        )
        index = jax.lax.stop_gradient(pick(log_weights, uniform))
        index = jnp.minimum(index, num_kinds - 1)  # weights that are not numbers
        choice = take(jnp.broadcast_to(log_weights, (num, *batch, num_kinds)), index)
    if isinstance(components, list | tuple):
        keys = jax.random.split(key, num_kinds)
        each = [draw(c, k, num, gradient) for c, k in zip(components, keys, strict=True)]
        drawn = jax.tree.map(lambda *v: _stack(v, num, batch), *(_full(d, num, batch) for d in each))
    else:
        lead = batch[: len(batch) + 1 - len(tuple(components.batch_shape))]
        drawn = draw(components, key, num * int(np.prod(lead, dtype=int)), gradient)
        drawn = jax.tree.map(lambda v: v.reshape(num, *lead, *v.shape[1:]) if np.ndim(v) else v, drawn)
        drawn = jax.tree.map(
            lambda v: jnp.broadcast_to(v, (num, *batch, num_kinds, *v.shape[len(batch) + 2 :])) if np.ndim(v) else v,
            drawn,
        )
    value, score, inner = jax.tree.map(lambda v: take(v, index) if np.ndim(v) else v, drawn)
    return Drawn(value, 0.0, choice + score + inner)


def _full(drawn: Drawn, num: int, batch: tuple[int, ...]) -> Drawn:
    return Drawn(drawn.value, *(v + jnp.zeros((num, *batch)) for v in drawn[1:]))


def _stack(values: tuple[Array, ...], num: int, batch: tuple[int, ...]) -> Array:
    # Components of a smaller batch than the mixture would be shared between its entries: not done by any library.
    return jnp.stack(values, axis=1 + len(batch))
