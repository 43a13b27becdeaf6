"""The README's tables, of results.json: evaluations and seconds to the bar, and batch and match against Adam."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from figure import STYLES

sys.path.append(str(Path(__file__).parent.parent))
from workbench import update_readme

Row = dict[str, Any]


def write(rows: list[Row], path: Path) -> None:
    """Renew what is between the marks of the README."""
    update_readme(path, "tables", tables(rows))


def tables(rows: list[Row]) -> str:
    """Return the tables in Markdown: a row a problem, a column an algorithm."""
    found = {(row["dim"], row["condition"], row["algorithm"]): row for row in rows}
    problems = sorted({key[:2] for key in found})
    names = [name for name in STYLES if any(row["algorithm"] == name for row in rows)]
    heads = [f"{name} (bar {bar:g})" if (bar := bar_of(rows, name)) != 1e-3 else name for name in names]
    lines = [f"| d | condition | {' | '.join(heads)} |", "|---" * (2 + len(names)) + "|"]
    for dim, condition in problems:
        cells = [cell(found.get((dim, condition, name))) for name in names]
        lines.append(f"| {dim} | {condition:,.0f} | {' | '.join(cells)} |")
    lines += ["", "Batch and match against Adam on the ELBO (gradient descent):", ""]
    lines += ["| d | condition | batch and match | Adam | share |", "|---|---|---|---|---|"]
    for dim, condition in problems:
        one, other = (found.get((dim, condition, name)) for name in ("batch and match", "gradient descent"))
        if one and other and one["reached"] and other["reached"]:
            share = one["evaluations"] / other["evaluations"]
            lines.append(
                f"| {dim} | {condition:,.0f} | {one['evaluations']:,} | {other['evaluations']:,} | {share:.2g} |"
            )
    return "\n".join(lines) + "\n"


def bar_of(rows: list[Row], name: str) -> float:
    """Return the bar of an algorithm."""
    return float(next(row["bar"] for row in rows if row["algorithm"] == name))


def cell(row: Row | None) -> str:
    """Return evaluations and seconds, or how near it came."""
    if row is None:
        return ""
    if row["reached"]:
        return f"{row['evaluations']:,} ({row['seconds']:.2g} s)"
    return f"not in {row['evaluations']:,} (KL {row['KL']:.2g})"
