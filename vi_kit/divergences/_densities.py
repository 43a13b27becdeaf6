"""Log densities of the families of numbers, for quadrature, with their supports and where their mass lies."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vi_kit.divergences import _density_functions as f
from vi_kit.divergences import distributions as d
from vi_kit.kl._compensated import log_ratio


@dataclasses.dataclass(frozen=True)
class Density:
    """A family: its log density of (parameters, x, x − low, high − x), its ends, and where its mass lies."""

    log: Callable[..., Array]
    place: Callable[[Any], tuple[Array, Array]]
    ends: Callable[[Any], tuple[Any, Any]]
    discrete: bool = False


def _line(p: Any) -> tuple[float, float]:
    return -jnp.inf, jnp.inf


def _half(p: Any) -> tuple[float, float]:
    return 0.0, jnp.inf


def _unit(p: Any) -> tuple[float, float]:
    return 0.0, 1.0


def _between(p: Any) -> tuple[Array, Array]:
    return p.low, p.high


def _located(log: Callable[[Any, Array], Array]) -> Density:
    """Make the family of loc and scale from a log density of y = (x − loc) / scale."""
    return Density(
        lambda p, x, left, right: log(p, (x - p.loc) / p.scale) - jnp.log(p.scale), lambda p: (p.loc, p.scale), _line
    )


def _positive(log: Callable[[Any, Array], Array], place: Callable[[Any], tuple[Array, Array]]) -> Density:
    """Make a family on the positive numbers from the log of x times its density."""
    return Density(lambda p, x, left, right: log(p, left) - f.log(left), place, _half)


def _scaled(log: Callable[[Any, Array], Array]) -> Density:
    """Make a family on the positive numbers from a log density of x / scale."""
    return Density(
        lambda p, x, left, right: log(p, left / p.scale) - jnp.log(p.scale), lambda p: (p.scale, p.scale), _half
    )


def _around(center: Array, relative: Array) -> tuple[Array, Array]:
    """Place the mass at a positive number, within a factor of 1 ± relative."""
    return center, center * jnp.minimum(relative, jnp.ones_like(relative))


def _unit_place(mean: Array, count: Array) -> tuple[Array, Array]:
    return mean, jnp.sqrt(mean * (1 - mean) / (1 + count))


def _logit_place(p: Any) -> tuple[Array, Array]:
    center = jax.nn.sigmoid(p.loc)
    return center, center * (1 - center) * jnp.minimum(p.scale, jnp.ones_like(p.scale))


def _counted(mean: Array, variance: Array) -> tuple[Array, Array]:
    return mean, jnp.sqrt(variance) + 1


def _given(p: Any) -> Array:
    found: Array = p.logits if p.logits is not None else p.probs
    return found


def _odds_place(p: Any) -> tuple[Array, Array]:
    success, failure = f.odds(p)
    mean = p.total_count * success
    center, width = _counted(mean / failure, mean / (failure * failure))
    return center, width + 1 / failure


DENSITIES: dict[type[d.Distribution], Density] = {
    d.Normal: _located(lambda p, y: -0.5 * y * y - f.HALF_LOG_2PI),
    d.Laplace: _located(lambda p, y: -jnp.abs(y) - math.log(2)),
    d.Logistic: _located(lambda p, y: f.logistic_log(y)),
    d.Gumbel: _located(lambda p, y: -y - f.exp(-y)),
    d.Cauchy: _located(lambda p, y: -jnp.log1p(y * y) - math.log(math.pi)),
    d.StudentT: Density(f.student, lambda p: (p.loc, p.scale), _line),
    d.Moyal: _located(lambda p, y: -0.5 * (y + f.exp(-y)) - f.HALF_LOG_2PI),
    d.GeneralizedNormal: _located(
        lambda p, y: jnp.log(p.power / 2) - jax.lax.lgamma(1 / p.power) - f.exp(p.power * f.log(jnp.abs(y)))
    ),
    d.GeneralizedExtremeValue: Density(f.extreme_value, lambda p: (p.loc, p.scale), f.extreme_value_ends),
    d.ExpGamma: Density(
        lambda p, x, left, right: -p.concentration * f.excess(x - log_ratio(p.concentration, p.rate))
        - f.stirling(p.concentration),
        lambda p: (jnp.log(p.concentration / p.rate), 1 / jnp.sqrt(p.concentration)), _line,
    ),
    d.ExpInverseGamma: Density(
        lambda p, x, left, right: -p.concentration * f.excess(log_ratio(p.scale, p.concentration) - x)
        - f.stirling(p.concentration),
        lambda p: (jnp.log(p.scale / p.concentration), 1 / jnp.sqrt(p.concentration)), _line,
    ),
    d.Gamma: _positive(
        lambda p, x: f.log_gamma(p.concentration, p.rate, x),
        lambda p: _around(p.concentration / p.rate, 1 / jnp.sqrt(p.concentration)),
    ),
    d.GeneralizedGamma: _positive(
        lambda p, x: jnp.log(jnp.abs(p.power))
        + f.log_gamma(p.concentration, p.rate, f.exp(p.power * log_ratio(x, p.scale + 0 * x))),
        lambda p: _around(
            p.scale * jnp.exp(jnp.log(p.concentration / p.rate) / p.power),
            1 / (jnp.abs(p.power) * jnp.sqrt(p.concentration)),
        ),
    ),
    d.Exponential: Density(
        lambda p, x, left, right: jnp.log(p.rate) - p.rate * left, lambda p: (1 / p.rate, 1 / p.rate), _half
    ),
    d.Chi2: _positive(
        lambda p, x: f.log_gamma(p.df / 2, jnp.full_like(p.df, 0.5), x), lambda p: _around(p.df, jnp.sqrt(2 / p.df))
    ),
    d.Chi: _positive(
        lambda p, x: f.log_gamma(p.df / 2, jnp.full_like(p.df, 0.5), x * x) + math.log(2),
        lambda p: _around(jnp.sqrt(p.df), 1 / jnp.sqrt(2 * p.df)),
    ),
    d.InverseGamma: _positive(
        lambda p, x: f.log_gamma(p.concentration, p.scale, 1 / x),
        lambda p: _around(p.scale / p.concentration, 1 / jnp.sqrt(p.concentration)),
    ),
    d.HalfNormal: _scaled(lambda p, y: -0.5 * y * y + 0.5 * math.log(2 / math.pi)),
    d.HalfCauchy: _scaled(lambda p, y: -jnp.log1p(y * y) + math.log(2 / math.pi)),
    d.Rayleigh: _scaled(lambda p, y: f.log(y) - 0.5 * y * y),
    d.Maxwell: _scaled(lambda p, y: 2 * f.log(y) - 0.5 * y * y + 0.5 * math.log(2 / math.pi)),
    d.Weibull: _positive(
        lambda p, x: jnp.log(p.concentration) - f.excess(p.concentration * log_ratio(x, p.scale + 0 * x)) - 1,
        lambda p: _around(p.scale, 1 / p.concentration),
    ),
    d.Frechet: _positive(
        lambda p, x: jnp.log(p.concentration) - f.excess(p.concentration * log_ratio(p.scale + 0 * x, x)) - 1,
        lambda p: _around(p.scale, 1 / p.concentration),
    ),
    d.InverseGaussian: _positive(
        lambda p, x: 0.5 * (jnp.log(p.concentration) - f.log(x)) - f.HALF_LOG_2PI
        - 0.5 * p.concentration / x * jnp.square((x - p.loc) / p.loc),
        lambda p: _around(p.loc, jnp.sqrt(p.loc / p.concentration)),
    ),
    d.LogNormal: _positive(
        lambda p, x: f.normal_log((f.log(x) - p.loc) / p.scale, p.scale), lambda p: _around(jnp.exp(p.loc), p.scale)
    ),
    d.LogLogistic: _positive(
        lambda p, x: f.logistic_log((f.log(x) - p.loc) / p.scale) - jnp.log(p.scale),
        lambda p: _around(jnp.exp(p.loc), p.scale),
    ),
    d.Levy: Density(
        lambda p, x, left, right: 0.5 * jnp.log(p.scale) - f.HALF_LOG_2PI - 1.5 * f.log(left) - 0.5 * p.scale / left,
        lambda p: (p.loc + p.scale, p.scale), lambda p: (p.loc, jnp.inf),
    ),
    d.Pareto: Density(
        lambda p, x, left, right: jnp.log(p.concentration / p.scale)
        - (p.concentration + 1) * jnp.log1p(left / p.scale),
        lambda p: (p.scale * (1 + 1 / p.concentration), p.scale / p.concentration), lambda p: (p.scale, jnp.inf),
    ),
    d.Beta: Density(
        f.beta,
        lambda p: _unit_place(
            p.concentration1 / (p.concentration1 + p.concentration0), p.concentration1 + p.concentration0
        ),
        _unit,
    ),
    d.Kumaraswamy: Density(
        f.kumaraswamy,
        lambda p: _around(
            jnp.exp(f.log(-jnp.expm1(-math.log(2) / p.concentration0)) / p.concentration1), 1 / p.concentration1
        ),
        _unit,
    ),
    d.ContinuousBernoulli: Density(
        f.continuous_bernoulli,
        lambda p: (jnp.full_like(_given(p), 0.5),) * 2,
        _unit,
    ),
    d.LogitNormal: Density(
        lambda p, x, left, right: f.normal_log((f.log(left) - f.log(right) - p.loc) / p.scale, p.scale)
        - f.log(left) - f.log(right),
        _logit_place, _unit,
    ),
    d.Uniform: Density(
        lambda p, x, left, right: -jnp.log(p.high - p.low) + 0 * x,
        lambda p: (p.low + 0.5 * (p.high - p.low), 0.25 * (p.high - p.low)), _between,
    ),
    d.TruncatedNormal: Density(f.truncated_normal, lambda p: (jnp.clip(p.loc, p.low, p.high), p.scale), _between),
    d.TruncatedExponential: Density(
        lambda p, x, left, right: jnp.log(p.rate) - p.rate * left - jnp.log(-jnp.expm1(-p.rate * p.high)),
        lambda p: (jnp.minimum(1 / p.rate, 0.5 * p.high),) * 2, lambda p: (0.0, p.high),
    ),
    d.VonMises: Density(
        lambda p, x, left, right: -2 * p.concentration * jnp.square(jnp.sin((x - p.loc) / 2))
        - jnp.log(jax.scipy.special.i0e(p.concentration)) - math.log(2 * math.pi),
        lambda p: (jnp.arctan2(jnp.sin(p.loc), jnp.cos(p.loc)), 1 / jnp.sqrt(1 + p.concentration)),
        lambda p: (-math.pi, math.pi),
    ),
    d.Bernoulli: Density(
        lambda p, k, left, right: jnp.where(k == 1, f.log(f.odds(p)[0]), f.log(f.odds(p)[1])),
        lambda p: _counted(f.odds(p)[0], 0 * f.odds(p)[0]), _unit, discrete=True,
    ),
    d.Categorical: Density(
        f.classes,
        lambda p: _counted(jnp.zeros_like(_given(p)[..., 0]), jnp.full_like(_given(p)[..., 0], _given(p).shape[-1])),
        lambda p: (0.0, _given(p).shape[-1] - 1.0), discrete=True,
    ),
    d.Binomial: Density(
        f.binomial, lambda p: _counted(p.total_count * f.odds(p)[0], p.total_count * f.odds(p)[0] * f.odds(p)[1]),
        lambda p: (0.0, p.total_count), discrete=True,
    ),
    d.Geometric: Density(
        lambda p, k, left, right: f.log(f.odds(p)[0]) + jnp.where(k > 0, k * f.log(f.odds(p)[1]), 0 * k),
        lambda p: (1 / f.odds(p)[0],) * 2, _half, discrete=True,
    ),
    d.NegativeBinomial: Density(f.negative_binomial, _odds_place, _half, discrete=True),
    d.Poisson: Density(
        lambda p, k, left, right: -f.log_factorial(k) - f.deviance(k, p.rate + 0 * k),
        lambda p: _counted(p.rate, p.rate), _half, discrete=True,
    ),
    d.DiscreteUniform: Density(
        lambda p, k, left, right: -jnp.log(p.high - p.low + 1) + 0 * k,
        lambda p: (0.5 * (p.low + p.high), 0.5 * (p.high - p.low) + 1), _between, discrete=True,
    ),
}  # fmt: skip
