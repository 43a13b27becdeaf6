"""The README's figure: evaluations to the bar by condition number, one panel a dimension."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "0.2", "0.6")


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw evaluations over condition numbers; hollow marks at the budget are algorithms that did not get there."""
    dims = sorted({row["dim"] for row in rows})
    names = list(dict.fromkeys(row["algorithm"] for row in rows))
    figure, axes = plt.subplots(1, len(dims), figsize=(11, 3.6), layout="constrained", sharey=True, squeeze=False)
    for axis, dim in zip(axes[0], dims, strict=True):
        for name, color in zip(names, COLORS, strict=False):
            found = sorted(
                (row["condition"], row["evaluations"], row["reached"])
                for row in rows
                if row["algorithm"] == name and row["dim"] == dim
            )
            axis.plot([c for c, *_ in found], [n for _, n, _ in found], color=color, label=name, linewidth=1.5)
            for condition, number, reached in found:
                axis.plot(condition, number, "o", color=color, markerfacecolor=color if reached else "white")
        axis.set(xscale="log", yscale="log", xlabel="condition number", title=f"d = {dim}")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("evaluations to the bar")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(path, dpi=100)
    plt.close(figure)
