"""What do importance weights, KL schedules, free bits and a flow prior buy a variational autoencoder?

An MLP with a Bernoulli likelihood on binarized digits, trained ten times each way, judged by the importance-weighted
bound of held-out images. `--data mnist.npz --network burda` does the same on a local file.
"""

# ruff: noqa: E402, the folder above and the extra come before what needs them

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))
import workbench

workbench.require("flax", "sklearn")

import figure
import images as pictures
import jax
import linear
import losses
import numpy as np
import report
import speed
from judge import judge, paired
from model import VAE, FlowPriorVAE
from train import train

from vi_kit import kl

HERE = Path(__file__).parent
FREE_NATS = 0.25
SMOKE = ["vae", "free-bits", "flow-prior", "plane", "iwae", "iwae-dreg"]  # every loss and every model
NETWORKS: dict[str, dict[str, Any]] = {
    "digits": {"hidden": (64,), "latents": 16, "batch": 100, "rates": (1e-2, 2e-2, 4e-2, 8e-2)},
    "burda": {"hidden": (200, 200), "latents": 50, "batch": 20, "rates": (1e-3,)},
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run's numbers depend on; a folder holds one of these."""

    data: str
    hidden: tuple[int, ...]
    latents: int
    batch: int
    rates: tuple[float, ...]
    epochs: int
    seeds: tuple[int, ...] = tuple(range(10))
    choice_seeds: tuple[int, ...] = (100,)
    draws: int = 50
    test_draws: int = 500
    linear_steps: int = 3_000
    repeats: int = 31


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to train: a loss of (number of steps), the model, and whose rate it takes."""

    title: str
    loss: Callable[[int], losses.Loss]
    model: type[VAE] = VAE
    latents: int | None = None
    rate: str = "k = 1"


def arms(draws: int) -> dict[str, Arm]:
    """Return what is compared; schedules take half of the steps."""
    many = f"k = {draws}"
    return {
        "vae": Arm("k = 1", lambda steps: losses.closed_form()),
        "iwae-5": Arm("k = 5", lambda steps: losses.importance_weighted(5)),
        "iwae": Arm(many, lambda steps: losses.importance_weighted(draws), rate=many),
        "iwae-dreg": Arm(
            f"{many}, doubly reparameterized", lambda steps: losses.doubly_reparameterized(draws), rate=many
        ),
        "vae-drawn": Arm("k = 1, KL by draws", lambda steps: losses.importance_weighted(1)),
        "linear": Arm("k = 1, linear warm-up", lambda steps: losses.closed_form(kl.schedules.linear(steps // 2))),
        "cyclical": Arm("k = 1, cyclical", lambda steps: losses.closed_form(kl.schedules.cyclical(steps // 2))),
        "free-bits": Arm(f"k = 1, {FREE_NATS} nats a latent free", lambda steps: losses.free_bits(FREE_NATS)),
        "beta-4": Arm("k = 1, KL weighted by 4", lambda steps: losses.closed_form(lambda step: 4.0)),
        "flow-prior": Arm(
            "k = 1, flow prior", lambda steps: losses.importance_weighted(1), FlowPriorVAE, rate="flow prior"
        ),
        "plane": Arm("k = 1, 2 latents", lambda steps: losses.closed_form(), latents=2),
    }


def fit(
    run: workbench.Run,
    name: str,
    arm: Arm,
    settings: Settings,
    images: pictures.Images,
    seeds: tuple[int, ...],
    rates: tuple[float, ...],
) -> dict[str, Any]:
    """Train an arm, or go on with it."""
    sizes = images.train.shape[1], settings.hidden, arm.latents or settings.latents
    num_steps = settings.epochs * (len(images.train) // settings.batch)
    return train(
        run,
        name,
        lambda rngs: arm.model(*sizes, rngs),
        arm.loss(num_steps),
        images,
        seeds=seeds,
        rates=rates,
        epochs=settings.epochs,
        batch=settings.batch,
    )


def choose(run: workbench.Run, settings: Settings, images: pictures.Images) -> dict[str, Any]:
    """Choose rates for k = 1, many draws and a flow, by validation bounds of seeds that are not reported."""
    names = {"k = 1": "vae", f"k = {settings.draws}": "iwae", "flow prior": "flow-prior"}
    if len(settings.rates) == 1:
        return {"rates": dict.fromkeys(names, settings.rates[0])}
    if found := run.row("choice"):
        return found
    seeds = tuple(seed for _ in settings.rates for seed in settings.choice_seeds)
    rates = tuple(rate for rate in settings.rates for _ in settings.choice_seeds)
    found = {"rates": {}, "validation bounds": {}}
    for name, arm in names.items():
        fitted = fit(run, f"choice-{arm}", arms(settings.draws)[arm], settings, images, seeds, rates)
        bounds = fitted["history"].max(axis=0).reshape(len(settings.rates), -1).mean(axis=1)
        ended = {rate: float(bound) for rate, bound in zip(settings.rates, bounds, strict=True) if np.isfinite(bound)}
        if not ended:
            workbench.stop(f"{name}: training was not finite at any rate of {settings.rates}")
        found["rates"][name] = max(ended, key=ended.__getitem__)
        found["validation bounds"][name] = {str(rate): ended.get(rate, "not finite") for rate in settings.rates}
    run.finish("choice", found)
    return found


def compute(
    run: workbench.Run, settings: Settings, images: pictures.Images, names: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the results and the trained models, going on with what the folder holds."""
    choice = choose(run, settings, images)
    rows, models = {}, {}
    for name in names:
        arm = arms(settings.draws)[name]
        rates = (choice["rates"][arm.rate],) * len(settings.seeds)
        models[name] = fit(run, name, arm, settings, images, settings.seeds, rates)
        row = run.row(f"{name}-row")
        if row is None:
            row = {"title": arm.title, "rate": rates[0], **judge(models[name], images, settings.test_draws)}
            run.finish(f"{name}-row", row)
            print(f"{arm.title}: test bound {row['bound']['mean']:.3f}", flush=True)
        rows[name] = row
    results: dict[str, Any] = {
        "question": __doc__.splitlines()[0],
        "machine": workbench.machine(),
        "settings": dataclasses.asdict(settings),
        "images": {name: len(getattr(images, name)) for name in ("train", "validation", "test")},
        "choice": choice,
        "arms": rows,
        "above k = 1": {name: paired(rows[name], rows["vae"]) for name in rows if "vae" in rows and name != "vae"},
        "exact": _kept(run, "exact", lambda: linear.check(pictures.digits().train, 8, settings.linear_steps)),
        "speed": _kept(run, "speed", lambda: {"rows": speed.measure(settings.repeats, settings.draws)})["rows"],
    }
    return results, models


def _kept(run: workbench.Run, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    found = run.row(name)
    if found is None:
        found = work()
        run.finish(name, found)
    return found


def main() -> None:
    """Run all; write results.json, the README's tables and the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny versions of everything, nothing written")
    parser.add_argument("--folder", type=Path, help="where the run is kept and goes on from (default: runs/ here)")
    parser.add_argument("--data", type=Path, help="an npz file with x_train and x_test, or train, valid and test")
    parser.add_argument("--network", choices=NETWORKS, default="digits", help="burda: 784-200-200-50, batches of 20")
    parser.add_argument("--epochs", type=int, default=100, help="rounded up to tens")
    parser.add_argument("--num-seeds", type=int, default=10, help="models a way to train")
    parser.add_argument("--arms", nargs="+", choices=arms(50), default=list(arms(50)), help="which ways to train")
    given = parser.parse_args()
    if given.epochs < 1 or given.num_seeds < 1:
        workbench.stop("--epochs and --num-seeds: expected whole numbers above 0")
    images = pictures.from_file(given.data) if given.data else pictures.digits()
    batch = NETWORKS[given.network]["batch"]
    if len(images.train) < batch:
        name = given.data or "digits"
        workbench.stop(f"{name}: expected at least {batch} images to train on, a batch, got {len(images.train)}")
    settings = Settings(
        data=f"{given.data.name}-{pictures.digest(images)}" if given.data else "digits",
        epochs=given.epochs,
        seeds=tuple(range(given.num_seeds)),
        **NETWORKS[given.network],
    )
    if given.smoke:
        with tempfile.TemporaryDirectory() as folder:
            smoke(Path(folder), settings, images)
        return
    folder = given.folder or HERE / "runs" / f"{settings.data}-{given.network}"
    run = workbench.Run(folder, settings)
    names = [name for name in arms(50) if name in given.arms or run.row(f"{name}-row")]  # earlier calls' rows stay
    results, models = compute(run, settings, images, names)
    ours = settings == Settings(data="digits", epochs=100, **NETWORKS["digits"]) and given.arms == list(arms(50))
    write(HERE if ours else folder, results, models, images)
    if ours:
        report.update(HERE / "README.md", results)


def write(folder: Path, results: dict[str, Any], models: dict[str, Any], images: pictures.Images) -> None:
    """Write results.json and the figures."""
    workbench.write(folder / "results.json", workbench.json.dumps(results, indent=1, ensure_ascii=False))
    figure.bounds(results, folder / "bounds.png")
    figure.images(results, models, images, folder / "images.png")
    if "plane" in models:
        figure.plane(models["plane"], images, folder / "plane.png")


def smoke(folder: Path, settings: Settings, images: pictures.Images) -> None:
    """Do all of it with few images, small networks and few steps."""
    few = images._replace(
        train=images.train[:40],
        validation=images.validation[:10],
        test=images.test[:10],
        test_labels=None if images.test_labels is None else images.test_labels[:10],
    )
    small = dataclasses.replace(
        settings,
        hidden=(8,),
        latents=2,  # as many as the plane has: one program for both
        batch=20,
        epochs=10,
        seeds=(0, 1),
        rates=(1e-3, 1e-2),
        draws=4,
        test_draws=50,  # as in validation
        linear_steps=50,
        repeats=2,
    )
    jax.config.update("jax_disable_most_optimizations", True)  # compiling is most of it
    results, models = compute(workbench.Run(folder, small), small, few, SMOKE)
    write(folder, results, models, few)
    for name in ("arms", "exact", "speed"):
        print(report.tables(results)[name])


if __name__ == "__main__":
    main()
