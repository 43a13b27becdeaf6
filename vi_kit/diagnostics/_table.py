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
_LARGEST_ERROR = 0.3  # in reference sds: what the verdict allows too


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
    """Return the report as a group of tables; with a reference, its moments and the error beside q's.

    Args:
        report: a `Report`.
        reference: known answers, or None.
        most_rows: rows of the table of coordinates; the rest is counted below it. None shows all.
    """
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    for name, value in _facts(report, reference):
        facts.add_row(name, value)
    parts: list[Any] = [_coordinates(report.coordinates, reference, most_rows), facts, Text()]
    if report.story:
        parts += [Text("tried", style="dim"), *(Text(f"  {line}") for line in report.story), Text()]
    parts += [Text(f"Careful: {warning}.", style="yellow") for warning in report.warnings]
    parts.append(Text(report.reason, style="bold green" if report.reliable else "bold red"))
    compared = against_reference(report, reference)
    if compared is not None:
        contradicted = report.reliable and not compared["agrees"]
        parts.append(Text(compared["sentence"], style="bold red" if contradicted else ""))
    return Group(*parts)


def against_reference(report: Any, reference: Any | None) -> dict[str, Any] | None:
    """Compare means and sds with a reference: the largest error in reference sds, where, and a sentence.

    Returns:
        None where there is no reference, or none of these coordinates is in it.
    """
    if reference is None:
        return None
    worst, where, what = -1.0, "", ""
    for label, row in report.coordinates.items():
        sd = reference.sd.get(label, 0.0)
        if sd > 0:
            errors = {"mean": abs(row.mean - reference.mean[label]) / sd, "sd": abs(row.sd / sd - 1.0)}
            for name, error in errors.items():
                if not error <= worst:  # NaN counts as worst
                    worst, where, what = error, label, name
    if worst == -1.0:
        return None
    agrees = worst <= _LARGEST_ERROR
    found = f"the {what} of {where} is {worst:.2f} reference sd away"
    if agrees:
        sentence = f"The reference agrees: at most, {found}."
    elif report.reliable:
        sentence = f"But the reference says otherwise: {found}, so do not believe it after all."
    else:
        sentence = f"The reference says so too: {found}."
    return {
        "agrees": agrees,
        "largest_error": worst,
        "coordinate": where,
        "moment": what,
        "sentence": sentence,
    }


def reverse_kl(report: Any, reference: Any | None) -> tuple[Estimate | None, str]:
    """Return KL(q‖p) = log Z − ELBO and how log Z is known: exactly, or from the reference."""
    if report.reverse_kl is not None:
        return report.reverse_kl, "log Z known exactly"
    if report.elbo is None or reference is None or reference.log_normalizer is None:
        return None, "log Z is not known"
    error = math.hypot(float(report.elbo.standard_error), reference.log_normalizer_standard_error or 0.0)
    gap = Estimate(reference.log_normalizer - report.elbo.value, error, report.elbo.num_effective)
    return gap, f"log Z = {reference.log_normalizer:.3f} from the reference"


def _coordinates(rows: Mapping[str, Any], reference: Any | None, most_rows: int | None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", overflow="fold")
    for name in ("mean", "sd"):
        table.add_column(name, justify="right", no_wrap=True)
    extra = (
        ("±", "corrected\nmean", "corrected\nsd")
        if reference is None
        else ("reference\nmean", "reference\nsd", "error in\nref. sd")
    )
    for name in extra:
        table.add_column(name, justify="right", no_wrap=True)
    for label, row in list(rows.items())[:most_rows]:
        cells: list[Any] = [label, number(row.mean), number(row.sd)]
        if reference is None:
            cells += [number(row.standard_error), number(row.corrected_mean), number(row.corrected_sd)]
        elif label in reference.mean:
            mean, sd = reference.mean[label], reference.sd[label]
            error = (row.mean - mean) / sd if sd > 0 else None
            far = error is not None and not abs(error) <= _LARGEST_ERROR
            shown = "" if error is None else f"{error + 0.0:+.2f}".replace("-0.00", "0.00").replace("+0.00", "0.00")
            cells += [number(mean), number(sd), Text(shown, style="red" if far else "")]
        else:
            cells += ["", "", ""]
        table.add_row(*cells)
    if most_rows is not None and len(rows) > most_rows:
        table.add_row(f"… {len(rows) - most_rows} more")
    return table


def _facts(report: Any, reference: Any | None) -> list[tuple[str, str]]:
    facts = [("fit", f"{report.family}, {report.objective}" if report.objective else report.family)]
    if report.elbo is not None:
        facts.append(("ELBO", f"{estimate(report.elbo)} nats"))
        gap, how = reverse_kl(report, reference)
        if gap is not None:
            facts.append(("KL(q‖p)", f"{estimate(gap)} nats, {how}"))
        if report.forward_kl is not None:
            facts.append(("KL(p‖q)", f"{estimate(report.forward_kl)} nats, by importance weights"))
        facts.append(("log Z", f"{estimate(report.log_normalizer)} by importance sampling"))
        bound = report.upper_bound
        # One-sided, at 99 %.
        most = f"at most {float(bound.value) + 2.33 * float(bound.standard_error):.2f}" if bound is not None else ""
        facts.append(("upper bound on log Z", most or "none: only weights of k̂ below 0.5 give an honest one"))
        facts.append(("Pareto k̂", f"{number(report.khat, 2)} (trusted below {report.khat_threshold:.2f})"))
        if report.chi_square is not None:
            within = f"{math.sqrt(max(report.chi_square, 0.0)):.2f} sd"
            facts.append(("error bound", f"no mean is off by more than {within}, as far as draws of q can tell (95 %)"))
        facts.append(("effective draws", f"{report.ess:,.0f} of {report.num_samples:,}"))
    if reference is not None:
        facts.append(("reference", reference.provenance.split("; ")[0].split(". ")[0].rstrip(".")))
    if report.steps:
        skipped = f", {report.nonfinite_steps} of them not finite and skipped" if report.nonfinite_steps else ""
        facts.append(("steps", f"{report.steps:,}{skipped}; stopped: {report.stopped}"))
        seconds = f"{report.seconds:.1f} s ({report.compile_seconds:.1f} s compiling)"
        facts.append(("cost", f"{report.evaluations:,} evaluations, {seconds}"))
    return facts
