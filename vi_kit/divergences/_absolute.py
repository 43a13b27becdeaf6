"""Mean distances E|x − m| from a point, in closed form: what a Laplace distribution asks of another."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax.scipy import special
from jax.scipy.stats import norm
from jaxtyping import Array

from vi_kit.divergences import distributions as d
from vi_kit.divergences._bounded_expectations import tilted
from vi_kit.divergences._expectations import LogGamma, Place
from vi_kit.divergences._remainders import HALF_LOG_TAU, log1p_remainders, log_gamma_cumulant, log_sinhc, stirling
from vi_kit.kl._compensated import expm1_minus, log_ratio

EULER = float(np.euler_gamma)


def normal(p: d.Normal, m: Array) -> Array:
    """Return E|x − m| of a normal."""
    z = (p.loc - m) / p.scale
    return p.scale * (2 * norm.pdf(z) + z * special.erf(z * math.sqrt(0.5)))


def logistic(p: d.Logistic, m: Array) -> Array:
    """Return E|x − m| of a logistic distribution."""
    z = jnp.abs(p.loc - m) / p.scale
    return p.scale * (z + 2 * jnp.log1p(jnp.exp(-z)))


def gumbel(p: d.Gumbel, m: Array) -> Array:
    """Return E|x − m| of a Gumbel distribution: z − γ + 2 Ein(e^{−z})."""
    z = (m - p.loc) / p.scale
    # Ein(x) = E₁(x) + log x + γ; near 0 its series.
    x = jnp.exp(jnp.minimum(-z, jnp.full_like(z, 30)))
    near = x < 1
    small, large = jnp.where(near, x, jnp.zeros_like(x)), jnp.where(near, jnp.ones_like(x), x)
    total = jnp.zeros_like(x)
    for n in range(18, 0, -1):
        total = small * ((-1) ** (n + 1) / (n * math.factorial(n)) + total)
    beyond = jnp.where(near, jnp.ones_like(z), z)
    upper = z - EULER + 2 * total
    lower = EULER - beyond + 2 * special.exp1(large)
    return p.scale * jnp.where(near, upper, lower)


def interval(m: Array, low: Array, high: Array, tilt: Array) -> Array:
    """Return E|x − m| of density ∝ e^{tilt (x − low) / (high − low)} on [low, high]."""
    cumulants = tilted(low, high, tilt)
    mean = cumulants.place.value + cumulants.shift
    width = high - low
    u = jnp.clip((m - low) / width, 0, 1)
    # With the tilt downwards no exponential grows.
    up, x = tilt > 0, jnp.abs(tilt)
    v = jnp.where(up, 1 - u, u)
    z = -x * v
    near = jnp.abs(z) < 1e-4
    safe = jnp.where(near, jnp.ones_like(z), z)
    second = jnp.where(near, 0.5 + z / 6, expm1_minus(safe) / (safe * safe))
    below = v * v * second * jnp.exp(0.5 * x - log_sinhc(0.5 * x))  # E (v − X)⁺
    inside = low + u * width
    distance = jnp.where(up, inside - mean, mean - inside)
    return jnp.abs(m - inside) + distance + 2 * width * below


def log_normal(p: d.LogNormal, m: Array) -> Array:
    """Return E|x − m| of a log-normal."""
    inside = m > 0
    z = (jnp.log(jnp.where(inside, m, jnp.ones_like(m))) - p.loc) / p.scale
    mean = jnp.exp(p.loc + 0.5 * p.scale * p.scale)
    erf = [special.erf(x * math.sqrt(0.5)) for x in (z, z - p.scale)]
    return jnp.where(inside, m * erf[0] - mean * erf[1], mean - m)


def pareto(p: d.Pareto, m: Array) -> Array:
    """Return E|x − m| of a Pareto distribution, concentration > 1."""
    c = jnp.where(p.concentration > 1, p.concentration, jnp.full_like(p.concentration, 2))
    mean = c * p.scale / (c - 1)
    log = jnp.log(jnp.maximum(m / p.scale, jnp.ones_like(m)))
    return jnp.where(log > 0, m - mean + 2 * p.scale / (c - 1) * jnp.exp((1 - c) * log), mean - m)


def inverse_gaussian(p: d.InverseGaussian, m: Array) -> Array:
    """Return E|x − m| of an inverse Gaussian distribution."""
    inside = m > 0
    x = jnp.where(inside, m, p.loc)
    root, u = jnp.sqrt(p.concentration / x), x / p.loc
    lower, upper = root * (u - 1), root * (u + 1)
    # F(x) = Φ(lower) + R and E x 1{x < m} = loc (Φ(lower) − R), R = e^{2 λ/μ} Φ(−upper).
    mirrored = norm.pdf(lower) * mills(upper)  # 2 λ/μ is half the difference of their squares
    erf = special.erf(lower * math.sqrt(0.5))
    return jnp.where(inside, (x - p.loc) * erf + 2 * (x + p.loc) * mirrored, p.loc - m)


def generalized_normal(p: d.GeneralizedNormal, m: Array) -> Array:
    """Return E|x − m| of a generalized normal distribution."""
    a = 1 / p.power
    far = jnp.abs(m - p.loc)
    moved = far > 0
    z = (jnp.where(moved, far, p.scale) / p.scale) ** p.power
    mean = p.scale * jnp.exp(special.gammaln(2 * a) - special.gammaln(a))
    return jnp.where(moved, far * special.gammainc(a, z) + mean * special.gammaincc(2 * a, z), mean)


def power_of_gamma(form: LogGamma, m: Array) -> Array:
    """Return E|x − m| of a power of a Gamma variable: |m − mean| and twice E beyond m."""
    a, k = form.concentration, form.power
    inverse = jnp.where(a + 1 / k > 0, jnp.broadcast_to(1 / k, a.shape), jnp.ones_like(a))
    log_rest, mean_rest, variance_rest = stirling(a)
    growth = log_gamma_cumulant(a, inverse)[0] - inverse * (0.5 / a + mean_rest)
    mean = jnp.exp(growth) * (jnp.exp(form.place.value) if form.place.antilog is None else form.place.antilog)
    inside = m > 0
    x = jnp.where(inside, m, mean)
    start = Place(jnp.log(x), x).minus(form.place)
    side = jnp.where(x > mean, jnp.ones_like(x), -jnp.ones_like(x))
    power = jnp.broadcast_to(k, a.shape)
    log_norm = 0.5 * jnp.log(a) + jnp.log(jnp.abs(power)) - HALF_LOG_TAU - log_rest

    def beyond(u: Array, column: Callable[[Array], Array]) -> Array:
        z = jnp.minimum(column(power) * (column(start) + u), jnp.full_like(u, 60))
        log_density = column(log_norm) - column(a) * expm1_minus(z)
        return jnp.exp(log_density + jnp.maximum(u, jnp.zeros_like(u))) * -jnp.expm1(-jnp.abs(u))

    scale = jnp.sqrt((1 + 0.5 / a) / a + variance_rest) / jnp.abs(power)
    return jnp.where(inside, jnp.abs(x - mean) + 2 * x * _sum_beyond(beyond, side, scale), mean - m)


def beta(p: d.Beta, m: Array) -> Array:
    """Return E|x − m| of a Beta distribution: |m − mean| and twice E beyond m."""
    a, b = p.concentration1, p.concentration0
    mean, rest = a / (a + b), b / (a + b)
    inside = (m > 0) & (m < 1)
    x = jnp.where(inside, m, 0.5 * mean)
    start = log_ratio(x, mean) - log_ratio(1 - x, rest)
    side = jnp.where(x > mean, jnp.ones_like(x), -jnp.ones_like(x))
    log_norm = 0.5 * jnp.log(a * rest) - HALF_LOG_TAU - stirling(a)[0] - stirling(b)[0] + stirling(a + b)[0]

    def beyond(u: Array, column: Callable[[Array], Array]) -> Array:
        # Over log odds, those of the mean taken off; a log(x/mean) + b log((1 − x)/rest) is a sum of remainders.
        odds = column(start) + u
        near = jnp.abs(odds) < 1
        change = jnp.expm1(jnp.where(near, odds, jnp.zeros_like(u)))
        share = 1 + column(mean) * change
        first, second = column(rest) * change / share, -column(mean) * change / share
        close = column(a) * log1p_remainders(first)[0] + column(b) * log1p_remainders(second)[0]
        away = column(a) * odds - column(a + b) * jnp.logaddexp(column(jnp.log(mean)) + odds, column(jnp.log(rest)))
        log_density = column(log_norm) + jnp.where(near, -close, away)
        # |e^u − 1| / (1 − x + x e^u)
        decay = jnp.exp(-jnp.abs(u))
        up = jnp.where(u > 0, column(x), 1 - column(x))
        return jnp.exp(log_density) * (1 - decay) / (up + (1 - up) * decay)

    scale = jnp.sqrt(1 / a + 1 / b)
    return jnp.where(inside, jnp.abs(x - mean) + 2 * x * (1 - x) * _sum_beyond(beyond, side, scale), jnp.abs(m - mean))


def _sum_beyond(function: Callable[[Array, Callable[[Array], Array]], Array], side: Array, scale: Array) -> Array:
    """Return ∫ function(u) du from 0 to the side, by the trapezoidal rule in t of |u| = scale · exp(t − e^{−t}).

    Source: H. Takahasi and M. Mori, Double Exponential Formulas for Numerical Integration (1974),
    https://doi.org/10.2977/prims/1195192451
    """
    width = 1 / 8 if scale.dtype.itemsize <= 4 else 1 / 20
    t = np.arange(-4, 7, width)
    steps = np.exp(t - np.exp(-t))

    def column(value: Array) -> Array:
        return jnp.broadcast_to(value[..., None], (*scale.shape, t.size))

    def row(value: np.ndarray) -> Array:
        return jnp.broadcast_to(jnp.asarray(value, scale.dtype), (*scale.shape, t.size))

    values = function(column(side * scale) * row(steps), column)
    return scale * jnp.sum(row(width * steps * (1 + np.exp(-t))) * values, axis=-1)


def mills(x: Array) -> Array:
    """Return Φ(−x) / φ(x) of the standard normal, x > 0: by a continued fraction where that is small."""
    large = x > 4
    y, z = jnp.where(large, x, jnp.full_like(x, 5)), jnp.where(large, jnp.ones_like(x), x)
    fraction = jnp.zeros_like(x)
    for n in range(30, 0, -1):
        fraction = n / (y + fraction)
    direct = math.sqrt(0.5 * math.pi) * special.erfc(z * math.sqrt(0.5)) * jnp.exp(0.5 * z * z)
    return jnp.where(large, 1 / (y + fraction), direct)
