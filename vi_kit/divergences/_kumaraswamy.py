"""KL of Kumaraswamy distributions, by a fixed rule: the mean of log(1 − x^c) has no closed form for every c.

With x from Kumaraswamy(a, b), y = −b log(1 − x^a) is exponential of rate 1. Both logarithms of which the densities
are made, log x = −λ/a and T = log(1 − x^a) = −y/b, are known at the points of y.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit.divergences._bounded import least_zero
from vi_kit.divergences._dirichlet import beta_beta
from vi_kit.divergences._support import where_contained
from vi_kit.divergences.distributions import Beta, Kumaraswamy, Uniform
from vi_kit.kl._categorical import evaluate
from vi_kit.kl._compensated import log_ratio
from vi_kit.kl._core import Rows, divergence

_NEAR = 0.02  # variance of log(p/q) up to which the points' probabilities are compared


def _points(dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Return points of an exponential variable and their log weights: trapezia in σ, where y = e^{σ − e^{−σ}}."""
    step, low, high = (0.14, -3.2, 3.8) if dtype.itemsize <= 4 else (0.05, -3.9, 4.6)
    sigma = np.arange(low, high, step)
    log_y = sigma - np.exp(-sigma)
    y = np.exp(log_y)
    log_weight = log_y - y + np.log1p(np.exp(-sigma))
    return y, log_weight - np.log(np.sum(np.exp(log_weight)))


def _log1mexp(x: Array) -> Array:
    """Return log(1 − e^{−x}) for x > 0."""
    small, half = x < 0.7, jnp.full_like(x, 0.7)
    near = jnp.log(-jnp.expm1(-jnp.where(small, x, half)))
    return jnp.where(small, near, jnp.log1p(-jnp.exp(-jnp.where(small, half, x))))


def _mean(b: Array, more: Array, first: Array, second: Array, constant: Array) -> Array:
    """Return the mean of log p − log q for log q = first · log x^a + second · log(1 − x^c) + …, with c/a − 1 = more.

    Args:
        b: second parameter of p.
        more: c/a − 1.
        first: the factor of log x in q less that in p, in units of a.
        second: the second parameter of q.
        constant: what does not depend on x.
    """
    y, log_weight = (jnp.asarray(v, b.dtype).reshape((1,) * b.ndim + (-1,)) for v in _points(b.dtype))
    b, more, first, second, constant = (v[..., None] for v in (b, more, first, second, constant))
    t = y / b
    deep = t > (15.0 if b.dtype.itemsize <= 4 else 34.0)  # x is 1 there: log(1 − x^c) − T is log(c/a)
    t_safe = jnp.where(deep, jnp.ones_like(t), t)
    rest = -_log1mexp(t_safe)  # λ = −log x^a
    close = jnp.abs(more) < 0.5
    small = jnp.where(close, more, jnp.zeros_like(more))
    near = -jnp.log1p(-jnp.expm1(-small * rest) * jnp.expm1(t_safe))
    far = -t_safe - _log1mexp(jnp.where(close, jnp.ones_like(more), 1 + more) * rest)
    turn = jnp.where(deep, -jnp.log1p(more), jnp.where(close, near, far))
    rest = jnp.where(deep, jnp.exp(-jnp.where(deep, t, jnp.ones_like(t))), rest)
    gap = constant + first * rest - (b - second) * t + (second - 1) * turn
    weight = jnp.exp(log_weight)
    mean = jnp.sum(weight * gap, axis=-1)
    near_q = jnp.sum(weight * jnp.square(gap - mean[..., None]), axis=-1) < _NEAR
    shared = jnp.where(near_q[..., None], gap, jnp.zeros_like(gap))
    log_weight = jnp.broadcast_to(log_weight, gap.shape)
    rows = Rows(log_weight, log_weight - shared, jnp.ones((1,) * gap.ndim, gap.dtype), (gap.ndim - 1,), None)
    return jnp.where(near_q, divergence(evaluate, rows, difference=jax.lax.stop_gradient(shared)), mean)


def kumaraswamy(p: Kumaraswamy, q: Kumaraswamy) -> Array:
    """Return KL between Kumaraswamy distributions."""
    more = (q.concentration1 - p.concentration1) / p.concentration1
    b, second = p.concentration0, q.concentration0
    constant = log_ratio(p.concentration1, q.concentration1) + log_ratio(b, second)
    return _mean(b, more, more, second, constant)


def kumaraswamy_beta(p: Kumaraswamy, q: Beta) -> Array:
    """Return KL of a Kumaraswamy from a beta distribution."""
    a, b = p.concentration1, p.concentration0
    one = jnp.ones_like(a)
    # log B(α, β), from KL(Beta(1, 1)‖q): jax.scipy's betaln is right to 1e-7 only, in float64 too.
    log_beta = beta_beta(Beta(one, one), q) - ((q.concentration1 - 1) + (q.concentration0 - 1))
    constant = jnp.log(a) + jnp.log(b) + log_beta
    return _mean(b, (1 - a) / a, (q.concentration1 - a) / a, q.concentration0, constant)


def kumaraswamy_uniform(p: Kumaraswamy, q: Uniform) -> Array:
    """Return KL of a Kumaraswamy from a uniform distribution, by way of the uniform one on (0, 1)."""
    one = jnp.ones_like(p.concentration1)
    left, right = -q.low, q.high - 1
    value = kumaraswamy(p, Kumaraswamy(one, one)) + jnp.log1p(least_zero(left) + least_zero(right))
    return where_contained(value, left, right)
