"""Which array library a function is to use: numpy on the host, in double precision, or jax.numpy."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np


def namespace(array: Any) -> Any:
    """Return numpy for an array of numpy, else jax.numpy."""
    return np if isinstance(array, np.ndarray | np.generic) else jnp
