"""Families of numbers. Each is known by its parameters alone: shapes broadcast, no sampling, no density."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Array, Bool

from vi_kit.divergences.distributions._declare import (
    Distribution,
    bound,
    bound_end,
    family,
    log_odds,
    non_negative,
    nonzero,
    parameter,
    positive,
    probability,
    real,
    real_end,
)

# --- on the real line ------------------------------------------------------------------------------------------------


class _Real(Distribution):
    support: ClassVar[str] = "real"


@family
class Normal(_Real):
    """Normal with mean `loc` and standard deviation `scale`."""

    loc: Array = parameter(real)
    scale: Array = parameter(positive)


@family
class Laplace(_Real):
    """Density ∝ exp(−|x − loc| / scale)."""

    loc: Array = parameter(real)
    scale: Array = parameter(positive)


@family
class Logistic(_Real):
    """The distribution function is the logistic function of (x − loc) / scale."""

    loc: Array = parameter(real)
    scale: Array = parameter(positive)


@family
class Gumbel(_Real):
    """Of maxima: distribution function exp(−exp(−(x − loc) / scale))."""

    loc: Array = parameter(real)
    scale: Array = parameter(positive)


@family
class Cauchy(_Real):
    """Density ∝ 1 / (1 + ((x − loc) / scale)²)."""

    loc: Array = parameter(real)
    scale: Array = parameter(positive)


@family
class StudentT(_Real):
    """Student's t with `df` degrees of freedom."""

    df: Array = parameter(positive)
    loc: Array = parameter(real)
    scale: Array = parameter(positive)


@family
class Moyal(_Real):
    """With y = (x − loc) / scale, density ∝ exp(−(y + e^{−y}) / 2)."""

    loc: Array = parameter(real)
    scale: Array = parameter(positive)


@family
class ExpGamma(_Real):
    """The logarithm of a Gamma(concentration, rate) variable."""

    concentration: Array = parameter(positive)
    rate: Array = parameter(positive)


@family
class ExpInverseGamma(_Real):
    """The logarithm of an InverseGamma(concentration, scale) variable."""

    concentration: Array = parameter(positive)
    scale: Array = parameter(positive)


@family
class GeneralizedNormal(_Real):
    """Density ∝ exp(−|(x − loc) / scale|^power)."""

    loc: Array = parameter(real)
    scale: Array = parameter(positive)
    power: Array = parameter(positive)


@family
class GeneralizedExtremeValue(Distribution):
    """Distribution function exp(−(1 + concentration (x − loc) / scale)^{−1/concentration}), its support included."""

    support: ClassVar[str] = "unknown"
    loc: Array = parameter(real)
    scale: Array = parameter(positive)
    concentration: Array = parameter(real)


# --- positive --------------------------------------------------------------------------------------------------------


class _Positive(Distribution):
    support: ClassVar[str] = "positive"


@family
class Gamma(_Positive):
    """Density ∝ x^{concentration − 1} e^{−rate x}."""

    concentration: Array = parameter(positive)
    rate: Array = parameter(positive)


@family
class Exponential(_Positive):
    """Density rate · e^{−rate x}."""

    rate: Array = parameter(positive)


@family
class Chi2(_Positive):
    """Chi-squared with `df` degrees of freedom."""

    df: Array = parameter(positive)


@family
class Chi(_Positive):
    """The root of a chi-squared variable with `df` degrees of freedom."""

    df: Array = parameter(positive)


@family
class InverseGamma(_Positive):
    """Density ∝ x^{−concentration − 1} e^{−scale / x}."""

    concentration: Array = parameter(positive)
    scale: Array = parameter(positive)


@family
class HalfNormal(_Positive):
    """The absolute value of a normal with mean 0 and standard deviation `scale`."""

    scale: Array = parameter(positive)


@family
class HalfCauchy(_Positive):
    """The absolute value of a Cauchy variable around 0 with this scale."""

    scale: Array = parameter(positive)


@family
class Rayleigh(_Positive):
    """Density ∝ x e^{−x² / 2 scale²}."""

    scale: Array = parameter(positive)


@family
class Maxwell(_Positive):
    """Density ∝ x² e^{−x² / 2 scale²}."""

    scale: Array = parameter(positive)


@family
class Weibull(_Positive):
    """Distribution function 1 − exp(−(x / scale)^concentration)."""

    concentration: Array = parameter(positive)
    scale: Array = parameter(positive)


@family
class Frechet(_Positive):
    """Distribution function exp(−(x / scale)^{−concentration})."""

    concentration: Array = parameter(positive)
    scale: Array = parameter(positive)


@family
class InverseGaussian(_Positive):
    """Density ∝ x^{−3/2} exp(−concentration (x − loc)² / (2 loc² x)): mean `loc`, shape `concentration`."""

    loc: Array = parameter(positive)
    concentration: Array = parameter(positive)


@family
class LogNormal(_Positive):
    """The exponential of a Normal(loc, scale) variable."""

    loc: Array = parameter(real)
    scale: Array = parameter(positive)


@family
class LogLogistic(_Positive):
    """The exponential of a Logistic(loc, scale) variable."""

    loc: Array = parameter(real)
    scale: Array = parameter(positive)


@family
class GeneralizedGamma(_Positive):
    """Density ∝ x^{power · concentration − 1} exp(−rate (x / scale)^power): a power of a Gamma variable.

    Of `rate` and `scale` one would do; with both, no special case has to round its own parameter.
    """

    concentration: Array = parameter(positive)
    scale: Array = parameter(positive)
    power: Array = parameter(nonzero)
    rate: Array = parameter(positive, default=1.0)


# --- above a parameter -----------------------------------------------------------------------------------------------


@family
class Levy(Distribution):
    """Density ∝ (x − loc)^{−3/2} exp(−scale / (2 (x − loc))) for x > loc."""

    support: ClassVar[str] = "above_loc"
    loc: Array = parameter(real)
    scale: Array = parameter(positive)


@family
class Pareto(Distribution):
    """Density ∝ x^{−concentration − 1} for x > scale."""

    support: ClassVar[str] = "above_scale"
    concentration: Array = parameter(positive)
    scale: Array = parameter(positive)


# --- on an interval --------------------------------------------------------------------------------------------------


class _Unit(Distribution):
    support: ClassVar[str] = "unit"


class _Interval(Distribution):
    support: ClassVar[str] = "interval"

    def relations(self) -> dict[str, tuple[Bool[Array, "..."], str]]:
        """Tell whether the ends are in order."""
        low, high = getattr(self, "low", None), getattr(self, "high", None)
        return {} if low is None or high is None else {"high": (low < high, "numbers above `low`")}


@family
class Beta(_Unit):
    """Density ∝ x^{concentration1 − 1} (1 − x)^{concentration0 − 1}."""

    concentration1: Array = parameter(positive)
    concentration0: Array = parameter(positive)


@family
class Kumaraswamy(_Unit):
    """Distribution function 1 − (1 − x^concentration1)^concentration0."""

    concentration1: Array = parameter(positive)
    concentration0: Array = parameter(positive)


@family
class ContinuousBernoulli(_Unit):
    """Density ∝ e^{logits · x}: probs^x (1 − probs)^{1−x} up to its constant. Give one of the two."""

    probs: Array | None = parameter(probability, default=None)
    logits: Array | None = parameter(log_odds, default=None)


@family
class LogitNormal(_Unit):
    """The logistic function of a Normal(loc, scale) variable."""

    loc: Array = parameter(real)
    scale: Array = parameter(positive)


@family
class Uniform(_Interval):
    """Uniform from `low` to `high`."""

    low: Array = parameter(real)
    high: Array = parameter(real_end)


@family
class TruncatedNormal(_Interval):
    """Normal(loc, scale) given that it lies between `low` and `high`, either of which may be infinite."""

    loc: Array = parameter(real)
    scale: Array = parameter(positive)
    low: Array = parameter(bound)
    high: Array = parameter(bound_end)


@family
class TruncatedExponential(_Interval):
    """Exponential(rate) given that it lies below `high`."""

    rate: Array = parameter(positive)
    high: Array = parameter(positive)


@family
class VonMises(Distribution):
    """Density ∝ e^{concentration cos(x − loc)} on the circle."""

    support: ClassVar[str] = "circle"
    loc: Array = parameter(real)
    concentration: Array = parameter(non_negative)
