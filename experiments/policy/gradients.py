"""What can be done with a KL from draws: nine ways to differentiate it, five of them wrong.

A way takes the draws with the logits of policy and reference along them; it returns the KL whose gradient is used.
Draws come from π, or from `log_behavior` if that is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_kit import kl

stop = jax.lax.stop_gradient


class Draws(NamedTuple):
    """Continuations of the policy, and what policy and reference make of them."""

    tokens: Any  # (draws, characters)
    logits: Any  # (draws, characters, alphabet)
    reference_logits: Any
    log_behavior: Any = None  # (draws, characters), None: the policy's own

    def log_probs(self) -> tuple[Any, Any]:
        """Return log π and log ref of the characters."""
        both = (jax.nn.log_softmax(logits) for logits in (self.logits, self.reference_logits))
        first, second = (jnp.take_along_axis(x, self.tokens[..., None], axis=-1)[..., 0] for x in both)
        return first, second


def k1_as_loss(log_p: Any, log_q: Any, log_weight: Any) -> Any:
    """Differentiate the log ratio itself: the gradient is 0 on average."""
    return kl.k1(log_p - log_q, stop(log_weight))


def k2_as_loss(log_p: Any, log_q: Any, log_weight: Any) -> Any:
    """Differentiate half the square of the sequence's log ratio: right."""
    total = jnp.sum(log_p - log_q, axis=1, keepdims=True)
    return jnp.broadcast_to(kl.k2(total, stop(log_weight)) / log_p.shape[1], log_p.shape)


def k2_by_character(log_p: Any, log_q: Any, log_weight: Any) -> Any:
    """Differentiate half the square of each character's log ratio: a character is not told what it leads to."""
    return kl.k2(log_p - log_q, stop(log_weight))


def k3_as_loss(log_p: Any, log_q: Any, log_weight: Any) -> Any:
    """Differentiate k3 of each character: the gradient of the other direction, KL(ref‖π), with prefixes as they are."""
    return kl.k3(log_p - log_q, stop(log_weight))


def k3_with_ratio(log_p: Any, log_q: Any, log_weight: Any) -> Any:
    """Differentiate k3 times the ratio of policy and behavior: right, if the ratio is the sequence's."""
    return kl.k3(log_p - log_q, log_weight)


def _estimated(gradient: Callable[[Any, Any, Any], Any]) -> Callable[[Draws], Any]:
    def penalty(draws: Draws) -> Any:
        log_p, log_q = draws.log_probs()
        behavior = stop(log_p) if draws.log_behavior is None else draws.log_behavior
        return kl.estimate(log_p, log_q, gradient=gradient, log_behavior=behavior).value

    return penalty


def _sequence(draws: Draws, *, tokens: Any, baseline_axis: int | None) -> Any:
    values = kl.sequence(draws.logits, draws.reference_logits, tokens=tokens, baseline_axis=baseline_axis)
    log_p, _ = draws.log_probs()
    behavior = log_p if draws.log_behavior is None else draws.log_behavior
    return jnp.mean(stop(jnp.exp(jnp.sum(log_p - behavior, axis=1))) * values)


def whole_sequence(draws: Draws) -> Any:
    """Rao–Blackwellised, with what each character leads to: right."""
    axis = 0 if draws.log_behavior is None else None
    return _sequence(draws, tokens=draws.tokens, baseline_axis=axis)


def sequence_without_tokens(draws: Draws) -> Any:
    """Rao–Blackwellised, but not told which characters were drawn: prefixes count as given."""
    return _sequence(draws, tokens=None, baseline_axis=None)


def no_penalty(draws: Draws) -> Any:
    """No KL at all: what a gradient of 0 amounts to."""
    return jnp.zeros(())


# Name: (function, whether its gradient is that of KL(π‖ref)).
WAYS: dict[str, tuple[Callable[[Draws], Any], bool]] = {
    "score (k1 in the reward)": (_estimated(kl.score), True),
    "sequence, with tokens": (whole_sequence, True),
    "k2 of the sequence as a loss": (_estimated(k2_as_loss), True),
    "k3 times the ratio": (_estimated(k3_with_ratio), True),
    "sequence, without tokens": (sequence_without_tokens, False),
    "k2 of each character as a loss": (_estimated(k2_by_character), False),
    "k3 of each character as a loss": (_estimated(k3_as_loss), False),
    "k1 as a loss": (_estimated(k1_as_loss), False),
    "no penalty": (no_penalty, False),
}
NAMES = tuple(WAYS)


def penalty(ways: tuple[str, ...], way: Any, draws: Draws) -> Any:
    """Return the KL in one of the named ways, by an index that may be traced: one program serves them all."""
    return jax.lax.switch(way, [WAYS[name][0] for name in ways], draws)
