"""Tables of the README, made of the results."""

# ruff: noqa: E402, the folder above comes before what is in it

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
import workbench


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float, error: float) -> str:
    digits = max(0, min(4, 1 - int(np.floor(np.log10(error)))))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def fits_table(rows: list[dict[str, Any]]) -> str:
    """Return a row a target and family: KL of the best and the worst seed, effective share, seconds."""
    lines = []
    for target in dict.fromkeys(row["target"] for row in rows):
        for family in dict.fromkeys(row["family"] for row in rows):
            own = sorted((r for r in rows if (r["target"], r["family"]) == (target, family)), key=lambda r: r["KL"])
            best, worst = own[0], own[-1]
            run = [r["seconds"] for r in own if not r["compiled in them"]]
            lines.append(
                [
                    target,
                    family,
                    _number(best["KL"], best["error"]),
                    _number(worst["KL"], worst["error"]),
                    f"{worst['effective share']:.0%}".replace("%", " %"),
                    f"{next(r['seconds'] for r in own if r['compiled in them']):.0f}",
                    f"{np.median(run):.0f}",
                ]
            )
    header = ["target", "q", "best of 3 seeds", "worst", "its effective share", "first fit, s", "another, s"]
    return _table(header, lines)


def estimators_table(rows: list[dict[str, Any]]) -> str:
    """Return a row an estimator: what is minimized, and KL."""
    lines = [
        [
            row["target"],
            f"{row['start']:g}",
            row["objective"],
            row["estimator"],
            _number(row["KL"], row["error"]),
            _number(row["gap of the 8-particle bound"], row["its error"]),
        ]
        for row in rows
    ]
    return _table(["target", "sds at the start", "objective", "estimator", "KL", "gap of the 8-particle bound"], lines)


def update_readme(results: dict[str, Any]) -> None:
    """Put the tables between their marks in the README."""
    for name, body in (("fits", fits_table(results["fits"])), ("estimators", estimators_table(results["estimators"]))):
        workbench.update_readme(HERE / "README.md", name, body)
