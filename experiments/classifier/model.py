"""A small network for 8 × 8 digits in flax nnx, and the losses that it is trained with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from vi_kit import kl

CLASSES = 10
# (labels: one probability a class, logits) -> one loss a row, in nats
Loss = Callable[[Any, Any], Any]


class Network(nnx.Module):
    """Pixels to logits through one hidden layer."""

    def __init__(self, hidden: int, rngs: nnx.Rngs) -> None:
        """Draw the weights."""
        self.first = nnx.Linear(64, hidden, rngs=rngs)
        self.second = nnx.Linear(hidden, CLASSES, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return logits for images of shape (rows, 8, 8)."""
        return self.second(nnx.relu(self.first(images.reshape(len(images), -1))))


def cross_entropy(labels: jax.Array, logits: jax.Array) -> jax.Array:
    """−Σ label · log softmax(logits)."""
    return kl.losses.softmax_cross_entropy(logits, labels)


def divergence(labels: jax.Array, logits: jax.Array) -> jax.Array:
    """KL(labels‖softmax(logits))."""
    return kl.losses.kl_divergence(jax.nn.log_softmax(logits), labels)


def entropy(labels: jax.Array) -> jax.Array:
    """By how much the two differ: nothing for hard labels."""
    return jnp.sum(jax.scipy.special.entr(labels), axis=-1)


def smoothed(labels: jax.Array, amount: float) -> jax.Array:
    """Take a share of the probability away from the label and give it to all classes alike."""
    return (1 - amount) * labels + amount / CLASSES


def make_gradients(model: nnx.Module, losses: tuple[Loss, ...]) -> Any:
    """Return a jitted function (params, images, labels) -> each loss's mean and its gradient."""
    graph, _ = nnx.split(model, nnx.Param)

    @jax.jit
    def gradients(params: Any, images: Any, labels: Any) -> Any:
        def mean(params: Any, loss: Loss) -> Any:
            return jnp.mean(loss(labels, nnx.merge(graph, params)(images)))

        return [jax.value_and_grad(lambda p, loss=loss: mean(p, loss))(params) for loss in losses]

    return gradients


def make_step(model: nnx.Module, optimizer: optax.GradientTransformation, loss: Loss) -> Any:
    """Return one jitted step of training for parameters of this model: (params, state, batch) -> (params, state)."""
    graph, _ = nnx.split(model, nnx.Param)

    @jax.jit
    def step(params: Any, state: Any, images: Any, labels: Any) -> Any:
        gradient = jax.grad(lambda p: jnp.mean(loss(labels, nnx.merge(graph, p)(images))))(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return step
