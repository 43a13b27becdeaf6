"""`pytree`: makes a frozen dataclass a pytree whose structure tells its class."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar

import jax

_Class = TypeVar("_Class", bound=type)


def pytree(cls: _Class) -> _Class:
    """Register a dataclass as a pytree; fields whose metadata say `static` belong to the structure.

    Not by `jax.tree_util.register_dataclass`: with it the structures of two different classes with equally many
    leaves compare equal (jaxlib 0.10 and 0.12; only their hashes differ), so that `jit` now and then takes the
    program that it compiled for the other class.
    """
    fields = dataclasses.fields(cls)
    data = tuple(f.name for f in fields if not f.metadata.get("static"))
    static = tuple(f.name for f in fields if f.metadata.get("static"))
    keys = tuple(jax.tree_util.GetAttrKey(name) for name in data)

    def structure(x: Any) -> tuple[Any, ...]:
        return tuple(getattr(x, name) for name in static)

    def flatten(x: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(x, name) for name in data), structure(x)

    def flatten_with_keys(x: Any) -> tuple[tuple[tuple[Any, Any], ...], tuple[Any, ...]]:
        return tuple((key, getattr(x, name)) for key, name in zip(keys, data, strict=True)), structure(x)

    def unflatten(aux: tuple[Any, ...], children: Iterable[Any]) -> Any:
        made: Any = object.__new__(cls)  # what JAX puts in place of arrays need not pass the checks of a constructor
        for name, value in zip((*data, *static), (*children, *aux), strict=True):
            object.__setattr__(made, name, value)
        return made

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls
