"""Calibration: how many held-out rows lie in central intervals, against how many should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

COLORS = {
    "least squares": "0.5",
    "maximum a posteriori": "tab:red",
    "ensemble": "tab:orange",
    "mean-field": "tab:blue",
    "low-rank": "tab:green",
    "mean-field, vk.fit": "tab:cyan",
}


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw one panel a set: coverage less nominal, so that calibrated is a flat line."""
    sets = results["sets"]
    fig, axes = plt.subplots(
        1, len(sets), figsize=(3.4 * len(sets), 2.9), sharey=True, squeeze=False, layout="constrained"
    )
    levels = np.arange(1, 20) / 20
    for ax, (name, one) in zip(axes[0], sets.items(), strict=True):
        error = 2 * np.sqrt(levels * (1 - levels) / one["distinct test rows"])  # splits share rows
        ax.fill_between(levels, -error, error, color="0.9", lw=0)
        for method, row in one["methods"].items():
            ax.plot(levels, np.array(row["coverage curve"]) - levels, color=COLORS[method], label=method, lw=1.4)
        ax.axhline(0, color="k", lw=0.6)
        ax.set(title=name, xlabel="nominal coverage")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("coverage less nominal")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower center", ncols=5)
    fig.savefig(path, dpi=110, pil_kwargs={"optimize": True})
    plt.close(fig)
