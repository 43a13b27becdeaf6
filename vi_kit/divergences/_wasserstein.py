"""The 2-Wasserstein distance between Gaussians."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vi_kit.divergences._compare import compare
from vi_kit.divergences._door import prepare, refuse_bad_parameters
from vi_kit.divergences._rules import NoClosedForm, Rule
from vi_kit.divergences._structure import independent
from vi_kit.divergences._support import nan_unless_valid
from vi_kit.divergences.distributions import Distribution, Independent, MultivariateNormal, Normal


def wasserstein2(p: Any, q: Any) -> Float[Array, "..."]:
    r"""The 2-Wasserstein distance W₂(p, q) between Gaussians, a metric: not its square.

    $$ W_2^2 = \|m_p - m_q\|^2 + tr\bigl(\Sigma_p + \Sigma_q - 2 (\Sigma_q^{1/2} \Sigma_p \Sigma_q^{1/2})^{1/2}\bigr) $$

    In the units of the events. Its gradient at p = q does not exist; 0 is returned. As a loss take
    `wasserstein2_squared`.

    Args:
        p: a Normal, independent ones, or a multivariate normal of distrax, TensorFlow Probability or NumPyro.
        q: the other one, of any of these kinds; batch shapes broadcast.

    Returns:
        the distance, one value an entry of the batch.

    Raises:
        TypeError: where p or q is no distribution.
        ValueError: where event shapes differ or parameters are out of range.
        NotImplementedError: where they are not Gaussian.

    Source:
        C. R. Givens and R. M. Shortt, A class of Wasserstein metrics for probability distributions (1984),
        https://doi.org/10.1307/mmj/1029003026

    Example:
        >>> import vi_kit as vk
        >>> from vi_kit.divergences.distributions import Normal
        >>> float(vk.divergences.wasserstein2(Normal(0.0, 1.0), Normal(3.0, 5.0)))
        5.0
    """
    square = _evaluate("wasserstein2", p, q)
    some = square > 0
    return jnp.where(some, jnp.sqrt(jnp.where(some, square, jnp.ones_like(square))), square)


def wasserstein2_squared(p: Any, q: Any) -> Float[Array, "..."]:
    r"""The square of the 2-Wasserstein distance between Gaussians: smooth, with gradient 0 at p = q.

    The covariances' part is $\min_U \|L_p - L_q U\|_F^2$ over rotations U, a sum of squares that does not cancel: in
    float32 nearly equal Gaussians keep three digits or more, unless covariances are ill-conditioned (about 1e4).

    Args:
        p: as `wasserstein2`.
        q: as `wasserstein2`.

    Returns:
        W₂², in the squared units of the events, one value an entry of the batch.

    Raises:
        TypeError: as `wasserstein2`.
        ValueError: as `wasserstein2`.
        NotImplementedError: as `wasserstein2`.

    Example:
        >>> import vi_kit as vk
        >>> from vi_kit.divergences.distributions import Normal
        >>> float(vk.divergences.wasserstein2_squared(Normal(0.0, 1.0), Normal(3.0, 5.0)))
        25.0
    """
    return _evaluate("wasserstein2_squared", p, q)


def _evaluate(function: str, p: Any, q: Any) -> Array:
    first, second = prepare(function, p, q)
    try:
        value: Array = _jitted(first, second)
    except (NoClosedForm, TypeError):
        names = f"p a {type(p).__name__} and q a {type(q).__name__}"
        raise NotImplementedError(f"{function}: expected two Gaussians, got {names}") from None
    refuse_bad_parameters(function, first, second, value)
    return value


@jax.jit
def _jitted(p: Distribution, q: Distribution) -> Array:
    value = compare(p, q, RULES, lambda a, b: None, {(Independent, Independent): independent})
    return nan_unless_valid(value, p, q)


def _normal(p: Normal, q: Normal) -> Array:
    return jnp.square(p.loc - q.loc) + jnp.square(p.scale - q.scale)


def _multivariate_normal(p: MultivariateNormal, q: MultivariateNormal) -> Array:
    """Return ‖Δm‖² + ‖(L_p − L_q) − L_q (U − 1)‖², U the best rotation: to first order its change does not matter."""
    left, right = jnp.tril(p.scale_tril), jnp.tril(q.scale_tril)
    gap = left - right
    turn = jax.lax.stop_gradient(_turn(*jax.lax.stop_gradient((left, right, gap))))
    rest = gap - jnp.matmul(right, turn, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(jnp.square(p.loc - q.loc), axis=-1) + jnp.sum(rest * rest, axis=(-2, -1))


def _turn(left: Array, right: Array, gap: Array) -> Array:
    """Return U − 1 for the rotation U with the least ‖left − right U‖, accurate where left and right are close."""
    highest = jax.lax.Precision.HIGHEST

    def product(a: Array, b: Array) -> Array:
        return jnp.matmul(jnp.swapaxes(a, -1, -2), b, precision=highest)

    eye = jnp.broadcast_to(jnp.eye(left.shape[-1], dtype=left.dtype), left.shape)
    u, _, v = jnp.linalg.svd(product(right, left), full_matrices=False)
    far = jnp.matmul(u, v, precision=highest) - eye
    # Close by, U = (1 − E/2)⁻¹ (1 + E/2) with the skew E that solves S E + E S = G − Gᵀ, S = LᵀL, G = LᵀΔ, to first
    # order: an error of E counts by its square.
    values, vectors = jnp.linalg.eigh(product(right, right))
    slope = product(right, gap)
    skew = product(vectors, jnp.matmul(slope - jnp.swapaxes(slope, -1, -2), vectors, precision=highest))
    sums = values[..., :, None] + values[..., None, :]
    skew = skew / jnp.maximum(sums, float(np.finfo(left.dtype).tiny))
    skew = jnp.matmul(vectors, jnp.matmul(skew, jnp.swapaxes(vectors, -1, -2), precision=highest), precision=highest)
    near = jnp.linalg.solve(eye - skew / 2, skew)
    small = jnp.max(jnp.abs(skew), axis=(-2, -1), keepdims=True) < 1e-3
    return jnp.where(small, near, far)


RULES: tuple[Rule, ...] = (
    Rule(Normal, Normal, _normal, "Δm² + Δs²"),
    Rule(MultivariateNormal, MultivariateNormal, _multivariate_normal, "‖Δm‖² + min_U ‖L_p − L_q U‖²"),
)
