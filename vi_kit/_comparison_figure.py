"""The picture everybody draws on a whiteboard: mode-seeking against mass-covering."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from vi_kit import _distributions as distributions
from vi_kit._comparison import FORWARD, REVERSE, Comparison, differences
from vi_kit._posterior import Posterior
from vi_kit._resolve import Resolved
from vi_kit._types import Family, Params, Target
from vi_kit.diagnostics._draws import coordinates, element_labels
from vi_kit.plots import BLUE, GRAY, VERMILLION, Path, draw_densities, save, tidy

_STYLE: dict[str, tuple[str, Any]] = {REVERSE: (BLUE, "-"), FORWARD: (VERMILLION, "--")}
_WORD = {REVERSE: "reverse KL, seeks a mode", FORWARD: "forward KL, covers the mass"}
_GRID = 240
_MOST_PANELS = 6


def comparison_figure(comparison: Comparison, resolved: Resolved, path: Path | None = None) -> Figure:
    """Draw both fits over the target.

    In two dimensions: the density of p over unconstrained space, filled, with each q as the contours one and
    two standard deviations from its peak, and the marginals of the first coordinate. Otherwise the marginals
    of the few coordinates on which the fits differ most, over draws of p.

    Args:
        comparison: the fits.
        resolved: the target, its name and its reference.
        path: where to save it, as a name or a binary file.

    Returns:
        The figure.
    """
    figure = _plane(comparison, resolved) if resolved.target.dim == 2 else _panels(comparison, resolved)
    return save(figure, path)


def _legend(figure: Figure, comparison: Comparison, behind: str) -> None:
    handles: list[Any] = [Patch(facecolor=GRAY, alpha=0.5)] if behind else []
    names = [behind] if behind else []
    for name in comparison.fits:
        color, style = _STYLE[name]
        handles.append(Line2D([], [], color=color, linestyle=style, linewidth=2))
        reverse, forward = (_number(row[name].estimate) for row in (comparison.reverse, comparison.forward))
        names.append(f"{_WORD[name]}:  KL(q‖p) {reverse},  KL(p‖q) {forward}")
    figure.legend(handles, names, loc="outside lower left", frameon=False, fontsize="small")


def _number(estimate: Any) -> str:
    return "not to be trusted" if estimate is None else f"= {float(estimate.value):,.2f} nats"


def _plane(comparison: Comparison, resolved: Resolved) -> Figure:
    target = resolved.target
    figure = Figure(figsize=(9.0, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1.0])
    across, along = _window(comparison)
    points = np.stack(np.meshgrid(across, along, indexing="xy"), axis=-1).reshape(-1, 2)
    shape = (len(along), len(across))
    log_p = np.asarray(_log_density(target, points), np.float64).reshape(shape)
    density = np.exp(log_p - np.nanmax(np.where(np.isfinite(log_p), log_p, -np.inf)))
    density = np.nan_to_num(density, nan=0.0, posinf=0.0)
    left.contourf(across, along, density, levels=np.linspace(0.02, 1.0, 11), cmap="Greys", alpha=0.75)
    right.fill_between(across, _marginal(density, across, along), color=GRAY, alpha=0.5, linewidth=0)
    for name, posterior in comparison.fits.items():
        color, style = _STYLE[name]
        log_q = np.asarray(_log_prob(posterior.params, points, posterior.family), np.float64).reshape(shape)
        top = float(_log_prob(posterior.params, _center(posterior)[None], posterior.family)[0])
        left.contour(across, along, log_q, levels=[top - 2.0, top - 0.5], colors=color, linestyles=style, linewidths=2)
        right.plot(across, _marginal(np.exp(log_q - top), across, along), color=color, linestyle=style, linewidth=2)
    names = _unconstrained_labels(target)
    for axes in (left, right):
        axes.set_xlabel(names[0])
        axes.set_xlim(across[0], across[-1])
    left.set_ylabel(names[1])
    left.set_title("p filled; each q 1 and 2 sd from its peak", fontsize="medium", loc="left")
    left.spines[["top", "right"]].set_visible(False)
    tidy(right)
    right.spines["left"].set_visible(False)
    right.set_yticks([])
    right.set_ylim(bottom=0)
    right.set_title(f"marginal density of {names[0]}", fontsize="medium", loc="left")
    figure.suptitle(f"{resolved.name}: the two directions of KL", x=0.01, ha="left")
    _legend(figure, comparison, "target p")
    return figure


def _window(comparison: Comparison) -> tuple[np.ndarray, np.ndarray]:
    """Return grid lines that hold p's draws and three sds of each q."""
    z = comparison.draws.z
    if comparison.draws.log_weights is None:
        low, high = np.quantile(z, 0.002, axis=0), np.quantile(z, 0.998, axis=0)
    else:  # the draws of both fits together hold p as well as it is known
        low, high = np.quantile(z, 0.01, axis=0), np.quantile(z, 0.99, axis=0)
    for posterior in comparison.fits.values():
        center, sd = _center(posterior), np.asarray(posterior.family.dist(posterior.params).std())
        low, high = np.minimum(low, center - 2.6 * sd), np.maximum(high, center + 2.6 * sd)
    margin = 0.05 * (high - low)
    first, second = (np.linspace(low[i] - margin[i], high[i] + margin[i], _GRID, dtype=z.dtype) for i in range(2))
    return first, second


def _center(posterior: Posterior) -> np.ndarray:
    return np.asarray(posterior.family.dist(posterior.params).mean())


def _marginal(density: np.ndarray, across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Integrate the second coordinate out and normalize."""
    summed = np.trapezoid(density, along, axis=0)
    total = float(np.trapezoid(summed, across))
    return np.asarray(summed / total if total > 0 and math.isfinite(total) else summed)


def _unconstrained_labels(target: Target) -> list[str]:
    labels = []
    pieces = zip(target.layout.names, target.layout.unconstrained_shapes, target.supports, strict=True)
    for name, shape, support in pieces:
        suffix = "" if str(support) == "real" else " (unconstrained)"
        labels += [label + suffix for label in element_labels(name or "x", shape)]
    return labels


def _panels(comparison: Comparison, resolved: Resolved) -> Figure:
    first = next(iter(comparison.fits.values()))
    shown = differences(comparison, first.labels)[:_MOST_PANELS]
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(max(6.5, 2.8 * columns), 2.1 * rows + 1.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    values = {name: coordinates(posterior.draws)[1] for name, posterior in comparison.fits.items()}
    known = resolved.reference.draws if resolved.reference is not None else None
    for axes, label in zip(grid, shown, strict=False):
        index = first.labels.index(label)
        behind = None if known is None else known.get(label)
        draw_densities(axes, label, behind, [(values[name][:, index], *_STYLE[name]) for name in values])
    _hide(grid[len(shown) :])
    left_out = len(first.labels) - len(shown)
    which = f", the {len(shown)} of {len(first.labels)} coordinates that differ most" if left_out else ""
    figure.suptitle(f"{resolved.name}: the two directions of KL{which}", x=0.01, ha="left", fontsize="medium")
    _legend(figure, comparison, "reference draws of p" if known is not None else "")
    return figure


def _hide(unused: Any) -> None:
    axes: Axes
    for axes in unused:
        axes.set_visible(False)


@jax.jit
def _log_density(target: Target, points: Any) -> Any:
    return jax.vmap(target.log_density)(jnp.asarray(points))


@partial(jax.jit, static_argnames=("family",))
def _log_prob(params: Params, points: Any, family: Family) -> Any:
    return jax.vmap(lambda event: distributions.log_prob(family.dist(params), event))(jnp.asarray(points))
