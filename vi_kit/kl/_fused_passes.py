"""The loops of `fused_linear`: over tiles of classes, for all rows or for a block of rows at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from vi_kit.kl._fused_tiles import Summary, close, empty, merge, summarize, terms

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array


class Layer(NamedTuple):
    """A linear layer and what it is applied to; or gradients to these, None where nobody asks for them."""

    hidden: Any
    weight: Any
    bias: Any


Layers = tuple[Layer, ...]  # p's and q's


class Problem(NamedTuple):
    """What is differentiated: logits are scale·z, with a softcap scale·softcap·tanh(inner·z/softcap)."""

    p: Layer
    q: Layer
    scale: Any
    inner: Any
    softcap: Any
    beta: Any
    where: Any
    mask: Any

    @property
    def dtype(self) -> Any:
        return self.scale.dtype

    def rows(self, start: Any, size: int) -> Problem:
        """Return the problem of these rows alone."""
        p, q = (x._replace(hidden=cut(x.hidden, start, size)) for x in (self.p, self.q))
        return self._replace(p=p, q=q, mask=None)


@dataclass(frozen=True)
class Windows:
    """Cuts `total` into windows of one size; what the first and the second share belongs to the second."""

    total: int
    size: int

    @property
    def count(self) -> int:
        return -(-self.total // self.size)

    def start(self, i: Any) -> Any:
        return jnp.maximum(self.total - (self.count - i) * self.size, 0)

    def owned(self, i: Any) -> Array:
        mine: Array = self.start(i) + jnp.arange(self.size) < self.total - (self.count - 1 - i) * self.size
        return mine


class Rows(NamedTuple):
    """What all classes say of each row: their summary, and for Jensen–Shannon the sums of its terms and slopes."""

    summary: Summary
    sums: Any

    @property
    def values(self) -> Array:
        return self.summary.kl if self.sums is None else self.sums[0]


def cut(array: Any, start: Any, size: int) -> Any:
    """Return a window of the first axis."""
    return lax.dynamic_slice_in_dim(array, start, size)


def add(array: Array, start: Any, block: Array) -> Array:
    """Add to a window of the first axis; the sum is formed in the dtype of the block."""
    total = cut(array, start, block.shape[0]).astype(block.dtype) + block
    return lax.dynamic_update_slice_in_dim(array, total.astype(array.dtype), start, 0)


def times(gradient: Array, factor: Array) -> Array:
    """Multiply; a factor of 0 gives 0, whatever the gradient holds."""
    scaled = (gradient.astype(factor.dtype) * factor).astype(gradient.dtype)
    return jnp.where(factor == 0, jnp.zeros_like(gradient), scaled)


def rescale(array: Array, factor: Array, windows: Windows) -> Array:
    """Multiply in place, which the compiler does of itself for loops alone."""

    def step(i: Any, array: Array) -> Array:
        owned, block = windows.owned(i), cut(array, windows.start(i), windows.size)
        owned = owned.reshape(-1, *[1] * (array.ndim - 1))
        return lax.dynamic_update_slice_in_dim(
            array, jnp.where(owned, times(block, factor), block), windows.start(i), 0
        )

    scaled: Array = lax.fori_loop(0, windows.count, step, array)
    return scaled


class Tile:
    """Some classes of both layers."""

    def __init__(self, problem: Problem, classes: Windows, i: Any) -> None:
        self.problem, self.start, size = problem, classes.start(i), classes.size
        self.exists = None if classes.count == 1 else classes.owned(i)
        where = None if problem.where is None else cut(problem.where, self.start, size)
        if where is not None:
            self.exists = where if self.exists is None else where & self.exists

        def layer(of: Layer) -> Layer:
            weight = cut(of.weight, self.start, size)
            bias = None if of.bias is None else cut(of.bias, self.start, size)
            if where is not None:  # absent classes may hold NaN, and 0 times NaN is NaN
                weight = jnp.where(where[:, None], weight, jnp.zeros_like(weight))
                bias = None if bias is None else jnp.where(where, bias, jnp.zeros_like(bias))
            return Layer(None, weight.astype(of.hidden.dtype), bias)

        self.p, self.q = layer(problem.p), layer(problem.q)

    def outputs(self, problem: Problem) -> tuple[Array, Array]:
        """Return the layers' outputs for the rows of a problem, with the softcap, not yet scaled."""
        return self._output(problem.p.hidden, self.p), self._output(problem.q.hidden, self.q)

    def _output(self, hidden: Array, layer: Layer) -> Array:
        z = product(hidden, layer.weight, (1, 1), self.problem.dtype)
        if layer.bias is not None:
            z += layer.bias.astype(z.dtype)[None, :]
        cap = self.problem.softcap
        return z if cap is None else cap * jnp.tanh(z * (self.problem.inner / cap))

    def logits(self, outputs: tuple[Array, Array]) -> tuple[Array, Array]:
        """Return the outputs with −∞ at classes that are absent."""
        if self.exists is None:
            return outputs
        t, s = (jnp.where(self.exists[None, :], x, jnp.full_like(x, -jnp.inf)) for x in outputs)
        return t, s

    def add_gradients(
        self, problem: Problem, rows: Rows, outputs: tuple[Array, Array], weights: Array, sums: Layers
    ) -> Layers:
        """Add the gradients of the weighted sum of the values to the sums of a problem's rows."""
        p, q, to_p, to_q, *_ = terms(*self.logits(outputs), problem.scale, problem.beta, rows.summary)
        if rows.sums is not None:
            to_p, to_q = to_p - p * rows.sums[1][:, None], to_q - q * rows.sums[2][:, None]
        added = []
        for own, layer, output, gradient, total in (
            (problem.p, self.p, outputs[0], to_p, sums[0]),
            (problem.q, self.q, outputs[1], to_q, sums[1]),
        ):
            counts = (weights != 0)[:, None]  # a row without weight has no gradient, whatever it holds
            g = jnp.where(counts, gradient * (weights * problem.scale)[:, None], jnp.zeros_like(gradient))
            if problem.softcap is not None:
                g *= (1 - (output / problem.softcap) ** 2) * problem.inner
            # Products of half precision are of float32's speed only where both operands are.
            operand = g.astype(layer.weight.dtype) if layer.weight.dtype == jnp.bfloat16 else g
            hidden, weight, bias = total
            if hidden is not None:
                hidden += product(operand, layer.weight, (1, 0), g.dtype)
            if weight is not None:
                weight = add(weight, self.start, product(operand, own.hidden, (0, 0), g.dtype))
            if bias is not None:
                bias = add(bias, self.start, jnp.sum(g, axis=0))
            added.append(Layer(hidden, weight, bias))
        return tuple(added)


def product(a: Array, b: Array, axes: tuple[int, int], dtype: Any) -> Array:
    """Contract one axis of each. Half-precision operands stay so; the sums are formed in the dtype asked for."""
    if a.dtype != b.dtype:
        a, b = a.astype(dtype), b.astype(dtype)
    return lax.dot_general(a, b, (((axes[0],), (axes[1],)), ((), ())), preferred_element_type=dtype)


def zeros(problem: Problem, wanted: Layers) -> Layers:
    """Return gradients of 0: those to hidden states in the dtype of sums, the others in their own."""
    found = []
    for layer, want in ((problem.p, wanted[0]), (problem.q, wanted[1])):
        hidden = jnp.zeros(layer.hidden.shape, problem.dtype) if want.hidden else None
        weight, bias = (jnp.zeros_like(x) if w else None for x, w in zip(layer[1:], want[1:], strict=True))
        found.append(Layer(hidden, weight, bias))
    return tuple(found)


def see(problem: Problem, classes: Windows, *, keep: bool = False) -> tuple[Rows, Any]:
    """Go through all classes; with `keep` also return the outputs of each tile."""
    indices = jnp.arange(classes.count)

    def recall(i: Any, kept: Any) -> tuple[Tile, tuple[Array, Array]]:
        tile = Tile(problem, classes, i)
        return tile, tile.outputs(problem) if kept is None else kept

    def first(seen: Summary, i: Any) -> tuple[Summary, Any]:
        tile, outputs = recall(i, None)
        return merge(seen, summarize(*tile.logits(outputs), problem.scale), problem.scale), outputs if keep else None

    size = problem.p.hidden.shape[0]
    summary, kept = lax.scan(first, empty(size, problem.dtype), indices)
    summary = close(summary)
    if problem.beta is None:
        return Rows(summary, None), kept

    def second(sums: Any, x: Any) -> tuple[Any, None]:
        tile, outputs = recall(*x)
        _, _, to_p, to_q, value = terms(*tile.logits(outputs), problem.scale, problem.beta, summary)
        return tuple(a + jnp.sum(b, axis=1) for a, b in zip(sums, (value, to_p, to_q), strict=True)), None

    sums, _ = lax.scan(second, (jnp.zeros(size, problem.dtype),) * 3, (indices, kept))
    return Rows(summary, sums), kept


def gradients(problem: Problem, classes: Windows, rows: Rows, weights: Array, sums: Layers, count: Any) -> Layers:
    """Add the gradients of the weighted sum of the values, forming each tile of the outputs once more."""

    def step(i: Any, sums: Any) -> Any:
        tile = Tile(problem, classes, i)
        return tile.add_gradients(problem, rows, tile.outputs(problem), weights, sums)

    total: Layers = lax.fori_loop(0, count, step, sums)
    return total


def see_with_gradients(problem: Problem, classes: Windows, blocks: Windows, wanted: Layers) -> tuple[Rows, Layers]:
    """Go through all classes of a few rows at a time, and form their gradients while the outputs are there.

    The gradients to hidden states are those of each row's own value, the others those of the sum of the values.
    """
    total = zeros(problem, wanted)
    mask = jnp.ones(blocks.total, bool) if problem.mask is None else problem.mask

    def block(layers: Any, r: Any) -> Any:
        start = blocks.start(r)
        some = problem.rows(start, blocks.size)
        rows, kept = see(some, classes, keep=True)
        weights = (cut(mask, start, blocks.size) & blocks.owned(r)).astype(problem.dtype)

        def step(sums: Any, x: Any) -> tuple[Any, None]:
            i, outputs = x
            return Tile(problem, classes, i).add_gradients(some, rows, outputs, weights, sums), None

        own = zeros(some, wanted)
        sums = tuple(x._replace(hidden=y.hidden) for x, y in zip(layers, own, strict=True))
        sums, _ = lax.scan(step, sums, (jnp.arange(classes.count), kept))
        return tuple(x._replace(hidden=None) for x in sums), (rows, tuple(x.hidden for x in sums))

    layers = tuple(x._replace(hidden=None) for x in total)
    layers, (rows, hidden) = lax.scan(block, layers, jnp.arange(blocks.count))
    first = blocks.total - (blocks.count - 1) * blocks.size

    def join(x: Array) -> Array:
        return jnp.concatenate([x[0, :first], x[1:].reshape(-1, *x.shape[2:])])

    rows, hidden = jax.tree.map(join, (rows, hidden))
    found = tuple(x._replace(hidden=h) for x, h in zip(layers, hidden, strict=True))
    return rows, found
