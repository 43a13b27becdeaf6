"""KL between Dirichlet distributions, of any length: Beta distributions are those of length two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vi_kit.divergences._shifted import is_slight, stirling_fall
from vi_kit.divergences._special import scaled_change, stirling_remainder, x_log_x_remainder
from vi_kit.divergences.distributions import Beta, Dirichlet


class _Parts(NamedTuple):
    """How the concentrations of one distribution are held: as one array, or as one array each."""

    each: Callable[..., Any]
    total: Callable[[Any], Array]
    largest: Callable[[Any], Array]


def _kl(p: Any, q: Any, change: Any, parts: _Parts) -> Array:
    """Return KL between Dirichlet distributions: KL(mean of q‖mean of p) · total of q, and what their shapes add.

    Where one concentration is nearly the total, on both sides, what it adds to the shapes is nearly what the total
    takes, and the difference is found from the others; so is the change of its share.
    """
    each, total = parts.each, parts.total
    totals = [total(x) for x in (q, p, change)]
    top = jax.lax.stop_gradient(parts.largest(p))
    most = [total(each(lambda x, old: jnp.where(old == top, x, jnp.zeros_like(x)), x, p)) for x in (q, p, change)]
    rest = [total(each(lambda x, old: jnp.where(old == top, jnp.zeros_like(x), x), x, p)) for x in (q, p, change)]
    nearly_all = is_slight(rest[0], most[0]) & is_slight(rest[1], most[1]) & (most[1] == top)
    moved = each(lambda new, old, change: scaled_change(new, old, change, *totals), q, p, change)
    of_others = total(each(lambda x, old: jnp.where(old == top, jnp.zeros_like(x), x), moved, p))
    ratio = totals[0] / totals[1]

    def component(new: Array, old: Array, change: Array, moved: Array) -> Array:
        known = nearly_all & (old == top)
        means = x_log_x_remainder(new, old * ratio, jnp.where(known, -of_others, moved))
        return means + jnp.where(known, jnp.zeros_like(new), stirling_remainder(new, old, change))

    one, zero = jnp.ones_like(top), jnp.zeros_like(top)
    safe = [jnp.where(nearly_all, x, y) for x, y in zip((*most, *rest), (one, one, *[zero] * 4), strict=True)]
    # Most arrays have none of these.
    fall = jax.lax.cond(jnp.any(nearly_all), stirling_fall, lambda *x: jnp.zeros_like(x[0]), *safe)
    return total(each(component, q, p, change, moved)) + jnp.where(nearly_all, fall, -stirling_remainder(*totals))


def dirichlet_dirichlet(p: Dirichlet, q: Dirichlet) -> Array:
    """Return KL between Dirichlet distributions."""
    # A short last axis is put in front: compiled loops over it would be slow.
    axis = 0 if p.concentration.shape[-1] <= 16 else -1
    a, b = (jnp.moveaxis(x, -1, axis) for x in (p.concentration, q.concentration))
    parts = _Parts(
        each=lambda f, *x: f(*x),
        total=lambda x: jnp.sum(x, axis=axis, keepdims=True),
        largest=lambda x: jnp.max(x, axis=axis, keepdims=True),
    )
    return jnp.squeeze(_kl(a, b, b - a, parts), axis)


_PAIR = _Parts(
    each=lambda f, *x: tuple(f(*given) for given in zip(*x, strict=True)),
    total=lambda x: x[0] + x[1],
    largest=lambda x: jnp.maximum(*x),
)


def beta_kl(p: tuple[Array, Array], q: tuple[Array, Array], changes: tuple[Array, Array]) -> Array:
    """Return KL between Beta distributions with these concentrations, of which q's are so much more than p's."""
    return _kl(p, q, changes, _PAIR)


def beta_beta(p: Beta, q: Beta) -> Array:
    """Return KL between Beta distributions."""
    a, b = ((x.concentration1, x.concentration0) for x in (p, q))
    return beta_kl(a, b, (b[0] - a[0], b[1] - a[1]))
