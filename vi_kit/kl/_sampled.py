"""KL from draws: what is averaged (the value) and what is differentiated (the gradient) are chosen apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from vi_kit._estimate import Estimate
from vi_kit.kl._compensated import expm1_minus
from vi_kit.kl._inputs import Axis, booleans, class_axes, floats

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Bool, Float

# (log ratio (draws, terms), log weight (draws, 1)) -> weighted value of each term
Estimator = Callable[[Any, Any], Any]
# (log p, log q (draws, terms), log weight (draws, 1)) -> what is differentiated in place of each term
Gradient = Callable[[Any, Any, Any], Any]


def k1(log_ratio: Float[ArrayLike, "..."], log_weight: Float[ArrayLike, "..."] = 0.0) -> Float[Array, "..."]:
    """The log ratio r itself: unbiased whatever p and q are, but often negative and noisy where they are close.

    Args:
        log_ratio: r = log p(x) − log q(x) at draws x, any shape.
        log_weight: logarithm of the draws' weights, broadcasting to it.

    Returns:
        weight · r, elementwise, in nats.

    Example:
        >>> import vi_kit.kl as kl
        >>> float(kl.k1(-0.5)), float(kl.k2(-0.5))
        (-0.5, 0.125)
    """
    r, log_weight = floats(log_ratio=log_ratio, log_weight=log_weight)
    return jnp.exp(log_weight) * r


def k2(log_ratio: Float[ArrayLike, "..."], log_weight: Float[ArrayLike, "..."] = 0.0) -> Float[Array, "..."]:
    """Half the squared log ratio, r²/2: biased, by 1 % where KL is 4e-4, by 40 % where it is 0.3.

    Takes what `k1` takes.

    Returns:
        weight · r²/2, elementwise, in nats.
    """
    r, log_weight = floats(log_ratio=log_ratio, log_weight=log_weight)
    return jnp.exp(log_weight) * (0.5 * r * r)


def k3(log_ratio: Float[ArrayLike, "..."], log_weight: Float[ArrayLike, "..."] = 0.0) -> Float[Array, "..."]:
    """exp(−r) − 1 + r: never negative, exact near r = 0, with far less noise than r where p and q are close.

    Unbiased where p > 0 wherever q > 0; else it misses q's mass outside the support of p (draws from a p cut to its top
    classes beside a q that is not). Its variance is finite where that of q(x)/p(x) is: not so for a q with much
    heavier tails than p.

    Takes what `k1` takes.

    Returns:
        weight · (exp(−r) − 1 + r), elementwise, in nats.

    Source:
        J. Schulman, Approximating KL Divergence (2020), http://joschu.net/blog/kl-approx.html

    Example:
        >>> import vi_kit.kl as kl
        >>> print(f"{kl.k3(-0.5):.4f}")
        0.1487
    """
    r, log_weight = floats(log_ratio=log_ratio, log_weight=log_weight)
    return _weighted_exponential(expm1_minus, r - 1, r, log_weight)


def control_variate(
    log_ratio: Float[ArrayLike, "draws ..."], log_weight: Float[ArrayLike, "draws ..."] = 0.0
) -> Float[Array, "draws ..."]:
    r"""The log ratio with a fitted control variate, r + c (exp(−r) − 1): unbiased as `k3` (c = 1), with less noise.

    For draw i with terms t and weight w, with A and B the sums over its terms of w·k3 and of w·(exp(−r) − 1), which
    has mean 0,

    $$ c_i = 1 - \frac{\sum_{j \ne i} A_j B_j}{\sum_{j \ne i} B_j^2} $$

    minimizes the variance over the other draws; that draw i has no part in it keeps the estimate unbiased. Where there
    is no finite fit (a single draw, p = q) it is `k3`.

    Args:
        log_ratio: r = log p(x) − log q(x); the first axis holds the draws, any further ones their terms.
        log_weight: logarithm of the draws' weights, broadcasting to it.

    Returns:
        weight · (r + c (exp(−r) − 1)), elementwise, in nats.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> print(kl.control_variate(jnp.array([0.3, 0.1, -0.2])).round(3))
        [0.06  0.    0.053]
    """
    r, log_weight = floats(log_ratio=log_ratio, log_weight=log_weight)
    value = k3(r, log_weight)
    exponential = _weighted_exponential(jnp.expm1, -jnp.ones_like(r), r, log_weight)
    terms = tuple(range(1, r.ndim))
    a, b = jnp.sum(value, axis=terms, keepdims=True), jnp.sum(exponential, axis=terms, keepdims=True)
    below = _others(b * b)
    fit = _others(a * b) / jnp.where(below == 0, jnp.ones_like(below), below)
    return value - jnp.where((below > 0) & jnp.isfinite(fit), fit, jnp.zeros_like(fit)) * exponential


def _weighted_exponential(function: Callable[[Array], Array], rest: Array, r: Array, log_weight: Array) -> Array:
    """Return weight · function(−r), function(−r) being exp(−r) + rest, where exp(−r) alone would overflow too."""
    far = r < -1
    one = jnp.ones_like(r)
    near = function(jnp.where(far, one, -r))
    weight = jnp.exp(log_weight)
    return jnp.where(far, jnp.exp(log_weight - jnp.where(far, r, one)) + weight * rest, weight * near)


def score(log_p: Float[Array, "n terms"], log_q: Float[Array, "n terms"], log_weight: Float[Array, "n 1"]) -> Array:
    r"""The unbiased gradient of KL(p‖q) when the draws are constants: score function for p, log q's for q.

    $$ \nabla KL = E\left[w (R - b) \nabla\log p(x) - w \nabla\log q(x)\right], \quad R = \sum_t r_t $$

    The baseline b is the weighted mean of R over the other draws (leave-one-out: no bias). First derivatives only.

    Args:
        log_p: log p of each term of each draw.
        log_q: the same of q.
        log_weight: logarithm of the draws' weights p/behavior.

    Returns:
        what is differentiated in place of each term.

    Source:
        W. Kool et al., Buy 4 REINFORCE Samples, Get a Baseline for Free! (2019), https://openreview.net/forum?id=r1lgTGL5DE
    """
    weight = jax.lax.stop_gradient(jnp.exp(log_weight))
    total = jax.lax.stop_gradient(jnp.sum(log_p - log_q, axis=1, keepdims=True))
    return weight * ((total - mean_of_others(total, weight)) * log_p - log_q)


def pathwise(log_p: Float[Array, "n terms"], log_q: Float[Array, "n terms"], log_weight: Float[Array, "n 1"]) -> Array:
    """The weighted log ratio differentiated as it is: unbiased where the draws are reparameterized.

    The draws must carry their gradient: x = f(noise, parameters), not stopped. Then it is usually the gradient with
    the least noise. With constant draws it is wrong for p, whose gradient comes out as 0 on average. With
    `jax.lax.stop_gradient` on p's parameters inside log p (not inside x) it is the sticking-the-landing gradient.

    Takes what `score` takes.

    Returns:
        what is differentiated in place of each term.
    """
    return jnp.exp(log_weight) * (log_p - log_q)


def none(log_p: Float[Array, "n terms"], log_q: Float[Array, "n terms"], log_weight: Float[Array, "n 1"]) -> Array:
    """No gradient: the estimate is a constant, to be watched rather than trained on.

    Takes what `score` takes.

    Returns:
        zeros.
    """
    return jnp.zeros_like(log_p)


def estimate(
    log_p: Float[ArrayLike, "..."],
    log_q: Float[ArrayLike, "..."],
    *,
    estimator: Estimator = k1,
    gradient: Gradient = score,
    log_behavior: Float[ArrayLike, "..."] | None = None,
    mask: Bool[ArrayLike, "..."] | None = None,
    axis: Axis = 0,
) -> Estimate:
    r"""KL(p‖q) from draws x of p (or of a behavior distribution): one number with its standard error.

    $$ \widehat{KL} = \frac1n \sum_i w_i \sum_t k(r_{it}), \quad r = \log p - \log q, \quad
       w_i = \prod_t \frac{p_{it}}{b_{it}} \text{ (1 without a behavior b)} $$

    `axis` holds independent draws. Everything else is a draw's terms, whose log probabilities add up to the draw's:
    the tokens of a sequence, each given those before it, or independent factors. KL is that of the whole draw. The
    estimator is applied to each term and summed; applied to the ratio of a whole sequence, exp(−r) would explode.
    For batches of estimates use `jax.vmap`.

    | estimator | bias | noise |
    |---|---|---|
    | `k1` | none | large where p and q are close, the smallest where q's tails are much heavier |
    | `k2` | of order KL^(3/2) | small |
    | `k3` | none where p > 0 wherever q > 0 | small, unless q's tails are much heavier |
    | `control_variate` | as `k3` | at most that of `k1` and `k3` for many draws |

    The gradient does not depend on the estimator. (To p's parameters at constant draws, the derivative of `k1` has
    mean 0, that of `k2` is right and that of `k3` belongs to KL(q‖p).) `score` is unbiased for the parameters of p
    and q; `pathwise` is if the draws are reparameterized; `none` is 0. Weights are not normalized, so value and
    gradient stay unbiased; the behavior gets a gradient from `pathwise` alone. Weights of long sequences are
    hopeless: look at `num_effective`. Estimators and gradients are plain functions: your own will do.

    Args:
        log_p: log p(x) at the draws, one number a term.
        log_q: log q(x), same shape.
        estimator: `kl.k1`, `kl.k2`, `kl.k3` or `kl.control_variate`.
        gradient: `kl.score`, `kl.pathwise` or `kl.none`.
        log_behavior: log b(x), same shape, where the draws are from b and not p; needs b > 0 wherever p > 0. A
            draw that p cannot make (log p = −∞) has weight 0.
        mask: terms that count, with as many axes as log_p, of the same length or 1; the others may hold NaN. A draw
            none of whose terms count (`mask[:, None]` for whole draws) is left out, not counted as 0.
        axis: the axis of the draws, or several.

    Returns:
        value in nats; its standard error, without gradient: right for a finite variance, for `k2` around its biased
        mean, infinite for fewer than two draws; num_effective, the number of draws or (Σw)²/Σw². Without draws the
        value is 0.

    Raises:
        TypeError: for integer log probabilities or a mask of floats.
        ValueError: for shapes that differ or an axis out of range.

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit.kl as kl
        >>> log_p, log_q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
        >>> x = jax.random.categorical(jax.random.key(0), log_p, shape=(4000,))
        >>> estimate = kl.estimate(log_p[x], log_q[x], estimator=kl.k3)
        >>> print(f"{estimate.value:.3f} ± {estimate.standard_error:.3f}")  # exactly 0.144
        0.144 ± 0.001
    """
    for name, function in (("estimator", estimator), ("gradient", gradient)):
        if not callable(function):
            raise TypeError(f"{name}: expected a function such as kl.k3 or kl.score, got {function!r}")
    named = {"log_p": log_p, "log_q": log_q} | ({} if log_behavior is None else {"log_behavior": log_behavior})
    arrays = floats(**named)
    shape = arrays[0].shape
    for name, array in zip(named, arrays, strict=True):
        if array.shape != shape:
            raise ValueError(f"{name}: expected shape {shape} as log_p has, got {array.shape}")
    counts = jnp.ones(shape, bool) if mask is None else booleans("mask", mask)
    if counts.ndim != len(shape) or any(size not in (1, full) for size, full in zip(counts.shape, shape, strict=True)):
        raise ValueError(f"mask: expected shape {shape} as log_p has, or 1 for some axes, got {counts.shape}")
    axes = class_axes(axis, len(shape))
    num = math.prod(shape[i] for i in axes)
    terms = math.prod(shape[i] for i in range(len(shape)) if i not in axes)

    def by_draw(array: Array) -> Array:
        return jnp.moveaxis(jnp.broadcast_to(array, shape), axes, range(len(axes))).reshape(num, terms)

    counts = by_draw(counts)
    arrays = [jnp.where(counts, a, jnp.zeros_like(a)) for a in map(by_draw, arrays)]
    drawn = jnp.any(counts, axis=1, keepdims=True)
    weighted = drawn
    if log_behavior is not None:  # a draw that p cannot make: p log(p/q) is 0, and its logarithms are kept away
        impossible = (arrays[0] == -jnp.inf) & (arrays[2] > -jnp.inf)
        weighted &= ~jnp.any(impossible, axis=1, keepdims=True)
        arrays = [jnp.where(weighted, a, jnp.zeros_like(a)) for a in arrays]
    p, q, *behavior = arrays
    log_weight = jnp.sum(p - behavior[0] if behavior else jnp.zeros_like(p), axis=1, keepdims=True)
    log_weight = jnp.where(weighted, log_weight, jnp.full_like(log_weight, -jnp.inf))

    def draw_total(values: Array) -> Array:
        if values.shape != counts.shape:
            raise ValueError(f"estimator, gradient: expected values of shape {counts.shape}, got {values.shape}")
        return jnp.sum(jnp.where(counts, values, jnp.zeros_like(values)), axis=1, keepdims=True)

    values = jax.lax.stop_gradient(draw_total(estimator(p - q, log_weight)))
    n = jnp.sum(drawn, dtype=values.dtype)
    mean = jnp.sum(values) / jnp.maximum(n, 1)
    deviation = jnp.where(drawn, values - mean, jnp.zeros_like(values))
    largest = jnp.max(log_weight, initial=-jnp.inf)
    scaled = jnp.exp(log_weight - jnp.where(jnp.isfinite(largest), largest, jnp.zeros_like(largest)))
    effective = jax.lax.stop_gradient(jnp.sum(scaled) ** 2 / jnp.maximum(jnp.sum(scaled * scaled), 1))
    error = jnp.sqrt(jnp.sum(deviation * deviation) / jnp.maximum(n * (n - 1), 1))
    error = jnp.where((n > 1) & (effective != 0), error, jnp.full_like(error, jnp.inf))
    surrogate = jnp.sum(draw_total(gradient(p, q, log_weight))) / jnp.maximum(n, 1)
    return Estimate(with_gradient(mean, surrogate), error, effective)


@jax.custom_jvp
def with_gradient(value: Array, surrogate: Array) -> Array:
    """Return the value with the gradient of another function, also where that function is infinite."""
    return value


with_gradient.defjvp(lambda primals, tangents: (primals[0], tangents[1]))


def mean_of_others(values: Array, weight: Array) -> Array:
    """Return the weighted mean of all other draws (axis 0) for each, 0 where they weigh nothing."""
    total = _others(weight)
    return _others(weight * values) / jnp.where(total == 0, jnp.ones_like(total), total)


def _others(values: Array) -> Array:
    """Sum over all other draws (axis 0), added up and not subtracted from the total: one huge draw costs no digits."""
    end = jnp.zeros_like(values[:1])
    before = jnp.concatenate([end, jnp.cumsum(values[:-1], axis=0)])
    return before + jnp.concatenate([jax.lax.cumsum(values[1:], axis=0, reverse=True), end])
