"""The pictures: what is missed and what is spilled, and the KL of both directions while the students learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from vi_kit.plots import BLUE, GRAY, GREEN, VERMILLION

DOTS_PER_INCH = 110
ORANGE, SKY, PURPLE = "#E69F00", "#56B4E9", "#CC79A7"


def color(name: str) -> str:
    """Return the color of a way of learning."""
    beginnings = {"forward": BLUE, "reverse": VERMILLION, "Jensen": GREEN, "skew reverse": ORANGE, "skew": SKY}
    return next((found for start, found in beginnings.items() if name.startswith(start)), GRAY)


def plane(results: dict[str, Any], path: Path | None = None) -> Any:
    """Draw missed against spilled, a point a seed and a mark for the mean, and entropy beside it with the names."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.4), layout="constrained", width_ratios=[3, 2])
    marks = iter("osD^vP*X<>hpd")
    shown = [name for name in results["methods"] if "fused" not in name]
    for height, name in enumerate(shown):
        test, mark = results["methods"][name]["test"], next(marks)
        left.plot(test["spilled"], test["missed"], ".", color=color(name), alpha=0.35, markersize=4)
        middle = np.mean(test["spilled"]), np.mean(test["missed"])
        left.plot(*middle, mark, color=color(name), markersize=8, markeredgecolor="white")
        right.plot(test["entropy"], [height] * len(test["entropy"]), ".", color=color(name), alpha=0.4)
        right.plot(np.mean(test["entropy"]), height, mark, color=color(name), markersize=7)
    right.axvline(np.mean(results["teacher"]["entropy"]), color="black", linewidth=1, label="the teacher's")
    right.set_yticks(range(len(shown)), shown, fontsize="small")
    right.invert_yaxis()
    right.set_xlabel("mean entropy of the student, nats")
    right.legend(fontsize="small")
    left.set_xlabel("spilled: the student's mass where the teacher has less than a tenth of it")
    left.set_ylabel("missed: the teacher's mass where\nthe student has less than a tenth of it")
    return save(figure, path)


def curves(results: dict[str, Any], settings: dict[str, Any], path: Path | None = None) -> Any:
    """Draw KL(teacher‖student) where the teacher writes and KL(student‖teacher) where the student does, over steps."""
    figure, panels = plt.subplots(1, 3, figsize=(11.5, 3.8), layout="constrained")
    shown = (
        ("teacher writes", "KL(teacher‖student)"),
        ("student writes", "KL(student‖teacher)"),
        ("text", "cross-entropy"),
    )
    styles = {"text alone": (GRAY, "-"), "forward, on text": (BLUE, "--"), "forward, teacher writes": (BLUE, "-")}
    styles |= {"reverse, on text": (VERMILLION, "--"), "reverse, student writes": (VERMILLION, "-")}
    styles |= {"reverse, student writes, partial gradient": (PURPLE, "-")}
    for axes, (place, what) in zip(panels, shown, strict=True):
        begin = np.mean(results["start"]["validation"][place][what])
        for name, row in results["methods"].items():
            values = [begin, *row["curve"][place][what]]
            steps = settings["every"] * np.arange(len(values))
            axes.plot(steps, values, styles[name][1], color=styles[name][0], label=name)
        where = "held-out text" if place == "text" else f"the {place}"
        axes.set_title(f"{what}\n{where}, nats a character", fontsize=10)
        axes.set_xlabel("step")
    panels[0].legend(fontsize="small")
    return save(figure, path)


def save(figure: Any, path: Path | None) -> Any:
    """Write the figure if there is a path, and return it."""
    if path is not None:
        figure.savefig(path, dpi=DOTS_PER_INCH)
        plt.close(figure)
    return figure
