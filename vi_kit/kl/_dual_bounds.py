"""KL from a critic's values at draws from p and at draws from q: the dual (variational) bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from vi_kit._estimate import Estimate
from vi_kit.kl._inputs import booleans, floats

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, Bool, Float


def donsker_varadhan(
    critic_p: Float[Array, " n"],
    critic_q: Float[Array, " m"],
    *,
    mask_p: Bool[Array, " n"] | None = None,
    mask_q: Bool[Array, " m"] | None = None,
) -> Estimate:
    r"""Donsker–Varadhan bound: KL(p‖q) ≥ E_p T − log E_q exp T for any critic T.

    $$ \widehat{KL} = \frac1n \sum_i T(x_i) - \log \frac1m \sum_j e^{T(y_j)}, \quad x_i \sim p, \; y_j \sim q $$

    Tight for T = log p/q + any constant. It suits evaluation: a fixed critic, fresh draws.

    Args:
        critic_p: T at independent draws from p, (n,).
        critic_q: T at independent draws from q, (m,). For batches use `jax.vmap`.
        mask_p: draws of p that count; the others may hold NaN.
        mask_q: draws of q that count.

    Returns:
        The value in nats; its standard error by the delta method,
        √(Var_p(T)/n + Var_q(e^T)/(m (E_q e^T)²)), without gradient, infinite for fewer than two draws on a side;
        num_effective, the smaller of n and (Σw)²/Σw² with w = e^T at the draws of q. Where a mask leaves a side
        without draws the value is 0.

    Raises:
        ValueError: for arrays that are not one-dimensional, empty ones, a mask of another shape.
        TypeError: for integer critics or a mask of floats.

    Limits:
        Biased upward about the bound, by about Var_q(e^T)/(2 m (E_q e^T)²), half the square of q's part of the
        standard error: an estimate over few draws can exceed KL itself. At the best critic that relative variance is
        χ²(p‖q) ≥ e^KL − 1: with m far below e^KL neither value nor standard error can be believed, whatever n
        (num_effective of a few says so), and no estimate exceeds max T(x) − max T(y) + log m. A critic of −∞ at draws
        of q is weight 0 (at all of them: +∞); −∞ at a draw of p or +∞ at one of q gives −∞. Infinite values have no
        standard error (NaN), and critic_q gets the gradient 0.

        The gradient of a minibatch is biased, because the denominator of E_q[e^T ∇T]/E_q e^T is random. To train
        with a moving average of it (MINE): `nguyen_wainwright_jordan` of both critics + 1 − c, with c the logarithm
        of that average, held constant.

    Source:
        M. D. Donsker, S. R. S. Varadhan (1983), https://doi.org/10.1002/cpa.3160360204; M. I. Belghazi et al., Mutual
        Information Neural Estimation (2018), https://arxiv.org/abs/1801.04062; J. Song, S. Ermon, Understanding the
        Limitations of Variational Mutual Information Estimators (2020), https://arxiv.org/abs/1910.06222

    Example:
        >>> import jax, vi_kit.kl as kl
        >>> key_p, key_q = jax.random.split(jax.random.key(0))
        >>> x, y = 1 + jax.random.normal(key_p, (4000,)), jax.random.normal(key_q, (4000,))
        >>> value, standard_error, _ = kl.donsker_varadhan(x, y)  # T(x) = x is the best critic, KL = 0.5
        >>> bool(abs(value - 0.5) < 4 * standard_error)
        True
    """
    p, q, in_p, in_q = _read(critic_p, critic_q, mask_p, mask_q)
    mean_p, error_p = _mean(p, in_p)
    log_mean = _log_mean_exp(q, in_q)
    _, error_q = _mean(jnp.exp(q - log_mean), in_q)
    return _estimate(mean_p - log_mean, error_p + error_q, q, in_p, in_q)


def nguyen_wainwright_jordan(
    critic_p: Float[Array, " n"],
    critic_q: Float[Array, " m"],
    *,
    mask_p: Bool[Array, " n"] | None = None,
    mask_q: Bool[Array, " m"] | None = None,
) -> Estimate:
    r"""Nguyen–Wainwright–Jordan bound: KL(p‖q) ≥ E_p T − E_q exp(T − 1) for any critic T.

    $$ \widehat{KL} = \frac1n \sum_i T(x_i) - \frac1m \sum_j e^{T(y_j) - 1}, \quad x_i \sim p, \; y_j \sim q $$

    Tight for T = 1 + log p/q alone: unlike `donsker_varadhan` it does not forgive a constant, and on the same draws it
    never exceeds it. In exchange it is an unbiased estimate of the bound, and so is its gradient, to the critic and to
    draws that are reparameterized: the bound to train a critic on.

    Takes what `donsker_varadhan` takes.

    Returns:
        The value in nats; its standard error √(Var_p(T)/n + Var_q(e^(T−1))/m), without gradient, infinite for fewer
        than two draws on a side; num_effective as for `donsker_varadhan`.

    Raises:
        As `donsker_varadhan`.

    Limits:
        The variance at the best critic is at least (e^KL − 1)/m, and draws of q that show it are rare: for KL above
        log m the standard error is too small with the value. A critic above 88 at a draw of q overflows float32: −∞.

    Source:
        X. Nguyen, M. J. Wainwright, M. I. Jordan, Estimating Divergence Functionals and the Likelihood Ratio by Convex
        Risk Minimization (2010), https://arxiv.org/abs/0809.0853

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> print(kl.nguyen_wainwright_jordan(jnp.array([1.5, 2.5]), jnp.array([1.0, 1.0])).value)
        1.0
    """
    p, q, in_p, in_q = _read(critic_p, critic_q, mask_p, mask_q)
    mean_p, error_p = _mean(p, in_p)
    mean_q, error_q = _mean(jnp.exp(q - 1), in_q)
    return _estimate(mean_p - mean_q, error_p + error_q, q, in_p, in_q)


def classifier(
    logits_p: Float[Array, " n"],
    *,
    log_prior_odds: Float[Array, ""] | float = 0.0,
    mask: Bool[Array, " n"] | None = None,
) -> Estimate:
    r"""KL(p‖q) by a classifier trained to tell draws of p (label 1) from draws of q (label 0): its mean logit on p.

    $$ \widehat{KL} = \frac1n \sum_i \operatorname{logit}(x_i) - \log\frac{n_p}{n_q}, \quad x_i \sim p $$

    because the best classifier has logit log p/q + log n_p/n_q, with n_p and n_q the numbers of its training draws.

    Args:
        logits_p: logits of "from p" at independent draws from p that the classifier was not trained on, (n,).
        log_prior_odds: log(n_p/n_q) of the training set; 0 where it was balanced.
        mask: draws that count; the others may hold NaN.

    Returns:
        The value in nats; its standard error, that of the mean over draws, without gradient, infinite for fewer than
        two; num_effective, the number of draws. Where the mask leaves none the value is 0.

    Raises:
        ValueError: for an array that is not one-dimensional, an empty one, a mask of another shape.
        TypeError: for integer logits or a mask of floats.

    Limits:
        No bound: an imperfect classifier errs in either direction, and the standard error cannot know. For a bound
        give the logits at draws of p and of q to `donsker_varadhan`, which needs no prior odds. Draws it was trained
        on bias it upward. The gradient is of no use for training the classifier: train it by its cross-entropy.

    Source:
        M. Sugiyama, T. Suzuki, T. Kanamori, Density Ratio Estimation in Machine Learning (2012), chapter 4,
        https://doi.org/10.1017/CBO9781139035613

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> print(kl.classifier(jnp.array([0.5, 1.5])).value)
        1.0
    """
    logits_p, log_prior_odds = floats(logits_p=logits_p, log_prior_odds=log_prior_odds)
    if log_prior_odds.ndim:
        raise ValueError(f"log_prior_odds: expected a number, got shape {log_prior_odds.shape}")
    logits, counts = _draws("logits_p", logits_p, "mask", mask)
    mean, error = _mean(logits, counts)
    number = jnp.sum(counts, dtype=mean.dtype)
    value = jnp.where(number > 0, mean - log_prior_odds, jnp.zeros_like(mean))
    return Estimate(value, jax.lax.stop_gradient(jnp.sqrt(error)), number)


def _draws(name: str, values: Array, mask_name: str, mask: Array | None) -> tuple[Array, Array]:
    """Return the values, 0 where they do not count, and which of them count."""
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{name}: expected a number for each of one or more draws, got shape {values.shape}")
    counts = jnp.ones(values.shape, bool) if mask is None else booleans(mask_name, mask)
    if counts.shape != values.shape:
        raise ValueError(f"{mask_name}: expected shape {values.shape} as {name} has, got {counts.shape}")
    return jnp.where(counts, values, jnp.zeros_like(values)), counts


def _read(critic_p: Array, critic_q: Array, mask_p: Array | None, mask_q: Array | None) -> tuple[Array, ...]:
    critic_p, critic_q = floats(critic_p=critic_p, critic_q=critic_q)
    p, in_p = _draws("critic_p", critic_p, "mask_p", mask_p)
    q, in_q = _draws("critic_q", critic_q, "mask_q", mask_q)
    return p, q, in_p, in_q


def _mean(values: Float[Array, " n"], counts: Bool[Array, " n"]) -> tuple[Array, Array]:
    """Return the mean over the draws that count and its squared standard error."""
    number = jnp.sum(counts, dtype=values.dtype)
    values = jnp.where(counts, values, jnp.zeros_like(values))
    mean = jnp.sum(values) / jnp.maximum(number, 1)
    squares = jnp.sum(jnp.where(counts, jnp.square(values - mean), jnp.zeros_like(values)))
    error = squares / jnp.maximum(number * (number - 1), 1)
    return mean, jnp.where(number > 1, error, jnp.full_like(error, jnp.inf))


def _largest(values: Float[Array, " n"], counts: Bool[Array, " n"]) -> Float[Array, ""]:
    return jax.lax.stop_gradient(jnp.max(values, initial=-jnp.inf, where=counts))


def _log_mean_exp(values: Float[Array, " n"], counts: Bool[Array, " n"]) -> Float[Array, ""]:
    """Return the logarithm of the mean of exp(values) over the draws that count; without gradient if it is infinite."""
    largest = _largest(values, counts)
    good = jnp.isfinite(largest)
    counts |= ~good
    total = jax.nn.logsumexp(jnp.where(good, values, jnp.zeros_like(values)), where=counts)
    return jnp.where(good, total - jnp.log(jnp.sum(counts, dtype=values.dtype)), largest)


def _estimate(value: Array, squared_error: Array, q: Array, in_p: Array, in_q: Array) -> Estimate:
    """Put together a two-sample estimate; the draws of q weigh exp(q)."""
    largest = _largest(q, in_q)
    scaled = jnp.exp(q - jnp.where(largest == -jnp.inf, jnp.zeros_like(largest), largest))
    scaled = jnp.where(in_q, scaled, jnp.zeros_like(scaled))
    effective = jnp.square(jnp.sum(scaled)) / jnp.maximum(jnp.sum(jnp.square(scaled)), 1)
    effective = jnp.minimum(effective, jnp.sum(in_p, dtype=q.dtype))
    error, effective = jax.lax.stop_gradient((jnp.sqrt(squared_error), effective))
    return Estimate(jnp.where(jnp.any(in_p) & jnp.any(in_q), value, jnp.zeros_like(value)), error, effective)
