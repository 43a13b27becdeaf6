"""Draws of q moved toward p through temperatures, with weights: annealed importance sampling."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vi_kit import _distributions as distributions
from vi_kit._static import configuration
from vi_kit._types import Event, Family, KeyArray, Params, Scalar, Target, check_count
from vi_kit.objectives._forward_kl import DEFAULT_NUM_SAMPLES, Draws

_STEP = 2.4  # of a random walk, in standard deviations over √dim


class _Walker(NamedTuple):
    z: Event
    log_q: Scalar
    log_p: Scalar
    log_weight: Scalar


@configuration
class annealed:
    r"""Draw from q and walk to p through temperatures, weighing what each change of temperature was worth.

    $$ \pi_t \propto q^{1-t/T} \tilde p^{\,t/T}, \quad
       \log w = \sum_{t=1}^T \tfrac1T (\log \tilde p - \log q)(z_{t-1}), \quad z_t \sim \text{Metropolis at } \pi_t $$

    The mean weight is Z exactly, whatever the walk; weights are the more even the more temperatures, where plain ones
    (`self_normalized`) rest on few draws. A walk is one step of random-walk Metropolis a temperature, scaled by the
    standard deviations of q. Self-normalized: the bias of the gradient falls as 1/n.

    Args:
        num_temperatures: T. A draw costs T + 1 evaluations of the density and of q.

    Source: Neal, "Annealed Importance Sampling", 2001, https://arxiv.org/abs/physics/9803008

    Example:
        >>> import vi_kit as vk
        >>> target = vk.make_target(lambda x: -(x @ x), 2)
        >>> vk.objectives.ForwardKL(vk.families.MeanField(2), vk.objectives.annealed(8), 32).evaluations(target)
        288
    """

    num_temperatures: int = 16

    def __post_init__(self) -> None:
        """Check the number of temperatures."""
        check_count("num_temperatures", self.num_temperatures)

    def evaluations(self, num_samples: int) -> int:
        """Target evaluations that as many draws cost."""
        return num_samples * (self.num_temperatures + 1)

    def __call__(self, family: Family, params: Params, target: Target, key: KeyArray, num_samples: int | None) -> Draws:
        """Return walked draws with their log weights."""

        def log_densities(z: Event) -> tuple[Scalar, Scalar]:
            return distributions.log_prob(family.dist(params), z), target.log_density(z)

        def one(key: KeyArray) -> tuple[Array, Array]:
            first, rest = jax.random.split(key)
            z, log_q = distributions.sample_and_log_prob(family.dist(params), first)
            step = (_STEP / math.sqrt(family.dim)) * family.dist(params).std()

            def move(walker: _Walker, number: Array) -> tuple[_Walker, None]:
                z, log_q, log_p, log_weight = walker
                temperature = (number + 1).astype(z.dtype) / self.num_temperatures
                gained = (log_p - log_q) / self.num_temperatures
                walk_key, accept_key = jax.random.split(jax.random.fold_in(rest, number))
                other = z + step * jax.random.normal(walk_key, z.shape, z.dtype)
                other_log_q, other_log_p = log_densities(other)
                log_ratio = (1 - temperature) * (other_log_q - log_q) + temperature * (other_log_p - log_p)
                accepted = jnp.log(jax.random.uniform(accept_key, (), z.dtype)) < log_ratio
                moved = _Walker(other, other_log_q, other_log_p, log_weight + gained)
                stayed = _Walker(z, log_q, log_p, log_weight + gained)
                return jax.tree.map(lambda a, b: jnp.where(accepted, a, b), moved, stayed), None

            start = _Walker(z, log_q, target.log_density(z), jnp.zeros_like(log_q))
            end, _ = jax.lax.scan(move, start, jnp.arange(self.num_temperatures))
            return end.z, end.log_weight

        return jax.vmap(one)(jax.random.split(key, num_samples or DEFAULT_NUM_SAMPLES))
