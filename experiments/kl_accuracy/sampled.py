"""What sampled estimates of a sequence KL are worth, and whether their intervals cover.

The sequences come from a Markov chain, whose KL is known exactly.
"""

from __future__ import annotations

import functools
from typing import Any

import exact
import jax
import jax.numpy as jnp
import numpy as np

from vi_kit import kl

NUM_TOKENS, LENGTH, PERTURBATIONS = 50, 20, (0.1, 0.5, 1.0)
ORDER = (
    "k1",
    "k2",
    "k3",
    "control variate",
    "k3 of the whole sequence",
    "control variate of the whole sequence",
    "Rao–Blackwell",
)


def chain(perturbation: float) -> tuple[np.ndarray, np.ndarray]:
    """Return next-token logits of p and q, a row a token."""
    rng = np.random.default_rng(0)
    p = rng.normal(size=(NUM_TOKENS, NUM_TOKENS))
    return p, p + perturbation * rng.normal(size=p.shape)


def exact_kl(perturbation: float) -> float:
    """Return KL(p‖q) of whole sequences, started from a uniform token."""
    p, q = (np.exp(exact.log_softmax(x, -1)) for x in chain(perturbation))
    return exact.markov_chain(np.full(NUM_TOKENS, 1 / NUM_TOKENS), p, q, LENGTH)


@functools.partial(jax.jit, static_argnames="num_sequences")
def estimates(key: jax.Array, p_logits: jax.Array, q_logits: jax.Array, num_sequences: int) -> dict[str, Any]:
    """Draw sequences from p and return every estimate."""
    cumulative = jnp.cumsum(jax.nn.softmax(p_logits), -1)[:, :-1]
    first_key, key = jax.random.split(key)
    first = jax.random.randint(first_key, (num_sequences,), 0, NUM_TOKENS)

    def step(token: jax.Array, uniform: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.sum(cumulative[token] < uniform[:, None], -1), token

    last, states = jax.lax.scan(step, first, jax.random.uniform(key, (LENGTH, num_sequences)))
    states = states.T
    tokens = jnp.concatenate([states[:, 1:], last[:, None]], 1)
    log_p, log_q = (jax.nn.log_softmax(x)[states, tokens] for x in (p_logits, q_logits))
    of_sequence = log_p.sum(1), log_q.sum(1)
    per_sequence = kl.sequence(p_logits[states], q_logits[states])
    return {
        "k1": kl.estimate(log_p, log_q, estimator=kl.k1),
        "k2": kl.estimate(log_p, log_q, estimator=kl.k2),
        "k3": kl.estimate(log_p, log_q, estimator=kl.k3),
        "control variate": kl.estimate(log_p, log_q, estimator=kl.control_variate),
        "k3 of the whole sequence": kl.estimate(*of_sequence, estimator=kl.k3),
        "control variate of the whole sequence": kl.estimate(*of_sequence, estimator=kl.control_variate),
        "Rao–Blackwell": kl.Estimate(
            jnp.mean(per_sequence), jnp.std(per_sequence, ddof=1) / num_sequences**0.5, jnp.float32(num_sequences)
        ),
    }


@functools.partial(jax.jit, static_argnames="num_sequences")
def repeat(keys: jax.Array, p_logits: jax.Array, q_logits: jax.Array, num_sequences: int) -> dict[str, Any]:
    """Return every estimate from every key, one after the other."""
    return jax.lax.map(lambda key: estimates(key, p_logits, q_logits, num_sequences), keys)


def run(smoke: bool) -> list[dict[str, Any]]:
    """Return mean, standard deviation a sequence, and the share of 95 % intervals that hold the exact KL."""
    repetitions, num_sequences = (20, 100) if smoke else (2_000, 1_000)
    rows = []
    for perturbation in PERTURBATIONS[:1] if smoke else PERTURBATIONS:
        logits = [jnp.asarray(x, jnp.float32) for x in chain(perturbation)]
        true = exact_kl(perturbation)
        results = repeat(jax.random.split(jax.random.key(0), repetitions), *logits, num_sequences)
        least = float(np.std(results["Rao–Blackwell"].value))
        for name in ORDER:
            value, error = (np.asarray(x, np.float64) for x in (results[name].value, results[name].standard_error))
            row = {"exact": true, "estimator": name, "mean": np.mean(value)}
            row["sd of the mean"] = np.std(value) / repetitions**0.5
            row["sd a sequence"] = np.std(value) * num_sequences**0.5
            row["sequences for the same error"] = (np.std(value) / least) ** 2
            row["coverage"] = np.mean(np.abs(value - true) <= 1.96 * error)
            rows.append({k: v if k == "estimator" else float(f"{v:.4g}") for k, v in row.items()})
    return rows


def table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Return header and body for printing."""
    return list(rows[0]), [list(row.values()) for row in rows]
