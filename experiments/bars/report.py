"""Tables and figure of the rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

Row = dict[str, Any]
COST_BARS = {"seconds": (60.0, 10.0), "gradient evaluations": (20_000.0, 2_000.0)}


def cost_of_fit(path: Path) -> list[Row]:
    """Return rows on the cost of `vk.fit` with no argument, where it ends with a Gaussian, from its own experiment."""
    rows = []
    found = [row for row in json.loads(path.read_text())["rows"] if row.get("floor") is not None]
    for name in dict.fromkeys(row["target"] for row in found):
        own = [row for row in found if row["target"] == name]
        for what, (bar, stretch) in COST_BARS.items():
            value = float(np.median([row[what] for row in own]))
            rows.append({
                "test": f"vk.fit that ends with a full-rank Gaussian: {what}", "target": name, "value": value,
                "values": [row[what] for row in own], "floor": 0.0, "bar": bar, "stretch": stretch,
                "reached": value <= bar, "stretched": value <= stretch,
            })  # fmt: skip
    return rows


ORDER = ("full-rank:", "mean-field", "full-rank, d about 30", "forward", "flow", "Gaussian", "diagnosis", "vk.fit")


def tests_of(rows: Sequence[Row]) -> list[str]:
    """Return the names of the tests, in the order of the tables."""

    def place(test: str) -> int:
        return next((i for i, prefix in enumerate(ORDER) if test.startswith(prefix)), len(ORDER))

    return sorted(dict.fromkeys(row["test"] for row in rows), key=place)


def number(value: float | None) -> str:
    """Return three digits, or as many as there are before the point."""
    if value is None:
        return ""
    if not np.isfinite(value):
        return "not reached"
    if value != 0 and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"


def mark(reached: bool | None) -> str:
    """Say yes, no, or nothing where there is no bar."""
    return "" if reached is None else "yes" if reached else "**no**"


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Return the counts by test, and a line for every row."""
    tests = tests_of(rows)
    counts = ["| test | targets | reach the bar | reach the stretch | missed |", "| --- | ---: | ---: | ---: | --- |"]
    for test in tests:
        own = [row for row in rows if row["test"] == test]
        aimed = [row for row in own if row["stretched"] is not None]
        missed = ", ".join(row["target"] for row in own if not row["reached"])
        stretched = f"{sum(row['stretched'] for row in aimed)} of {len(aimed)}" if aimed else ""
        counts.append(f"| {test} | {len(own)} | {sum(row['reached'] for row in own)} | {stretched} | {missed} |")
    aimed = [row for row in rows if row["stretched"] is not None]
    counts.append(
        f"| **all** | {len(rows)} | {sum(row['reached'] for row in rows)} | "
        f"{sum(row['stretched'] for row in aimed)} of {len(aimed)} | |"
    )
    lines = [
        "| test | target | value | floor | bar | stretch | bar reached | stretch reached |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for test in tests:
        for row in sorted((row for row in rows if row["test"] == test), key=lambda row: row["target"]):
            cells = [number(row["value"]), number(row["floor"]) if row["floor"] else "", number(row["bar"])]
            cells += [number(row["stretch"]), mark(row["reached"]), mark(row["stretched"])]
            lines.append(f"| {test} | {row['target']} | {' | '.join(cells)} |")
    return {"counts": "\n".join(counts), "rows": "\n".join(lines)}


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw how much of the way from the floor to the bar each value takes."""
    tests = tests_of(rows)
    figure, axes = plt.subplots(figsize=(10, 0.36 * len(tests) + 1.6), layout="constrained")
    least = 1e-3
    for i, test in enumerate(tests):
        own = [row for row in rows if row["test"] == test]
        shares = np.array([(row["value"] - row["floor"]) / (row["bar"] - row["floor"]) for row in own])
        offsets = i + np.linspace(-0.25, 0.25, len(own)) if len(own) > 1 else np.array([float(i)])
        colors = ["tab:blue" if row["reached"] else "tab:red" for row in own]
        axes.scatter(np.clip(shares, least, 1e3), offsets, c=colors, s=16, alpha=0.8)
        missed = sorted(
            (min(share, 1e3), row["target"]) for row, share in zip(own, shares, strict=True) if not row["reached"]
        )
        if missed:
            names = ", ".join(name.split("-")[-1] for _, name in missed)
            axes.annotate(names, (missed[-1][0], i), xytext=(7, -2), textcoords="offset points", fontsize=6)
    axes.axvline(1, color="0.4", linewidth=1)
    axes.set(
        xscale="log", ylim=(len(tests) - 0.4, -0.6), xlabel="(value − floor) / (bar − floor); 0.001 stands for less"
    )
    axes.set_yticks(range(len(tests)), tests, fontsize=7)
    axes.margins(x=0.12)
    figure.savefig(path, dpi=110)
    plt.close(figure)
