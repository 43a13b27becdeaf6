"""A variational autoencoder in flax nnx: two networks, a Bernoulli likelihood, a normal encoder."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.scipy.stats import norm

import vi_kit as vk


def network(sizes: tuple[int, ...], rngs: nnx.Rngs) -> nnx.Sequential:
    """Build tanh layers and a linear last one."""
    layers: list[Any] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nnx.Linear(before, after, rngs=rngs), jnp.tanh]
    return nnx.Sequential(*layers[:-1])


class VAE(nnx.Module):
    """p(z) p(x|z) with a standard normal prior, and q(z|x) = N(mean(x), diag(scale(x)²))."""

    def __init__(self, pixels: int, hidden: tuple[int, ...], latents: int, rngs: nnx.Rngs) -> None:
        """Draw the networks."""
        self.encoder = network((pixels, *hidden, 2 * latents), rngs)
        self.decoder = network((latents, *hidden[::-1], pixels), rngs)

    def encode(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return means and log standard deviations of q(z|x)."""
        mean, log_scale = jnp.split(self.encoder(x), 2, axis=-1)
        return mean, log_scale

    def log_likelihood(self, x: jax.Array, z: jax.Array) -> jax.Array:
        """Return log p(x|z) in nats, summed over the pixels."""
        logits = self.decoder(z)
        return jnp.sum(x * logits - jax.nn.softplus(logits), axis=-1)

    def log_prior(self, z: jax.Array) -> jax.Array:
        """Return log p(z) in nats."""
        return jnp.sum(norm.logpdf(z), axis=-1)

    def log_weights(self, x: jax.Array, z: jax.Array, q: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Return log p(x, z) − log q(z|x) in nats; draws may lead."""
        mean, log_scale = q
        log_q = jnp.sum(norm.logpdf(z, mean, jnp.exp(log_scale)), axis=-1)
        return self.log_likelihood(x, z) + self.log_prior(z) - log_q

    def sample_prior(self, key: jax.Array, num: int) -> jax.Array:
        """Draw latents from p(z)."""
        return jax.random.normal(key, (num, self.decoder.layers[0].in_features))


class FlowPriorVAE(VAE):
    """The same with a normalizing flow for p(z), learned along; it begins as the standard normal."""

    def __init__(self, pixels: int, hidden: tuple[int, ...], latents: int, rngs: nnx.Rngs) -> None:
        """Draw the networks, those of the flow too."""
        super().__init__(pixels, hidden, latents, rngs)
        self.family = vk.families.Flow(latents, num_layers=4)
        self.prior = nnx.data(jax.tree.map(nnx.Param, self.family.init(rngs.params())))

    def _prior(self) -> Any:
        is_param = lambda leaf: isinstance(leaf, nnx.Param)  # noqa: E731
        return self.family.dist(jax.tree.map(lambda leaf: leaf[...], self.prior, is_leaf=is_param))

    def log_prior(self, z: jax.Array) -> jax.Array:
        """Return log p(z) in nats."""
        rows = z.reshape(-1, z.shape[-1])
        return jax.vmap(self._prior().log_prob)(rows).reshape(z.shape[:-1])

    def sample_prior(self, key: jax.Array, num: int) -> jax.Array:
        """Draw latents from p(z)."""
        return jax.vmap(lambda key: self._prior().sample(seed=key))(jax.random.split(key, num))


def draw(q: tuple[jax.Array, jax.Array], key: jax.Array, num: int) -> jax.Array:
    """Draw latents from q(z|x), as differentiable functions of it: shape (num, *mean)."""
    mean, log_scale = q
    return mean + jnp.exp(log_scale) * jax.random.normal(key, (num, *mean.shape))
