"""Draws of q with both log densities, in blocks of one compiled size, and their flat, labeled form."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from vi_kit import _distributions as distributions
from vi_kit._types import Family, KeyArray, Layout, Params, Target

BLOCK = 256
"""Draws of one block: large enough to fill a vector unit, small enough to look at between steps."""


class Draws(NamedTuple):
    """Draws of q: z flat and unconstrained, x in the user's space with derived quantities, leading axis n."""

    z: Float[Array, "n dim"]
    x: PyTree
    log_p: Float[Array, " n"] | None
    log_q: Float[Array, " n"]


@partial(jax.jit, static_argnums=(4, 5, 6))
def _block(
    key: KeyArray,
    index: Int[Array, ""],
    target: Target,
    params: Params,
    family: Family,
    size: int,
    with_density: bool,  # noqa: FBT001
) -> Draws:
    def one(key: KeyArray) -> Draws:
        z, log_q = distributions.sample_and_log_prob(family.dist(params), key)
        return Draws(z, target.report(z), target.log_density(z) if with_density else None, log_q)

    return jax.vmap(one)(jax.random.split(jax.random.fold_in(key, index), size))


def draw(
    key: KeyArray,
    target: Target,
    family: Family,
    params: Params,
    num_samples: int,
    *,
    with_density: bool = True,
    block: int = BLOCK,
    first: int = 0,
) -> Draws:
    """Draw from q on the host, block by block, so that any number of draws is one compiled program.

    With another `first` block, the draws are others for the same key.
    """
    parts = []
    for i in range(first, first + -(-num_samples // block)):
        part = _block(key, np.int32(i), target, params, family, block, with_density)
        parts.append(jax.device_get(part))
    return jax.tree.map(lambda leaf: leaf[:num_samples], joined(*parts))  # type: ignore[no-any-return]


def joined(*parts: Draws) -> Draws:
    """Put draws of the same q behind each other."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)  # type: ignore[no-any-return]


def coordinates(tree: PyTree, layout: Layout | None = None) -> tuple[tuple[str, ...], np.ndarray]:
    """Flatten draws (leading axis n) to labels and an array (n, coordinates): `theta[0]`, `beta[0,1]`, `mu`.

    Labels that the user chose (`layout.labels`) replace those of the variables; derived quantities keep their own.
    """
    names: list[str] = []
    columns = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = ".".join(str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p)))) for p in path) or "x"
        array = np.asarray(leaf)
        names.extend(element_labels(name, array.shape[1:]))
        columns.append(array.reshape(array.shape[0], -1))
    if layout is not None and layout.labels is not None:
        own = [
            label
            for name, shape in zip(layout.names, layout.shapes, strict=True)
            for label in element_labels(name or "x", shape)
        ]
        chosen = dict(zip(own, layout.labels, strict=True))
        names = [chosen.get(name, name) for name in names]
    return tuple(names), np.concatenate(columns, axis=1)


def element_labels(name: str, shape: tuple[int, ...]) -> list[str]:
    """Return one label an element, zero-based."""
    return [f"{name}[{','.join(map(str, index))}]" if index else name for index in np.ndindex(*shape)]


def summarize(x: PyTree, function: Any) -> PyTree:
    """Apply a reduction over the leading axis to every leaf, in float64."""
    return jax.tree.map(lambda leaf: function(np.asarray(leaf, np.float64)), x)
