"""Every other family against its hand-written scan, and the low-rank family where it is large."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from by_hand import BLOCK, BY_HAND, COMPONENTS, LAYERS, RANK, WIDTH, scan_of

import vi_kit as vk

LARGE, LARGE_RANK = 100_000, 10


def library(family: str, dim: int, num_draws: int, rate: float) -> vk.algorithms.GradientDescent:
    """Return the family with the default estimator of reverse KL; freshly built, equal objects every time."""
    member: Any = {
        "mean_field": vk.families.MeanField,
        "low_rank": partial(vk.families.LowRank, rank=RANK),
        "block_diagonal": lambda dim: vk.families.BlockDiagonal(dim, [BLOCK] * (dim // BLOCK)),
        "student_t": vk.families.StudentT,
        "mixture": partial(vk.families.Mixture, num_components=COMPONENTS),
        "flow": partial(vk.families.Flow, num_layers=LAYERS, width=WIDTH),
    }[family](dim)
    objective = vk.objectives.ReverseKL(member, num_samples=num_draws)
    return vk.algorithms.GradientDescent(objective, optax.adam, learning_rate=rate)


def _seconds(function: Callable[[], Any]) -> tuple[float, float]:
    """Return seconds of wall time and of processors."""
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(function())
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(
    family: str, log_density: Any, data: Any, num_draws: int, rate: float, num_steps: int, repeats: int
) -> dict[str, Any]:
    """Alternate the two; return medians, and the median and quartiles of the ratios of neighbors."""
    dim = data["x"].shape[1]
    by_hand = scan_of(family, log_density, dim, num_draws, rate)
    target = vk.make_target(log_density, dim, data=data)
    start = library(family, dim, num_draws, rate).family.init(jax.random.key(0))
    runs: dict[str, Callable[[int], Any]] = {
        "handwritten": lambda seed: by_hand(jax.random.key(seed), data, num_steps),
        "optimize": lambda seed: vk.optimize(
            jax.random.key(seed), target, library(family, dim, num_draws, rate), start, num_steps=num_steps
        ),
    }
    losses = {
        "handwritten": float(jnp.mean(runs["handwritten"](0)[1][-num_steps // 4 :])),
        "optimize": float(jnp.mean(runs["optimize"](0).history.loss[-num_steps // 4 :])),
    }
    wall: dict[str, list[float]] = {name: [] for name in runs}
    processor: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(repeats):
        for name, run in runs.items():
            taken = _seconds(partial(run, i + 1))
            wall[name].append(taken[0])
            processor[name].append(taken[1])

    def ratios(seconds: dict[str, list[float]]) -> list[float]:
        found = [b / a for a, b in zip(seconds["handwritten"], seconds["optimize"], strict=True)]
        return found if len(found) < 2 else statistics.quantiles(found, n=4)

    return {
        "family": family,
        "estimator": repr(library(family, dim, num_draws, rate).objective._estimator()),
        "microseconds_of_processors_per_step": {
            k: 1e6 * statistics.median(v) / num_steps for k, v in processor.items()
        },
        "ratio_quartiles": ratios(processor),
        "wall_ratio_quartiles": ratios(wall),
        "last_losses": losses,
    }


def ar1_log_density(z: jax.Array) -> jax.Array:
    """Return the log density of an autoregression, up to a constant."""
    return -0.5 * (z[0] ** 2 + jnp.sum(jnp.square(z[1:] - 0.5 * z[:-1])) / 0.75)


def _peak() -> float | None:
    """Return the largest resident memory of this process in MiB, where Linux tells; `getrusage` counts the parent's."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM")), None)


def large(dims: tuple[int, ...], num_steps: int) -> list[dict[str, Any]]:
    """Return time and memory of steps of reverse KL with low-rank Gaussians, 16 draws a step."""
    rows = []
    for dim in dims:
        target = vk.make_target(ar1_log_density, dim)
        objective = vk.objectives.ReverseKL(vk.families.LowRank(dim, LARGE_RANK))
        algorithm = vk.algorithms.GradientDescent(objective, optax.adam, learning_rate=1e-2)
        start = algorithm.family.init(jax.random.key(0), scale=jnp.asarray(0.5))
        run = jax.jit(lambda key, target, start, a=algorithm: vk.optimize(key, target, a, start, num_steps=num_steps))
        compiled = run.lower(jax.random.key(0), target, start).compile()
        memory = compiled.memory_analysis()
        jax.block_until_ready(compiled(jax.random.key(1), target, start))
        wall, processor = _seconds(lambda c=compiled, t=target, s=start: c(jax.random.key(2), t, s))
        rows.append(
            {
                "dim": dim,
                "rank": LARGE_RANK,
                "draws": objective.num_samples,
                "seconds_per_step": wall / num_steps,
                "seconds_of_processors_per_step": processor / num_steps,
                "MiB_ahead_of_time": {
                    "arguments": memory.argument_size_in_bytes / 2**20,
                    "results": memory.output_size_in_bytes / 2**20,
                    "temporary": memory.temp_size_in_bytes / 2**20,
                },
                "MiB_peak_of_process": _peak(),
            }
        )
    return rows


def large_alone(dims: tuple[int, ...], num_steps: int) -> list[dict[str, Any]]:
    """Measure each size in a process of its own, so that peaks are its own."""
    rows = []
    for dim in dims:
        code = f"import json, families; print(json.dumps(families.large(({dim},), {num_steps})))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=os.path.dirname(os.path.abspath(__file__)),
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        rows += json.loads(done.stdout)
    return rows


def all_families(
    log_density: Any, data: Any, num_draws: int, rate: float, num_steps: int, repeats: int
) -> dict[str, Any]:
    """Measure every family in turn."""
    rows = []
    for family in BY_HAND:
        rows.append(measure(family, log_density, data, num_draws, rate, num_steps, repeats))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return {"steps": num_steps, "alternations": repeats, "rows": rows}


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return the README's tables by name."""
    rows = []
    for row in results["families"]["rows"]:
        low, middle, high = row["ratio_quartiles"]
        micro = row["microseconds_of_processors_per_step"]
        times = [f"{micro[name]:.0f}" for name in ("handwritten", "optimize")]
        rows.append([f"{row['family']}, {row['estimator']}", *times, f"**{middle:.2f}**", f"{low:.2f} to {high:.2f}"])
    header = ["family and estimator", "by hand, µs a step", "`vk.optimize`, µs", "ratio", "its quartiles"]
    found = {"families": _table(header, rows)}
    rows = [
        [
            f"{row['dim']:,}",
            f"{1e3 * row['seconds_of_processors_per_step']:.0f}",
            f"{row['MiB_ahead_of_time']['arguments']:.1f}",
            f"{row['MiB_ahead_of_time']['temporary']:.1f}",
            f"{row['MiB_peak_of_process'] or float('nan'):.0f}",
        ]
        for row in results["low_rank_large"]["rows"]
    ]
    header = ["d", "ms a step", "arguments, MiB", "temporary, MiB", "peak of the process, MiB"]
    return found | {"large": _table(header, rows)}
