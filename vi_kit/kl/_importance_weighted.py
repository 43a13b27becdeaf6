"""The importance-weighted bound on a log evidence, from log weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from vi_kit.kl._inputs import booleans, class_axes, floats

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Bool, Float

    from vi_kit.kl._inputs import Axis


def reparameterized(weights: Array) -> Array:
    """Weigh the gradients of the log weights by the normalized weights: the gradient of the bound itself."""
    return weights


def doubly_reparameterized(weights: Array) -> Array:
    """Weigh the gradients of the log weights by the squared normalized weights: for parameters of q alone."""
    return weights * weights


def importance_weighted_bound(
    log_weights: Float[ArrayLike, "..."],
    *,
    axis: Axis = 0,
    gradient: Callable[[Array], Array] = reparameterized,
    mask: Bool[ArrayLike, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""Importance-weighted bound on the log evidence, from the log weights of K draws: larger is better.

    $$ \log \tfrac1K \sum_k w_k \;\le\; \log p(x) \text{ in expectation}, \qquad
       \log w_k = \log p(x, z_k) - \log q(z_k \mid x), \quad z_k \sim q $$

    With one draw it is the ELBO. It is unbiased for a bound that rises to log p(x) as K grows, if some weight is not 0.
    The gradient is the sum over draws of a coefficient times the gradient of log w_k, with w̃ the normalized weights:

    - `reparameterized` takes w̃. With draws z = z(ε, φ) it is the gradient of the bound, unbiased for every parameter.
    - `doubly_reparameterized` takes w̃². It is unbiased for the parameters φ of q only, and only if the caller stops the
      gradient of φ in log q(z), so that φ acts through z alone. Its noise does not drown the signal as K grows, which
      that of the plain gradient to φ does. For parameters of p it is wrong: give those a bound of their own, with the
      draws stopped, as below. The value is the same.

    `reparameterized` with the gradient of φ stopped in log q(z) is sticking the landing: biased unless K is 1.

    Args:
        log_weights: log weights in nats, draws along the axis; −∞ is a draw of weight 0.
        axis: the axis of the draws, or several.
        gradient: `reparameterized`, `doubly_reparameterized`, or a function from normalized weights to coefficients.
        mask: which data points count, broadcasting to the result; the others give 0 and gradient 0, even if they
            hold NaN.

    Returns:
        Nats, one value a data point: the shape without the axis. −∞, with gradient 0, where every weight is 0.

    Raises:
        TypeError: for log weights of integers.
        ValueError: for no draws, or a mask that does not broadcast to the result.

    Source: Y. Burda, R. Grosse, R. Salakhutdinov, "Importance weighted autoencoders" (2016),
    https://arxiv.org/abs/1509.00519; G. Tucker, D. Lawson, S. Gu, C. J. Maddison, "Doubly reparameterized gradient
    estimators for Monte Carlo objectives" (2019), https://arxiv.org/abs/1810.04152.

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit.kl as kl
        >>> def log_normal(z, mean, log_scale):
        ...     return -0.5 * ((z - mean) * jnp.exp(-log_scale)) ** 2 - log_scale - 0.5 * jnp.log(2 * jnp.pi)
        >>> def bound(encoder, decoder, noise, x=1.5):
        ...     stop = jax.lax.stop_gradient
        ...     def log_weights(encoder, decoder, z):
        ...         log_p = log_normal(z, 0.0, 0.0) + log_normal(x, z, decoder)
        ...         return log_p - log_normal(z, *encoder)
        ...     z = encoder[0] + jnp.exp(encoder[1]) * noise
        ...     to_encoder = kl.importance_weighted_bound(
        ...         log_weights(stop(encoder), stop(decoder), z), gradient=kl.doubly_reparameterized
        ...     )
        ...     to_decoder = kl.importance_weighted_bound(log_weights(stop(encoder), decoder, stop(z)))
        ...     return to_encoder + to_decoder - stop(to_decoder)  # the value once, both gradients
        >>> noise = jax.random.normal(jax.random.key(0), (64,))
        >>> exact = (jnp.array(0.75), jnp.array(-0.5 * jnp.log(2.0)))  # the posterior: every weight is p(x)
        >>> value, gradients = jax.value_and_grad(bound)(exact, 0.0, noise)
        >>> print(f"{value:.4f}", bool(jnp.all(jnp.abs(jnp.stack(gradients)) < 1e-6)))
        -1.8280 True
    """
    (values,) = floats(log_weights=log_weights)
    axes = class_axes(axis, values.ndim)
    if any(values.shape[a] == 0 for a in axes):
        raise ValueError(f"log_weights: expected at least one draw along axis {axis}, got shape {values.shape}")
    if mask is None:
        return _bound(values, axes, gradient)
    rows = tuple(n for i, n in enumerate(values.shape) if i not in axes)
    keep = booleans("mask", mask)
    try:
        keep = jnp.broadcast_to(keep, rows)
    except ValueError:
        raise ValueError(f"mask: expected a shape that broadcasts to {rows}, got {keep.shape}") from None
    inside = jnp.broadcast_to(jnp.expand_dims(keep, axes), values.shape)
    bound = _bound(jnp.where(inside, values, jnp.zeros_like(values)), axes, gradient)
    return jnp.where(keep, bound, jnp.zeros_like(bound))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _bound(log_weights: Array, axes: tuple[int, ...], gradient: Callable[[Array], Array]) -> Array:
    num_draws = math.prod(log_weights.shape[a] for a in axes)
    return jax.scipy.special.logsumexp(log_weights, axis=axes) - math.log(num_draws)


@_bound.defjvp
def _bound_jvp(
    axes: tuple[int, ...], gradient: Callable[[Array], Array], primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    ((log_weights,), (tangent,)) = primals, tangents
    top = jnp.max(log_weights, axis=axes, keepdims=True)
    top = jax.lax.stop_gradient(jnp.where(top == -jnp.inf, jnp.zeros_like(top), top))
    weights = jnp.exp(log_weights - jnp.broadcast_to(top, log_weights.shape))
    total = jnp.sum(weights, axis=axes, keepdims=True)
    weights /= jnp.broadcast_to(jnp.where(total == 0, jnp.ones_like(total), total), weights.shape)
    return _bound(log_weights, axes, gradient), jnp.sum(gradient(weights) * tangent, axis=axes)
