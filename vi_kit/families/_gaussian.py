"""What the Gaussian families share: reading `mean` and `scale` arguments."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vi_kit._types import Event


def check_dim(dim: int) -> None:
    """Refuse a dimension that is not a positive int."""
    if isinstance(dim, bool) or not isinstance(dim, int | np.integer) or dim < 1:
        raise ValueError(f"dim: expected a positive int, got {dim!r}")


def read_mean(mean: Array | None, dim: int) -> Event:
    """Return the mean, zero where none was given."""
    if mean is None:
        return jnp.zeros((dim,), jnp.result_type(float))
    array = jnp.asarray(mean)
    if array.shape != (dim,):
        raise ValueError(f"mean: expected shape ({dim},), got {array.shape}")
    if not isinstance(array, jax.core.Tracer) and not np.all(np.isfinite(np.asarray(array))):
        raise ValueError(f"mean: must be finite, got {array}")
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.result_type(float))


def read_scale(scale: Array | None, like: Event, *, matrix: bool) -> Array:
    """Return the scale: a number or standard deviations spread to a vector, or a lower factor where allowed."""
    dim = like.shape[0]
    array = jnp.asarray(1.0 if scale is None else scale, like.dtype)
    if array.ndim == 0:
        array = jnp.broadcast_to(array, (dim,))
    if array.shape != (dim,) and not (matrix and array.shape == (dim, dim)):
        allowed = f"(), ({dim},) or ({dim}, {dim})" if matrix else f"() or ({dim},)"
        raise ValueError(f"scale: expected shape {allowed}, got {array.shape}")
    if isinstance(array, jax.core.Tracer):
        return array
    host = np.asarray(array)
    deviations = np.diagonal(host) if host.ndim == 2 else host
    if not np.all(np.isfinite(host)):
        raise ValueError("scale: must be finite, got NaN or infinity")
    if not np.all(deviations > 0):
        raise ValueError(f"scale: must be positive, got a smallest value of {np.min(deviations):g}")
    if host.ndim == 2 and np.any(np.triu(host, 1)):
        raise ValueError(
            "scale: expected a lower factor L of the covariance L Lᵀ, got a matrix with entries above its diagonal; "
            "of a covariance take jnp.linalg.cholesky"
        )
    return array
