"""KL between autoregressive distributions over sequences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit.kl._categorical import categorical
from vi_kit.kl._core import rows
from vi_kit.kl._inputs import class_axes, is_traced
from vi_kit.kl._sampled import mean_of_others, with_gradient

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Bool, Float, Int

    from vi_kit.kl._inputs import Axis


def sequence(
    p_logits: Float[ArrayLike, "... length classes"],
    q_logits: Float[ArrayLike, "... length classes"],
    *,
    tokens: Int[ArrayLike, "... length"] | None = None,
    mask: Bool[ArrayLike, "... length"] | None = None,
    where: Bool[ArrayLike, "..."] | None = None,
    temperature: Float[ArrayLike, "..."] = 1.0,
    baseline_axis: Axis | None = None,
) -> Float[Array, "..."]:
    r"""KL(p‖q) between sequence distributions, from the next-token logits along sequences sampled from p.

    $$ \widehat{KL} = \sum_t KL_t, \quad KL_t = KL\big(p(\cdot \mid x_{<t}) \,\|\, q(\cdot \mid x_{<t})\big), \quad
       \nabla KL = E \sum_t \Big[\nabla KL_t + \Big(\sum_{s>t} KL_s - b_t\Big) \nabla \log p(x_t \mid x_{<t})\Big] $$

    Rao–Blackwellised: each token's KL is exact given its prefix, so the value is unbiased for the KL of whole
    sequences and never negative. On random Markov chains (50 tokens, 20 steps) it takes about 25 times fewer sequences
    than `estimate` with `k3` on their tokens (16 to 34 times; 8 where p is peaked).

    Its own gradient is right for q, but for p it misses that a token also decides which states come later. With the
    sampled `tokens` the gradient is the unbiased one for both; the value is the same. That costs a log-softmax and the
    noise of a score function, most of which goes with `baseline_axis`. First derivatives only.

    Args:
        p_logits: logits of p for the token at each position, given the tokens before it.
        q_logits: the same of q, along the same sequences (of p); shapes broadcast.
        tokens: the sampled tokens x ~ p (at this temperature): integers, the shape of the logits without classes.
        mask: positions that count; those after the end may hold anything (NaN logits, tokens of −100).
        where: which classes exist, broadcasting to the logits.
        temperature: divides both logits.
        baseline_axis: axis of the result, or several, that hold independently sampled sequences (of any prompts): b is
            the mean later KL of the others (leave-one-out). Without it b is 0; only the gradient's noise changes.

    Returns:
        KL in nats, one value a sequence. Over n independent sequences it is
        `values.mean()` ± `values.std(ddof=1) / n**0.5`.

    Raises:
        TypeError: for integer logits, tokens that are no integers, a mask of floats.
        ValueError: for logits without a position axis, shapes that do not fit, a baseline without tokens, concrete
            tokens that are no class (traced ones give NaN, as do tokens that p cannot make).

    Source:
        A. Amini, T. Vieira and R. Cotterell, Better Estimation of the KL Divergence Between Language Models (2025),
        https://arxiv.org/abs/2504.10637; Y. Tang and R. Munos, On a few pitfalls in KL divergence gradient estimation
        for RL (2025), https://arxiv.org/abs/2506.09477

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit.kl as kl
        >>> p_logits, q_logits = jax.random.normal(jax.random.key(0), (2, 100, 4, 7))  # 100 sequences of 4 tokens
        >>> values = kl.sequence(p_logits, q_logits)
        >>> values.shape
        (100,)
    """
    values = categorical(p_logits, q_logits, where=where, mask=mask, temperature=temperature)
    if values.ndim == 0:
        raise ValueError("p_logits: expected axes of positions and classes, got one axis")
    total = jnp.sum(values, axis=-1)
    if tokens is None:
        if baseline_axis is not None:
            raise ValueError("baseline_axis: expected only with tokens, got no tokens")
        return total
    read = rows(-1, where, mask, temperature, p_logits=p_logits, q_logits=q_logits)
    counts = jnp.ones(values.shape, bool) if read.mask is None else read.mask
    chosen, good = _tokens(tokens, counts, read.p_logits.shape[-1])
    exists = read.p_logits != -jnp.inf
    scaled = jnp.where(exists, read.p_logits, jnp.zeros_like(read.p_logits)) * read.scale
    log_p = jax.nn.log_softmax(scaled, axis=-1, where=exists)
    log_p = jnp.squeeze(jnp.take_along_axis(log_p, chosen[..., None], axis=-1), axis=-1)
    good &= ~counts | (log_p > -jnp.inf)
    invalid = jnp.where(good, jnp.zeros_like(values), jnp.full_like(values, jnp.nan))
    now = jax.lax.stop_gradient(values)
    after = jnp.concatenate([now[..., 1:], jnp.zeros_like(now[..., :1])], axis=-1)
    later = jax.lax.cumsum(after, axis=now.ndim - 1, reverse=True)
    if baseline_axis is not None:
        axes = class_axes(baseline_axis, total.ndim)
        front = tuple(range(len(axes)))

        def by_draw(array: Array) -> Array:
            return jnp.moveaxis(array, axes, front)

        moved = by_draw(later)
        flat = (math.prod(moved.shape[: len(axes)]), *moved.shape[len(axes) :])
        mean = mean_of_others(moved.reshape(flat), by_draw(counts).astype(now.dtype).reshape(flat))
        later -= jnp.moveaxis(mean.reshape(moved.shape), front, axes)
    causes = jnp.where(counts, (later + invalid) * log_p, jnp.zeros_like(log_p))
    return with_gradient(total + jnp.sum(invalid, axis=-1), total + jnp.sum(causes, axis=-1))


def _tokens(tokens: ArrayLike, counts: Array, num_classes: int) -> tuple[Array, Array]:
    """Return usable tokens, 0 where they do not count or are no class, and which were usable or do not count."""
    array = jnp.asarray(tokens)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"tokens: expected integers, got {array.dtype}")
    array = array.astype(jnp.int32)
    if array.shape != counts.shape:
        raise ValueError(f"tokens: expected shape {counts.shape} as the logits have without classes, got {array.shape}")
    good = ~counts | ((array >= 0) & (array < num_classes))
    if not is_traced(good) and not np.all(good):
        wrong = np.asarray(array)[~np.asarray(good)][0]
        raise ValueError(f"tokens: expected classes from 0 to {num_classes - 1} where the mask counts, got {wrong}")
    return jnp.where(counts & good, array, jnp.zeros_like(array)), good
