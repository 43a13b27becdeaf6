"""A small language model of characters, on text that ships with Python: what two experiments distill and fine-tune.

The text is Python's own language reference as `help()` shows it (`pydoc_data.topics`): with Python 3.11 about 320,000
characters once it is brought to an alphabet of 32, every paragraph kept once. The model is a gated recurrent network
with equinox. A place's logits are those of its character given the characters before it, the first one given nothing,
which is how `vi_kit.kl.sequence` reads them.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import workbench
from jax import Array

ALPHABET = ' abcdefghijklmnopqrstuvwxyz.,()"'
NUM_CHARACTERS = len(ALPHABET)
_BEGIN = NUM_CHARACTERS  # what the model is given before the first character
_CHUNK = 2_000  # characters that go to one part together


def encode(text: str) -> np.ndarray:
    """Return the indices of characters; a capital becomes small, whatever the alphabet lacks one space."""
    lower = re.sub(f"[^{re.escape(ALPHABET)}]+", " ", text.lower())
    place = {character: i for i, character in enumerate(ALPHABET)}
    return np.array([place[character] for character in re.sub(" +", " ", lower)], np.int32)


def decode(tokens: Any) -> str:
    """Return the text of indices."""
    return "".join(ALPHABET[int(i)] for i in np.asarray(tokens))


def load_text() -> workbench.Split:
    """Return the indices of all characters, dealt in stretches of 2,000: eight of ten to train on, one, and one.

    The topics repeat each other; only the first of equal paragraphs is kept, so that none is in two parts.
    """
    from pydoc_data.topics import topics

    paragraphs = (" ".join(paragraph.split()) for name in sorted(topics) for paragraph in topics[name].split("\n\n"))
    tokens = encode(" ".join(dict.fromkeys(paragraphs)))
    parts: tuple[list[np.ndarray], ...] = ([], [], [])
    for i, start in enumerate(range(0, len(tokens), _CHUNK)):
        parts[{8: 1, 9: 2}.get(i % 10, 0)].append(tokens[start : start + _CHUNK])
    return workbench.Split(*map(np.concatenate, parts))


def windows(tokens: np.ndarray, length: int) -> np.ndarray:
    """Cut text into rows (n, length), one after the other; what does not fill a row is left out."""
    num = len(tokens) // length
    if not num:
        workbench.stop(f"length: expected at most {len(tokens)}, the characters there are, got {length}")
    return tokens[: num * length].reshape(num, length)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The size of a model."""

    width: int = 128
    embedding: int = 32


class Model(eqx.Module):
    """Embedding, gated recurrent unit, linear layer."""

    embedding: Array
    cell: eqx.nn.GRUCell
    head: eqx.nn.Linear

    def __init__(self, key: Array, settings: Settings) -> None:
        """Draw the parameters."""
        first, second, third = jax.random.split(key, 3)
        self.embedding = jax.random.normal(first, (NUM_CHARACTERS + 1, settings.embedding))
        self.cell = eqx.nn.GRUCell(settings.embedding, settings.width, key=second)
        self.head = eqx.nn.Linear(settings.width, NUM_CHARACTERS, key=third)

    def begin(self) -> Array:
        """Return the state before any text, which has seen the sign that text begins."""
        return self.cell(self.embedding[_BEGIN], jnp.zeros(self.cell.hidden_size))

    def read(self, state: Array, tokens: Array) -> tuple[Array, Array]:
        """Return the state after the characters (length,), and the states (length, width) before each of them."""

        def step(state: Array, embedded: Array) -> tuple[Array, Array]:
            return self.cell(embedded, state), state

        return jax.lax.scan(step, state, self.embedding[tokens])

    def hidden(self, tokens: Array) -> Array:
        """Return what the linear layer is applied to, (length, width), for the characters (length,)."""
        return self.read(self.begin(), tokens)[1]

    def logits(self, tokens: Array) -> Array:
        """Return the logits (length, characters) of each of the characters (length,) given those before it."""
        return jax.vmap(self.head)(self.hidden(tokens))

    def sample(self, key: Array, length: int, prompt: Array | None = None) -> tuple[Array, Array]:
        """Draw a continuation: its characters (length,) and the log probability (length,) of each as it was drawn.

        The state is carried, so a character costs one step of the network. `logits` of prompt and continuation
        together gives the same probabilities at the places after the prompt.
        """
        state = self.begin() if prompt is None else self.read(self.begin(), prompt)[0]

        def step(state: Array, place: Array) -> tuple[Array, tuple[Array, Array]]:
            log_probs = jax.nn.log_softmax(self.head(state))
            token = jax.random.categorical(jax.random.fold_in(key, place), log_probs)
            return self.cell(self.embedding[token], state), (token, log_probs[token])

        return jax.lax.scan(step, state, jnp.arange(length))[1]


def cross_entropy(model: Model, rows: Array) -> Array:
    """Return −log probability of each character in rows (n, length), in nats."""
    log_probs = jax.nn.log_softmax(jax.vmap(model.logits)(rows))
    return -jnp.take_along_axis(log_probs, rows[..., None], axis=-1)[..., 0]


def random_windows(key: Array, tokens: Array, num: int, length: int) -> Array:
    """Return rows (num, length) that begin anywhere in the text."""
    starts = jax.random.randint(key, (num,), 0, len(tokens) - length + 1)
    return jax.vmap(lambda start: jax.lax.dynamic_slice(tokens, (start,), (length,)))(starts)


@eqx.filter_jit
def train(
    key: Array,
    model: Model,
    tokens: Array,
    *,
    num_steps: int,
    num_rows: int = 32,
    length: int = 64,
    learning_rate: float = 5e-3,
) -> tuple[Model, Array]:
    """Minimize the mean cross-entropy of random windows by Adam with cosine decay; return model and loss a step."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))
    )

    def loss(model: Model, key: Array) -> Array:
        return jnp.mean(cross_entropy(model, random_windows(key, tokens, num_rows, length)))

    def step(carry: Any, key: Array) -> tuple[Any, Array]:
        model, state = carry
        value, gradient = jax.value_and_grad(loss)(model, key)
        updates, state = optimizer.update(gradient, state, model)
        return (optax.apply_updates(model, updates), state), value

    keys = jax.random.split(key, num_steps)
    (model, _), losses = jax.lax.scan(step, (model, optimizer.init(model)), keys)
    return model, losses
