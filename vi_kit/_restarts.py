"""Other modes: climbs from dispersed starts, and what is found where they end elsewhere."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from vi_kit._far_points import along, coordinate_ways, directions, heavy_ways, on_shells
from vi_kit._gaussian_fit import Evaluate, GaussianFit, fit_gaussian
from vi_kit.diagnostics._far_out import FarPoints

_FIRST_STARTS = 16
MOST_SCREENED = 1_024  # points looked at once, of which the likeliest to lead elsewhere are half of the first starts
_MOST_STARTS = 256
_HEAVY_WAYS = 2  # directions in which shells show mass, looked at beside those of single coordinates
_LEAST_EACH = 12  # points a direction and side
_BEYOND = 1.5  # how far they lie once there are modes, in standard deviations of all of them together
_MEMORY = 6
_MOST_LOOKS = 30
_SMALL = 0.05  # nats that another look would gain, below which a climb has arrived
_VALLEY = 1.0  # nats that log p falls between two modes, at least
_BETWEEN = (0.5, 0.25, 0.75)  # where that is looked for, as shares of the way
_NEGLIGIBLE = 7.0  # nats below the best ELBO, where a mode has a thousandth of the mass
_MODE_STEPS = 25
_MOST_SUSPECTS = 4  # ends looked at among the first starts; once there are modes, all are
_APART = 4.0  # squared distance of means, in either's own units, from which two Gaussians are two modes


class Exploration(NamedTuple):
    """What dispersed starts found.

    Attributes:
        fits: the Gaussian that was there, and those of other modes.
        num_starts: climbs made.
        complete: whether the last of them found no mode that was new.
        far: points far out with log p̃ there, where the first fit is the only one.
    """

    fits: tuple[GaussianFit, ...]
    num_starts: int
    complete: bool
    far: tuple[tuple[FarPoints, np.ndarray], ...] = ()


def explore(
    evaluate: Evaluate,
    fit: GaussianFit,
    generator: np.random.Generator,
    *,
    doubted: bool,
    num_screened: int = MOST_SCREENED,
    ways: Float[np.ndarray, "m dim"] | None = None,
) -> Exploration:
    """Look for modes that a Gaussian lacks; go on with twice as many starts as long as new ones turn up.

    From afar most climbs end in the widest mode, so a narrower one is found by looking: where the gradient does not
    point back to the mode that is known, something else pulls.

    Args:
        evaluate: log density and gradient at points.
        fit: the Gaussian, in whose coordinates starts are dispersed.
        generator: of the starts.
        doubted: whether weights have shown that it does not describe what lies under it.
        num_screened: points looked at once before the first climbs; 0 for climbs from anywhere alone.
        ways: whitened directions to look along, beside those of single coordinates and those that the points show.
    """
    fits, total, count = [fit], 0, _FIRST_STARTS
    peaks = np.empty((0, len(fit.mean)))  # where climbs from the means of the fits end
    heights = np.empty(0)
    far: tuple[tuple[FarPoints, np.ndarray], ...] = ()
    while count <= _MOST_STARTS:
        around = fit if len(fits) == 1 else _overall(fits)
        if len(fits) == 1:
            whitened, seen = _first_starts(evaluate, fit, generator, num_screened, ways)
            far = far or seen
        else:
            whitened = _BEYOND * generator.normal(size=(count, len(fit.mean)))
        if not len(peaks):
            own, height = _climb(evaluate, fit, np.zeros((1, len(fit.mean))))
            peaks, heights = np.concatenate([peaks, own]), np.concatenate([heights, height])
        ends, values = _climb(evaluate, around, whitened)
        total += count
        if len(fits) > 1 or not doubted:
            fresh = [i for i in range(len(ends)) if not any(_holds(known, ends[i]) for known in fits)]
            ends, values = ends[fresh], values[fresh]
        suspects = _apart(evaluate, ends, values, peaks, heights)
        if len(fits) == 1:
            suspects = suspects[:_MOST_SUSPECTS]
        found = 0
        for i in suspects:
            new = _fit_mode(evaluate, ends[i], fits, generator)
            if new is not None:
                fits.append(new)
                peaks, heights = np.concatenate([peaks, ends[i : i + 1]]), np.append(heights, values[i])
                found += 1
        if not found:
            return Exploration(_weighty(fits), total, complete=True, far=far if len(fits) == 1 else ())
        count *= 2
    return Exploration(_weighty(fits), total, complete=False)


def _weighty(fits: list[GaussianFit]) -> tuple[GaussianFit, ...]:
    best = max(fit.elbo for fit in fits)
    return tuple(fit for fit in fits if fit.elbo >= best - _NEGLIGIBLE)


def _fit_mode(
    evaluate: Evaluate, point: np.ndarray, fits: list[GaussianFit], generator: np.random.Generator
) -> GaussianFit | None:
    """Fit a Gaussian from a point; None where it becomes one that is known, or has no mass to speak of."""
    nearest = min(fits, key=lambda known: float(np.sum(known.whiten(point[None]) ** 2)))
    new = fit_gaussian(
        evaluate, point, 0.5 * nearest.scale, generator, most_steps=_MODE_STEPS,
        watch=lambda now: now.steps > 1 and any(_same(now, known) for known in fits),
    )  # fmt: skip
    if new is None or any(_same(new, known) for known in fits):
        return None
    return new if new.elbo > max(fit.elbo for fit in fits) - _NEGLIGIBLE else None


def _same(a: GaussianFit, b: GaussianFit) -> bool:
    distances = a.whiten(b.mean[None]), b.whiten(a.mean[None])
    return all(float(np.sum(d**2)) < _APART for d in distances)


def _holds(fit: GaussianFit, point: np.ndarray) -> bool:
    """Whether a point lies in the bulk of a Gaussian."""
    dim = len(point)
    return float(np.sum(fit.whiten(point[None]) ** 2)) < dim + 4 * math.sqrt(2 * dim) + 6


def _overall(fits: list[GaussianFit]) -> GaussianFit:
    """Return one Gaussian over all of them."""
    means = np.stack([fit.mean for fit in fits])
    spread = np.std(means, axis=0)
    if fits[0].scale.ndim == 1:
        scale = np.sqrt(np.mean([fit.scale**2 for fit in fits], axis=0) + spread**2)
    else:
        inner = np.mean([fit.scale @ fit.scale.T for fit in fits], axis=0)
        centered = means - means.mean(axis=0)
        scale = np.linalg.cholesky(inner + centered.T @ centered / len(fits))
    return fits[0]._replace(mean=means.mean(axis=0), scale=scale)


def _first_starts(
    evaluate: Evaluate,
    fit: GaussianFit,
    generator: np.random.Generator,
    num_screened: int,
    ways: Float[np.ndarray, "m dim"] | None,
) -> tuple[np.ndarray, tuple[tuple[FarPoints, np.ndarray], ...]]:
    """Return whitened starts, half of them where the gradient points least back to the center; and what was seen."""
    plain = directions(generator, _FIRST_STARTS, len(fit.mean))
    half = _FIRST_STARTS // 2
    each = num_screened // 4 * 2
    if each < _FIRST_STARTS:
        return plain, ()
    shells = on_shells(fit, generator, each)
    values, gradients = evaluate(shells.points)
    far, points = [(shells, values)], shells.points
    shown = heavy_ways(fit.whiten(shells.points), shells.log_volumes + values, _HEAVY_WAYS)
    ways = np.concatenate([coordinate_ways(fit), shown, *(() if ways is None else (ways,))])
    count = max(each, 2 * _LEAST_EACH * len(ways))
    if count <= 4 * num_screened:
        lines = along(fit, ways, generator, count)
        more, slopes = evaluate(lines.points)
        far.append((lines, more))
        points, values = np.concatenate([points, lines.points]), np.concatenate([values, more])
        gradients = np.concatenate([gradients, slopes])
    whitened = fit.whiten(points)
    with np.errstate(all="ignore"):
        pull = gradients * fit.scale if fit.scale.ndim == 1 else gradients @ fit.scale
        back = -np.sum(pull * whitened, axis=1)
        back /= np.linalg.norm(pull, axis=1) * np.linalg.norm(whitened, axis=1)
    usable = np.isfinite(values) & np.isfinite(back)
    oddest = np.argsort(np.where(usable, back, np.inf))[:half]
    starts: np.ndarray = np.concatenate([whitened[oddest], plain[::2]])
    return starts, tuple(far)


def _climb(
    evaluate: Evaluate, fit: GaussianFit, starts: Float[np.ndarray, "n dim"]
) -> tuple[Float[np.ndarray, "m dim"], Float[np.ndarray, " m"]]:
    """Climb by L-BFGS in whitened coordinates, all at once; return the ends that are finite, and log p there."""

    def look(whitened: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, gradients = evaluate(fit.place(whitened))
        return -values, -(gradients * fit.scale if fit.scale.ndim == 1 else gradients @ fit.scale)

    count, dim = starts.shape
    with np.errstate(all="ignore"):
        position = starts.copy()
        value, gradient = look(position)
        moves, turns = np.zeros((2, count, _MEMORY, dim))
        direction, length = _first(position, gradient), np.ones(count)
        going = np.isfinite(value) & np.isfinite(gradient).all(axis=1)
        finite = going.copy()
        for _ in range(_MOST_LOOKS):
            slope = np.sum(direction * gradient, axis=1)
            going &= (-0.5 * slope > _SMALL) & (length > 1e-6)
            if not going.any():
                break
            some = np.flatnonzero(going)
            trial = position[some] + length[some, None] * direction[some]
            new_value, new_gradient = look(trial)
            finite_there = np.isfinite(new_value) & np.isfinite(new_gradient).all(axis=1)
            fine = finite_there & (new_value <= value[some] + 1e-4 * length[some] * slope[some])
            length[some[~fine]] *= 0.3
            taken = some[fine]
            moves[taken] = np.roll(moves[taken], -1, axis=1)
            turns[taken] = np.roll(turns[taken], -1, axis=1)
            moves[taken, -1], turns[taken, -1] = trial[fine] - position[taken], new_gradient[fine] - gradient[taken]
            bent = np.sum(moves[taken, -1] * turns[taken, -1], axis=1) > 0
            moves[taken[~bent], -1], turns[taken[~bent], -1] = 0, 0
            position[taken], value[taken], gradient[taken] = trial[fine], new_value[fine], new_gradient[fine]
            length[taken] = 1.0
            direction[taken] = _direction(gradient[taken], moves[taken], turns[taken])
    return fit.place(position[finite]), -value[finite]


def _first(position: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Return the steepest descent, no longer than to the other side."""
    size = np.linalg.norm(gradient, axis=1, keepdims=True)
    reach = 2 * np.linalg.norm(position, axis=1, keepdims=True)
    first: np.ndarray = -gradient * np.minimum(1, reach / np.where(size > 0, size, 1))
    return first


def _direction(gradient: np.ndarray, moves: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Return the direction of L-BFGS for every row; pairs of zeros are not there."""
    bends = np.sum(moves * turns, axis=2)
    weights = np.where(bends > 0, 1 / np.where(bends > 0, bends, 1), 0)
    found: np.ndarray = gradient.copy()
    slopes: list[np.ndarray] = []
    for j in range(_MEMORY - 1, -1, -1):
        slopes.append(weights[:, j] * np.sum(moves[:, j] * found, axis=1))
        found -= slopes[-1][:, None] * turns[:, j]
    steep = np.sum(turns[:, -1] ** 2, axis=1)
    found *= np.where(steep > 0, bends[:, -1] / np.where(steep > 0, steep, 1), 1)[:, None]
    for j in range(_MEMORY):
        back = weights[:, j] * np.sum(turns[:, j] * found, axis=1)
        found += (slopes[_MEMORY - 1 - j] - back)[:, None] * moves[:, j]
    downhill: np.ndarray = -found
    return downhill


def _apart(
    evaluate: Evaluate, points: np.ndarray, values: np.ndarray, peaks: np.ndarray, heights: np.ndarray
) -> list[int]:
    """Return the ends, the highest first, that a valley separates from the peaks that are known and from each other."""
    chosen: list[int] = []
    for i in np.argsort(-values):
        others = np.concatenate([peaks, points[chosen]])
        levels = np.minimum(np.concatenate([heights, values[chosen]]), values[i]) - _VALLEY
        for share in _BETWEEN:  # one point alone may lie on a third mode
            if len(others):
                between, _ = evaluate(share * others + (1 - share) * points[i])
                others, levels = others[~(between < levels)], levels[~(between < levels)]
        if not len(others):
            chosen.append(int(i))
    return chosen
