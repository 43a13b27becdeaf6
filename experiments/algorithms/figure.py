"""The README's figure: evaluations to the bar by condition number, one panel a dimension."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

STYLES = {  # color and mark; hollow where the bar was not reached
    "natural gradient": ("#0072B2", "o"),
    "fixed draws": ("#D55E00", "s"),
    "batch and match": ("#009E73", "D"),
    "score matching": ("#CC79A7", "^"),
    "Laplace": ("0.6", "v"),
    "gradient descent": ("0.1", "o"),
    "Pathfinder": ("#56B4E9", "P"),
    "score climbing": ("#E69F00", "X"),
}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw evaluations over condition numbers; hollow marks at the budget are algorithms that did not get there."""
    dims = sorted({row["dim"] for row in rows})
    figure, axes = plt.subplots(1, len(dims), figsize=(11, 4), layout="constrained", sharey=True, squeeze=False)
    for axis, dim in zip(axes[0], dims, strict=True):
        for place, (name, (color, mark)) in enumerate(STYLES.items()):
            found = sorted(
                (row["condition"], row["evaluations"], row["reached"], row["bar"])
                for row in rows
                if row["algorithm"] == name and row["dim"] == dim
            )
            if not found:
                continue
            label = name if found[0][3] == 1e-3 else f"{name} (bar {found[0][3]:g})"
            x = [c * 1.35 ** (place - 3.5) for c, *_ in found]  # side by side
            axis.plot(x, [n for _, n, *_ in found], color=color, linewidth=1, alpha=0.6)
            for at, (_, number, reached, _) in zip(x, found, strict=True):
                axis.plot(at, number, mark, color=color, markerfacecolor=color if reached else "white")
            axis.plot([], [], mark + "-", color=color, label=label)
        axis.set(xscale="log", yscale="log", xlabel="condition number", title=f"d = {dim}")
        axis.set_xticks(sorted({row["condition"] for row in rows}))
        axis.minorticks_off()
        axis.grid(axis="y", color="0.92")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("evaluations to the bar\n(hollow: not reached)")
    figure.legend(*axes[0][-1].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(path, dpi=100)
    plt.close(figure)
