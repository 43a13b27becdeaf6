"""Supports: where a variable lives, and the map from unconstrained space with its log-Jacobian.

Every support is a small pytree: its bounds are leaves, so other bounds compile nothing. `constrain` maps an
unconstrained array z to x, `unconstrain` maps back, `log_jacobian(z)` is log |dx/dz| summed over all elements, in
nats. `simplex` and `ordered` act on the last axis. The maps are Stan's, so unconstrained answers can be compared.

Source: Stan Development Team, "Stan Reference Manual: Constraint Transforms", 2024,
https://mc-stan.org/docs/reference-manual/transforms.html
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logit
from jaxtyping import Array, ArrayLike, Float

from vi_kit._pytree import pytree

__all__ = ["greater_than", "interval", "less_than", "ordered", "positive", "real", "simplex", "unit_interval"]

Values = Float[Array, "..."]


def _bound(value: ArrayLike, like: Values) -> Values:
    return jnp.asarray(value, dtype=like.dtype)


def _fitting(shape: tuple[int, ...], **bounds: ArrayLike) -> tuple[int, ...]:
    """Return the shape, unless a bound has more elements than the variable and would spread it silently."""
    for name, bound in bounds.items():
        own = np.shape(bound)
        if len(own) > len(shape) or any(n not in (1, m) for n, m in zip(own[::-1], shape[::-1], strict=False)):
            raise ValueError(f"support: {name} has shape {own}, which does not fit a variable of shape {shape}")
    return shape


def _check_finite(support: str, **bounds: ArrayLike) -> None:
    for name, bound in bounds.items():
        if not isinstance(bound, jax.core.Tracer) and not np.all(np.isfinite(np.asarray(bound))):
            raise ValueError(f"{support}: {name} must be finite, got {bound}")


@pytree
@dataclass(frozen=True)
class Real:
    """All real numbers: the identity map."""

    def unconstrained_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of z for an x of this shape."""
        return shape

    def constrain(self, z: Values) -> Values:
        """Map z to x."""
        return z

    def unconstrain(self, x: Values) -> Values:
        """Map x to z."""
        return x

    def log_jacobian(self, z: Values) -> Float[Array, ""]:
        """Return log |dx/dz|, summed."""
        return jnp.zeros((), z.dtype)

    def __str__(self) -> str:
        return "real"


@pytree
@dataclass(frozen=True)
class GreaterThan:
    """Numbers above `lower`: x = lower + exp(z)."""

    lower: ArrayLike

    def unconstrained_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of z for an x of this shape."""
        return _fitting(shape, lower=self.lower)

    def constrain(self, z: Values) -> Values:
        """Map z to x."""
        return _bound(self.lower, z) + jnp.exp(z)

    def unconstrain(self, x: Values) -> Values:
        """Map x to z; NaN below `lower`."""
        return jnp.log(x - _bound(self.lower, x))

    def log_jacobian(self, z: Values) -> Float[Array, ""]:
        """Return log |dx/dz|, summed."""
        return jnp.sum(z)

    def __str__(self) -> str:
        return f"> {_number(self.lower)}"


@pytree
@dataclass(frozen=True)
class LessThan:
    """Numbers below `upper`: x = upper − exp(z)."""

    upper: ArrayLike

    def unconstrained_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of z for an x of this shape."""
        return _fitting(shape, upper=self.upper)

    def constrain(self, z: Values) -> Values:
        """Map z to x."""
        return _bound(self.upper, z) - jnp.exp(z)

    def unconstrain(self, x: Values) -> Values:
        """Map x to z; NaN above `upper`."""
        return jnp.log(_bound(self.upper, x) - x)

    def log_jacobian(self, z: Values) -> Float[Array, ""]:
        """Return log |dx/dz|, summed."""
        return jnp.sum(z)

    def __str__(self) -> str:
        return f"< {_number(self.upper)}"


@pytree
@dataclass(frozen=True)
class Interval:
    """Numbers between two bounds: x = lower + (upper − lower)·sigmoid(z)."""

    lower: ArrayLike
    upper: ArrayLike

    def unconstrained_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of z for an x of this shape."""
        return _fitting(shape, lower=self.lower, upper=self.upper)

    def constrain(self, z: Values) -> Values:
        """Map z to x."""
        lower, upper = _bound(self.lower, z), _bound(self.upper, z)
        return lower + (upper - lower) * jax.nn.sigmoid(z)

    def unconstrain(self, x: Values) -> Values:
        """Map x to z; NaN outside the interval."""
        lower, upper = _bound(self.lower, x), _bound(self.upper, x)
        return logit((x - lower) / (upper - lower))

    def log_jacobian(self, z: Values) -> Float[Array, ""]:
        """Return log |dx/dz|, summed."""
        width = jnp.log(_bound(self.upper, z) - _bound(self.lower, z))
        return jnp.sum(width + jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z))

    def __str__(self) -> str:
        return f"in ({_number(self.lower)}, {_number(self.upper)})"


@pytree
@dataclass(frozen=True)
class Simplex:
    """Non-negative vectors that sum to one, by stick breaking; z = 0 is the uniform point, z is one shorter than x."""

    def unconstrained_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of z for an x of this shape."""
        if not shape or shape[-1] < 2:
            raise ValueError(f"support: simplex needs a last axis of at least 2 classes, got shape {shape}")
        return (*shape[:-1], shape[-1] - 1)

    def _sticks(self, z: Values) -> tuple[Values, Values, Values]:
        left = np.arange(z.shape[-1], 0, -1)  # classes still to come after each break
        shifted = z - jnp.broadcast_to(jnp.log(jnp.asarray(left, z.dtype)), z.shape)
        taken, kept = jax.nn.log_sigmoid(shifted), jax.nn.log_sigmoid(-shifted)
        before = jnp.cumsum(kept, axis=-1) - kept
        return taken, kept, before

    def constrain(self, z: Values) -> Values:
        """Map z to x."""
        taken, kept, before = self._sticks(z)
        last = jnp.sum(kept, axis=-1, keepdims=True)
        return jnp.exp(jnp.concatenate([taken + before, last], axis=-1))

    def unconstrain(self, x: Values) -> Values:
        """Map x to z."""
        after = jnp.cumsum(x[..., ::-1], axis=-1)[..., ::-1][
            ..., 1:
        ]  # mass of the later classes, without a subtraction
        left = np.arange(x.shape[-1] - 1, 0, -1)
        return (
            jnp.log(x[..., :-1]) - jnp.log(after) + jnp.broadcast_to(jnp.log(jnp.asarray(left, x.dtype)), after.shape)
        )

    def log_jacobian(self, z: Values) -> Float[Array, ""]:
        """Return log |dx/dz| (of the first entries of x), summed."""
        taken, kept, before = self._sticks(z)
        return jnp.sum(taken + kept + before)

    def __str__(self) -> str:
        return "simplex"


@pytree
@dataclass(frozen=True)
class Ordered:
    """Increasing vectors: the first entry is free, each later one is the last plus exp(z)."""

    def unconstrained_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of z for an x of this shape."""
        if not shape:
            raise ValueError("support: ordered needs a vector, got a scalar")
        return shape

    def constrain(self, z: Values) -> Values:
        """Map z to x."""
        return jnp.cumsum(jnp.concatenate([z[..., :1], jnp.exp(z[..., 1:])], axis=-1), axis=-1)

    def unconstrain(self, x: Values) -> Values:
        """Map x to z; NaN where x decreases."""
        return jnp.concatenate([x[..., :1], jnp.log(jnp.diff(x, axis=-1))], axis=-1)

    def log_jacobian(self, z: Values) -> Float[Array, ""]:
        """Return log |dx/dz|, summed."""
        return jnp.sum(z[..., 1:])

    def __str__(self) -> str:
        return "ordered"


def _number(value: ArrayLike) -> str:
    try:
        return f"{np.asarray(value):g}" if np.ndim(value) == 0 else f"{np.asarray(value).tolist()}"
    except (TypeError, jax.errors.TracerArrayConversionError):
        return "a traced value"


real = Real()
positive = GreaterThan(0.0)
simplex = Simplex()
ordered = Ordered()


def greater_than(lower: ArrayLike) -> GreaterThan:
    """Numbers above `lower`.

    Raises:
        ValueError: when the bound is concrete and not finite.
    """
    _check_finite("greater_than", lower=lower)
    return GreaterThan(lower)


def less_than(upper: ArrayLike) -> LessThan:
    """Numbers below `upper`.

    Raises:
        ValueError: when the bound is concrete and not finite.
    """
    _check_finite("less_than", upper=upper)
    return LessThan(upper)


def interval(lower: ArrayLike, upper: ArrayLike) -> Interval:
    """Numbers between `lower` and `upper`.

    Raises:
        ValueError: when a concrete bound is not finite, or both are concrete and `lower` is not below `upper`.
    """
    _check_finite("interval", lower=lower, upper=upper)
    concrete = not isinstance(lower, jax.core.Tracer) and not isinstance(upper, jax.core.Tracer)
    if concrete and not np.all(np.asarray(lower) < np.asarray(upper)):
        raise ValueError(f"interval: lower must be below upper, got lower={lower} and upper={upper}")
    return Interval(lower, upper)


unit_interval = Interval(0.0, 1.0)
