"""Randomized points that fill the unit cube more evenly than independent ones: a shifted lattice."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

_MULTIPLIER = 17797


def to_unit(bits: UInt32[Array, "..."]) -> Float[Array, "..."]:
    """Return the middle of the cell that random bits name, inside (0, 1); 1 − u is exact too."""
    dtype = jnp.result_type(float)
    kept = 23 if dtype == jnp.float32 else 32
    cell = jax.lax.shift_right_logical(bits, jnp.uint32(32 - kept)).astype(dtype)
    return (cell + 0.5) * 2.0**-kept


def shifted_lattice(number: UInt32[Array, " n"], shifts: UInt32[Array, "r 1 dim"]) -> Float[Array, "r n dim"]:
    """Return points of a lattice, each moved by the same random shift modulo 1 and folded by the tent map.

    Every point alone is uniform, so a mean over them has no bias; together they are even.

    Args:
        number: which points; the first 2ᵏ of them fill the cube evenly for every k.
        shifts: random bits, one shift a replicate.

    Source: F. J. Hickernell, H. S. Hong, P. L'Ecuyer and C. Lemieux, "Extensible Lattice Sequences for Quasi-Monte
    Carlo Quadrature", 2000, https://doi.org/10.1137/S1064827599356638
    """
    steps = np.array([pow(_MULTIPLIER, j, 2**32) for j in range(shifts.shape[-1])], np.uint32)
    lattice = _reversed_bits(number)[:, None] * steps[None, :]  # fractions of 2^32, which uint32 takes the rest of
    at = lattice[None] + shifts
    folded = jnp.where(at >> 31 == 1, ~at, at) << 1
    return to_unit(folded)


def _reversed_bits(number: Array) -> Array:
    """Reverse the 32 bits of a number: the van der Corput sequence."""
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF)):
        number = ((number >> shift) & jnp.uint32(mask)) | ((number & jnp.uint32(mask)) << shift)
    return (number >> 16) | (number << 16)
