"""The two functions that keep nearly equal distributions right in float32."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


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
