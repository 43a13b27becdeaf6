"""KL between the outputs of two linear layers, as of a teacher and a student: the logits are never all in memory."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit.kl._fused_passes import Layer, Problem, Windows, gradients, rescale, see, see_with_gradients, times, zeros
from vi_kit.kl._inputs import booleans, broadcast_shapes, fraction, is_traced, positive

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Bool, Float

_TILE_ENTRIES = 2**23  # the most logits of one layer in a tile, down to 256 classes
# A block of rows reads the weights, and adds to their gradient, once more. From as many rows on that costs less than
# forming the logits twice: a machine's arithmetic per byte (measured on the CPU, estimated elsewhere).
_ROWS_WORTH_A_PASS = {"cpu": 64}
_ROWS_WORTH_A_PASS_ELSEWHERE = 512
_BLOCK_ENTRIES = 2**24  # the most logits of both layers in such a block: 64 MiB of float32


@jax.tree_util.register_static
class _Wanted(tuple):
    """Which arrays have a gradient: structure, not data."""


def fused_linear(
    p_hidden: Float[ArrayLike, "... p_dim"],
    p_weight: Float[ArrayLike, "classes p_dim"],
    q_hidden: Float[ArrayLike, "... q_dim"],
    q_weight: Float[ArrayLike, "classes q_dim"],
    *,
    p_bias: Float[ArrayLike, " classes"] | None = None,
    q_bias: Float[ArrayLike, " classes"] | None = None,
    beta: Float[ArrayLike, ""] | None = None,
    normalize: bool = False,
    temperature: Float[ArrayLike, ""] = 1.0,
    softcap: Float[ArrayLike, ""] | None = None,
    logit_scale: Float[ArrayLike, ""] = 1.0,
    where: Bool[ArrayLike, " classes"] | None = None,
    mask: Bool[ArrayLike, "..."] | None = None,
    tile_size: int | None = None,
) -> Float[Array, "..."]:
    r"""KL(p‖q), or Jensen–Shannon, between the outputs of two linear layers, without their logits in memory.

    $$ p = \mathrm{softmax}(f(W_p h_p + b_p)), \quad q = \mathrm{softmax}(f(W_q h_q + b_q)), \quad
       f(z) = \frac{c}{T} \tanh\frac{a z}{c} \ \text{ or } \ f(z) = \frac{a z}{T} $$

    with a the logit_scale, c the softcap and T the temperature. What `categorical` and `jensen_shannon` give for these
    logits, as exact near equality and with the same conventions, in tiles of classes: memory beyond arguments and
    gradients grows with rows × tile_size, not with rows × classes (200 MiB instead of 16 GiB for 8192 rows of width
    4096 and 128 256 classes in float32). With p the teacher this is forward distillation, mass-covering in q; swap the
    sides for the reverse.

    Near equality the answer is as exact as the two products are: logits are rounded by about their size times 1e-7
    in float32, which adds about the square of that to KL. On hardware that rounds the factors of float32 products, ask
    for more with `jax.default_matmul_precision`, around the gradient too. Half-precision layers multiply in their own
    dtype and sum in float32, over all tiles; gradients are rounded once, at the end (bfloat16 gradients of the logits
    once before).

    Differentiable in reverse mode, once, to hidden states, weights and biases; for a side that nobody differentiates no
    gradient is formed. Where a block of rows with all its classes is worth it, gradients are formed with the values: if
    then all rows that count have the same cotangent, as after a sum or a mean, no logit is formed twice; else those of
    weights and biases take another pass. Gradients to weights in half precision always take it.

    Args:
        p_hidden: what p's layer is applied to; leading axes are rows.
        p_weight: weights of p's layer.
        q_hidden: what q's layer is applied to; the two sides may have different widths, their rows broadcast.
        q_weight: weights of q's layer, for the same classes.
        p_bias: bias of p's layer; −∞ is a class that p lacks (unless a softcap bounds it).
        q_bias: bias of q's layer.
        beta: if given, Jensen–Shannon with this weight of p in the mixture, as in `jensen_shannon`; 0 is KL(p‖q), 1 is
            KL(q‖p). A concrete 0 or 1 saves a pass.
        normalize: whether to divide Jensen–Shannon by β(1 − β).
        temperature: divides the logits; may be traced.
        softcap: bounds the logits smoothly before the temperature.
        logit_scale: multiplies the layers' outputs; a scale of one side alone can be multiplied into its hidden states
            and bias.
        where: which classes exist, the same for all rows; weights of the others may hold anything.
        mask: which rows count; the others give 0 and gradient 0, even if they hold NaN. Give it here as well as to a
            later `reduce`: the rows that count then have the same cotangent, which is faster by a third.
        tile_size: classes in a tile; by default 2048, fewer beyond 4096 rows.

    Returns:
        The divergence in nats, one value a row, at least float32: the shape of the rows.

    Raises:
        TypeError: for integer arrays, a mask of floats, and when temperature, softcap, logit_scale or beta is
            differentiated; from JAX, in forward mode.
        ValueError: for shapes that do not fit, no classes, numbers out of range (traced ones give NaN).

    Source:
        Erik Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", 2024,
        https://arxiv.org/abs/2411.09009, for cross-entropy.

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit.kl as kl
        >>> keys = jax.random.split(jax.random.key(0), 4)
        >>> teacher, student = jax.random.normal(keys[0], (2, 3, 16)), jax.random.normal(keys[1], (2, 3, 8))
        >>> teacher_head, student_head = jax.random.normal(keys[2], (100, 16)), jax.random.normal(keys[3], (100, 8))
        >>> values = kl.fused_linear(teacher, teacher_head, student, student_head, tile_size=32)
        >>> dense = kl.categorical(teacher @ teacher_head.T, student @ student_head.T)
        >>> values.shape, bool(jnp.allclose(values, dense, rtol=1e-5))
        ((2, 3), True)
    """
    hidden, weight, bias = (p_hidden, q_hidden), (p_weight, q_weight), (p_bias, q_bias)
    p, q = (_layer(*x) for x in zip("pq", hidden, weight, bias, strict=True))
    num_classes = p.weight.shape[0]
    if q.weight.shape[0] != num_classes:
        raise ValueError(f"q_weight: expected {num_classes} classes as p_weight has, got {q.weight.shape[0]}")
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(p.hidden.dtype, q.hidden.dtype, jnp.float32)
    shape = broadcast_shapes(p_hidden=p.hidden.shape[:-1], q_hidden=q.hidden.shape[:-1])
    counts = None
    if mask is not None:
        counts = booleans("mask", mask)
        if broadcast_shapes(mask=counts.shape, rows=shape) != shape:
            raise ValueError(f"mask: expected a shape that broadcasts to the rows {shape}, got {counts.shape}")
        counts = jnp.broadcast_to(counts, shape).reshape(-1)
    exists = None
    if where is not None:
        exists = booleans("where", where)
        if exists.shape != (num_classes,):
            raise ValueError(f"where: expected shape {(num_classes,)}, the same for all rows, got {exists.shape}")

    def flat(layer: Layer) -> Layer:
        x = jnp.broadcast_to(layer.hidden, (*shape, layer.hidden.shape[-1])).reshape(-1, layer.hidden.shape[-1])
        return layer._replace(hidden=x if counts is None else jnp.where(counts[:, None], x, jnp.zeros_like(x)))

    def scalar(name: str, value: Any) -> Array:
        found = _constant(positive(name, value).astype(dtype))
        if found.ndim:
            raise ValueError(f"{name}: expected one number, got shape {found.shape}")
        return found

    inner, heat = scalar("logit_scale", logit_scale), scalar("temperature", temperature)
    cap = None if softcap is None else scalar("softcap", softcap)
    scale = inner / heat if cap is None else 1 / heat
    share = None
    if beta is not None:
        share = _constant(fraction("beta", beta).astype(dtype))
        if share.ndim:
            raise ValueError(f"beta: expected one number, got shape {share.shape}")
        if not is_traced(beta) and np.asarray(beta) in (0.0, 1.0):
            p, q, share = (p, q, None) if np.asarray(beta) == 0 else (q, p, None)
    elif normalize:
        raise ValueError("normalize: expected beta beside it, got none")
    num_rows = math.prod(shape)
    if tile_size is None:
        tile_size = min(2048, max(256, _TILE_ENTRIES // max(num_rows, 1)))
    elif not isinstance(tile_size, int) or tile_size < 1:
        raise ValueError(f"tile_size: expected a positive number of classes, got {tile_size}")
    if num_rows == 0:
        return jnp.zeros(shape, dtype)
    classes = Windows(num_classes, min(tile_size, num_classes))
    worth = _ROWS_WORTH_A_PASS.get(jax.default_backend(), _ROWS_WORTH_A_PASS_ELSEWHERE)
    values: Array = _compiled(classes, worth, Problem(flat(p), flat(q), scale, inner, cap, share, exists, counts))
    if share is not None and not normalize:
        values *= jnp.where((share == 0) | (share == 1), jnp.ones_like(share), share * (1 - share))
    if counts is not None:
        values = jnp.where(counts, values, jnp.zeros_like(values))
    return values.reshape(shape)


def _layer(side: str, hidden: Any, weight: Any, bias: Any) -> Layer:
    """Read a layer: hidden states in the dtype of the product, the weights as they are, for they are large."""
    found = Layer(jnp.asarray(hidden), jnp.asarray(weight), None if bias is None else jnp.asarray(bias))
    for name, array in found._asdict().items():
        if array is not None and not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"{side}_{name}: expected floating-point numbers, got {array.dtype}{list(array.shape)}")
    if found.hidden.ndim == 0:
        raise ValueError(f"{side}_hidden: expected an array with an axis of features, got a scalar")
    num_features = found.hidden.shape[-1]
    if found.weight.ndim != 2 or found.weight.shape[1] != num_features or found.weight.shape[0] == 0:
        raise ValueError(
            f"{side}_weight: expected shape (classes, {num_features}) beside {side}_hidden of shape "
            f"{found.hidden.shape}, got {found.weight.shape}"
        )
    if found.bias is not None and found.bias.shape != found.weight.shape[:1]:
        raise ValueError(f"{side}_bias: expected shape {found.weight.shape[:1]}, got {found.bias.shape}")
    with jax.numpy_dtype_promotion("standard"):
        return found._replace(hidden=found.hidden.astype(jnp.result_type(found.hidden, found.weight)))


@jax.custom_jvp
def _constant(number: Array) -> Array:
    """Refuse to be differentiated. Outside the function that has a rule of its own: an error in there breaks it."""
    return number


@_constant.defjvp
def _constant_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    raise TypeError(
        "fused_linear: expected temperature, softcap, logit_scale and beta to be constants, got one that is "
        "differentiated; a learned scale can be multiplied into the hidden states and biases"
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _fused(classes: Windows, worth: int, problem: Problem) -> Array:
    rows, _ = see(problem, classes)
    return rows.values


def _forward(classes: Windows, worth: int, perturbed: Any) -> tuple[Array, Any]:
    problem = jax.tree.map(lambda x: x.value, perturbed)
    flags = jax.tree.map(lambda x: x.perturbed, perturbed)
    wanted = flags[:2]
    blocks = _blocks(classes, worth, problem, wanted)
    if blocks is None:
        rows, _ = see(problem, classes)
        return rows.values, (problem, rows, _Wanted(wanted), None)
    rows, sums = see_with_gradients(problem, classes, blocks, wanted)
    return rows.values, (problem, rows, _Wanted(wanted), sums)


def _blocks(classes: Windows, worth: int, problem: Problem, wanted: Any) -> Windows | None:
    """Return blocks of rows whose logits of all classes take no more than a few tiles' memory, if worth it."""
    num_rows = problem.p.hidden.shape[0]
    if classes.count == 1:
        return Windows(num_rows, num_rows)
    weights = [x.weight for x, want in zip((problem.p, problem.q), wanted, strict=True) if want.weight]
    if any(x.dtype != problem.dtype for x in weights):
        return None  # their gradients, summed over blocks, would be rounded every time
    entries = min(_BLOCK_ENTRIES, 8 * num_rows * classes.size)
    size = min(num_rows // 2, entries // (2 * classes.total))
    return Windows(num_rows, size) if size >= (worth if weights else worth // 4) else None


def _backward(classes: Windows, worth: int, saved: Any, cotangent: Any) -> tuple[Any]:
    problem, rows, wanted, sums = saved
    nothing = jax.tree.map(lambda _: None, problem)
    if isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
        return (nothing,)
    if sums is None:
        start = zeros(problem, wanted)
        sums = gradients(problem, classes, rows, cotangent, start, classes.count)
    else:
        hidden = [x.hidden if x.hidden is None else times(x.hidden, cotangent[:, None]) for x in sums]
        if any(x is not None for layer in sums for x in layer[1:]):
            counts = jnp.ones_like(cotangent, bool) if problem.mask is None else problem.mask
            most = jnp.max(jnp.where(counts, cotangent, jnp.full_like(cotangent, -jnp.inf)))
            least = jnp.min(jnp.where(counts, cotangent, jnp.full_like(cotangent, jnp.inf)))
            equal = most == least
            common = jnp.where(equal, most, jnp.zeros_like(most))
            start = tuple(
                Layer(None, *(x if x is None else rescale(x, common, classes) for x in layer[1:])) for layer in sums
            )
            sums = gradients(problem, classes, rows, cotangent, start, jnp.where(equal, 0, classes.count))
        sums = tuple(x._replace(hidden=h) for x, h in zip(sums, hidden, strict=True))
    found = [
        Layer(*(x if x is None else x.astype(primal.dtype) for x, primal in zip(own, of, strict=True)))
        for own, of in zip(sums, (problem.p, problem.q), strict=True)
    ]
    return (nothing._replace(p=found[0], q=found[1]),)


_fused.defvjp(_forward, _backward, symbolic_zeros=True)
_compiled = jax.jit(_fused, static_argnums=(0, 1))
