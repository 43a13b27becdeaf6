r"""KL between distributions of directions.

A(κ) is the logarithm of the mean of e^{κ x₁} over the unit sphere in d dimensions, 0 at κ = 0. With ν = d/2 − 1 and
the mean length R = A′ = I_{ν+1}/I_ν = κ / q_ν, the backward recurrences

    q_ν = 2 (ν + 1) + κ² / q_{ν+1},   A_ν = A_{ν+1} + log(q_ν / 2 (ν + 1)),   A_ν″ = (2 (ν + 1) − κ² A_{ν+1}″) / q_ν²

are stable, and start at an order that is large enough for Debye's expansion, which holds for every κ:

    A_N(κ) = ρ − N log(N + ρ) − ½ log ρ + Σ_k L_k(t) / N^k + const,   ρ² = N² + κ²,   t = N / ρ.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit.divergences._dirichlet import beta_kl
from vi_kit.divergences._power_spherical import nearest_fisher
from vi_kit.divergences._special import is_wide
from vi_kit.divergences.distributions import PowerSpherical, SphericalUniform, VonMises, VonMisesFisher


@functools.cache
def _debye(terms: int, order: float) -> tuple[float, ...]:
    """Return Σ_{k ≤ terms} L_k(t) / order^k as coefficients of t⁰, t¹, …, exactly up to their rounding."""
    size = 3 * terms + 1
    found = [[Fraction(0)] * size for _ in range(terms + 1)]
    found[0][0] = Fraction(1)
    for k in range(terms):
        for i, c in enumerate(found[k]):
            if c:  # U_{k+1} = ½ t² (1 − t²) U_k′ + ⅛ ∫₀ᵗ (1 − 5 s²) U_k ds
                found[k + 1][i + 1] += c * (Fraction(i, 2) + Fraction(1, 8 * (i + 1)))
                found[k + 1][i + 3] -= c * (Fraction(i, 2) + Fraction(5, 8 * (i + 3)))

    def product(a: list[Fraction], b: list[Fraction]) -> list[Fraction]:
        return [sum((a[j] * b[i - j] for j in range(i + 1)), Fraction(0)) for i in range(size)]

    logs: list[list[Fraction]] = [[Fraction(0)] * size]
    for k in range(1, terms + 1):
        parts = [product(logs[j], found[k - j]) for j in range(1, k)]
        known = [sum((j * x for j, x in enumerate(column, 1)), Fraction(0)) / k for column in zip(*parts, strict=True)]
        logs.append([c - (known[i] if known else 0) for i, c in enumerate(found[k])])
    return tuple(float(sum(log[i] / Fraction(order) ** k for k, log in enumerate(logs))) for i in range(size))


class _Sphere:
    """A, A′ and A″ of the sphere in `dim` dimensions."""

    def __init__(self, dim: int, like: Array) -> None:
        wide = is_wide(like)
        self.dim = dim
        order, first, terms = dim / 2 - 1, 18 if wide else 6, 8 if wide else 4
        self.steps = [2 * (order + j + 1) for j in range(max(0, int(np.ceil(first - order))))]
        self.top = order + len(self.steps)
        self.debye = _debye(terms, self.top)
        nodes, weights = np.polynomial.legendre.leggauss(8 if wide else 5)
        self.nodes, self.weights = (1 + nodes) / 2, weights / 2
        self.reach = 2 * (order + 1)

    def _series(self, t: Array, power: int) -> Array:
        """Apply t d/dt that many times to the series."""
        total = jnp.zeros_like(t)
        for i, c in reversed(list(enumerate(self.debye))):
            total = c * i**power + t * total
        return total

    def slope(self, k: Array) -> tuple[Array, list[Array]]:
        """Return q − κ, from which A′ = κ / q and 1 − A′ = (q − κ) / q, and q of the orders above, from the top."""
        n, rho = self.top, jnp.sqrt(self.top**2 + k * k)
        c = -(0.5 + self._series(n / rho, 1)) / (rho * rho)
        excess = (n + n * n / (rho + k) - k * c * (n + rho)) / (1 + c * (n + rho))
        ratios = []
        for step in reversed(self.steps):
            ratios.append(k + excess)
            excess = step - k / (k + excess) * excess
        return excess, [*ratios, k + excess]

    def curvature(self, k: Array) -> Array:
        """Return A″."""
        n, rho = self.top, jnp.sqrt(self.top**2 + k * k)
        t = n / rho
        first, second = self._series(t, 1), self._series(t, 2)
        value = (n / (1 + t) + 0.5 + first + second - t * t * (1 + 2 * first + second)) / (rho * rho)
        for step, ratio in zip(reversed(self.steps), self.slope(k)[1][1:], strict=True):
            value = (step / ratio - k * k * value / ratio) / ratio
        return value

    def _growth(self, new: Array, old: Array) -> Array:
        """Return A(new) − A(old) less the change of ρ."""
        n, rho, rho_new = self.top, jnp.sqrt(self.top**2 + old * old), jnp.sqrt(self.top**2 + new * new)
        ratio = (n + rho) / (n + rho_new)
        product = jnp.sqrt(rho / rho_new)
        for q_new, q in zip(self.slope(new)[1][1:], self.slope(old)[1][1:], strict=True):
            product = product * (q_new / q * ratio)
        logs = (n - len(self.steps)) * jnp.log(ratio) + jnp.log(product)
        return logs + self._series(n / rho_new, 0) - self._series(n / rho, 0)

    def is_near(self, new: Array, old: Array) -> Array:
        """Tell where A″ is smooth enough between two concentrations for a few nodes."""
        return jnp.abs(new - old) < (new + old + self.reach) / 3

    def between(self, new: Array, old: Array) -> tuple[Array, Array, Array]:
        """Return A″ at the nodes from old to new, with the weights of ∫₀¹ f(t) dt and of ∫₀¹ (1 − t) f(t) dt."""
        nodes, weights = (jnp.asarray(x, old.dtype).reshape(-1, *(1,) * old.ndim) for x in (self.nodes, self.weights))
        return self.curvature(old[None] + nodes * (new - old)[None]), weights, weights * (1 - nodes)

    def remainder(self, new: Array, old: Array, change: Array) -> Array:
        """Return A(new) − A(old) − change · A′(old) ≥ 0."""
        curvatures, _, weights = self.between(new, old)
        n, rho, rho_new = self.top, jnp.sqrt(self.top**2 + old * old), jnp.sqrt(self.top**2 + new * new)
        excess, ratios = self.slope(old)
        # The change of ρ is `change` less this; A′ is 1 less something small too.
        slack = n * n * (1 / (rho + old) + 1 / (rho_new + new)) / (rho + rho_new)
        far = change * (excess / ratios[-1] - slack) + self._growth(new, old)
        return jnp.where(self.is_near(new, old), jnp.sum(weights * curvatures, axis=0) * change * change, far)

    def slope_change(self, new: Array, old: Array, change: Array) -> Array:
        """Return A′(new) − A′(old)."""
        curvatures, weights, _ = self.between(new, old)
        (excess, ratios), (excess_new, ratios_new) = self.slope(old), self.slope(new)
        far = excess / ratios[-1] - excess_new / ratios_new[-1]
        return jnp.where(self.is_near(new, old), jnp.sum(weights * curvatures, axis=0) * change, far)


# Their derivatives are known better, and compiled faster, than those of the recurrences.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _remainder(dim: int, new: Array, old: Array, change: Array) -> Array:
    return _Sphere(dim, new).remainder(new, old, change)


@_remainder.defjvp
def _remainder_jvp(dim: int, primals: Any, tangents: Any) -> tuple[Array, Array]:
    new, old, change = primals  # the change is known better than the difference, and counts once
    sphere = _Sphere(dim, new)
    slopes = sphere.slope_change(new, old, change), -change * sphere.curvature(old)
    return _remainder(dim, *primals), slopes[0] * tangents[0] + slopes[1] * tangents[1]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _mean_length(dim: int, k: Array) -> Array:
    return k / _Sphere(dim, k).slope(k)[1][-1]


@_mean_length.defjvp
def _mean_length_jvp(dim: int, primals: Any, tangents: Any) -> tuple[Array, Array]:
    return _mean_length(dim, *primals), _Sphere(dim, primals[0]).curvature(*primals) * tangents[0]


def _fisher(p_concentration: Array, q_concentration: Array, turn: Array, dim: int) -> Array:
    """Return KL between von Mises–Fisher distributions; `turn` is 1 less the cosine of the angle between them."""
    turned = q_concentration * _mean_length(dim, p_concentration) * turn
    change = q_concentration - p_concentration
    return _remainder(dim, q_concentration, p_concentration, change) + turned


def _turn(p: VonMisesFisher | PowerSpherical, q: VonMisesFisher) -> Array:
    shift = p.mean_direction - q.mean_direction
    return jnp.sum(shift * shift, axis=-1) / 2


def von_mises(p: VonMises, q: VonMises) -> Array:
    """Return KL between von Mises distributions."""
    half = jnp.sin((p.loc - q.loc) / 2)
    return _fisher(p.concentration, q.concentration, 2 * half * half, 2)


def von_mises_fisher(p: VonMisesFisher, q: VonMisesFisher) -> Array:
    """Return KL between von Mises–Fisher distributions."""
    return _fisher(p.concentration, q.concentration, _turn(p, q), p.mean_direction.shape[-1])


def von_mises_fisher_uniform(p: VonMisesFisher, q: SphericalUniform) -> Array:
    """Return KL of a von Mises–Fisher distribution from the uniform one."""
    return _remainder(q.dim, jnp.zeros_like(p.concentration), p.concentration, -p.concentration)


def uniform_von_mises_fisher(p: SphericalUniform, q: VonMisesFisher) -> Array:
    """Return KL of the uniform distribution from a von Mises–Fisher one."""
    return _remainder(p.dim, q.concentration, jnp.zeros_like(q.concentration), q.concentration)


def _power(p: Array, q: Array, dim: int) -> Array:
    """Return KL between power spherical distributions around one direction: (1 + cosine) / 2 is a Beta variable."""
    rest = jnp.full_like(p, (dim - 1) / 2)
    return beta_kl((p + rest, rest), (q + rest, rest), (q - p, jnp.zeros_like(p)))


def power_spherical(p: PowerSpherical, q: PowerSpherical) -> Array:
    """Return KL between power spherical distributions around one direction."""
    return _power(p.concentration, q.concentration, p.mean_direction.shape[-1])


def power_spherical_uniform(p: PowerSpherical, q: SphericalUniform) -> Array:
    """Return KL of a power spherical distribution from the uniform one."""
    return _power(p.concentration, jnp.zeros_like(p.concentration), q.dim)


def uniform_power_spherical(p: SphericalUniform, q: PowerSpherical) -> Array:
    """Return KL of the uniform distribution from a power spherical one."""
    return _power(jnp.zeros_like(q.concentration), q.concentration, p.dim)


def power_spherical_von_mises_fisher(p: PowerSpherical, q: VonMisesFisher) -> Array:
    """Return KL of a power spherical distribution from a von Mises–Fisher one, by way of the nearest such one."""
    dim = p.mean_direction.shape[-1]
    length = p.concentration / (p.concentration + (dim - 1))
    half, nearest = p.concentration / 2, nearest_fisher(p.concentration, dim)
    change = (q.concentration - half) - nearest.excess
    beyond = _remainder(dim, q.concentration, half + nearest.excess, change)
    return nearest.kl + (beyond + q.concentration * length * _turn(p, q))


def uniform_as_von_mises_fisher(p: SphericalUniform) -> VonMisesFisher:
    """Return the uniform distribution as a von Mises–Fisher one of concentration 0."""
    pole = jnp.broadcast_to(jnp.eye(1, p.dim)[0], (*p.batch_shape, p.dim))
    return VonMisesFisher(pole, jnp.zeros(p.batch_shape))
