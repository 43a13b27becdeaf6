"""What distributions are made of others: independent coordinates, transforms, products, mixtures."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from vi_kit.divergences.distributions._declare import Distribution, bound, family, parameter, static
from vi_kit.divergences.distributions._transforms import Transform


class _Wrapper(Distribution):
    base: Any

    def is_valid(self) -> Bool[Array, "..."]:
        """Tell of each entry of the batch whether its parameters are in range."""
        valid = self.base.is_valid()
        extra = tuple(range(valid.ndim - (valid.ndim - len(self.batch_shape)), valid.ndim))
        return jnp.all(valid, axis=extra)

    @property
    def support(self) -> str:  # type: ignore[override]
        """Where it puts mass."""
        return f"{type(self).__name__} of {self.base.support}"


@family
class Independent(_Wrapper):
    """The last `ndims` batch axes of `base` are axes of the event."""

    base: Distribution
    ndims: int = static(default=1)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch."""
        shape = self.base.batch_shape
        return shape[: len(shape) - self.ndims]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one event."""
        shape = self.base.batch_shape
        return shape[len(shape) - self.ndims :] + self.base.event_shape

    def broadcast_to(self, batch_shape: tuple[int, ...]) -> Independent:
        """Return the same distribution with this batch shape."""
        inner = self.base.batch_shape
        return Independent(self.base.broadcast_to(batch_shape + inner[len(inner) - self.ndims :]), self.ndims)


@family
class Sample(_Wrapper):
    """Independent draws of `base`, in an array of this shape in front of its event."""

    base: Distribution
    shape: tuple[int, ...] = static()

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch."""
        return self.base.batch_shape

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one event."""
        return self.shape + self.base.event_shape

    def broadcast_to(self, batch_shape: tuple[int, ...]) -> Sample:
        """Return the same distribution with this batch shape."""
        return Sample(self.base.broadcast_to(batch_shape), self.shape)


@family
class Transformed(_Wrapper):
    """The image of `base` under invertible transforms, the first one applied first."""

    base: Distribution
    transforms: tuple[Transform, ...]

    @property
    def support(self) -> str:  # type: ignore[override]
        """Where it puts mass."""
        found = self.base.support
        for transform in self.transforms:
            found = transform.image(found)
        return found

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch."""
        shapes = [self.base.batch_shape]
        for transform, event in zip(self.transforms, self._events(), strict=False):
            shape = transform.batch_shape
            shapes.append(shape[: max(len(shape) - len(event), 0)] if transform.elementwise else shape)
        return np.broadcast_shapes(*shapes)

    @property
    def event_shape(self) -> Any:
        """Shape of one event."""
        return self._events()[-1]

    def _events(self) -> list[Any]:
        """Return the shapes of the events before, between and after the transforms."""
        shapes = [self.base.event_shape]
        for transform in self.transforms:
            shapes.append(transform.event_shape(shapes[-1]))
        return shapes

    def is_valid(self) -> Bool[Array, "..."]:
        """Tell of each entry of the batch whether its parameters are in range."""
        return jnp.broadcast_to(self.base.is_valid(), self.batch_shape)

    def broadcast_to(self, batch_shape: tuple[int, ...]) -> Transformed:
        """Return the same distribution with this batch shape."""
        transforms = tuple(
            t.broadcast_to(batch_shape + event if t.elementwise else batch_shape)
            for t, event in zip(self.transforms, self._events(), strict=False)
        )
        return Transformed(self.base.broadcast_to(batch_shape), transforms)


@family
class Masked(_Wrapper):
    """`base` where the mask is True; elsewhere it counts for nothing."""

    base: Distribution
    mask: Bool[Array, "..."]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch."""
        return np.broadcast_shapes(self.base.batch_shape, np.shape(self.mask))

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one event."""
        return self.base.event_shape

    def is_valid(self) -> Bool[Array, "..."]:
        """Tell of each entry of the batch whether its parameters are in range; what is masked may hold anything."""
        valid = jnp.broadcast_to(self.base.is_valid(), self.batch_shape)
        return valid | ~jnp.broadcast_to(self.mask, self.batch_shape)

    def broadcast_to(self, batch_shape: tuple[int, ...]) -> Masked:
        """Return the same distribution with this batch shape."""
        return Masked(self.base.broadcast_to(batch_shape), jnp.broadcast_to(self.mask, batch_shape))


@family
class Joint(Distribution):
    """Independent parts in any pytree (a tuple, a dict by name), one event of each."""

    support: ClassVar[str] = "joint"
    parts: Any

    def _children(self) -> list[Distribution]:
        return jax.tree.leaves(self.parts, is_leaf=lambda x: isinstance(x, Distribution))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch."""
        return np.broadcast_shapes(*(d.batch_shape for d in self._children()))

    @property
    def event_shape(self) -> Any:
        """Shape of the events, in the structure of the parts."""
        return jax.tree.map(lambda d: d.event_shape, self.parts, is_leaf=lambda x: isinstance(x, Distribution))

    def broadcast_to(self, batch_shape: tuple[int, ...]) -> Joint:
        """Return the same distribution with this batch shape."""
        parts = jax.tree.map(
            lambda d: d.broadcast_to(batch_shape), self.parts, is_leaf=lambda x: isinstance(x, Distribution)
        )
        return Joint(parts)

    def is_valid(self) -> Bool[Array, "..."]:
        """Tell of each entry of the batch whether its parameters are in range."""
        valid = jnp.ones(self.batch_shape, bool)
        for child in self._children():
            valid = valid & jnp.broadcast_to(child.is_valid(), self.batch_shape)
        return valid


@family
class Mixture(_Wrapper):
    """A mixture: the last batch axis of `base` runs over the components, as the last axis of `logits` does."""

    logits: Array
    base: Distribution

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch."""
        return np.broadcast_shapes(np.shape(self.logits), self.base.batch_shape)[:-1]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one event."""
        return self.base.event_shape

    def is_valid(self) -> Bool[Array, "..."]:
        """Tell of each entry of the batch whether its parameters are in range."""
        shape = np.broadcast_shapes(np.shape(self.logits), self.base.batch_shape)
        return jnp.all(jnp.broadcast_to(self.base.is_valid(), shape), axis=-1)

    def broadcast_to(self, batch_shape: tuple[int, ...]) -> Mixture:
        """Return the same distribution with this batch shape."""
        shape = (*batch_shape, np.broadcast_shapes(np.shape(self.logits)[-1:], self.base.batch_shape[-1:])[0])
        return Mixture(jnp.broadcast_to(self.logits, shape), self.base.broadcast_to(shape))


@family
class Deterministic(Distribution):
    """All mass at `loc`, whose last `ndims` axes are axes of the event.

    `log_density` is 0 for a distribution; NumPyro's Delta may have another.
    """

    support: ClassVar[str] = "point"
    loc: Array = parameter(bound)
    ndims: int = static(default=0)
    log_density: Array | None = None

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch."""
        shape = tuple(np.shape(self.loc)[: np.ndim(self.loc) - self.ndims])
        return np.broadcast_shapes(shape, np.shape(self.log_density)) if self.log_density is not None else shape

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one event."""
        return tuple(np.shape(self.loc)[np.ndim(self.loc) - self.ndims :])

    def broadcast_to(self, batch_shape: tuple[int, ...]) -> Deterministic:
        """Return the same distribution with this batch shape."""
        density = self.log_density
        density = None if density is None else jnp.broadcast_to(density, batch_shape)
        return Deterministic(jnp.broadcast_to(self.loc, batch_shape + self.event_shape), self.ndims, density)

    def is_valid(self) -> Bool[Array, "..."]:
        """Tell of each entry of the batch whether it is a number."""
        axes = tuple(range(np.ndim(self.loc) - self.ndims, np.ndim(self.loc)))
        return jnp.broadcast_to(jnp.all(~jnp.isnan(self.loc), axis=axes), self.batch_shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Opaque(Distribution):
    """A distribution that only a registered pair can know; it is not a pytree."""

    distribution: Any

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return f"{type(self.distribution).__name__}, known by its density alone,"

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch."""
        shape = getattr(self.distribution, "batch_shape", ())
        return () if isinstance(shape, dict) else tuple(n for n in shape if isinstance(n, int))

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one event."""
        return tuple(getattr(self.distribution, "event_shape", ()))

    def broadcast_to(self, batch_shape: tuple[int, ...]) -> Opaque:
        """Return itself."""
        return self

    def is_valid(self) -> Bool[Array, "..."]:
        """Tell nothing: its parameters are not known."""
        return jnp.ones((), bool)
