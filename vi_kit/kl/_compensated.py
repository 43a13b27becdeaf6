"""The functions that keep nearly equal distributions right in float32."""

from __future__ import annotations

import math
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


def series(x: Float[Array, "..."], first: int = 2, *, reach: float = 1.0) -> Float[Array, "..."]:
    """Return Σ_{k ≥ first} xᵏ/k!, rounded right for |x| ≤ reach, 1 or 1/2."""
    single = x.dtype.itemsize <= 4
    last = (11 if single else 20) if reach > 0.5 else (8 if single else 16)
    total = jnp.full_like(x, 1 / math.factorial(last))
    for k in range(last - 1, first - 1, -1):
        total = 1 / math.factorial(k) + x * total
    return total * x * x if first == 2 else total * x


def expm1_minus(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return exp(x) − 1 − x ≥ 0 without cancellation.

    Near zero the difference of two nearly equal numbers would lose every digit; there its series is used.
    """
    near = jnp.abs(x) < 1
    far = jnp.where(near, jnp.full_like(x, 2), x)
    huge = far > 60  # then 1 + x is lost in exp(x), and at ∞ it would make NaN of it
    rest = jnp.where(huge, jnp.zeros_like(x), 1 + far)
    return jnp.where(near, series(jnp.where(near, x, jnp.zeros_like(x))), jnp.exp(far) - rest)
