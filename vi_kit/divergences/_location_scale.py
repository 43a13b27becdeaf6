"""KL within families of a location and a scale, and within the Pareto and inverse Gaussian ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import digamma
from jaxtyping import Array

from vi_kit.divergences._gamma import _powers
from vi_kit.divergences._remainders import log_gamma_cumulant, stirling
from vi_kit.divergences._special import lgamma_remainder, minus_log_remainder, stirling_remainder, x_log_x_remainder
from vi_kit.divergences._support import where_contained
from vi_kit.divergences.distributions import (
    Cauchy,
    GeneralizedExtremeValue,
    GeneralizedNormal,
    Gumbel,
    HalfCauchy,
    InverseGaussian,
    Laplace,
    Logistic,
    Normal,
    Pareto,
    StudentT,
)
from vi_kit.kl._compensated import expm1_minus, log_ratio


def laplace(p: Laplace, q: Laplace) -> Array:
    """Return KL between Laplace distributions."""
    shift = p.loc - q.loc
    # Not abs: its derivative at 0 would make the second one of KL 0 there.
    distance = jnp.where(shift < 0, -shift, shift) / p.scale
    log = log_ratio(p.scale, q.scale)
    return expm1_minus(log) + jnp.exp(log) * expm1_minus(-distance)


def gumbel(p: Gumbel, q: Gumbel) -> Array:
    """Return KL between Gumbel distributions: e^{−y} is a Gamma(1, 1) variable."""
    one = jnp.ones_like(p.scale)
    return _powers(one, one, (q.loc - p.loc) / q.scale, (p.scale - q.scale) / q.scale)


def cauchy(p: Cauchy, q: Cauchy) -> Array:
    """Return KL between Cauchy distributions, which is symmetric."""
    return _cauchy(log_ratio(p.scale, q.scale), ((p.loc - q.loc) / p.scale) * ((p.loc - q.loc) / q.scale))


def half_cauchy(p: HalfCauchy, q: HalfCauchy) -> Array:
    """Return KL between half-Cauchy distributions: that of the Cauchy ones around 0."""
    return _cauchy(log_ratio(p.scale, q.scale), jnp.zeros_like(p.scale))


def _cauchy(log: Array, square: Array) -> Array:
    ratio = jnp.sinh(0.5 * log)
    return jnp.log1p(ratio * ratio + 0.25 * square)


def pareto(p: Pareto, q: Pareto) -> Array:
    """Return KL between Pareto distributions, +inf where p begins below q."""
    log = jnp.where(p.scale >= q.scale, log_ratio(p.scale, q.scale), jnp.zeros_like(p.scale))
    shape = expm1_minus(log_ratio(q.concentration, p.concentration))
    return where_contained(shape + q.concentration * log, p.scale - q.scale)


def inverse_gaussian(p: InverseGaussian, q: InverseGaussian) -> Array:
    """Return KL between inverse Gaussian distributions."""
    shift = (p.loc - q.loc) / q.loc
    shape = expm1_minus(log_ratio(q.concentration, p.concentration))
    return 0.5 * (shape + q.concentration / p.loc * (shift * shift))


def generalized_normal(p: GeneralizedNormal, q: GeneralizedNormal) -> Array:
    """Return KL between generalized normals around one point: |x − loc|^power is a Gamma(1/power) variable."""
    power_change = (q.power - p.power) / p.power
    first, second, change = 1 / p.power, 1 / q.power, -power_change / q.power
    # lgamma(a + q's power / p's), a log moment, is its tangent at lgamma(a + 1) and this.
    bend = lgamma_remainder(first + 1 + power_change, first + 1, power_change)
    log_mean = q.power * log_ratio(p.scale, q.scale) + log_ratio(q.power, p.power)
    log_mean = log_mean + power_change * digamma(first + 1) + bend
    shapes = stirling_remainder(second, first, change) - minus_log_remainder(second, first, change)
    return second * (expm1_minus(log_mean) + bend) + shapes


def normal_generalized_normal(p: Normal, q: GeneralizedNormal) -> Array:
    """Return KL of a normal from a generalized normal around the same point."""
    return generalized_normal(GeneralizedNormal(p.loc, math.sqrt(2) * p.scale, jnp.full_like(p.scale, 2)), q)


def laplace_generalized_normal(p: Laplace, q: GeneralizedNormal) -> Array:
    """Return KL of a Laplace distribution from a generalized normal around the same point."""
    return generalized_normal(GeneralizedNormal(p.loc, p.scale, jnp.ones_like(p.scale)), q)


# --- by sums over fixed nodes ----------------------------------------------------------------------------------------
# The trapezoidal rule converges geometrically where the integrand is analytic in a strip around the real line:
# L. N. Trefethen and J. A. C. Weideman, The exponentially convergent trapezoidal rule (2014),
# https://doi.org/10.1137/130932132.


_NEAR = 0.1


def _nodes(low: float, high: float, step: float, like: Array) -> Array:
    nodes = jnp.asarray(np.arange(low, high + 0.5 * step, step), like.dtype)
    return jnp.broadcast_to(nodes, (*like.shape, nodes.size))


def _column(value: Array, nodes: Array) -> Array:
    return jnp.broadcast_to(value[..., None], nodes.shape)


def _mean_gap(mass: Array, gap: Array, plain: Array | None = None) -> Array:
    """Return the mean of gap = log p − log q, or a value of it that is better where that is not small.

    Where it is small, q/p − 1 has the mean 0 on these nodes too: then the mean is log(1 + mean φ(mean gap − gap)), of
    terms that are not negative, and a constant in the gap does not matter.
    """
    mean = jnp.sum(mass * gap, axis=-1) if plain is None else plain
    near = mean < _NEAR
    share = mass / jnp.sum(mass, axis=-1, keepdims=True)
    counts = _column(near, gap) & (mass > 10 * float(np.finfo(mass.dtype).tiny))
    gap = jnp.where(counts, gap, jnp.zeros_like(gap))
    center = jnp.sum(share * gap, axis=-1)
    return jnp.where(near, jnp.log1p(jnp.sum(share * expm1_minus(_column(center, gap) - gap), axis=-1)), mean)


def logistic(p: Logistic, q: Logistic) -> Array:
    """Return KL between logistic distributions, by a sum over the narrower one's logits.

    By parts twice, E 2 log cosh((r z + d) / 2) over a standard logistic z is r times the same of 1/r and −d/r.
    """
    ratio = p.scale / q.scale
    wide = ratio > 2
    change = jnp.where(wide, (q.scale - p.scale) / p.scale, (p.scale - q.scale) / q.scale)
    shift = jnp.where(wide, (q.loc - p.loc) / p.scale, (p.loc - q.loc) / q.scale)
    log = log_ratio(p.scale, q.scale)
    nodes = _nodes(-22, 22, 0.5, ratio) if ratio.dtype.itemsize <= 4 else _nodes(-42, 42, 0.25, ratio)
    step = 0.5 if ratio.dtype.itemsize <= 4 else 0.25
    moved = _column(change, nodes) * nodes + _column(shift, nodes)
    near = jnp.abs(moved) < 1
    small, large = jnp.where(near, moved, jnp.zeros_like(moved)), jnp.where(near, jnp.zeros_like(moved), moved)
    quarter = jnp.sinh(0.25 * small)
    close = jnp.log1p(2 * quarter * quarter + jnp.tanh(0.5 * nodes) * jnp.sinh(0.5 * small))
    far = _log_cosh(0.5 * (nodes + large)) - _log_cosh(0.5 * nodes)
    gap = 2 * jnp.where(near, close, far) + _column(jnp.where(wide, log, -log), nodes)
    mass = step * jnp.exp(-2 * (_log_cosh(0.5 * nodes) + math.log(2)))
    value = _mean_gap(mass, gap)
    return jnp.where(wide, ratio * value + ratio * (2 - log) - (2 + log), value)


def _log_cosh(x: Array) -> Array:
    size = jnp.abs(x)
    sinh = jnp.sinh(0.5 * jnp.where(size < 1, x, jnp.zeros_like(x)))
    return jnp.where(size < 1, jnp.log1p(2 * sinh * sinh), size + jnp.log1p(jnp.exp(-2 * size)) - math.log(2))


def student_t(p: StudentT, q: StudentT) -> Array:
    """Return KL between Student's t, by a sum over w of y = √df sinh w, p's standard variable.

    Where q is too narrow for the nodes, E log(1 + y′²) = 2 Re E log(1 − i y′) is taken above the real line, in a strip
    in which that is smooth however narrow q is.
    """
    log_scales, log_dfs = log_ratio(p.scale, q.scale), log_ratio(p.df, q.df)
    constant = _student_rest(p.df) - _student_rest(q.df) - log_scales
    count, digits = (257, 17.0) if p.df.dtype.itemsize <= 4 else (769, 37.0)
    reach = digits / p.df + jnp.log1p(jnp.sqrt(-jnp.expm1(-2 * digits / p.df)))  # cosh(reach)^{−df} is e^{−digits}
    nodes = _nodes(-1, 1, 2 / (count - 1), p.df)
    step = 2 / (count - 1) * _column(reach, nodes)
    w = _column(reach, nodes) * nodes
    df, other, norm = (_column(x, nodes) for x in (p.df, q.df, _student_rest(p.df) + 0.5 * jnp.log(0.5 * p.df)))
    change = _column(jnp.expm1(log_scales + 0.5 * log_dfs), nodes)  # y′ = (1 + change) sinh w + shift
    shift = _column((p.loc - q.loc) / (q.scale * jnp.sqrt(q.df)), nodes)

    log_cosh, size = _log_cosh(w), jnp.abs(w)
    decay = jnp.exp(-size)
    tanh, sech = jnp.tanh(w), 2 * decay / (1 + decay * decay)
    moved = change * tanh + shift * sech
    square = moved * (2 * tanh + moved)  # (y′² − y²) / (1 + y²)
    near = jnp.abs(square) < 0.5
    far = jnp.log(jnp.square(jnp.where(near, jnp.ones_like(w), tanh + moved)) + sech * sech)
    log_ratios = jnp.where(near, jnp.log1p(jnp.where(near, square, jnp.zeros_like(w))), far)
    gap = _column(constant, nodes) + 0.5 * (other + 1) * log_ratios + (other - df) * log_cosh
    mass = step * jnp.exp(norm - df * log_cosh) / math.sqrt(math.pi)

    height = jnp.minimum(0.8 * jax.lax.rsqrt(df), 0.25 * math.pi)
    sine, cosine = jnp.sin(height), jnp.cos(height)
    sinh, cosh = jnp.sign(w) * 0.5 * -jnp.expm1(-2 * size), 0.5 * (1 + decay * decay)  # in units of e^|w|
    real, imaginary = decay + (1 + change) * cosh * sine, (1 + change) * sinh * cosine + shift * decay
    log = size + 0.5 * jnp.log(real * real + imaginary * imaginary)
    angle = df * jnp.arctan2(sinh * sine, cosh * cosine)
    log_above = jnp.log1p(-jnp.square(sine * sech))  # of |cosh(w + i height) / cosh w|²
    above = jnp.cos(angle) * log - jnp.sin(angle) * jnp.arctan2(imaginary, real)
    terms = (other + 1) * jnp.exp(-0.5 * df * log_above) * above - (df + 1) * log_cosh + _column(constant, nodes)
    narrow = (1 + change) * step > 0.3
    return _mean_gap(mass, gap, jnp.sum(mass * jnp.where(narrow, terms, gap), axis=-1))


def _student_rest(df: Array) -> Array:
    """Return log Γ((df + 1)/2) − log Γ(df/2) − ½ log(df/2)."""
    half = 0.5 * df
    return log_gamma_cumulant(half, 0.5)[0] - 0.5 * (0.5 / half + stirling(half)[1])


def generalized_extreme_value(p: GeneralizedExtremeValue, q: GeneralizedExtremeValue) -> Array:
    """Return KL between extreme value distributions of one shape, by a sum over p's standard Gumbel variable.

    It is +inf where p reaches beyond the end that the support of q has.
    """
    change, shift = (p.scale - q.scale) / q.scale, (p.loc - q.loc) / q.scale
    end = p.concentration * shift - change  # 1 + concentration · (x − loc) / scale of q, at the end of p's support
    size = 1 + jnp.abs(change) + jnp.abs(p.concentration * shift)
    margin = end + 8 * float(np.finfo(end.dtype).eps) * jax.lax.stop_gradient(
        size
    )  # equal ends are rarely so to the last digit
    margin = jnp.where(p.concentration == 0, jnp.ones_like(end), margin)
    inside = margin >= 0
    scales = log_ratio(p.scale, jnp.where(inside, q.scale, p.scale))
    change, shift = (jnp.where(inside, x, jnp.zeros_like(x)) for x in (change, shift))
    y = _nodes(-4.25, 40 if end.dtype.itemsize <= 4 else 80, 0.25, end)
    shape = _column(p.concentration, y)
    moved = _column(change, y) * y * _over(jnp.expm1, -shape * y, 1 / 2, 1 / 6)
    moved = moved + _column(shift, y) * jnp.exp(-shape * y)
    share = shape * moved
    share = jnp.where(share > -1, share, jnp.zeros_like(share))
    lift = moved * _over(jnp.log1p, share, -1 / 2, 1 / 3)
    gap = (1 + shape) * lift + jnp.exp(-y) * jnp.expm1(-lift) - _column(scales, y)
    weights = jnp.full_like(y, 0.25).at[..., np.array([0, -1])].set(0.125)  # what q has may end there
    mass = weights * jnp.exp(-y - jnp.exp(-y))
    value = _mean_gap(mass, gap)
    # And what the masses beyond the last nodes add: q has some also where p has none.
    some, other = (jnp.exp(-jnp.exp(-x[..., 0])) - jnp.expm1(-jnp.exp(-x[..., -1])) for x in (y, y + lift))
    other = jnp.where(value < _NEAR, other, some)
    rest = x_log_x_remainder(some, other, some - other) + x_log_x_remainder(1 - some, 1 - other, other - some)
    return where_contained(value + rest, margin)


def _over(function: Callable[[Array], Array], x: Array, first: float, second: float) -> Array:
    """Return function(x) / x of what is x (1 + first x + second x² + …)."""
    near = jnp.abs(x) < 1e-3
    safe = jnp.where(near, jnp.ones_like(x), x)
    return jnp.where(near, 1 + x * (first + second * x), function(safe) / safe)
