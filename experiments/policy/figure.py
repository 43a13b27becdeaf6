"""The figures: learning curves over the KL of every update, and what ways of a gradient lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gradients import WAYS
from matplotlib.figure import Figure

from vi_kit.plots import BLUE, GRAY, GREEN, VERMILLION

COLORS = (BLUE, GRAY, GREEN, VERMILLION, "#E69F00")
RIGHT = ("#0072B2", "#56B4E9", "#009E73", "#004D40")
WRONG = ("#D55E00", "#E69F00", "#CC79A7", "#882255", "#8C8C8C")


def save(figure: Figure, path: Path) -> None:
    """Write a small file."""
    figure.savefig(path, dpi=72, pil_kwargs={"optimize": True})


def color(way: str) -> str:
    """Give ways whose gradient is right cool colors, and the others warm ones."""
    if way not in WAYS:
        return "black"
    same = [name for name, (_, right) in WAYS.items() if right == WAYS[way][1]]
    return (RIGHT if WAYS[way][1] else WRONG)[same.index(way)]


def draw(results: dict[str, Any], folder: Path) -> None:
    """Draw all three."""
    draw_control(results, folder / "control.png")
    draw_short(results["short"], folder / "short.png")
    draw_long(results, folder / "long.png")


def draw_control(results: dict[str, Any], path: Path) -> None:
    """Draw returns above, the KL of each update below; a line a seed, thick the median."""
    tasks, target = results["control"], results["settings"]["control"]["target"]
    figure = Figure(figsize=(10.5, 6), layout="constrained")
    panels = figure.subplots(2, len(tasks), squeeze=False, sharex="col")
    for column, (task, methods) in enumerate(tasks.items()):
        for (name, found), shade in zip(methods.items(), COLORS, strict=False):
            for axes, rows in zip(panels[:, column], (found["curve"], found["kl"]), strict=True):
                lines = np.array(rows, float)
                steps = np.arange(1, lines.shape[1] + 1)
                axes.plot(steps, lines.T, color=shade, alpha=0.25, linewidth=0.7)
                axes.plot(steps, np.median(lines, axis=0), color=shade, linewidth=1.8, label=name)
        panels[0, column].set(title=task, ylabel="return of the last episodes")
        panels[1, column].set(
            yscale="log", xlabel="update (2,048 steps each)", ylabel="KL(old‖new), nats", ylim=(2e-5, 0.5)
        )
        panels[1, column].axhline(target, color="black", linewidth=1, linestyle="--", label="budget")
    panels[1, 0].legend(fontsize="small", loc="lower left")
    save(figure, path)


def draw_short(short: dict[str, Any], path: Path) -> None:
    """Draw KL(π‖best) over training, and the ends beside the frontier of best policies."""
    figure = Figure(figsize=(10.5, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    frontier = short["frontier"]
    right.plot(frontier["kl"], frontier["reward"], color="black", linewidth=1.2, label="best for any β")
    for way, found in short["ways"].items():
        curve = np.asarray(found["curve"])
        steps = np.arange(1, curve.shape[1] + 1) / curve.shape[1]
        style = "-" if way not in WAYS or WAYS[way][1] else "--"
        left.plot(steps, np.maximum(curve, 1e-6).mean(axis=0), color=color(way), linestyle=style, label=way)
        marker = "o" if style == "-" else "X"
        right.plot(found["kl"]["values"], found["reward"]["values"], marker, color=color(way), markersize=5)
    right.plot(short["best"]["kl"], short["best"]["reward"], "*", color="black", markersize=13, label="best for this β")
    near = right.inset_axes((0.5, 0.07, 0.47, 0.42), xlim=(1.5, 1.82), ylim=(1.855, 1.9))
    for line in right.get_lines():
        size = line.get_markersize()
        near.plot(*line.get_data(), color=line.get_color(), marker=line.get_marker(), ls=line.get_linestyle(), ms=size)
    near.tick_params(labelsize="x-small")
    right.indicate_inset_zoom(near, edgecolor="0.5")
    left.set(yscale="log", xlabel="part of training", ylabel="KL(π‖best), nats")
    figure.legend(*left.get_legend_handles_labels(), fontsize="small", loc="outside lower center", ncols=3)
    right.set(xscale="log", xlim=(0.3, 30), xlabel="KL(π‖ref), nats", ylabel="E[reward], vowels of three characters")
    right.legend(fontsize="small", loc="upper left")
    save(figure, path)


def draw_long(results: dict[str, Any], path: Path) -> None:
    """Draw the KL, the coefficient that holds it, and the reward, over training."""
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    labels = {
        "kl curve": "KL(π‖ref), nats",
        "coefficient": "coefficient β",
        "reward curve": "vowels of the continuation",
    }
    for axes, (name, label) in zip(panels, labels.items(), strict=True):
        for way, found in results["long"]["ways"].items():
            lines = np.asarray(found[name])
            axes.plot(lines.T, color=color(way), alpha=0.2, linewidth=0.6)
            axes.plot(np.median(lines, axis=0), color=color(way), linewidth=1.6, label=way)
        axes.set(xlabel="step", ylabel=label, yscale="linear" if name == "reward curve" else "log")
    target = results["settings"]["text"]["long"]["target"]
    panels[0].axhline(target, color="black", linewidth=1, linestyle="--", label="budget")
    panels[0].legend(fontsize="x-small", loc="lower right")
    save(figure, path)
