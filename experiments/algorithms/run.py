"""How many evaluations does each algorithm need on Gaussian targets? KL(q‖p) ≤ 0.001 from the kit's own start.

Full-rank q from N(0, I); p a randomly rotated Gaussian with variances from 1 to the condition number and a standard
normal mean; float32; KL in closed form, in double precision. One evaluation is log p with its gradient at one point.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from figure import draw
from table import write

import vi_kit as vk

HERE = Path(__file__).parent
BAR = 1e-3
LENGTHS = tuple(250 * 2**k for k in range(11))  # to 256,000 steps
PIECE = 25  # steps of one rate
Row = dict[str, Any]


class Problem(NamedTuple):
    """A Gaussian target with its answer."""

    dim: int
    condition: float
    target: Any
    mean: np.ndarray
    covariance: np.ndarray

    def kl(self, family: Any, params: Any) -> float:
        """KL(q‖p), in nats."""
        q = family.dist(params)
        own, shift = np.asarray(q.covariance(), np.float64), np.asarray(q.mean(), np.float64) - self.mean
        precision = np.linalg.inv(self.covariance)
        logs = np.linalg.slogdet(self.covariance)[1] - np.linalg.slogdet(own)[1]
        return float(0.5 * (np.trace(precision @ own) - self.dim + logs + shift @ precision @ shift))


def log_density(x: jax.Array, data: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Return the log density up to a constant, of the whitened residual so that float32 keeps its sign."""
    mean, root = data
    return -0.5 * jnp.sum(jnp.square(root @ (x - mean)))


def make_problem(dim: int, condition: float) -> Problem:
    """Rotate variances from 1 to the condition number."""
    rng = np.random.default_rng(dim)
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    variances, mean = np.geomspace(1, condition, dim), rng.normal(size=dim)
    data = (jnp.asarray(mean), jnp.asarray((rotation / np.sqrt(variances)).T))
    return Problem(dim, condition, vk.make_target(log_density, dim, data=data), mean, rotation * variances @ rotation.T)


class Entry(NamedTuple):
    """An algorithm for a dimension, in chunks of so many steps, up to so many evaluations; the bar it has to reach."""

    make: Callable[[vk.families.FullRank], Any]
    stride: int = 1
    most: int = 200_000
    bar: float = BAR


ENTRIES: dict[str, Entry] = {
    "natural gradient": Entry(vk.algorithms.NaturalGradient),
    "fixed draws": Entry(lambda family: vk.algorithms.FixedDraws(family, 2 * family.dim)),
    "batch and match": Entry(lambda family: vk.algorithms.BatchAndMatch(family, max(8, 2 * family.dim))),
    "score matching": Entry(vk.algorithms.GaussianScoreMatching, 20, 100_000),
    "Laplace": Entry(vk.algorithms.Laplace),
    "Pathfinder": Entry(
        lambda family: vk.algorithms.Pathfinder(family, memory_size=max(10, 3 * family.dim)), 1, 5_000, bar=0.1
    ),
    "score climbing": Entry(
        lambda family: vk.algorithms.ScoreClimbing(family, optax.adam, 0.02, num_samples=32), 250, 1_000_000, bar=0.1
    ),
}


def descend(problem: Problem, name: str, entry: Entry, largest: int | None) -> Row:
    """Run one algorithm in chunks until the bar is reached; the time is that of the chunks, without compilation."""
    algorithm = entry.make(vk.families.FullRank(problem.dim))
    start = algorithm.family.init(jax.random.key(0))
    each = algorithm.evaluations(problem.target)

    def chunk(state: Any) -> Any:
        return jax.block_until_ready(
            vk.optimize(jax.random.key(1), problem.target, algorithm, start, num_steps=entry.stride, state=state)
        )

    chunk(chunk(None).state)  # compiles
    state, steps, seconds, kls = None, 0, 0.0, [problem.kl(algorithm.family, start)]
    while steps * each < min(entry.most, largest or entry.most):
        began = time.perf_counter()
        fit = chunk(state)
        seconds += time.perf_counter() - began
        state, steps = fit.state, steps + entry.stride
        kls.append(problem.kl(algorithm.family, fit.params))
        if kls[-1] <= entry.bar:
            break
    return {
        "algorithm": name,
        "dim": problem.dim,
        "condition": problem.condition,
        "bar": entry.bar,
        "reached": bool(kls[-1] <= entry.bar),
        "evaluations": steps * each,
        "seconds": seconds,
        "KL": kls[-1],
        "evaluations a step": each,
        "every": entry.stride,
    }


def adam(problem: Problem, largest: int | None) -> Row:
    """Gradient descent, sticking the landing: the shortest cosine schedule that reaches the bar."""
    family = vk.families.FullRank(problem.dim)
    algorithm = vk.algorithms.GradientDescent(vk.objectives.ReverseKL(family, num_samples=8), optax.adam)
    start, each = family.init(jax.random.key(0)), algorithm.evaluations(problem.target)

    def chunk(state: Any, rate: float) -> Any:  # the rate is in the state, so all schedules are one program
        inner = state.algorithm_state._replace(learning_rate=jnp.asarray(rate, jnp.float32))
        state = state._replace(algorithm_state=inner)
        return vk.optimize(jax.random.key(1), problem.target, algorithm, start, num_steps=PIECE, state=state)

    first = vk.optimize(jax.random.key(1), problem.target, algorithm, start, num_steps=0).state
    jax.block_until_ready(chunk(first, 0.1))  # compiles
    rate = 0.1 / math.sqrt(problem.dim)  # Adam moves all entries of a row of the factor at once
    row: Row = {}
    for steps in LENGTHS:
        if largest and row and steps * each > largest:
            break
        state, began = first, time.perf_counter()
        for done in range(0, steps, PIECE):
            fit = chunk(state, rate * 0.5 * (1 + math.cos(math.pi * done / steps)))
            state = fit.state
        jax.block_until_ready(fit)
        seconds, kl = time.perf_counter() - began, problem.kl(family, fit.params)
        row = {
            "algorithm": "gradient descent",
            "dim": problem.dim,
            "condition": problem.condition,
            "bar": BAR,
            "reached": bool(kl <= BAR),
            "evaluations": each * steps,
            "seconds": seconds,
            "KL": kl,
            "evaluations a step": each,
            "rate": rate,
        }
        if row["reached"]:
            break
    return row


def show(row: Row) -> None:
    """Print one line."""
    mark = "" if row["reached"] else "not reached, "
    print(
        f"d = {row['dim']:<4}condition {row['condition']:<8g}{row['algorithm']:<18}"
        f"{row['evaluations']:>8,} evaluations {row['seconds']:>8.2f} s   {mark}KL {row['KL']:.2g}",
        flush=True,
    )


def main() -> None:
    """Measure, print and write results.json, the figure and the README's tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="small problems and budgets, nothing written")
    parser.add_argument(
        "--only", nargs="+", choices=[*ENTRIES, "gradient descent"], help="renew the rows of some algorithms"
    )
    arguments = parser.parse_args()
    largest = 400 if arguments.smoke else None
    path = HERE / "results.json"
    kept = json.loads(path.read_text())["rows"] if arguments.only else []
    rows = [row for row in kept if row["algorithm"] not in arguments.only]
    for dim in (2,) if arguments.smoke else (2, 10, 100):
        for condition in (100.0,) if arguments.smoke else (1.0, 100.0, 10_000.0):
            problem = make_problem(dim, condition)
            for name, entry in ENTRIES.items():
                if arguments.only is None or name in arguments.only:
                    rows.append(descend(problem, name, entry, largest))
                    show(rows[-1])
            if arguments.only is None or "gradient descent" in arguments.only:
                rows.append(adam(problem, largest))
                show(rows[-1])
            if not arguments.smoke:
                save(rows)
        jax.clear_caches()
    if not arguments.smoke:
        measured = json.loads(path.read_text())["rows"]
        draw(measured, HERE / "evaluations.png")
        write(measured, HERE / "README.md")


def save(rows: list[Row]) -> None:
    """Write what is there so far."""
    results = {
        "question": (__doc__ or "").splitlines()[0],
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "device": jax.devices()[0].device_kind},
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "rows": [{k: rounded(v) for k, v in row.items()} for row in rows],
    }
    (HERE / "results.json").write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n")


def rounded(value: Any) -> Any:
    """Keep three digits."""
    if isinstance(value, list):
        return [rounded(x) for x in value]
    return float(f"{value:.3g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
