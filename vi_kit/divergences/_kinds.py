"""The divergences there are: each an f-divergence by its generator, or a monotone function of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vi_kit._static import configuration
from vi_kit.kl._compensated import expm1_minus


@runtime_checkable
class Kind(Protocol):
    r"""A divergence $D = g(E_q[f(p(x)/q(x))])$ with a convex generator f and a monotone g.

    With f(1) = 0 and f'(1) = 0, which a multiple of u − 1 always brings about, f is nowhere negative and its mean
    keeps its digits where p and q are nearly equal.
    """

    def generator(self, log_ratio: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return f(e^ℓ) of ℓ = log p(x) − log q(x)."""

    def outer(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return g of the mean of the generator."""


class _FDivergence:
    def outer(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the value itself: an f-divergence is the mean of its generator."""
        return value


@configuration
class KullbackLeibler(_FDivergence):
    """KL(p‖q), in nats: f(u) = u log u − u + 1."""

    def generator(self, log_ratio: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return f(e^ℓ)."""
        return jnp.exp(log_ratio) * expm1_minus(-log_ratio)


@configuration
class ReverseKullbackLeibler(_FDivergence):
    """KL(q‖p), in nats: f(u) = u − 1 − log u."""

    def generator(self, log_ratio: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return f(e^ℓ)."""
        return expm1_minus(log_ratio)


@configuration
class Jeffreys(_FDivergence):
    """KL(p‖q) + KL(q‖p), in nats: f(u) = (u − 1) log u."""

    def generator(self, log_ratio: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return f(e^ℓ)."""
        return jnp.expm1(log_ratio) * log_ratio


@configuration
class ChiSquare(_FDivergence):
    """Pearson's χ²(p‖q) = ∫ (p − q)² / q: f(u) = (u − 1)²."""

    def generator(self, log_ratio: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return f(e^ℓ)."""
        return jnp.square(jnp.expm1(log_ratio))


@configuration
class Hellinger(_FDivergence):
    """The squared Hellinger distance ½ ∫ (√p − √q)² = 1 − ∫ √(p q), from 0 to 1: f(u) = ½ (√u − 1)²."""

    def generator(self, log_ratio: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return f(e^ℓ)."""
        return 0.5 * jnp.square(jnp.expm1(0.5 * log_ratio))


@configuration
class Bhattacharyya:
    """The Bhattacharyya distance −log ∫ √(p q)."""

    def generator(self, log_ratio: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return f(e^ℓ) of the squared Hellinger distance."""
        return Hellinger().generator(log_ratio)

    def outer(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return −log(1 − H²)."""
        return -jnp.log1p(-value)


@configuration
class JensenShannon(_FDivergence):
    """½ KL(p‖m) + ½ KL(q‖m) with m = (p + q) / 2, from 0 to log 2."""

    def generator(self, log_ratio: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return f(e^ℓ)."""
        # With t = tanh(ℓ/2): f = (1 + u) / 4 · [(1 + t) log(1 + t) + (1 − t) log(1 − t)], a series in t² near 0.
        near = jnp.abs(log_ratio) < 0.5
        t = jnp.tanh(0.5 * jnp.where(near, log_ratio, jnp.zeros_like(log_ratio)))
        square = t * t
        total = jnp.full_like(square, 1 / (14 * 27))
        for k in range(13, 0, -1):
            total = 1 / (k * (2 * k - 1)) + square * total
        far = jnp.where(near, jnp.ones_like(log_ratio), log_ratio)
        u = jnp.exp(far)
        log_two = jnp.log(jnp.full_like(far, 2))
        distant = 0.5 * (u * (log_two - jnp.logaddexp(0, -far)) + (log_two - jnp.logaddexp(0, far)))
        near_u = jnp.exp(jnp.where(near, log_ratio, jnp.zeros_like(log_ratio)))
        return jnp.where(near, 0.25 * (1 + near_u) * square * total, distant)


@configuration
class TotalVariation(_FDivergence):
    """½ ∫ |p − q|, from 0 to 1: f(u) = ½ |u − 1|."""

    def generator(self, log_ratio: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return f(e^ℓ)."""
        return 0.5 * jnp.abs(jnp.expm1(log_ratio))


def _check_alpha(alpha: Any) -> None:
    wrong = f"alpha: expected a positive, finite number, got {alpha!r}"
    if isinstance(alpha, bool) or not isinstance(alpha, int | float | np.number):
        raise TypeError(wrong)
    if not 0 < alpha < float("inf"):
        raise ValueError(wrong)


@configuration
class Alpha(_FDivergence):
    """The α-divergence (∫ p^α q^{1−α} − 1) / (α (α − 1)): KL(p‖q) at order 1, half of χ² at 2, 4 H² at ½.

    Attributes:
        alpha: the order, above 0.
    """

    alpha: float

    def __post_init__(self) -> None:
        """Check the order."""
        _check_alpha(self.alpha)

    def generator(self, log_ratio: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return f(e^ℓ)."""
        if self.alpha == 1:
            return KullbackLeibler().generator(log_ratio)
        difference = expm1_minus(self.alpha * log_ratio) - self.alpha * expm1_minus(log_ratio)
        return difference / (self.alpha * (self.alpha - 1))


@configuration
class Renyi:
    """Rényi's divergence log(∫ p^α q^{1−α}) / (α − 1), in nats: KL(p‖q) at order 1.

    Attributes:
        alpha: the order, above 0.
    """

    alpha: float

    def __post_init__(self) -> None:
        """Check the order."""
        _check_alpha(self.alpha)

    def generator(self, log_ratio: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return f(e^ℓ) of the α-divergence."""
        return Alpha(self.alpha).generator(log_ratio)

    def outer(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the Rényi divergence of an α-divergence."""
        if self.alpha == 1:
            return value
        return jnp.log1p(self.alpha * (self.alpha - 1) * value) / (self.alpha - 1)


@configuration
class FDivergence(_FDivergence):
    """Any f-divergence E_q[f(p/q)], by its generator in log space.

    Attributes:
        log_generator: ℓ → f(e^ℓ), elementwise, f convex with f(1) = 0; where f'(1) = 0 too, nearly equal p and q keep
            their digits.

    Example:
        >>> import jax.numpy as jnp, vi_kit as vk
        >>> triangular = vk.divergences.FDivergence(lambda l: jnp.expm1(l) ** 2 / (jnp.exp(l) + 1))
        >>> print(f"{triangular.generator(jnp.float32(0.5)):.4f}")
        0.1589
    """

    log_generator: Callable[[Float[Array, "..."]], Float[Array, "..."]]

    def generator(self, log_ratio: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return f(e^ℓ)."""
        return self.log_generator(log_ratio)
