"""The functions that keep nearly equal distributions right in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, Float


def log_ratio(p: Float[Array, "..."], q: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return log(p / q) for positive p and q without cancellation where they are nearly equal."""
    near = jnp.abs(p - q) < 0.5 * jnp.abs(q)
    one = jnp.ones_like(p)
    near_p, near_q = jnp.where(near, p, one), jnp.where(near, q, one)
    far_p, far_q = jnp.where(near, one, p), jnp.where(near, one, q)
    return jnp.where(near, jnp.log1p((near_p - near_q) / near_q), jnp.log(far_p) - jnp.log(far_q))


def expm1_minus(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return exp(x) − 1 − x ≥ 0 without cancellation.

    Near zero the difference of two nearly equal numbers would lose every digit; there its series is used.
    """
    small = jnp.abs(x) < 0.3
    near = jnp.where(small, x, jnp.zeros_like(x))
    series = jnp.ones_like(x)
    for k in range(9, 2, -1):  # x²/2 (1 + x/3 (1 + x/4 (…)))
        series = 1 + near / k * series
    far = jnp.where(small, jnp.ones_like(x), x)
    return jnp.where(small, 0.5 * near * near * series, jnp.expm1(far) - far)
