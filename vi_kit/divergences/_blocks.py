"""Estimates block by block: one pass for the value, another over the same draws for its gradient."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit import kl
from vi_kit._types import KeyArray
from vi_kit.divergences._common_support import contained, is_fixed, is_leaf, log_density_within
from vi_kit.divergences._draws import Importance, Layout, Plain, Source, Stratified, repeat_first
from vi_kit.divergences._integrands import Fit, Generator, Integrand, LogRatio, Values, combined
from vi_kit.divergences._running_moments import Moments, merged, moments, no_rows
from vi_kit.divergences._sampling import batch_shape_of, carries_gradient, family_of, is_mixture, log_density, sample

_MOST_ELEMENTS = 2**20  # of the draws of a block
_MOST_DRAWS = 4096


class Problem(NamedTuple):
    """Two distributions, what is drawn from, and how."""

    p: Any
    q: Any
    sources: tuple[Source, ...]
    plan: Any
    integrand: Integrand
    batch: tuple[int, ...]
    dtype: Any
    layout: Layout

    def at(self, key: KeyArray, index: Array, side: int, fixed: Problem | None = None) -> Values:
        """Return what is known at the draws of a block from one source.

        With the same problem without gradients, log q gets a gradient by q's parameters alone, and the path that by
        the draws.
        """
        source = self.sources[side]
        drawn = self.plan.draw(jax.random.fold_in(key, side), index, source, self.layout)
        drawn = repeat_first(drawn, self.layout.counts(index), self.layout)
        num = math.prod(self.layout.block)
        lead = len(self.batch) - len(source.batch_shape)

        def spread(v: Array) -> Array:
            return v.reshape(num, *(1,) * lead, *v.shape[1:])

        x = jax.tree.map(spread, drawn.value)

        def density(of: Any, x: Any) -> Array:
            own = of is source.distribution and is_leaf(of)  # draws of its own it can make
            return self._full(log_density(of, x) if own else log_density_within(of, x), num)

        weighted = isinstance(self.plan, Importance)
        log_draws = density(source.distribution, x) if weighted else None
        score, choice = (self._full(spread(v), num) if np.ndim(v) else v for v in drawn[1:])
        if source.gradient is kl.score and not weighted:
            score = density(source.distribution, x)
        log_p = density(self.p, x)
        if fixed is None or isinstance(self.integrand, Generator):
            return Values(log_p, density(self.q, x), log_draws, score, choice)
        log_q = density(self.q, jax.lax.stop_gradient(x))
        if weighted:
            return Values(log_p, log_q, log_draws, score, choice)
        # log p's own score has mean 0, unless parameters move the support.
        moving = not is_fixed(source.family) and source.gradient is not kl.score and carries_gradient(self.p)
        of_draws = log_p if moving else density(fixed.p, x)
        return Values(log_p, log_q, None, score, choice, of_draws - density(fixed.q, x))

    def _full(self, v: Array, num: int) -> Array:
        if len(v.shape) != 1 + len(self.batch):
            raise ValueError(
                f"p, q: expected log densities of shape {(num, *self.batch)}, got {v.shape}: events of other shapes, "
                "or a distribution that came out of a vmap with the shape it had before; build it inside"
            )
        return jnp.broadcast_to(v, (num, *self.batch)).astype(self.dtype)


def set_up(
    objects: list[Any], dtype: Any, plan: Any, kind: Any, gradient: Any, num_samples: int, block_size: int | None
) -> Problem:
    """Return what `average` and `surrogate` work on."""
    p, q = objects[:2]
    families = [family_of(x) for x in objects]
    shapes = [batch_shape_of(x, f) for x, f in zip(objects, families, strict=True)]
    batch = np.broadcast_shapes(*shapes)
    if len(objects) > 2:
        plan = Importance(objects[2])
        sources = [Source(objects[2], families[2], kl.score, shapes[2])]
        # Draws of a proposal may miss what q has where p has nothing: no control variate.
        known = None
    else:
        sides = (0,) if kind is None else (0, 1)
        sources = [Source(objects[i], families[i], gradient, shapes[i]) for i in sides]
        known = contained(families[0], families[1])
        if plan is None:
            plan = Stratified() if any(is_mixture(s.distribution) for s in sources) else Plain()
    if known is not None:
        known = jnp.broadcast_to(known, batch)
    integrand: Integrand = LogRatio(known) if kind is None else Generator(kind)
    per_source = max(2, -(-num_samples // len(sources)))
    like = jax.eval_shape(lambda k: sample(sources[0].distribution, k, (1,)), jax.eval_shape(lambda: jax.random.key(0)))
    elements = max(sum(math.prod(v.shape) for v in jax.tree.leaves(like)), math.prod(batch), 1)
    block = block_size or max(64, min(_MOST_DRAWS, _MOST_ELEMENTS // elements))
    layout = plan.layout(per_source, block, sources[0])
    return Problem(p, q, tuple(sources), plan, integrand, batch, dtype, layout)


def average(problem: Problem, key: KeyArray) -> tuple[Array, Array, Array, Fit]:
    """Return the mean, its standard error, the effective number of draws, and what each fold learns of the other."""
    layout, num_sides = problem.layout, len(problem.sources)
    units, size = layout.block
    num_draws = layout.unit_size * num_sides

    def block(index: Array) -> tuple[Moments, Array]:
        """Return the moments of every unit of a block, and the smallest of its first column."""
        sides = [problem.integrand.columns(problem.at(key, index, side)) for side in range(num_sides)]
        values = jnp.concatenate([v.reshape(v.shape[0], units, size, *problem.batch) for v in sides], axis=2)
        counts = jnp.concatenate([layout.counts(index)] * num_sides, axis=1)
        counts = counts.reshape(*counts.shape, *(1,) * len(problem.batch))
        smallest = jnp.min(jnp.where(counts, values[0], jnp.full_like(values[0], jnp.inf)), axis=1)
        if num_draws == 1:
            number = jnp.broadcast_to(counts[:, 0], smallest.shape).astype(values.dtype)
            return Moments(number, values[:, :, 0], jnp.zeros((), values.dtype)), smallest
        return moments(values, counts, axis=1), smallest

    def folded(inner: Moments, smallest: Array) -> tuple[Moments, Array]:
        """Return the moments by fold of means of units, and of the variance within units as the last column."""
        rows = inner.mean
        if num_draws > 1:
            within = inner.comoment[0, 0] / jnp.maximum(inner.number - 1, 1)
            rows = jnp.concatenate([rows, within[None]])
        shape = (2, rows.shape[1] // 2, *problem.batch)
        counts = inner.number.reshape(shape) > 0
        return moments(rows.reshape(-1, *shape), counts, axis=1), jnp.min(smallest.reshape(shape), axis=1)

    def step(carry: tuple[Moments, Array], index: Array) -> tuple[tuple[Moments, Array], None]:
        found = block(index)
        if layout.holds_whole_units:
            found = folded(*found)
        return (merged(carry[0], found[0]), jnp.minimum(carry[1], found[1])), None

    like: Any = jax.eval_shape(lambda: jnp.zeros((1, *problem.batch), problem.dtype))
    at = Values(like, like, like if isinstance(problem.plan, Importance) else None, 0.0, 0.0)
    num_columns = jax.eval_shape(problem.integrand.columns, at).shape[0]
    rows = (2 if layout.holds_whole_units else units, *problem.batch)
    if layout.holds_whole_units and num_draws > 1:
        num_columns += 1
    start = no_rows(num_columns, rows, problem.dtype), jnp.full(rows, jnp.inf, problem.dtype)
    total, _ = jax.lax.scan(step, start, jnp.arange(layout.num_blocks))
    folds, smallest = total if layout.holds_whole_units else folded(*total)
    fit = problem.integrand.fit(folds, smallest, num_draws)
    mean = combined(fit.weights, folds.mean)
    products = fit.weights[:, None] * fit.weights[None, :]
    spread = combined(products.reshape(-1, *mean.shape), folds.comoment.reshape(-1, *mean.shape))
    parts = [Moments(folds.number[i], mean[None, i], spread[None, None, i]) for i in (0, 1)]
    whole = merged(*parts)
    n = whole.number
    variance = whole.comoment[0, 0] / (n * (n - 1))
    error = jnp.sqrt(jnp.maximum(variance, 0))  # rounding may leave it below
    error = jnp.where(jnp.isinf(whole.mean[0]), jnp.full_like(error, jnp.inf), error)
    return whole.mean[0], error, _effective(problem, folds, num_draws), fit


def _effective(problem: Problem, folds: Moments, size: int) -> Array:
    """Return how many plain draws would do as well, or (Σw)²/Σw² of weights."""
    pooled = merged(
        *(
            jax.tree.map(
                lambda v, i=i: jax.lax.index_in_dim(v, i, v.ndim - 1 - len(problem.batch), keepdims=False), folds
            )
            for i in (0, 1)
        )
    )
    n = pooled.number
    if isinstance(problem.plan, Importance) and isinstance(problem.integrand, LogRatio):
        mean, square = pooled.mean[-1], pooled.comoment[-1, -1] / n
        return n * mean * mean / (mean * mean + square)
    if size == 1:
        return n
    between = pooled.comoment[0, 0] / (n - 1)
    whole = pooled.mean[-1] * ((size - 1) / size) + between
    some = between > 0
    return jnp.where(some, n * whole / jnp.where(some, between, jnp.ones_like(between)), n * size)


def surrogate(problem: Problem, fixed: Problem, key: KeyArray, fit: Fit) -> Array:
    """Return the mean of what is differentiated, over the same draws."""
    layout, num_sides = problem.layout, len(problem.sources)
    units, size = layout.block

    def by_draw(v: Array) -> Array:
        shape = (2, units // 2, size, *problem.batch)
        return jnp.broadcast_to(v[:, None, None], shape).reshape(units * size, *problem.batch)

    @jax.checkpoint
    def block(index: Array) -> Array:
        counts = layout.counts(index).reshape(units * size, *(1,) * len(problem.batch))
        of_draws = Fit(fit.weights, by_draw(fit.coefficient), by_draw(fit.baseline))
        total = jnp.zeros(problem.batch, fit.baseline.dtype)
        for side in range(num_sides):
            found = problem.integrand.surrogate(problem.at(key, index, side, fixed), of_draws)
            total = total + jnp.sum(jnp.where(counts, found, jnp.zeros_like(found)), axis=0)
        return total

    def step(total: Array, index: Array) -> tuple[Array, None]:
        return total + block(index), None

    start = jnp.zeros(problem.batch, fit.baseline.dtype)
    total, _ = jax.lax.scan(step, start, jnp.arange(layout.num_blocks))
    return total / (layout.num_units * layout.unit_size * num_sides)
