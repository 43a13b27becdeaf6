"""`make_target`: a log density in the user's own space becomes a Target."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PyTree

from vi_kit import support as supports
from vi_kit._static import Static
from vi_kit._types import Layout, Support, Target, num_positional


def make_target(
    log_density: Callable[..., Any],
    like: int | PyTree,
    *,
    support: PyTree = None,
    data: PyTree = None,
    prior: PyTree | Callable[[PyTree], Any] | None = None,
    sample: Callable[..., PyTree] | None = None,
    log_normalizer: ArrayLike | None = None,
    derived: Callable[..., Mapping[str, Any]] | None = None,
    names: Sequence[str] | None = None,
) -> Target:
    """Build a target from an unnormalized log density over the user's own variables.

    Args:
        log_density: `log_density(x)`, or `log_density(x, data)` where data are given: one scalar, in nats, without
            Jacobians. With `prior` it is the log likelihood alone.
        like: an int d for a flat vector of R^d, or an example of x: a pytree whose leaves give the shapes.
        support: where variables live (`vi_kit.support`): a prefix tree of `like`; a dict may leave keys out, which
            are real then.
        data: a pytree of arrays (a list of numbers counts as an array). They stay arguments, so other data of the
            same shapes compile nothing.
        prior: a tree of distributions with the structure of `like` (a variable with more elements than the
            distribution has independent, identical ones), or a function `log_prior(x)`.
        sample: `sample(key)` or `sample(key, data)`: one exact draw of x.
        log_normalizer: log Z = log ∫ exp(log_density) dx, where known.
        derived: `derived(x)` or `derived(x, data)`: a dict of further quantities to report; x must be a dict.
        names: labels of the coordinates of x in order, for tables and figures.

    Returns:
        The target.

    Raises:
        TypeError: when an argument is of the wrong kind.
        ValueError: when the arguments do not fit each other.

    Example:
        >>> import jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(
        ...     lambda x: -x["rate"] * 3.0, {"rate": 1.0}, support={"rate": vk.support.positive}
        ... )
        >>> target
        Target(dim=1; rate > 0)
        >>> float(target.log_density(jnp.zeros(1)))
        -3.0
    """
    _check_function("log_density", log_density, "x" if data is None else "x, data", 1 if data is None else 2)
    example = _example(like)
    leaves, treedef = jax.tree.flatten(example)
    if not leaves:
        raise ValueError("like: expected at least one variable, got an empty tree")
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(example)]
    variable_names = tuple(_path_name(path) for path in paths)
    shapes = tuple(tuple(np.shape(leaf)) for leaf in leaves)
    per_leaf = _spread_support(support, example)
    unconstrained = tuple(s.unconstrained_shape(shape) for s, shape in zip(per_leaf, shapes, strict=True))
    labels = tuple(names) if names is not None else None
    num_coordinates = sum(int(np.prod(shape)) for shape in shapes)
    if labels is not None and len(labels) != num_coordinates:
        raise ValueError(f"names: expected {num_coordinates} labels, one a coordinate of x, got {len(labels)}")
    if derived is not None:
        _check_function("derived", derived, "x" if data is None else "x, data", 1 if data is None else 2)
        if not isinstance(example, dict):
            raise TypeError(f"derived: needs `like` to be a dict of named variables, got {type(like).__name__}")
    if sample is not None:
        _check_function("sample", sample, "key" if data is None else "key, data", 1 if data is None else 2)
    is_prior_function = callable(prior) and not _is_prior_tree(prior, treedef)
    return Target(
        data=None if data is None else _arrays(data),
        prior=None if prior is None or is_prior_function else _check_prior(prior, treedef, variable_names),
        supports=per_leaf,
        log_normalizer=None if log_normalizer is None else jnp.asarray(log_normalizer, jnp.result_type(float)),
        log_density_function=Static(log_density),
        prior_function=Static(prior) if is_prior_function else None,
        sample_function=None if sample is None else Static(sample),
        derived_function=None if derived is None else Static(derived),
        layout=Layout(treedef, variable_names, shapes, unconstrained, labels),
    )


def _check_function(name: str, function: object, arguments: str, count: int) -> None:
    if not callable(function):
        raise TypeError(f"{name}: expected a function {name}({arguments}), got {type(function).__name__}")
    taken = num_positional(function)
    if taken is not None and not taken[0] <= count <= taken[1]:
        why = "no data were given" if count == 1 else "data were given"
        raise TypeError(f"{name}: {why}, so it is called as {name}({arguments}), but it takes {taken[0]} argument(s)")


def _example(like: int | PyTree) -> PyTree:
    if isinstance(like, bool) or like is None:
        raise TypeError(f"like: expected an int or an example of x, got {like!r}")
    if isinstance(like, int | np.integer):
        if like < 1:
            raise ValueError(f"like: the dimension must be at least 1, got {like}")
        return np.zeros(int(like))
    for path, leaf in jax.tree_util.tree_leaves_with_path(like):
        kind = np.asarray(leaf).dtype.kind if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) else "f"
        if kind not in "fiu":
            raise TypeError(f"like: {_path_name(path) or 'the example'} must hold numbers, got {leaf!r}")
    return like


def _path_name(path: tuple[Any, ...]) -> str:
    parts = [str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p)))) for p in path]
    return ".".join(parts)


def _is_support(value: object) -> bool:
    return hasattr(value, "constrain") and hasattr(value, "log_jacobian")


def _spread_support(support: PyTree, example: PyTree) -> tuple[Support, ...]:
    """Give every leaf of `example` its support."""
    _check_support(support, example, "")
    # Looked up by path: a dict's leaves come sorted, an OrderedDict's as they were inserted.
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(example)]
    return tuple(_support_at(path, support) for path in paths)


def _check_support(given: Any, here: Any, where: str) -> None:
    place = where or "like"
    if given is None or _is_support(given):
        return
    if isinstance(given, Mapping):
        if not isinstance(here, Mapping):
            raise ValueError(f"support: got a dict for {place}, which is not a dict in `like`")
        for key in given:
            if key not in here:
                near = difflib.get_close_matches(str(key), [str(k) for k in here], n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; `like` has {', '.join(map(repr, here))}"
                raise ValueError(f"support: {key!r} is not in `like`{hint}")
            _check_support(given[key], here[key], f"{where}.{key}" if where else str(key))
    elif isinstance(given, tuple | list) and isinstance(here, tuple | list) and len(given) == len(here):
        for i, (g, h) in enumerate(zip(given, here, strict=True)):
            _check_support(g, h, f"{where}.{i}" if where else str(i))
    else:
        raise ValueError(
            f"support: expected one of vi_kit.support (such as vk.support.positive) for {place}, got {given!r}"
        )


def _support_at(path: tuple[Any, ...], given: Any) -> Support:
    for entry in path:
        if given is None or _is_support(given):
            break
        if isinstance(given, Mapping):
            given = given.get(entry.key)
        else:
            given = getattr(given, entry.name) if hasattr(entry, "name") else given[entry.idx]
    found: Support = supports.real if given is None else given
    # Strong types: a bound given as a Python number and one given as an array are the same program.
    strong: Support = jax.tree.map(_default_float, found)
    return strong


def _default_float(value: ArrayLike) -> Array:
    array = jnp.asarray(value)
    dtype = array.dtype if jnp.issubdtype(array.dtype, jnp.floating) and not array.weak_type else jnp.result_type(float)
    return jax.lax.convert_element_type(array, dtype)


def _is_prior_tree(prior: Any, treedef: Any) -> bool:
    """Tell a tree of distributions from a function: modules of equinox, as a tree of theirs is, can be called too."""
    try:
        parts = treedef.flatten_up_to(prior)
    except (ValueError, TypeError):
        return False
    return all(hasattr(part, "log_prob") for part in parts)


def _check_prior(prior: PyTree, treedef: Any, names: tuple[str, ...]) -> PyTree:
    if isinstance(prior, Mapping):
        missing = [name for name in names if name.split(".")[0] not in prior]
        if missing:
            raise ValueError(f"prior: no distribution was given for {', '.join(missing)}")
        unknown = [key for key in prior if str(key) not in {name.split(".")[0] for name in names}]
        if unknown:
            raise ValueError(f"prior: {', '.join(map(repr, unknown))} is not in `like`, which has {', '.join(names)}")
    try:
        parts = treedef.flatten_up_to(prior)
    except (ValueError, TypeError) as error:
        raise ValueError(f"prior: it must have the structure of `like` ({treedef}), got {prior!r}") from error
    for name, part in zip(names, parts, strict=True):
        if not hasattr(part, "log_prob"):
            raise TypeError(f"prior: expected a distribution for {name or 'x'}, got {type(part).__name__}")
    from vi_kit._distributions import plain  # brings distrax, which a target without a prior does not need

    prior = treedef.unflatten([plain(part) for part in parts])
    # Strong types: a prior built from Python floats and one built from arrays are the same program.
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, jnp.asarray(leaf).dtype), prior)


def _arrays(data: PyTree) -> PyTree:
    """Turn numbers and lists of numbers into arrays; leave keys and arrays as they are."""

    def is_number_list(value: object) -> bool:
        numbers = int | float | np.number | np.bool_
        return isinstance(value, list) and all(isinstance(v, numbers) or is_number_list(v) for v in value)

    def convert(value: Any) -> Array:
        try:
            array = jnp.asarray(np.asarray(value) if isinstance(value, list) else value)
        except (TypeError, ValueError, OverflowError) as error:
            raise TypeError(f"data: expected arrays or numbers, got {type(value).__name__} ({value!r})") from error
        is_integer = isinstance(value, np.ndarray | np.generic | list) and jnp.issubdtype(array.dtype, jnp.integer)
        if is_integer and not np.array_equal(np.asarray(value), np.asarray(array)):
            raise ValueError(f"data: integers beyond the range of {array.dtype} were given; give them as floats")
        return jax.lax.convert_element_type(array, array.dtype)  # a Python number would be weakly typed

    return jax.tree.map(convert, data, is_leaf=is_number_list)
