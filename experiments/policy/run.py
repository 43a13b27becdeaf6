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
from collections.abc import Callable
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
class Text:
    """What the parts with texts depend on."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    reference: language.Reference = language.Reference()  # noqa: RUF009, frozen
    short: language.Short = language.Short()  # noqa: RUF009
    long: finetune.Long = finetune.Long()  # noqa: RUF009


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides the numbers."""

    control: control.Settings = control.Settings()  # noqa: RUF009, frozen
    text: Text = Text()


EPOCHS = Epochs(num=1)
WAYS_OF_SMOKE = ("sequence, with tokens", "k3 of each character as a loss")
SMALL = {"num_updates": 1, "num_actors": 4, "num_steps": 64, "width": 8, "critic": EPOCHS}
SMOKE = Settings(
    control.Settings(
        seeds=(0, 1),
        rates=(1e-3,),
        tasks=tuple((name, dataclasses.replace(task, **SMALL)) for name, task in control.TASKS),
        epochs=EPOCHS,
        every=1,
    ),
    Text(
        seeds=(0, 1),
        reference=language.Reference(width=8, num_steps=5),
        short=language.Short(length=2, num_steps=4, num_draws=8, every=2, ways=WAYS_OF_SMOKE),
        long=finetune.Long(prompt=3, length=4, num_steps=3, num_draws=8, num_judged=8, ways=WAYS_OF_SMOKE[:1]),
    ),
)
# Few programs: a method with a budget for each task.
SMOKE_METHODS = {"cart-pole": (control.HELD,), "pendulum": ("TRPO",)}


def the_reference(run: workbench.Run, settings: Text) -> tuple[Any, float]:
    """Train the reference, or take it from the run."""
    like = language.untrained(settings.reference), jnp.zeros(())
    if (found := run.restore("reference", like)) is None:
        found = language.train_reference(settings.reference)
        run.save("reference", found)
    return found[0], float(found[1])


def train_short(run: workbench.Run, settings: Text, reference: Any) -> dict[str, Any]:
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


def train_long(run: workbench.Run, settings: Text, reference: Any) -> dict[str, Any]:
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
    if arguments.smoke:
        jax.config.update("jax_disable_most_optimizations", True)  # compiling is most of it
    with tempfile.TemporaryDirectory() as scratch:
        settings = SMOKE if arguments.smoke else Settings()
        folder = Path(scratch) if arguments.smoke else arguments.folder
        methods = SMOKE_METHODS if arguments.smoke else None

        def with_control() -> Any:
            return control.train_all(workbench.Run(folder / "control", settings.control), settings.control, methods)

        def with_text(part: Callable[..., Any]) -> Any:
            run = workbench.Run(folder / "text", settings.text)
            return part(run, settings.text, the_reference(run, settings.text)[0])

        # Control and texts are runs of their own, so that other settings of one leave the other as it is.
        parts = {
            "short": lambda: with_text(train_short),
            "long": lambda: with_text(train_long),
            "control": with_control,
        }
        if arguments.part:
            parts[arguments.part]()
            return
        found = {name: part() for name, part in parts.items()}
        _, cross_entropy = the_reference(workbench.Run(folder / "text", settings.text), settings.text)
        results: dict[str, Any] = {
            "question": __doc__.splitlines()[0],
            "settings": dataclasses.asdict(settings),
            "machine": workbench.machine(),
            "reference": {"cross-entropy on validation text, nats a character": cross_entropy},
        } | found
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
