"""KL between distributions in closed form."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from vi_kit import kl
from vi_kit._distributions import distrax
from vi_kit._types import Scalar
from vi_kit.kl._compensated import log_ratio


def _gaussian(distribution: Any) -> tuple[Array, Array, bool] | None:
    """Return (mean, scale, whether the scale is a lower factor) of an event-level Gaussian, else None."""
    if isinstance(distribution, distrax.MultivariateNormalTri) and distribution.is_lower:
        found = distribution.loc, distribution.scale_tri, True
    elif isinstance(distribution, distrax.MultivariateNormalDiag):
        found = distribution.loc, distribution.scale_diag, False
    elif isinstance(distribution, distrax.Independent) and isinstance(distribution.distribution, distrax.Normal):
        found = distribution.distribution.loc, distribution.distribution.scale, False
    else:
        return None
    return found if found[0].ndim == 1 and distribution.event_shape == found[0].shape else None


def kl_divergence(p: Any, q: Any) -> Scalar:
    """KL(p‖q) in closed form.

    Gaussians (diagonal, triangular, or an Independent of Normals) use `vi_kit.kl`, which is exact near equality in
    float32; other pairs use distrax's own formulas.

    Args:
        p: the distribution the mean is taken over.
        q: the other one.

    Returns:
        KL in nats.

    Raises:
        NotImplementedError: when the pair has no closed form here; nothing is estimated instead.

    Example:
        >>> import distrax, jax.numpy as jnp, vi_kit as vk
        >>> p = distrax.MultivariateNormalDiag(jnp.ones(2), jnp.ones(2))
        >>> float(vk.kl_divergence(p, distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))))
        1.0
    """
    for name, value in (("p", p), ("q", q)):
        if not hasattr(value, "log_prob"):
            raise TypeError(f"{name}: expected a distribution, got {type(value).__name__}")
    first, second = _gaussian(p), _gaussian(q)
    if first is not None and second is not None:
        if first[0].shape != second[0].shape:
            raise ValueError(f"q: expected events of shape {first[0].shape} as p has, got {second[0].shape}")
        return _gaussian_kl(first, second)
    if isinstance(p, distrax.Normal) and isinstance(q, distrax.Normal):
        return _normal_kl(p.loc, p.scale, q.loc, q.scale)
    try:
        return p.kl_divergence(q)  # type: ignore[no-any-return]
    except (NotImplementedError, AttributeError) as error:
        raise NotImplementedError(
            f"kl_divergence: no closed form is known for KL(p‖q) with p a {type(p).__name__} and q a {type(q).__name__}"
        ) from error


def _normal_kl(p_mean: Array, p_scale: Array, q_mean: Array, q_scale: Array) -> Array:
    # In units of q: the logarithms of nearly equal scales would lose the digits in which they differ.
    return kl.normal((p_mean - q_mean) / q_scale, log_ratio(p_scale, q_scale))


def _gaussian_kl(p: tuple[Array, Array, bool], q: tuple[Array, Array, bool]) -> Scalar:
    if not p[2] and not q[2]:
        return jnp.sum(_normal_kl(*p[:2], *q[:2]))
    factors = [scale if is_factor else jnp.diag(scale) for _, scale, is_factor in (p, q)]
    return kl.multivariate_normal(p[0], factors[0], q[0], factors[1])
