"""How good is `vk.fit(key, target)`, with no other argument? Accuracy, verdict and cost, compilation included."""

# ruff: noqa: E402, the folder above comes before what is in it

from __future__ import annotations

import argparse
import json
import platform
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from problems import TUNED_ON, Problem, problems

import vi_kit as vk

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from workbench import update_readme

SEEDS = (0, 1, 2)
NUM_RESAMPLED = 4_000
Row = dict[str, Any]


def coordinates(target: Any, draws: Any) -> dict[str, np.ndarray]:
    """Return the draws of every coordinate by its name."""
    from vi_kit.diagnostics._draws import coordinates as flatten

    labels, values = flatten(draws, target.layout)
    return dict(zip(labels, values.astype(np.float64).T, strict=True))


def errors(found: dict[str, np.ndarray], reference: Any) -> tuple[float, float]:
    """Return the largest error of a mean, in reference sds, and of an sd, relative."""
    shared = [label for label in reference.labels if label in found and reference.sd[label] > 0]
    means = [abs(found[label].mean() - reference.mean[label]) / reference.sd[label] for label in shared]
    sds = [abs(found[label].std() / reference.sd[label] - 1) for label in shared]
    return float(max(means)), float(max(sds))


def measure(problem: Problem, seed: int) -> Row:
    """Fit once, as a user would, with nothing compiled before."""
    jax.clear_caches()
    target, reference = problem.make(), problem.reference()
    posterior = vk.fit(jax.random.key(seed), target, progress=False)
    report = posterior.report
    elbo, log_z = float(report.elbo.value), float(report.log_normalizer.value)
    known = target.log_normalizer if target.log_normalizer is not None else getattr(reference, "log_normalizer", None)
    row: Row = {
        "target": problem.name, "kind": problem.kind, "dim": target.dim, "seed": seed,
        "tuned on": problem.name in TUNED_ON, "family": report.family.split("(")[0], "seconds": report.seconds,
        "evaluations": report.evaluations, "khat": report.khat, "ess": report.ess, "elbo": elbo,
        "reliable": report.reliable, "reason": report.reason, "story": list(report.story),
    }  # fmt: skip
    if known is not None:
        row["reverse KL"] = float(known) - elbo
        row["log Z error"] = log_z - float(known)
    row["rungs"] = sum("ELBO" in line for line in report.story)
    if row["rungs"] == 1 and row["family"] == "FullRank":
        row["gradient evaluations"] = report.evaluations - report.num_samples
        row["floor"] = problem.floor
    if reference is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            resampled = posterior.resample(jax.random.key(1_000 + seed), NUM_RESAMPLED)
        raw = posterior.sample(jax.random.key(2_000 + seed), NUM_RESAMPLED)
        row["mean error"], row["sd error"] = errors(coordinates(target, resampled), reference)
        row["mean error of q"], row["sd error of q"] = errors(coordinates(target, raw), reference)
        row["accurate"] = row["mean error"] <= 0.1 and row["sd error"] <= 0.1
        missed = (
            max(row["mean error"], row["sd error"]) > 0.3 or max(row["mean error of q"], row["sd error of q"]) > 0.3
        )
        row["false assurance"] = report.reliable and missed
    elif known is not None:
        row["accurate"] = abs(row["log Z error"]) <= 0.1
        row["false assurance"] = report.reliable and not row["accurate"]
    return row


def summarize(rows: Sequence[Row]) -> list[Row]:
    """Return the bars and what was reached, over all rows."""
    real = [row for row in rows if row["kind"] in {"posteriordb", "bundled"}]
    unseen = [row for row in real if not row["tuned on"]]
    gaussian = [row for row in rows if row.get("floor") is not None]
    found = []
    for title, some in (("real posteriors", real), ("of them, not looked at while constants were chosen", unseen)):
        accurate = [row for row in some if row["accurate"]]
        believed = sum(row["reliable"] for row in accurate)
        found += [
            {"what": f"accurate, {title}", "reached": f"{len(accurate)} of {len(some)}", "bar": "95 %"},
            {
                "what": f"reliable among the accurate, {title}", "bar": "80 %",
                "reached": f"{believed} of {len(accurate)}",
            },
            {"what": f"median seconds, {title}", "reached": _median(some, "seconds"), "bar": "5"},
        ]  # fmt: skip
    small = [row for row in rows if row["kind"] == "one parameter"]
    right = [row for row in small if row["accurate"]]
    far = [row["reverse KL"] - row["floor"] for row in gaussian]
    synthetic = [row for row in rows if row["kind"] == "synthetic"]
    flagged = {row["target"] for row in synthetic if not row["reliable"]}
    wrong = sum(row["false assurance"] for row in synthetic)
    return [
        *found,
        {
            "what": "accurate, skewed posteriors of one parameter, none of them looked at", "bar": "–",
            "reached": f"{len(right)} of {len(small)}",
        },
        {
            "what": "reliable among these", "bar": "–",
            "reached": f"{sum(row['reliable'] for row in right)} of {len(right)}",
        },
        {"what": "most seconds", "reached": f"{max(row['seconds'] for row in rows):.0f}", "bar": "120"},
        {"what": "false assurances, all", "reached": str(sum(row["false assurance"] for row in rows)), "bar": "0"},
        {
            "what": "full-rank fits, farthest above the floor", "bar": "0.05",
            "reached": f"{max(far):.3f} nats" if far else "–",
        },
        {
            "what": "full-rank fits, median gradient evaluations", "bar": "2,000",
            "reached": _median(gaussian, "gradient evaluations"),
        },
        {
            "what": "synthetic targets flagged on some seed", "bar": "2 of 6",
            "reached": f"{len(flagged)} ({', '.join(sorted(flagged)) or 'none'})" if synthetic else "–",
        },
        {
            "what": "synthetic fits off by 0.1 nats in log Z and not flagged", "bar": "0",
            "reached": str(wrong) if synthetic else "–",
        },
    ]  # fmt: skip


def _median(rows: Sequence[Row], name: str) -> str:
    values = [row[name] for row in rows if name in row]
    return f"{np.median(values):,.1f}".removesuffix(".0") if values else "–"


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Return the summary and one line a target, the worst of its seeds."""
    summary = ["| | reached | bar |", "| --- | ---: | ---: |"]
    summary += [f"| {row['what']} | {row['reached']} | {row['bar']} |" for row in summarize(rows)]
    columns = (
        "target", "d", "ends with", "accurate", "reliable", "k̂", "mean error, sd", "sd error", "KL(q‖p)",
        "log Z error", "evaluations", "s",
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "| --- | ---: | ---" + " | ---:" * 9 + " |"]
    for name in dict.fromkeys(row["target"] for row in rows):
        some = [row for row in rows if row["target"] == name]

        def worst(key: str, some: Sequence[Row] = some) -> str:
            values = [row[key] for row in some if row.get(key) is not None]
            return f"{max(values, key=abs):.3f}" if values else ""

        count = len(some)
        families = " / ".join(dict.fromkeys(row["family"] for row in some))
        cells = (
            f"{name} *" if some[0]["tuned on"] else name,
            f"{some[0]['dim']}",
            families,
            f"{sum(row['accurate'] for row in some)} of {count}" if "accurate" in some[0] else "",
            f"{sum(row['reliable'] for row in some)} of {count}",
            f"{float(worst('khat')):.2f}",
            *(worst(key) for key in ("mean error", "sd error", "reverse KL", "log Z error")),
            f"{np.median([row['evaluations'] for row in some]):,.0f}",
            f"{np.median([row['seconds'] for row in some]):.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return {"summary": "\n".join(summary), "targets": "\n".join(lines)}


def main() -> None:
    """Run what was asked for; keep the other rows that are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--posteriordb", type=Path, help="folder of posteriordb; without it those rows stay as they are"
    )
    parser.add_argument("--only", nargs="*", help="names of targets")
    parser.add_argument("--smoke", action="store_true", help="one quick target, nothing is written")
    options = parser.parse_args()
    chosen = problems(options.posteriordb)
    if options.only or options.smoke:
        names = ["correlated_gaussian"] if options.smoke else options.only
        chosen = [problem for problem in chosen if problem.name in names]
    path = HERE / "results.json"
    kept = json.loads(path.read_text())["rows"] if path.exists() and not options.smoke else []
    rows = {(row["target"], row["seed"]): row for row in kept}
    for problem in chosen:
        for seed in SEEDS[: 1 if options.smoke else None]:
            row = measure(problem, seed)
            rows[problem.name, seed] = row
            print(
                f"{row['target']:42} seed {seed}: {row['family']:9} {row['seconds']:6.1f} s, k̂ {row['khat']:.2f}, "
                f"accurate {row.get('accurate')}, reliable {row['reliable']}", flush=True,
            )  # fmt: skip
            if not options.smoke:
                save(path, list(rows.values()))
    if not options.smoke:
        for name, table in tables(list(rows.values())).items():
            update_readme(HERE / "README.md", name, table)
        from figure import draw

        draw(list(rows.values()), HERE / "no_tuning.png")


def save(path: Path, rows: Sequence[Row]) -> None:
    """Write the results."""
    about = {"python": platform.python_version(), "jax": jax.__version__, "processor": platform.machine()}
    path.write_text(json.dumps({"versions": about, "rows": rows}, indent=1, ensure_ascii=False, default=float) + "\n")


if __name__ == "__main__":
    main()
