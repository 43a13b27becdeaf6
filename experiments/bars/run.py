"""Do the fits reach the best members of their families? Values against bars, median of three seeds."""

# ruff: noqa: E402, the folder above and the extra come before what needs them

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import measures
import problems
from recipes import Effort
from report import cost_of_fit, draw, tables

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from workbench import machine, update_readme, write

Row = dict[str, Any]
SMOKE = Effort(seeds=(0,), share=0.05, judged=500)


def jobs(options: argparse.Namespace) -> dict[str, Any]:
    """Return what measures each target, by its name."""
    effort, parts = Effort(), tuple(options.parts)
    found: dict[str, Any] = {"gaussian_targets": lambda: measures.gaussian_targets((16, 64), effort)}
    every = problems.posteriordb(options.posteriordb) | problems.sampling_targets(options.sampling_targets)
    for name, make in every.items():
        found[name] = lambda make=make: measures.posterior(make(), effort, parts)
    return found


def smoke() -> None:
    """Measure a bundled target and a small Gaussian with few steps and draws; write nothing."""
    rows = measures.gaussian_targets((4,), SMOKE)
    rows += measures.posterior(problems.eight_schools(), SMOKE, ("full-rank", "given"))
    print(tables(rows)["rows"])


def main() -> None:
    """Measure what was asked for; keep the other rows that are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="bundled targets and few steps, nothing is written")
    parser.add_argument("--posteriordb", type=Path, help="folder of posteriors with answers; without it they stay")
    parser.add_argument("--sampling_targets", type=Path, help="folder of sampling targets with answers; likewise")
    parser.add_argument("--only", nargs="+", help="names of targets, or gaussian_targets")
    parser.add_argument("--parts", nargs="+", choices=measures.PARTS, default=measures.PARTS, help="all but Gaussians")
    options = parser.parse_args()
    if options.smoke:
        smoke()
        return
    found = jobs(options)
    unknown = sorted(set(options.only or ()) - set(found))
    if unknown:
        parser.error(f"--only: expected some of {', '.join(found)}, got {', '.join(unknown)}")
    path = HERE / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {"targets": {}}
    for name, measure in found.items():
        if options.only and name not in options.only:
            continue
        began = time.perf_counter()
        rows = measure()
        renewed = {*options.parts, "Gaussian"}
        kept = [row for row in results["targets"].get(name, []) if measures.part_of(row["test"]) not in renewed]
        results["targets"][name] = kept + rows
        results["machine"] = machine()
        write(path, json.dumps(results, indent=1, ensure_ascii=False))
        missed = [row["test"] for row in rows if not row["reached"]]
        print(f"{name}: {len(rows)} rows, {time.perf_counter() - began:.0f} s, missed {missed}", flush=True)
        jax.clear_caches()
    publish([row for rows in results["targets"].values() for row in rows])


def publish(rows: Sequence[Row]) -> None:
    """Write the README's tables and the figure."""
    every = [*rows, *cost_of_fit(HERE.parent / "no_tuning" / "results.json")]
    for name, table in tables(every).items():
        update_readme(HERE / "README.md", name, table)
    draw(every, HERE / "bars.png")


if __name__ == "__main__":
    main()
