"""What the distribution objects of distrax, TensorFlow Probability and NumPyro are, family and parameters.

Classes are recognized by the names they have in their libraries, so that none of the libraries is imported here: who
has only one of them needs no other.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Container
from typing import Any

import jax
import jax.numpy as jnp

from vi_kit.divergences import _readers_distrax, _readers_families, _readers_numpyro, _readers_tfp
from vi_kit.divergences import distributions as d
from vi_kit.divergences._readers_bijectors import library_of
from vi_kit.divergences._reading import Reader
from vi_kit.divergences._simplify import simplify

READERS: dict[tuple[str, str], Reader] = {
    (library, name): reader
    for library, readers in (
        ("distrax", _readers_distrax.READERS),
        ("tfp", _readers_tfp.READERS),
        ("numpyro", _readers_numpyro.READERS),
        ("vi_kit", _readers_families.READERS),
    )
    for name, reader in readers.items()
}

_DENSITIES = ("log_prob", "_log_prob", "prob", "_prob")


def read(value: Any, opaque: Container[type] = ()) -> d.Distribution:
    """Return a distribution object of any library as a family with parameters; `Opaque` where it is not known.

    The parameters are read, not the shapes that the object has stored: those are wrong after a `vmap`.

    Args:
        value: the object.
        opaque: classes that are not to be read, because a registered pair wants the objects themselves.
    """
    # The libraries' own code runs here, which is not written for strict settings.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        return simplify(_read(value, opaque))


def _read(value: Any, opaque: Container[type]) -> d.Distribution:
    if isinstance(value, d.Distribution):
        return with_arrays(value)
    reader = None if any(kind in opaque for kind in type(value).__mro__) else reader_of(type(value))
    found = None if reader is None else reader(value, lambda inner: _read(inner, opaque))
    return d.Opaque(value) if found is None else found


def with_arrays(distribution: d.Distribution) -> d.Distribution:
    """Return a family with arrays where its parameters were given as lists, which would be structure to JAX."""
    lists = {k: v for k, (v, _) in distribution.parameters.items() if isinstance(v, list | tuple)}
    changes: dict[str, Any] = {}
    for k, v in lists.items():
        with contextlib.suppress(TypeError, ValueError):  # what is no array is refused by name later
            changes[k] = jnp.asarray(v)
    if isinstance(base := getattr(distribution, "base", None), d.Distribution):
        changes["base"] = with_arrays(base)
    return dataclasses.replace(distribution, **changes) if changes else distribution  # type: ignore[type-var]


def reader_of(kind: type) -> Reader | None:
    """Return the reader of the nearest known class that this one inherits its density from."""
    for base in kind.__mro__:
        library = library_of(base)
        if library == "distrax" and base.__name__ in ("DistributionFromTFP", "Distribution"):
            continue  # a TFP object within a distrax one is of a class that is derived from both
        # TFP puts an underscore before classes whose parts are no composite tensors.
        found = READERS.get((library, base.__name__.lstrip("_")))
        if found is not None:
            return found
        # A subclass with a density of its own is another distribution.
        if any(name in vars(base) for name in _DENSITIES):
            return None
    return None
