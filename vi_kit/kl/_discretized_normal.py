"""The likelihood of bytes under a normal: the last term of a diffusion model, or the decoder of a VAE."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from vi_kit.kl._gaussian import elementwise

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Float

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def _mills(x: Array) -> Array:
    """Return Φ(−x)/φ(x) for x ≥ 0: its logarithm is right to rounding beside x²/2, which it is added to."""
    far = x > 5
    fraction = near = jnp.where(far, x, jnp.full_like(x, 5.0))
    for k in range(16, 0, -1):  # Laplace's continued fraction
        fraction = near + k / fraction
    x = jnp.where(far, jnp.zeros_like(x), x)
    near = math.sqrt(math.pi / 2) * jnp.exp(0.5 * x * x) * jax.scipy.special.erfc(x * math.sqrt(0.5))
    return jnp.where(far, 1 / fraction, near)


def discretized_normal_log_prob(
    x: Float[ArrayLike, "..."],
    mean: Float[ArrayLike, "..."],
    log_scale: Float[ArrayLike, "..."],
    *,
    num_bins: int = 256,
) -> Float[Array, "..."]:
    r"""Log probability, elementwise, of the bin that x lies in the middle of, under a normal on [−1, 1] cut into bins.

    $$ \log\Bigl[\Phi\Bigl(\frac{x + h - m}{\sigma}\Bigr) - \Phi\Bigl(\frac{x - h - m}{\sigma}\Bigr)\Bigr],
       \quad h = \frac{1}{\text{num\_bins} - 1} $$

    The first bin reaches to −∞ and the last to +∞, so that the probabilities sum to 1. The difference is taken of
    logarithms, relative to the density where the bin is nearest to the mean: neither bins far in a tail nor bins much
    narrower than the scale lose their digits or gradient, and no probability is clipped. The value is right to
    2e-6 of max(1, |value|) in float32 while log_scale is within ±40.

    Args:
        x: values on the grid −1, −1 + 2h, …, 1; all inputs broadcast. For a byte b, 2b/255 − 1.
        mean: means of the normals.
        log_scale: log standard deviations, in units of x.
        num_bins: number of bins, at least 2.

    Returns:
        Log probability in nats, one value an element: sum over pixels and channels.

    Raises:
        TypeError: for integer arrays: bring bytes to [−1, 1] first.
        ValueError: for shapes that do not broadcast, fewer than 2 bins.

    Source: J. Ho, A. Jain, P. Abbeel, "Denoising diffusion probabilistic models" (2020), section 3.3,
    https://arxiv.org/abs/2006.11239.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> grid = jnp.linspace(-1.0, 1.0, 256)
        >>> print(f"{jnp.sum(jnp.exp(kl.discretized_normal_log_prob(grid, 0.3, -2.0))):.4f}")
        1.0000
        >>> print(f"{kl.discretized_normal_log_prob(-1.0, 1.0, -5.0):.0f}")  # improved-diffusion: log 1e-12 = −28
        -43887
    """
    if num_bins < 2:
        raise ValueError(f"num_bins: expected at least 2, got {num_bins}")
    x, mean, log_scale = elementwise(x=x, mean=mean, log_scale=log_scale)
    half = 1 / (num_bins - 1)
    first, last = x <= half - 1, x >= 1 - half
    # Mirrored so that the bin lies below the mean, from −distance − half to −distance + half, or from −∞.
    difference = x - mean
    distance = jnp.where(first, -difference, jnp.where(last, difference, jnp.abs(difference)))
    closed = ~(first | last)
    precision = jnp.exp(-log_scale)
    center, width = distance * precision, 2 * half * precision
    upper, lower = (half - distance) * precision, (half + distance) * precision

    # A bin narrower than the density's changes: Gauss–Legendre with three nodes inside it.
    narrow = closed & (width * jnp.maximum(center, jnp.ones_like(center)) < 0.5)
    c = jnp.where(narrow, center, jnp.zeros_like(center))
    node = jnp.where(narrow, math.sqrt(0.15) * width, jnp.zeros_like(width))
    mean_density = (4 + 5 * jnp.exp(-0.5 * node * node) * jnp.cosh(c * node)) / 9
    inside = math.log(2 * half) - log_scale - _HALF_LOG_2PI - 0.5 * c * c + jnp.log(mean_density)

    # A bin in the tail: the density at its upper end times a difference of Mills ratios.
    tail = (upper < 0) & ~narrow
    u = jnp.where(tail, -upper, jnp.zeros_like(upper))
    bounded = tail & closed
    v = jnp.where(bounded, lower, jnp.zeros_like(lower))
    decay = jnp.where(bounded, width * center, jnp.zeros_like(width))
    rest = jnp.where(bounded, jnp.exp(-decay) * _mills(v), jnp.zeros_like(v))
    below = -0.5 * u * u - _HALF_LOG_2PI + jnp.log(_mills(u) - rest)

    # A bin around the mean: 1 less both tails.
    around = ~(tail | narrow)
    u, v = (jnp.where(around, end, jnp.ones_like(end)) for end in (upper, lower))
    tails = jax.scipy.special.ndtr(-u) + jnp.where(closed, jax.scipy.special.ndtr(-v), jnp.zeros_like(v))
    return jnp.where(narrow, inside, jnp.where(tail, below, jnp.log1p(-tails)))
