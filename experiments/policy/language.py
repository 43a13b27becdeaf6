"""A character model, a reference that stays frozen, a reward, and short texts of which every one can be listed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import character_model
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from character_model import ALPHABET, NUM_CHARACTERS, Model
from gradients import NAMES, WAYS, Draws, penalty

from vi_kit import kl

stop = jax.lax.stop_gradient
IS_VOWEL = np.array([float(character in "aeiou") for character in ALPHABET], np.float32)
EXACT = "exact gradient, no draws"


def reward(tokens: Any) -> Any:
    """Count the vowels of texts (..., length)."""
    return jnp.sum(jnp.asarray(IS_VOWEL)[tokens], axis=-1)


@dataclasses.dataclass(frozen=True)
class Reference:
    """How the reference was trained."""

    width: int = 32
    num_steps: int = 1_500
    seed: int = 0


def untrained(settings: Reference) -> Model:
    """Return the reference before training."""
    return Model(jax.random.key(settings.seed), character_model.Settings(width=settings.width))


def train_reference(settings: Reference) -> tuple[Model, float]:
    """Train the reference; return it and its cross-entropy on validation text, in nats a character."""
    text, key = character_model.load_text(), jax.random.key(settings.seed + 1)
    model, _ = character_model.train(key, untrained(settings), jnp.asarray(text.train), num_steps=settings.num_steps)
    return model, held_out(model, text.validation)


def held_out(model: Model, tokens: np.ndarray) -> float:
    """Return the cross-entropy on text, in nats a character."""
    rows = jnp.asarray(character_model.windows(tokens, 128))
    return float(jnp.mean(eqx.filter_jit(character_model.cross_entropy)(model, rows)))


@functools.cache
def every_text(length: int) -> np.ndarray:
    """List all texts of a length, (alphabet^length, length), the last character changing fastest."""
    grid = np.meshgrid(*[np.arange(NUM_CHARACTERS)] * length, indexing="ij")
    return np.stack(grid, axis=-1).reshape(-1, length).astype(np.int32)


def every_logits(model: Model, length: int) -> Any:
    """Return the next-character logits along all texts; the model reads each beginning once."""
    beginnings = every_text(length - 1)
    tokens = np.concatenate([beginnings, np.zeros_like(beginnings[:, :1])], axis=1)
    logits = jax.vmap(model.logits)(tokens)
    return jnp.repeat(logits, NUM_CHARACTERS, axis=0)


def every_log_prob(model: Model, length: int) -> Any:
    """Return log π of all texts."""
    beginnings = every_text(length - 1)
    tokens = np.concatenate([beginnings, np.zeros_like(beginnings[:, :1])], axis=1)
    log_probs = jax.nn.log_softmax(jax.vmap(model.logits)(tokens))
    before = jnp.take_along_axis(log_probs[:, :-1], beginnings[..., None], axis=-1)[..., 0]
    return (jnp.sum(before, axis=1, keepdims=True) + log_probs[:, -1]).reshape(-1)


def judge(model: Model, log_reference: Any, length: int, coefficient: float) -> dict[str, Any]:
    """Return reward, KL(π‖ref), E[reward] − β KL and KL(π‖best), all by adding up over every text."""
    log_prob = every_log_prob(model, length)
    rewards = reward(every_text(length))
    best = kl.regularized_policy(log_reference, rewards, coefficient)
    expected, moved = jnp.sum(jnp.exp(log_prob) * rewards), kl.categorical(log_prob, log_reference)
    found = {"reward": expected, "kl": moved, "value": expected - coefficient * moved}
    return found | {"kl to the best": kl.categorical(log_prob, best)}


def exact_loss(model: Model, log_reference: Any, length: int, coefficient: float) -> Any:
    """Return β KL − E[reward], without any draws."""
    return -judge(model, log_reference, length, coefficient)["value"]


def sampled_loss(
    model: Model, reference: Model, ways: tuple[str, ...], way: Any, coefficient: Any, tokens: Any, prompts: Any = None
) -> tuple[Any, Draws]:
    """Return β KL − E[reward] from draws of the policy: the reward by score function, leave-one-out baseline."""
    draws = continuations(model, reference, tokens, prompts)
    log_p, _ = draws.log_probs()
    got = reward(tokens)
    others = (jnp.sum(got) - got) / (len(got) - 1)
    return coefficient * penalty(ways, way, draws) - jnp.mean((got - others) * jnp.sum(log_p, axis=1)), draws


def continuations(model: Model, reference: Model, tokens: Any, prompts: Any = None) -> Draws:
    """Let policy and reference read what the policy drew, after its prompts."""
    start, whole = (0, tokens) if prompts is None else (prompts.shape[1], jnp.concatenate([prompts, tokens], axis=1))
    logits, reference_logits = (jax.vmap(m.logits)(whole)[:, start:] for m in (model, reference))
    return Draws(tokens, logits, stop(reference_logits))


@dataclasses.dataclass(frozen=True)
class Short:
    """Training on texts that can be listed."""

    length: int = 3
    num_steps: int = 600
    num_draws: int = 128
    every: int = 40  # steps from one look to the next
    coefficient: float = 0.3
    rate: float = 3e-3
    ways: tuple[str, ...] = NAMES


@functools.partial(jax.jit, static_argnames=("exact", "settings"))
def tune(
    keys: Any, reference: Model, way: Any, rate: Any, *, exact: bool, settings: Short
) -> tuple[Model, dict[str, Any]]:
    """Fine-tune one policy a key, from the reference; return them, and what they are worth every so many steps."""
    s = settings
    log_reference = every_log_prob(reference, s.length)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(rate, s.num_steps)))

    def gradient(model: Model, key: Any) -> Model:
        if exact:
            return jax.grad(exact_loss)(model, log_reference, s.length, s.coefficient)
        tokens, _ = jax.vmap(lambda k: model.sample(k, s.length))(jax.random.split(key, s.num_draws))
        return jax.grad(sampled_loss, has_aux=True)(model, reference, s.ways, way, s.coefficient, tokens)[0]

    def step(carry: Any, key: Any) -> tuple[Any, None]:
        model, state = carry
        change, state = optimizer.update(gradient(model, key), state)
        return (optax.apply_updates(model, change), state), None

    def stretch(carry: Any, keys: Any) -> Any:
        carry, _ = jax.lax.scan(step, carry, keys)
        return carry, judge(carry[0], log_reference, s.length, s.coefficient)

    def one(key: Any) -> Any:
        keys = jax.random.split(key, (s.num_steps // s.every, s.every))
        (model, _), curve = jax.lax.scan(stretch, (reference, optimizer.init(reference)), keys)
        return model, curve

    return jax.lax.map(one, keys)


@functools.partial(jax.jit, static_argnames=("length", "ways"))
def every_gradient(model: Model, reference: Model, *, length: int, ways: tuple[str, ...]) -> tuple[Any, Any]:
    """Return the gradient of KL(π‖ref), and each way's expected gradient, by listing every text instead of drawing.

    Each text once is a sample of the uniform distribution without an error: the ways take it as a behavior.
    """
    tokens = jnp.asarray(every_text(length))
    uniform = jnp.full(tokens.shape, -jnp.log(NUM_CHARACTERS), jnp.float32)
    reference_logits = every_logits(reference, length)

    def true(model: Model) -> Any:
        return kl.categorical(every_log_prob(model, length), every_log_prob(reference, length))

    logits, pull = jax.vjp(lambda m: every_logits(m, length), model)

    def one(way: Callable[[Draws], Any]) -> Any:
        return jax.grad(lambda x: way(Draws(tokens, x, reference_logits, uniform)))(logits)

    slopes = jnp.stack([one(WAYS[name][0]) for name in ways])
    return jax.grad(true)(model), jax.lax.map(lambda slope: pull(slope)[0], slopes)


def expected_gradients(model: Model, reference: Model, length: int, ways: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return length and direction of each way's expected gradient beside the true one's."""

    def flat(tree: Any, num: int) -> np.ndarray:
        return np.concatenate([np.asarray(leaf, float).reshape(num, -1) for leaf in jax.tree.leaves(tree)], axis=1)

    true, slopes = every_gradient(model, reference, length=length, ways=ways)
    (exact,), rows = flat(true, 1), flat(slopes, len(ways))
    found = {}
    for name, row in zip(ways, rows, strict=True):
        ratio = float(np.linalg.norm(row) / np.linalg.norm(exact))
        cosine = float(row @ exact / (np.linalg.norm(row) * np.linalg.norm(exact))) if ratio > 1e-3 else None
        found[name] = {"length": ratio, "cosine": cosine}
    return found


def frontier(log_reference: Any, length: int, coefficients: Any) -> dict[str, Any]:
    """Return KL and reward of the best policies, π ∝ ref exp(reward / β), for a range of β."""
    rewards = reward(every_text(length))

    def one(coefficient: Any) -> Any:
        best = kl.regularized_policy(log_reference, rewards, coefficient)
        return kl.categorical(best, log_reference), jnp.sum(jnp.exp(best) * rewards)

    moved, got = jax.lax.map(one, jnp.asarray(coefficients, jnp.float32))
    return {"kl": moved, "reward": got}
