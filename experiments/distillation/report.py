"""Tables of the README, made of the results."""

from __future__ import annotations

from typing import Any

import numpy as np
import workbench


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a table of markdown."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(values: Any, digits: int = 3) -> str:
    """Return mean ± standard error over seeds."""
    found = workbench.summary(values)
    error = found["standard_error"]
    return f"{found['mean']:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def classes_table(results: dict[str, Any], few: str) -> str:
    """Return a row a method: accuracy, the gain over the few labels alone seed by seed, and what it does with mass."""
    methods, lines = results["methods"], []
    alone = np.asarray(methods[few]["test"]["accuracy"])
    names = ("KL(teacher‖student)", "KL(student‖teacher)", "entropy", "missed", "spilled")
    for name, row in methods.items():
        test = row["test"]
        gain = "" if name == few else number(np.asarray(test["accuracy"]) - alone)
        lines.append([name, number(test["accuracy"]), gain, *(number(test[n]) for n in names), f"{row['rate']:g}"])
    teacher = results["teacher"]
    gain = number(np.asarray(teacher["accuracy"]) - alone)
    lines.append(["the teacher", number(teacher["accuracy"]), gain, "", "", number(teacher["entropy"]), "", "", ""])
    return table(["student learns from", "accuracy", f"more than {few}", *names, "rate"], lines)


def sequences_table(results: dict[str, Any]) -> str:
    """Return a row a method: per character, on held-out text, on the teacher's writing and on the student's own."""
    rows = {"the start": results["start"]["test"]}
    rows |= {name: row["test"] for name, row in results["methods"].items()}
    lines = [
        [
            name,
            number(test["text"]["cross-entropy"]),
            number(test["text"]["KL(teacher‖student)"]),
            number(test["text"]["KL(student‖teacher)"]),
            number(test["teacher writes"]["KL(teacher‖student)"]),
            number(test["student writes"]["KL(student‖teacher)"]),
            number(test["student writes"]["entropy"]),
            number(test["text"]["missed"]),
            number(test["text"]["spilled"]),
        ]
        for name, test in rows.items()
    ]
    header = [
        "student learns from",
        "text: nats",
        "text: KL(t‖s)",
        "text: KL(s‖t)",
        "teacher writes: KL(t‖s)",
        "student writes: KL(s‖t)",
        "student writes: entropy",
        "text: missed",
        "text: spilled",
    ]
    return table(header, lines)


def classes_differences(rows: dict[str, Any], first: str, second: str) -> dict[str, Any]:
    """Return, seed by seed, by how much one way of learning ends above another, with ten classes."""
    ends = [rows[name]["test"] for name in (first, second)]
    return {name: workbench.summary(np.asarray(ends[0][name]) - np.asarray(ends[1][name])) for name in ends[0]}


def sequences_differences(rows: dict[str, Any], first: str, second: str) -> dict[str, Any]:
    """Return, seed by seed, by how much one way of learning ends above another, with text."""
    return {
        f"{place}, {name}": workbench.summary(
            np.asarray(rows[first]["test"][place][name]) - np.asarray(rows[second]["test"][place][name])
        )
        for place, name in (
            ("text", "KL(teacher‖student)"),
            ("text", "KL(student‖teacher)"),
            ("teacher writes", "KL(teacher‖student)"),
            ("student writes", "KL(student‖teacher)"),
            ("student writes", "entropy"),
        )
    }
