"""Packages that come with an extra: imported where they are used, with one clear message where missing."""

from __future__ import annotations

import importlib
from types import ModuleType


def import_for_data(module: str, package: str, target: str) -> ModuleType:
    """Import a module that the extra `data` brings.

    Args:
        module: What to import, such as ``sklearn.datasets``.
        package: The name people know it by, such as ``scikit-learn``.
        target: The bundled target that asks for it.

    Returns:
        The module.

    Raises:
        ImportError: If the package is not installed.
    """
    return import_from_extra(module, package=package, extra="data", what=f"the target {target}")


def import_from_extra(module: str, *, package: str, extra: str, what: str) -> ModuleType:
    """Import a module that an extra brings.

    Args:
        module: What to import, such as ``numpyro.infer.util``.
        package: The name people know it by, such as ``NumPyro``.
        extra: The extra's name.
        what: What asks for it.

    Returns:
        The module.

    Raises:
        ImportError: If the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{what} needs {package}, which comes with the extra `{extra}`: pip install 'vi_kit[{extra}]'"
        ) from error
