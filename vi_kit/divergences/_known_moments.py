"""Which families can say what in closed form: cumulants of x or of log x, and mean distances from a point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.scipy.special import logit
from jaxtyping import Array

from vi_kit.divergences import _absolute as absolute
from vi_kit.divergences import _bounded_expectations as bounded
from vi_kit.divergences import _expectations as e
from vi_kit.divergences import distributions as d


def _gumbel(place: e.Place, power: e.Power, concentration: float = 1.0) -> e.LogGamma:
    return e.LogGamma(place, power, jnp.full_like(place.value, concentration))


def _length(scale: Array, df: float) -> e.LogGamma:
    """Return the form of log |x|, x normal in `df` dimensions."""
    return _gumbel(e.at_log(scale * df**0.5), 2.0, df / 2)


# Logarithms of Gamma variables on the real line, and what has one for its logarithm.
LOG_GAMMA: dict[type[d.Distribution], Callable[[Any], e.LogGamma]] = {
    d.Gumbel: lambda x: _gumbel(e.Place(x.loc), -1 / x.scale),
    d.Moyal: lambda x: _gumbel(e.Place(x.loc), -1 / x.scale, 0.5),
    d.ExpGamma: lambda x: e.LogGamma(e.at_log(x.concentration / x.rate), 1.0, x.concentration),
    d.ExpInverseGamma: lambda x: e.LogGamma(e.at_log(x.scale / x.concentration), -1.0, x.concentration),
}
GAMMA: dict[type[d.Distribution], Callable[[Any], e.LogGamma]] = {
    d.Exponential: lambda x: _gumbel(e.at_log(1 / x.rate), 1.0),
    d.Gamma: lambda x: e.LogGamma(e.at_log(x.concentration / x.rate), 1.0, x.concentration),
    d.Chi2: lambda x: e.LogGamma(e.at_log(x.df), 1.0, 0.5 * x.df),
    d.InverseGamma: lambda x: e.LogGamma(e.at_log(x.scale / x.concentration), -1.0, x.concentration),
    d.HalfNormal: lambda x: _length(x.scale, 1.0),
    d.Rayleigh: lambda x: _length(x.scale, 2.0),
    d.Maxwell: lambda x: _length(x.scale, 3.0),
    d.Chi: lambda x: e.LogGamma(e.at_log(jnp.sqrt(x.df)), 2.0, 0.5 * x.df),
    d.Weibull: lambda x: _gumbel(e.at_log(x.scale), x.concentration),
    d.Frechet: lambda x: _gumbel(e.at_log(x.scale), -x.concentration),
    d.GeneralizedGamma: lambda x: e.LogGamma(
        e.at_log(x.scale * (x.concentration / x.rate) ** (1 / x.power)), x.power, x.concentration
    ),
}

TILTED = (d.Uniform, d.TruncatedExponential, d.ContinuousBernoulli)


def ends(p: Any) -> tuple[Array, Array, Array]:
    """Return both ends of an interval, and how much the log density changes from one to the other."""
    if isinstance(p, d.Uniform):
        return p.low, p.high, jnp.zeros_like(p.low)
    if isinstance(p, d.TruncatedExponential):
        return jnp.zeros_like(p.high), p.high, -p.rate * p.high
    # Harmless where all is at one point: see `spread`.
    if p.logits is None:
        tilt = logit(jnp.where((p.probs > 0) & (p.probs < 1), p.probs, jnp.full_like(p.probs, 0.5)))
    else:
        tilt = jnp.where(jnp.isfinite(p.logits), p.logits, jnp.zeros_like(p.logits))
    return jnp.zeros_like(tilt), jnp.ones_like(tilt), tilt


def spread(p: d.Distribution) -> Array | None:
    """Return what is above 0 where p is not all at one point, of the families that can be."""
    if not isinstance(p, d.ContinuousBernoulli):
        return None
    if p.logits is None:
        assert p.probs is not None
        return jnp.minimum(p.probs, 1 - p.probs)
    return jnp.where(jnp.isfinite(p.logits), jnp.ones_like(p.logits), -jnp.abs(p.logits))


# Cumulants of x itself.
LINE: dict[type[d.Distribution], Callable[[Any], e.Cumulants]] = {
    d.Normal: lambda x: e.normal(e.Place(x.loc), x.scale),
    d.Laplace: e.laplace,
    d.Logistic: lambda x: e.logistic(e.Place(x.loc), x.scale),
    **{kind: lambda x: e.log_gamma(LOG_GAMMA[type(x)](x)) for kind in LOG_GAMMA},
    d.StudentT: e.student_t,
    d.GeneralizedNormal: e.generalized_normal,
    d.Exponential: lambda x: e.gamma(jnp.ones_like(x.rate), x.rate),
    d.Gamma: lambda x: e.gamma(x.concentration, x.rate),
    d.Chi2: lambda x: e.gamma(0.5 * x.df, jnp.full_like(x.df, 0.5)),
    d.InverseGaussian: e.inverse_gaussian,
    d.Beta: bounded.beta,
    **{kind: lambda x: bounded.tilted(*ends(x)) for kind in TILTED},
}
# Cumulants of log x.
POSITIVE: dict[type[d.Distribution], Callable[[Any], e.Cumulants]] = {
    d.LogNormal: lambda x: e.normal(e.Place(x.loc), x.scale),
    d.LogLogistic: lambda x: e.logistic(e.Place(x.loc), x.scale),
    **{kind: lambda x: e.log_gamma(GAMMA[type(x)](x)) for kind in GAMMA},
    d.InverseGaussian: e.log_inverse_gaussian,
    d.Pareto: e.log_pareto,
    d.Beta: lambda x: bounded.log_beta(x.concentration1, x.concentration0),
    d.Kumaraswamy: lambda x: e.rooted(
        bounded.log_beta(jnp.ones_like(x.concentration0), x.concentration0), x.concentration1
    ),
    d.Uniform: bounded.log_uniform,
}
# E|x − m|.
ABSOLUTE: dict[type[d.Distribution], Callable[[Any, Array], Array]] = {
    d.Normal: absolute.normal,
    d.Logistic: absolute.logistic,
    d.Gumbel: absolute.gumbel,
    d.GeneralizedNormal: absolute.generalized_normal,
    d.LogNormal: absolute.log_normal,
    **{kind: lambda x, m: absolute.power_of_gamma(GAMMA[type(x)](x), m) for kind in GAMMA},
    d.InverseGaussian: absolute.inverse_gaussian,
    d.Pareto: absolute.pareto,
    d.Beta: absolute.beta,
    **{kind: lambda x, m: absolute.interval(m, *ends(x)) for kind in TILTED},
}


def line(p: d.Distribution) -> e.Cumulants:
    """Return the cumulants of p, by those of its logarithm where need be."""
    return LINE[type(p)](p) if type(p) in LINE else e.exponential(POSITIVE[type(p)](p))


def entropy(p: d.Distribution) -> Array:
    """Return the entropy of p."""
    if type(p) in LINE:
        return LINE[type(p)](p).entropy
    log = POSITIVE[type(p)](p)
    return log.entropy + log.place.value + log.shift


def mean(p: d.Distribution) -> Array:
    """Return the mean of p."""
    found = line(p)
    return found.place.value + found.shift
