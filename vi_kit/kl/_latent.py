"""What a model with latent variables does with its KL: free bits, balancing, capacity, and what it reports."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from vi_kit.kl._inputs import booleans, broadcast_shapes, class_axes, floats, fraction, in_range, positive

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Bool, Float

    from vi_kit.kl._inputs import Axis

Mean = Callable[["Array"], "Array"]


def _nonnegative(name: str, value: ArrayLike) -> Array:
    return in_range(name, value, "a number not below 0", open_at_least=False)


def _masked(name: str, values: ArrayLike, mask: ArrayLike | None, axis: Axis) -> tuple[Array, Mean, tuple[int, ...]]:
    """Return the values (0 where masked), the mean over the axes of those that count (axes kept), and the axes."""
    (array,) = floats(**{name: values})
    axes = class_axes(axis, array.ndim)
    keep = jnp.ones((), jnp.bool_) if mask is None else booleans("mask", mask)
    if broadcast_shapes(**{name: array.shape, "mask": keep.shape}) != array.shape:
        raise ValueError(f"mask: expected a shape that broadcasts to {array.shape}, got {keep.shape}")
    keep = jnp.broadcast_to(keep, array.shape)
    count = jnp.maximum(jnp.sum(keep, axis=axes, keepdims=True), 1).astype(array.dtype)

    def mean(x: Array) -> Array:
        return jnp.sum(jnp.where(keep, x, jnp.zeros_like(x)), axis=axes, keepdims=True) / count

    return jnp.where(keep, array, jnp.zeros_like(array)), mean, axes


def _at_least(kl: Array, minimum: Array) -> Array:
    minimum = jnp.broadcast_to(minimum, kl.shape)
    # Not jnp.maximum, which would halve the gradient of a KL at the minimum. NaN in either stays NaN.
    return jnp.where((kl < minimum) | jnp.isnan(minimum), minimum, kl)


def batch_then_clip(kl: Array, minimum: Array, mean: Mean) -> Array:
    """Average over the batch, then take the maximum: an order for `free_bits`."""
    return _at_least(mean(kl), minimum)


def clip_then_batch(kl: Array, minimum: Array, mean: Mean) -> Array:
    """Take the maximum at each data point, then average over the batch: an order for `free_bits`."""
    return mean(_at_least(kl, minimum))


def free_bits(
    kl: Float[ArrayLike, "..."],
    minimum: Float[ArrayLike, ""],
    *,
    order: Callable[[Array, Array, Mean], Array],
    axis: Axis = 0,
    mask: Bool[ArrayLike, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""Average a KL over the batch, without reward for bringing it below a minimum.

    $$ \max\Bigl(\lambda, \tfrac1n \sum_i KL_i\Bigr) \;\text{(batch\_then\_clip)} \qquad
       \tfrac1n \sum_i \max(\lambda, KL_i) \;\text{(clip\_then\_batch)} $$

    The two orders differ (the second is never smaller) and published code uses both, hence no default. With a KL of
    shape (batch, groups), `batch_then_clip` and a sum over the result are the free bits of Kingma et al., a minimum a
    group. Sum the latents first and average over batch and time, `axis=(0, 1)`, for Dreamer: versions 1 and 2 average
    before the maximum, version 3 takes it at every step.

    Args:
        kl: KL in nats, any shape.
        minimum: λ, nats an entry that are free, a scalar not below 0.
        order: `batch_then_clip`, `clip_then_batch`, or a function of (kl, minimum, mean), where mean averages over
            the batch and keeps its axes.
        axis: the batch axis, or several.
        mask: which entries count, broadcasting to kl; the others are left out of the mean, even if they hold NaN.

    Returns:
        Nats, the shape of kl without the batch axes. Where the minimum holds, the gradient to kl is 0.

    Raises:
        TypeError: for a KL of integers.
        ValueError: for a negative minimum (a traced one gives NaN), or a mask that does not broadcast to kl.

    Source: D. P. Kingma, T. Salimans, R. Jozefowicz, X. Chen, I. Sutskever, M. Welling, "Improved variational
    inference with inverse autoregressive flow" (2016), https://arxiv.org/abs/1606.04934.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> divergences = jnp.array([[0.0, 3.0], [1.0, 5.0]])  # two data points, two groups
        >>> kl.free_bits(divergences, 1.0, order=kl.batch_then_clip).tolist()
        [1.0, 4.0]
        >>> kl.free_bits(divergences, 4.0, order=kl.clip_then_batch).tolist()
        [4.0, 4.5]
    """
    values, mean, axes = _masked("kl", kl, mask, axis)
    if not callable(order):
        raise TypeError(f"order: expected kl.batch_then_clip, kl.clip_then_batch or a function, got {order!r}")
    if jnp.ndim(minimum):
        raise ValueError(f"minimum: expected a scalar, got shape {jnp.shape(minimum)}")
    return jnp.squeeze(order(values, _nonnegative("minimum", minimum).astype(values.dtype), mean), axes)


@jax.custom_jvp
def _scale_gradient(x: Array, scale: Array) -> Array:
    return x


@_scale_gradient.defjvp
def _scale_gradient_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    x, scale = primals
    return x, jnp.broadcast_to(scale, x.shape).astype(x.dtype) * tangents[0]


def balance(
    divergence: Callable[..., Array], posterior: Any, prior: Any, *, alpha: Float[ArrayLike, ""]
) -> Float[Array, "..."]:
    r"""KL(posterior‖prior) whose gradient is shared out: α of it to the prior, 1 − α to the posterior.

    $$ \alpha\, KL(\mathrm{sg}[q] \,\|\, p) + (1 - \alpha)\, KL(q \,\|\, \mathrm{sg}[p]) $$

    with q the posterior, p the prior and sg a stopped gradient. Above one half, the prior is pulled to the posterior
    faster than the posterior to the prior. The value is that of `divergence`, which is evaluated once. DreamerV3's
    pair of losses with coefficients a (dynamics) and b (representation), free nats included, is (a + b) times this
    at α = a/(a + b).

    Args:
        divergence: function of (posterior, prior), an array or a pytree of arrays each; two tuples are passed as
            their elements, `divergence(*posterior, *prior)`, so that `kl.normal` takes means and log scales.
        posterior: q, passed on.
        prior: p, passed on.
        alpha: α, from 0 to 1 (0.8 in DreamerV2).

    Returns:
        What `divergence` returns.

    Raises:
        ValueError: for α outside [0, 1]; a traced one gives NaN gradients.

    Source: D. Hafner, T. Lillicrap, M. Norouzi, J. Ba, "Mastering Atari with discrete world models" (2021),
    https://arxiv.org/abs/2010.02193.

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit.kl as kl
        >>> logits = jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0])
        >>> value = kl.balance(kl.categorical, *logits, alpha=0.8)
        >>> q, p = (jnp.ones(3), jnp.zeros(3)), (jnp.zeros(3), jnp.zeros(3))  # means and log scales
        >>> print(kl.balance(kl.normal, q, p, alpha=0.8))
        [0.5 0.5 0.5]
    """
    alpha = fraction("alpha", alpha)

    def scaled(tree: Any, scale: Array) -> Any:
        def leaf(x: Any) -> Any:
            return _scale_gradient(jnp.asarray(x), scale) if jnp.issubdtype(jnp.result_type(x), jnp.inexact) else x

        return jax.tree.map(leaf, tree)

    q, p = scaled(posterior, 1 - alpha), scaled(prior, alpha)
    return divergence(*q, *p) if isinstance(q, tuple) and isinstance(p, tuple) else divergence(q, p)


def capacity(
    kl: Float[ArrayLike, "..."], target: Float[ArrayLike, ""], *, gamma: Float[ArrayLike, ""]
) -> Float[Array, "..."]:
    r"""Hold a KL near a capacity: γ |KL − C|, elementwise.

    Let C grow in training (`schedules.linear(num_steps, end=25.0)`), so that the code carries more and more.

    Args:
        kl: KL in nats, summed over the latents; usually averaged over the batch too.
        target: the capacity C in nats, a scalar not below 0.
        gamma: weight γ, a positive scalar (1000 in the source).

    Returns:
        γ nats, the shape of kl. The gradient to kl is ±γ, and 0 where kl is the capacity.

    Raises:
        TypeError: for a KL of integers.
        ValueError: for a negative capacity or γ not above 0 (traced ones give NaN).

    Source: C. P. Burgess, I. Higgins, A. Pal, L. Matthey, N. Watters, G. Desjardins, A. Lerchner, "Understanding
    disentangling in β-VAE" (2018), https://arxiv.org/abs/1804.03599.

    Example:
        >>> import vi_kit.kl as kl
        >>> float(kl.capacity(3.0, 5.0, gamma=10.0))
        20.0
    """
    values, level, weight = floats(kl=kl, target=_nonnegative("target", target), gamma=positive("gamma", gamma))
    excess = values - level
    return weight * excess * jnp.sign(excess)  # not jnp.abs, which has gradient 1 at 0


def active_units(
    means: Float[ArrayLike, "..."],
    *,
    threshold: Float[ArrayLike, ""] = 0.01,
    axis: Axis = 0,
    mask: Bool[ArrayLike, "..."] | None = None,
) -> Bool[Array, "..."]:
    r"""Tell which latent units carry information: those whose posterior mean varies over the data.

    $$ \mathrm{Var}_x\, \mathbb{E}[z_j \mid x] > \text{threshold} $$

    Args:
        means: posterior means, by default of shape (data points, units).
        threshold: variance above which a unit is active, in units of the prior's variance, not below 0.
        axis: the axis of the data points, or several.
        mask: which entries count, broadcasting to the means; the others are left out, even if they hold NaN.

    Returns:
        A boolean a unit, the shape of means without the axis: sum them for the count. A unit whose means hold NaN is
        not active.

    Raises:
        TypeError: for means of integers.
        ValueError: for a negative threshold, or a mask that does not broadcast to the means.

    Source: Y. Burda, R. Grosse, R. Salakhutdinov, "Importance weighted autoencoders" (2016),
    https://arxiv.org/abs/1509.00519.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> kl.active_units(jnp.array([[0.0, 1.0], [0.001, -1.0]])).tolist()
        [False, True]
    """
    values, mean, axes = _masked("means", means, mask, axis)
    variance = jnp.squeeze(mean(jnp.square(values - jnp.broadcast_to(mean(values), values.shape))), axes)
    return variance > _nonnegative("threshold", threshold).astype(variance.dtype)


def nats_to_bits_per_dim(nats: Float[ArrayLike, "..."], num_dims: int) -> Float[Array, "..."]:
    r"""Convert nats an example to bits a dimension: nats / (D log 2).

    Args:
        nats: nats an example, such as a negative ELBO summed over the pixels.
        num_dims: D, the number of dimensions of an example (3072 for 32 × 32 × 3), positive.

    Returns:
        Bits a dimension, the shape of nats.

    Raises:
        TypeError: for nats of integers.
        ValueError: for a number of dimensions not above 0.

    Example:
        >>> import vi_kit.kl as kl
        >>> print(f"{kl.nats_to_bits_per_dim(2129.35, 3072):.3f}")
        1.000
    """
    values, dims = floats(nats=nats, num_dims=positive("num_dims", num_dims))
    return values / (dims * math.log(2))
