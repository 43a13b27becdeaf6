"""What does a step cost? `vk.optimize` and `vk.fit` against a hand-written jit(scan) of the same mathematics.

Bayesian logistic regression (n = 1000, d = 25), 10 draws a step, 5000 steps of Adam, float32, all in one process,
runs alternated, medians reported as ratios. Also: what a second fit with freshly built, equal objects costs and
compiles; the other families, each beside a scan of its own; and a low-rank Gaussian of 100,000 dimensions.
"""

# ruff: noqa: E402, the folder above comes before what is in it

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from families import all_families, large_alone, tables

import vi_kit as vk

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
import workbench

NUM_ROWS, DIM, NUM_DRAWS, LEARNING_RATE = 1_000, 25, 10, 1e-2
_COMPILES = [0]


def _count_compiles(event: str, _: float, **__: Any) -> None:
    _COMPILES[0] += event == "/jax/core/compile/backend_compile_duration"


def make_data(seed: int) -> dict[str, jax.Array]:
    """Simulate covariates and labels."""
    x_key, w_key, y_key = jax.random.split(jax.random.key(seed), 3)
    covariates = jax.random.normal(x_key, (NUM_ROWS, DIM))
    weights = jax.random.normal(w_key, (DIM,))
    labels = jax.random.bernoulli(y_key, jax.nn.sigmoid(covariates @ weights)).astype(jnp.float32)
    return {"x": covariates, "y": labels}


def log_density(w: jax.Array, data: dict[str, jax.Array]) -> jax.Array:
    """Bernoulli likelihood with logits x·w, and a standard normal prior (both without constants)."""
    logits = data["x"] @ w
    return jnp.sum(data["y"] * logits - jax.nn.softplus(logits)) - 0.5 * jnp.sum(w * w)


def handwritten(family: str, estimator: str, num_steps: int) -> Callable[..., Any]:
    """One jitted scan, as a careful user would write it: draws in one array, no library but optax."""
    optimizer = optax.adam(LEARNING_RATE)
    rows, columns = jnp.tril_indices(DIM, -1)

    def factor(params: dict[str, jax.Array]) -> jax.Array:
        unit = jnp.eye(DIM).at[rows, columns].set(params["coupling"])
        return jnp.exp(params["log_scale"])[:, None] * unit

    def draw(params: dict[str, jax.Array], noise: jax.Array) -> jax.Array:
        if family == "mean_field":
            return params["mean"] + jnp.exp(params["log_scale"]) * noise
        return params["mean"] + noise @ factor(params).T

    def log_q(params: dict[str, jax.Array], z: jax.Array) -> jax.Array:
        centered = z - params["mean"]
        if family == "mean_field":
            noise = centered * jnp.exp(-params["log_scale"])
        else:
            noise = jax.scipy.linalg.solve_triangular(factor(params), centered.T, lower=True).T
        return -0.5 * jnp.sum(noise * noise, axis=1) - jnp.sum(params["log_scale"])

    def loss(params: dict[str, jax.Array], noise: jax.Array, data: dict[str, jax.Array]) -> jax.Array:
        z = draw(params, noise)
        if estimator == "pathwise":
            log_density_q = -0.5 * jnp.sum(noise * noise, axis=1) - jnp.sum(params["log_scale"])
        else:
            log_density_q = log_q(jax.lax.stop_gradient(params), z)
        return jnp.mean(log_density_q - jax.vmap(log_density, (0, None))(z, data))

    @jax.jit
    def run(key: jax.Array, data: dict[str, jax.Array]) -> Any:
        params = {"mean": jnp.zeros(DIM), "log_scale": jnp.zeros(DIM)}
        if family == "full_rank":
            params["coupling"] = jnp.zeros(DIM * (DIM - 1) // 2)

        def step(carry: Any, key: jax.Array) -> Any:
            params, state = carry
            noise = jax.random.normal(key, (NUM_DRAWS, DIM))
            value, gradient = jax.value_and_grad(loss)(params, noise, data)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), value

        keys = jax.random.split(key, num_steps)
        (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), keys)
        return params, losses

    return run


def library(family: str, estimator: str) -> vk.algorithms.GradientDescent:
    """Freshly built, equal objects every time."""
    member = {"mean_field": vk.families.MeanField, "full_rank": vk.families.FullRank}[family](DIM)
    objective = vk.objectives.ReverseKL(member, getattr(vk.estimators, estimator), num_samples=NUM_DRAWS)
    return vk.algorithms.GradientDescent(objective, optax.adam, learning_rate=LEARNING_RATE)


def _timed(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def measure(family: str, estimator: str, num_steps: int, repeats: int) -> dict[str, Any]:
    """Time the three in turn and return medians, ratios and compile counts."""
    data = make_data(0)
    by_hand = handwritten(family, estimator, num_steps)

    def optimize(seed: int) -> Any:
        target = vk.make_target(lambda w, data: log_density(w, data), DIM, data=make_data(seed))
        algorithm = library(family, estimator)
        start = algorithm.family.init(jax.random.key(0))
        return vk.optimize(jax.random.key(seed), target, algorithm, start, num_steps=num_steps).params

    phases: list[float] = []

    def fit(seed: int) -> Any:
        target = vk.make_target(lambda w, data: log_density(w, data), DIM, data=make_data(seed))
        marks: list[float] = []
        posterior = vk.fit(
            jax.random.key(seed),
            target,
            library(family, estimator),
            num_steps=num_steps,
            progress=True,
            callback=lambda progress: marks.append(progress.seconds),
        )
        phases.append(marks[-1])
        return posterior.params

    make_data(1)
    compiles = {}
    seconds: dict[str, list[float]] = {"handwritten": [], "optimize": [], "fit": []}
    for i in range(repeats + 1):
        for name, function in (
            ("handwritten", lambda i=i: by_hand(jax.random.key(i), data)),
            ("optimize", lambda i=i: optimize(i)),
            ("fit", lambda i=i: fit(i)),
        ):
            before = _COMPILES[0]
            taken = _timed(function)
            compiles.setdefault(name, []).append(_COMPILES[0] - before)
            if i:  # the first of each compiles
                seconds[name].append(taken)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    phase = statistics.median(phases[1:])
    base = medians["handwritten"]
    return {
        "family": family,
        "estimator": estimator,
        "microseconds_per_step": {k: 1e6 * v / num_steps for k, v in medians.items()},
        "ratio_optimize": medians["optimize"] / base,
        "ratio_fit_steps_with_progress_bar": phase / base,
        "ratio_fit_with_report": medians["fit"] / base,
        "compiles_first_then_later": {k: [v[0], max(v[1:])] for k, v in compiles.items()},
    }


def sequential_schedule() -> Any:
    """Measure again with XLA's concurrency-optimized scheduler off, which decides by details of either program."""
    flags = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
    done = subprocess.run(
        [sys.executable, __file__, "--rows-only"],
        env={**os.environ, "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout)


def other_families(smoke: bool) -> dict[str, Any]:
    """Measure the families of `families.py`, and the low-rank one where it is large."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    measured = all_families(log_density, make_data(0), NUM_DRAWS, LEARNING_RATE, *((5, 1) if smoke else (500, 30)))
    sizes = (1_000,) if smoke else (12_500, 25_000, 50_000, 100_000)
    return {
        "families": {"cores": cores, **measured},
        "low_rank_large": {"cores": cores, "rows": large_alone(sizes, 2 if smoke else 20)},
    }


def write(results: dict[str, Any]) -> None:
    """Write results.json and the README's tables."""
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    for name, body in tables(results).items():
        workbench.update_readme(HERE / "README.md", name, body)


def main() -> None:
    """Measure, print and write results.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few steps, nothing written")
    parser.add_argument("--rows-only", action="store_true", help="print the measured rows as JSON and nothing else")
    parser.add_argument("--families-only", action="store_true", help="measure the other families again, keep the rest")
    arguments = parser.parse_args()
    smoke = arguments.smoke
    if arguments.families_only:
        measured = other_families(smoke)
        if not smoke:
            write(json.loads((HERE / "results.json").read_text()) | measured)
        return
    jax.monitoring.register_event_duration_secs_listener(_count_compiles)
    num_steps, repeats = (50, 1) if smoke else (5_000, 9)
    rows = [
        measure(family, estimator, num_steps, repeats)
        for family in ("mean_field", "full_rank")
        for estimator in ("pathwise", "sticking_the_landing")
    ]
    if arguments.rows_only:
        print(json.dumps(rows))
        return
    results = {
        "question": __doc__.splitlines()[0],
        "setting": {"rows": NUM_ROWS, "dim": DIM, "draws": NUM_DRAWS, "steps": num_steps, "repeats": repeats},
        "machine": {"device": jax.devices()[0].device_kind, "processor": platform.machine()},
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "vi_kit": vk.__version__},
        "results": rows,
        "results_sequential_schedule": None if smoke else sequential_schedule(),
        **other_families(smoke),
    }
    print(json.dumps(results, indent=1))
    if not smoke:
        write(results)


if __name__ == "__main__":
    main()
