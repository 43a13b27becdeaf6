"""What quadrature needs to know of a distribution of numbers, a family or an object of a library."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit.divergences import distributions as d
from vi_kit.divergences._common_support import log_density_within
from vi_kit.divergences._densities import DENSITIES
from vi_kit.divergences._ends import attribute, ends_of, every_end, transform_of
from vi_kit.divergences._sampling import as_the_libraries_expect, components_of, is_mixture

Shape = tuple[int, ...]


class Points(NamedTuple):
    """Points x = end + sign · distance; near that end only the distance has all digits."""

    x: Array
    end: Array
    sign: Array
    distance: Array

    def above(self, end: Array) -> Array:
        """Return x − end."""
        return jnp.where(end == self.end, self.sign * self.distance, self.x - end)

    def below(self, end: Array) -> Array:
        """Return end − x."""
        return jnp.where(end == self.end, -self.sign * self.distance, end - self.x)


class View(NamedTuple):
    """What quadrature needs to know of a distribution of numbers.

    Attributes:
        log_density: of points, which have one axis in front of the batch.
        low: lower end of the support.
        high: upper end of the support.
        centers: where the mass lies, components in the first axis.
        widths: how far it reaches from there.
        jumps: where the density may jump and parameters move it, in the first axis.
        discrete: whether it is a distribution of whole numbers.
        exact: whether the density makes use of distances from an end.
        fixed: the ends that are the same numbers whatever the parameters, else None.
    """

    log_density: Callable[[Points], Array]
    low: Array
    high: Array
    centers: Array
    widths: Array
    jumps: Array
    discrete: bool
    exact: bool
    fixed: tuple[float | None, float | None] = (None, None)

    def narrowest(self) -> tuple[Array, Array]:
        """Return center and width of the narrowest component."""
        index = jnp.argmin(self.widths, axis=0)[None]
        center, width = (jnp.take_along_axis(v, index, axis=0)[0] for v in (self.centers, self.widths))
        return center, width


def is_known(distribution: Any) -> bool:
    """Tell whether the log density of a family is written down here."""
    if isinstance(distribution, d.Mixture):
        return is_known(distribution.base)
    return type(distribution) in DENSITIES


def view(distribution: Any, batch: Shape, dtype: Any) -> View:
    """Return what quadrature needs to know of a family or an object of a library."""
    if isinstance(distribution, d.Mixture):
        return _of_mixture(distribution.broadcast_to(batch), batch, dtype)
    if isinstance(distribution, d.Distribution):
        return _of_family(distribution.broadcast_to(batch), batch, dtype)
    return _of_object(distribution, batch, dtype)


def _of_family(family: Any, batch: Shape, dtype: Any) -> View:
    known = DENSITIES[type(family)]
    inner = jax.tree.map(lambda leaf: leaf[None], family)

    def spread(value: Any) -> Array:
        return jnp.broadcast_to(jnp.asarray(value, dtype), batch)

    ends = known.ends(family)
    low, high = (spread(end) for end in ends)
    center, width = (jax.lax.stop_gradient(spread(value))[None] for value in known.place(family))

    def log_density(points: Points) -> Array:
        left, right = points.above(low[None]), points.below(high[None])
        if known.discrete:
            inside = (left >= 0) & (right >= 0)
            x = jnp.where(inside, points.x, jnp.where(jnp.isfinite(low), low, jnp.zeros_like(low))[None])
            return jnp.where(inside, known.log(inner, x, left, right), -jnp.inf)
        inside = (left > 0) & (right > 0)
        # Outside, any point within is harmless.
        safe = [jnp.clip(center, low[None], high[None]), center - low[None], high[None] - center]
        x, left, right = (
            jnp.where(inside, a, jnp.where(b > 0, b, jnp.ones_like(b)) if i else b)
            for i, (a, b) in enumerate(zip((points.x, left, right), safe, strict=True))
        )
        return jnp.where(inside, known.log(inner, x, left, right), -jnp.inf)

    moving = [jnp.where(jnp.isfinite(end), end, center[0]) for end in ends if isinstance(end, jax.Array)]
    jumps = jnp.stack(moving) if moving else jnp.zeros((0, *batch), dtype)
    fixed = tuple(None if isinstance(end, jax.Array) else float(end) for end in ends)
    return View(log_density, low, high, center, width, jumps, known.discrete, exact=True, fixed=(fixed[0], fixed[1]))


def _of_mixture(mixture: d.Mixture, batch: Shape, dtype: Any) -> View:
    shape = np.shape(mixture.logits)
    inner = view(mixture.base, shape, dtype)
    log_weights = jax.nn.log_softmax(mixture.logits, axis=-1)

    def log_density(points: Points) -> Array:
        logs = inner.log_density(Points(*(a[..., None] for a in points))) + log_weights[None]
        return jax.nn.logsumexp(logs, axis=-1)

    def fold(values: Array) -> Array:
        return jnp.moveaxis(values, -1, 0).reshape((-1, *batch))

    used = jnp.isfinite(log_weights)
    low = jnp.min(jnp.where(used, inner.low, jnp.inf), axis=-1)
    high = jnp.max(jnp.where(used, inner.high, -jnp.inf), axis=-1)
    centers, widths, jumps = (fold(v) for v in (inner.centers, inner.widths, inner.jumps))
    return View(log_density, low, high, centers, widths, jumps, inner.discrete, exact=True, fixed=inner.fixed)


# --- objects of libraries --------------------------------------------------------------------------------------------


def _of_object(value: Any, batch: Shape, dtype: Any) -> View:
    def spread(array: Any) -> Array:
        return jnp.broadcast_to(jnp.asarray(array, dtype), batch)

    def log_density(points: Points) -> Array:
        with as_the_libraries_expect():
            logs = jnp.asarray(log_density_within(value, points.x), dtype)
        # Some libraries go on beyond the support. What is not a number is missed by the mass, which is checked.
        inside = (points.x >= low[None]) & (points.x <= high[None]) & ~jnp.isnan(logs)
        return jnp.where(inside, logs, -jnp.inf)

    with as_the_libraries_expect():
        low, high = (spread(end) for end in ends_of(value))
        centers, widths = _places(value, dtype)
        pairs = [(spread(c), spread(w)) for c, w in zip(centers, widths, strict=True)]
        inner = [spread(end) for end in every_end(value)] if is_mixture(value) else []
    pairs = [(jnp.clip(jnp.where(jnp.isfinite(c), c, jnp.zeros_like(c)), low, high), w) for c, w in pairs]
    pairs = [(c, jnp.where(jnp.isfinite(w) & (w > 0), w, jnp.ones_like(w))) for c, w in pairs]
    center, width = (jax.lax.stop_gradient(jnp.stack(v)) for v in zip(*pairs, strict=True))
    inner = [jnp.where(jnp.isfinite(end), end, center[0]) for end in inner]
    jumps = jnp.stack(inner) if inner else jnp.zeros((0, *batch), dtype)
    return View(log_density, low, high, center, width, jumps, _is_discrete(value), exact=False)


def _is_discrete(value: Any) -> bool:
    if is_mixture(value):
        components = components_of(value)[1]
        return any(map(_is_discrete, components if isinstance(components, list | tuple) else [components]))
    told = getattr(getattr(value, "support", None), "is_discrete", None)
    if told is not None:
        return bool(told)
    if hasattr(value, "experimental_default_event_space_bijector"):
        return value.experimental_default_event_space_bijector() is None
    kind = getattr(value, "dtype", None)
    return kind is not None and np.issubdtype(np.dtype(kind), np.integer)


def _places(value: Any, dtype: Any) -> tuple[list[Any], list[Any]]:
    """Return where the mass of an object lies and how far it reaches, for each component."""
    from vi_kit.divergences._readers import read

    family = read(value)
    if is_known(family):
        found = view(family, family.batch_shape, dtype)
        return list(found.centers), list(found.widths)
    parts = attribute(value, "components", "component_distributions")
    if parts is not None:
        places = [_places(part, dtype) for part in parts]
        return [c for cs, _ in places for c in cs], [w for _, ws in places for w in ws]
    same = attribute(value, "components_distribution", "component_distribution")
    if same is not None:
        centers, widths = _places(same, dtype)
        return [c for cs in centers for c in jnp.moveaxis(cs, -1, 0)], [
            w for ws in widths for w in jnp.moveaxis(ws, -1, 0)
        ]
    transformed = transform_of(value)
    if transformed is not None:
        base, forward = transformed
        centers, widths = _places(base, dtype)
        moved = [
            (forward(c), jnp.abs(forward(c + w) - forward(c - w)) / 2) for c, w in zip(centers, widths, strict=True)
        ]
        return [c for c, _ in moved], [w for _, w in moved]
    for name in ("icdf", "quantile"):
        try:
            low, middle, high = (getattr(value, name)(jnp.asarray(level, dtype)) for level in (0.2, 0.5, 0.8))
            return [middle], [0.5 * (high - low)]
        except (AttributeError, NotImplementedError):
            continue
    center, width = attribute(value, "mean", "median", "mode"), attribute(value, "stddev", "std")
    if width is None:
        variance = attribute(value, "variance")
        width = None if variance is None else jnp.sqrt(jnp.asarray(variance, dtype))
    if center is None or width is None:
        raise NotImplementedError(
            f"quadrature_kl: expected icdf, or mean and stddev, to find where a {type(value).__name__} has its mass; "
            "vk.estimate_kl(key, p, q, num_samples=10_000) needs neither"
        )
    return [center], [width]


# --- shifts ----------------------------------------------------------------------------------------------------------


def _moves(*names: str) -> Callable[[Any, Array], dict[str, Array]]:
    return lambda family, center: {name: getattr(family, name) - center for name in names}


_SHIFTED: dict[type[d.Distribution], Callable[[Any, Array], dict[str, Array]]] = {
    **dict.fromkeys((d.Normal, d.Laplace, d.Logistic, d.Gumbel, d.Cauchy, d.StudentT, d.Moyal), _moves("loc")),
    **dict.fromkeys((d.GeneralizedNormal, d.GeneralizedExtremeValue, d.Levy), _moves("loc")),
    d.ExpGamma: lambda family, center: {"rate": family.rate * jnp.exp(center)},
    d.ExpInverseGamma: lambda family, center: {"scale": family.scale * jnp.exp(-center)},
    d.Uniform: _moves("low", "high"),
    d.TruncatedNormal: _moves("loc", "low", "high"),
}


def can_shift(distribution: Any) -> bool:
    """Tell whether x − c has a family of the same kind."""
    return can_shift(distribution.base) if isinstance(distribution, d.Mixture) else type(distribution) in _SHIFTED


def shift(distribution: Any, center: Array) -> Any:
    """Return the distribution of x − center: what is narrow and far from 0 keeps its digits there."""
    if isinstance(distribution, d.Mixture):
        return d.Mixture(distribution.logits, shift(distribution.base, center[..., None]))
    return dataclasses.replace(distribution, **_SHIFTED[type(distribution)](distribution, center))
