"""The picture: targets in gray, draws of the best flow in blue, the best full-rank Gaussian as ellipses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import vi_kit as vk
from vi_kit.plots import BLUE, DOTS_PER_INCH, GRAY, VERMILLION

# The first two coordinates of each target: their names and the window.
VIEWS = {
    "funnel": (("log variance", "x₁"), (-10, 10), (-30, 30)),
    "banana": (("x₁", "x₂"), (-32, 32), (-20, 8)),
    "two moons": (("z₁", "z₂"), (-4, 4), (-4, 4)),
}
_NUM = 3_000


def draw(targets: dict[str, vk.Target], best: dict[Any, Any], path: Path) -> None:
    """Draw p above, q below: contours where there are two coordinates, draws of both where there are ten."""
    figure, panels = plt.subplots(1, len(VIEWS), figsize=(10.5, 3.6), layout="constrained")
    for axes, (name, (labels, across, up)) in zip(panels, VIEWS.items(), strict=True):
        _draw_target(axes, targets[name], across, up)
        flow = min(("affine flow", "spline flow"), key=lambda title, n=name: best[n, title][0])
        kl, family, params = best[name, flow]
        keys = jax.random.split(jax.random.key(6), _NUM)
        draws = np.asarray(jax.vmap(lambda k, f=family, p=params: f.dist(p).sample(seed=k))(keys))
        axes.plot(draws[:, 0], draws[:, 1], ".", markersize=1.5, color=BLUE, alpha=0.5, label="draws of the flow")
        gaussian_kl, family, params = best[name, "full-rank"]
        q = family.dist(params)
        factor = np.linalg.cholesky(np.asarray(q.covariance())[:2, :2])
        turns = np.linspace(0, 2 * np.pi, 200)
        for radius in (1, 2):
            ellipse = np.asarray(q.mean())[:2, None] + radius * factor @ np.stack([np.cos(turns), np.sin(turns)])
            axes.plot(*ellipse, color=VERMILLION, linewidth=1.3, label="full-rank, 1 and 2 sd" if radius == 1 else None)
        title = f"{name}\nKL(q‖p): {flow} {kl:.3f}, full-rank {gaussian_kl:.2f}"
        axes.set(title=title, xlabel=labels[0], ylabel=labels[1], xlim=across, ylim=up)
        axes.title.set_fontsize(10)
    panels[0].legend(fontsize="small", loc="upper left", markerscale=6)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)


def _draw_target(axes: Any, target: vk.Target, across: tuple[float, float], up: tuple[float, float]) -> None:
    if target.dim == 2:
        grid = np.meshgrid(np.linspace(*across, 200), np.linspace(*up, 200))
        points = jnp.asarray(np.stack(grid, -1).reshape(-1, 2))
        log_p = np.asarray(jax.vmap(target.log_density)(points)).reshape(grid[0].shape)
        levels = log_p.max() - np.array([8.0, 4.5, 2.0, 0.5, 0.0])
        axes.contourf(*grid, log_p, levels=levels, colors=["0.92", "0.82", "0.70", "0.55"])
        return
    keys = jax.random.split(jax.random.key(5), _NUM)
    draws = np.asarray(jax.vmap(lambda key: target.unconstrain(target.sample(key)))(keys))
    axes.plot(draws[:, 0], draws[:, 1], ".", markersize=2.5, color=GRAY, label="draws of p")
