"""A check with an exact answer: the linear VAE, whose optimum is probabilistic principal components.

p(z) = N(0, I), p(x|z) = N(Wz + μ, σ² I), q(z|x) = N(V(x − c), diag(s²)). The largest likelihood is known in closed
form, and where the columns of W are orthogonal the posterior is in the encoder's reach: the best ELBO is that
likelihood.

Source: M. E. Tipping, C. M. Bishop, "Probabilistic principal component analysis" (1999); J. Lucas, G. Tucker,
R. Grosse, M. Norouzi, "Don't blame the ELBO! A linear VAE perspective on posterior collapse" (2019),
https://arxiv.org/abs/1911.02469.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.scipy.stats import norm
from model import draw

from vi_kit import kl


class Linear(NamedTuple):
    """The optimum in closed form."""

    weights: np.ndarray
    noise: float
    center: np.ndarray
    log_likelihood: float


def optimum(x: np.ndarray, latents: int) -> Linear:
    """Return probabilistic principal components in double precision; log likelihood in nats an image."""
    x = np.asarray(x, np.float64)
    center = x.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    values, vectors = values[::-1], vectors[:, ::-1]
    noise = float(values[latents:].mean())
    weights = vectors[:, :latents] * np.sqrt(values[:latents] - noise)
    dim = x.shape[1]
    logs = np.log(values[:latents]).sum() + (dim - latents) * np.log(noise)
    return Linear(weights, noise, center, float(-0.5 * (dim * np.log(2 * np.pi) + logs + dim)))


class LinearVAE(nnx.Module):
    """The linear VAE, with one scale a latent."""

    def __init__(self, center: np.ndarray, latents: int, rngs: nnx.Rngs) -> None:
        """Draw the weights."""
        self.center = nnx.data(jnp.asarray(center, jnp.float32))
        self.encoder = nnx.Linear(len(center), latents, rngs=rngs)
        self.decoder = nnx.Linear(latents, len(center), rngs=rngs)
        self.log_scale = nnx.Param(jnp.zeros(latents))
        self.log_noise = nnx.Param(jnp.asarray(0.0))

    def encode(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return means and log standard deviations of q(z|x)."""
        mean = self.encoder(x - self.center)
        return mean, jnp.broadcast_to(self.log_scale[...], mean.shape)

    def elbo(self, x: jax.Array) -> jax.Array:
        """Return the ELBO of each image; nothing is drawn, since the decoder is linear."""
        mean, log_scale = self.encode(x)
        spread = jnp.sum(jnp.exp(2 * log_scale) * jnp.sum(jnp.square(self.decoder.kernel[...]), axis=1), axis=-1)
        error = jnp.sum(jnp.square(x - self.decoder(mean)), axis=-1) + spread
        precision = jnp.exp(-2 * self.log_noise[...])
        constant = x.shape[-1] * (0.5 * jnp.log(2 * jnp.pi) + self.log_noise[...])
        return -0.5 * precision * error - constant - jnp.sum(kl.normal(mean, log_scale), axis=-1)

    def bound(self, x: jax.Array, key: jax.Array, num_draws: int) -> jax.Array:
        """Return the importance-weighted bound of each image, by draws."""
        mean, log_scale = q = self.encode(x)
        z = draw(q, key, num_draws)
        likelihood = norm.logpdf(x, self.decoder(z), jnp.exp(self.log_noise[...]))
        log_q = jnp.sum(norm.logpdf(z, mean, jnp.exp(log_scale)), axis=-1)
        log_weights = jnp.sum(likelihood, axis=-1) + jnp.sum(norm.logpdf(z), axis=-1) - log_q
        return kl.importance_weighted_bound(log_weights)


def at_optimum(exact: Linear) -> LinearVAE:
    """Return the linear VAE with the closed form's parameters: its q is the posterior."""
    latents = exact.weights.shape[1]
    model = LinearVAE(exact.center, latents, nnx.Rngs(0))
    lengths = (exact.weights**2).sum(axis=0) + exact.noise
    model.encoder.kernel[...] = jnp.asarray(exact.weights / lengths, jnp.float32)
    model.decoder.kernel[...] = jnp.asarray(exact.weights.T, jnp.float32)
    model.decoder.bias[...] = jnp.asarray(exact.center, jnp.float32)
    model.log_scale[...] = jnp.asarray(0.5 * np.log(exact.noise / lengths), jnp.float32)
    model.log_noise[...] = jnp.asarray(0.5 * np.log(exact.noise), jnp.float32)
    return model


def check(x: np.ndarray, latents: int, num_steps: int) -> dict[str, Any]:
    """Train from a random start; return how far its ELBO is from the best, and that of the closed form."""
    exact = optimum(x, latents)
    images = jnp.asarray(x)
    adam = optax.adam(optax.cosine_decay_schedule(1e-2, num_steps))
    graph, params, rest = nnx.split(LinearVAE(exact.center, latents, nnx.Rngs(3)), nnx.Param, ...)

    @jax.jit
    def fit(params: Any) -> tuple[Any, jax.Array]:
        def step(carry: Any, _: None) -> tuple[Any, jax.Array]:
            params, state = carry
            value, gradient = jax.value_and_grad(lambda p: -jnp.mean(nnx.merge(graph, p, rest).elbo(images)))(params)
            updates, state = adam.update(gradient, state)
            return (optax.apply_updates(params, updates), state), -value

        (params, _), elbos = jax.lax.scan(step, (params, adam.init(params)), length=num_steps)
        return params, elbos

    params, elbos = fit(params)
    known = at_optimum(exact)
    few = images[:50]
    one, many = (np.asarray(known.bound(few, jax.random.key(4), num)) for num in (1, 100))
    trained = float(np.mean(np.asarray(nnx.merge(graph, params, rest).elbo(images), np.float64)))
    reached = float(np.mean(np.asarray(known.elbo(images), np.float64)))
    return {
        "latents": latents,
        "steps": num_steps,
        "log likelihood in closed form": exact.log_likelihood,
        "gap after training": exact.log_likelihood - trained,
        "gap at the optimum": exact.log_likelihood - reached,
        "largest change of a bound from 1 to 100 draws there": float(np.abs(one - many).max()),
        "gaps": [exact.log_likelihood - float(v) for v in elbos[:: max(1, num_steps // 20)]],
    }
