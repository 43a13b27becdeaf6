"""Variational inference in JAX whose answers say how far they can be believed.

Public names load on first use, so that `import vi_kit.kl` brings neither distrax nor TensorFlow Probability. The
signatures are in `__init__.pyi`.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_SUBPACKAGES = (
    "algorithms",
    "diagnostics",
    "divergences",
    "estimators",
    "families",
    "kl",
    "objectives",
    "support",
    "targets",
)
_NAMES = {
    "Bounds": "vi_kit.divergences",
    "Estimate": "vi_kit._types",
    "Fit": "vi_kit._types",
    "Posterior": "vi_kit._posterior",
    "Report": "vi_kit.diagnostics",
    "Target": "vi_kit._types",
    "check": "vi_kit._check",
    "diagnose": "vi_kit.diagnostics",
    "divergence": "vi_kit.divergences",
    "estimate_divergence": "vi_kit.divergences",
    "estimate_kl": "vi_kit.divergences",
    "fit": "vi_kit._fit",
    "kl_bounds": "vi_kit.divergences",
    "kl_divergence": "vi_kit.divergences",
    "quadrature_kl": "vi_kit.divergences",
    "register_kl": "vi_kit.divergences",
    "load": "vi_kit._posterior",
    "make_target": "vi_kit.targets",
    "optimize": "vi_kit._optimize",
}

__all__ = sorted((*_SUBPACKAGES, *_NAMES))


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"vi_kit.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'vi_kit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
