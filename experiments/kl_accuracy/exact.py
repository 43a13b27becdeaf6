"""What the answers should be: float64 on the same float32 inputs, and the exact KL of a Markov chain."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax, softmax, xlogy


def categorical(p_logits: np.ndarray, q_logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return KL(p‖q) and its gradients to both logits, of the last axis.

    With x = (t − s) − E_p[t − s], KL = log E_p[e^−x] + E_p[x]: float64 itself would lose the digits of
    Σ p (log p − log q) where p and q agree to 1e-5. A class without p adds nothing to the value.
    """
    t, s = np.asarray(p_logits, np.float64), np.asarray(q_logits, np.float64)
    p, q = softmax(t, -1), softmax(s, -1)
    with np.errstate(invalid="ignore"):
        gap = np.where(p > 0, t - s, 0.0)
    if not np.isfinite(gap).all():  # p > 0 where q = 0
        return np.full(t.shape[:-1], np.inf), np.full_like(t, np.nan), q - p
    for _ in range(2):  # the second takes away what rounding left
        gap -= np.sum(p * gap, -1, keepdims=True)
    if gap[p > 0].min() > -500:  # e^−x holds
        outside = np.sum(np.where(p > 0, 0.0, q), -1)  # classes with q alone enter its normalizer
        kl = np.log1p(np.sum(p * _expm1_minus(-gap), -1)) - np.log1p(-outside)
        to_q = np.where(p > 0, p * np.expm1(-(gap + kl[..., None])), q)
    else:
        log_p, log_q = (np.where(p > 0, log_softmax(x, -1), 0.0) for x in (t, s))
        kl, to_q = np.sum(p * (log_p - log_q), -1), q - p
    return kl, p * gap, to_q


def _expm1_minus(x: np.ndarray) -> np.ndarray:
    """Return e^x − 1 − x, by its series near 0."""
    near = np.abs(x) < 1
    small = np.where(near, x, 0.0)
    term, total = small * small / 2, np.zeros_like(x)
    for k in range(3, 22):
        total += term
        term = term * small / k
    return np.where(near, total, np.expm1(x) - x)


def textbook(p_logits: np.ndarray, q_logits: np.ndarray) -> np.ndarray:
    """Return Σ p (log p − log q) in the widest floating point there is, to check `categorical` by its definition."""
    t, s = np.asarray(p_logits, np.longdouble), np.asarray(q_logits, np.longdouble)
    log_p, log_q = (x - x.max(-1, keepdims=True) for x in (t, s))
    log_p, log_q = (x - np.log(np.sum(np.exp(x), -1, keepdims=True)) for x in (log_p, log_q))
    return np.sum(np.exp(log_p) * (log_p - log_q), -1)


def jensen_shannon(
    p_logits: np.ndarray, q_logits: np.ndarray, beta: float, normalize: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return β·KL(p‖m) + (1−β)·KL(q‖m), m = βp + (1−β)q, and its gradients; KL(p‖q) at β = 0, KL(q‖p) at 1."""
    if beta == 0:
        return categorical(p_logits, q_logits)
    if beta == 1:
        value, to_q, to_p = categorical(q_logits, p_logits)
        return value, to_p, to_q
    p, q = softmax(np.asarray(p_logits, np.float64), -1), softmax(np.asarray(q_logits, np.float64), -1)
    m, difference = beta * p + (1 - beta) * q, categorical(p_logits, q_logits)[2]  # q − p with all its digits
    of_p, of_q = _log_ratio((beta - 1) * difference, p, m), _log_ratio(beta * difference, q, m)
    scale = 1 / (beta * (1 - beta)) if normalize else 1.0
    first, second = p * of_p, q * of_q
    p_part, q_part = first.sum(-1, keepdims=True), second.sum(-1, keepdims=True)
    value = beta * p_part + (1 - beta) * q_part
    return scale * value[..., 0], scale * beta * (first - p * p_part), scale * (1 - beta) * (second - q * q_part)


def _log_ratio(difference: np.ndarray, a: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Return log(a / m) from a − m and a, 0 where a is 0."""
    shift = np.divide(difference, m, out=np.zeros_like(m), where=m > 0)
    near, positive = np.abs(shift) < 0.5, a > 0
    far = np.log(np.where(positive, a, 1.0)) - np.log(np.where(positive, m, 1.0))
    return np.where(near & positive, np.log1p(np.where(near, shift, 0.0)), far)


def gaussian(mean: np.ndarray, log_variance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return KL(N(mean, e^ℓ) ‖ N(0, 1)) and its gradients to the mean and ℓ, elementwise."""
    mean, log_variance = np.asarray(mean, np.float64), np.asarray(log_variance, np.float64)
    return 0.5 * (mean**2 + _expm1_minus(log_variance)), mean, 0.5 * np.expm1(log_variance)


def markov_chain(start: np.ndarray, p_transition: np.ndarray, q_transition: np.ndarray, length: int) -> float:
    """Return KL(p‖q) of sequences of `length` tokens with the same first state: Σ_t E_p[KL of the next token]."""
    at_state = np.sum(xlogy(p_transition, p_transition) - xlogy(p_transition, q_transition), -1)
    total, state = 0.0, start
    for _ in range(length):
        total += float(state @ at_state)
        state = state @ p_transition
    return total
