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
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"the target {target} needs {package}, which comes with the extra `data`: pip install 'vi_kit[data]'"
        ) from error
