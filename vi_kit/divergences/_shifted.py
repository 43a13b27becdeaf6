r"""How a remainder of g(x) = lgamma(x) − x log x + x falls when its points x and x′ are moved a little.

Along the way from (x, x′) to (x + h, x′ + h′) it rises by h′ s − h t = (h′ − h) s − h b, with

    s = g′(x′) − g′(x),   t = (x′ − x) g″(x),   b = t − s ≥ 0.

The mean of that, by a rule of Gauss, has the digits that the difference of two remainders would lose.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit.divergences._special import STIRLING, halves, is_wide, lift


def is_slight(shift: Array, x: Array) -> Array:
    """Tell where a shift of x > 0 is so small that the rule loses less than the difference."""
    return shift < (1e-3 if is_wide(x) else 4e-3) * x


def _falls(new: Array, old: Array, change: Array) -> tuple[Array, Array, Array]:
    """Return g′(new) − g′(old), the same along its tangent at old, and how much more that is."""
    steps, small, step = lift(new, old)
    high, first = halves(new + step, old + step, change), halves(new, old, change)
    y_new, y_old = 1 / (new + step), 1 / (old + step)
    homogeneous = weighted = power = power_old = jnp.ones_like(new)  # Σ yⁱ y′ʲ and Σ (i + 1) yⁱ y′ʲ, i + j = k
    slope = tangent = bend = jnp.full_like(new, 0.5)
    for k in range(1, 14 if is_wide(new) else 6):
        power, power_old = power * y_new, power_old * y_old
        homogeneous = y_old * homogeneous + power
        weighted = y_old * weighted + homogeneous
        if k % 2:
            factor = k * STIRLING[k // 2]
            slope, bend = slope + factor * homogeneous, bend + factor * weighted
            tangent = tangent + factor * (k + 1) * power_old
    relative, relative_first = change * y_old, change / old
    slope, tangent, bend = relative * y_new * slope, relative * y_old * tangent, relative * relative * y_new * bend
    lowered = [2 * (high.u - first.u + (high.w - first.w)), relative - relative_first]
    lowered.append(relative * high.u - 2 * high.w - (relative_first * first.u - 2 * first.w))
    for i in range(steps):
        ratio = change / (old + i)
        terms = ratio / (new + i), ratio / (old + i), ratio * (ratio / (new + i))
        lowered = [x + y for x, y in zip(lowered, terms, strict=True)]
    zero = jnp.zeros_like(new)
    slope, tangent, bend = (x + jnp.where(small, y, zero) for x, y in zip((slope, tangent, bend), lowered, strict=True))
    return slope, tangent, bend


def _curves(new: Array, old: Array, change: Array) -> tuple[Array, Array, Array, Array]:
    """Return g″(new), g″(old), by how much that is more, and g‴(old)."""
    steps, small, step = lift(new, old)
    y_new, y_old = 1 / (new + step), 1 / (old + step)
    homogeneous, power_new, power_old = y_old + y_new, y_new, y_old  # Σ yⁱ y′ʲ, i + j = k + 1
    second_new, second_old, drop, third = 0.5 * y_new, 0.5 * y_old, 0.5 * homogeneous, -y_old
    for k in range(1, 14 if is_wide(new) else 6):
        power_new, power_old = power_new * y_new, power_old * y_old
        homogeneous = y_old * homogeneous + power_new
        if k % 2:
            factor = k * (k + 1) * STIRLING[k // 2]
            second_new, second_old = second_new + factor * power_new, second_old + factor * power_old
            drop, third = drop + factor * homogeneous, third - factor * (k + 2) * power_old
    found = y_new * second_new, y_old * second_old, change * y_old * y_new * drop, y_old * y_old * third
    x, y = 1 / new, 1 / old
    lowered = [y_new - x, y_old - y, change * (y_old * y_new - x * y), y * y - y_old * y_old]
    for i in range(steps):
        x, y = 1 / (new + i), 1 / (old + i)
        terms = x * x, y * y, change * x * y * (x + y), -2 * y * y * y
        lowered = [u + v for u, v in zip(lowered, terms, strict=True)]
    zero = jnp.zeros_like(new)
    second_new, second_old, drop, third = (u + jnp.where(small, v, zero) for u, v in zip(found, lowered, strict=True))
    return second_new, second_old, drop, third


def _nodes(x: Array) -> list[tuple[float, float]]:
    nodes, weights = np.polynomial.legendre.leggauss(2 if is_wide(x) else 1)
    return list(zip(((1 + nodes) / 2).tolist(), (weights / 2).tolist(), strict=True))


@jax.custom_jvp  # derived, it would compile and run slowly
def stirling_fall(
    new: Array, old: Array, change: Array, new_shift: Array, old_shift: Array, shift_change: Array
) -> Array:
    """Return the remainder of g from old to new less that from old + old_shift to new + new_shift."""
    total = jnp.zeros_like(new)
    for node, weight in _nodes(new):
        moved = new + node * new_shift, old + node * old_shift, change + node * shift_change
        slope, tangent, bend = _falls(*moved)
        near, far = old_shift * bend - shift_change * slope, old_shift * tangent - new_shift * slope
        total = total + weight * jnp.where(moved[0] > 0.5 * moved[1], near, far)
    return total


@stirling_fall.defjvp
def _stirling_fall_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    new, old, change, new_shift, old_shift, shift_change = primals  # of which the changes count once
    to_new, to_old, to_new_shift, to_old_shift = (jnp.zeros_like(new) for _ in range(4))
    for node, weight in _nodes(new):
        moved = new + node * new_shift, old + node * old_shift, change + node * shift_change
        slope, tangent, _ = _falls(*moved)
        second_new, second_old, drop, third = _curves(*moved)
        near, far = old_shift * drop - shift_change * second_new, old_shift * second_old - new_shift * second_new
        at_new = weight * jnp.where(moved[0] > 0.5 * moved[1], near, far)
        at_old = weight * (shift_change * second_old + old_shift * moved[2] * third)
        to_new, to_old = to_new + at_new, to_old + at_old
        to_new_shift = to_new_shift + node * at_new - weight * slope
        to_old_shift = to_old_shift + node * at_old + weight * tangent
    slopes = to_new * tangents[0] + to_old * tangents[1] + to_new_shift * tangents[3] + to_old_shift * tangents[4]
    return stirling_fall(*primals), slopes
