"""NumPyro models as targets."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from vi_kit._types import Scalar, Target
from vi_kit.targets._make import make_target
from vi_kit.targets._numpyro_sites import find_sites, numpyro_module, numpyro_promotion


def from_numpyro(model: Callable[..., Any], *args: Any, **kwargs: Any) -> Target:
    r"""Build the posterior of a NumPyro model.

    $$ \log \tilde p(x) = \sum_{sites} \log p(site \mid \text{its parents}) \text{, in the model's own space} $$

    The latent sites are the variables, a dict by name, living where their distributions do; deterministic sites are
    reported as derived quantities. Plates, factors, `mask`, `scale` and reparameterizations count as in NumPyro.

    The arrays among the arguments are data: `target.data` is a dict of them by the name of the model's parameter, and
    `dataclasses.replace(target, data={...})` gives the posterior for other data, which compiles nothing where shapes
    are the same. Everything else (numbers, strings, None) is static and compared by value, so plate sizes and bounds
    should be Python numbers. The model runs once here, at an arbitrary point, to find its sites.

    Args:
        model: a function of NumPyro primitives.
        *args: its arguments.
        **kwargs: its keyword arguments.

    Returns:
        The target. It declares no prior apart: its log density is the joint one, whose integral is the evidence.

    Raises:
        ImportError: where NumPyro is not installed (the extra `numpyro`).
        TypeError: when the arguments do not fit the model, or the model needs the value of an array while tracing.
        ValueError: for a site that is discrete, lives where `vi_kit.support` has no map or within bounds that are not
            fixed, has no distribution (`numpyro.param`), or draws a subsample; each by name.

    Source: Phan, Pradhan and Jankowiak, "Composable Effects for Flexible and Accelerated Probabilistic Programming in
    NumPyro", 2019, https://arxiv.org/abs/1912.11554

    Example:
        >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist, vi_kit as vk
        >>> def model(y):
        ...     mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
        ...     sd = numpyro.sample("sd", dist.HalfNormal(1.0))
        ...     with numpyro.plate("rows", len(y)):
        ...         numpyro.sample("y", dist.Normal(mean, sd), obs=y)
        >>> vk.targets.from_numpyro(model, jnp.array([1.0, 2.0, 4.0]))
        Target(dim=2; mean, sd > 0; with data)
    """
    numpyro_module("numpyro")
    if not callable(model):
        raise TypeError(f"model: expected a NumPyro model, a function, got {type(model).__name__}")
    frame, data = _split(model, args, kwargs)
    run = partial(_call, inspect.signature(model), frame)
    try:
        sites = find_sites(run, model, data)
    except jax.errors.ConcretizationTypeError as error:
        raise TypeError(
            "model: it needs the value of an array argument while tracing; give sizes as Python ints and choices as "
            "Python values"
        ) from error
    log_density = partial(_log_density, model, frame)
    derived = partial(_deterministic, model, frame, sites.deterministic) if sites.deterministic else None
    return make_target(
        log_density,
        {name: np.zeros(shape) for name, shape in sites.shapes.items()},
        support=sites.supports,
        data=data if data else None,
        derived=derived,
    )


class _Frame(NamedTuple):
    """The arguments of a model without their arrays: static, compared by value."""

    names: tuple[str, ...]
    structures: tuple[Any, ...]
    leaves: tuple[tuple[Any, ...], ...]


class _Array:
    """Stands in a frame where an array goes."""


def _is_array(leaf: Any) -> bool:
    if isinstance(leaf, jax.Array):
        return True
    if isinstance(leaf, np.generic) or not hasattr(leaf, "__array__"):  # a NumPy scalar is a number, a size perhaps
        return False
    return np.asarray(leaf).dtype.kind in "biufc"


def _split(model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[_Frame, dict[str, Any]]:
    """Take the arrays out of the arguments; where a nested argument holds more than arrays, None stands for it."""
    try:
        bound = inspect.signature(model).bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"model: its arguments do not fit: {error}") from error
    bound.apply_defaults()  # a default that is given and one that is left out are the same program
    arguments = bound.arguments
    structures: list[Any] = []
    frames: list[tuple[Any, ...]] = []
    data: dict[str, Any] = {}
    for name, value in arguments.items():
        leaves = jax.tree.leaves(value)
        structure: Any = jax.tree.structure(value)
        are_arrays = [_is_array(leaf) for leaf in leaves]
        structures.append(structure)
        frames.append(tuple(_Array if here else leaf for here, leaf in zip(are_arrays, leaves, strict=True)))
        if any(are_arrays):
            arrays = [jnp.asarray(leaf) if here else None for here, leaf in zip(are_arrays, leaves, strict=True)]
            data[name] = structure.unflatten(arrays)
    return _Frame(tuple(arguments), tuple(structures), tuple(frames)), data


def _call(signature: inspect.Signature, frame: _Frame, function: Callable[..., Any], data: PyTree) -> Any:
    """Call a function with the arguments of the frame and the arrays of the data."""
    bound = signature.bind_partial()
    counts = [sum(leaf is _Array for leaf in leaves) for leaves in frame.leaves]  # by `is`: others may not compare
    wanted = sorted(name for name, count in zip(frame.names, counts, strict=True) if count)
    if not isinstance(data or {}, dict) or wanted != sorted(data or {}):
        got = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise ValueError(f"data: expected a dict of the model's arrays {wanted}, got {got}")
    for name, structure, leaves, count in zip(frame.names, frame.structures, frame.leaves, counts, strict=True):
        arrays = jax.tree.leaves(data[name]) if count else []
        if len(arrays) != count:
            raise ValueError(f"data: {name!r} should hold {count} arrays, got {len(arrays)}")
        rest = iter(arrays)
        bound.arguments[name] = structure.unflatten([next(rest) if leaf is _Array else leaf for leaf in leaves])
    return function(*bound.args, **bound.kwargs)


def _joint(model: Callable[..., Any], frame: _Frame, x: dict[str, Array], data: PyTree) -> tuple[Any, Any]:
    log_density = numpyro_module("numpyro.infer.util").log_density

    def evaluate(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        found: tuple[Any, Any] = log_density(model, args, kwargs, x)
        return found

    with numpyro_promotion():
        found: tuple[Any, Any] = _call(inspect.signature(model), frame, evaluate, data)
    return found


def _log_density(model: Callable[..., Any], frame: _Frame, x: dict[str, Array], data: PyTree = None) -> Scalar:
    return jnp.asarray(_joint(model, frame, x, data)[0])


def _deterministic(
    model: Callable[..., Any], frame: _Frame, names: tuple[str, ...], x: dict[str, Array], data: PyTree = None
) -> dict[str, Array]:
    trace = _joint(model, frame, x, data)[1]
    return {name: jnp.asarray(trace[name]["value"]) for name in names}
