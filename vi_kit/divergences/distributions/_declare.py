"""How a family is declared: its parameters, what each may be, and the shapes that follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, dataclass_transform

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from vi_kit._pytree import pytree

_Class = TypeVar("_Class", bound=type)


@dataclasses.dataclass(frozen=True)
class Constraint:
    """What a parameter may be.

    Attributes:
        words: what is expected, for the sentence that refuses the rest.
        holds: tells it of an array, one truth an element, or an event where `core_ndims` > 0.
        core_ndims: how many trailing axes belong to one distribution (1: a vector, 2: a matrix).
        example: an array of the same shape and dtype that is in range.
    """

    words: str
    holds: Callable[[Array], Bool[Array, "..."]]
    core_ndims: int = 0
    example: Callable[[Array], Array] = jnp.ones_like


# Sums and least and largest entries are found much faster than whether all entries are in range. On CPUs XLA's least
# and largest entries may pass over NaN, its sums do not.


def _all_finite(x: Array, axis: Any = -1) -> Array:
    return jnp.sum(0 * jnp.asarray(x), axis=axis) == 0


def _all_positive(x: Array) -> Array:
    return (jnp.min(x, axis=-1, initial=jnp.inf) > 0) & _all_finite(x)


def _unit_sum(x: Array) -> Array:
    # Wide enough for half precision brought up to float32.
    return (jnp.min(x, axis=-1, initial=jnp.inf) >= 0) & (jnp.abs(jnp.sum(x, axis=-1) - 1) < 1e-2)


def _positive_diagonal(x: Array) -> Array:
    return _all_finite(jnp.tril(x), (-2, -1)) & _all_positive(jnp.diagonal(x, axis1=-2, axis2=-1))


def _identity(x: Array) -> Array:
    return jnp.broadcast_to(jnp.eye(x.shape[-2], x.shape[-1], dtype=x.dtype), x.shape)


def _some_finite(x: Array) -> Array:
    return jnp.isfinite(jnp.max(jnp.where(jnp.isnan(x), jnp.inf, x), axis=-1))


real = Constraint("finite numbers", jnp.isfinite)
bound = Constraint("numbers, not NaN", lambda x: ~jnp.isnan(x))
whole = Constraint("whole numbers", lambda x: jnp.isfinite(x) & (x == jnp.round(x)))
positive = Constraint("positive numbers", lambda x: (x > 0) & (x < jnp.inf))
non_negative = Constraint("numbers of at least 0", lambda x: (x >= 0) & (x < jnp.inf))
nonzero = Constraint("finite numbers other than 0", lambda x: (x != 0) & jnp.isfinite(x))
probability = Constraint("probabilities, from 0 to 1", lambda x: (x >= 0) & (x <= 1))
log_odds = Constraint("numbers, not NaN", lambda x: ~jnp.isnan(x))
count = Constraint("whole numbers of at least 0", lambda x: (x >= 0) & (x == jnp.round(x)))
vector = Constraint("vectors of finite numbers", _all_finite, 1)
positive_vector = Constraint("vectors of positive numbers", _all_positive, 1)
probabilities = Constraint(
    "vectors of probabilities that sum to 1", _unit_sum, 1, lambda x: jnp.full_like(x, 1 / x.shape[-1])
)
logits_vector = Constraint("vectors of logits, not NaN, one of them above -inf", _some_finite, 1)
direction = Constraint(
    "vectors of length 1",
    lambda x: jnp.abs(jnp.sum(x * x, axis=-1) - 1) < 1e-2,
    1,
    lambda x: jnp.full_like(x, x.shape[-1] ** -0.5),
)
# The upper ends of intervals, above the example of a lower one.
real_end, bound_end, whole_end = (
    dataclasses.replace(lower, example=lambda x: jnp.full_like(x, 2)) for lower in (real, bound, whole)
)
matrix = Constraint("matrices of finite numbers", lambda x: _all_finite(x, (-2, -1)), 2)
factor = Constraint("lower-triangular matrices with a positive diagonal", _positive_diagonal, 2, _identity)


def parameter(
    constraint: Constraint, *, default: Any = dataclasses.MISSING, axes: tuple[str, ...] | None = None
) -> Any:
    """Declare a parameter: an array, a leaf of the pytree.

    Args:
        constraint: what it may be.
        default: its value where none is given.
        axes: names of its trailing axes; those of one name have one length. By default all are `dim`.
    """
    axes = ("dim",) * constraint.core_ndims if axes is None else axes
    return dataclasses.field(default=default, metadata={"constraint": constraint, "axes": axes})


def static(*, default: Any = dataclasses.MISSING) -> Any:
    """Declare what is part of the structure, not an array: a number of axes, a shape, a transform."""
    return dataclasses.field(default=default, metadata={"static": True})


class Distribution:
    """What a divergence needs to know of a distribution: its family and its parameters, a pytree of arrays.

    Attributes:
        support: where it puts mass: real, positive, unit, interval, above, natural, finite, vector, …
        event_ndims: number of axes of one event.
    """

    support: ClassVar[str] = "unknown"
    event_ndims: ClassVar[int] = 0

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return type(self).__name__

    @property
    def parameters(self) -> dict[str, tuple[Array, Constraint]]:
        """The parameters that are given, by name, with what each may be."""
        found = {}
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if "constraint" in f.metadata and value is not None:
                found[f.name] = value, f.metadata["constraint"]
        return found

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch: one KL for each entry."""
        shapes = [np.shape(v)[: np.ndim(v) - c.core_ndims] for v, c in self.parameters.values()]
        return np.broadcast_shapes(*shapes)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one event."""
        if self.event_ndims:
            for value, constraint in self.parameters.values():
                if constraint.core_ndims >= self.event_ndims:
                    shape = np.shape(value)[np.ndim(value) - constraint.core_ndims :]
                    return tuple(shape[: self.event_ndims])
        return ()

    def relations(self) -> dict[str, tuple[Bool[Array, "..."], str]]:
        """Tell of parameters that depend on others whether they are in range, and what is expected.

        All parameters have been brought to one batch shape.
        """
        return {}

    def broadcast_to(self, batch_shape: tuple[int, ...]) -> Any:
        """Return the same distribution, every parameter brought to this batch shape."""
        changes = {
            name: jnp.broadcast_to(value, batch_shape + np.shape(value)[np.ndim(value) - c.core_ndims :])
            for name, (value, c) in self.parameters.items()
        }
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def is_valid(self) -> Bool[Array, "..."]:
        """Tell of each entry of the batch whether every parameter is what it may be."""
        valid = jnp.ones(self.batch_shape, bool)
        for value, constraint in self.parameters.values():
            valid = valid & jnp.broadcast_to(constraint.holds(value), self.batch_shape)
        for holds, _ in self.broadcast_to(self.batch_shape).relations().values():
            valid = valid & jnp.broadcast_to(holds, self.batch_shape)
        return valid


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(parameter, static, dataclasses.field))
def family(cls: _Class) -> _Class:
    """Make a frozen dataclass of parameters, registered as a pytree whose leaves they are."""
    made: Any = dataclasses.dataclass(frozen=True, eq=False)(cls)
    return pytree(made)  # type: ignore[no-any-return]
