"""The pictures: bounds and latents by way of training, reconstructions and samples, the latent plane."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx
from images import Images, binarized
from jax.scipy.special import ndtri
from matplotlib.ticker import MaxNLocator

from vi_kit.plots import BLUE, GRAY, VERMILLION

DPI = 110


def first_model(fitted: dict[str, Any]) -> Any:
    """Return the first seed's model."""
    return nnx.merge(fitted["graph"], jax.tree.map(lambda leaf: leaf[0], fitted["params"]))


def bounds(results: dict[str, Any], path: Path) -> None:
    """Draw the test bounds of all seeds, and the KL of each latent."""
    rows = results["arms"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for place, row in enumerate(rows.values()):
        found = row["bound"]
        left.plot(found["values"], [place] * len(found["values"]), ".", color=GRAY, alpha=0.7)
        left.errorbar(found["mean"], place, xerr=2 * (found["standard_error"] or 0), fmt="o", color=BLUE, capsize=3)
    left.set_yticks(range(len(rows)), [row["title"] for row in rows.values()])
    left.invert_yaxis()
    lowest = max(row["bound"]["mean"] for row in rows.values()) - 1.5
    for place, row in enumerate(rows.values()):
        if row["bound"]["mean"] < lowest:
            left.annotate(f"← {row['bound']['mean']:.2f}", (lowest, place), va="center", fontsize="small")
    left.set_xlim(left=lowest)
    left.xaxis.set_major_locator(MaxNLocator(5))
    left.set(xlabel=f"test bound, k = {results['settings']['test_draws']} (nats), mean ± 2 standard errors")
    shown = {"vae": (BLUE, "-"), "free-bits": (BLUE, ":"), "beta-4": (VERMILLION, "-"), "iwae": ("black", "-")}
    for name, (color, style) in shown.items():
        if name in rows:
            values = rows[name]["KL a unit, largest first"]
            right.plot(range(1, len(values) + 1), values, style, color=color, marker=".", label=rows[name]["title"])
    right.set(xlabel="latent, by its KL", ylabel="KL to N(0, 1) on test images (nats)")
    right.legend(fontsize="small")
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def _grid(axes: Any, rows: np.ndarray, columns: int, title: str) -> None:
    side = math.isqrt(rows.shape[1])
    tiles = rows.reshape(-1, columns, side, side)
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=0.5)
    axes.imshow(np.concatenate(np.concatenate(tiles, axis=1), axis=1), cmap="gray_r", vmin=0, vmax=1)
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def images(results: dict[str, Any], models: dict[str, Any], images: Images, path: Path) -> None:
    """Draw test images over their reconstructions, and samples of the prior, for a few ways of training."""
    names = [name for name in ("vae", "iwae", "flow-prior") if name in models] or list(models)[:1]
    count = min(10, len(images.test))
    x = jnp.asarray(binarized(images.test[:count], seed=3))
    figure, panels = plt.subplots(len(names), 2, figsize=(8.5, 1.55 * len(names)), layout="constrained", squeeze=False)
    for (left, right), name in zip(panels, names, strict=True):
        model = first_model(models[name])
        mean, _ = model.encode(x)
        again = jax.nn.sigmoid(model.decoder(mean))
        above = np.concatenate([images.test[:count], x, np.asarray(again)])
        title = results["arms"][name]["title"]
        _grid(left, above, count, f"{title}: test images, as binarized, reconstructed")
        z = model.sample_prior(jax.random.key(7), 3 * count)
        _grid(right, np.asarray(jax.nn.sigmoid(model.decoder(z))), count, "decoded draws of the prior")
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def plane(fitted: dict[str, Any], images: Images, path: Path) -> None:
    """Draw where test images lie in the plane of two latents, and what each place of it decodes to."""
    model = first_model(fitted)
    mean, _ = model.encode(jnp.asarray(binarized(images.test, seed=3)))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.4), layout="constrained")
    labels = images.test_labels
    colors = {"c": GRAY} if labels is None else {"c": labels, "cmap": "tab10", "vmin": -0.5, "vmax": 9.5}
    shown = left.scatter(*np.asarray(mean).T, s=9, **colors)
    if labels is not None:
        figure.colorbar(shown, ax=left, ticks=range(10), label="digit")
    left.set(title="means of q(z|x) of test images", xlabel="z₁", ylabel="z₂", aspect="equal")
    side = 15
    places = ndtri((jnp.arange(side) + 0.5) / side)
    z = jnp.stack(jnp.meshgrid(places, places[::-1]), axis=-1).reshape(-1, 2)
    _grid(right, np.asarray(jax.nn.sigmoid(model.decoder(z))), side, "decoded at equal shares of N(0, I)")
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
