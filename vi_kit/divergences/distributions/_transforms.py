"""Invertible transforms: what a KL needs to know of a bijector is whether it is the same on both sides."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit.divergences.distributions._declare import family, static


class Transform:
    """An invertible map of one number (or one event) to another."""

    @property
    def elementwise(self) -> bool:
        """Tell whether it maps numbers one by one."""
        return True

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of its parameters' batch; of all its parameters where it is elementwise."""
        return ()

    def event_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the image of an event of this shape."""
        return shape

    def image(self, support: str) -> str:
        """Return the support of the image of a distribution with this support."""
        return "unknown"

    def broadcast_to(self, shape: tuple[int, ...]) -> Any:
        """Return the same transform with parameters of this batch shape (and event, where it is elementwise)."""
        return self


@family
class Exp(Transform):
    """x → eˣ."""

    def image(self, support: str) -> str:
        """Return the support of the image."""
        return "positive" if support == "real" else "unknown"


@family
class Sigmoid(Transform):
    """x → 1 / (1 + e⁻ˣ)."""

    def image(self, support: str) -> str:
        """Return the support of the image."""
        return "unit" if support == "real" else "unknown"


@family
class Power(Transform):
    """x → x^exponent for positive x, an exponent that is known (½, −1)."""

    exponent: float = static()

    def image(self, support: str) -> str:
        """Return the support of the image."""
        keeps = support == "positive" or (support == "unit" and self.exponent > 0)
        return support if keeps else "unknown"


@family
class Affine(Transform):
    """x → loc + scale · x, of numbers."""

    loc: Array
    scale: Array

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of its parameters."""
        return np.broadcast_shapes(np.shape(self.loc), np.shape(self.scale))

    def image(self, support: str) -> str:
        """Return the support of the image."""
        return "real" if support == "real" else "unknown"

    def broadcast_to(self, shape: tuple[int, ...]) -> Affine:
        """Return the same transform with parameters of this shape."""
        return Affine(jnp.broadcast_to(self.loc, shape), jnp.broadcast_to(self.scale, shape))


@family
class Linear(Transform):
    """x → loc + matrix · x, of vectors; the matrix is square."""

    loc: Array
    matrix: Array

    @property
    def elementwise(self) -> bool:
        """It mixes the coordinates."""
        return False

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of its parameters' batch."""
        return np.broadcast_shapes(np.shape(self.loc)[:-1], np.shape(self.matrix)[:-2])

    def image(self, support: str) -> str:
        """Return the support of the image."""
        return "vector" if support == "vector" else "unknown"

    def broadcast_to(self, shape: tuple[int, ...]) -> Linear:
        """Return the same transform with parameters of this batch shape."""
        loc, matrix = np.shape(self.loc)[-1:], np.shape(self.matrix)[-2:]
        return Linear(jnp.broadcast_to(self.loc, shape + loc), jnp.broadcast_to(self.matrix, shape + matrix))


@family
class Bijector(Transform):
    """Any other bijector of a library.

    Attributes:
        arrays: its arrays, compared by value.
        kind: what it is beside its arrays, compared by value too.
        events: shapes of the events before and after; None where it is elementwise.
        batch: shape of its batch.
    """

    arrays: Any
    kind: Any = static()
    events: tuple[Any, Any] | None = static(default=None)
    batch: tuple[int, ...] = static(default=())

    @property
    def elementwise(self) -> bool:
        """Tell whether it maps numbers one by one."""
        return self.events is None

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of its batch."""
        return self.batch

    def event_shape(self, shape: Any) -> Any:
        """Return the shape of the image of an event of this shape."""
        return self.events[1] if self.events else shape


_NAMED_INVERSES = {"log": Exp(), "logit": Sigmoid()}


def inverse(transform: Transform) -> Transform:
    """Return the inverse of a transform."""
    if isinstance(transform, Exp):
        return Bijector((), "log")
    if isinstance(transform, Sigmoid):
        return Bijector((), "logit")
    if isinstance(transform, Power):
        return Power(1 / transform.exponent)
    if isinstance(transform, Affine):
        return Affine(-transform.loc / transform.scale, 1 / transform.scale)
    if isinstance(transform, Linear):
        matrix = jnp.linalg.inv(transform.matrix)
        return Linear(-jnp.einsum("...ij,...j->...i", matrix, transform.loc), matrix)
    assert isinstance(transform, Bijector)
    if isinstance(transform.kind, str) and transform.kind in _NAMED_INVERSES:
        return _NAMED_INVERSES[transform.kind]
    undone = isinstance(transform.kind, tuple) and transform.kind[0] == "inverse"
    kind = transform.kind[1] if undone else ("inverse", transform.kind)
    return Bijector(transform.arrays, kind, transform.events and transform.events[::-1], transform.batch)


def same(first: Transform, second: Transform, batch_ndims: int) -> Any:
    """Tell whether two transforms are the same: no where their kinds differ, else by the values of their arrays.

    Returns:
        False, True, or one truth an entry of the batch to which both have been brought.
    """
    a, b = jax.tree.flatten(first), jax.tree.flatten(second)
    if a[1] != b[1]:  # type: ignore[operator]
        return False
    equal: Any = True
    for x, y in zip(a[0], b[0], strict=True):
        if x is y:
            continue
        if np.shape(x) != np.shape(y):
            return False
        kept = 0 if isinstance(first, Bijector) else batch_ndims
        equal = equal & jnp.all(x == y, axis=tuple(range(kept, np.ndim(x))))
    return equal
