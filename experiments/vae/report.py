"""The README's tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import workbench


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return the tables by name."""
    return {
        "arms": _arms(results),
        "paired": _paired(results),
        "exact": _exact(results["exact"]),
        "speed": _speed(results["speed"]),
    }


def update(readme: Path, results: dict[str, Any]) -> None:
    """Write them into the README."""
    for name, text in tables(results).items():
        workbench.update_readme(readme, name, text)


def _pm(found: dict[str, Any], digits: int = 2) -> str:
    error = found["standard_error"]
    return f"{found['mean']:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def _arms(results: dict[str, Any]) -> str:
    draws = results["settings"]["test_draws"]
    lines = [
        f"| trained with | test bound, k = {draws} | above k = 1 | test ELBO | KL to N(0, I) | active units "
        "| rate | ms a step |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in results["arms"].items():
        above = results["above k = 1"].get(name)
        cells = (
            row["title"],
            _pm(row["bound"]),
            _pm(above) if above else "",
            _pm(row["elbo"]),
            _pm(row["KL to N(0, I)"]),
        )
        units = f"{row['active units']['mean']:.1f} of {row['latents']}"
        seconds = row["seconds a step"]
        milliseconds = "–" if seconds is None else f"{1e3 * seconds:.2f}"
        lines.append(f"| {' | '.join(cells)} | {units} | {row['rate']:g} | {milliseconds} |")
    return "\n".join(lines)


def _paired(results: dict[str, Any]) -> str:
    found = results["above k = 1"].get("iwae")
    if found is None or found["standard_error"] is None:
        return "Not run."
    values = ", ".join(f"{value:+.2f}" for value in found["values"])
    draws = results["settings"]["draws"]
    return (
        f"Trained with k = {draws}, less trained with k = 1, seed by seed: {values}. Mean {found['mean']:.3f} ± "
        f"{found['standard_error']:.3f} nats, {found['standard errors']:.1f} standard errors."
    )


def _exact(row: dict[str, Any]) -> str:
    return "\n".join(
        [
            "| linear VAE on digits | nats an image |",
            "| --- | ---: |",
            f"| largest log likelihood, in closed form | {row['log likelihood in closed form']:.4f} |",
            f"| less the ELBO after {row['steps']:,} steps from a random start | {row['gap after training']:.1e} |",
            f"| less the ELBO at the closed form's parameters | {row['gap at the optimum']:.1e} |",
            "| largest change of a bound from 1 to 100 draws there | "
            f"{row['largest change of a bound from 1 to 100 draws there']:.1e} |",
        ]
    )


def _speed(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| step | loss | ms a step | ratio to by hand | state, kB | temporary, kB |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        bytes_ = f"{row['state bytes'] / 1e3:,.0f} | {row['temporary bytes'] / 1e3:,.0f}"
        lines.append(
            f"| {row['step']} | {row['loss']} | {1e3 * row['seconds']:.3f} | {row['ratio to by hand']:.3f} | {bytes_} |"
        )
    return "\n".join(lines)
