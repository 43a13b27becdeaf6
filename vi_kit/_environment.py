"""What a fit ran on: device and versions."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import jax


def device() -> str:
    """Name the device that JAX uses."""
    first = jax.devices()[0]
    return f"{first.platform}: {first.device_kind}"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the numbers depend on."""
    found = {"python": platform.python_version()}
    for package in ("vi_kit", "jax", "jaxlib", "optax", "distrax", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
