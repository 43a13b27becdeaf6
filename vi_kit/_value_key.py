"""`value_key`: a hashable key that is equal for two objects when they compute the same thing."""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import sys
import sysconfig
import types
from collections.abc import Hashable, Iterator
from typing import Any

import jax
import numpy as np

_UNHASHED: tuple[object, ...] = (None, object.__hash__)
_LIBRARY_PATHS = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_PLAIN = (type(None), bool, int, str, bytes)


class _Identity:
    """An object that is equal only to itself; holding it keeps its address from being used again."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


@dataclasses.dataclass
class _Seen:
    """What has been met: objects on the way here (a recursive function reads itself), and keys already made."""

    path: dict[int, int] = dataclasses.field(default_factory=dict)
    keys: dict[int, tuple[Any, Hashable]] = dataclasses.field(default_factory=dict)  # held, so no address is reused


def value_key(value: object) -> Hashable:
    """Return a hashable key, equal for two objects only when they compute the same thing.

    Arrays and containers count by content; functions by code, defaults, closure, attributes and the globals they read
    (of functions from installed packages, by identity); other objects by their own equality where they define one, by
    identity otherwise, and by the content of their attributes in both cases. The key is a snapshot: what is changed
    in place later is seen by the next key, not by this one.
    """
    return _key(value, _Seen())


def holds_tracer(key: Hashable) -> bool:
    """Tell whether what a key was made of is traced somewhere."""
    if isinstance(key, _Identity):
        return isinstance(key.value, jax.core.Tracer)
    return isinstance(key, tuple | frozenset) and any(map(holds_tracer, key))


def _key(value: Any, seen: _Seen) -> Hashable:
    kind = type(value)
    if kind in _PLAIN:
        return kind, value
    if isinstance(value, jax.core.Tracer):
        return _Identity(value)
    if isinstance(value, jax.Array | np.generic) or kind is np.ndarray:  # before float: np.float64 is one
        return _array_key(value)
    if kind is float:
        return kind, value.hex()  # tells 0.0 from -0.0 and makes nan equal to itself
    if kind is complex:
        return kind, value.real.hex(), value.imag.hex()
    if isinstance(value, type | types.ModuleType | types.BuiltinFunctionType | np.ufunc):
        return _Identity(value)
    if id(value) in seen.path:
        return "cycle", seen.path[id(value)]
    if id(value) in seen.keys:
        return seen.keys[id(value)][1]
    seen.path[id(value)] = len(seen.path)
    key = _look_into(value, seen)
    del seen.path[id(value)]
    seen.keys[id(value)] = value, key
    return key


def _look_into(value: Any, seen: _Seen) -> Hashable:
    kind = type(value)
    if kind in (tuple, list) or (isinstance(value, tuple) and hasattr(kind, "_fields")):
        return kind, tuple(_key(item, seen) for item in value)
    if kind is dict:
        return kind, tuple((_key(k, seen), _key(v, seen)) for k, v in value.items())
    if kind in (set, frozenset):
        return kind, frozenset(_key(item, seen) for item in value)
    if kind is functools.partial:
        return kind, _key((value.func, value.args, value.keywords), seen)
    if isinstance(value, types.MethodType):
        return kind, _key((value.__self__, value.__func__), seen)
    if isinstance(value, types.FunctionType):
        return _function_key(value, seen)
    if isinstance(value, types.CodeType):
        return _code_key(value, seen)
    if kind.__name__ == "PjitFunction":  # jit changes the cost of a function, not its meaning
        return "jit", _key(value.__wrapped__, seen)
    if getattr(kind, "__is_configuration__", False):
        return kind, value
    return _object_key(value, seen)


def _object_key(value: Any, seen: _Seen) -> Hashable:
    """Key an object of a class we know nothing of."""
    kind = type(value)
    if not jax.tree_util.all_leaves([value]):  # a registered pytree: a support, a distrax distribution, a module
        leaves, structure = jax.tree.flatten(value)
        if _is_hashable(structure):
            return kind, structure, tuple(_key(leaf, seen) for leaf in leaves)
        return _Identity(value)
    own: Hashable = _Identity(value)
    if dataclasses.is_dataclass(value) and kind.__hash__ not in _UNHASHED:
        own = tuple(_key(getattr(value, f.name), seen) for f in dataclasses.fields(value))
    elif _is_hashable(value):
        own = value
    contents = dict(getattr(value, "__dict__", {}))  # what is kept in attributes counts, whatever its equality says
    return kind, own, _key(contents, seen)


def _is_hashable(value: Any) -> bool:
    if type(value).__hash__ in _UNHASHED:
        return False
    try:
        hash(value)
    except TypeError:  # something inside is not hashable
        return False
    return True


def _array_key(value: Any) -> Hashable:
    if isinstance(value, jax.Array) and jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
        return "key", str(value.dtype), _array_key(jax.random.key_data(value))
    if value.dtype.hasobject:  # its bytes are addresses
        return _Identity(value)
    weak = getattr(value, "weak_type", False)
    digest = hashlib.blake2b(np.asarray(value).tobytes(), digest_size=16).digest()
    return "array", str(value.dtype), value.shape, weak, digest


def _function_key(function: types.FunctionType, seen: _Seen) -> Hashable:
    own: Hashable = types.FunctionType
    if function.__module__ != "__main__" and _is_importable(function):
        own = _Identity(function)
        if _is_installed(function):
            return own
    cells = tuple(_cell(cell) for cell in function.__closure__ or ())
    read = dict(_globals_read(function.__code__, function.__globals__))
    parts = (function.__code__, function.__defaults__, function.__kwdefaults__, cells, read, function.__dict__)
    return own, tuple(_key(part, seen) for part in parts)


def _is_importable(function: types.FunctionType) -> bool:
    found: object = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function


def _is_installed(function: types.FunctionType) -> bool:
    """Whether a function belongs to a package, whose globals are not the user's to change."""
    if function.__module__.partition(".")[0] == __name__.partition(".")[0]:
        return True
    return function.__code__.co_filename.startswith((*_LIBRARY_PATHS, "<frozen"))


def _cell(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return "empty cell"


def _globals_read(code: types.CodeType, namespace: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the globals that code reads, and the data it reads off modules and classes (`config.scale`)."""
    name, holder = "", None
    for instruction in dis.get_instructions(code):
        if instruction.opname in {"LOAD_GLOBAL", "LOAD_NAME"} and instruction.argval in namespace:
            name, holder = str(instruction.argval), namespace[instruction.argval]
            yield name, holder
        elif instruction.opname in {"LOAD_ATTR", "LOAD_METHOD"} and isinstance(holder, types.ModuleType | type):
            name, holder = f"{name}.{instruction.argval}", getattr(holder, str(instruction.argval), None)
            if not callable(holder) and not isinstance(holder, types.ModuleType):
                yield name, holder
        else:
            name, holder = "", None
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals_read(constant, namespace)


def _code_key(code: types.CodeType, seen: _Seen) -> Hashable:
    # Not the line number, the name or the file: the same lambda on another line computes the same.
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    constants = tuple(_key(constant, seen) for constant in code.co_consts)
    return code.co_code, code.co_exceptiontable, shape, names, constants
