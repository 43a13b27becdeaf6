"""A Gaussian whose covariance is block-diagonal: groups of coordinates that are independent of each other."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vi_kit._types import Event, KeyArray, Scalar

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


class Blocks(NamedTuple):
    """Blocks of one size.

    Attributes:
        indices: the coordinates of each block, static, shape (num_blocks, size).
        factors: lower factors of the blocks' covariances, shape (num_blocks, size, size).
    """

    indices: np.ndarray
    factors: Float[Array, "num_blocks size size"]


class BlockDiagonalNormal:
    r"""A multivariate normal over groups of coordinates, each with a covariance of its own.

    $$ z_{g} = m_{g} + L_g \epsilon_g \quad \text{for each group } g $$

    Memory and time grow with the sum of the squared sizes; only `covariance` forms a matrix of dim × dim.

    Args:
        loc: mean, shape (dim,).
        blocks: the groups, those of one size together.
    """

    def __init__(self, loc: Event, blocks: tuple[Blocks, ...]) -> None:
        self.loc, self.blocks = loc, blocks

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """One distribution."""
        return ()

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of an event."""
        return tuple(self.loc.shape)

    @property
    def num_base(self) -> int:
        """Standard normals that a draw is made of."""
        return int(self.loc.shape[0])

    def _in_order(self, parts: list[Array]) -> Event:
        """Put numbers of the blocks, (num_blocks, size) each, where their coordinates are."""
        order = np.argsort(np.concatenate([block.indices.reshape(-1) for block in self.blocks]))
        return jnp.concatenate([part.reshape(-1) for part in parts])[order]

    def from_base(self, noise: Event) -> Event:
        """Return the draw that these standard normals make."""
        moved = [
            jnp.einsum("nij,nj->ni", b.factors, noise[b.indices], precision=jax.lax.Precision.HIGHEST)
            for b in self.blocks
        ]
        return self.loc + self._in_order(moved)

    def _noise(self, key: KeyArray) -> Event:
        return jax.random.normal(key, self.loc.shape, self.loc.dtype)

    def _log_prob_of_base(self, noise: Event) -> Scalar:
        log_determinants = [jnp.sum(jnp.log(jnp.diagonal(b.factors, axis1=1, axis2=2))) for b in self.blocks]
        rest = sum(log_determinants, noise.shape[0] * jnp.asarray(_HALF_LOG_TWO_PI, noise.dtype))
        return -0.5 * jnp.sum(noise * noise) - rest

    def sample(self, *, seed: KeyArray) -> Event:
        """Draw one event."""
        return self.from_base(self._noise(seed))

    def sample_and_log_prob(self, *, seed: KeyArray) -> tuple[Event, Scalar]:
        """Draw one event with its log density."""
        noise = self._noise(seed)
        return self.from_base(noise), self._log_prob_of_base(noise)

    def log_prob(self, value: Event) -> Scalar:
        """Log density of one event, in nats."""
        centered = value - self.loc
        whitened = [
            jax.lax.linalg.triangular_solve(b.factors, centered[b.indices][..., None], left_side=True, lower=True)
            for b in self.blocks
        ]
        return self._log_prob_of_base(jnp.concatenate([part.reshape(-1) for part in whitened]))

    def mean(self) -> Event:
        """Mean."""
        return self.loc

    def std(self) -> Event:
        """Marginal standard deviations."""
        return self._in_order([jnp.sqrt(jnp.sum(jnp.square(b.factors), axis=2)) for b in self.blocks])

    def covariance(self) -> Float[Array, "dim dim"]:
        """Covariance matrix, of dim × dim numbers."""
        root = self.root
        return jnp.matmul(root, root.T, precision=jax.lax.Precision.HIGHEST)

    @property
    def root(self) -> Float[Array, "dim dim"]:
        """A matrix of dim × dim numbers whose square is the covariance, triangular within each block."""
        dim = self.loc.shape[0]
        root = jnp.zeros((dim, dim), self.loc.dtype)
        for b in self.blocks:
            root = root.at[b.indices[:, :, None], b.indices[:, None, :]].set(b.factors)
        return root

    def entropy(self) -> Scalar:
        """Entropy, in nats."""
        return 0.5 * self.loc.shape[0] - self._log_prob_of_base(jnp.zeros_like(self.loc))
