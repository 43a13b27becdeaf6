"""What a first distribution on an interval can say of itself in closed form; see `_expectations.py`."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array

from vi_kit.divergences import _remainders as r
from vi_kit.divergences import distributions as d
from vi_kit.divergences._expectations import Cumulants, Place, Power, at_log
from vi_kit.kl._compensated import log_ratio


def log_beta(a: Array, b: Array) -> Cumulants:
    """Return the cumulants of the logarithm of a Beta variable."""
    total = a + b
    (ra, sa, ua), (rb, sb, _), (rt, st, ut) = r.stirling(a), r.stirling(b), r.stirling(total)
    shift = -0.5 * (b / a) / total - (sa - st)
    spread = 0.5 * (1 / a + 1 / total) + a * total / b * (ua - ut)
    itself = _beta_negentropy(a, b, total, ra + rb - rt, sa, sb, st)

    def cumulant(t: Power) -> tuple[Array, Array]:
        safe = jnp.where(a + t > 0, a, 1 + jnp.abs(t))
        first, second = r.log_gamma_cumulant(safe, t), r.log_gamma_cumulant(safe + b, t)
        return first[0] - second[0], first[1] - second[1]

    return Cumulants(
        at_log(a / total),
        shift,
        b / (a * total) * (1 + spread),
        itself + 0.5 * (jnp.log1p(1 / total) + jnp.log1p(spread)) + shift,
        cumulant,
        lambda t: a + t,
    )


def _beta_negentropy(a: Array, b: Array, total: Array, rest: Array, sa: Array, sb: Array, st: Array) -> Array:
    terms = (1 / total - 0.5 / a - 0.5 / b) + (a - 1) * sa + (b - 1) * sb - (total - 2) * st
    return -0.5 * jnp.log1p(1 / total) - rest - terms


def beta(p: d.Beta) -> Cumulants:
    """Return the cumulants of a Beta distribution."""
    a, b = p.concentration1, p.concentration0
    total = a + b
    (ra, sa, _), (rb, sb, _), (rt, st, _) = r.stirling(a), r.stirling(b), r.stirling(total)
    negentropy = _beta_negentropy(a, b, total, ra + rb - rt, sa, sb, st)
    variance = a / total * (b / total) / (total + 1)
    return Cumulants(Place(a / total), jnp.zeros_like(a), variance, negentropy)


def logit_beta(p: d.Beta) -> Cumulants:
    """Return the cumulants of the log odds of a Beta variable."""
    a, b = p.concentration1, p.concentration0
    (ra, sa, ua), (rb, sb, ub), (rt, st, _) = r.stirling(a), r.stirling(b), r.stirling(a + b)
    # In units of 1/a + 1/b.
    unit = a * b / (a + b)
    spread = unit * (0.5 / (a * a) + 0.5 / (b * b) + ua + ub)
    negentropy = 0.5 * jnp.log1p(spread) - (ra + rb - rt) - (a * sa + b * sb - (a + b) * st)
    return Cumulants(Place(log_ratio(a, b)), (0.5 / b - 0.5 / a) + sb - sa, (1 + spread) / unit, negentropy)


def tilted(low: Array, high: Array, tilt: Array, *, place: Place | None = None) -> Cumulants:
    """Return the cumulants of density ∝ e^{tilt (y − low) / (high − low)} on [low, high].

    Args:
        low: lower end.
        high: upper end.
        tilt: change of the log density from one end to the other.
        place: that of the upper end, where the tilt is upwards.
    """
    up = tilt > 0
    width = jnp.where(up, high - low, low - high)
    x = jnp.abs(tilt)
    # From the heavier end, in units of the width: mean, its distance from the middle, variance, log normalizer.
    near = x < 0.5
    y, z = jnp.where(near, x, jnp.zeros_like(x)), jnp.where(near, jnp.ones_like(x), x)
    square = y * y
    series, slope = jnp.zeros_like(x), jnp.zeros_like(x)
    for n, c in reversed(list(enumerate((1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160)))):
        series, slope = c + square * series, (2 * n + 1) * c + square * slope
    decay, rest = jnp.exp(-z), -jnp.expm1(-z)
    mean = jnp.where(near, 0.5 - y * series, 1 / z - decay / rest)
    off = jnp.where(near, y * series, 0.5 - (1 / z - decay / rest))
    variance = jnp.where(near, slope, 1 / (z * z) - decay / (rest * rest))
    log_normalizer = _log_decay(x)

    def cumulant(t: Power) -> tuple[Array, Array]:
        tau = -t * width
        middle = r.log_sinhc(0.5 * (x - tau)) - r.log_sinhc(0.5 * x) + tau * off
        value = jnp.where(x < 4, middle, _log_decay(x - tau) - log_normalizer - tau * mean)
        return value, value - 0.5 * tau * tau * variance

    end = Place(jnp.where(up, high, low)) if place is None else place
    negentropy = r.HALF_LOG_TAU_E + 0.5 * jnp.log(variance) - log_normalizer - x * mean
    return Cumulants(end, -width * mean, width * width * variance, negentropy, cumulant)


def log_uniform(p: d.Uniform) -> Cumulants:
    """Return the cumulants of the logarithm of a uniform variable on [low, high], low ≥ 0."""
    high = jnp.where(p.high > 0, p.high, jnp.ones_like(p.high))
    share = jnp.clip(p.low / high, 0, 1 - 1e-7)
    close = share > 0.1
    # Density ∝ e^y on [log low, log high].
    width = log_ratio(high, high * jnp.where(close, share, jnp.full_like(share, 0.5)))
    near = tilted(-width, jnp.zeros_like(width), width, place=at_log(high))
    # Else from the ends' own powers: no logarithm of a low end of 0, where the rest of it is 0 too.
    rho = jnp.where(close, jnp.full_like(share, 0.5), share) + jnp.where(share > 0, 0, _TINY[high.dtype.itemsize > 4])
    log, rest = jnp.log(rho), 1 - rho
    mean = -1 - rho * log / rest
    variance = (2 - rho * (log * (log - 2) + 2)) / rest - mean * mean
    entropy = jnp.log(rest) - mean

    def cumulant(t: Power) -> tuple[Array, Array]:
        power = jnp.broadcast_to(jnp.asarray(t + 1, rho.dtype), rho.shape)
        flat = power == 0
        harmless = jnp.where(flat | ((share <= 0) & (power < 0)), jnp.ones_like(power), power)
        mass = jnp.where(flat, -log, -jnp.expm1(harmless * log) / harmless)
        value = jnp.log(mass / rest) - t * mean
        pair = value, value - 0.5 * t * t * variance
        first, second = (jnp.where(close, a, b) for a, b in zip(near.cumulant(t), pair, strict=True))
        return first, second

    return Cumulants(
        near.place,
        jnp.where(close, near.shift, mean),
        jnp.where(close, near.variance, variance),
        jnp.where(close, near.negentropy, r.HALF_LOG_TAU_E + 0.5 * jnp.log(variance) - entropy),
        cumulant,
        lambda t: jnp.where(share > 0, jnp.ones_like(share), 1 + t),
    )


_TINY = (1e-37, 1e-300)


def _log_decay(x: Array) -> Array:
    """Return log((1 − e^{−x}) / x)."""
    far = x > 4
    y = jnp.where(far, x, jnp.full_like(x, 4))
    return jnp.where(far, jnp.log1p(-jnp.exp(-y)) - jnp.log(y), r.log_sinhc(0.5 * x) - 0.5 * x)
