"""Reports as tables, with rich."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from vi_kit._types import Estimate

_MOST_ROWS = 40


def number(value: float | None, digits: int = 3) -> str:
    """Format a number for a table: fixed where that is readable, scientific elsewhere."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return "−∞" if value == -math.inf else "∞" if value == math.inf else "nan"
    size = abs(value)
    return f"{value:.{digits}f}" if size == 0 or 1e-2 <= size < 1e5 else f"{value:.{digits}g}"


def estimate(value: Estimate | None) -> str:
    """Format value ± standard error, with as many digits as the error allows."""
    if value is None:
        return "not known"
    error = float(value.standard_error)
    if not math.isfinite(error) or error <= 0:
        return f"{number(float(value.value))} ± {number(error)}"
    digits = max(0, min(6, 1 - math.floor(math.log10(error))))
    return f"{float(value.value):.{digits}f} ± {error:.{digits}f}"


def as_text(renderable: Any, width: int = 110) -> str:
    """Render to plain text."""
    buffer = io.StringIO()
    Console(file=buffer, width=width, color_system=None).print(renderable)
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip().splitlines())


def report_table(report: Any, reference: Any | None = None, most_rows: int | None = _MOST_ROWS) -> Group:
    """Return the report as a group of tables; with a reference, its moments and the error beside q's."""
    parts: list[Any] = [_coordinates(report.coordinates, reference, most_rows)]
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="dim")
    facts.add_column()
    for name, value in _facts(report, reference):
        facts.add_row(name, value)
    verdict = Text(report.reason, style="bold green" if report.reliable else "bold red")
    return Group(*parts, facts, verdict)


def _coordinates(rows: Mapping[str, Any], reference: Any | None, most_rows: int | None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("mean", "sd"):
        table.add_column(name, justify="right")
    if reference is None:
        table.add_column("±", justify="right")
        table.add_column("corrected mean", justify="right")
        table.add_column("corrected sd", justify="right")
    else:
        for name in ("reference mean", "reference sd", "error / sd"):
            table.add_column(name, justify="right")
    shown = list(rows.items())
    for label, row in shown[:most_rows]:
        cells = [label, number(row.mean), number(row.sd)]
        if reference is None:
            cells += [number(row.standard_error), number(row.corrected_mean), number(row.corrected_sd)]
        elif label in reference.mean:
            mean, sd = reference.mean[label], reference.sd[label]
            cells += [number(mean), number(sd), f"{(row.mean - mean) / sd:+.2f}" if sd > 0 else ""]
        else:
            cells += ["", "", ""]
        table.add_row(*cells)
    if most_rows is not None and len(shown) > most_rows:
        table.add_row(f"… {len(shown) - most_rows} more")
    return table


def _facts(report: Any, reference: Any | None) -> list[tuple[str, str]]:
    facts = [("fit", f"{report.family}, {report.objective}" if report.objective else report.family)]
    if report.elbo is not None:
        facts.append(("ELBO", f"{estimate(report.elbo)} nats"))
        if report.reverse_kl is not None:
            facts.append(("KL(q‖p)", f"{estimate(report.reverse_kl)} nats"))
        elif reference is not None and reference.log_normalizer is not None:
            gap = Estimate(reference.log_normalizer - report.elbo.value, *report.elbo[1:])
            facts.append(("KL(q‖p)", f"{estimate(gap)} nats, by the reference log Z = {reference.log_normalizer:.3f}"))
        facts.append(("log Z", f"{estimate(report.log_normalizer)} by importance sampling"))
        facts.append(("Pareto k̂", f"{number(report.khat, 2)} (trusted below {report.khat_threshold:.2f})"))
        facts.append(("effective draws", f"{report.ess:.0f} of {report.num_samples}"))
    if report.steps:
        skipped = f", {report.nonfinite_steps} of them not finite and skipped" if report.nonfinite_steps else ""
        facts.append(("steps", f"{report.steps}{skipped}; stopped: {report.stopped}"))
        facts.append(
            (
                "cost",
                f"{report.evaluations} evaluations, {report.seconds:.1f} s ({report.compile_seconds:.1f} s of it "
                "compiling)",
            )
        )
    return facts
