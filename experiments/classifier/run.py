"""Is cross-entropy KL to the labels, and what do softer labels change?

Digits, a small network, ten seeds. Cross-entropy and KL to hard labels: the gradients, and where training ends. With
soft labels the losses differ by the labels' entropy, the gradients do not. Then what labels are worth that are
smoothed, or that say how many of ten careless annotators voted for what, on held-out digits.
"""

# ruff: noqa: E402, the folder above and the extra come before what needs them

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parent.parent))
import workbench

workbench.require("flax", "sklearn")
import jax
import jax.numpy as jnp
import optax
from figure import draw
from flax import nnx
from measure import scores
from model import CLASSES, Network, cross_entropy, divergence, entropy, make_gradients, make_step, smoothed

HERE = Path(__file__).parent
SMOOTHING = (0.02, 0.05, 0.1, 0.2)
LOSSES = {"cross-entropy": cross_entropy, "KL": divergence}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run is; a folder holds runs of one of them."""

    seeds: tuple[int, ...] = tuple(range(10))
    hidden: int = 64
    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 2e-3
    annotators: int = 10
    mistakes: float = 0.4


def votes(labels: Any, settings: Settings, seed: int) -> Any:
    """Return the share of annotators that voted for each class; a mistaken one names any other class."""
    rng = np.random.default_rng((seed, 1))
    cast = np.repeat(labels[:, None], settings.annotators, axis=1)
    other = (cast + rng.integers(1, CLASSES, cast.shape)) % CLASSES
    cast = np.where(rng.random(cast.shape) < settings.mistakes, other, cast)
    return np.eye(CLASSES, dtype=np.float32)[cast].mean(axis=1)


def label_kinds(labels: Any, settings: Settings, seed: int) -> dict[str, Any]:
    """Return what the rows are said to be: one probability a class."""
    hard = np.eye(CLASSES, dtype=np.float32)[labels]
    shares = votes(labels, settings, seed)
    first = votes(labels, dataclasses.replace(settings, annotators=1), seed)
    majority = np.eye(CLASSES, dtype=np.float32)[shares.argmax(axis=1)]
    soft = {f"smoothed by {amount:g}": np.asarray(smoothed(hard, amount)) for amount in SMOOTHING}
    return {"hard": hard, **soft, "one vote": first, "majority of votes": majority, "shares of votes": shares}


class Programs:
    """What is compiled once for all seeds and labels."""

    def __init__(self, settings: Settings) -> None:
        """Build, without compiling yet."""
        model = Network(settings.hidden, nnx.Rngs(0))
        self.optimizer = optax.adam(settings.learning_rate)
        self.steps = {kind: make_step(model, self.optimizer, loss) for kind, loss in LOSSES.items()}
        self.gradients = make_gradients(model, tuple(LOSSES.values()))


def gradients(settings: Settings, programs: Programs, seed: int) -> dict[str, Any]:
    """Compare losses and gradients of both at a fresh network and all training rows, for hard and soft labels."""
    rows = workbench.digits(seed=seed).train
    _, params = nnx.split(Network(settings.hidden, nnx.Rngs(seed)), nnx.Param)
    kinds, found = label_kinds(rows["label"], settings, seed), {}
    for name in ("hard", "smoothed by 0.1", "shares of votes"):
        (value, gradient), (kl_value, kl_gradient) = programs.gradients(params, rows["image"], kinds[name])
        flat, kl_flat = (np.concatenate([np.ravel(a) for a in jax.tree.leaves(g)]) for g in (gradient, kl_gradient))
        gap = float(np.mean(np.asarray(entropy(kinds[name]), np.float64)))
        found[name] = {
            "cross-entropy": float(value),
            "KL": float(kl_value),
            "entropy of the labels": gap,
            "difference of losses less entropy": float(value) - float(kl_value) - gap,
            "difference of gradients / largest": float(np.max(np.abs(flat - kl_flat)) / np.max(np.abs(flat))),
        }
    return found


def train(settings: Settings, programs: Programs, seed: int, kind: str, rows: Any, labels: Any) -> Any:
    """Train on these labels; return the model's structure, its parameters and seconds a step (without compiling)."""
    step = programs.steps[kind]
    graph, params = nnx.split(Network(settings.hidden, nnx.Rngs(seed)), nnx.Param)
    state = programs.optimizer.init(params)
    batches = {"image": rows["image"], "label": labels}
    began, steps = 0.0, 0
    for batch in workbench.minibatches(batches, settings.batch_size, seed=seed, epochs=settings.epochs):
        params, state = step(params, state, batch["image"], batch["label"])
        if not steps:
            jax.block_until_ready(params)
            began = time.perf_counter()
        steps += 1
    jax.block_until_ready(params)
    return graph, params, (time.perf_counter() - began) / max(steps - 1, 1)


def predict(graph: Any, params: Any, rows: Any) -> Any:
    return np.asarray(jax.nn.log_softmax(nnx.merge(graph, params)(jnp.asarray(rows["image"]))))


def one_seed(settings: Settings, programs: Programs, seed: int) -> dict[str, Any]:
    """Train with every kind of label; report on held-out rows, whose labels are the true ones."""
    parts = workbench.digits(seed=seed)
    found: dict[str, Any] = {"gradients": gradients(settings, programs, seed), "trained": {}, "predictions": {}}
    ends = {}
    for name, labels in label_kinds(parts.train["label"], settings, seed).items():
        for kind in LOSSES:
            if kind == "KL" and name not in ("hard", "shares of votes"):
                continue
            graph, params, seconds = train(settings, programs, seed, kind, parts.train, labels)
            ends[name, kind] = np.concatenate([np.ravel(a) for a in jax.tree.leaves(params)])
            log_probs = predict(graph, params, parts.test)
            row = scores(log_probs, parts.test["label"], settings.mistakes) | {"seconds a step": seconds}
            row["validation"] = scores(
                predict(graph, params, parts.validation), parts.validation["label"], settings.mistakes
            )
            found["trained"][f"{name}, {kind}"] = row
            if kind == "cross-entropy":
                found["predictions"][name] = np.exp(log_probs).round(5).tolist()
    found["apart after training"] = {
        name: float(np.max(np.abs(ends[name, "cross-entropy"] - ends[name, "KL"])))
        for name in ("hard", "shares of votes")
    }
    found["labels"] = parts.test["label"].tolist()
    return found


def chosen(rows: list[dict[str, Any]]) -> list[str]:
    """Return, for each seed, the smoothing with the best log-likelihood on that seed's validation rows."""
    names = ["hard, cross-entropy", *(f"smoothed by {amount:g}, cross-entropy" for amount in SMOOTHING)]
    return [max(names, key=lambda name: row["trained"][name]["validation"]["log-likelihood"]) for row in rows]


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Write the README's tables."""
    lines = ["| labels | cross-entropy | KL | entropy | CE − KL − entropy | gradients differ, relative |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, row in results["gradients"].items():
        numbers = [f"{row[key]['mean']:.4f}" for key in ("cross-entropy", "KL", "entropy of the labels")]
        worst = [max(map(abs, row[key]["values"])) for key in list(row)[3:]]
        lines.append(f"| {name} | {' | '.join(numbers)} | {worst[0]:.1e} | {worst[1]:.1e} |")
    first = "\n".join(lines)
    keys = ("accuracy", "log-likelihood", "Brier score", "calibration error", "KL to votes", "confidence")
    lines = [f"| labels, loss | {' | '.join(keys)} |", "| --- |" + " ---: |" * len(keys)]
    for name, row in results["held out"].items():
        cells = [f"{row[key]['mean']:.4f} ± {row[key]['standard_error'] or 0:.4f}" for key in keys]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return {"gradients": first, "held out": "\n".join(lines)}


def collect(rows: list[dict[str, Any]], settings: Settings) -> dict[str, Any]:
    """Put all seeds together: means and standard errors."""
    picks = chosen(rows)
    for row, pick in zip(rows, picks, strict=True):
        row["trained"]["smoothed, amount chosen, cross-entropy"] = row["trained"][pick]

    def over_seeds(dicts: list[dict[str, Any]]) -> dict[str, Any]:
        numbers = [k for k, v in dicts[0].items() if isinstance(v, float)]
        return {key: workbench.summary([d[key] for d in dicts]) for key in numbers}

    names = rows[0]["trained"]
    apart = rows[0]["apart after training"]
    return {
        "question": (__doc__ or "").splitlines()[0],
        "settings": dataclasses.asdict(settings),
        "machine": workbench.machine(),
        "gradients": {k: over_seeds([row["gradients"][k] for row in rows]) for k in rows[0]["gradients"]},
        "parameters apart after training": {
            k: workbench.summary([row["apart after training"][k] for row in rows]) for k in apart
        },
        "smoothing chosen": picks,
        "held out": {name: over_seeds([row["trained"][name] for row in rows]) for name in names},
    }


def distinct(settings: Settings) -> int:
    """Count the rows that are test rows of any seed."""
    total = sum(len(part["label"]) for part in workbench.digits())
    return len(set(np.concatenate([workbench.split(np.arange(total), seed=seed).test for seed in settings.seeds])))


def main() -> None:
    """Run all seeds that are not finished, then write results, tables and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="two seeds, two epochs, nothing kept")
    parser.add_argument("--folder", type=Path, default=HERE / "runs", help="finished seeds are kept here")
    options = parser.parse_args()
    settings = Settings(seeds=(0, 1), epochs=2) if options.smoke else Settings()
    with tempfile.TemporaryDirectory() as temporary:
        run = workbench.Run(Path(temporary) if options.smoke else options.folder, settings)
        programs, rows = Programs(settings), []
        for seed in settings.seeds:
            row = run.row(f"seed {seed}") or one_seed(settings, programs, seed)
            run.finish(f"seed {seed}", row)
            rows.append(row)
            print(f"seed {seed}: {row['trained']['hard, cross-entropy']['accuracy']:.4f} right", flush=True)
        results = collect(rows, settings)
        if options.smoke:
            draw(rows, distinct(settings), Path(temporary) / "classifier.png")
            tables(results)
            return
    workbench.write(HERE / "results.json", json.dumps(results, indent=1, ensure_ascii=False))
    for name, text in tables(results).items():
        workbench.update_readme(HERE / "README.md", name, text)
    draw(rows, distinct(settings), HERE / "classifier.png")


if __name__ == "__main__":
    main()
