"""The logarithm of a power mean of weights: what the importance-weighted, Rényi and χ² bounds have in common."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from vi_kit._types import Scalar


def power_mean(
    log_weights: Float[Array, " n"], power: ArrayLike, log_shares: Float[Array, " n"] | None = None
) -> Scalar:
    r"""Return the logarithm of a power mean of the weights, in nats; at power 0 the mean of their logarithms.

    $$ \tfrac1s \log \sum_i c_i w_i^s $$

    It is accurate for powers near 0 too, and −∞ where every weight is 0.

    Args:
        log_weights: shape (n,).
        power: s, any sign.
        log_shares: log c, normalized; None: equal shares.
    """
    power = jnp.asarray(power, log_weights.dtype)
    extreme = jax.lax.stop_gradient(jnp.where(power > 0, jnp.max(log_weights), jnp.min(log_weights)))
    finite = jnp.isfinite(extreme)
    top = jnp.where(finite, extreme, jnp.zeros_like(extreme))  # it cancels, so that it has no gradient

    def mean(values: Array) -> Scalar:
        return jnp.mean(values) if log_shares is None else jnp.sum(jnp.exp(log_shares) * values)

    safe = jnp.where(power == 0, jnp.ones_like(power), power)
    exponents = safe * (log_weights - top)
    less_one = mean(jnp.expm1(exponents))  # no digits are lost near 0, where the power is small or weights are equal
    near = less_one > -0.5
    far = jnp.where(near | ~finite, jnp.ones_like(less_one), mean(jnp.exp(exponents)))
    logarithm = jnp.where(near, jnp.log1p(jnp.where(near, less_one, jnp.zeros_like(less_one))), jnp.log(far))
    found = jnp.where(power == 0, mean(log_weights), top + logarithm / safe)
    return jnp.where(finite, found, extreme)


def tilted(log_weights: Float[Array, " n"], power: ArrayLike) -> Float[Array, " n"]:
    """Return the weights to this power, normalized: the derivative of `power_mean` in each log weight."""
    power = jnp.asarray(power, log_weights.dtype)
    return jax.nn.softmax(jnp.where(power == 0, jnp.zeros_like(log_weights), power * log_weights))
