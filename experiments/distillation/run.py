"""Does forward KL make a student cover its teacher, and reverse KL make it sharp?

Digits with noise and ten classes, then text, character by character; see README.md. The folder keeps what is finished,
so a run that was stopped goes on where it was.
"""

# ruff: noqa: E402, the folder above and the extra come before what needs them

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
import workbench

workbench.require("equinox", "optax", "sklearn")
import classes
import figure
import jax
import report
import sequences


@dataclasses.dataclass(frozen=True)
class Settings:
    """Both parts."""

    classes: classes.Settings = dataclasses.field(default_factory=classes.Settings)
    sequences: sequences.Settings = dataclasses.field(default_factory=sequences.Settings)


SMOKE = Settings(
    classes.Settings(
        seeds=(0, 1),
        teacher_width=16,
        teacher_steps=2,
        num_steps=4,
        every=2,
        rates=(0.01,),
        methods=("100 labels", "forward, fused"),
    ),
    sequences.Settings(
        seeds=(0, 1),
        teacher_width=8,
        teacher_steps=2,
        student_width=4,
        rows=2,
        length=8,
        start_steps=2,
        num_steps=2,
        every=1,
        rates=(0.01,),
        num_judged=4,
        methods=("reverse, student writes",),
    ),
)


def with_classes(folder: Path, settings: classes.Settings) -> dict[str, Any]:
    """Do what is left of the part with digits."""
    run = workbench.Run(folder, settings)
    names = list(classes.methods(settings))
    rows = {name: run.row(f"digits, {name}") for name in names}
    first = run.row("digits")
    if first is None or None in rows.values():
        context, teacher = classes.prepare(settings)
        first = {"teacher": teacher, "logits against fused_linear": classes.agreement(context, settings)}
        run.finish("digits", first)
        students = classes.compile_students(context, settings)
        for name in names:
            if rows[name] is None:
                rows[name] = classes.run(students, name, settings)
                run.finish(f"digits, {name}", rows[name])
                print(name, rows[name]["test"]["accuracy"], flush=True)
    pairs = (
        ("reverse", "forward"),
        ("forward", "all labels"),
        ("forward", "100 labels"),
        ("reverse", "all labels"),
        ("forward and 100 labels", "forward"),
        ("forward, T = 2", "forward"),
        ("forward, fused", "forward"),
    )
    return first | {"methods": rows, "differences": differences(report.classes_differences, rows, pairs)}


def with_sequences(folder: Path, settings: sequences.Settings) -> dict[str, Any]:
    """Do what is left of the part with text."""
    run = workbench.Run(folder, settings)
    names = sequences.names(settings)
    rows = {name: run.row(f"text, {name}") for name in names}
    first = run.row("text")
    if first is None or None in rows.values():
        context = sequences.prepare(run, settings)
        begun, start = sequences.start(context, settings)
        first = {"characters to train on": len(context["text"]), "start": start}
        run.finish("text", first)
        students = sequences.compile_students(context, begun, settings)
        for name in names:
            if rows[name] is None:
                rows[name] = sequences.run_method(students, name, settings)
                run.finish(f"text, {name}", rows[name])
                print(name, rows[name]["test"]["text"]["KL(teacher‖student)"], flush=True)
    pairs = (
        ("reverse, student writes", "forward, on text"),
        ("reverse, student writes", "reverse, student writes, partial gradient"),
        ("forward, on text", "text alone"),
    )
    return first | {"methods": rows, "differences": differences(report.sequences_differences, rows, pairs)}


def differences(compare: Callable[..., Any], rows: dict[str, Any], pairs: Any) -> dict[str, Any]:
    """Compare the pairs that were run."""
    return {f"{a} − {b}": compare(rows, a, b) for a, b in pairs if {a, b} <= set(rows)}


def do(folder: Path, settings: Settings) -> dict[str, Any]:
    """Run both parts, each a run of its own so that a change of one leaves the other, and return the results."""
    found = {
        "digits": with_classes(folder / "digits", settings.classes),
        "text": with_sequences(folder / "text", settings.sequences),
    }
    return {
        "question": __doc__.splitlines()[0],
        "machine": workbench.machine(),
        "settings": dataclasses.asdict(settings),
    } | found


def main() -> None:
    """Run, write results.json, the README's tables and the figures beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="few steps, nothing written")
    parser.add_argument("--folder", type=Path, default=HERE / "runs" / "full", help="what is finished is kept here")
    given = parser.parse_args()
    if given.smoke:
        jax.config.update("jax_disable_most_optimizations", True)  # compiling is most of it
        with tempfile.TemporaryDirectory() as folder:
            results = do(Path(folder) / "run", SMOKE)
            write(results, Path(folder), SMOKE)
        return
    results = do(given.folder, Settings())
    (HERE / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    for name, text in write(results, HERE, Settings()).items():
        workbench.update_readme(HERE / "README.md", name, text)


def write(results: dict[str, Any], folder: Path, settings: Settings) -> dict[str, str]:
    """Draw the figures; return the tables."""
    figure.plane(results["digits"], folder / "plane.png")
    figure.curves(results["text"], dataclasses.asdict(settings.sequences), folder / "curves.png")
    few = f"{settings.classes.num_labels} labels"
    return {
        "digits": report.classes_table(results["digits"], few),
        "text": report.sequences_table(results["text"]),
    }


if __name__ == "__main__":
    main()
