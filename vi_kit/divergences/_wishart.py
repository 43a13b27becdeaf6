"""KL between Wishart distributions, and between the conjugate priors of a normal: a mean and its precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vi_kit.divergences._gamma import gamma_kl
from vi_kit.divergences._special import minus_log_remainder, stirling_remainder
from vi_kit.divergences.distributions import (
    InverseWishart,
    NormalGamma,
    NormalInverseGamma,
    NormalInverseWishart,
    NormalWishart,
    Wishart,
)
from vi_kit.kl._compensated import expm1_minus, log_ratio


def _solve(lower: Array, right: Array) -> Array:
    return jax.lax.linalg.triangular_solve(jnp.tril(lower), right, left_side=True, lower=True)


def _means(p_lower: Array, q_lower: Array, log_scale: Array) -> Array:
    """Return tr B − d − log det B ≥ 0 of B = e^log_scale · M Mᵀ, M = L_q⁻¹ L_p."""
    # M − I is solved for, not M: near equality its entries keep their digits.
    shifted = jnp.tril(_solve(q_lower, jnp.tril(p_lower) - jnp.tril(q_lower)), -1)
    diagonals = [jnp.diagonal(x, axis1=-2, axis2=-1) for x in (p_lower, q_lower)]
    excess = expm1_minus(2 * log_ratio(*diagonals) + log_scale[..., None])
    return jnp.sum(excess, axis=-1) + jnp.exp(log_scale) * jnp.sum(shifted * shifted, axis=(-2, -1))


def _shapes(p_df: Array, q_df: Array, size: int) -> Array:
    """Return the remainder of the multivariate lgamma less size times that of x log x, at half the degrees."""
    shape = (*p_df.shape, size)
    x, new = (jnp.broadcast_to(df[..., None] / 2, shape) for df in (p_df, q_df))
    change = new - x
    down = jnp.broadcast_to(jnp.arange(size, dtype=x.dtype) / 2, shape)
    low, low_new = x - down, new - down
    # The remainder of x log x at x − j/2 less that at x; each of the three is of the second order in the change.
    shift = down * (change / new)
    bend = low_new * minus_log_remainder(low + shift, low, shift)
    moved = down * minus_log_remainder(new, x, change) + shift * (down / low) * (change / x) - bend
    return jnp.sum(stirling_remainder(low_new, low, change) + moved, axis=-1)


def _wishart_kl(p_lower: Array, p_df: Array, q_lower: Array, q_df: Array) -> Array:
    """Return KL between Wishart distributions: that of their means, and that of their degrees of freedom."""
    means = _means(p_lower, q_lower, log_ratio(p_df, q_df))
    return q_df / 2 * means + _shapes(p_df, q_df, p_lower.shape[-1])


def wishart_wishart(p: Wishart, q: Wishart) -> Array:
    """Return KL between Wishart distributions."""
    return _wishart_kl(p.scale_tril, p.df, q.scale_tril, q.df)


def inverse_wishart(p: InverseWishart, q: InverseWishart) -> Array:
    """Return KL between inverse Wishart distributions: that of their inverses."""
    # L_p⁻¹ L_q is to the inverses what L_q⁻¹ L_p is to the matrices.
    means = _means(q.scale_tril, p.scale_tril, log_ratio(p.df, q.df))
    return q.df / 2 * means + _shapes(p.df, q.df, p.scale_tril.shape[-1])


def _locations(p_count: Array, q_count: Array, mahalanobis: Array, size: int) -> Array:
    """Return the mean KL of the means given the precision; `mahalanobis` is E_p[ΔᵀΛΔ]."""
    spread = size * minus_log_remainder(q_count, p_count, q_count - p_count)
    return 0.5 * (spread + q_count * mahalanobis)


def normal_gamma(p: NormalGamma, q: NormalGamma) -> Array:
    """Return KL between normal-gamma distributions."""
    shift = p.loc - q.loc
    locations = _locations(p.count, q.count, p.concentration / p.rate * shift * shift, 1)
    return gamma_kl(p.concentration, p.rate, q.concentration, q.rate) + locations


def normal_inverse_gamma(p: NormalInverseGamma, q: NormalInverseGamma) -> Array:
    """Return KL between normal-inverse-gamma distributions."""
    shift = p.loc - q.loc
    locations = _locations(p.count, q.count, p.concentration / p.scale * shift * shift, 1)
    return gamma_kl(p.concentration, p.scale, q.concentration, q.scale) + locations


def normal_wishart(p: NormalWishart, q: NormalWishart) -> Array:
    """Return KL between normal-Wishart distributions."""
    shift = p.loc - q.loc
    turned = jnp.sum(jnp.tril(p.scale_tril) * shift[..., :, None], axis=-2)
    locations = _locations(p.count, q.count, p.df * jnp.sum(turned * turned, axis=-1), shift.shape[-1])
    return _wishart_kl(p.scale_tril, p.df, q.scale_tril, q.df) + locations


def normal_inverse_wishart(p: NormalInverseWishart, q: NormalInverseWishart) -> Array:
    """Return KL between normal-inverse-Wishart distributions."""
    turned = _solve(p.scale_tril, (p.loc - q.loc)[..., None])[..., 0]
    locations = _locations(p.count, q.count, p.df * jnp.sum(turned * turned, axis=-1), p.loc.shape[-1])
    spreads = inverse_wishart(InverseWishart(p.scale_tril, p.df), InverseWishart(q.scale_tril, q.df))
    return spreads + locations
