r"""What every divergence between categorical distributions shares: rows of logits in, a compensated log ratio out.

Nearly equal distributions lose every digit of KL in a difference of two log-softmaxes. Here the difference of the
logits is taken first, where floating point has it exactly, and centered by its mean under p:

$$ h = t - s, \quad \mathrm{KL} = \log\Bigl(1 + \sum_i p_i\, \varphi(h_i - \bar h)\Bigr), \quad
   \bar h = \sum_i p_i h_i, \quad \varphi(d) = e^{-d} - 1 + d \ge 0 $$

so every term is nonnegative and nothing cancels (t and s are the logits of p and q).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_kit.kl._compensated import series
from vi_kit.kl._inputs import Axis, booleans, broadcast_shapes, class_axes, floats, positive

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Bool, Float

Axes = tuple[int, ...]
_ABSENT = 1e30  # stands for the gap of a class that p lacks: finite, so that it vanishes when multiplied by p

_BLOCK = 2**19  # elements: 2 MiB of float32


class Layout(NamedTuple):
    """What a program of rows is compiled for."""

    axes: Axes
    normalized: bool  # log probabilities: nothing has to be taken off before they are exponentiated


class Rows(NamedTuple):
    """Logits of p and q in one shape; classes that do not exist hold −inf, rows that do not count hold 0."""

    p_logits: Float[Array, "..."]
    q_logits: Float[Array, "..."]
    scale: Float[Array, "..."]  # 1/temperature, broadcasts to the logits
    axes: Axes
    mask: Bool[Array, "..."] | None  # of the rows, without class axes
    normalized: bool = False

    def finish(self, values: Float[Array, "..."]) -> Float[Array, "..."]:
        """Drop the class axes and zero the rows that do not count."""
        values = jnp.squeeze(values, self.axes)
        return values if self.mask is None else jnp.where(self.mask, values, jnp.zeros_like(values))


def rows(
    axis: Axis, where: ArrayLike | None, mask: ArrayLike | None, temperature: ArrayLike = 1.0, **named: ArrayLike
) -> Rows:
    """Read one or two arrays of logits; a single one stands for both.

    Raises:
        TypeError: for integer logits or a mask of floats.
        ValueError: for class axes that differ or are empty, shapes that do not broadcast, a temperature not above 0.
    """
    arrays = floats(**named)
    shape, axes = row_shape(axis, dict(zip(named, arrays, strict=True)))
    arrays = [jnp.broadcast_to(a, shape) for a in arrays]
    batch = tuple(n for i, n in enumerate(shape) if i not in axes)

    def spread(name: str, value: Array) -> Array:
        """Put an array over rows beside the logits."""
        if broadcast_shapes(**{name: value.shape, "rows": batch}) != batch:
            raise ValueError(f"{name}: expected a shape that broadcasts to the rows {batch}, got {value.shape}")
        return jnp.expand_dims(jnp.broadcast_to(value, batch), axes)

    rows_mask = None
    if mask is not None:
        rows_mask = booleans("mask", mask)
        counts = spread("mask", rows_mask)
        arrays = [jnp.where(counts, a, jnp.zeros_like(a)) for a in arrays]
        rows_mask = jnp.broadcast_to(rows_mask, batch)
    if where is not None:
        exists = booleans("where", where)
        if broadcast_shapes(where=exists.shape, logits=shape) != shape:
            raise ValueError(f"where: expected a shape that broadcasts to the logits {shape}, got {exists.shape}")
        exists = jnp.broadcast_to(exists, shape)
        arrays = [jnp.where(exists, a, jnp.full_like(a, -jnp.inf)) for a in arrays]
    heat = positive("temperature", temperature).astype(arrays[0].dtype)
    if heat.ndim:
        heat = spread("temperature", heat)
        if rows_mask is not None:
            heat = jnp.where(counts, heat, jnp.ones_like(heat))
    scale = jnp.broadcast_to(1 / heat, (1,) * len(shape) if not heat.ndim else heat.shape)
    return Rows(arrays[0], arrays[-1], scale, axes, rows_mask)


def row_shape(axis: Axis, arrays: dict[str, Array]) -> tuple[tuple[int, ...], Axes]:
    """Return the common shape and the class axes in it."""
    for name, array in arrays.items():
        if array.ndim == 0:
            raise ValueError(f"{name}: expected an array with a class axis, got a scalar")
    ndim = max(a.ndim for a in arrays.values())
    axes = class_axes(axis, ndim)
    sizes = {}
    for name, array in arrays.items():
        own = [i - ndim + array.ndim for i in axes]
        if min(own) < 0:
            raise ValueError(f"{name}: expected the class axis {axis}, got shape {array.shape}")
        sizes[name] = tuple(array.shape[i] for i in own)
    first = next(iter(sizes))
    for name, size in sizes.items():
        if size != sizes[first]:
            raise ValueError(
                f"{name}: expected {_plain(sizes[first])} classes along axis {axis} as {first} has, got {_plain(size)}"
            )
        if 0 in size:
            raise ValueError(f"{name}: expected at least one class along axis {axis}, got shape {arrays[name].shape}")
    return broadcast_shapes(**{name: a.shape for name, a in arrays.items()}), axes


def _plain(size: tuple[int, ...]) -> Any:
    return size[0] if len(size) == 1 else size


def maximum(logits: Array, axes: Axes) -> Array:
    """Return the largest logit of a row without a gradient; 0 for a row without classes."""
    largest = jax.lax.stop_gradient(jnp.max(logits, axis=axes, keepdims=True))
    return jnp.where(largest == -jnp.inf, jnp.zeros_like(largest), largest)


def log_normalizer(logits: Array, scale: Array, axes: Axes) -> tuple[Array, Array]:
    """Return the largest logit and the logarithm of Σ exp((logits − largest)·scale); 0 for a row without classes."""
    largest = maximum(logits, axes)
    total = jnp.sum(jnp.exp((logits - largest) * scale), axis=axes, keepdims=True)
    return largest, jnp.log(jnp.where(total == 0, jnp.ones_like(total), total))


class Parts(NamedTuple):
    """Both distributions, normalized, with what lies between them.

    Attributes:
        p: probabilities; 0 where a class is absent or its probability underflows.
        q: the same of q.
        gap: log p − log q − KL(p‖q), centered under p, exact where p and q are close; of no meaning where p is 0.
        ratio: log p − log q, the same way.
        difference: q − p, exact where p and q are close.
        log_q: log q, −∞ where q lacks a class.
        kl: KL(p‖q) with the class axes kept.
    """

    p: Float[Array, "..."]
    q: Float[Array, "..."]
    gap: Float[Array, "..."]
    ratio: Float[Array, "..."]
    difference: Float[Array, "..."]
    log_q: Float[Array, "..."]
    kl: Float[Array, "..."]

    @property
    def log_ratio(self) -> Float[Array, "..."]:
        """The logarithm of p/q: ±∞ where one of the two is 0, 0 where both are."""
        only_q = jnp.full_like(self.p, -jnp.inf)
        return jnp.where(self.p > 0, self.ratio, jnp.where(self.q > 0, only_q, jnp.zeros_like(self.p)))


def _subtract(x: Array, y: Array) -> tuple[Array, Array]:
    """Return x − y and what rounding took from it."""
    rounded = x - y
    back = rounded - x
    lost = jax.lax.stop_gradient((x - (rounded - back)) - (y + back))
    return rounded, jnp.where(jnp.isfinite(lost), lost, jnp.zeros_like(lost))


def compare(t: Array, s: Array, h: Array | None, scale: Array, axes: Axes, *, normalized: bool = False) -> Parts:
    """Compare rows of logits t of p and s of q; h = t − s is given where it is known more exactly.

    Normalized rows are spared the search for the largest logit; they have to have a class.
    """
    zero = jnp.zeros((), t.dtype)
    p_largest, q_largest = (zero, zero) if normalized else (maximum(t, axes), maximum(s, axes))
    weight = jnp.exp((t - p_largest) * scale)
    total = jnp.sum(weight, axis=axes, keepdims=True)
    total = jnp.where(total == 0, jnp.ones_like(total), total)
    log_total = jnp.log(total)
    # The largest logits' difference is near the mean of h: what is left of h has the digits that matter.
    shift, shift_lost = _subtract(p_largest, q_largest)
    h, lost = _subtract(t, s) if h is None else (h, jnp.zeros_like(shift))  # logits may be far from 0
    h = (h - shift) + (lost - shift_lost)
    h = jnp.where(weight > 0, h * scale, jnp.full_like(h, _ABSENT))
    mean = jnp.sum(weight * h, axis=axes, keepdims=True) / total  # +inf where p has a class that q lacks
    lacks = mean == jnp.inf
    mean = jnp.where(lacks, jnp.zeros_like(mean), mean)
    p, gap = weight * (1 / total), h - mean
    # log q = (s − largest)·scale + offset. Until KL is known, the offset that makes log p − log q equal to the gap.
    offset = mean - log_total
    # KL is at least the offset: where that is large the classical difference is as good, and cannot overflow.
    classical = lacks | (offset > 4)
    q_scaled = (s - q_largest) * scale
    exponential = jnp.exp(q_scaled + jnp.where(classical, jnp.zeros_like(offset), offset))
    near = jnp.abs(gap) < 0.5
    terms = jnp.where(
        classical,
        exponential,
        jnp.where(near, p * series(-jnp.where(near, gap, jnp.zeros_like(gap)), reach=0.5), exponential - p * (1 - gap)),
    )
    sums = jnp.sum(terms, axis=axes, keepdims=True)
    one = jnp.ones_like(sums)
    log_sums = jnp.log(jnp.where(classical & (sums > 0), sums, one))
    kl = jnp.where(classical, offset + log_sums, jnp.log1p(jnp.where(classical, one, sums)))
    q_offset = jnp.where(classical, -log_sums, offset - kl)
    log_q = q_scaled + q_offset
    q = jnp.exp(log_q)
    ratio = jnp.where(classical, h + (log_sums - log_total), gap + kl)
    close = jnp.abs(ratio) < 0.5
    difference = jnp.where(
        close, p * series(-jnp.where(close, ratio, jnp.zeros_like(ratio)), first=1, reach=0.5), q - p
    )
    kl = jnp.where(lacks, jnp.full_like(kl, jnp.inf), kl)
    if normalized:
        return Parts(p, q, gap, ratio, difference, log_q, kl)
    # A row of p without classes beside one of q that has some is no distribution.
    undefined = (jnp.max(t, axis=axes, keepdims=True) == -jnp.inf) & (jnp.max(s, axis=axes, keepdims=True) > -jnp.inf)
    return Parts(p, q, gap, ratio, difference, log_q, jnp.where(undefined, jnp.full_like(kl, jnp.nan), kl))


# What a divergence is made of: its value and its gradients to the logits of p and of q, each row's own.
Evaluate = Callable[[Parts, Any, Axes], tuple[Any, Any, Any]]


def center(p: Array, slope: Array, axes: Axes) -> Array:
    """Return slope − p·Σ slope: the gradient to logits from p times the gradient to p.

    Where a row's divergence is infinite so is its gradient: +∞ at the classes that make it so, −∞ at the others.
    """
    total = jnp.sum(slope, axis=axes, keepdims=True)
    infinite = total == jnp.inf
    finite = jnp.where(infinite, jnp.zeros_like(slope), slope - p * jnp.where(infinite, jnp.zeros_like(total), total))
    downward = jnp.where(p > 0, jnp.full_like(p, -jnp.inf), jnp.zeros_like(p))
    return jnp.where(infinite, jnp.where(slope == jnp.inf, slope, downward), finite)


def project(p: Array, slope: Array, axes: Axes) -> Array:
    """Return `center` for slopes whose sum is not near 0.

    What rounding leaves of the result's sum belongs to the likeliest class, whose slope nearly cancels.
    """
    centered = center(p, slope, axes)
    left = jnp.sum(centered, axis=axes, keepdims=True)
    return jnp.where(jnp.isfinite(left), centered - p * left, centered)


def divergence(evaluate: Evaluate, rows: Rows, parameter: Any = (), difference: Array | None = None) -> Array:
    """Apply a divergence to rows; `difference` is the logits' difference where it is known more exactly."""
    t, s, scale, axes, _, normalized = rows
    return rows.finish(_compiled(evaluate, Layout(axes, normalized), t, s, difference, scale, parameter))


def _evaluate(
    evaluate: Evaluate, layout: Layout, t: Array, s: Array, h: Array | None, scale: Array, parameter: Any
) -> tuple[Array, Array, Array]:
    """Evaluate all rows at once, or on a CPU in blocks that stay in its cache: passes over memory are the cost."""
    axes, normalized = layout

    def whole(t: Array, s: Array, h: Array | None, scale: Array, parameter: Any) -> tuple[Array, Array, Array]:
        return evaluate(compare(t, s, h, scale, axes, normalized=normalized), parameter, axes)

    def blocked(t: Array, s: Array, h: Array | None, scale: Array, parameter: Any) -> tuple[Array, Array, Array]:
        classes = t.shape[-1]
        scales = jnp.broadcast_to(scale, (*t.shape[:-1], 1))
        given = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), (t, s, h, scales))
        parameter = jax.tree.map(lambda x: x.reshape(1), parameter)

        def row(given: Any) -> tuple[Array, Array, Array]:
            t, s, h, scale = given
            return evaluate(compare(t, s, h, scale, (0,), normalized=normalized), parameter, (0,))

        found = jax.lax.map(row, given, batch_size=max(1, _BLOCK // classes))
        kl, to_p, to_q = (x.reshape(*t.shape[:-1], -1) for x in found)
        return kl, to_p, to_q

    sharded = any(x is not None for x in jax.typeof(t).sharding.spec)  # a loop over rows would gather them
    if axes != (t.ndim - 1,) or t.size < 2 * _BLOCK or t.shape[-1] == t.size or sharded:
        return whole(t, s, h, scale, parameter)
    found: tuple[Array, Array, Array] = jax.lax.platform_dependent(
        t, s, h, scale, parameter, cpu=blocked, default=whole
    )
    return found


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _divergence(
    evaluate: Evaluate, layout: Layout, t: Array, s: Array, h: Array | None, scale: Array, parameter: Any
) -> Array:
    return _evaluate(evaluate, layout, t, s, h, scale, parameter)[0]


def _divergence_jvp(
    evaluate: Evaluate, layout: Layout, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Array, Array]:
    """Use the analytic gradients, which keep their digits; h moves with t and s, so its own tangent is left out."""
    t, s, h, scale, parameter = primals
    axes = layout.axes
    value, to_p, to_q = _evaluate(evaluate, layout, t, s, h, scale, parameter)
    tangent = jnp.zeros_like(value)
    for logits, gradient, moved in ((t, to_p, tangents[0]), (s, to_q, tangents[1])):
        if not _is_zero(moved):
            tangent += jnp.sum(gradient * scale * moved, axis=axes, keepdims=True)
        if not _is_zero(tangents[3]):
            centered = jnp.where(logits == -jnp.inf, jnp.zeros_like(logits), logits - maximum(logits, axes))
            tangent += tangents[3] * jnp.sum(gradient * centered, axis=axes, keepdims=True)
    moved = jax.tree.leaves(tangents[4], is_leaf=_is_zero)
    if not all(map(_is_zero, moved)):
        leaves, structure = jax.tree.flatten(parameter)
        filled = [jnp.zeros_like(x) if _is_zero(d) else d for x, d in zip(leaves, moved, strict=True)]
        filled = jax.tree.unflatten(structure, filled)
        tangent += jax.jvp(lambda x: _evaluate(evaluate, layout, t, s, h, scale, x)[0], (parameter,), (filled,))[1]
    return value, tangent


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)


_divergence.defjvp(_divergence_jvp, symbolic_zeros=True)
_compiled = jax.jit(_divergence, static_argnums=(0, 1))  # one program, outside a user's own jit too
