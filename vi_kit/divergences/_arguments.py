"""Distribution objects as arguments of a compiled program: their arrays, and the rest compared by value.

All three libraries make their objects pytrees, but two that are built alike do not always compare equal: distrax's
diagonal normal keeps bound methods over its first parameters, joint distributions keep the functions they were given.
Those are taken to what they are built from, and built again inside the program; functions compare by what they compute.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit._pytree import pytree
from vi_kit._static import Static, strong, value_key
from vi_kit._value_key import holds_tracer


def library_of(kind: type) -> str:
    """Return the top-level package of a class."""
    return kind.__module__.partition(".")[0]


def is_a(value: Any, *names: str) -> bool:
    """Tell whether an object is of a class of one of the libraries with one of these names, subclasses included."""
    libraries = ("distrax", "tensorflow_probability", "numpyro", __name__.partition(".")[0])
    return any(base.__name__ in names and library_of(base) in libraries for base in type(value).__mro__)


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """Return the distributions in a pytree, and its structure."""
    return jax.tree.flatten(tree, is_leaf=is_distribution)


def is_distribution(value: Any) -> bool:
    """Tell whether something has a density."""
    return hasattr(value, "log_prob") and not isinstance(value, type)


@pytree
@dataclasses.dataclass(frozen=True)
class Product:
    """Independent distributions in any pytree, one event of each."""

    parts: Any

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch."""
        leaves = jax.tree.leaves(self.parts, is_leaf=is_distribution)
        return np.broadcast_shapes(*(tuple(x.batch_shape) for x in leaves))

    @property
    def event_shape(self) -> Any:
        """Shapes of the events."""
        return jax.tree.map(lambda x: tuple(x.event_shape), self.parts, is_leaf=is_distribution)

    def log_prob(self, value: Any) -> Any:
        """Sum the log densities of the parts."""
        parts, structure = flatten(self.parts)
        return sum(x.log_prob(v) for x, v in zip(parts, structure.flatten_up_to(value), strict=True))


@pytree
@dataclasses.dataclass(frozen=True)
class _Made:
    """What a distribution is built from: a class, its arrays and distributions by name, and whole numbers."""

    arguments: dict[str, Any]
    kind: type = dataclasses.field(metadata={"static": True})
    numbers: tuple[tuple[str, int], ...] = dataclasses.field(default=(), metadata={"static": True})

    def build(self) -> Any:
        made = jax.tree.map(_built, self.arguments, is_leaf=_is_whole)
        return self.kind(**made, **dict(self.numbers))


@pytree
@dataclasses.dataclass(frozen=True)
class _Attributes:
    """An object of a class that is no pytree: what of its attributes is arrays or distributions, and the rest."""

    arrays: dict[str, Any]
    kind: type = dataclasses.field(metadata={"static": True})
    others: tuple[tuple[str, Static], ...] = dataclasses.field(metadata={"static": True})

    def build(self) -> Any:
        made: Any = object.__new__(self.kind)
        made.__dict__.update(jax.tree.map(_built, self.arrays, is_leaf=_is_whole))
        made.__dict__.update({name: other.value for name, other in self.others})
        return made


def _is_whole(value: Any) -> bool:
    return isinstance(value, _Made | _Attributes) or is_distribution(value)


def _built(value: Any) -> Any:
    return value.build() if isinstance(value, _Made | _Attributes) else value


# distrax classes that are built again inside the program, with what they are built from
_DISTRAX = {
    "MultivariateNormalDiag": ("loc", "scale_diag"),
    "MultivariateNormalDiagPlusLowRank": ("loc", "scale_diag", "scale_u_matrix", "scale_v_matrix"),
    "Independent": ("distribution", "reinterpreted_batch_ndims"),
    "Joint": ("distributions",),
    "MixtureSameFamily": ("mixture_distribution", "components_distribution"),
}
_TFP_JOINTS = ("JointDistributionNamed", "JointDistributionSequential")


def _taken_apart(value: Any) -> Any:
    """Return what builds a distribution, where its own pytree will not do."""
    for base in type(value).__mro__:
        library, name = library_of(base), base.__name__
        if name == "DistributionFromTFP":  # distrax's wrapper, which hides the object in its methods
            return _taken_apart(inspect.getclosurevars(type(value).log_prob).nonlocals["tfp_distribution"])
        if library == "distrax" and name in _DISTRAX:
            return _made(value, base)
        if library == "tensorflow_probability" and name in _TFP_JOINTS:
            model: Any = value.model
            # The batched kinds, subclasses, count axes in their own way.
            independent = type(value) is base and all(map(is_distribution, flatten(model)[0]))
            parts = jax.tree.map(_taken_apart, model, is_leaf=is_distribution)
            return _Made({"parts": parts}, Product) if independent else value
        if any(n in vars(base) for n in ("log_prob", "_log_prob")):
            break
    is_tree = not jax.tree_util.all_leaves([value])
    return value if is_tree or not hasattr(value, "__dict__") else _by_attributes(value)


def _by_attributes(value: Any) -> _Attributes:
    arrays = {k: v for k, v in vars(value).items() if _is_array(v) or is_distribution(v)}
    others = tuple((k, Static(v)) for k, v in vars(value).items() if k not in arrays)
    _refuse_hidden(value_key([other.value for _, other in others]))
    taken = {k: _taken_apart(v) if is_distribution(v) else v for k, v in arrays.items()}
    return _Attributes(taken, type(value), others)


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray | np.generic | float | complex)


def _made(value: Any, kind: type) -> Any:
    found = {name: getattr(value, name, getattr(value, "_" + name, None)) for name in _DISTRAX[kind.__name__]}
    numbers = tuple((k, v) for k, v in found.items() if isinstance(v, int))
    given = {k: v for k, v in found.items() if v is not None and not isinstance(v, int)}
    parts, structure = flatten(given)
    taken = [_taken_apart(x) if is_distribution(x) else x for x in parts]
    unchanged = all(a is b for a, b in zip(parts, taken, strict=True)) and any(map(is_distribution, parts))
    return value if unchanged else _Made(structure.unflatten(taken), kind, numbers)


class Skeleton:
    """All of some distributions but their arrays; equal ones hit the same compiled program."""

    __slots__ = ("_key", "others", "structure")

    def __init__(self, structure: Any, others: tuple[Any, ...]) -> None:
        self.structure, self.others = structure, others
        self._key: Hashable = None

    def key(self) -> Hashable:
        """Return what equal skeletons have in common, functions by what they compute."""
        if self._key is None:
            self._key = _structure_key(self.structure)
        return self._key

    def of(self, index: int, arrays: list[Any]) -> list[Any]:
        """Return those of the arrays that belong to one of the distributions."""
        sizes = [child.num_leaves for child in self.structure.children()]
        start = sum(sizes[:index])
        before = self.others[:start].count(_ARRAY)
        return arrays[before : before + self.others[start : start + sizes[index]].count(_ARRAY)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Skeleton) or self.others != other.others:
            return False
        try:
            if self.structure == other.structure:
                return True
        except (ValueError, TypeError):  # arrays in the static part have no single truth
            pass
        return self.structure.num_leaves == other.structure.num_leaves and self.key() == other.key()

    def __hash__(self) -> int:
        return hash((self.structure.num_leaves, len(self.others)))


def _structure_key(value: Any) -> Hashable:
    if isinstance(value, jax.tree_util.PyTreeDef):
        data = value.node_data()
        node = None if data is None else (data[0], _structure_key(data[1]))
        return node, tuple(map(_structure_key, value.children()))
    if type(value) in (tuple, list):
        return type(value), tuple(map(_structure_key, value))
    return value_key(value)


_ARRAY = "array"


def _refuse_hidden_tracers(leaves: list[Any], structure: Any) -> None:
    """Refuse parameters that are traced where JAX does not see them: their gradients would be lost."""
    _refuse_hidden(_structure_key(structure))
    _refuse_hidden(value_key([leaf for leaf in leaves if not _is_array(leaf) and not isinstance(leaf, int)]))


def _refuse_hidden(key: Hashable) -> None:
    if holds_tracer(key):
        raise TypeError(
            "p, q: expected every traced parameter in an array that JAX sees as part of the object, got one within a "
            "function or another attribute; pass it to the distribution as an argument of its own"
        )


def pack(objects: Any) -> tuple[list[Any], Skeleton]:
    """Split a tree of distributions into arrays and the rest.

    Raises:
        TypeError: where a library cannot take its own object apart.
    """
    try:
        leaves, structure = jax.tree.flatten(jax.tree.map(_taken_apart, objects, is_leaf=is_distribution))
    except AttributeError as error:  # TensorFlow Probability's batched joint distributions, of some versions
        raise TypeError(f"p, q: expected distributions that their library can flatten into arrays: {error}") from error
    _refuse_hidden_tracers(leaves, structure)
    arrays: list[Any] = []
    others: list[Any] = []
    for leaf in leaves:
        if _is_array(leaf) or isinstance(leaf, int):
            array = strong(leaf)
            narrow = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4
            arrays.append(array.astype(jnp.float32) if narrow else array)
            others.append(_ARRAY)
        else:
            others.append(Static(leaf))
    return arrays, Skeleton(structure, tuple(others))


def unpack(skeleton: Skeleton, arrays: list[Any]) -> Any:
    """Put the distributions together again, of other arrays perhaps."""
    given = iter(arrays)
    leaves = [next(given) if other is _ARRAY else other.value for other in skeleton.others]
    objects = jax.tree.unflatten(skeleton.structure, leaves)
    return jax.tree.map(_built, objects, is_leaf=_is_whole)
