"""Errors of the answers against what the reports say of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the largest error of every fit over its k̂, and seconds by target."""
    real = [row for row in rows if "mean error" in row]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 6.2), width_ratios=(1, 1.15), layout="constrained")
    for reliable, color, label in ((True, "tab:blue", "called reliable"), (False, "tab:red", "not called reliable")):
        some = [row for row in real if row["reliable"] == reliable]
        left.plot(
            [row["khat"] for row in some], [max(row["mean error"], row["sd error"]) for row in some],
            "o", color=color, alpha=0.7, label=label,
        )  # fmt: skip
    left.axhline(0.1, color="0.5", linewidth=1)
    left.axhline(0.3, color="0.5", linewidth=1, linestyle="--")
    left.axvline(0.7, color="0.5", linewidth=1, linestyle=":")
    left.set(xlabel="Pareto k̂", ylabel="largest error of a mean or sd, in reference sds", yscale="log")
    left.legend(loc="upper right", frameon=False)
    left.set_title("Accurate: below the line; a false assurance: blue above the dashes", fontsize=9)
    names = list(dict.fromkeys(row["target"] for row in rows))
    seconds = [np.median([row["seconds"] for row in rows if row["target"] == name]) for name in names]
    order = np.argsort(seconds)
    right.barh(range(len(names)), np.array(seconds)[order], color="tab:blue", alpha=0.7)
    right.set_yticks(range(len(names)), [names[i] for i in order], fontsize=7)
    right.set(xlabel="seconds, compilation included (median of the seeds)", xlim=(0, None))
    right.axvline(5, color="0.5", linewidth=1)
    figure.savefig(path, dpi=110)
    plt.close(figure)
