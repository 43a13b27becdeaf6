"""Which start and learning rate should `vk.fit` use when it is told nothing?

Full-rank reverse KL, sticking the landing, 16 draws, 5,000 steps of Adam with a cosine-decayed learning rate, on the
bundled real targets (the ones to choose on: answers on other targets are reported elsewhere). For every start scale
and peak learning rate: the gap of the ELBO to the best that any setting reached on that target, in nats.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from pathlib import Path
from typing import Any

import jax
import optax

import vi_kit as vk

TARGETS = ("eight_schools", "eight_schools_centered", "seeds", "breast_cancer", "diabetes", "nile", "doctor_visits")
SCALES = (1.0, 0.3, 0.1, 0.01)
LEARNING_RATES = (0.01, 0.02, 0.05, 0.1)


def one_fit(name: str, scale: float, rate: float, seed: int, num_steps: int) -> float:
    """Return the ELBO that a setting reaches."""
    target = vk.targets.load(name)
    objective = vk.objectives.ReverseKL(vk.families.FullRank(target.dim))
    schedule = optax.cosine_decay_schedule(rate, num_steps)
    algorithm = vk.algorithms.GradientDescent(objective, optax.adam, learning_rate=schedule)
    start = algorithm.family.init(jax.random.key(0), scale=scale)
    posterior = vk.fit(
        jax.random.key(seed), target, algorithm, num_steps=num_steps, start=start, progress=False, max_seconds=60.0
    )
    return float(posterior.report.elbo.value)


def main() -> None:
    """Run the grid, print a table and write results.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one small fit a setting, nothing written")
    smoke = parser.parse_args().smoke
    targets, seeds, num_steps = (("nile",), (0,), 20) if smoke else (TARGETS, (0, 1), 5_000)
    rates = LEARNING_RATES[:1] if smoke else LEARNING_RATES
    elbos: dict[str, dict[str, list[float]]] = {}
    for name in targets:
        for rate in rates:
            for scale in SCALES:
                values = [one_fit(name, scale, rate, seed, num_steps) for seed in seeds]
                elbos.setdefault(name, {})[f"scale {scale:g}, rate {rate:g}"] = values
                print(f"{name:24s} scale {scale:<5g} rate {rate:<5g} {values}", flush=True)
    best = {name: max(statistics.median(v) for v in row.values()) for name, row in elbos.items()}
    gaps = {
        setting: {name: best[name] - statistics.median(elbos[name][setting]) for name in targets}
        for setting in next(iter(elbos.values()))
    }
    ranking = sorted(gaps, key=lambda setting: (max(gaps[setting].values()), sum(gaps[setting].values())))
    for setting in ranking:
        print(f"{setting:24s} worst gap {max(gaps[setting].values()):10.3f} nats")
    results: dict[str, Any] = {
        "question": __doc__.splitlines()[0],
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "vi_kit": vk.__version__},
        "settings": {"steps": num_steps, "seeds": list(seeds), "family": "full rank", "draws": 16},
        "gap_to_best_nats": {setting: gaps[setting] for setting in ranking},
        "best_elbo": best,
    }
    if not smoke:
        Path(__file__).with_name("results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
