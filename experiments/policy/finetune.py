"""Longer texts after prompts: a KL budget held by an adaptive coefficient, for ways of differentiating the KL."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from character_model import Model, decode, random_windows
from language import continuations, reward, sampled_loss

from vi_kit import kl


@dataclasses.dataclass(frozen=True)
class Long:
    """Training on continuations of prompts."""

    prompt: int = 8
    length: int = 24
    num_steps: int = 300
    num_draws: int = 32
    target: float = 6.0  # nats a continuation
    coefficient: float = 0.3
    rate: float = 3e-3
    change: float = 0.05  # the coefficient moves by at most 0.2 times this part of itself a step
    num_judged: int = 256
    ways: tuple[str, ...] = (
        "sequence, with tokens",
        "score (k1 in the reward)",
        "k3 of each character as a loss",
        "k1 as a loss",
    )

    def adaptive(self) -> kl.AdaptiveCoefficient:
        """Return the controller of Ziegler et al., 2019, https://arxiv.org/abs/1909.08593."""
        return kl.AdaptiveCoefficient(kl.ProportionalRule(num_steps=self.change, horizon=1.0), 1e-3, 1e3)


@functools.partial(jax.jit, static_argnames="settings")
def tune(keys: Any, reference: Model, text: Any, way: Any, *, settings: Long) -> tuple[Model, Any]:
    """Fine-tune one policy a key; return them with reward, KL and coefficient of every step."""
    s = settings
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(s.rate))
    adaptive = s.adaptive()

    def step(carry: Any, key: Any) -> Any:
        model, state, coefficient = carry
        prompt_key, draw_key = jax.random.split(key)
        prompts = random_windows(prompt_key, text, s.num_draws, s.prompt)
        tokens = draw(model, draw_key, prompts, s.length)
        slope = jax.grad(sampled_loss, has_aux=True)
        gradient, seen = slope(model, reference, s.ways, way, coefficient.coefficient, tokens, prompts)
        change, state = optimizer.update(gradient, state)
        moved = jnp.mean(kl.sequence(seen.logits, seen.reference_logits))
        record = jnp.mean(reward(tokens)), moved, coefficient.coefficient
        return (optax.apply_updates(model, change), state, adaptive.update(coefficient, moved)), record

    def one(key: Any) -> Any:
        first = (reference, optimizer.init(reference), adaptive.init(s.coefficient, s.target))
        (model, *_), records = jax.lax.scan(step, first, jax.random.split(key, s.num_steps))
        return model, records

    return jax.lax.map(one, keys)


def draw(model: Model, key: Any, prompts: Any, length: int) -> Any:
    """Continue prompts."""
    keys = jax.random.split(key, len(prompts))
    return jax.vmap(lambda k, prompt: model.sample(k, length, prompt)[0])(keys, prompts)


@functools.partial(jax.jit, static_argnames="settings")
def judge(models: Model, reference: Model, key: Any, text: Any, *, settings: Long) -> dict[str, Any]:
    """Return reward and KL on prompts of other text, one a policy, with a continuation."""
    prompt_key, draw_key = jax.random.split(key)
    prompts = random_windows(prompt_key, text, settings.num_judged, settings.prompt)

    def one(model: Model) -> Any:
        tokens = draw(model, draw_key, prompts, settings.length)
        seen = continuations(model, reference, tokens, prompts)
        moved = kl.sequence(seen.logits, seen.reference_logits)
        return {"reward": jnp.mean(reward(tokens)), "kl": jnp.mean(moved), "text": tokens[:3]}

    return jax.lax.map(one, models) | {"prompts": prompts[:3]}


def texts(judged: dict[str, Any], seed: int = 0) -> list[list[str]]:
    """Return prompts and continuations of one policy, to be read."""
    pairs = zip(np.asarray(judged["prompts"]), np.asarray(judged["text"])[seed], strict=True)
    return [[decode(prompt), decode(text)] for prompt, text in pairs]
