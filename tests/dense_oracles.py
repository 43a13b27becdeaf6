"""Divergences between categorical distributions in extended precision, on the very numbers that vi_kit is given.

Even double precision is not enough for the textbook forms: at a logit perturbation of 1e-5 a KL of 5e-11 is a
difference of numbers near 10. These sum terms that have no cancellation left.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Extended = np.longdouble


def _phi(x: np.ndarray) -> np.ndarray:
    """Return exp(x) − 1 − x."""
    series = sum(x**k / Extended(float(np.prod(np.arange(1.0, k + 1)))) for k in range(2, 12))
    return np.where(np.abs(x) < 0.01, series, np.expm1(np.where(np.isneginf(x), -1e4, x)) - x)


def _psi(x: np.ndarray) -> np.ndarray:
    """Return x − log(1 + x)."""
    series = sum((-1) ** k * x**k / k for k in range(2, 14))
    return np.where(np.abs(x) < 0.01, series, x - np.log1p(x))


def parts(p_logits: Any, q_logits: Any, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return p, q and log p − log q over the last axis; 0 where p is 0."""
    logs = []
    for logits in (p_logits, q_logits):
        x = np.asarray(logits).astype(Extended) / Extended(temperature)
        x = x - x.max(-1, keepdims=True)
        logs.append(x - np.log(np.exp(x).sum(-1, keepdims=True)))
    p, q = (np.exp(x) for x in logs)
    with np.errstate(invalid="ignore"):
        return p, q, np.where(p > 0, logs[0] - logs[1], 0)


def kl(p_logits: Any, q_logits: Any, temperature: float = 1.0) -> np.ndarray:
    p, q, d = parts(p_logits, q_logits, temperature)
    with np.errstate(invalid="ignore"):
        return np.where(p > 0, p * _phi(-d), q).sum(-1)


def kl_gradients(p_logits: Any, q_logits: Any, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients to p's and q's logits."""
    p, q, d = parts(p_logits, q_logits, temperature)
    value = kl(p_logits, q_logits, temperature)[..., None]
    to_q = np.where(p > 0, p * np.expm1(-d), q)
    return p * (d - value) / temperature, to_q / temperature


def jensen_shannon(p_logits: Any, q_logits: Any, *, beta: float = 0.5, normalize: bool = False) -> np.ndarray:
    if beta in (0, 1):
        return kl(p_logits, q_logits) if beta == 0 else kl(q_logits, p_logits)
    p, q, d = parts(p_logits, q_logits)
    share = Extended(beta)
    value = share * (p * _psi((1 - share) * np.expm1(-d))).sum(-1)
    value += (1 - share) * (q * _psi(share * np.expm1(d))).sum(-1)
    return value / (share * (1 - share)) if normalize else value


def skew(p_logits: Any, q_logits: Any, *, alpha: float = 0.1) -> np.ndarray:
    if alpha == 0:
        return kl(p_logits, q_logits)
    p, _, d = parts(p_logits, q_logits)
    return (p * _psi((1 - Extended(alpha)) * np.expm1(-d))).sum(-1)


def renyi(p_logits: Any, q_logits: Any, *, alpha: float) -> np.ndarray:
    if alpha == 1:
        return kl(p_logits, q_logits)
    p, _, d = parts(p_logits, q_logits)
    excess = Extended(alpha) - 1
    return np.log1p((p * (_phi(excess * d) + excess * _phi(-d))).sum(-1)) / excess


def alpha_divergence(p_logits: Any, q_logits: Any, *, alpha: float) -> np.ndarray:
    p, _, d = parts(p_logits, q_logits)
    excess = Extended(alpha) - 1
    return (p * (_phi(excess * d) / excess + _phi(-d))).sum(-1) / Extended(alpha)


def jeffreys(p_logits: Any, q_logits: Any) -> np.ndarray:
    return kl(p_logits, q_logits) + kl(q_logits, p_logits)


def total_variation(p_logits: Any, q_logits: Any) -> np.ndarray:
    p, _, d = parts(p_logits, q_logits)
    return np.abs(p * np.expm1(-d)).sum(-1) / 2


def entropy(logits: Any) -> np.ndarray:
    p, _, _ = parts(logits, logits)
    return -(p * np.log(np.where(p > 0, p, 1))).sum(-1)


def cross_entropy(p_logits: Any, q_logits: Any) -> np.ndarray:
    p, q, _ = parts(p_logits, q_logits)
    return -(p * np.log(np.where(p > 0, q, 1))).sum(-1)


def to_uniform(logits: Any) -> np.ndarray:
    return kl(logits, np.zeros_like(np.asarray(logits)))


def numerical_gradient(function: Callable[[np.ndarray], np.ndarray], x: Any, step: float = 1e-6) -> np.ndarray:
    """Differentiate the sum of a function by central differences in extended precision."""
    x = np.asarray(x).astype(Extended)
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        moved = np.zeros_like(x)
        moved[i] = step
        gradient[i] = (function(x + moved) - function(x - moved)).sum() / (2 * Extended(step))
    return gradient
