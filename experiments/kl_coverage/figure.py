"""The README's figure: the worst relative error of every family, library by library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

# Okabe–Ito colors; vi_kit in the strongest.
STYLES = {
    "vi_kit": ("#0072B2", "o"),
    "distrax": ("#009E73", "s"),
    "TFP on JAX": ("#D55E00", "^"),
    "NumPyro": ("#CC79A7", "D"),
    "torch": ("#000000", "x"),
}
FLOOR, CEILING = 1e-8, 1e6


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw one line a family, one mark a library."""
    rows = [
        row | {"family": row["family"].partition(" (")[0] + (", logits" if "logits" in row["family"] else "")}
        for row in rows
    ]
    families = list(dict.fromkeys(row["family"] for row in rows))
    worst = {(row["family"], row["library"]): float(row["worst"]) for row in rows}

    def rank(family: str) -> tuple[int, float]:
        peers = [
            np.log10(max(worst[family, name], FLOOR)) for name in STYLES if name != "vi_kit" and (family, name) in worst
        ]
        return len(peers), max(peers, default=0)

    families.sort(key=rank)
    figure, axis = plt.subplots(figsize=(8, 0.19 * len(families) + 1.4), layout="constrained")
    for name, (color, marker) in STYLES.items():
        points = [(worst[f, name], i) for i, f in enumerate(families) if (f, name) in worst]
        x = np.clip([min(v, CEILING) for v, _ in points], FLOOR, CEILING)
        front = name == "vi_kit"
        axis.plot(x, [i for _, i in points], marker, color=color, markersize=6 if front else 5, label=name,
                  zorder=4 if front else 3, fillstyle="full" if front else "none")  # fmt: skip
    axis.axvline(1e-3, color="0.6", linewidth=0.9)
    axis.annotate("right: 10⁻³", (1e-3, len(families) - 0.4), xytext=(3, 0), textcoords="offset points", fontsize=8)
    axis.axvline(1, color="0.85", linewidth=0.9)
    axis.annotate("no digit right", (1, len(families) - 0.4), xytext=(3, 0), textcoords="offset points", fontsize=8,
                  color="0.4")  # fmt: skip
    axis.set(xscale="log", xlim=(FLOOR / 1.6, CEILING * 1.6), ylim=(-0.8, len(families) + 0.4))
    axis.set_yticks(range(len(families)), families, fontsize=7)
    axis.set_xticks(
        [1e-8, 1e-6, 1e-4, 1e-2, 1, 1e2, 1e4, 1e6], ["≤10⁻⁸", "10⁻⁶", "10⁻⁴", "10⁻²", "1", "10²", "10⁴", "≥10⁶"]
    )
    axis.minorticks_off()
    axis.grid(axis="y", color="0.93", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel("worst relative error of KL, float32, p and q 10⁻¹ to 10⁻⁵ apart")
    axis.legend(loc="lower right", fontsize=8, frameon=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
