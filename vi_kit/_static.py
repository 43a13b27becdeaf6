"""Configurations and functions that compare by value, so that equal ones hit the same compiled program.

`jax.jit` looks a static argument up by `==`. A lambda, an `optax` optimizer or a closure is normally equal only to
itself, so building the same one twice compiles twice. Here they are compared by what they compute: code, defaults,
closure cells and the globals they read. Numbers that may vary without changing the program (a learning rate, given
draws) are `leaf` fields: `partition` takes them out before the comparison and `combine` puts traced ones back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar, cast, dataclass_transform

import jax

from vi_kit._value_key import value_key as value_key

Configuration = TypeVar("Configuration")
_Class = TypeVar("_Class", bound=type)


class Static:
    """A function (or any object) carried as the static part of a pytree and compared by value."""

    __slots__ = ("_hash", "_value_key", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        # Now, not when first compared: what the function reads may be something else by then.
        self._value_key = value_key(value)
        self._hash = hash(self._value_key)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Static):
            return NotImplemented
        # Not by `is`: the same function may read other globals now than when the first target was made from it.
        return self is other or (self._hash == other._hash and self._value_key == other._value_key)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return getattr(self.value, "__name__", None) or repr(self.value)


def leaf(*, default: Any = dataclasses.MISSING) -> Any:
    """Declare a field whose value may change without another compilation (a number or arrays)."""
    return dataclasses.field(default=default, metadata={"leaf": True})


@dataclass_transform(frozen_default=True, field_specifiers=(leaf, dataclasses.field))
def configuration(cls: _Class) -> _Class:
    """Make a frozen dataclass that compares and hashes by the value of its fields, functions included."""
    own_repr = "__repr__" in vars(cls)
    made: Any = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)

    def fields_key(self: Any) -> Hashable:
        cached = self.__dict__.get("_fields_key")
        if cached is None:
            cached = tuple(value_key(getattr(self, f.name)) for f in dataclasses.fields(self))
            object.__setattr__(self, "_fields_key", cached)
        return cast(Hashable, cached)

    def equal(self: Any, other: object) -> bool:
        if type(self) is not type(other):
            return False
        return self is other or bool(fields_key(self) == fields_key(other))

    def show(self: Any) -> str:
        fields = ", ".join(f"{f.name}={display(getattr(self, f.name))}" for f in dataclasses.fields(self))
        return f"{type(self).__name__}({fields})"

    if not own_repr:
        made.__repr__ = show
    made.__eq__ = equal
    made.__hash__ = lambda self: hash((type(self), fields_key(self)))
    made.__getstate__ = lambda self: {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    made.__is_configuration__ = True
    return made  # type: ignore[no-any-return]


def _rebuild(config: Configuration, changes: Mapping[str, object]) -> Configuration:
    # Not dataclasses.replace: that would check the fields again, and placeholders are not valid values.
    new = object.__new__(type(config))
    for f in dataclasses.fields(config):  # type: ignore[arg-type]
        object.__setattr__(new, f.name, changes.get(f.name, getattr(config, f.name)))
    return new


def partition(config: Configuration) -> tuple[Configuration, dict[str, Any]]:
    """Split a configuration into its static part and its leaves (a pytree of arrays)."""
    if not dataclasses.is_dataclass(config):  # a user's own class: all of it is static
        return config, {}
    changes: dict[str, object] = {}
    leaves: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if f.metadata.get("leaf") and value is not None and not callable(value):
            changes[f.name], leaves[f.name] = "leaf", jax.tree.map(strong, value)
        elif getattr(type(value), "__is_configuration__", False):
            changes[f.name], inner = partition(value)
            if inner:
                leaves[f.name] = inner
    return _rebuild(config, changes), leaves  # always a new object, whose key is taken now


def combine(static: Configuration, leaves: Mapping[str, Any]) -> Configuration:
    """Put the leaves of `partition` (traced, perhaps) back into the static part."""
    changes = {}
    for name, value in leaves.items():
        inner = getattr(static, name)
        changes[name] = combine(inner, value) if getattr(type(inner), "__is_configuration__", False) else value
    return _rebuild(static, changes) if changes else static


def strong(value: Any) -> Any:
    """Strip the weak type of a Python number."""
    # A Python float would be weakly typed: another compilation than the same number as an array.
    array = jax.numpy.asarray(value)
    return jax.lax.convert_element_type(array, array.dtype) if getattr(array, "weak_type", False) else array


def display(function: Callable[..., Any] | object) -> str:
    """Name a function or configuration for reports, without addresses."""
    name = getattr(function, "__name__", None)
    if isinstance(name, str):
        return name
    if isinstance(function, tuple) and any(callable(part) for part in function):  # an optax transformation
        return type(function).__name__
    return repr(function)
