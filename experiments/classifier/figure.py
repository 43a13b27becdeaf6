"""Reliability: how often a prediction is right, against how sure it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from measure import reliability

SHOWN = ("hard", "smoothed by 0.1", "one vote", "majority of votes", "shares of votes")


def draw(rows: list[dict[str, Any]], distinct: int, path: Path) -> None:
    """Draw one panel a kind of labels, the test rows of all seeds together; so many of them are distinct."""
    fig, axes = plt.subplots(1, len(SHOWN), figsize=(2.5 * len(SHOWN), 2.7), sharex=True, sharey=True)
    labels = np.concatenate([row["labels"] for row in rows])
    for ax, name in zip(axes, SHOWN, strict=True):
        probs = np.concatenate([row["predictions"][name] for row in rows])
        confidence, right, counts = reliability(probs, labels)
        counts = counts * distinct / len(labels)  # splits share rows: each counts once
        error = np.sqrt(np.maximum(right * (1 - right), 0.5 / counts) / counts)
        ax.plot([0, 1], [0, 1], color="0.6", lw=0.8)
        ax.errorbar(confidence, right, 2 * error, fmt="o", ms=3, lw=1, color="tab:blue")
        ax.set(title=name, xlabel="confidence", xlim=(0, 1.02), ylim=(0, 1.02))
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("share that is right")
    fig.tight_layout()
    fig.savefig(path, dpi=100, pil_kwargs={"optimize": True})
    plt.close(fig)
