"""KL between Gamma distributions and between powers of them, which many positive families are."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax.scipy.special import digamma
from jaxtyping import Array

from vi_kit.divergences._rules import require
from vi_kit.divergences._special import (
    lgamma_remainder,
    minus_log_remainder,
    scaled_remainder,
    stirling_remainder,
)
from vi_kit.divergences._support import where_contained
from vi_kit.divergences.distributions import (
    Chi,
    Chi2,
    ExpGamma,
    ExpInverseGamma,
    Exponential,
    Frechet,
    Gamma,
    GeneralizedGamma,
    HalfNormal,
    InverseGamma,
    Levy,
    Maxwell,
    Moyal,
    Rayleigh,
    Weibull,
)
from vi_kit.kl._compensated import expm1_minus, log_ratio


def gamma_kl(p_concentration: Array, p_rate: Array, q_concentration: Array, q_rate: Array) -> Array:
    """Return KL between Gamma distributions: that of their means, and that of their shapes."""
    change = q_concentration - p_concentration
    means = scaled_remainder(q_concentration, p_concentration, change, q_rate, p_rate, q_rate - p_rate)
    return means + stirling_remainder(q_concentration, p_concentration, change)


def gamma_gamma(p: Gamma | ExpGamma, q: Gamma | ExpGamma) -> Array:
    """Return KL between Gamma distributions, or between their logarithms."""
    return gamma_kl(p.concentration, p.rate, q.concentration, q.rate)


def inverse_gamma(p: InverseGamma | ExpInverseGamma, q: InverseGamma | ExpInverseGamma) -> Array:
    """Return KL between inverse Gamma distributions, or between their logarithms: that of the inverses."""
    return gamma_kl(p.concentration, p.scale, q.concentration, q.scale)


def _powers(p_concentration: Array, q_concentration: Array, log_unit: Array, power_change: Array) -> Array:
    """Return KL of z ~ Gamma(p_concentration, 1) from the law under which e^log_unit · z^k ~ Gamma(q_concentration, 1).

    Here k = 1 + power_change. It is +inf where z^k has no mean under p.
    """
    power = 1 + power_change
    moment = p_concentration + power
    harmless = jnp.where(moment > 0, moment, jnp.ones_like(moment))
    above = p_concentration + 1
    # lgamma(a + k) − lgamma(a + 1), the logarithm of a mean, is its tangent and this.
    bend = lgamma_remainder(harmless, above, jnp.where(moment > 0, power_change, 1 - above))
    log_mean = log_unit + log_ratio(p_concentration, q_concentration) + power_change * digamma(above) + bend
    change = q_concentration - p_concentration
    magnitude = jnp.abs(power)
    forward = minus_log_remainder(jnp.where(power > 0, power, jnp.ones_like(power)), jnp.ones_like(power), power_change)
    jacobian = jnp.where(power > 0, forward, power_change - jnp.log(magnitude))
    value = (
        q_concentration * (expm1_minus(log_mean) + bend)
        + stirling_remainder(q_concentration, p_concentration, change)
        + (jacobian + power_change * (change / p_concentration))
    )
    # A margin below 0 also where the moment is 0.
    margin = jnp.where(moment > 0, moment, moment - 1)
    return where_contained(value, jnp.broadcast_to(margin, value.shape))


def generalized_gamma(p: GeneralizedGamma, q: GeneralizedGamma) -> Array:
    """Return KL between powers of Gamma variables."""
    power_change = (q.power - p.power) / p.power
    log_unit = q.power * log_ratio(p.scale, q.scale) + log_ratio(q.rate, p.rate) - power_change * jnp.log(p.rate)
    return _powers(p.concentration, q.concentration, log_unit, power_change)


def moyal(p: Moyal, q: Moyal) -> Array:
    """Return KL between Moyal distributions: e^{−y} / 2 is a Gamma(½, 1) variable."""
    half = jnp.full_like(p.scale, 0.5)
    power_change = (p.scale - q.scale) / q.scale
    return _powers(half, half, (q.loc - p.loc) / q.scale + math.log(2) * power_change, power_change)


def levy(p: Levy, q: Levy) -> Array:
    """Return KL between Lévy distributions that begin at one place: scale / (2 (x − loc)) is a Gamma(½, 1) variable."""
    half = jnp.full_like(p.scale, 0.5)
    value = gamma_kl(half, p.scale, half, q.scale)
    value = require(value, p.loc <= q.loc, "`loc` has to be the same on both sides, unless q's is larger: +inf")
    return where_contained(value, p.loc - q.loc)


# --- what is a Gamma distribution or a power of one ------------------------------------------------------------------


def exponential_as_gamma(p: Exponential) -> Gamma:
    """Return an exponential distribution as a Gamma one."""
    return Gamma(jnp.ones_like(p.rate), p.rate)


def chi2_as_gamma(p: Chi2) -> Gamma:
    """Return a chi-squared distribution as a Gamma one."""
    return Gamma(p.df / 2, jnp.full_like(p.df, 0.5))


def _power(concentration: Array | float, scale: Array, power: Array | float, rate: Array | float) -> GeneralizedGamma:
    fill = (jnp.full_like(scale, x) if isinstance(x, float) else x for x in (concentration, power, rate))
    concentration, power, rate = fill
    return GeneralizedGamma(concentration, scale, power, rate)


def gamma_as_power(p: Gamma) -> GeneralizedGamma:
    """Return a Gamma distribution as a power of one, the first."""
    return _power(p.concentration, jnp.ones_like(p.rate), 1.0, p.rate)


def inverse_gamma_as_power(p: InverseGamma) -> GeneralizedGamma:
    """Return an inverse Gamma distribution as a power of a Gamma one."""
    return _power(p.concentration, p.scale, -1.0, 1.0)


def weibull_as_power(p: Weibull) -> GeneralizedGamma:
    """Return a Weibull distribution as a power of an exponential one."""
    return _power(1.0, p.scale, p.concentration, 1.0)


def frechet_as_power(p: Frechet) -> GeneralizedGamma:
    """Return a Fréchet distribution as a power of an exponential one."""
    return _power(1.0, p.scale, -p.concentration, 1.0)


def chi_as_power(p: Chi) -> GeneralizedGamma:
    """Return a chi distribution as the root of a Gamma one."""
    return _power(p.df / 2, jnp.ones_like(p.df), 2.0, 0.5)


def half_normal_as_power(p: HalfNormal) -> GeneralizedGamma:
    """Return the length of a normal vector in one dimension as the root of a Gamma variable."""
    return _power(0.5, p.scale, 2.0, 0.5)


def rayleigh_as_power(p: Rayleigh) -> GeneralizedGamma:
    """Return the length of a normal vector in two dimensions as the root of a Gamma variable."""
    return _power(1.0, p.scale, 2.0, 0.5)


def maxwell_as_power(p: Maxwell) -> GeneralizedGamma:
    """Return the length of a normal vector in three dimensions as the root of a Gamma variable."""
    return _power(1.5, p.scale, 2.0, 0.5)
