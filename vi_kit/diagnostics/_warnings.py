"""What to know of single coordinates before their numbers are quoted: mass at a bound, tails that do not settle."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from vi_kit._types import Target
from vi_kit._weights import fit_generalized_pareto, khat_threshold, tail_size
from vi_kit.diagnostics._draws import element_labels

_NEAR = 0.1  # of the distance from a bound to the median
_LEAST_SHARE = 0.03  # of the mass is nearer than that: 0.05 where the density is flat at its bound, 0 where it vanishes
_LEAST_INNER = 0.42  # of that share in the nearer half: 0.5 where the density is flat
_MOST_NAMED = 3


def coordinate_warnings(
    target: Target, labels: tuple[str, ...], values: Float[np.ndarray, "n k"], weights: Float[np.ndarray, " n"]
) -> tuple[str, ...]:
    """Return sentences about coordinates whose means and sds need care.

    Args:
        target: what was fitted, for its bounds.
        labels: names of the coordinates, derived quantities included.
        values: draws.
        weights: what each draw counts for, summing to one.
    """
    columns = dict(zip(labels, values.T, strict=True))
    piled = [
        f"{label} ({share:.0%} of it close to {bound:g})"
        for label, bound in _bounds(target)
        if label in columns and (share := _piled(columns[label], bound, weights)) > _LEAST_SHARE
    ]
    heavy = [
        f"{label} (k̂ {khat:.2f})"
        for label, khat in zip(labels, tails(values), strict=True)
        if khat >= khat_threshold(len(values))
    ]
    found = []
    if piled:
        found.append(f"mass piles up at a bound, where the prior decides as much as the data: {_listed(piled)}")
    if heavy:
        found.append(f"a tail so heavy that {len(values):,} draws do not settle the sd: {_listed(heavy)}")
    return tuple(found)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _bounds(target: Target) -> Iterator[tuple[str, float]]:
    """Yield the label of every coordinate with a bound, and the bound."""
    layout, start = target.layout, 0
    for name, shape, support in zip(layout.names, layout.shapes, target.supports, strict=True):
        labels = element_labels(name or "x", shape)
        if layout.labels is not None:
            labels = list(layout.labels[start : start + len(labels)])
        start += len(labels)
        for bound in (getattr(support, end, None) for end in ("lower", "upper")):
            if bound is not None:
                yield from zip(labels, np.broadcast_to(np.asarray(bound, float), shape).ravel().tolist(), strict=True)


def _piled(values: np.ndarray, bound: float, weights: np.ndarray) -> float:
    """Return the share of the mass close to a bound; 0 where it falls toward it, as a density that vanishes there."""
    distances = np.abs(values - bound)
    close = _NEAR * np.median(distances)
    share, inner = float(weights @ (distances < close)), float(weights @ (distances < 0.5 * close))
    return share if inner > _LEAST_INNER * share else 0.0


def tails(values: Float[np.ndarray, "n k"], weights: Float[np.ndarray, " n"] | None = None) -> Float[np.ndarray, " k"]:
    """Return, for every coordinate, the Pareto k̂ of its squares, times weights if given: the terms of its variance.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry, "Pareto Smoothed Importance Sampling", 2024, section 3.2 (k̂ of a
    ratio times the function whose mean is wanted), https://arxiv.org/abs/1507.02646
    """
    size = tail_size(len(values))
    share = (
        np.full(len(values), 1 / len(values)) if weights is None else weights / max(weights.sum(), np.finfo(float).tiny)
    )
    squares = np.sort(share[:, None] * (values - share @ values) ** 2, axis=0)
    found = np.full(values.shape[1], -np.inf)
    for i, column in enumerate(squares.T):
        excess = column[-size:] - column[-size - 1]
        if np.isfinite(excess).all() and excess[-1] > 0:
            found[i] = float(fit_generalized_pareto(excess / excess[-1])[0])
    return found
