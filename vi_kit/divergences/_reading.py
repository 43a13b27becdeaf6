"""What the readers of the three libraries have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit.divergences import distributions as d
from vi_kit.divergences._readers_bijectors import read_bijector
from vi_kit.divergences._simplify import map_batch, triangular, with_positive_diagonal

Read = Callable[[Any], d.Distribution]
# (object, how to read what it is made of) -> its family, or None where that is not known.
Reader = Callable[[Any, Read], d.Distribution | None]


def leaf(family: Callable[..., d.Distribution], *positional: str, **named: str) -> Reader:
    """Return the reader of a class whose attributes, by name, are the parameters of a family."""

    def reader(x: Any, read: Read) -> d.Distribution:
        values = [getattr(x, name) for name in positional]
        return family(*values, **{field: getattr(x, name) for field, name in named.items()})

    return reader


def transformed(base: d.Distribution, *bijectors: Any) -> d.Distribution:
    """Return a base with what bijectors do to it."""
    found = base
    for bijector in bijectors:
        found = d.Transformed(found, read_bijector(bijector, found.event_shape))
    return found


def located(loc: Any, size: int, dtype: Any) -> Any:
    """Return the mean of a vector of this size; the libraries take none, a number or a vector of length 1 too."""
    if loc is None:
        return jnp.zeros((size,), dtype)
    loc = jnp.asarray(loc)
    return jnp.broadcast_to(loc, (*loc.shape[:-1], size))


def from_factor(loc: Any, factor: Any) -> d.Distribution:
    """Return the multivariate normal with a triangular factor of its covariance, whatever the signs in it."""
    factor = jnp.asarray(factor)
    return d.MultivariateNormal(located(loc, factor.shape[-1], factor.dtype), with_positive_diagonal(factor))


def from_root(loc: Any, root: Any) -> d.Distribution:
    """Return the multivariate normal with covariance root · rootᵀ."""
    return from_factor(loc, triangular(jnp.asarray(root)))


def class_logits(categorical: d.Distribution) -> Any:
    """Return the logits of a distribution over classes."""
    given: Any = categorical
    return jnp.log(given.probs) if given.logits is None else given.logits


def mixture(logits: Any, components: Sequence[d.Distribution]) -> d.Distribution | None:
    """Return a mixture of components, one object each, where they are of one family."""
    batch = np.broadcast_shapes(np.shape(logits)[:-1], *(c.batch_shape for c in components))
    base = map_batch(lambda *x: jnp.stack(x, axis=len(batch)), *(c.broadcast_to(batch) for c in components))
    return None if base is None else d.Mixture(logits, base)


def moved(base: d.Distribution, loc: Any, scale: Any = None) -> d.Distribution:
    """Return loc + scale · x of a base."""
    if not isinstance(loc, jax.core.Tracer) and not np.any(np.asarray(loc)) and scale is None:
        return base
    return d.Transformed(base, (d.Affine(loc, jnp.ones_like(jnp.asarray(loc)) if scale is None else scale),))
