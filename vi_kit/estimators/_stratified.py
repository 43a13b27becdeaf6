"""Mixtures: draws of every component, weighted by its probability."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from vi_kit import _distributions as distributions
from vi_kit._static import configuration
from vi_kit._types import Event, Family, Integrand, KeyArray, Params, Scalar, check_count
from vi_kit.estimators._forms import Form, check_family
from vi_kit.estimators._offers import offers
from vi_kit.estimators._pathwise import values_at
from vi_kit.estimators._power_mean import power_mean
from vi_kit.estimators._sticking_the_landing import log_q_of_draw


@configuration
class Stratified:
    r"""Enumerate the components of a mixture and draw from each, with reparameterized draws and no discrete choice.

    $$ E_q[f] = \sum_k \pi_k E_{q_k}[f] \approx \sum_k \pi_k f(z_k), \quad z_k \sim q_k $$

    Differentiable in the weights π too, which draws of the mixture itself are not. In a mean of log q − f(z) the
    score of log q is left out, as `sticking_the_landing` does, so the variance falls to zero as q nears p; of a
    logarithm of a mean of weights it is the stratified bound, tighter than that of draws of the mixture. Unbiased.
    Draws come in rounds of one a component: `num_samples` is rounded up to whole rounds, each draw one
    value-and-gradient of the target and one density of q. For families whose distributions have `log_weights` and
    `sample_components`.

    Source: Morningstar, Vikram, Ham, Gallagher and Dillon, "Automatic Differentiation Variational Inference with
    Mixtures", 2021, https://arxiv.org/abs/2003.01687
    """

    forms: ClassVar[frozenset[Form]] = frozenset(Form)
    needs: ClassVar[str] = "a mixture, with components to draw from"

    def __repr__(self) -> str:
        return "stratified"

    def accepts(self, family: Family) -> bool:
        """Tell whether it is valid for a family."""
        return offers(family).num_components is not None

    def evaluations(self, family: Family, num_samples: int) -> int:
        """Target evaluations of `num_samples` draws, in whole rounds."""
        num_components = offers(family).num_components or 1
        return num_components * -(-num_samples // num_components)

    def __call__(self, integrand: Integrand, family: Family, params: Params, key: KeyArray, num_samples: int) -> Scalar:
        """Return the mean over at least `num_samples` draws."""
        check_count("num_samples", num_samples)
        check_family(self, family)
        num_rounds = self.evaluations(family, num_samples) // self.evaluations(family, 1)
        q = family.dist(params)
        rounds = jax.vmap(lambda k: _components(family, params, k))(jax.random.split(key, num_rounds))

        def one(z: Event) -> Scalar:
            return integrand(params, z, log_q_of_draw(family, params, z))

        # One axis of draws: two of them cost a transposition of what the target makes of each.
        values = jax.vmap(one)(rounds.reshape(-1, rounds.shape[-1])).reshape(rounds.shape[:2])
        return jnp.sum(jnp.exp(q.log_weights) * jnp.mean(values, axis=0))

    def log_mean(
        self,
        log_weight: Integrand,
        family: Family,
        params: Params,
        key: KeyArray,
        shape: tuple[int, int],
        power: ArrayLike,
    ) -> Scalar:
        """Return the mean over rows of (1/power) log mean exp(power · log_weight); `shape`: rows, draws of each."""
        check_family(self, family)
        num_rows, num = shape
        num_rounds = self.evaluations(family, num) // self.evaluations(family, 1)
        q = family.dist(params)
        log_shares = jnp.tile(q.log_weights - jnp.log(jnp.asarray(num_rounds, q.log_weights.dtype)), num_rounds)

        def bound(key: KeyArray) -> Scalar:
            rounds = jax.vmap(lambda k: _components(family, params, k))(jax.random.split(key, num_rounds))
            z = rounds.reshape(-1, rounds.shape[-1])
            log_q = jax.vmap(lambda z: distributions.log_prob(family.dist(params), z))(z)
            return power_mean(values_at(log_weight, params, z, log_q), power, log_shares)

        return jnp.mean(jax.vmap(bound)(jax.random.split(key, num_rows)))


def _components(family: Family, params: Params, key: KeyArray) -> Array:
    drawn: Array = family.dist(params).sample_components(seed=key)
    return drawn


stratified = Stratified()
