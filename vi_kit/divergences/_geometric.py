"""The member of an exponential family whose density is ∝ p^α q^{1−α}: what its Rényi divergences are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from vi_kit.divergences import distributions as d
from vi_kit.kl._compensated import log_ratio

# (p, q, α) -> the member between (beyond, where α > 1), and where there is one.
Between = Callable[[Any, Any, float], tuple[d.Distribution, Bool[Array, "..."]]]


def _mix(p: Array, q: Array, alpha: float) -> Array:
    """Return αp + (1 − α)q, which is exactly q where they are equal."""
    return q + alpha * (p - q)


def _positive(x: Array) -> tuple[Array, Bool[Array, "..."]]:
    """Return x where it is positive, else 1, and where it was."""
    good = x > 0
    return jnp.where(good, x, jnp.ones_like(x)), good


def gamma(p: Any, q: Any, alpha: float) -> tuple[Any, Array]:
    """Shape and rate are natural parameters."""
    concentration, first = _positive(_mix(p.concentration, q.concentration, alpha))
    rate, second = _positive(_mix(p.rate, q.rate, alpha))
    return type(q)(concentration, rate), first & second


def beta(p: d.Beta, q: d.Beta, alpha: float) -> tuple[d.Beta, Array]:
    """Both concentrations are natural parameters."""
    one, first = _positive(_mix(p.concentration1, q.concentration1, alpha))
    zero, second = _positive(_mix(p.concentration0, q.concentration0, alpha))
    return d.Beta(one, zero), first & second


def dirichlet(p: d.Dirichlet, q: d.Dirichlet, alpha: float) -> tuple[d.Dirichlet, Array]:
    """The concentrations are natural parameters."""
    concentration, good = _positive(_mix(p.concentration, q.concentration, alpha))
    return d.Dirichlet(concentration), jnp.all(good, axis=-1)


def poisson(p: d.Poisson, q: d.Poisson, alpha: float) -> tuple[d.Poisson, Array]:
    """The logarithm of the rate is the natural parameter."""
    rate = q.rate * jnp.exp(alpha * log_ratio(p.rate, q.rate))
    return d.Poisson(rate), jnp.ones(rate.shape, bool)


def inverse_gaussian(p: d.InverseGaussian, q: d.InverseGaussian, alpha: float) -> tuple[d.InverseGaussian, Array]:
    """Natural parameters are the shape λ and λ / mean²."""
    shape, first = _positive(1 + alpha * (p.concentration / q.concentration - 1))
    precision = (p.concentration / (p.loc * p.loc)) / (q.concentration / (q.loc * q.loc))
    ratio, second = _positive(1 + alpha * (precision - 1))
    return d.InverseGaussian(q.loc * jnp.sqrt(shape / ratio), q.concentration * shape), first & second


def inverse_gamma(p: Any, q: Any, alpha: float) -> tuple[Any, Array]:
    """Shape and scale are natural parameters."""
    concentration, first = _positive(_mix(p.concentration, q.concentration, alpha))
    scale, second = _positive(_mix(p.scale, q.scale, alpha))
    return type(q)(concentration, scale), first & second


def generalized_gamma(p: d.GeneralizedGamma, q: d.GeneralizedGamma, alpha: float) -> tuple[d.GeneralizedGamma, Array]:
    """With a shared power c, the concentration and rate · scale^{−c} are natural parameters."""
    ratio = p.rate / q.rate * jnp.exp(-p.power * log_ratio(p.scale, q.scale))
    factor, first = _positive(1 + alpha * (ratio - 1))
    concentration, second = _positive(_mix(p.concentration, q.concentration, alpha))
    return d.GeneralizedGamma(concentration, q.scale, q.power, q.rate * factor), first & second


def pareto(p: d.Pareto, q: d.Pareto, alpha: float) -> tuple[d.Pareto, Array]:
    """With a shared scale, the concentration is the natural parameter."""
    concentration, good = _positive(_mix(p.concentration, q.concentration, alpha))
    return d.Pareto(concentration, q.scale), good


def laplace(p: d.Laplace, q: d.Laplace, alpha: float) -> tuple[d.Laplace, Array]:
    """With a shared loc, 1 / scale is the natural parameter."""
    factor, good = _positive(1 + alpha * (q.scale / p.scale - 1))
    return d.Laplace(q.loc, q.scale / factor), good


def von_mises(p: d.VonMises, q: d.VonMises, alpha: float) -> tuple[d.VonMises, Array]:
    """The natural parameter is a vector of the plane: concentration times direction."""
    turn = p.loc - q.loc
    along = q.concentration + alpha * (p.concentration * jnp.cos(turn) - q.concentration)
    across = alpha * p.concentration * jnp.sin(turn)
    none = (along == 0) & (across == 0)
    length = jnp.where(none, jnp.zeros_like(along), jnp.hypot(jnp.where(none, jnp.ones_like(along), along), across))
    angle = jnp.arctan2(across, jnp.where(none, jnp.ones_like(along), along))
    return d.VonMises(q.loc + angle, length), jnp.ones(length.shape, bool)


def von_mises_fisher(p: d.VonMisesFisher, q: d.VonMisesFisher, alpha: float) -> tuple[d.VonMisesFisher, Array]:
    """The natural parameter is concentration times direction."""
    natural = _mix(p.concentration[..., None] * p.mean_direction, q.concentration[..., None] * q.mean_direction, alpha)
    square = jnp.sum(natural * natural, axis=-1)
    length = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, jnp.ones_like(square))), square)
    safe = jnp.where(square > 0, length, jnp.ones_like(length))[..., None]
    direction = jnp.where((square > 0)[..., None] | jnp.zeros(natural.shape, bool), natural / safe, q.mean_direction)
    return d.VonMisesFisher(direction, length), jnp.ones(length.shape, bool)


def geometric(p: d.Geometric, q: d.Geometric, alpha: float) -> tuple[d.Geometric, Array]:
    """The natural parameter is the logarithm of the probability of failure."""
    log_failure, good = _negative(_mix(_log_failure(p), _log_failure(q), alpha))
    return d.Geometric(logits=-_log_odds(log_failure)), good


def _log_failure(x: Any) -> Array:
    return jnp.log1p(-x.probs) if x.logits is None else -jax.nn.softplus(x.logits)


def _log_success(x: Any) -> Array:
    return jnp.log(x.probs) if x.logits is None else -jax.nn.softplus(-x.logits)


def _negative(x: Array) -> tuple[Array, Bool[Array, "..."]]:
    """Return x where it is negative, else −1, and where it was."""
    good = x < 0
    return jnp.where(good, x, -jnp.ones_like(x)), good


def _log_odds(log_probability: Array) -> Array:
    """Return log(x / (1 − x)) of log x."""
    return log_probability - jnp.log(-jnp.expm1(log_probability))


def negative_binomial(p: d.NegativeBinomial, q: d.NegativeBinomial, alpha: float) -> tuple[Any, Array]:
    """With a shared total_count, the logarithm of the probability of success is the natural parameter."""
    log_success, good = _negative(_mix(_log_success(p), _log_success(q), alpha))
    return d.NegativeBinomial(q.total_count, logits=_log_odds(log_success)), good


def continuous_bernoulli(p: Any, q: Any, alpha: float) -> tuple[d.ContinuousBernoulli, Array]:
    """The logits are the natural parameter."""

    def logits(x: d.ContinuousBernoulli) -> Array:
        return _log_success(x) - _log_failure(x) if x.logits is None else x.logits

    mixed = _mix(logits(p), logits(q), alpha)
    return d.ContinuousBernoulli(logits=mixed), jnp.ones(mixed.shape, bool)


def wishart(p: d.Wishart, q: d.Wishart, alpha: float) -> tuple[d.Wishart, Array]:
    """The degrees of freedom and V⁻¹ are natural parameters."""
    df = _mix(p.df, q.df, alpha)
    # In units of V_q: V_q^{1/2} (I + α(N Nᵀ − I))⁻¹ V_q^{1/2}ᵀ with N = (L_p⁻¹ L_q)ᵀ.
    p_lower, q_lower = jnp.tril(p.scale_tril), jnp.tril(q.scale_tril)
    shifted = jax.lax.linalg.triangular_solve(p_lower, q_lower - p_lower, left_side=True, lower=True)
    turned = jnp.swapaxes(shifted, -1, -2)
    gap = shifted + turned + jnp.matmul(turned, shifted, precision=jax.lax.Precision.HIGHEST)
    eye = jnp.broadcast_to(jnp.eye(gap.shape[-1], dtype=gap.dtype), gap.shape)
    lower = jnp.linalg.cholesky(eye + alpha * gap)
    good = jnp.all(jnp.isfinite(lower), axis=(-2, -1)) & (df > gap.shape[-1] - 1)
    lower = jnp.where(good[..., None, None] | jnp.zeros(gap.shape, bool), lower, eye)
    # (C Cᵀ)⁻¹ = C⁻ᵀ C⁻¹ is made lower-triangular by a QR decomposition of C⁻¹ L_qᵀ.
    right = jax.lax.linalg.triangular_solve(lower, jnp.swapaxes(q_lower, -1, -2), left_side=True, lower=True)
    upper = jnp.linalg.qr(right)[1]
    signs = jnp.sign(jnp.diagonal(upper, axis1=-2, axis2=-1))
    tril = jnp.swapaxes(upper * signs[..., :, None], -1, -2)
    return d.Wishart(tril, jnp.where(good, df, q.df)), good


# Families, and the parameters that p and q must share.
PATHS: dict[type[d.Distribution], tuple[Between, tuple[str, ...]]] = {
    d.Gamma: (gamma, ()),
    d.ExpGamma: (gamma, ()),
    d.InverseGamma: (inverse_gamma, ()),
    d.ExpInverseGamma: (inverse_gamma, ()),
    d.GeneralizedGamma: (generalized_gamma, ("power",)),
    d.Beta: (beta, ()),
    d.Dirichlet: (dirichlet, ()),
    d.Poisson: (poisson, ()),
    d.Geometric: (geometric, ()),
    d.NegativeBinomial: (negative_binomial, ("total_count",)),
    d.InverseGaussian: (inverse_gaussian, ()),
    d.Pareto: (pareto, ("scale",)),
    d.Laplace: (laplace, ("loc",)),
    d.VonMises: (von_mises, ()),
    d.VonMisesFisher: (von_mises_fisher, ()),
    d.ContinuousBernoulli: (continuous_bernoulli, ()),
    d.Wishart: (wishart, ()),
}
