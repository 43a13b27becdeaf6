"""What every function that takes two distributions does with them first, and what it says when it cannot go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit.divergences._readers import read
from vi_kit.divergences._readers_bijectors import library_of
from vi_kit.divergences._registered import children, is_registered_within, registered_classes
from vi_kit.divergences._rules import NoClosedForm
from vi_kit.divergences.distributions import (
    Beta,
    Categorical,
    Dirichlet,
    Distribution,
    Masked,
    OneHotCategorical,
    Opaque,
)
from vi_kit.divergences.distributions._declare import Constraint

_ELSEWHERE = {
    "torch": "PyTorch",
    "pyro": "Pyro",
    "tensorflow_probability": "TensorFlow Probability on another backend than JAX",
}


def name_of(value: Any) -> str:
    """Return how a distribution is called in messages, with its library."""
    kind = type(value)
    library = kind.__module__.partition(".")[0]
    if (library, kind.__name__) == ("vi_kit", "Product"):
        return "joint distribution"
    known = {"distrax": "distrax.", "tensorflow_probability": "tfd.", "numpyro": "numpyro "}
    return known.get(library, "") + kind.__name__


def prepare(function: str, p: Any, q: Any) -> tuple[Distribution, Distribution]:
    """Read two distribution objects and bring them to one dtype, at least float32.

    Raises:
        TypeError: where one is no distribution.
        ValueError: where parameters or events do not fit in shape, batches do not broadcast, or a parameter is known
            to be out of range while others are traced.
    """
    for name, value in (("p", p), ("q", q)):
        _refuse_no_distribution(name, value)
    first, second = read(p), read(q)
    classes = registered_classes()
    if classes:
        kept = read(p, classes), read(q, classes)
        first, second = kept if is_registered_within(*kept) else (first, second)
    for name, distribution in (("p", first), ("q", second)):
        _refuse_shapes(name, distribution)
    given = first, second
    first, second = _with_the_same_events(*of_one_dtype(first, second))
    if first.event_shape != second.event_shape:
        hint = ""
        shapes = [tuple(d.batch_shape) + tuple(d.event_shape) for d in (first, second) if _is_shape(d.event_shape)]
        if len(shapes) == 2 and shapes[0] == shapes[1]:
            hint = "; Independent turns batch axes into axes of the event"
        raise ValueError(
            f"q: expected events of shape {first.event_shape} as p has, got {second.event_shape} "
            f"(batch shapes: p {first.batch_shape}, q {second.batch_shape}){hint}"
        )
    try:
        np.broadcast_shapes(first.batch_shape, second.batch_shape)
    except ValueError:
        raise ValueError(
            f"q: expected a batch shape that broadcasts with {first.batch_shape} of p, got {second.batch_shape}"
        ) from None
    if any(_is_traced(leaf) for leaf in jax.tree.leaves((first, second))):
        _refuse_values(*given)  # once they are part of a program, constants are no longer known
    return first, second


def _refuse_no_distribution(name: str, value: Any) -> None:
    if isinstance(value, type):
        raise TypeError(f"{name}: expected a distribution, got the class {value.__name__}; give it parameters")
    if isinstance(value, Distribution):
        return
    bases = type(value).__mro__
    found = [_ELSEWHERE[root] for kind in bases if (root := kind.__module__.partition(".")[0]) in _ELSEWHERE]
    if found and not any(library_of(kind) for kind in bases):
        raise TypeError(
            f"{name}: expected a distribution of distrax, TensorFlow Probability on JAX or NumPyro, "
            f"got {type(value).__name__} of {found[0]}"
        )
    if not hasattr(value, "log_prob"):
        raise TypeError(f"{name}: expected a distribution, got {type(value).__name__}")


def _with_the_same_events(p: Distribution, q: Distribution) -> tuple[Distribution, Distribution]:
    """Write a Beta as a Dirichlet of two, and a class as a one-hot vector, where the other side is one (as distrax)."""
    if isinstance(q, Dirichlet) and isinstance(p, Beta) and q.event_shape == (2,):
        return _as_dirichlet(p), q
    if isinstance(p, Dirichlet) and isinstance(q, Beta) and p.event_shape == (2,):
        return p, _as_dirichlet(q)
    if isinstance(q, OneHotCategorical) and isinstance(p, Categorical):
        return OneHotCategorical(p.probs, p.logits), q
    if isinstance(p, OneHotCategorical) and isinstance(q, Categorical):
        return p, OneHotCategorical(q.probs, q.logits)
    return p, q


def _as_dirichlet(beta: Beta) -> Dirichlet:
    beta = beta.broadcast_to(beta.batch_shape)
    return Dirichlet(jnp.stack([beta.concentration1, beta.concentration0], axis=-1))


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(n, int) for n in value)


def of_one_dtype(p: Distribution, q: Distribution) -> tuple[Distribution, Distribution]:
    """Bring every parameter to one floating dtype, at least float32; masks stay as they are."""
    leaves, structure = jax.tree.flatten((p, q))
    arrays = [x if isinstance(x, jax.Array | Opaque) else jnp.asarray(x) for x in leaves]
    known = [a for a in arrays if not isinstance(a, Opaque)]
    floating = [a.dtype for a in known if jnp.issubdtype(a.dtype, jnp.floating) and not a.weak_type]
    if floating and floating[0].itemsize >= 4 and floating.count(floating[0]) == len(floating):
        dtype = floating[0]
    else:
        with jax.numpy_dtype_promotion("standard"):
            dtype = jnp.result_type(*floating, jnp.float32) if floating else jnp.result_type(float)

    def convert(x: Any) -> Any:
        if isinstance(x, Opaque) or x.dtype == jnp.bool_ or (x.dtype == dtype and not x.weak_type):
            return x
        return jax.lax.convert_element_type(x, dtype)

    first, second = jax.tree.unflatten(structure, [convert(a) for a in arrays])
    return first, second


def _is_traced(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer)


# --- parameters ------------------------------------------------------------------------------------------------------


def parameters_of(name: str, distribution: Distribution) -> list[tuple[str, Any, Constraint]]:
    """Return every parameter within a distribution with a name that a user recognizes."""
    found = [(f"{name}.{k}", v, c) for k, (v, c) in distribution.parameters.items()]
    for child in children(distribution):
        found += parameters_of(name, child)
    return found


def _refuse_shapes(name: str, distribution: Distribution) -> None:
    """Refuse parameters of one family that do not fit together.

    Raises:
        TypeError: where one is no number or is not given.
        ValueError: where shapes do not fit, or two of probabilities and logits are given, or none.
    """
    for child in children(distribution):
        _refuse_shapes(name, child)
    fields = {f.name: f for f in dataclasses.fields(distribution) if "axes" in f.metadata}  # type: ignore[arg-type]
    values = {k: getattr(distribution, k) for k in fields}
    if {"probs", "logits"} <= set(fields):
        given = [k for k in ("probs", "logits") if values[k] is not None]
        if len(given) != 1:
            raise ValueError(f"{name}: expected either probs or logits, got {' and '.join(given) or 'neither'}")
    lengths: dict[str, tuple[int, str]] = {}
    batch: tuple[int, ...] = ()
    for k, value in values.items():
        if value is None and fields[k].default is None:
            continue
        axes = fields[k].metadata["axes"]
        shape = _shape_of(f"{name}.{k}", value)
        if len(shape) < len(axes):
            raise ValueError(f"{name}.{k}: expected an array with the axes ({', '.join(axes)}), got shape {shape}")
        core = shape[len(shape) - len(axes) :]
        for axis, length in zip(axes, core, strict=True):
            expected, origin = lengths.setdefault(axis, (length, k))
            if length != expected:
                raise ValueError(f"{name}.{k}: expected {expected} {axis} as in {name}.{origin}, got shape {shape}")
        outer = shape[: len(shape) - len(axes)]
        try:
            batch = np.broadcast_shapes(batch, outer)
        except ValueError:
            raise ValueError(
                f"{name}.{k}: expected a batch shape that broadcasts with {batch} of the other parameters, got {outer}"
            ) from None


def _shape_of(name: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating):
        return value.shape
    if value is None:
        raise TypeError(f"{name}: expected real numbers, got None")
    try:
        dtype = jnp.result_type(value)
    except TypeError:
        try:
            dtype = np.asarray(value).dtype
        except ValueError:
            dtype = np.dtype(object)
    if dtype.kind not in "biufV" or not (dtype == jnp.bool_ or jnp.issubdtype(dtype, jnp.number)):
        what = "complex numbers" if dtype.kind == "c" else type(value).__name__
        raise TypeError(f"{name}: expected real numbers, got {what}")
    return tuple(np.shape(value))


def refuse_bad_parameters(
    function: str,
    p: Distribution,
    q: Distribution,
    value: Array,
    explain: Callable[[Distribution, Distribution], Any] | None = None,
) -> None:
    """Say which parameter is to blame for a NaN, where that is known now.

    Args:
        function: name of the function that is called.
        p: the distribution the mean is taken over.
        q: the other one.
        value: what was found.
        explain: evaluates once more, with parameters that are known: it raises where two have to be the same, say.

    Raises:
        ValueError: where a parameter is out of range.
        NoClosedForm: where there is none for these parameters, as where two have to be the same and are not.
    """
    if _is_traced(value) or not np.isnan(np.asarray(value)).any():
        return
    _refuse_values(p, q)
    if explain is not None and not any(_is_traced(leaf) for leaf in jax.tree.leaves((p, q))):
        explain(p, q)
        raise NoClosedForm("not for these parameters")


def _refuse_values(p: Distribution, q: Distribution) -> None:
    """Refuse parameters that are known now and out of range."""
    with jax.ensure_compile_time_eval():
        for name, distribution in (("p", p), ("q", q)):
            _refuse_values_of(name, distribution)


def _refuse_values_of(name: str, distribution: Distribution) -> None:
    if isinstance(distribution, Masked):
        return  # what is masked may be anything
    for child in children(distribution):
        _refuse_values_of(name, child)
    found = distribution.parameters
    for k, (value, constraint) in found.items():
        if not _is_traced(value):
            _refuse_value(f"{name}.{k}", value, constraint.holds(_wide(value)), constraint.words, constraint.core_ndims)
    if not any(_is_traced(value) for value, _ in found.values()):
        same = distribution.broadcast_to(distribution.batch_shape)
        for k, (holds, words) in same.relations().items():
            _refuse_value(f"{name}.{k}", getattr(same, k), holds, words, 0)


def _wide(value: Any) -> Array:
    array = jnp.asarray(value)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.result_type(float))


def _refuse_value(name: str, value: Any, holds: Any, words: str, core_ndims: int) -> None:
    good = np.asarray(holds)
    if not good.all():
        array = np.asarray(value)
        core = array.reshape((-1, *array.shape[array.ndim - core_ndims :]))
        bad = core[int(np.argmin(good.reshape(-1)))]
        raise ValueError(f"{name}: expected {words}, got {_show(bad)}")


def _show(value: np.ndarray) -> str:
    value = np.asarray(value, np.float64)
    return " ".join(np.array2string(value, threshold=6, precision=6).split()) if value.ndim else f"{value:g}"


def refuse_no_closed_form(function: str, p: Any, q: Any, error: NoClosedForm, kind: Any = None) -> NotImplementedError:
    """Return the error that names both types, their order and the call that works."""
    of, call = "KL(p‖q)", "vk.estimate_kl(key, p, q, num_samples=10_000)"
    if kind is not None:
        of, call = f"{kind!r} of (p, q)", "vk.estimate_divergence(key, p, q, kind, num_samples=10_000)"
    numbers = kind is None and all(_events_are_numbers(x) for x in (p, q))
    return NotImplementedError(
        f"{function}: no closed form is known for {of} with p a {name_of(p)} and q a {name_of(q)} "
        f"({error}); {'vk.quadrature_kl(p, q) integrates it, ' if numbers else ''}{call} estimates it"
    )


def _events_are_numbers(value: Any) -> bool:
    shape = getattr(value, "event_shape", None)
    return shape is not None and not isinstance(shape, dict) and tuple(shape) == ()


def holds_opaque(*distributions: Distribution) -> bool:
    """Tell whether a part is known to a registered pair only: such a thing cannot be an argument of a program."""
    return any(isinstance(leaf, Opaque) for leaf in jax.tree.leaves(distributions))
