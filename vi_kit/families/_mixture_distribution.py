"""A mixture of members of one family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vi_kit._distributions import DiagonalNormal, LowRankNormal, TriangularNormal
from vi_kit._types import Event, Family, KeyArray, Params, Scalar
from vi_kit.families._gaussian_forms import gaussian_of, lower_factor, root_rows

T = TypeVar("T")


class FamilyMixture:
    r"""The mixture $\sum_k w_k q_k$ of members of one family.

    Args:
        log_weights: normalized, shape (num_components,).
        family: the family of the components.
        components: its parameters with a leading axis of num_components.
    """

    def __init__(self, log_weights: Float[Array, " num_components"], family: Family, components: Params) -> None:
        self.log_weights, self.family, self.components = log_weights, family, components

    @property
    def num_components(self) -> int:
        """Number of components."""
        return int(self.log_weights.shape[0])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """One distribution."""
        return ()

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of an event."""
        return (self.family.dim,)

    def component(self, index: int | Array) -> Any:
        """Return one component."""
        return self.family.dist(jax.tree.map(lambda leaf: leaf[index], self.components))

    def _each(self, read: Callable[[Any], T]) -> T:
        """Read something off every component; the leading axis is theirs."""
        return jax.vmap(lambda params: read(self.family.dist(params)))(self.components)

    def sample_components(self, *, seed: KeyArray) -> Float[Array, "num_components dim"]:
        """Draw one event from every component, differentiable where their family's draws are."""
        keys = jax.random.split(seed, self.num_components)
        return jax.vmap(lambda params, key: self.family.dist(params).sample(seed=key))(self.components, keys)  # type: ignore[no-any-return]

    def sample(self, *, seed: KeyArray) -> Event:
        """Draw one event; which component it comes from has no derivative in the weights."""
        label_key, key = jax.random.split(seed)
        label = jax.random.categorical(label_key, self.log_weights)
        return self.component(label).sample(seed=key)  # type: ignore[no-any-return]

    def log_prob(self, value: Event) -> Scalar:
        """Log density of one event, in nats."""
        each = self._each(lambda q: q.log_prob(value))
        return jax.nn.logsumexp(self.log_weights + each)

    def sample_and_log_prob(self, *, seed: KeyArray) -> tuple[Event, Scalar]:
        """Draw one event with its log density."""
        z = self.sample(seed=seed)
        return z, self.log_prob(z)

    def _moments(self) -> tuple[Array, Event, Array]:
        """Return weights, mean, and the means of the components less it."""
        weights, means = jnp.exp(self.log_weights), self._each(lambda q: q.mean())
        mean = jnp.matmul(weights, means, precision=jax.lax.Precision.HIGHEST)
        return weights, mean, means - mean[None]

    def mean(self) -> Event:
        """Mean."""
        return self._moments()[1]

    def std(self) -> Event:
        """Marginal standard deviations."""
        weights, _, offsets = self._moments()
        second = jnp.square(self._each(lambda q: q.std())) + jnp.square(offsets)
        return jnp.sqrt(jnp.sum(weights[:, None] * second, axis=0))

    def covariance(self) -> Float[Array, "dim dim"]:
        """Covariance matrix."""
        weights, _, offsets = self._moments()
        each = self._each(lambda q: q.covariance()) + offsets[:, :, None] * offsets[:, None, :]
        return jnp.sum(weights[:, None, None] * each, axis=0)

    def entropy(self) -> NoReturn:
        """Refuse: mixtures have no entropy in closed form.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("entropy: a mixture has none in closed form; use estimate_kl or an ELBO by draws")

    def gaussian(self) -> DiagonalNormal | LowRankNormal | TriangularNormal:
        """Return the Gaussian with this mean and covariance: of diagonal or low-rank components a low-rank one."""
        if self.num_components == 1:
            return gaussian_of(self.component(0), self.family.dim)  # type: ignore[no-any-return]
        weights, mean, offsets = self._moments()
        root = jnp.sqrt(weights)
        between = (root[:, None] * offsets).T
        parts = [gaussian_of(self.component(k), self.family.dim) for k in range(self.num_components)]
        if all(isinstance(part, DiagonalNormal | LowRankNormal) for part in parts):
            own = jnp.stack([part.scale_diag for part in parts])
            scale = jnp.sqrt(jnp.sum(weights[:, None] * jnp.square(own), axis=0))
            within = [root[k] * part.factor for k, part in enumerate(parts) if isinstance(part, LowRankNormal)]
            return LowRankNormal(mean, scale, jnp.concatenate([between, *within], axis=1) / scale[:, None])
        every = jnp.arange(self.family.dim)
        within = [root[k] * root_rows(part, every) for k, part in enumerate(parts)]
        return TriangularNormal(mean, lower_factor(jnp.concatenate([between, *within], axis=1)))
