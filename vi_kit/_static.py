"""Configurations and functions that compare by value, so that equal ones hit the same compiled program.

`jax.jit` looks a static argument up by `==`. A lambda, an `optax` optimizer or a closure is normally equal only to
itself, so building the same one twice compiles twice. Here they are compared by what they compute: code, defaults,
closure cells and the globals they read. Numbers that may vary without changing the program (a learning rate, given
draws) are `leaf` fields: `partition` takes them out before the comparison and `combine` puts traced ones back.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import sys
import types
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar, cast, dataclass_transform

import jax
import numpy as np

Configuration = TypeVar("Configuration")
_Class = TypeVar("_Class", bound=type)
_UNHASHED: tuple[object, ...] = (None, object.__hash__)


class _Identity:
    """An object that is equal only to itself; holding it keeps its address from being used again."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def value_key(value: object) -> Hashable:
    """Return a hashable key, equal for two objects exactly when they compute the same thing.

    Arrays count by content, functions by code, defaults, closure and the globals they read, modules, classes and
    whatever cannot be looked into by identity.
    """
    return _key(value, {})


def _key(value: Any, seen: dict[int, int]) -> Hashable:
    if value is None or isinstance(value, bool | int | str | bytes):
        return type(value), value
    if isinstance(value, jax.core.Tracer):
        return _Identity(value)
    if isinstance(value, jax.Array | np.ndarray | np.generic):  # before float: np.float64 is one, and promotes
        return _array_key(value)
    if isinstance(value, float):
        return type(value), value.hex()  # tells 0.0 from -0.0 and makes nan equal to itself
    if isinstance(value, complex):
        return type(value), value.real.hex(), value.imag.hex()
    if isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
        return _Identity(value)
    if id(value) in seen:  # a recursive function reads itself
        return "cycle", seen[id(value)]
    seen = {**seen, id(value): len(seen)}
    if isinstance(value, tuple | list):
        return type(value), tuple(_key(item, seen) for item in value)
    if isinstance(value, Mapping):
        return type(value), tuple((_key(k, seen), _key(v, seen)) for k, v in value.items())
    if isinstance(value, functools.partial):
        return functools.partial, _key((value.func, value.args, value.keywords), seen)
    if isinstance(value, types.MethodType):
        return types.MethodType, _key((value.__self__, value.__func__), seen)
    if isinstance(value, types.FunctionType):
        return _function_key(value, seen)
    if isinstance(value, types.CodeType):
        return _code_key(value, seen)
    if type(value).__name__ == "PjitFunction":  # jit changes the cost of a function, not its meaning
        return "jit", _key(value.__wrapped__, seen)
    if getattr(type(value), "__is_configuration__", False):
        return type(value), value
    if not jax.tree_util.all_leaves([value]):  # a registered pytree: a support, a distrax distribution, a module
        return _tree_key(value, seen)
    if dataclasses.is_dataclass(value) and type(value).__hash__ not in _UNHASHED:
        fields = tuple(_key(getattr(value, f.name), seen) for f in dataclasses.fields(value))
        return type(value), fields
    return _hashable_key(value)


def _tree_key(value: Any, seen: dict[int, int]) -> Hashable:
    leaves, structure = jax.tree.flatten(value)
    key = _hashable_key(structure)
    return _Identity(value) if isinstance(key, _Identity) else (type(value), key, tuple(_key(x, seen) for x in leaves))


def _hashable_key(value: Any) -> Hashable:
    if type(value).__hash__ in _UNHASHED:
        return _Identity(value)
    try:
        hash(value)
    except TypeError:  # something inside is not hashable
        return _Identity(value)
    return type(value), value


def _array_key(value: Any) -> Hashable:
    if isinstance(value, jax.Array) and jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
        return "key", str(value.dtype), _array_key(jax.random.key_data(value))
    host = np.ascontiguousarray(value)
    if host.dtype.hasobject:  # its bytes are addresses
        return _Identity(value)
    weak = getattr(value, "weak_type", False)
    return (
        "array",
        str(host.dtype),
        host.shape,
        weak,
        hashlib.blake2b(host.tobytes(), digest_size=16).digest(),
    )


def _function_key(function: types.FunctionType, seen: dict[int, int]) -> Hashable:
    if function.__module__ != "__main__" and _is_importable(function):
        return _Identity(function)
    cells = tuple(_cell(cell) for cell in function.__closure__ or ())
    read = {
        name: function.__globals__[name]
        for name in sorted(_global_names(function.__code__))
        if name in function.__globals__
    }
    parts = (function.__code__, function.__defaults__, function.__kwdefaults__, cells, read)
    return types.FunctionType, tuple(_key(part, seen) for part in parts)


def _is_importable(function: types.FunctionType) -> bool:
    found: object = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function


def _cell(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return "empty cell"


def _global_names(code: types.CodeType) -> set[str]:
    # Not all of co_names: those are attributes too, and a global of the same name says nothing.
    read = {i.argval for i in dis.get_instructions(code) if i.opname in {"LOAD_GLOBAL", "LOAD_NAME"}}
    return read.union(*(_global_names(c) for c in code.co_consts if isinstance(c, types.CodeType)))


def _code_key(code: types.CodeType, seen: dict[int, int]) -> Hashable:
    # Not the line number, the name or the file: the same lambda on another line computes the same.
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return (
        code.co_code,
        code.co_exceptiontable,
        shape,
        names,
        tuple(_key(constant, seen) for constant in code.co_consts),
    )


class Static:
    """A function (or any object) carried as the static part of a pytree and compared by value."""

    __slots__ = ("_hash", "_value_key", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self._value_key: Hashable = None
        self._hash: int | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Static):
            return NotImplemented
        return self.value is other.value or (hash(self) == hash(other) and self._value_key == other._value_key)

    def __hash__(self) -> int:
        if self._hash is None:
            self._value_key = value_key(self.value)
            self._hash = hash(self._value_key)
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
            changes[f.name], leaves[f.name] = "leaf", jax.tree.map(_strong, value)
        elif getattr(type(value), "__is_configuration__", False):
            static, inner = partition(value)
            if inner:
                changes[f.name], leaves[f.name] = static, inner
    return (_rebuild(config, changes) if changes else config), leaves


def combine(static: Configuration, leaves: Mapping[str, Any]) -> Configuration:
    """Put the leaves of `partition` (traced, perhaps) back into the static part."""
    changes = {}
    for name, value in leaves.items():
        inner = getattr(static, name)
        changes[name] = combine(inner, value) if getattr(type(inner), "__is_configuration__", False) else value
    return _rebuild(static, changes) if changes else static


def _strong(value: Any) -> jax.Array:
    # A Python float would be weakly typed: another compilation than the same number as an array.
    array = jax.numpy.asarray(value)
    return jax.lax.convert_element_type(array, array.dtype) if array.weak_type else array


def display(function: Callable[..., Any] | object) -> str:
    """Name a function or configuration for reports, without addresses."""
    name = getattr(function, "__name__", None)
    if isinstance(name, str):
        return name
    if isinstance(function, tuple) and any(callable(part) for part in function):  # an optax transformation
        return type(function).__name__
    return repr(function)
