"""How right is each library where p and q are nearly equal, equal, or at the edge of their parameters?"""

from __future__ import annotations

import math
from typing import Any

import libraries
import numpy as np
from exact import DENSITIES, EXAMPLES, FORMULAS, SHARED, Values, agrees, digits, exact, neighbor

CHANGES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
ORDER = (*(f"{c:g}" for c in CHANGES), "equal", "edge")
# The cases of the project's notes on its peers, before any of this library was written.
PUBLISHED = {
    "Beta(1e3, 1e3) ‖ Beta(1001, 1e3)": ("Beta", (1e3, 1e3), (1001, 1e3)),
    "Beta(1e4, 1e4) ‖ Beta(10001, 1e4)": ("Beta", (1e4, 1e4), (10001, 1e4)),
    "Gamma(1e3, 1) ‖ Gamma(1001, 1)": ("Gamma", (1e3, 1), (1001, 1)),
    "Gamma(1e5, 1) ‖ Gamma(100010, 1)": ("Gamma", (1e5, 1), (100010, 1)),
    "Dirichlet, 50 × 20 ‖ 50 × 20.5": ("Dirichlet", (np.full(50, 20.0),), (np.full(50, 20.5),)),
    "Dirichlet, 50 × 200 ‖ 50 × 200.5": ("Dirichlet", (np.full(50, 200.0),), (np.full(50, 200.5),)),
    "diagonal normal, d = 1000, scale 1 ‖ 1.0003": (
        "Diagonal", (np.zeros(1000), np.ones(1000)), (np.zeros(1000), np.full(1000, np.float64(np.float32(1.0003))))
    ),
    "Normal(0, 1) ‖ Normal(0, 1.0003)": ("Normal", (0.0, 1.0), (0.0, float(np.float32(1.0003)))),
}  # fmt: skip


def hard_cases(smoke: bool) -> list[tuple[str, str, Values, Values]]:
    """Return (family, kind, a, b): neighbors of every example, equal ones, edges; one rule for all families."""
    found = []
    for family, variants in EXAMPLES.items():
        if smoke and family not in {"Normal", "Bernoulli"}:
            continue
        for examples in variants:
            for values in examples.ordinary + examples.extreme if examples.ordinary[0] else ():
                found.append((family, "equal", values, values))
                for change in CHANGES:
                    other = neighbor(family, values, change)
                    other |= {name: values[name] for name in SHARED.get(family, ())}
                    found.append((family, f"{change:g}", values, other))
            found += [(family, "edge", a, b) for a in examples.edge for b in examples.ordinary]
    return found


def accuracy(found: list[libraries.Library], smoke: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Ask every library for value and gradients of the hard cases of each family it has a KL for."""
    by_kind: dict[tuple[str, tuple[str, ...]], list[Any]] = {}
    for family, kind, a, b in hard_cases(smoke):
        if (family, family) in FORMULAS or family in DENSITIES:
            by_kind.setdefault((family, tuple(a)), []).append((kind, a, b, exact(family, family, a, b)))
    rows, totals = [], {library.name: dict.fromkeys(COUNTED, 0) for library in found}
    for (family, names), cases in by_kind.items():
        for library in found:
            if family not in library.families:
                continue
            try:
                answers = library.values_and_gradients(family, family, [(a, b) for _, a, b, _ in cases])
            except (NotImplementedError, TypeError, AttributeError, ValueError, AssertionError, RuntimeError):
                continue
            row: dict[str, Any] = {"family": f"{family} ({', '.join(names)})", "library": library.name}
            row |= judge(cases, answers)
            rows.append(row)
            for name in COUNTED:
                totals[library.name][name] += row[name]
    summary = []
    for name, counts in totals.items():
        kinds: dict[str, list[int]] = {}
        for row in rows:
            for kind, (right, asked) in row["right by kind"].items() if row["library"] == name else ():
                kinds[kind] = [x + y for x, y in zip(kinds.get(kind, [0, 0]), (right, asked), strict=True)]
        by_kind = {
            f"right at {k}": f"{x} of {y}" for k, (x, y) in sorted(kinds.items(), key=lambda k: ORDER.index(k[0]))
        }
        summary.append({"library": name, **counts, **by_kind})
    return summary, rows


FAILURES = ("negative", "not 0 at equality", "NaN", "NaN gradient", "wrong infinity")
COUNTED = ("cases", "right", *FAILURES)


def judge(cases: list[Any], answers: list[Any]) -> dict[str, Any]:
    """Count what is wrong in the answers to the cases of one family."""
    row: dict[str, Any] = dict.fromkeys(COUNTED, 0) | {"worst": 0.0}
    for (kind, _, _, truth), (value, gradients) in zip(cases, answers, strict=True):
        row["cases"] += 1
        slopes = [g for side in gradients for name, g in side.items() if name != "total_count"]
        nan_slope = any(np.isnan(g).any() for g in slopes) and math.isfinite(truth)
        row["NaN gradient"] += nan_slope
        row["negative"] += value < 0
        row["not 0 at equality"] += kind == "equal" and value != 0
        row["NaN"] += math.isnan(value)
        row["wrong infinity"] += math.isinf(truth) != math.isinf(value)
        good = agrees(value, truth) and not nan_slope and value >= 0
        row["right"] += good
        by_kind = row.setdefault("right by kind", {}).setdefault(kind, [0, 0])
        by_kind[0] += good
        by_kind[1] += 1
        if kind not in {"edge", "equal"} and math.isfinite(truth) and truth > 0:
            row["worst"] = max(row["worst"], abs(value - truth) / truth if value == value else math.inf)
        elif kind == "edge" and math.isfinite(truth) and truth > 0 and not agrees(value, truth):
            row["worst"] = math.inf
    row["worst"] = digits(row["worst"])
    return row


def published(found: list[libraries.Library], smoke: bool) -> list[dict[str, Any]]:
    """Ask every library for the published cases."""
    rows = []
    for title, (family, first, second) in list(PUBLISHED.items())[-1 if smoke else 0 :]:
        names = EXAMPLES[family][0].ordinary[0]
        a, b = (dict(zip(names, map(np.float64, v), strict=True)) for v in (first, second))
        row: dict[str, Any] = {"case": title, "exact": digits(exact(family, family, a, b))}
        for library in found:
            objects = [library.families[family]({k: library.array(v) for k, v in x.items()}) for x in (a, b)]
            row[library.name] = digits(library.value(*objects))
        rows.append(row)
    return rows
