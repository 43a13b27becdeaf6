"""Does a policy stay as near as it is told, and what does a KL from draws teach it?

PPO and TRPO on two mechanical systems with the KL of every update measured against its budget; then a character model
fine-tuned for a reward beside its frozen reference, with nine ways to differentiate KL(π‖ref): on texts so short that
the best policy is known exactly, and on longer ones with a KL budget held by an adaptive coefficient.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))

import workbench

workbench.require("equinox", "optax")

# ruff: noqa: E402, the extra is asked for before what needs it is imported
import control
import finetune
import jax
import jax.numpy as jnp
import language
import numpy as np
from figure import draw
from report import tables
from updates import Epochs

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides the numbers."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    target: float = 0.01  # nats an update, for the penalty and the trust region
    tasks: tuple[tuple[str, control.Task], ...] = control.TASKS
    epochs: Epochs = Epochs()  # noqa: RUF009, frozen
    every: int = 10  # updates from one checkpoint to the next
    reference: language.Reference = language.Reference()  # noqa: RUF009, frozen
    short: language.Short = language.Short()  # noqa: RUF009
    long: finetune.Long = finetune.Long()  # noqa: RUF009


EPOCHS = Epochs(num=1)
WAYS_OF_SMOKE = ("sequence, with tokens", "k3 of each character as a loss")
SMALL = {"num_updates": 1, "num_actors": 4, "num_steps": 64, "width": 8, "critic": EPOCHS}
SMOKE = Settings(
    seeds=(0, 1),
    tasks=tuple((name, dataclasses.replace(task, **SMALL)) for name, task in control.TASKS),
    epochs=EPOCHS,
    every=1,
    reference=language.Reference(width=8, num_steps=5),
    short=language.Short(length=2, num_steps=4, num_draws=8, every=2, ways=WAYS_OF_SMOKE),
    long=finetune.Long(prompt=3, length=4, num_steps=3, num_draws=8, num_judged=8, ways=WAYS_OF_SMOKE[:1]),
)
# Few programs: a method with a budget for each task.
SMOKE_METHODS = {"cart-pole": ("PPO, adaptive penalty",), "pendulum": ("TRPO",)}


def train_control(run: workbench.Run, settings: Settings) -> dict[str, Any]:
    """Train every method on every task with every seed."""
    found: dict[str, Any] = {}
    methods = control.methods(settings.target, settings.epochs)
    for task_name, task in settings.tasks:
        for name in SMOKE_METHODS[task_name] if settings == SMOKE else methods:
            rows = []
            for seed in settings.seeds:
                rows.append(
                    control.run_one(run, f"{task_name} {name} {seed}", task, methods[name], seed, settings.every)
                )
                print(task_name, name, seed, round(rows[-1]["return"], 1), flush=True)
            timed = [row["seconds an update"] for row in rows if row["seconds an update"] is not None]
            found.setdefault(task_name, {})[name] = {
                "return": workbench.summary([row["return"] for row in rows]),
                "seconds an update": float(np.median(timed)) if timed else None,
                "environment steps": task.num_updates * task.num_actors * task.num_steps,
                **{column: [row[column] for row in rows] for column in ("curve", "kl", "coefficient")},
            }
    return found


def the_reference(run: workbench.Run, settings: Settings) -> tuple[Any, float]:
    """Train the reference, or take it from the run."""
    like = language.untrained(settings.reference), jnp.zeros(())
    if (found := run.restore("reference", like)) is None:
        found = language.train_reference(settings.reference)
        run.save("reference", found)
    return found[0], float(found[1])


def train_short(run: workbench.Run, settings: Settings, reference: Any) -> dict[str, Any]:
    """Fine-tune on short texts in every way, and compare with the best policy."""
    s = settings.short
    log_reference = jax.jit(language.every_log_prob, static_argnums=1)(reference, s.length)
    rewards = language.reward(language.every_text(s.length))
    best = language.kl.regularized_policy(log_reference, rewards, s.coefficient)
    found: dict[str, Any] = {
        "reward of the reference": float(jnp.sum(jnp.exp(log_reference) * rewards)),
        "best": {
            "value": float(language.kl.regularized_value(log_reference, rewards, s.coefficient)),
            "reward": float(jnp.sum(jnp.exp(best) * rewards)),
            "kl": float(language.kl.categorical(best, log_reference)),
        },
        "frontier": rounded(language.frontier(log_reference, s.length, np.geomspace(0.05, 20, 60))),
        "ways": {},
    }
    keys = jax.vmap(jax.random.key)(jnp.asarray(settings.seeds))
    for way in (language.EXACT, *s.ways):
        if (row := run.row(f"short {way}")) is None:
            began, exact = time.process_time(), way == language.EXACT
            index = 0 if exact else s.ways.index(way)
            models, curves = jax.block_until_ready(
                language.tune(keys[: 1 if exact else None], reference, index, s.rate, exact=exact, settings=s)
            )
            row = {name: workbench.summary(np.asarray(curve)[:, -1]) for name, curve in curves.items()}
            row |= {"curve": rounded(curves["kl to the best"]), "seconds in all": time.process_time() - began}
            if exact:
                one = jax.tree.map(lambda leaf: leaf[0], models)
                row["expected gradients"] = language.expected_gradients(one, reference, s.length, s.ways)
            run.finish(f"short {way}", row)
        print("short", way, {name: round(row[name]["mean"], 4) for name in ("reward", "kl", "value")}, flush=True)
        found["ways"][way] = row
    found["expected gradients"] = found["ways"][language.EXACT].pop("expected gradients")
    return found


def train_long(run: workbench.Run, settings: Settings, reference: Any) -> dict[str, Any]:
    """Fine-tune on continuations with a KL budget."""
    text = language.character_model.load_text()
    keys = jax.vmap(jax.random.key)(jnp.asarray(settings.seeds))
    judge_key = jax.random.key(77)
    found: dict[str, Any] = {"ways": {}}
    for way in settings.long.ways:
        if (row := run.row(f"long {way}")) is None:
            began = time.process_time()
            models, records = finetune.tune(
                keys, reference, jnp.asarray(text.train), settings.long.ways.index(way), settings=settings.long
            )
            judged = finetune.judge(models, reference, judge_key, jnp.asarray(text.test), settings=settings.long)
            row = {name: workbench.summary(np.asarray(judged[name])) for name in ("reward", "kl")}
            row |= {
                name: rounded(r) for name, r in zip(("reward curve", "kl curve", "coefficient"), records, strict=True)
            }
            row |= {"texts": finetune.texts(judged), "seconds in all": time.process_time() - began}
            run.finish(f"long {way}", row)
        print("long", way, {name: round(row[name]["mean"], 3) for name in ("reward", "kl")}, flush=True)
        found["ways"][way] = row
    same = jax.tree.map(lambda leaf: leaf[None], reference)
    judged = finetune.judge(same, reference, judge_key, jnp.asarray(text.test), settings=settings.long)
    found["reference"] = {"reward": float(judged["reward"][0]), "texts": finetune.texts(judged)}
    return found


def rounded(values: Any) -> Any:
    """Make lists of four digits of arrays."""
    return jax.tree.map(lambda leaf: np.vectorize(lambda v: float(f"{v:.4g}"))(np.asarray(leaf)).tolist(), values)


def main() -> None:
    """Run all, or go on; write results.json, the README's tables and the figures beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny versions of everything, nothing kept")
    parser.add_argument("--part", choices=("short", "long", "control"), help="train this alone, and write no results")
    parser.add_argument("--folder", type=Path, default=HERE / "runs", help="where the run is kept, to go on with it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        settings = SMOKE if arguments.smoke else Settings()
        run = workbench.Run(Path(scratch) if arguments.smoke else arguments.folder, settings)
        reference, cross_entropy = the_reference(run, settings)
        parts = {
            "short": lambda: train_short(run, settings, reference),
            "long": lambda: train_long(run, settings, reference),
            "control": lambda: train_control(run, settings),
        }
        if arguments.part:
            parts[arguments.part]()
            return
        results: dict[str, Any] = {
            "question": __doc__.splitlines()[0],
            "settings": dataclasses.asdict(settings),
            "machine": workbench.machine(),
            "reference": {"cross-entropy on validation text, nats a character": cross_entropy},
        } | {name: part() for name, part in parts.items()}
        there = Path(scratch) if arguments.smoke else HERE
        text = json.dumps(results, indent=1, ensure_ascii=False)
        text = re.sub(r"\[[^][{}]*\]", lambda found: re.sub(r"\s+", " ", found[0]), text)  # a list of numbers a line
        workbench.write(there / "results.json", text)
        draw(results, there)
        for name, text in tables(results).items():
            if not arguments.smoke:
                workbench.update_readme(HERE / "README.md", name, text)


if __name__ == "__main__":
    main()
