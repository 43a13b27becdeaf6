"""The README's figure: time of dense KL beside optax, and temporary memory of the output layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OURS, OTHERS = "#0072B2", "0.45"


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw ratios with their 10 to 90 % range, and planned memory."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 2.9), layout="constrained")
    rows = [row for row in results["dense"] if row["what"] == "value and gradient to q"]
    rows.sort(key=lambda row: -row["ratio to optax"])
    for height, row in enumerate(rows):
        color = OURS if row["by"] == "vi_kit" else OTHERS
        ratio, (low, high) = row["ratio to optax"], row["10 to 90 %"]
        left.plot([low, high], [height, height], color=color, linewidth=2)
        left.plot(ratio, height, "o", color=color, markersize=7)
        left.annotate(
            f"{ratio:.2f}",
            (ratio, height),
            xytext=(0, 7),
            textcoords="offset points",
            color=color,
            fontsize=9,
            ha="center",
        )
    left.axvline(1, color="0.8", linewidth=0.8, zorder=0)
    left.set_yticks(range(len(rows)), [row["by"] for row in rows])
    left.set(xlim=(0, None), ylim=(-0.6, len(rows) - 0.2), xlabel="time, optax = 1")
    left.set_title("KL of dense logits with its gradient, 512 × 32,000", fontsize=10)

    shape = results["fused"][-1]["shape"]
    rows = [row for row in results["fused"] if row["shape"] == shape]
    rows.sort(key=lambda row: -row["temporary MiB"])
    for height, row in enumerate(rows):
        color = OTHERS if row["by"].startswith("naive") else OURS
        right.barh(height, row["temporary MiB"], color=color, height=0.6)
        right.annotate(
            f" {row['temporary MiB']:,.0f} MiB", (row["temporary MiB"], height), color=color, fontsize=9, va="center"
        )
    right.set_yticks(range(len(rows)), [row["by"].removeprefix("vi_kit ").removeprefix("naive: ") for row in rows])
    right.set(xlim=(0, 1.25 * max(row["temporary MiB"] for row in rows)), xlabel=f"temporary memory at {shape}, MiB")
    right.set_title("output layer, KL and gradients", fontsize=10)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)
    plt.close(figure)
