"""The README's figure: relative error against how far the logits are apart."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

# Okabe–Ito colors; vi_kit in front in the strongest.
STYLES = {
    "vi_kit": ("#0072B2", "-", 2.6),
    "optax, log targets": ("#D55E00", "-", 1.4),
    "distrax": ("#009E73", "--", 1.4),
    "NumPyro": ("#CC79A7", "-", 1.4),
    "jax.scipy rel_entr": ("#56B4E9", "-.", 1.4),
    "Keras": ("#E69F00", ":", 1.8),
    "PyTorch kl_div, log targets": ("#000000", "--", 1.2),
}


def _spread(heights: list[float], gap: float, low: float, high: float) -> list[float]:
    """Move labels apart, in log10 units, keeping their order."""
    order = np.argsort(heights)
    placed = np.array(heights, float)
    for _ in range(200):
        for below, above in itertools.pairwise(order):
            lack = gap - (placed[above] - placed[below])
            if lack > 1e-9:
                placed[below] -= lack / 2
                placed[above] += lack / 2
        placed = np.clip(placed, low, high)
    return list(placed)


def draw(rows: list[dict[str, Any]], classes: int, perturbations: tuple[float, ...], path: Path) -> None:
    """Draw value and gradient for one vocabulary, negative answers marked."""
    rows = [row for row in rows if row["classes"] == classes and row["library"] in STYLES]
    x = np.asarray(perturbations)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for axis, name, title in zip(axes, ("value", "gradient_q"), ("KL(p‖q)", "gradient to q's logits"), strict=True):
        ends, labels = [], []
        for row in rows:
            color, line, width = STYLES[row["library"]]
            y = np.maximum(np.asarray(row[name], float), 1e-8)
            front = 3 if row["library"] == "vi_kit" else 2
            axis.plot(x, y, line, color=color, linewidth=width, zorder=front)
            negative = np.asarray(row["negative"]) > 0
            if name == "value":
                axis.plot(x[negative], y[negative], "v", color=color, markersize=6, zorder=front)
            ends.append(float(np.log10(y[-1])))
            labels.append((row["library"].split(",")[0], color))
        low, high = -8.2, 6.0
        for height, (label, color) in zip(_spread(ends, 0.75, low, high), labels, strict=True):
            axis.annotate(
                label, (x[-1], 10**height), xytext=(8, 0), textcoords="offset points", color=color, va="center",
                fontsize=9, fontweight="bold" if label == "vi_kit" else "normal",
            )  # fmt: skip
        axis.axhline(1, color="0.75", linewidth=0.8, zorder=1)
        axis.annotate("no digit right", (x[0], 1), xytext=(2, 3), textcoords="offset points", color="0.4", fontsize=8)
        axis.set(xscale="log", yscale="log", xlim=(12, 5e-8), ylim=(10**low / 2, 10**high), title=title)
        axis.set_xticks(x, [f"$10^{{{np.log10(v):.0f}}}$" if v < 1 else f"{v:g}" for v in x])
        axis.spines["bottom"].set_bounds(x[0], x[-1])
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel("perturbation of the logits")
    axes[0].set_ylabel("worst relative error, float32")
    axes[0].annotate("▼ some answers negative", (0.02, 0.96), xycoords="axes fraction", fontsize=8, color="0.3")
    figure.suptitle(f"Nearly equal distributions of {classes:,} classes", fontsize=11)
    figure.savefig(path, dpi=100)
    plt.close(figure)
