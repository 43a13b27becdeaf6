"""Divergences between families of numbers by quadrature and enumeration in double precision.

Nothing here knows how the library computes: a family is its log density. Tiny divergences are integrals of
q − p + p log(p/q) ≥ 0, which has no cancellation left: an error ε of a log density changes them by ε²/2.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from divergence_densities import Density, Values
from scipy import special

TAIL = np.array([0.4, 0.9, 1.5, 2.2, 3.2, 4.7, 6.5, 9.0, 13.0, 20.0, 35.0, 80.0, 300.0, 2e3, 2e4, 2e5])
LEGENDRE = np.polynomial.legendre.leggauss(24)


# --- quadrature ------------------------------------------------------------------------------------------------------


def _double_exponential(length: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distances to both ends of a piece (one end singular or at infinity) and weights."""
    t = np.arange(-6.6, 6.6, 0.06)
    if np.isinf(length):  # handled in units of 1 by the caller
        left = np.exp(np.pi / 2 * np.sinh(t))
        return left, np.full_like(left, np.inf), 0.06 * left * np.pi / 2 * np.cosh(t)
    t = t[np.abs(t) < 6.0]
    u = np.pi * np.sinh(t)
    left, right = length * special.expit(u), length * special.expit(-u)
    return left, right, 0.06 * np.pi * np.cosh(t) * left * special.expit(-u)


def nodes(p: Density, a: Values, q: Density, b: Values) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return points in p's support, distances to its ends and weights, dense where p or q has mass."""
    low, high = p.support(a)
    sides = ((p, a), (q, b))
    kinks = [d.kink(v) for d, v in sides if d.kink]
    fixed = [m for m in (low, high, *p.support(a), *q.support(b), *kinks) if low <= m <= high]
    free = [(c + w * t, w) for c, w in (d.where(v) for d, v in sides) for t in (*-TAIL, 0, *TAIL)]
    marks = sorted(set(fixed))
    for mark, width in sorted(free):  # the marks of nearly equal p and q are nearly the same
        if low < mark < high and np.min(np.abs(np.array(marks) - mark)) > 0.3 * width:
            marks.append(mark)
    marks = sorted(marks)
    found = []
    for start, stop in itertools.pairwise(marks):
        if np.isinf(start) or np.isinf(stop):
            unit = p.where(a)[1]
            left, right, weight = (v * unit if np.isfinite(v).all() else v for v in _double_exponential(np.inf))
            if np.isinf(start):
                left, right = right, left
        elif start in fixed or stop in fixed:
            left, right, weight = _double_exponential(stop - start)
        else:
            left = (stop - start) * (1 + LEGENDRE[0]) / 2
            right, weight = (stop - start) * (1 - LEGENDRE[0]) / 2, (stop - start) * LEGENDRE[1] / 2
        x = start + left if np.isfinite(start) else stop - right
        found.append((x, left + (start - low) if np.isfinite(low) else left + np.inf,
                      right + (high - stop) if np.isfinite(high) else right + np.inf, weight))  # fmt: skip
    x, left, right, weight = (np.concatenate(v) for v in zip(*found, strict=True))
    return x, left, right, weight


def lattice(p: Density, a: Values, q: Density, b: Values) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the whole numbers that matter."""
    low, high = p.support(a)
    ends = [density.where(values) for density, values in ((p, a), (q, b))]
    start = max(low, np.floor(min(c - 40 * w for c, w in ends)) - 40)
    stop = min(high, np.ceil(max(c + 40 * w for c, w in ends)) + 40)
    x = np.arange(start, stop + 1)
    return x, x - low, high - x, np.ones_like(x)


def _logs(density: Density, values: Values, x: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    inside = (left >= 0) & (right >= 0)
    found = density.log(x, left, right, {k: np.float64(v) for k, v in values.items()})
    return np.where(inside & ~np.isnan(found), found, -np.inf)


def _step(density: Density, values: Values, name: str) -> float:
    value = float(values[name])
    if name in {"loc", "low", "high"}:
        return 1e-3 * density.where(values)[1]
    if name == "probs":
        return 1e-3 * min(value, 1 - value)
    if name in {"scale", "rate"} and not density.discrete:
        center, width = density.where(values)
        return 1e-3 * abs(value) * min(1.0, width / max(abs(center), 1e-300))
    return 1e-3 * (1.0 if name == "logits" else abs(value))


def _derivative(function: Callable[[float], Any], step: float) -> Any:
    """Differentiate at 0 by central differences of fourth order."""
    pairs = ((1, 8.0), (2, -1.0))
    return sum(w * (function(k * step) - function(-k * step)) for k, w in pairs) / (12 * step)


def _score(density: Density, values: Values, name: str, step: float, *points: np.ndarray) -> np.ndarray:
    """Differentiate the log density to a parameter, never across the kink that moves with it."""

    def log(move: float) -> np.ndarray:
        return _logs(density, {**values, name: float(values[name]) + move}, *points)

    if density.kink is None or name != "loc":
        return _derivative(log, step)

    def one_sided(step: float) -> np.ndarray:
        return sum(w * log(k * step) for k, w in enumerate((-25.0, 48.0, -36.0, 16.0, -3.0))) / (12 * step)

    return np.where(points[0] >= density.kink(values), one_sided(-step), one_sided(step))


def kl(p: Density, a: Values, q: Density, b: Values) -> float:
    """Return KL of two densities with parameters a and b, to about 10 digits; +inf where it diverges."""
    with np.errstate(all="ignore"):
        return _evaluate(p, a, q, b, gradients=False)[0]


def kl_and_gradients(p: Density, a: Values, q: Density, b: Values) -> tuple[float, Values, Values]:
    """Return KL and its gradients to a and b."""
    with np.errstate(all="ignore"):
        return _evaluate(p, a, q, b, gradients=True)


def _tail(distance: np.ndarray, integrand: np.ndarray) -> float:
    """Return what is beyond the last point, at an end or far away, where it is a power of the distance; else +inf."""
    mass = np.abs(integrand * distance)
    growth = np.log(mass[-1] / mass[0]) / np.log(distance[-1] / distance[0])
    decay = -growth if distance[-1] > distance[0] else growth
    return float(np.sign(integrand[-1]) * mass[-1] / decay) if decay > 5e-3 else np.inf


def _evaluate(p: Density, a: Values, q: Density, b: Values, *, gradients: bool) -> tuple[float, Values, Values]:
    ends, others = p.support(a), q.support(b)
    if not p.discrete and not p.circle and (ends[0] < others[0] or ends[1] > others[1]):
        return np.inf, {}, {}
    x, left, right, weight = (lattice if p.discrete else nodes)(p, a, q, b)

    def shifted(distance: np.ndarray, own: float, other: float, sign: int) -> np.ndarray:
        if np.isinf(other):
            return np.full_like(distance, np.inf)
        return distance + sign * (own - other) if np.isfinite(own) else sign * (x - other)

    q_left, q_right = shifted(left, ends[0], others[0], 1), shifted(right, ends[1], others[1], -1)
    if p.circle:
        q_left, q_right = left, right
    log_p, log_q = _logs(p, a, x, left, right), _logs(q, b, x, q_left, q_right)
    mass = np.exp(log_p)
    assert abs(np.sum(weight * mass) - 1) < 1e-8, f"{a} {b}: the density sums to {np.sum(weight * mass)}"
    alive = (mass * weight > 0) & (log_p > -700)
    if np.any(np.isneginf(log_q) & alive & (log_p > -600)):
        return np.inf, {}, {}
    d = np.where(alive, log_p - log_q, 0.0)
    plain = np.where(alive, mass * d, 0.0)
    small = np.abs(d) < 0.3
    other = np.where(alive, np.where(small, mass * np.expm1(-d), np.exp(log_q) - mass), np.exp(log_q))
    series = sum((-d) ** k / special.factorial(k) for k in range(2, 15))
    excess = np.where(alive, np.where(small, mass * series, other + plain), np.exp(log_q))
    value = float(np.sum(weight * plain))
    if not np.isfinite(value):
        return np.inf, {}, {}
    beyond, known = 0.0, np.flatnonzero(alive)
    for ends_at, far in ((left, known[11::-1]), (right, known[-12:])):
        if not p.discrete and abs(weight * plain)[far[-1]] > 1e-7 * max(abs(value), 1e-3):
            beyond += _tail(ends_at[far] if np.isfinite(ends_at[far[-1]]) else np.abs(x[far]), plain[far])
    if beyond:
        return value + beyond, {}, {}
    same = p.circle or ends == others
    if same and value < 1:
        value = float(np.sum(weight * excess))
    if not gradients:
        return value, {}, {}

    def moved(values: Values, name: str, step: float) -> Values:
        return {**values, name: float(values[name]) + step}

    margins = np.abs([m for m in np.subtract(ends, others) if np.isfinite(m) and m != 0])
    reach = float(np.min(margins, initial=np.inf)) / 4  # keep the supports in order while they move
    to_p, to_q = {}, {}
    for side, density, values in ((to_p, p, a), (to_q, q, b)):
        for name in values:
            if name in {"total_count", "low", "high"} and (density.discrete or name == "total_count"):
                side[name] = np.nan  # whole numbers have no derivative
                continue
            step = min(_step(density, values, name), reach if name in density.moving else np.inf)
            if name in density.moving or not same:
                # The support moves, or q reaches further: differences of the value itself, which is not tiny then.
                if side is to_p:
                    side[name] = _derivative(lambda h, n=name, s=step: kl(p, moved(a, n, h), q, b), step)
                else:
                    side[name] = _derivative(lambda h, n=name, s=step: kl(p, a, q, moved(b, n, h)), step)
                continue
            if side is to_p:
                score = _score(p, a, name, step, x, left, right)
                side[name] = float(np.sum(np.where(alive, weight * np.nan_to_num(score) * plain, 0.0)))
            else:
                score = _score(q, b, name, step, x, q_left, q_right)
                score = np.nan_to_num(score, posinf=0.0, neginf=0.0)
                side[name] = float(np.sum(weight * other * score if value < 1 else -weight * mass * score))
    for side in (to_p, to_q):  # at equal ends of supports that move there is no derivative
        side.update({name: slope if np.isfinite(slope) else np.nan for name, slope in side.items()})
    return value, to_p, to_q
