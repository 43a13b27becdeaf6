"""Do variational posteriors of a network's weights predict better than one network, or an ensemble of them?

Real regression sets, ten splits each. Mean-field and low-rank Gaussians over all parameters, fitted by reverse KL with
minibatches, against maximum a posteriori, an ensemble of such networks and least squares: log-likelihood of held-out
rows, error, coverage of central intervals. The prior's scale is chosen on each split's validation rows.
"""

# ruff: noqa: E402, the folder above and the extra come before what needs them

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parent.parent))
import workbench

workbench.require("equinox", "sklearn", "statsmodels")

import jax
from data import SETS, load
from figure import draw
from fits import ensemble, fit_one, predict, predict_draws, setup, starts, variational
from measure import LEVELS, linear, scores

import vi_kit as vk

HERE = Path(__file__).parent
METHODS = ("least squares", "maximum a posteriori", "ensemble", "mean-field", "low-rank")
BY_FIT = "mean-field, vk.fit"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run is; a folder holds runs of one of them."""

    sets: tuple[str, ...] = tuple(SETS)
    seeds: tuple[int, ...] = tuple(range(10))
    hidden: int = 32
    members: int = 5
    rank: int = 5
    prior_scales: tuple[float, ...] = (0.5, 1.0, 2.0)
    steps: int = 4_000
    batch_size: int = 64
    draws: int = 4
    learning_rate: float = 0.01  # of networks
    variational_rate: float = 0.05  # by the ELBO of engel's first split
    posterior_draws: int = 200


def stacked(sets: Sequence[Any], part: str) -> Any:
    """Put the splits' rows into one tree with a leading axis of splits."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *(getattr(one.parts, part) for one in sets))


def fit_all(settings: Settings, name: str, prior_scale: float, num_seeds: int) -> dict[str, Any]:
    """Fit every method to all splits of a set; return scores of validation and test rows, one a split."""
    sets = [load(name, seed=seed) for seed in settings.seeds[:num_seeds]]
    train, held_out = stacked(sets, "train"), {part: stacked(sets, part) for part in ("validation", "test")}
    inputs = train["x"].shape[-1]
    model, target = setup(settings, inputs, prior_scale, sets[0].parts.train)
    keys = jax.random.split(jax.random.key(0), num_seeds * settings.members)
    fresh = starts(settings, inputs, target, keys).reshape(num_seeds, settings.members, target.dim)
    found: dict[str, Any] = {"parameters": target.dim}

    def report(method: str, z: Any, seconds: float) -> None:
        rows: dict[str, Any] = {"seconds": seconds}
        means, noises = predict(model, target, z, np.concatenate([held_out[part]["x"] for part in held_out], axis=1))
        cut = held_out["validation"]["y"].shape[1]
        for part, there in (("validation", slice(None, cut)), ("test", slice(cut, None))):
            rows[part] = [
                scores(mean[:, there], noise, y)
                for mean, noise, y in zip(means, noises, held_out[part]["y"], strict=True)
            ]
        found[method] = rows

    began = time.process_time()
    members = jax.block_until_ready(ensemble(settings, target, train, fresh))
    seconds = time.process_time() - began
    report("ensemble", members, seconds)
    report("maximum a posteriori", members[:, :1], seconds / settings.members)
    families = {
        "mean-field": vk.families.MeanField(target.dim),
        "low-rank": vk.families.LowRank(target.dim, settings.rank),
    }
    for method, family in families.items():
        began = time.process_time()
        z = jax.block_until_ready(variational(settings, family, target, train, fresh[:, 0]))
        report(method, z, time.process_time() - began)
    return found


def through_fit(settings: Settings, name: str, scales: Sequence[float]) -> dict[str, Any]:
    """Fit a mean-field Gaussian to every split by `vk.fit`, with these prior scales; return scores and what it says."""
    rows, told = [], []
    for i, (seed, scale) in enumerate(zip(settings.seeds, scales, strict=True)):
        one = load(name, seed=seed)
        parts, key = one.parts, jax.random.key(100 + i)
        model, target = setup(settings, parts.train["x"].shape[-1], scale, parts.train)
        posterior = fit_one(settings, target, key)
        draws = jax.tree.map(lambda leaf: leaf[: settings.posterior_draws], posterior.draws)
        rows.append(scores(*predict_draws(model, draws, parts.test["x"]), parts.test["y"]))
        report = posterior.report
        told.append({"ELBO": float(report.elbo.value), "k": float(report.khat), "reliable": bool(report.reliable)})
    return {"test": rows, "told": told, "reason": report.reason}


def choose(runs: dict[float, dict[str, Any]], method: str, split: int) -> float:
    """Return the prior scale with the best log-likelihood on a split's validation rows."""
    return max(runs, key=lambda scale: runs[scale][method]["validation"][split]["log-likelihood"])


def collect(settings: Settings, runs: dict[str, Any], by_fit: dict[str, Any]) -> dict[str, Any]:
    """Put splits together: means and standard errors, and differences from MAP, split by split."""
    results: dict[str, Any] = {
        "question": (__doc__ or "").splitlines()[0],
        "settings": dataclasses.asdict(settings),
        "machine": workbench.machine(),
        "vk.fit": {name: {"told": row["told"], "reason": row["reason"]} for name, row in by_fit.items()},
        "sets": {},
    }
    for name, by_scale in runs.items():
        sets = [load(name, seed=seed) for seed in settings.seeds]
        rows, scales = {}, {}
        for method in METHODS:
            if method == "least squares":
                rows[method] = [
                    scores(*linear(one.parts.train, one.parts.test["x"]), one.parts.test["y"]) for one in sets
                ]
                continue
            scales[method] = [choose(by_scale, method, i) for i in range(len(sets))]
            rows[method] = [by_scale[scale][method]["test"][i] for i, scale in enumerate(scales[method])]
        rows[BY_FIT] = by_fit[name]["test"]
        keys = [key for key in rows["ensemble"][0] if key != "ranks"]
        base = [row["log-likelihood"] for row in rows["maximum a posteriori"]]
        table = {}
        for method, found in rows.items():
            table[method] = {key: workbench.summary([row[key] for row in found]) for key in keys}
            gains = [row["log-likelihood"] - b for row, b in zip(found, base, strict=True)]
            table[method]["log-likelihood above MAP"] = workbench.summary(gains)
            table[method]["ranks"] = np.histogram(np.concatenate([row["ranks"] for row in found]), 20, (0, 1))[
                0
            ].tolist()
            table[method]["coverage curve"] = curve(found)
            if method in scales:
                table[method]["prior scales chosen"] = scales[method]
                table[method]["seconds"] = {scale: by_scale[scale][method]["seconds"] for scale in by_scale}
        results["sets"][name] = {
            "rows": [len(part["y"]) for part in sets[0].parts],
            "distinct test rows": distinct(settings, sum(len(part["y"]) for part in sets[0].parts)),
            "inputs": sets[0].parts.train["x"].shape[1],
            "parameters": by_scale[settings.prior_scales[0]]["parameters"],
            "unit of y": sets[0].unit,
            "methods": table,
        }
    return results


def distinct(settings: Settings, rows: int) -> int:
    """Count the rows that are test rows of any split."""
    return len(set(np.concatenate([workbench.split(np.arange(rows), seed=seed).test for seed in settings.seeds])))


def curve(found: list[dict[str, Any]]) -> list[float]:
    """Return the coverage of central intervals of 5, 10, … 95 %, over all splits' test rows."""
    depth = 2 * np.abs(np.concatenate([row["ranks"] for row in found]) - 0.5)
    return [float(np.mean(depth < level)) for level in np.arange(1, 20) / 20]


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Write the README's tables."""
    lines = [
        "| set | method | log-likelihood a row | above MAP, split by split | RMSE | "
        + "".join(f"in {100 * level:.0f} % | " for level in LEVELS).rstrip()
    ]
    lines.append("| --- | --- |" + " ---: |" * (3 + len(LEVELS)))
    for name, one in results["sets"].items():
        for method, row in one["methods"].items():
            cells = [
                f"{row[key]['mean']:.3f} ± {row[key]['standard_error'] or 0:.3f}"
                for key in ("log-likelihood", "log-likelihood above MAP", "error")
            ]
            cells[1] = "" if method == "maximum a posteriori" else cells[1]
            cells += [f"{100 * row[f'coverage {level:g}']['mean']:.1f}" for level in LEVELS]
            lines.append(f"| {name} | {method} | {' | '.join(cells)} |")
    told = []
    for name, row in results["vk.fit"].items():
        khats = [one["k"] for one in row["told"]]
        believed = sum(one["reliable"] for one in row["told"])
        told.append(f"| {name} | {believed} of {len(khats)} | {min(khats):.2f} to {max(khats):.2f} | {row['reason']} |")
    head = ["| set | believed | Pareto k̂ | the last one's verdict |", "| --- | ---: | ---: | --- |"]
    return {"held out": "\n".join(lines), "verdicts": "\n".join(head + told)}


def main() -> None:
    """Run what is not finished, then write results, tables and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="one set, two splits, few steps, nothing kept")
    parser.add_argument("--data", nargs="+", default=list(SETS), metavar="SET", help=f"some of {', '.join(SETS)}")
    parser.add_argument("--folder", type=Path, default=HERE / "runs", help="finished fits are kept here")
    options = parser.parse_args()
    for name in options.data:
        load(name, seed=0)
    settings = Settings(sets=tuple(options.data))
    if options.smoke:
        tiny = {"seeds": (0, 1), "members": 2, "prior_scales": (1.0,), "steps": 20, "posterior_draws": 20}
        settings = dataclasses.replace(settings, sets=settings.sets[:1], **tiny)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if options.smoke else options.folder
        run = workbench.Run(folder, settings)
        runs: dict[str, Any] = {}
        by_fit: dict[str, Any] = {}
        for name in settings.sets:
            runs[name] = {}
            for scale in settings.prior_scales:
                row = run.row(f"{name} {scale:g}") or fit_all(settings, name, scale, len(settings.seeds))
                run.finish(f"{name} {scale:g}", row)
                runs[name][scale] = row
                print(f"{name}, prior scale {scale:g}: done", flush=True)
            scales = [choose(runs[name], "mean-field", i) for i in range(len(settings.seeds))]
            by_fit[name] = run.row(f"{name} by vk.fit") or through_fit(settings, name, scales)
            run.finish(f"{name} by vk.fit", by_fit[name])
            print(f"{name}, by vk.fit: done", flush=True)
        results = collect(settings, runs, by_fit)
        if options.smoke or settings.sets != tuple(SETS):
            draw(results, folder / "bnn.png")
            print("\n\n".join(tables(results).values()))
            return
    workbench.write(HERE / "results.json", json.dumps(results, indent=1, ensure_ascii=False))
    for name, text in tables(results).items():
        workbench.update_readme(HERE / "README.md", name, text)
    draw(results, HERE / "bnn.png")


if __name__ == "__main__":
    main()
