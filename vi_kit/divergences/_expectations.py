"""What the first distribution can say of itself in closed form: cumulants on the real line, or of log x.

Entropies and cumulants are given as what they differ by from those of a normal: a sum with the terms of another
family then cancels no digits where both are concentrated, which is nearly normal.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array

from vi_kit.divergences import _remainders as r
from vi_kit.divergences import distributions as d
from vi_kit.kl._compensated import log_ratio

Power = Array | float


@dataclasses.dataclass(frozen=True)
class Place:
    """A point on a line; on that of log x also x itself, whose ratios keep more digits."""

    value: Array
    antilog: Array | None = None

    def minus(self, other: Place) -> Array:
        """Return the distance from another place."""
        if self.antilog is None or other.antilog is None:
            return self.value - other.value
        return log_ratio(self.antilog, other.antilog)


def at_log(x: Array) -> Place:
    """Return the place of log x."""
    return Place(jnp.log(x), x)


class LogGamma(NamedTuple):
    """Density of y ∝ exp(−concentration · φ(power · (y − place))), φ(z) = e^z − 1 − z: a Gamma variable's logarithm."""

    place: Place
    power: Power
    concentration: Array


def _unknown(t: Power) -> tuple[Array, Array]:
    raise NotImplementedError("E exp(t y) is not known in closed form")


class Cumulants(NamedTuple):
    """A distribution of y, a number on the real line.

    Attributes:
        place: a point near the mean.
        shift: mean − place.
        variance: of y, or where that is not known of some other normal: the rest is relative to it.
        negentropy: entropy of a normal with this variance − entropy of y.
        cumulant: log E e^{t (y − mean)}, and the same less t² variance / 2.
        room: above 0 where that is finite; elsewhere it is some harmless number.
        moments: above 0 where mean and variance are finite.
    """

    place: Place
    shift: Array
    variance: Array
    negentropy: Array
    cumulant: Callable[[Power], tuple[Array, Array]] = _unknown
    room: Callable[[Power], Array | None] = lambda t: None
    moments: Array | None = None

    @property
    def entropy(self) -> Array:
        """Entropy of y."""
        return r.HALF_LOG_TAU_E + 0.5 * jnp.log(self.variance) - self.negentropy


# --- shapes ----------------------------------------------------------------------------------------------------------


def normal(place: Place, scale: Array) -> Cumulants:
    """Return the cumulants of a normal."""
    variance = scale * scale
    zero = jnp.zeros_like(scale)
    return Cumulants(place, zero, variance, zero, lambda t: (0.5 * t * t * variance, zero))


def logistic(place: Place, scale: Array) -> Cumulants:
    """Return the cumulants of a logistic distribution."""
    variance = (math.pi * scale) ** 2 / 3

    def room(t: Power) -> Array:
        return 1 - jnp.abs(t * scale)

    def cumulant(t: Power) -> tuple[Array, Array]:
        value = -r.log_sinc(math.pi * jnp.where(room(t) > 0, t * scale, jnp.zeros_like(scale)))
        return value, value - 0.5 * t * t * variance

    negentropy = jnp.full_like(scale, r.HALF_LOG_TAU_E + 0.5 * math.log(math.pi**2 / 3) - 2)
    return Cumulants(place, jnp.zeros_like(scale), variance, negentropy, cumulant, room)


def laplace(p: d.Laplace) -> Cumulants:
    """Return the cumulants of a Laplace distribution."""
    variance = 2 * p.scale * p.scale

    def room(t: Power) -> Array:
        return 1 - jnp.abs(t * p.scale)

    def cumulant(t: Power) -> tuple[Array, Array]:
        tau = jnp.where(room(t) > 0, t * p.scale, jnp.zeros_like(p.scale))
        value = -jnp.log1p(-tau * tau)
        return value, value - tau * tau

    negentropy = jnp.full_like(p.scale, r.HALF_LOG_TAU_E - 1 - 0.5 * math.log(2))
    return Cumulants(Place(p.loc), jnp.zeros_like(p.scale), variance, negentropy, cumulant, room)


def log_gamma(form: LogGamma) -> Cumulants:
    """Return the cumulants of the logarithm of a Gamma variable."""
    a, k = form.concentration, form.power
    log_rest, mean_rest, variance_rest = r.stirling(a)
    half = 0.5 / a

    def room(t: Power) -> Array:
        return a + t / k

    def cumulant(t: Power) -> tuple[Array, Array]:
        s = t / k
        return r.log_gamma_cumulant(jnp.where(a + s > 0, a, 1 + jnp.abs(s)), s)

    return Cumulants(
        form.place,
        -(half + mean_rest) / k,
        ((1 + half) / a + variance_rest) / (k * k),
        0.5 * jnp.log1p(half + a * variance_rest) - log_rest - a * mean_rest,
        cumulant,
        room,
    )


def gamma(a: Array, rate: Array) -> Cumulants:
    """Return the cumulants of a Gamma distribution."""
    log_rest, mean_rest, _ = r.stirling(a)

    def room(t: Power) -> Array:
        return rate - t

    def cumulant(t: Power) -> tuple[Array, Array]:
        gap, excess, _ = r.log1p_remainders(jnp.where(room(t) > 0, -t / rate, jnp.zeros_like(rate)))
        return a * gap, a * excess

    negentropy = 0.5 / a - log_rest - (a - 1) * mean_rest
    return Cumulants(Place(a / rate), jnp.zeros_like(a), a / (rate * rate), negentropy, cumulant, room)


def log_pareto(p: d.Pareto) -> Cumulants:
    """Return the cumulants of the logarithm of a Pareto variable."""
    c = p.concentration

    def room(t: Power) -> Array:
        return c - t

    def cumulant(t: Power) -> tuple[Array, Array]:
        return r.log1p_remainders(jnp.where(room(t) > 0, -t / c, jnp.zeros_like(c)))[:2]

    negentropy = jnp.full_like(c, r.HALF_LOG_TAU_E - 1)
    return Cumulants(at_log(p.scale), 1 / c, 1 / (c * c), negentropy, cumulant, room)


def exponential(x: Cumulants) -> Cumulants:
    """Return the cumulants of e^y, mean and variance, from those of y."""
    first, second = x.cumulant(1.0), x.cumulant(2.0)
    room = x.room(2.0)
    # log(1 + variance / mean²) of e^y, and how much of that is not the variance of y.
    squared, spread = second[0] - 2 * first[0], (second[1] - 2 * first[1]) / x.variance
    if room is not None:
        squared = jnp.where(room > 0, squared, x.variance)
        spread = jnp.where(room > 0, spread, jnp.zeros_like(spread))
    near = jnp.abs(spread) < 0.5
    close = jnp.log1p(jnp.where(near, spread, jnp.zeros_like(spread)))
    ratio = jnp.where(near, close, jnp.log(squared) - jnp.log(x.variance))
    growth = x.shift + first[0]
    mean = jnp.exp(x.place.value + growth) if x.place.antilog is None else x.place.antilog * jnp.exp(growth)
    negentropy = 0.5 * ratio + 0.25 * squared + 0.5 * r.log_sinhc(0.5 * squared) + first[0] + x.negentropy
    variance = mean * mean * jnp.expm1(squared)
    return Cumulants(Place(mean), jnp.zeros_like(mean), variance, negentropy, moments=room)


def rooted(x: Cumulants, power: Array) -> Cumulants:
    """Return the cumulants of y / power."""
    place = Place(x.place.value / power)
    return x._replace(
        place=place,
        shift=x.shift / power,
        variance=x.variance / (power * power),
        cumulant=lambda t: x.cumulant(t / power),
        room=lambda t: x.room(t / power),
    )


def inverse_gaussian(p: d.InverseGaussian) -> Cumulants:
    """Return the cumulants of an inverse Gaussian distribution."""
    c = p.concentration / p.loc
    variance = p.loc * p.loc / c

    def room(t: Power) -> Array:
        return 1 - 2 * t * p.loc / c

    def cumulant(t: Power) -> tuple[Array, Array]:
        w = 2 * t * p.loc / c
        w = jnp.where(w <= 1, w, jnp.zeros_like(w))
        root = jnp.sqrt(1 - w)
        relative = w / (1 + root)
        return 0.5 * c * relative * relative, c * relative**3 * (root + 3) / 8

    return Cumulants(Place(p.loc), jnp.zeros_like(c), variance, 1.5 * r.scaled_exp1(2 * c)[0], cumulant, room)


def log_inverse_gaussian(p: d.InverseGaussian) -> Cumulants:
    """Return the cumulants of the logarithm of an inverse Gaussian variable, beside a normal of this variance."""
    unit = p.loc / p.concentration
    below, rest = r.scaled_exp1(2 / unit)
    bend = r.log1p_remainders(unit)[0]
    excesses: dict[float, Array] = {1: -rest, -1: rest - bend, 2: -bend - 2 * rest}

    def cumulant(t: Power) -> tuple[Array, Array]:
        assert isinstance(t, float)
        return excesses[t] + 0.5 * t * t * unit, excesses[t]

    return Cumulants(at_log(p.loc), -below, unit, 0.5 * below, cumulant)


def student_t(p: d.StudentT) -> Cumulants:
    """Return the cumulants of Student's t: its mean and variance."""
    inside = p.df > 2
    a = jnp.where(inside, 0.5 * p.df, jnp.full_like(p.df, 2))
    (_, sa, _), (_, sb, _) = r.stirling(a), r.stirling(a + 0.5)
    bend = r.log_gamma_cumulant(a, 0.5)[0]
    entropy = r.log1p_remainders(0.5 / a)[2]
    slopes = a * entropy + 0.125 / a + 0.25 / a - (a + 0.5) * (sb - sa)
    negentropy = -0.5 * jnp.log1p(-1 / a) - 0.25 / a - 0.5 * sa + bend - slopes
    variance = p.scale * p.scale * (a / (a - 1))
    return Cumulants(Place(p.loc), jnp.zeros_like(a), variance, negentropy, moments=p.df - 2)


def generalized_normal(p: d.GeneralizedNormal) -> Cumulants:
    """Return the cumulants of a generalized normal distribution: its mean and variance."""
    a = 1 / p.power
    ratio = gammaln(3 * a) - gammaln(a)
    negentropy = r.HALF_LOG_TAU_E + 0.5 * ratio - a + jnp.log(p.power) - math.log(2) - gammaln(a)
    return Cumulants(Place(p.loc), jnp.zeros_like(a), p.scale * p.scale * jnp.exp(ratio), negentropy)
