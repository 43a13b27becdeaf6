"""Which pairs does each library answer, and which of the answers are right?"""

from __future__ import annotations

import math
from typing import Any

import jax
import libraries
from exact import DENSITIES, EXAMPLES, FORMULAS, SHARED, agrees, digits, exact, groups

READ = ("distrax", "TFP on JAX", "NumPyro")


def answer(library: libraries.Library, p: Any, q: Any) -> float | None:
    """Return the library's KL of two of its objects, None where it says that it has none."""
    try:
        return library.value(p, q)
    except (NotImplementedError, TypeError, AttributeError, ValueError, AssertionError):
        return None


def coverage(found: list[libraries.Library], smoke: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Call every library on every pair; return counts and, pair by pair, who answers what."""
    pairs = groups()[::301] if smoke else groups()
    rows = []
    for i, (p, q) in enumerate(pairs):
        if i % 100 == 0:
            jax.clear_caches()  # thousands of programs, each used once
        a, b = EXAMPLES[p][0].ordinary[0], EXAMPLES[q][0].ordinary[1]
        b = {**b, **{name: a[name] for name in SHARED.get(p, ()) if p == q}}
        if (p, q) in FORMULAS or {p, q} <= set(DENSITIES):
            truth = exact(p, q, a, b)
        else:  # no quadrature, and a formula only for some pairs: nobody is asked
            continue
        kind = "same family" if p == q else "infinite" if math.isinf(truth) else "finite"
        row: dict[str, Any] = {"p": p, "q": q, "kind": kind, "KL": digits(truth)}
        for library in found:
            if p not in library.families or q not in library.families:
                continue
            objects = []
            for family, values in ((p, a), (q, b)):
                objects.append(library.families[family]({k: library.array(v) for k, v in values.items()}))
            value = answer(library, *objects)
            if value is None:
                continue
            row[library.name] = "right" if agrees(value, truth) else digits(value)
            if library.name in READ:  # vi_kit takes the very objects of these
                value = answer(found[0], *objects)
                row[f"vi_kit of {library.name}"] = "none" if value is None else agrees(value, truth)
        rows.append(row)
    for name in dict.fromkeys(name for library in found for name in library.structures):
        row = {"p": name, "q": "", "kind": "structural"}
        for library in found:
            if name not in library.structures:
                continue
            objects = library.structures[name]()
            value = answer(library, *objects)
            if value is None:
                continue
            row.setdefault("KL", digits(value))  # all that answer agree with the first
            row[library.name] = "right" if agrees(value, float(row["KL"])) else digits(value)
            if library.name in READ:
                value = answer(found[0], *objects)
                row[f"vi_kit of {library.name}"] = "none" if value is None else agrees(value, float(row["KL"]))
        rows.append(row)
    counts = []
    for library in found:
        mine = [row for row in rows if library.name in row]
        count = {"library": library.name, "families": sum(f in EXAMPLES for f in library.families)}
        for kind in ("same family", "finite", "infinite", "structural"):
            count[kind] = sum(row["kind"] == kind and row[library.name] == "right" for row in mine)
        count["right"] = sum(row[library.name] == "right" for row in mine)
        count["wrong"] = len(mine) - count["right"]
        both = [row[f"vi_kit of {library.name}"] for row in mine if f"vi_kit of {library.name}" in row]
        count["vi_kit on the same objects"] = f"{both.count(True)} of {len(both)}" if both else "–"
        counts.append(count)
    return counts, rows
