"""Draws of q with importance weights that cannot collapse on a few: tempered, or Pareto-smoothed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vi_kit._static import configuration, leaf
from vi_kit._types import Family, KeyArray, Params, Scalar, Target
from vi_kit._weights import effective_sample_size, pareto_smooth
from vi_kit.objectives._checks import check_number
from vi_kit.objectives._forward_kl import Draws, self_normalized

_HALVINGS = 30


def pareto_smoothed(family: Family, params: Params, target: Target, key: KeyArray, num_samples: int | None) -> Draws:
    """Draw from q and weight by p̃/q, the largest weights smoothed by a generalized Pareto distribution.

    Steadier than `self_normalized` where weights have a heavy tail, at a bias that falls more slowly than 1/n there.
    At least 25 draws.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry, "Pareto Smoothed Importance Sampling", 2024,
    https://arxiv.org/abs/1507.02646
    """
    z, log_weights = self_normalized(family, params, target, key, num_samples)
    return z, pareto_smooth(log_weights).log_weights


@configuration
class tempered:
    r"""Draw from q and weight by (p̃/q)^τ, with the largest τ ≤ 1 that keeps the effective sample size.

    $$ \tau = \max\{\tau \le 1 : (\textstyle\sum_i w_i^\tau)^2 / \sum_i w_i^{2\tau} \ge fraction \cdot n\} $$

    While q is far from p, each step aims at p^τ q^(1−τ), a reachable one between them; where the weights are even
    enough, τ is 1 and nothing is changed. Biased by what it tempers, besides O(1/n).

    Args:
        fraction: effective sample size to keep, as a part of the draws, from 0 to 1; another number compiles nothing.

    Source: Prangle and Viscardi, "Distilling Importance Sampling for Likelihood Free Inference", 2023,
    https://arxiv.org/abs/1910.03632

    Example:
        >>> import vi_kit as vk
        >>> vk.objectives.ForwardKL(vk.families.MeanField(2), vk.objectives.tempered(0.3), num_samples=256)
        ForwardKL(family=MeanField(dim=2), draws=tempered(fraction=0.3), num_samples=256)
    """

    fraction: float | Array = leaf(default=0.5)

    def __post_init__(self) -> None:
        """Check the fraction."""
        check_number("fraction", self.fraction, least=0.0, most=1.0)

    def __call__(self, family: Family, params: Params, target: Target, key: KeyArray, num_samples: int | None) -> Draws:
        """Return draws of q with their tempered log weights."""
        z, log_weights = self_normalized(family, params, target, key, num_samples)
        return z, _raised(log_weights, _exponent(log_weights, jnp.asarray(self.fraction, log_weights.dtype)))


def _raised(log_weights: Float[Array, " n"], exponent: Scalar) -> Float[Array, " n"]:
    # −∞ is a draw outside the support, whatever the exponent; 0 · −∞ would be NaN.
    return jnp.where(log_weights == -jnp.inf, log_weights, exponent * log_weights)


def _exponent(log_weights: Float[Array, " n"], fraction: Scalar) -> Scalar:
    """Return the largest exponent up to 1 that keeps the effective sample size, by halving: it falls as that rises."""
    least = fraction * log_weights.shape[0]

    def keeps(exponent: Scalar) -> Array:
        found: Array = effective_sample_size(_raised(log_weights, exponent)) >= least
        return found

    def halve(_: int, low: tuple[Scalar, Scalar]) -> tuple[Scalar, Scalar]:
        exponent, step = low
        return jnp.where(keeps(exponent + step), exponent + step, exponent), step / 2

    zero = jnp.zeros((), log_weights.dtype)
    found, _ = jax.lax.fori_loop(0, _HALVINGS, halve, (zero, zero + 0.5))
    return jnp.where(keeps(zero + 1), zero + 1, found)
