"""How fast should the steps of the first rung shorten, and when is it done? On the targets marked * alone."""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from problems import TUNED_ON, problems

import vi_kit as vk
from vi_kit import _gaussian_fit
from vi_kit._budget import Budget
from vi_kit._evaluator import Evaluator

HERE = Path(__file__).parent
SETTINGS = ((10.0, 15), (5.0, 15), (5.0, 30), (10.0, 30), (3.0, 20))  # decay, settled steps
SEEDS = range(6)
NUM_DRAWS = 4_096


def gap(evaluate: Any, fit: Any, best: float) -> float:
    """Return by how much the ELBO, over the same draws each time, is below that of the best Gaussian."""
    noise = np.random.default_rng(5).normal(size=(NUM_DRAWS, len(fit.mean)))
    log_q = -0.5 * np.sum(noise**2, axis=1) - np.sum(np.log(np.diagonal(fit.scale)))
    values, _ = evaluate(fit.place(noise))
    return float(best - np.mean(values - log_q + 0.5 * len(fit.mean) * math.log(2 * math.pi)))


def main() -> None:
    """Try every setting on every target, and write the gaps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posteriordb", type=Path, required=True, help="its folder")
    options = parser.parse_args()
    rows = []
    for problem in problems(options.posteriordb):
        if problem.floor is None or problem.name not in TUNED_ON:
            continue
        target, best = problem.make(), problem.reference().log_normalizer - problem.floor
        evaluate = Evaluator(target, Budget(time.perf_counter(), math.inf))
        for decay, settled in SETTINGS:
            _gaussian_fit._DECAY, _gaussian_fit._SETTLED = decay, settled
            gaps, gradients = [], []
            for seed in SEEDS:
                before = evaluate.budget.evaluations
                fit = _gaussian_fit.fit_gaussian(
                    evaluate,
                    np.zeros(target.dim),
                    0.1 * np.eye(target.dim),
                    np.random.default_rng(seed),
                    most_steps=120,
                )
                gradients.append(evaluate.budget.evaluations - before)
                assert fit is not None, "these targets are finite around the origin"
                gaps.append(gap(evaluate, fit, best))
            rows.append({
                "target": problem.name, "decay": decay, "settled": settled, "worst gap": max(gaps),
                "median gap": float(np.median(gaps)), "median gradients": float(np.median(gradients)),
            })  # fmt: skip
            print(rows[-1], flush=True)
    (HERE / "choice.json").write_text(json.dumps({"vi_kit": vk.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
