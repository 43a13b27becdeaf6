"""Where the support of a distribution of numbers ends, for objects of any library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit.divergences import distributions as d
from vi_kit.divergences._densities import DENSITIES
from vi_kit.divergences._sampling import as_the_libraries_expect, components_of, family_of, is_mixture


def attribute(value: Any, *names: str) -> Any:
    """Return the first of these attributes, called where it is a method; None where there is none."""
    for name in names:
        try:
            found = getattr(value, name)
            return found() if callable(found) else found
        except (AttributeError, NotImplementedError):
            continue
    return None


def transform_of(value: Any) -> tuple[Any, Callable[[Any], Any]] | None:
    """Return the base of a transformed distribution, and the transform."""
    if hasattr(value, "bijector") and hasattr(value, "distribution"):
        return value.distribution, lambda x: value.bijector.forward(x)
    if hasattr(value, "transforms") and hasattr(value, "base_dist"):

        def forward(x: Any) -> Any:
            for transform in value.transforms:
                x = transform(x)
            return x

        return value.base_dist, forward
    return None


def ends_of(value: Any) -> tuple[Any, Any]:
    """Return the ends of the support: floats, or arrays where parameters move them; infinite where nothing is known."""
    with as_the_libraries_expect():
        if is_mixture(value):
            every = every_end(value)
            return _least(every[::2], jnp.minimum), _least(every[1::2], jnp.maximum)
        family = family_of(value)
        if type(family) in DENSITIES:
            return DENSITIES[type(family)].ends(family)
        line = -jnp.inf, jnp.inf
        transformed = transform_of(value)
        bijector = attribute(value, "experimental_default_event_space_bijector")
        if transformed is not None:
            base, forward = transformed
            images = [forward(jnp.asarray(end, jnp.result_type(float))) for end in ends_of(base)]
        elif bijector is not None:
            images = [bijector.forward(jnp.asarray(end, jnp.result_type(float))) for end in line]
        else:
            support = getattr(value, "support", None)
            return getattr(support, "lower_bound", -jnp.inf), getattr(support, "upper_bound", jnp.inf)
        images = [jnp.where(jnp.isnan(a), b, a) for a, b in zip(images, line, strict=True)]
        return jnp.minimum(*images), jnp.maximum(*images)


def every_end(value: Any) -> list[Any]:
    """Return both ends of every component of a mixture, of mixtures of mixtures too: lower and upper in turn."""
    with as_the_libraries_expect():
        if not is_mixture(value):
            return list(ends_of(value))
        components = components_of(value)[1]
        if isinstance(components, list | tuple):
            return [end for part in components for end in every_end(part)]
        # One distribution with the components in the last axis of its batch.
        num = tuple(components.batch_shape)[-1]
        ends = [jnp.asarray(end) for end in every_end(components)]
        spread = [jnp.broadcast_to(end, (*end.shape[:-1], num)) for end in ends]
        return [spread[i + j][..., k] for i in range(0, len(ends), 2) for k in range(num) for j in (0, 1)]


def _least(ends: list[Any], smaller: Callable[[Any, Any], Any]) -> Any:
    found = ends[0]
    for end in ends[1:]:
        found = smaller(found, end)
    return found


def is_number(family: d.Distribution, value: Any) -> bool:
    """Tell whether events are numbers."""
    shape = getattr(value, "event_shape", None) if isinstance(family, d.Opaque) else family.event_shape
    return shape is not None and not isinstance(shape, dict) and tuple(shape) == ()


def fixed_ends(value: Any) -> tuple[float, float] | None:
    """Return the ends where no parameter moves them, from within a program whose parameters are all traced."""
    try:
        with jax.ensure_compile_time_eval():
            low, high = (np.unique(np.asarray(end, np.float64)) for end in ends_of(value))
    except (jax.errors.JAXTypeError, jax.errors.UnexpectedTracerError):
        return None
    return (float(low[0]), float(high[0])) if low.size == high.size == 1 else None
