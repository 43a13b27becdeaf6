r"""The von Mises–Fisher distribution that is nearest to a power spherical one around the same direction.

KL of the power spherical distribution of concentration κ from von Mises–Fisher ones is least, B(κ), at the κ* that
gives the same mean, and by a remainder ≥ 0 more elsewhere. Put together of normalizers, B would lose its digits: it
falls as (d² − 1) / 16 κ², they grow as log κ. With s = κ / (κ + d) in d dimensions,

    B = s² (1 − s)² b(s),   κ* = κ / 2 + s e(s)

for smooth b > 0 and e > 0. While tracing, once a dimension, both are found in double precision at Chebyshev points by
trapezia over the logit of y = (1 − cosine) / 2, a Beta variable under the power spherical distribution.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit.divergences._special import is_wide


class Nearest(NamedTuple):
    """KL from the nearest distribution, and by how much its concentration is more than half of the given one."""

    kl: Array
    excess: Array


def _nearest_at(dim: int, concentration: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return κ* and B at some concentrations, in double precision."""
    rest = (dim - 1) / 2
    kappa = concentration[:, None]
    spread = np.sqrt(sum(1 / x + 1 / (x * x) for x in (rest, kappa + rest)))
    reach = 10 * spread + 40 / rest  # on both sides, as what is compared with falls slowly too
    logit = np.log(rest / (kappa + rest)) + reach * np.linspace(-1, 1, 1200)
    log_y, log_rest, y = -np.logaddexp(0, -logit), -np.logaddexp(0, logit), 1 / (1 + np.exp(-logit))

    def normalized(log_weight: np.ndarray) -> np.ndarray:
        shifted = log_weight - log_weight.max(1, keepdims=True)
        log: np.ndarray = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return log

    length = kappa / (kappa + 2 * rest)
    found = length * (dim - length**2) / (1 - length**2)  # near it; from there, Newton's steps between logarithms
    for _ in range(8):
        weight = np.exp(normalized(rest * (log_y + log_rest) - 2 * found * y))
        mean = (weight * y).sum(1, keepdims=True)
        variance = (weight * (y - mean) ** 2).sum(1, keepdims=True)
        found = found * np.exp(np.log(mean * (kappa + 2 * rest) / rest) * mean / (2 * found * variance))
    log_p = normalized(rest * log_y + (kappa + rest) * log_rest)
    gap = kappa * log_rest + 2 * found * y
    gap = gap - (np.exp(log_p) * gap).sum(1, keepdims=True)
    # log of the mean of e^{−gap}, from that of e^{−gap} − 1 + gap, each of which is ≥ 0.
    near = np.abs(gap) < 0.01
    small = np.where(near, gap, 0.0)
    close = np.exp(log_p) * small**2 * (1 / 2 - small / 6 + small**2 / 24 - small**3 / 120 + small**4 / 720)
    far = np.exp(log_p - np.where(near, 0.0, gap)) - np.exp(log_p) * (1 - gap)
    return found[:, 0], np.log1p(np.where(near, close, far).sum(1))


@functools.cache
def _series(dim: int, terms: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the Chebyshev coefficients of b and e on 0 < s < 1."""
    angle = np.pi * (np.arange(terms) + 0.5) / terms
    s, far = np.cos(angle / 2) ** 2, np.sin(angle / 2) ** 2
    kappa = dim * s / far
    nearest, least = _nearest_at(dim, kappa)
    waves = np.cos(np.arange(terms)[:, None] * angle) * 2 / terms
    waves[0] /= 2
    b, e = (waves @ x for x in (least / (s * far) ** 2, (nearest - kappa / 2) / s))
    return tuple(b.tolist()), tuple(e.tolist())


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))  # derived, the recurrence would keep all its steps
def _chebyshev(coefficients: tuple[float, ...], x: Array) -> Array:
    """Return Σ c_n T_n(x), by Clenshaw's recurrence."""
    one, two = jnp.zeros_like(x), jnp.zeros_like(x)
    for c in reversed(coefficients[1:]):
        one, two = c + 2 * x * one - two, one
    return coefficients[0] + x * one - two


@_chebyshev.defjvp
def _chebyshev_jvp(coefficients: tuple[float, ...], primals: Any, tangents: Any) -> tuple[Array, Array]:
    slope = tuple(np.polynomial.chebyshev.chebder(coefficients).tolist())
    return _chebyshev(coefficients, *primals), _chebyshev(slope, *primals) * tangents[0]


def nearest_fisher(concentration: Array, dim: int) -> Nearest:
    """Return how far the nearest von Mises–Fisher distribution is, and where."""
    b, e = _series(dim, 64 if is_wide(concentration) else 32)
    s, far = concentration / (concentration + dim), dim / (concentration + dim)
    x = s - far
    return Nearest(jnp.square(s * far) * _chebyshev(b, x), s * _chebyshev(e, x))
