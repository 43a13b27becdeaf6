"""The picture: targets in gray, reverse fits in one color, forward fits in another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np

import vi_kit as vk
from vi_kit.plots import BLUE, DOTS_PER_INCH, GRAY, VERMILLION

# Two coordinates of each target, by their names, and the window.
VIEWS = {
    "mixture": (("x₁", "x₂"), (0, 1), (-7.5, 7.5), (-4.5, 4.5)),
    "banana": (("x₁", "x₂"), (0, 1), (-32, 32), (-20, 12)),
    "funnel": (("log variance", "x₁"), (0, 1), (-10, 10), (-30, 30)),
}


def draw(fits: dict[Any, vk.Posterior], path: Path) -> None:
    """Draw one and two standard deviations of every Gaussian over draws of the target."""
    figure, panels = plt.subplots(1, len(VIEWS), figsize=(10.5, 3.5), layout="constrained")
    for axes, (name, (labels, chosen, across, up)) in zip(panels, VIEWS.items(), strict=True):
        target = vk.targets.load(name)
        keys = jax.random.split(jax.random.key(5), 4_000)
        draws = np.asarray(jax.vmap(lambda key, t=target: t.unconstrain(t.sample(key)))(keys))
        axes.scatter(
            draws[:, chosen[0]], draws[:, chosen[1]], s=1, color=GRAY, alpha=0.4, linewidths=0, label="draws of p"
        )
        for title, color in (("reverse", BLUE), ("forward", VERMILLION)):
            posterior = fits[name, title]
            q = posterior.family.dist(posterior.params)
            mean = np.asarray(q.mean())[list(chosen)]
            block = np.asarray(q.covariance())[np.ix_(chosen, chosen)]
            turns = np.linspace(0, 2 * np.pi, 200)
            circle = np.linalg.cholesky(block) @ np.stack([np.cos(turns), np.sin(turns)])
            for radius in (1, 2):
                label = f"q by {title} KL" if radius == 1 else None
                axes.plot(*(mean[:, None] + radius * circle), color=color, linewidth=1.4, label=label)
        axes.set(title=name, xlabel=labels[0], ylabel=labels[1], xlim=across, ylim=up)
    panels[0].legend(fontsize="small", loc="upper left", markerscale=6)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)
