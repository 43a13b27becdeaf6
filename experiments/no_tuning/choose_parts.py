"""How many parts, draws and rounds should a mixture for one mode have? On the targets marked * and small ones here."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from problems import TUNED_ON, problems

import vi_kit as vk
from vi_kit._budget import Budget
from vi_kit._evaluator import Evaluator
from vi_kit._gaussian_fit import fit_gaussian
from vi_kit._mixture_fit import PARTS, Adaptation, fit_mixture, of_modes, parted
from vi_kit._weights import effective_sample_size, pareto_smooth

HERE = Path(__file__).parent
LARGEST = 32  # coordinates
SEEDS = range(3)
NUM_DRAWS = 4_096
# parts, and how they are adapted
SETTINGS = {
    "4 parts": (4, PARTS),
    "8 parts": (8, PARTS),
    "16 parts": (16, PARTS),
    "half the draws": (8, Adaptation(8, 2_000, 10, least_worth=0.1)),
    "twice the draws": (8, Adaptation(8, 8_000, 10, least_worth=0.1)),
    "half the iterations": (8, Adaptation(8, 4_000, 5, least_worth=0.1)),
    "the last round alone": (8, Adaptation(8, 4_000, 10, last=1, least_worth=0.1)),
}


def small() -> dict[str, Callable[[], Any]]:
    """Return skewed, heavy-tailed and bent posteriors of one to three coordinates."""
    return {
        "log rate, none counted": lambda: vk.make_target(lambda x: x[0] - jnp.exp(x[0]), 1),
        "log rate, three counted": lambda: vk.make_target(lambda x: 4 * x[0] - jnp.exp(x[0]), 1),
        "logit, none of five": lambda: vk.make_target(lambda x: -x[0] - 7 * jnp.log1p(jnp.exp(-x[0])), 1),
        "four Cauchy": lambda: vk.make_target(
            lambda x: -jnp.sum(jnp.log1p((jnp.array([-3.0, 0.0, 1.0, 1.5]) - x[0]) ** 2)), 1
        ),
        "three log rates": lambda: vk.make_target(lambda x: jnp.sum(2 * x - jnp.exp(x)), 3),
        "four of a normal": lambda: vk.make_target(
            lambda x: jnp.sum(norm.logpdf(jnp.array([0.9, 2.1, 2.6, 4.8]), x[0], jnp.exp(x[1]))) - jnp.exp(x[1]) / 5, 2
        ),
    }


def main() -> None:
    """Try every setting on every target, and write what the weights of the mixtures are worth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posteriordb", type=Path, required=True, help="its folder")
    options = parser.parse_args()
    makes = {p.name: p.make for p in problems(options.posteriordb) if p.name in TUNED_ON} | small()
    rows = []
    for name, make in makes.items():
        target = make()
        if target.dim > LARGEST:
            continue
        evaluate = Evaluator(target, Budget(time.perf_counter(), math.inf))
        for setting, (num_parts, adaptation) in SETTINGS.items():
            worth, khats, spent, seconds = [], [], [], []
            for seed in SEEDS:
                generator = np.random.default_rng(seed)
                first = fit_gaussian(
                    evaluate, np.zeros(target.dim), 0.1 * np.eye(target.dim), generator, most_steps=120
                )
                assert first is not None, "these targets are finite around the origin"
                before, began = evaluate.budget.evaluations, time.perf_counter()
                start = parted(of_modes([first]), generator, num_parts)
                found = fit_mixture(evaluate, start, generator, adaptation)
                seconds.append(time.perf_counter() - began)
                spent.append(evaluate.budget.evaluations - before)
                if found is None:
                    worth.append(0.0)
                    khats.append(math.inf)
                    continue
                points = found.draw(generator, NUM_DRAWS)
                values, _ = evaluate(points)
                log_weights = values - np.logaddexp.reduce(found.log_densities(points), axis=1)
                log_weights = np.where(np.isfinite(log_weights), log_weights, -np.inf)
                worth.append(float(effective_sample_size(log_weights)) / NUM_DRAWS)
                khats.append(float(pareto_smooth(log_weights).khat))
            rows.append({
                "target": name, "dim": target.dim, "setting": setting, "worth": float(np.median(worth)),
                "least worth": min(worth), "khat": float(np.median(khats)), "evaluations": float(np.median(spent)),
                "seconds": float(np.median(seconds)),
            })  # fmt: skip
            print(rows[-1], flush=True)
    for row in rows:  # JSON has no infinity
        row["khat"] = row["khat"] if math.isfinite(row["khat"]) else None
    (HERE / "parts.json").write_text(json.dumps({"vi_kit": vk.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
