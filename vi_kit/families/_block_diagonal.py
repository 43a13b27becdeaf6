"""The block-diagonal Gaussian family, and blocks by variable of a target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vi_kit._distributions import DiagonalNormal
from vi_kit._static import configuration
from vi_kit._types import Event, KeyArray, Target
from vi_kit.families._block_diagonal_normal import BlockDiagonalNormal, Blocks
from vi_kit.families._gaussian import check_dim, read_mean, read_scale
from vi_kit.families._gaussian_forms import gaussian_of, lower_factor, root_rows


class BlockDiagonalParams(NamedTuple):
    """Parameters of a block-diagonal Gaussian.

    Attributes:
        coupling: entries below the diagonal of diag(L)⁻¹ L of each block, row by row; blocks by size, then as given.
        log_scale: logarithm of the diagonals of the blocks' lower factors L, by coordinate, shape (dim,).
        mean: shape (dim,).
    """

    coupling: Float[Array, " pairs"]
    log_scale: Event
    mean: Event


@configuration
class BlockDiagonal:
    r"""Gaussians over unconstrained z whose groups of coordinates are independent, each with any covariance.

    $$ q(z) = \prod_g N(z_g; m_g, L_g L_g^T), \quad L_g = diag(e^{s_g}) (I + C_g) $$

    Between `MeanField` (blocks of one) and `FullRank` (one block). Memory and time grow with the sum of the squared
    sizes. Blocks of the same size are computed together.

    Args:
        dim: number of unconstrained coordinates.
        blocks: the groups: their sizes, in order, or the coordinates of each. `variable_blocks(target)` makes them of
            the variables of a target.

    Raises:
        ValueError: when a coordinate is in no group or in several.

    Example:
        >>> import jax, vi_kit as vk
        >>> family = vk.families.BlockDiagonal(4, [(0, 3), (1,), (2,)])
        >>> family == vk.families.BlockDiagonal(4, ((0, 3), (1,), (2,)))
        True
        >>> family.init(jax.random.key(0)).coupling.shape
        (1,)
    """

    dim: int
    blocks: Sequence[int] | Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        """Check the blocks, and write them as tuples of coordinates."""
        check_dim(self.dim)
        object.__setattr__(self, "blocks", _read_blocks(self.blocks, self.dim))

    @property
    def reparameterized(self) -> bool:
        """Draws are differentiable functions of the parameters."""
        return True

    def _by_size(self) -> Iterator[np.ndarray]:
        """Yield the coordinates of the blocks of each size, shape (num_blocks, size)."""
        blocks: Any = self.blocks
        for size in sorted({len(block) for block in blocks}):
            yield np.array([block for block in blocks if len(block) == size])

    def init(self, key: KeyArray, *, mean: Array | None = None, scale: Array | None = None) -> BlockDiagonalParams:
        """Return the member with this mean (zero) and these standard deviations (one); the key is not used."""
        center = read_mean(mean, self.dim)
        return self.init_from(key, DiagonalNormal(center, read_scale(scale, center, matrix=False)))

    def init_from(self, key: KeyArray, distribution: Any) -> BlockDiagonalParams:
        """Return the member with the mean of another family's distribution and the covariance within each block.

        It equals the distribution where that is a Gaussian without correlations between blocks. The key is not used.
        """
        del key
        gaussian = gaussian_of(distribution, self.dim)
        couplings, log_scale = [], jnp.zeros_like(gaussian.mean())
        for indices in self._by_size():
            factors = _factors(gaussian, indices)
            diagonals = jnp.diagonal(factors, axis1=1, axis2=2)
            log_scale = log_scale.at[indices].set(jnp.log(diagonals))
            rows, columns = np.tril_indices(indices.shape[1], -1)
            couplings.append((factors / diagonals[..., None])[:, rows, columns].reshape(-1))
        return BlockDiagonalParams(jnp.concatenate(couplings), log_scale, gaussian.mean())

    def dist(self, params: BlockDiagonalParams) -> BlockDiagonalNormal:
        """Build the distribution."""
        found, start = [], 0
        for indices in self._by_size():
            count, size = indices.shape
            rows, columns = np.tril_indices(size, -1)
            entries = params.coupling[start : start + count * len(rows)].reshape(count, len(rows))
            start += entries.size
            unit = jnp.broadcast_to(jnp.eye(size, dtype=params.mean.dtype), (count, size, size))
            unit = unit.at[:, rows, columns].set(entries)
            found.append(Blocks(indices, jnp.exp(params.log_scale)[indices][..., None] * unit))
        return BlockDiagonalNormal(params.mean, tuple(found))


def _factors(gaussian: Any, indices: np.ndarray) -> Float[Array, "num_blocks size size"]:
    """Return lower factors of the covariances of some groups of coordinates."""
    if isinstance(gaussian, BlockDiagonalNormal):
        for block in gaussian.blocks:
            if np.array_equal(block.indices, indices):
                return block.factors
    return jax.vmap(lambda group: lower_factor(root_rows(gaussian, group)))(jnp.asarray(indices))


def _read_blocks(blocks: Any, dim: int) -> tuple[tuple[int, ...], ...]:
    given = list(blocks) if isinstance(blocks, Iterable) and not isinstance(blocks, str | jax.core.Tracer) else None
    if not given:
        raise ValueError(f"blocks: expected sizes or the coordinates of each block, got {blocks!r}")
    if all(np.ndim(block) == 0 for block in given):
        sizes = [int(size) for size in given]
        if min(sizes) < 1 or sum(sizes) != dim:
            raise ValueError(f"blocks: expected positive sizes that sum to dim = {dim}, got {sizes}")
        ends = np.cumsum(sizes)
        return tuple(tuple(range(end - size, end)) for size, end in zip(sizes, ends.tolist(), strict=True))
    found = tuple(tuple(int(i) for i in np.atleast_1d(np.asarray(block))) for block in given)
    if sorted(i for block in found for i in block) != list(range(dim)) or not all(found):
        raise ValueError(f"blocks: expected every coordinate from 0 to {dim - 1} in exactly one block, got {found}")
    return found


def variable_blocks(target: Target, *groups: str | Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Return the blocks that `BlockDiagonal` takes, by variables of a target.

    Args:
        target: made with a pytree as `like`, whose leaves are its variables.
        *groups: names of a variable, or of several that are to share a block. Variables that are not named get a
            block of their own each.

    Raises:
        ValueError: when the target has no variable of this name, or one is named twice.

    Example:
        >>> import jax.numpy as jnp, vi_kit as vk
        >>> like = {"effects": jnp.zeros(3), "mean": 0.0, "noise": 0.0}
        >>> target = vk.make_target(lambda x: -jnp.sum(x["effects"] ** 2) - x["mean"] ** 2 - x["noise"] ** 2, like)
        >>> vk.families.variable_blocks(target, ("effects", "mean"))
        ((0, 1, 2, 3), (4,))
    """
    ends = np.cumsum(target.layout.sizes).tolist()
    variables = {
        name: tuple(range(end - size, end))
        for name, size, end in zip(target.layout.names, target.layout.sizes, ends, strict=True)
    }
    named = [(group,) if isinstance(group, str) else tuple(group) for group in groups]
    together = [name for group in named for name in group]
    for name in together:
        if name not in variables:
            raise ValueError(f"groups: expected names of variables among {sorted(variables)}, got {name!r}")
        if together.count(name) > 1:
            raise ValueError(f"groups: expected each variable once, got {name!r} twice")
    named += [(name,) for name in variables if name not in together]
    blocks = [tuple(sorted(i for name in group for i in variables[name])) for group in named]
    return tuple(sorted(block for block in blocks if block))
