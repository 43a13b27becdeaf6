"""What is asked, and what is true: the examples and oracles of the tests (`tests/divergence_*.py`)."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[2] / "tests"))
formulas = importlib.import_module("divergence_formulas")
oracles = importlib.import_module("divergence_oracles")
examples = importlib.import_module("divergence_examples")
DENSITIES = importlib.import_module("divergence_densities").DENSITIES
EXAMPLES, neighbor = examples.EXAMPLES, examples.neighbor

Values = dict[str, Any]
TOLERANCE = 1e-3
GAUSSIAN = ("MultivariateNormal", "MultivariateNormalLowRank", "Diagonal")
FORMULAS = {**formulas.FORMULAS, **{(p, q): formulas.normal for p in GAUSSIAN for q in GAUSSIAN}}
# Parameters that must agree for there to be a closed form.
SHARED = {
    "PowerSpherical": ("mean_direction",),
    "GeneralizedExtremeValue": ("concentration", "loc"),
    "GeneralizedNormal": ("loc",),
    "Levy": ("loc",),
}


def exact(p: str, q: str, a: Values, b: Values) -> float:
    """Return KL to at least 8 digits."""
    if (p, q) == ("Diagonal", "Diagonal"):
        shift = (a["loc"] - b["loc"]) / b["scale"]
        change = (a["scale"] - b["scale"]) / b["scale"]
        return float(np.sum(change + change**2 / 2 - np.log1p(change) + shift**2 / 2))
    if (p, q) in FORMULAS:
        return float(FORMULAS[p, q](a, b))
    return oracles.kl(DENSITIES[p], a, DENSITIES[q], b)


def groups() -> list[tuple[str, str]]:
    """Return every pair of families with events of the same kind."""
    line = [name for name, density in DENSITIES.items() if not density.discrete and name != "VonMises"]
    whole = [name for name, density in DENSITIES.items() if density.discrete]
    sphere = ["VonMisesFisher", "PowerSpherical", "SphericalUniform"]
    found = [(p, q) for group in (line, whole, GAUSSIAN, sphere) for p in group for q in group]
    asked = {name for pair in found for name in pair}
    return found + [(name, name) for name in EXAMPLES if name not in asked]


def agrees(value: float, truth: float, tolerance: float = TOLERANCE) -> bool:
    """Tell whether an answer is right."""
    if math.isinf(truth):
        return value == truth
    return abs(value - truth) <= tolerance * abs(truth) + (1e-30 if truth else 0)


def digits(x: float) -> float | str:
    """Three digits, and a word for what JSON has no number for."""
    return float(f"{x:.4g}") if math.isfinite(x) else str(x)
