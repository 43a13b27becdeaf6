"""Tables: printed, in the README, in results.json."""

# ruff: noqa: E402, the folder above comes before what is in it

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
import workbench


def table(rows: list[dict[str, Any]]) -> str:
    """Return a markdown table."""
    header = list(dict.fromkeys(name for row in rows for name in row if not isinstance(row[name], dict)))
    lines = (header, ["---", *["---:"] * (len(header) - 1)], *([r.get(n, "–") for n in header] for r in rows))
    return "\n".join(
        "| " + " | ".join(f"{c:g}" if isinstance(c, float) else str(c) for c in line) + " |" for line in lines
    )


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print a table."""
    print(f"\n{title}\n\n{table(rows)}", flush=True)


def families_side_by_side(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row a family: the worst relative error of every library that has a KL for it."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        worst = f"{float(row['worst']):.0e}" + (f", {row['negative']} (−)" if row["negative"] else "")
        found.setdefault(row["family"], {"family": row["family"]})[row["library"]] = worst
    names = list(dict.fromkeys(row["library"] for row in rows))
    return [{"family": name} | {n: row.get(n, "–") for n in names} for name, row in found.items()]


def update_readme(results: dict[str, Any]) -> None:
    """Put the tables of this run between their marks in the README."""
    tables = {name: table(results[name]) for name in ("coverage", "published", "cost", "calls")}
    # What can be read at a glance: totals across, one line a library.
    summary = [{k: v for k, v in row.items() if k != "right by kind"} for row in results["accuracy"]]
    tables |= {"accuracy": table(summary), "families": table(families_side_by_side(results["families"]))}
    for name, body in tables.items():
        workbench.update_readme(HERE / "README.md", name, body)


def write(results: dict[str, Any]) -> None:
    """Write one row a line, so that a new run reads as a diff."""
    parts = []
    for name, value in results.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = "[\n  " + ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in value) + "\n ]"
        else:
            text = json.dumps(value, ensure_ascii=False)
        parts.append(f' "{name}": {text}')
    (HERE / "results.json").write_text("{\n" + ",\n".join(parts) + "\n}\n")
