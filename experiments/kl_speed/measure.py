"""Timing in turn, planned memory, and tables."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

Row = dict[str, Any]
Call = Callable[[], Any]


def compiled(functions: dict[str, Callable[..., Any]], *arguments: Any) -> tuple[dict[str, Call], dict[str, float]]:
    """Compile functions of the same arguments; return calls without arguments, and temporary memory in MiB."""
    calls, memory = {}, {}
    for name, function in functions.items():
        program = jax.jit(function).lower(*arguments).compile()
        calls[name] = lambda program=program: program(*arguments)
        memory[name] = program.memory_analysis().temp_size_in_bytes / 2**20
    return calls, memory


def alternate(calls: dict[str, Call], repeats: int, base: str) -> dict[str, Row]:
    """Run all in turn and return median seconds and the ratio to `base` with its 10 and 90 % quantiles."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if i:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    rows = {}
    for name, taken in seconds.items():
        ratios = np.divide(taken, seconds[base])
        rows[name] = {
            "seconds": statistics.median(taken),
            f"ratio to {base}": float(np.median(ratios)),
            "10 to 90 %": [float(x) for x in np.quantile(ratios, (0.1, 0.9))],
        }
    return rows


def rounded(value: Any) -> Any:
    """Keep three digits, or all those before the point."""
    if isinstance(value, list):
        return [rounded(x) for x in value]
    if not isinstance(value, float):
        return value
    return round(value) if abs(value) >= 1_000 else float(f"{value:.3g}")


def show(title: str, rows: list[Row]) -> None:
    """Print a markdown table."""
    header = list(dict.fromkeys(name for row in rows for name in row))
    print(f"\n{title}\n")
    for cells in (header, ["---"] * len(header), *([row.get(name) for name in header] for row in rows)):
        words = (" to ".join(map(str, c)) if isinstance(c, list) else "–" if c is None else str(c) for c in cells)
        print("| " + " | ".join(words) + " |", flush=True)


def lines(results: dict[str, Any]) -> str:
    """Write JSON with one row a line, so that a new run reads as a diff."""
    parts = []
    for name, value in results.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = "[\n  " + ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in value) + "\n ]"
        parts.append(f' "{name}": {text}')
    return "{\n" + ",\n".join(parts) + "\n}\n"
