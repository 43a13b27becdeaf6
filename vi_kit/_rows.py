"""Rows of data for minibatches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, PyTree


def num_rows(data: PyTree, batch_size: int) -> int:
    """Return the number of rows that all arrays share along their leading axis.

    Raises:
        ValueError: where they do not share one, or have fewer rows than a minibatch.
    """
    shapes = {"data" + jax.tree_util.keystr(p): jnp.shape(a) for p, a in jax.tree_util.tree_leaves_with_path(data)}
    lengths = {shape[0] for shape in shapes.values() if shape}
    if len(lengths) != 1 or () in shapes.values():
        found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) or "no data"
        raise ValueError(
            f"data: minibatches need one leading axis of rows in all arrays, got {found}; keep what is not a row in "
            "log_density itself"
        )
    (length,) = lengths
    if batch_size > length:
        raise ValueError(f"batch_size: expected at most the number of rows, {length}, got {batch_size}")
    return int(length)


def random_rows(key: Key[Array, ""], length: int, batch_size: int) -> Int[Array, " batch_size"]:
    """Draw rows of which each is expected batch_size/length times: one from each of as many equal parts of the data."""
    return rows_at(jax.random.randint(key, (batch_size,), 0, length), length)


def rows_at(offsets: Int[Array, " batch_size"], length: int) -> Int[Array, " batch_size"]:
    """Return the row at an offset in 0, …, length − 1 within each part, where a part is length/batch_size rows long.

    In units of 1/batch_size of a row, part k begins at k·length and a row is batch_size long: the integers are exact
    whether or not the parts are whole rows, and none is as large as batch_size·length, which may not be an int32.
    """
    batch_size = offsets.shape[0]
    begin, rest = np.divmod(np.arange(batch_size, dtype=np.int64) * length, batch_size)
    dtype = offsets.dtype
    return jnp.asarray(begin.astype(dtype)) + (jnp.asarray(rest.astype(dtype)) + offsets) // jnp.asarray(
        batch_size, dtype
    )
