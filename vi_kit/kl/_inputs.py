"""What every function of `vi_kit.kl` does with its inputs: floats of one dtype, shapes that fit, rows and classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Bool, Float

Axis = int | Sequence[int]


def is_traced(value: Any) -> bool:
    """Tell whether a value is known only when the program runs."""
    return isinstance(value, jax.core.Tracer)


def floats(**named: ArrayLike) -> list[Float[Array, "..."]]:
    """Bring inputs to one floating dtype, at least float32; gradients come back in each input's own dtype.

    Raises:
        TypeError: for integer or complex arrays, by name. A Python int is taken as a float.
    """
    arrays = []
    for name, value in named.items():
        if isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if isinstance(value, list | tuple) and any(hasattr(x, "shape") for x in value):
            raise TypeError(f"{name}: expected an array, got a {type(value).__name__} of arrays; use jnp.stack")
        if value is None or isinstance(value, str):
            raise TypeError(f"{name}: expected an array, got {value!r}")
        array = jnp.asarray(value)
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"{name}: expected floating-point numbers, got {array.dtype}{list(array.shape)}")
        arrays.append(array)
    typed = [a.dtype for a in arrays if not a.weak_type]
    with jax.numpy_dtype_promotion("standard"):  # half precision is brought up, where promotion is strict too
        dtype = jnp.result_type(*typed, jnp.float32) if typed else jnp.result_type(float)
    return [a.astype(dtype) for a in arrays]


def broadcast_shapes(**shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the common shape.

    Raises:
        ValueError: where there is none, naming all of them.
    """
    try:
        return jnp.broadcast_shapes(*shapes.values())
    except ValueError:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"{next(iter(shapes))}: expected shapes that broadcast, got {listed}") from None


def class_axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    """Return the axes as sorted positive numbers.

    Raises:
        ValueError: where an axis is out of range or named twice.
    """
    try:
        axes = (axis,) if isinstance(axis, int | np.integer) else tuple(axis)
        wrong = not axes or any(not -ndim <= a < ndim for a in axes)
    except TypeError:
        raise TypeError(f"axis: expected an int or a tuple of ints, got {axis!r}") from None
    found = tuple(sorted(int(a) % ndim for a in axes)) if not wrong else ()
    if wrong or len(set(found)) < len(found):
        raise ValueError(f"axis: expected axes from {-ndim} to {ndim - 1}, each once, got {axis}")
    return found


def booleans(name: str, value: ArrayLike) -> Bool[Array, "..."]:
    """Read a mask: booleans, or integers of which 0 is False.

    Raises:
        TypeError: for floats, which would be weights.
    """
    array = jnp.asarray(value)
    if array.dtype == jnp.bool_:
        return array
    if jnp.issubdtype(array.dtype, jnp.integer):
        if not is_traced(array) and np.any((np.asarray(array) != 0) & (np.asarray(array) != 1)):
            raise ValueError(f"{name}: expected booleans (or integers of 0 and 1), got other integers, such as lengths")
        return array != 0
    raise TypeError(f"{name}: expected booleans (or integers of 0 and 1), got {array.dtype}; weights go to kl.reduce")


def in_range(
    name: str, value: ArrayLike, expected: str, *, least: float = 0.0, most: float = float("inf"), open_at_least: bool
) -> Float[Array, "..."]:
    """Return the value as an array, refused where it is out of range: an error if concrete, NaN if traced.

    Raises:
        ValueError: with the words of `expected`.
    """
    if not is_traced(value):
        try:
            concrete = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"{name}: expected {expected}, got {value!r}") from None
        if np.ndim(value) == 0 and np.issubdtype(np.asarray(value).dtype, np.integer):
            value = float(concrete)
        if not np.all((concrete > least if open_at_least else concrete >= least) & (concrete <= most)):
            raise ValueError(f"{name}: expected {expected}, got {value}")
        return floats(**{name: value})[0]
    (array,) = floats(**{name: value})
    good = (array > least if open_at_least else array >= least) & (array <= most)
    return jnp.where(good, array, jnp.full_like(array, jnp.nan))


def positive(name: str, value: ArrayLike) -> Float[Array, "..."]:
    """Return a number above 0 and below infinity."""
    most = float(np.finfo(np.float32).max)
    return in_range(name, value, "a positive number", most=most, open_at_least=True)


def fraction(name: str, value: ArrayLike) -> Float[Array, "..."]:
    """Return a number from 0 to 1."""
    return in_range(name, value, "a number from 0 to 1", most=1.0, open_at_least=False)
