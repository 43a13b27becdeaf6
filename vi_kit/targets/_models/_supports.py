"""Supports that only bundled models need; the protocol is that of `vi_kit.support`."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vi_kit._pytree import pytree

Values = Float[Array, "..."]


@pytree
@dataclass(frozen=True)
class PositiveOrdered:
    """Increasing vectors of positive numbers: x = cumsum(exp z) along the last axis, as in Stan."""

    def unconstrained_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of z for an x of this shape."""
        if not shape:
            raise ValueError("support: positive_ordered needs a vector, got a scalar")
        return shape

    def constrain(self, z: Values) -> Values:
        """Map z to x."""
        return jnp.cumsum(jnp.exp(z), axis=-1)

    def unconstrain(self, x: Values) -> Values:
        """Map x to z; NaN where x is negative or decreases."""
        return jnp.log(jnp.concatenate([x[..., :1], jnp.diff(x, axis=-1)], axis=-1))

    def log_jacobian(self, z: Values) -> Float[Array, ""]:
        """Return log |dx/dz|, summed."""
        return jnp.sum(z)

    def __str__(self) -> str:
        return "positive, ordered"


@pytree
@dataclass(frozen=True)
class SoftplusPositive:
    """Positive numbers: x = log(1 + exp z), which grows like z, not like exp z."""

    def unconstrained_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of z for an x of this shape."""
        return shape

    def constrain(self, z: Values) -> Values:
        """Map z to x."""
        return jax.nn.softplus(z)

    def unconstrain(self, x: Values) -> Values:
        """Map x to z; NaN below zero."""
        return x + jnp.log(-jnp.expm1(-x))

    def log_jacobian(self, z: Values) -> Float[Array, ""]:
        """Return log |dx/dz|, summed."""
        return jnp.sum(jax.nn.log_sigmoid(z))

    def __str__(self) -> str:
        return "> 0 (softplus)"


positive_ordered = PositiveOrdered()
softplus_positive = SoftplusPositive()
