"""What is measured of predictions: accuracy, log-likelihood, Brier score, calibration."""

from __future__ import annotations

from typing import Any

import numpy as np

BINS = 10


def scores(log_probs: Any, labels: Any, mistakes: float) -> dict[str, float]:
    """Return the scores of log probabilities (rows, classes) for true classes (rows,).

    KL to votes is KL(t‖prediction), t being what annotators say who are wrong in this share of cases.
    """
    log_probs, labels = np.asarray(log_probs, np.float64), np.asarray(labels)
    probs = np.exp(log_probs)
    one_hot = np.eye(probs.shape[1])[labels]
    votes = np.where(one_hot == 1, 1 - mistakes, mistakes / (probs.shape[1] - 1))
    return {
        "accuracy": float(np.mean(probs.argmax(axis=1) == labels)),
        "log-likelihood": float(np.mean(log_probs[np.arange(len(labels)), labels])),
        "Brier score": float(np.mean(np.sum((probs - one_hot) ** 2, axis=1))),
        "calibration error": calibration_error(probs, labels),
        "KL to votes": float(np.mean(np.sum(votes * (np.log(votes) - log_probs), axis=1))),
        "confidence": float(np.mean(probs.max(axis=1))),
    }


def reliability(probs: Any, labels: Any) -> tuple[Any, Any, Any]:
    """Return mean confidence, share that is right and number of rows of bins with equally many rows."""
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    parts = np.array_split(np.argsort(confidence, kind="stable"), BINS)
    bins = [(confidence[part].mean(), right[part].mean(), len(part)) for part in parts if len(part)]
    return tuple(np.array(column) for column in zip(*bins, strict=True))


def calibration_error(probs: Any, labels: Any) -> float:
    """Mean over bins of |confidence − share right|, weighted by rows."""
    confidence, right, rows = reliability(probs, labels)
    return float(np.sum(rows * np.abs(confidence - right)) / np.sum(rows))
