r"""Second-order remainders f(x′) − f(x) − (x′ − x) f′(x) of the log-gamma function, without cancellation.

Every KL within the gamma kind is made of them. With u = (x′ − x) / (x′ + x) and w = artanh(u) − u,

    log(x′/x) = 2 (u + w),   of x log x: (x′ − x) u + 2 x′ w,   of −log x: (x′ − x) u / x − 2 w,

and lgamma = (x log x − x) + g with g = −½ log x + const + Σ B_{k+1} / (k (k + 1) x^k) over odd k; a small x is first
brought up by lgamma(x) = lgamma(x + n) − Σ_{i<n} log(x + i). Every function takes the change x′ − x too, for the
caller often knows it better than the difference of what has been rounded; it may be no other number, as derivatives
count it only once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

# B_{k+1} / (k (k + 1)) for k = 1, 3, 5, …
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)


Remainder = Callable[[Array, Array, Array], Array]  # of new, old and the change


class Halves(NamedTuple):
    """u = (x′ − x) / (x′ + x) and w = artanh(u) − u."""

    u: Array
    w: Array


def is_wide(x: Array) -> bool:
    """Tell whether an array has more digits than float32."""
    return x.dtype.itemsize > 4


def halves(new: Array, old: Array, change: Array) -> Halves:
    """Return the two halves of log(new / old) for positive numbers with this difference."""
    u = change / (new + old)
    square = u * u
    series = jnp.zeros_like(u)
    for k in reversed(range(13 if is_wide(u) else 5)):
        series = 1 / (2 * k + 3) + square * series
    far = 0.5 * jnp.log(new / old) - u
    return Halves(u, jnp.where(jnp.abs(u) < 0.25, u * square * series, far))


@jax.custom_jvp  # derived, it would square 1 / old, which may overflow where KL and its gradient do not
def x_log_x_remainder(new: Array, old: Array, change: Array) -> Array:
    """Return new · log(new / old) − change ≥ 0."""
    u, w = halves(new, old, change)
    return change * u + 2 * new * w


@x_log_x_remainder.defjvp
def _x_log_x_remainder_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    new, old, change = primals  # of which the change counts once
    u, w = halves(new, old, change)
    return change * u + 2 * new * w, 2 * (u + w) * tangents[0] - (change / old) * tangents[1]


def _residual(total: Array, x: Array, y: Array) -> Array:
    """Return total − x · y, for a product that is nearly the total: from halves whose products are exact."""
    bits = (11, 26) if is_wide(x) else (8, 11)
    x_high, y_high = (jax.lax.reduce_precision(v, *bits) for v in (x, y))
    x_low, y_low = x - x_high, y - y_high
    return total - x_high * y_high - x_high * y_low - x_low * y_high - x_low * y_low


def scaled_change(new: Array, old: Array, change: Array, unit_new: Array, unit_old: Array, unit_change: Array) -> Array:
    """Return new − old · unit_new / unit_old: the change of what was proportional to a unit."""
    # Nearly equal pairs are told apart by their changes, pairs that are far apart by the numbers themselves.
    near = jnp.abs(unit_change) < 0.5 * unit_old
    target, unit = jnp.where(near, change, new), jnp.where(near, unit_change, unit_new)
    # target − old · unit / unit_old. What rounding takes from it matters where new is nearly proportional.
    ratio = unit / unit_old
    product = old * ratio
    rounding = _residual(product, old, ratio) - old * (_residual(unit, ratio, unit_old) / unit_old)
    return target - product + jax.lax.stop_gradient(rounding)


def scaled_remainder(
    new: Array, old: Array, change: Array, unit_new: Array, unit_old: Array, unit_change: Array
) -> Array:
    """Return the remainder of x log x from x = old · unit_new / unit_old, what is proportional to a unit, to new."""
    scaled = old * (unit_new / unit_old)
    return x_log_x_remainder(new, scaled, scaled_change(new, old, change, unit_new, unit_old, unit_change))


def minus_log_remainder(new: Array, old: Array, change: Array) -> Array:
    """Return change / old − log(new / old) ≥ 0."""
    u, w = halves(new, old, change)
    return change * u / old - 2 * w


def lift(new: Array, old: Array) -> tuple[int, Array, Array]:
    """Return how far numbers are brought up, where that is because one of them is small, and by how much each is."""
    height = 7 if is_wide(new) else 4
    small = jnp.minimum(new, old) < height
    return height, small, jnp.where(small, jnp.full_like(new, height), jnp.zeros_like(new))


def _tail(new: Array, old: Array, change: Array, parts: Halves) -> Array:
    """Return the remainder of g for numbers that are not small."""
    y_new, y_old = 1 / new, 1 / old
    homogeneous, weighted = jnp.ones_like(new), jnp.ones_like(new)  # Σ yⁱ y′ʲ and Σ (i + 1) yⁱ y′ʲ, i + j = k − 1
    power, total = jnp.ones_like(new), jnp.zeros_like(new)
    for k in range(1, 14 if is_wide(new) else 6):
        if k % 2:
            total = total + STIRLING[k // 2] * weighted
        power = power * y_new
        homogeneous = y_old * homogeneous + power
        weighted = y_old * weighted + homogeneous
    relative = change * y_old
    return 0.5 * (relative * parts.u - 2 * parts.w) + relative * relative * y_new * total


def _raised(new: Array, old: Array, change: Array) -> tuple[Array, Array, Halves, Array, Halves]:
    """Return where numbers are small, what new is brought up to, its halves, remainder of g there, and of the steps."""
    height, small, step = lift(new, old)
    high = halves(new + step, old + step, change)
    tail = _tail(new + step, old + step, change, high)
    first = halves(new, old, change)
    steps = change * first.u / old - 2 * first.w
    for i in range(1, height):
        steps = steps + minus_log_remainder(new + i, old + i, change)
    return small, new + step, high, tail + jnp.where(small, steps, jnp.zeros_like(steps)), first


# --- slopes: f′(new) − f′(old), of which the derivatives of the remainders are made ----------------------------------

Rise = Callable[[Array, Array, Array], Array]  # of a logarithm from old to new, or of its tangent


def _log_rise(new: Array, old: Array, change: Array) -> Array:
    u, w = halves(new, old, change)
    return 2 * (u + w)


def _tangent_rise(new: Array, old: Array, change: Array) -> Array:
    return change / old


def _rise(new: Array, old: Array, change: Array) -> Array:
    """Return g′(new) − g′(old) where numbers are not small, else the same of what brings them up."""
    height, small, step = lift(new, old)
    y_new, y_old = 1 / (new + step), 1 / (old + step)
    homogeneous = power = jnp.ones_like(new)  # Σ yⁱ y′ʲ, i + j = k
    total = jnp.full_like(new, 0.5)
    for k in range(1, 14 if is_wide(new) else 6):
        power = power * y_new
        homogeneous = y_old * homogeneous + power
        if k % 2:
            total = total + k * STIRLING[k // 2] * homogeneous
    steps = 1 / new / old
    for i in range(1, height):
        steps = steps + 1 / ((new + i) * (old + i))
    return change * (y_old * y_new * total + jnp.where(small, steps, jnp.zeros_like(steps)))


def _lgamma_slope(new: Array, old: Array, change: Array, log: Rise) -> Array:
    step = lift(new, old)[2]
    return log(new + step, old + step, change) + _rise(new, old, change)


def _stirling_slope(new: Array, old: Array, change: Array, log: Rise) -> Array:
    _, small, step = lift(new, old)
    lowered = log(new + step, old + step, change) - log(new, old, change)
    return _rise(new, old, change) + jnp.where(small, lowered, jnp.zeros_like(lowered))


def _with_slope(slope: Callable[[Array, Array, Array, Rise], Array]) -> Callable[[Remainder], Remainder]:
    """Give a remainder its derivatives f′(new) − f′(old) and −(new − old) f″(old): derived, they compile slowly."""

    def wrap(function: Remainder) -> Remainder:
        made = jax.custom_jvp(function)

        @made.defjvp
        def _(primals: Any, tangents: Any) -> tuple[Array, Array]:
            new, old, change = primals
            tangent = slope(new, old, change, _log_rise) * tangents[0]
            return made(*primals), tangent - slope(old, old, change, _tangent_rise) * tangents[1]

        return made

    return wrap


# --- the remainders --------------------------------------------------------------------------------------------------


@_with_slope(_lgamma_slope)
def lgamma_remainder(new: Array, old: Array, change: Array) -> Array:
    """Return lgamma(new) − lgamma(old) − change · digamma(old) ≥ 0 for positive numbers."""
    _, raised, high, rest, _ = _raised(new, old, change)
    return change * high.u + 2 * raised * high.w + rest


@_with_slope(_stirling_slope)
def stirling_remainder(new: Array, old: Array, change: Array) -> Array:
    """Return the remainder of g(x) = lgamma(x) − x log x + x: that of lgamma less that of x log x, and ≥ 0."""
    small, raised, high, rest, first = _raised(new, old, change)
    near = change * (high.u - first.u) + 2 * (raised * high.w - new * first.w)
    far = 2 * raised * (high.u + high.w) - 2 * new * (first.u + first.w)
    lowered = jnp.where(jnp.abs(first.u) < 0.25, near, far)
    return rest + jnp.where(small, lowered, jnp.zeros_like(lowered))
