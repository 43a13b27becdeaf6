"""Figures of a fit: the ELBO over its steps, and its marginals over the reference draws.

Figures are matplotlib `Figure` objects made without pyplot, so no global state and no backend is touched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from os import PathLike
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from vi_kit._density import density

if TYPE_CHECKING:  # matplotlib takes a while to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vi_kit._posterior import Posterior
    from vi_kit.targets._reference import Reference

Path = str | PathLike[str] | IO[bytes]

# Okabe and Ito's colors, which people who see colors differently can tell apart.
BLUE, VERMILLION, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
DOTS_PER_INCH = 150
MOST_PANELS = 24
_GRID = 256


def overview(posterior: Posterior, path: Path | None = None, *, reference: Reference | None = None) -> Figure:
    """Draw the ELBO over steps above the marginals.

    Args:
        posterior: a fit.
        path: where to save it, as a name or a binary file; None does not save.
        reference: known answers to draw beside it.

    Returns:
        The matplotlib figure.
    """
    shown = _shown(posterior)
    rows = math.ceil(len(shown) / _columns(len(shown)))
    figure = _figure(_width(len(shown)), 3.6 + 1.75 * rows + 0.9)
    parts = figure.subfigures(2, 1, height_ratios=[3.6, 1.75 * rows + 0.9], squeeze=False)
    top, bottom = parts[0, 0], parts[1, 0]
    _draw_elbo(top.subplots(), posterior, reference)
    _draw_marginals(bottom, posterior, reference)
    return save(figure, path)


def elbo(
    posterior: Posterior, path: Path | None = None, *, reference: Reference | None = None, title: str = ""
) -> Figure:
    """Draw the ELBO over steps with a band of two standard errors, and log Z where it is known.

    Args:
        posterior: a fit.
        path: where to save it; None does not save.
        reference: known answers, for log Z.
        title: what was fitted.

    Returns:
        The matplotlib figure.
    """
    figure = _figure(7.0, 4.0)
    axes = figure.subplots()
    _draw_elbo(axes, posterior, reference)
    if title:
        axes.set_title(title, loc="left", fontsize="medium")
    return save(figure, path)


def marginals(
    posterior: Posterior, path: Path | None = None, *, reference: Reference | None = None, title: str = ""
) -> Figure:
    """Draw the marginal densities of q over those of the reference draws, one panel a coordinate.

    Args:
        posterior: a fit.
        path: where to save it; None does not save.
        reference: known answers with draws.
        title: what was fitted.

    Returns:
        The matplotlib figure; at most 24 panels, and its caption says how many were left out.
    """
    shown = _shown(posterior)
    rows = math.ceil(len(shown) / _columns(len(shown)))
    figure = _figure(_width(len(shown)), 1.75 * rows + 0.9)
    _draw_marginals(figure, posterior, reference, title)
    return save(figure, path)


def save(figure: Figure, path: Path | None) -> Figure:
    """Save a figure where a path is given, and return it."""
    if path is not None:
        keywords: dict[str, Any] = {} if isinstance(path, str | PathLike) else {"format": "png"}
        figure.savefig(path, dpi=DOTS_PER_INCH, **keywords)
    return figure


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _columns(panels: int) -> int:
    return panels if panels <= 3 else 4


def _width(panels: int) -> float:
    return max(4.5, 2.15 * _columns(panels))


def _shown(posterior: Posterior) -> list[int]:
    return list(range(min(len(posterior.labels), MOST_PANELS)))


def tidy(axes: Axes) -> None:
    """Take away the frame's top and right."""
    axes.spines[["top", "right"]].set_visible(False)


def _draw_elbo(axes: Axes, posterior: Posterior, reference: Reference | None) -> None:
    history, report = posterior.history, posterior.report
    tidy(axes)
    axes.set_xlabel("steps")
    reverse = report.objective.startswith("reverse KL")
    losses = np.asarray(history.loss, np.float64)
    if not len(history.elbo):
        axes.plot(np.arange(1, len(losses) + 1), losses, color=BLUE, linewidth=0.8, label="loss at each step")
        axes.set_ylabel("loss (nats)")
        axes.legend(frameon=False, fontsize="small")
        return
    axes.set_ylabel("ELBO (nats)")
    if reverse:
        steps = np.arange(1, len(losses) + 1)
        axes.plot(steps, -losses, color=BLUE, alpha=0.18, linewidth=0.5, label="minus the loss at each step")
    values, errors = (
        history.elbo,
        np.where(np.isfinite(history.elbo_standard_error), history.elbo_standard_error, 0.0),
    )
    axes.fill_between(
        history.elbo_step, values - 2 * errors, values + 2 * errors, color=BLUE, alpha=0.3, linewidth=0,
        label="± 2 standard errors",
    )  # fmt: skip
    marker = "o" if len(values) <= 40 else None
    (line,) = axes.plot(history.elbo_step, values, color=BLUE, linewidth=1.6, marker=marker, markersize=3, label="ELBO")
    log_z, word = _log_normalizer(posterior, reference)
    if log_z is not None:
        axes.axhline(
            log_z,
            color="black",
            linestyle="--",
            linewidth=1,
            label=f"log Z = {log_z:.2f}, {word}".replace("-", "−"),
        )
    hidden = _limit_elbo(axes, history.elbo_step, values, errors, -losses if reverse else None, log_z)
    if hidden:
        line.set_label("ELBO (first steps below the frame)")
    axes.set_xlim(0, max(1, report.steps, int(history.elbo_step[-1])))
    axes.legend(fontsize="small", loc="lower right", framealpha=0.9, edgecolor="none")


def _log_normalizer(posterior: Posterior, reference: Reference | None) -> tuple[float | None, str]:
    target = posterior.target
    if target is not None and target.log_normalizer is not None:
        return float(target.log_normalizer), "known exactly"
    if reference is not None and reference.log_normalizer is not None:
        return reference.log_normalizer, "from the reference"
    return None, ""


def _limit_elbo(
    axes: Axes,
    steps: np.ndarray,
    values: np.ndarray,
    errors: np.ndarray,
    noisy: np.ndarray | None,
    log_z: float | None,
) -> bool:
    """Frame what happens after the first steps, which would flatten the rest; tell if any lie outside."""
    finite = np.isfinite(values)
    if not finite.any():
        return False
    late = finite & (steps >= 0.25 * steps[-1])
    late = late if late.any() else finite
    parts = [values[late] - 2 * errors[late], values[late] + 2 * errors[late]]
    if log_z is not None:
        parts.append(np.array([log_z]))
    if noisy is not None and len(noisy) > 20:
        settled = noisy[len(noisy) // 2 :]
        settled = settled[np.isfinite(settled)]
        if len(settled):
            parts.append(np.quantile(settled, [0.02, 0.98]))
    together = np.concatenate(parts)
    low, high = float(together.min()), float(together.max())
    margin = 0.08 * (high - low) or 0.5
    # The legend sits in the lower right.
    low = low - max(margin, 0.45 * (high - low))
    axes.set_ylim(low, high + margin)
    return bool(values[finite].min() < low)


def _draw_marginals(figure: Any, posterior: Posterior, reference: Reference | None, title: str = "") -> None:
    from vi_kit.diagnostics._draws import coordinates

    _, values = coordinates(posterior.draws)
    shown = _shown(posterior)
    columns = _columns(len(shown))
    grid = figure.subplots(math.ceil(len(shown) / columns), columns, squeeze=False).ravel()
    known = None if reference is None else reference.draws
    seen_reference = False
    for axes, index in zip(grid, shown, strict=False):
        label = posterior.labels[index]
        behind = None if known is None else known.get(label)
        seen_reference |= behind is not None
        draw_densities(axes, label, behind, [(values[:, index], BLUE, "-")])
    for axes in grid[len(shown) :]:
        axes.set_visible(False)
    left_out = len(posterior.labels) - len(shown)
    captions = [title] if title else []
    if left_out:
        captions.append(f"the first {len(shown)} of {len(posterior.labels)} coordinates; {left_out} were left out")
    if not seen_reference:
        captions.append("no reference draws")
    if captions:
        figure.suptitle(" — ".join(captions), fontsize="medium", x=0.01, ha="left")
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Line2D([], [], color=BLUE, linewidth=1.6)]
    names = ["q, the fit"]
    if seen_reference:
        handles.append(Patch(facecolor=GRAY, alpha=0.45))
        names.append("reference draws of p")
    figure.legend(handles, names, loc="outside lower left", ncols=2, frameon=False, fontsize="small")


def draw_densities(
    axes: Axes, label: str, behind: np.ndarray | None, fits: Sequence[tuple[np.ndarray, str, str]]
) -> None:
    """Draw one coordinate: reference draws filled, every fit (draws, color, line style) as a line."""
    tidy(axes)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_title(label, fontsize="small", pad=3)
    axes.tick_params(axis="x", labelsize="x-small")
    axes.locator_params(axis="x", nbins=4)
    samples = [np.asarray(values, np.float64) for values, _, _ in fits]
    everything = samples if behind is None else [*samples, np.asarray(behind, np.float64)]
    finite = [values[np.isfinite(values)] for values in everything]
    if any(len(values) < 2 for values in finite):
        axes.text(0.5, 0.5, "not finite", transform=axes.transAxes, ha="center", fontsize="small", color="0.4")
        return
    # The reference sets the frame where there is one: a fit's far tail would squeeze the rest.
    outside = [0.003 if behind is None or index == len(finite) - 1 else 0.02 for index in range(len(finite))]
    low = min(float(np.quantile(values, tail)) for values, tail in zip(finite, outside, strict=True))
    high = max(float(np.quantile(values, 1 - tail)) for values, tail in zip(finite, outside, strict=True))
    if not high > low:
        axes.axvline(low, color=BLUE)
        return
    margin = 0.04 * (high - low)
    points = np.linspace(low - margin, high + margin, _GRID)
    if behind is not None:
        axes.fill_between(points, density(finite[-1], points), color=GRAY, alpha=0.45, linewidth=0)
    for values, (_, color, style) in zip(finite, fits, strict=False):
        axes.plot(points, density(values, points), color=color, linestyle=style, linewidth=1.6)
    axes.set_xlim(points[0], points[-1])
    axes.set_ylim(bottom=0)
