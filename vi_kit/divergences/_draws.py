"""Where draws come from: independent ones, pairs, strata, randomized points, another distribution."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit import kl
from vi_kit._lattice import shifted_lattice, to_unit
from vi_kit._static import configuration, leaf
from vi_kit._types import KeyArray, check_count
from vi_kit.divergences._door import name_of
from vi_kit.divergences._quantiles import FromUniforms, from_uniforms
from vi_kit.divergences._sampling import Drawn, draw, is_mixture, num_components, sample
from vi_kit.divergences.distributions import Distribution


class Source(NamedTuple):
    """What is drawn from: a distribution, the family it was read as, and how its gradient is taken."""

    distribution: Any
    family: Distribution
    gradient: Any
    batch_shape: tuple[int, ...]


class Layout(NamedTuple):
    """How draws are counted: independent units of some draws each, worked through in blocks.

    Either a block holds whole units, or every unit and some of its draws.

    Attributes:
        num_units: independent units, at least 2.
        unit_size: draws in a unit, from one source.
        block: draws of a block, (units, draws of each).
    """

    num_units: int
    unit_size: int
    block: tuple[int, int]

    @property
    def holds_whole_units(self) -> bool:
        """Whether the next block holds other units."""
        return self.block[1] == self.unit_size

    @property
    def num_blocks(self) -> int:
        """How many blocks there are."""
        if self.holds_whole_units:
            return -(-self.num_units // self.block[0])
        return -(-self.unit_size // self.block[1])

    def counts(self, index: Array) -> Array:
        """Tell which draws of a block count: the last block may hold more than are asked for."""
        units, points = (jnp.arange(n) for n in self.block)
        if self.holds_whole_units:
            return jnp.broadcast_to((index * self.block[0] + units < self.num_units)[:, None], self.block)
        return jnp.broadcast_to((index * self.block[1] + points < self.unit_size)[None, :], self.block)


@runtime_checkable
class Draws(Protocol):
    """A way to draw: how many draws of what kind, and those of one block."""

    def layout(self, num_samples: int, block_size: int, source: Source) -> Layout:
        """Return how the draws are counted."""

    def draw(self, key: KeyArray, index: Array, source: Source, layout: Layout) -> Drawn:
        """Return the draws of one block, units first: (units · draws, *batch, *event)."""


def _whole_units(num_samples: int, block_size: int, size: int) -> Layout:
    """Lay out units of a size in blocks of an even number of them, half for each fold."""
    num_units = max(2, -(-num_samples // size))
    in_block = min(max(2, block_size // size // 2 * 2), num_units + num_units % 2)
    return Layout(num_units, size, (in_block, size))


def _map(source: Source, plan: Any) -> FromUniforms:
    found = from_uniforms(source.family)
    if found is None:
        raise NotImplementedError(
            f"draws: {type(plan).__name__} needs a distribution whose quantile function is known, got a "
            f"{name_of(source.distribution)}; vk.divergences.Plain() draws from any"
        )
    return found


def _events(source: Source, found: FromUniforms, u: Array) -> Drawn:
    """Return events of uniform numbers (draws, dim), the same for every entry of the batch."""
    ones = (1,) * len(source.batch_shape)
    drawn = found.function(u.reshape(u.shape[0], *ones, u.shape[1]))
    key = jax.eval_shape(lambda: jax.random.key(0))
    like = jax.eval_shape(lambda k: sample(source.distribution, k, (u.shape[0],)), key)
    leaves: list[Any]
    structure: Any
    leaves, structure = jax.tree.flatten(like)
    values = [jnp.broadcast_to(v, want.shape).astype(want.dtype) for v, want in zip(drawn.value, leaves, strict=True)]
    value = structure.unflatten(values)
    if source.gradient is kl.score:
        return Drawn(jax.lax.stop_gradient(value))
    return drawn._replace(value=value)


@configuration
class Plain:
    """Independent draws."""

    def layout(self, num_samples: int, block_size: int, source: Source) -> Layout:
        """Return units of one draw."""
        return _whole_units(num_samples, block_size, 1)

    def draw(self, key: KeyArray, index: Array, source: Source, layout: Layout) -> Drawn:
        """Return independent draws."""
        num = math.prod(layout.block)
        return draw(source.distribution, jax.random.fold_in(key, index), num, source.gradient)


@configuration
class Antithetic:
    """Pairs of draws at u and 1 − u: errors that are odd in u cancel. A pair counts as one for the standard error.

    For distributions whose quantile function is known (of normals, location–scale families, independent coordinates).
    An integrand that is even about the center gains nothing: it costs a factor 2 then.
    """

    def layout(self, num_samples: int, block_size: int, source: Source) -> Layout:
        """Return units of two draws."""
        return _whole_units(num_samples, block_size, 2)

    def draw(self, key: KeyArray, index: Array, source: Source, layout: Layout) -> Drawn:
        """Return pairs."""
        found = _map(source, self)
        u = to_unit(jax.random.bits(jax.random.fold_in(key, index), (layout.block[0], found.dim), jnp.uint32))
        return _events(source, found, jnp.stack([u, 1 - u], axis=1).reshape(-1, found.dim))


@configuration
class Stratified:
    """Strata of equal probability, one draw in each, again and again: independent rounds give the standard error.

    Of a mixture they are strata of its components, in proportion to their weights: the default for mixtures, never
    worse than independent draws. Of a distribution of one number whose quantile function is known, strata of that.

    Attributes:
        num_strata: draws in a round; None: 16, or two for every component, fewer where there would be less than 32
            rounds.
    """

    num_strata: int | None = None

    def __post_init__(self) -> None:
        """Check the number."""
        if self.num_strata is not None:
            check_count("num_strata", self.num_strata, least=2)

    def layout(self, num_samples: int, block_size: int, source: Source) -> Layout:
        """Return units of one round."""
        size = self.num_strata
        if size is None:
            most = max(16, 2 * num_components(source.distribution)) if is_mixture(source.distribution) else 16
            size = min(most, max(2, num_samples // 32))
        return _whole_units(num_samples, block_size, size)

    def draw(self, key: KeyArray, index: Array, source: Source, layout: Layout) -> Drawn:
        """Return rounds."""
        units, size = layout.block
        stratum_key, key = jax.random.split(jax.random.fold_in(key, index))
        within = to_unit(jax.random.bits(stratum_key, (units, size), jnp.uint32))
        u = ((jnp.arange(size, dtype=within.dtype) + within) / size).reshape(-1)
        u = jnp.minimum(u, 1 - float(np.finfo(u.dtype).epsneg))  # the sum of two may be rounded to 1
        if is_mixture(source.distribution):
            return draw(source.distribution, key, u.shape[0], source.gradient, u)
        found = _map(source, self)
        if found.dim != 1:
            raise NotImplementedError(
                f"draws: Stratified takes mixtures and distributions of one number, got a "
                f"{name_of(source.distribution)} of {found.dim}; vk.divergences.QuasiMonteCarlo() takes several"
            )
        return _events(source, found, u[:, None])


@configuration
class QuasiMonteCarlo:
    """Randomly shifted lattice points, folded by the tent map: the error falls nearly as 1/num_samples, or faster.

    Independent shifts give the standard error. For distributions whose quantile function is known; best for a smooth
    integrand and up to some ten dimensions, with num_samples / num_replicates a power of 2. An error from so few
    replicates is itself uncertain: twice the standard error covers some 9 in 10, fewer where replicates are small.

    Attributes:
        num_replicates: number of independent shifts, an even one; each has num_samples / num_replicates points.

    Source:
        F. J. Hickernell, H. S. Hong, P. L'Ecuyer and C. Lemieux, Extensible lattice sequences for quasi-Monte Carlo
        quadrature (2000), https://doi.org/10.1137/S1064827599356638
    """

    num_replicates: int = 16

    def __post_init__(self) -> None:
        """Check the number."""
        check_count("num_replicates", self.num_replicates, least=4)
        if self.num_replicates % 2:
            raise ValueError(f"num_replicates: expected an even number, got {self.num_replicates}")

    def layout(self, num_samples: int, block_size: int, source: Source) -> Layout:
        """Return few units of many points."""
        size = max(1, -(-num_samples // self.num_replicates))
        return Layout(
            self.num_replicates, size, (self.num_replicates, min(size, max(1, block_size // self.num_replicates)))
        )

    def draw(self, key: KeyArray, index: Array, source: Source, layout: Layout) -> Drawn:
        """Return some points of every replicate."""
        found = _map(source, self)
        replicates, points = layout.block
        shifts = jax.random.bits(key, (replicates, 1, found.dim), jnp.uint32)
        number = index.astype(jnp.uint32) * jnp.uint32(points) + jnp.arange(points, dtype=jnp.uint32)
        return _events(source, found, shifted_lattice(number, shifts).reshape(-1, found.dim))


@configuration
class Importance:
    """Draws from another distribution, each with weight p(x) / proposal(x): for where p itself is hard to draw from.

    The weights are not normalized: no bias. Needs proposal > 0 wherever p > 0; num_effective is (Σw)² / Σw².

    Attributes:
        proposal: a distribution with `sample` and `log_prob` and events like those of p.
    """

    proposal: Any = leaf()

    def layout(self, num_samples: int, block_size: int, source: Source) -> Layout:
        """Return units of one draw."""
        return _whole_units(num_samples, block_size, 1)

    def draw(self, key: KeyArray, index: Array, source: Source, layout: Layout) -> Drawn:
        """Return draws of the proposal, constants."""
        num = math.prod(layout.block)
        return Drawn(jax.lax.stop_gradient(sample(self.proposal, jax.random.fold_in(key, index), (num,))))


def repeat_first(drawn: Drawn, counts: Array, layout: Layout) -> Drawn:
    """Put copies of the block's first draws where draws do not count: nothing new can go wrong there."""
    if layout.num_units % layout.block[0] == 0 and layout.unit_size % layout.block[1] == 0:
        return drawn
    axis = 0 if layout.holds_whole_units else 1

    def one(v: Any) -> Any:
        if not np.ndim(v):
            return v
        split = v.reshape(*layout.block, *v.shape[1:])
        mask = counts.reshape(*layout.block, *(1,) * (v.ndim - 1))
        return jnp.where(mask, split, jax.lax.slice_in_dim(split, 0, 1, axis=axis)).reshape(v.shape)

    repeated: Drawn = jax.tree.map(one, drawn)
    return repeated
