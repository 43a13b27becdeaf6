"""Means over a Gaussian of a log density, its gradient and its curvature, from gradients along random directions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vi_kit._arrays import namespace
from vi_kit._types import Event, KeyArray, Scalar
from vi_kit.algorithms._gaussian import Scale, matmul, pull_back, spread


class ExpectedDerivatives(NamedTuple):
    """Means over q in whitened coordinates, z = m + L ε.

    Attributes:
        log_density: E[log p].
        error: standard error of `log_density`, as far as the pairs tell.
        gradient: E[Lᵀ ∇log p], shape (dim,).
        directions: unit vectors u, shape (pairs, dim).
        slopes: the change of −Lᵀ ∇log p along each of them, shape (pairs, dim): A u where the curvature is A.
    """

    log_density: Scalar
    error: Scalar
    gradient: Event
    directions: Float[Array, "pairs dim"]
    slopes: Float[Array, "pairs dim"]

    def matrix(self) -> Float[Array, "dim dim"]:
        """Return the curvature −E[Lᵀ ∇²log p L]."""
        pairs, dim = self.directions.shape
        found = matmul(self.directions.T, self.slopes) * (dim / pairs)
        return (found + found.T) / 2

    def diagonal(self) -> Event:
        """Return the diagonal of the curvature."""
        pairs, dim = self.directions.shape
        return (self.directions * self.slopes).sum(axis=0) * (dim / pairs)

    def along(self, direction: Event) -> Scalar:
        """Return the curvature along one direction, sᵀ A s."""
        pairs, dim = self.directions.shape
        return ((self.directions @ direction) * (self.slopes @ direction)).sum() * (dim / pairs)


def expected_derivatives(
    log_density: Callable[[Event], Scalar], mean: Event, scale: Scale, key: KeyArray, num_pairs: int
) -> ExpectedDerivatives:
    r"""Estimate the means by the random rule of degree three: pairs m ± r L u and the center, 2 · num_pairs + 1 points.

    $$ E[f] \approx f(m) + \frac{1}{K} \sum_k \frac{d}{r_k^2}
       \left(\frac{f(m + r_k L u_k) + f(m - r_k L u_k)}{2} - f(m)\right),
       \quad r \sim \chi_{d+2}, \quad u \text{ orthonormal} $$

    Unbiased for every log density with a gradient (second derivatives by Stein's identity, so kinks are no harm), and
    without any error, curvature included, where it is quadratic and the directions are complete bases.

    Source: Genz and Monahan, "Stochastic Integration Rules for Infinite Regions", 1998,
    https://doi.org/10.1137/S1064827595286803
    """
    directions, radii = _directions(key, mean.shape[0], num_pairs, mean.dtype)
    values, gradients = jax.vmap(jax.value_and_grad(log_density))(points_of(mean, scale, directions, radii))
    return means_of(values, pull_back(scale, gradients), directions, radii)


def points_of(
    mean: Event, scale: Scale, directions: Float[Array, "pairs dim"], radii: Float[Array, " pairs"]
) -> Float[Array, "points dim"]:
    """Return the points of the rule: ahead, behind, and the center."""
    steps = spread(scale, radii[:, None] * directions)
    points: Array = namespace(mean).concatenate([mean[None] + steps, mean[None] - steps, mean[None]])
    return points


def means_of(
    values: Float[Array, " points"],
    gradients: Float[Array, "points dim"],
    directions: Float[Array, "pairs dim"],
    radii: Float[Array, " pairs"],
) -> ExpectedDerivatives:
    """Return the means by the rule, of values and whitened gradients at its points; for numpy and jax alike."""
    xp = namespace(values)
    num_pairs, dim = directions.shape
    ahead, behind, center = gradients[:num_pairs], gradients[num_pairs:-1], gradients[-1]
    weights = dim / xp.square(radii)
    bends = weights * (0.5 * (values[:num_pairs] + values[num_pairs:-1]) - values[-1])
    turns = weights[:, None] * (0.5 * (ahead + behind) - center[None])
    slopes = (behind - ahead) / (2 * radii[:, None])
    # Over complete bases the quadratic part adds up to its trace without error, however it differs by direction.
    complete = num_pairs % dim == 0
    known = 0.5 * dim * xp.sum(directions * slopes, axis=1) if complete else xp.zeros_like(bends)
    return ExpectedDerivatives(
        log_density=values[-1] + xp.mean(bends),
        error=xp.std(bends + known) / math.sqrt(num_pairs),
        gradient=center + xp.mean(turns, axis=0),
        directions=directions,
        slopes=slopes,
    )


def _directions(key: KeyArray, dim: int, count: int, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Return rows of random rotations, and their radii, chi with dim + 2 degrees of freedom."""
    num_bases, width = -(-count // dim), min(count, dim)
    key, radius_key = jax.random.split(key)
    columns = jax.random.normal(key, (num_bases, dim, width), dtype)
    basis = jnp.linalg.qr(columns)[0]
    # The columns' lengths are chi with dim degrees, and independent of their directions.
    more = jax.random.normal(radius_key, (num_bases, 2, width), dtype)
    radii = jnp.sqrt(jnp.sum(jnp.square(columns), axis=1) + jnp.sum(jnp.square(more), axis=1))
    return jnp.swapaxes(basis, 1, 2).reshape(-1, dim)[:count], radii.reshape(-1)[:count]
