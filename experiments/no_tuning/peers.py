"""How many gradients, and seconds, until a full-rank Gaussian is within 0.1 nats of the best one there is?

vi_kit's first rung beside NumPyro's SVI (AutoMultivariateNormal) and BlackJAX's full-rank VI, both with Adam at the
best of five rates, chosen in hindsight, and beside BlackJAX's Pathfinder; each from its own start, compiling included.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from problems import Problem, problems

import vi_kit as vk

HERE = Path(__file__).parent
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
MARGIN = 0.1
CHUNK, MOST_STEPS = 250, 20_000
NUM_DRAWS = 4_096
Row = dict[str, Any]
# What a method yields: gradients so far, seconds so far, mean and lower factor.
Track = Iterator[tuple[int, float, Any, Any]]


def make_elbo(target: Any) -> Callable[[Any, Any], float]:
    """Return the ELBO of a Gaussian, over the same draws each time."""
    noise = jax.random.normal(jax.random.key(77), (NUM_DRAWS, target.dim))
    log_base = jax.scipy.stats.norm.logpdf(noise).sum(axis=1)

    @jax.jit
    def elbo(mean: Any, factor: Any) -> Any:
        volume = jnp.sum(jnp.log(jnp.abs(jnp.diagonal(factor))))
        values = jax.vmap(target.log_density)(mean[None] + noise @ factor.T)
        return jnp.mean(values - log_base) + volume

    return lambda mean, factor: float(elbo(jnp.asarray(mean), jnp.asarray(factor)))


def of_vi_kit(target: Any, seed: int) -> Track:
    """Follow the first rung of `vk.fit` without an algorithm."""
    found: list[Any] = []

    def look(progress: Any) -> None:
        if hasattr(progress.params, "_fields") and set(progress.params._fields) >= {"mean", "log_scale"}:
            found.append((progress.evaluations, progress.seconds, progress.params))

    vk.fit(jax.random.key(seed), target, max_evaluations=8_000, progress=False, callback=look)
    family = vk.families.FullRank(target.dim)
    for evaluations, seconds, params in found:
        q = family.dist(params)
        yield evaluations, seconds, q.loc, q.scale_tri


def of_numpyro(target: Any, seed: int, rate: float) -> Track:
    """Follow NumPyro's SVI, one draw a step."""
    import numpyro
    from numpyro import distributions
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoMultivariateNormal

    def model() -> None:
        z = numpyro.sample("z", distributions.ImproperUniform(distributions.constraints.real_vector, (), (target.dim,)))
        numpyro.factor("p", target.log_density(z))

    began = time.perf_counter()
    svi = SVI(model, AutoMultivariateNormal(model), optax.adam(rate), Trace_ELBO())
    state = svi.init(jax.random.key(seed))
    advance = jax.jit(lambda state: jax.lax.scan(lambda s, _: svi.update(s), state, length=CHUNK))
    for steps in range(CHUNK, MOST_STEPS + 1, CHUNK):
        state, _ = jax.block_until_ready(advance(state))
        params = svi.get_params(state)
        yield steps, time.perf_counter() - began, params["auto_loc"], params["auto_scale_tril"]


def of_blackjax(target: Any, seed: int, rate: float, num_samples: int = 10) -> Track:
    """Follow BlackJAX's full-rank VI, ten draws a step as its documentation has it."""
    from blackjax.vi import fullrank_vi

    began = time.perf_counter()
    method = fullrank_vi.as_top_level_api(target.log_density, optax.adam(rate), num_samples)
    state = method.init(jnp.zeros(target.dim))

    @jax.jit
    def advance(state: Any, key: Any) -> Any:
        return jax.lax.scan(lambda s, k: (method.step(k, s)[0], None), state, jax.random.split(key, CHUNK))[0]

    key = jax.random.key(seed)
    for steps in range(CHUNK, MOST_STEPS // num_samples + 1, CHUNK):
        key, own = jax.random.split(key)
        state = jax.block_until_ready(advance(state, own))
        factor = fullrank_vi._unflatten_cholesky(state.chol_params, target.dim)
        yield steps * num_samples, time.perf_counter() - began, state.mu, factor


def pathfinder(target: Any, seed: int) -> tuple[float, float]:
    """Return the ELBO of BlackJAX's Pathfinder at its defaults, and its seconds."""
    from blackjax.vi import pathfinder as module

    began = time.perf_counter()
    start = jax.random.uniform(jax.random.key(seed), (target.dim,), minval=-2, maxval=2)
    state, _ = jax.jit(lambda k, x: module.approximate(k, target.log_density, x))(jax.random.key(seed + 1), start)
    draws, log_q = module.sample(jax.random.key(seed + 2), state, NUM_DRAWS)
    seconds = time.perf_counter() - began
    return float(jnp.mean(jax.vmap(target.log_density)(draws) - log_q)), seconds


def first_within(track: Track, elbo: Callable[[Any, Any], float], bar: float) -> tuple[int | None, float | None, float]:
    """Return gradients and seconds until the ELBO is there, None where it never is; and the best ELBO."""
    best, spent = -math.inf, 0.0
    for gradients, seconds, mean, factor in track:
        began = time.perf_counter()
        value = elbo(mean, factor)
        if math.isfinite(value):
            best = max(best, value)
        if value >= bar:
            return gradients, seconds - spent, best
        spent += time.perf_counter() - began  # looking is not the method's own cost
    return None, None, best


def measure(problem: Problem, seed: int) -> Row:
    """Run all of them on one target."""
    target = problem.make()
    log_z = problem.reference().log_normalizer
    bar = log_z - problem.floor - MARGIN
    elbo = make_elbo(target)
    elbo(jnp.zeros(target.dim), jnp.eye(target.dim))
    row: Row = {"target": problem.name, "dim": target.dim}
    methods: dict[str, list[Callable[[], Track]]] = {
        "vi_kit": [lambda: of_vi_kit(target, seed)],
        "NumPyro": [lambda rate=rate: of_numpyro(target, seed, rate) for rate in RATES],
        "BlackJAX": [lambda rate=rate: of_blackjax(target, seed, rate) for rate in RATES],
    }
    for name, tracks in methods.items():
        tries = []
        for track in tracks:
            jax.clear_caches()
            elbo(jnp.zeros(target.dim), jnp.eye(target.dim))
            tries.append(first_within(track(), elbo, bar))
        reached = [one for one in tries if one[0] is not None]
        gradients, seconds, _ = min(reached, key=lambda one: one[0]) if reached else (None, None, 0.0)
        row[f"{name} gradients"], row[f"{name} seconds"] = gradients, seconds
        row[f"{name} best gap"] = log_z - problem.floor - max(one[2] for one in tries)
    value, seconds = pathfinder(target, seed)
    row["Pathfinder gap"], row["Pathfinder seconds"] = log_z - problem.floor - value, seconds
    return row


def table(rows: list[Row]) -> str:
    """Return the table of the README."""
    names = ("vi_kit", "NumPyro", "BlackJAX")
    lines = [
        "| target | d | " + " | ".join(f"{name}: gradients | s" for name in names) + " | Pathfinder: nats off |",
        "| --- | ---: |" + " ---: |" * 7,
    ]
    for row in rows:
        cells = []
        for name in names:
            never = f"– ({row[f'{name} best gap']:.2g} off)"
            cells.append(never if row[f"{name} gradients"] is None else f"{row[f'{name} gradients']:,}")
            cells.append("" if row[f"{name} seconds"] is None else f"{row[f'{name} seconds']:.1f}")
        lines.append(f"| {row['target']} | {row['dim']} | {' | '.join(cells)} | {row['Pathfinder gap']:.2g} |")
    return "\n".join(lines)


def main() -> None:
    """Run every target of posteriordb."""
    from run import update_readme

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posteriordb", type=Path, required=True, help="its folder")
    parser.add_argument("--only", nargs="*", help="names of targets")
    options = parser.parse_args()
    import blackjax
    import numpyro

    about = {
        "python": platform.python_version(), "jax": jax.__version__, "numpyro": numpyro.__version__,
        "blackjax": blackjax.__version__, "numpy": np.__version__,
    }  # fmt: skip
    path = HERE / "peers.json"
    rows = {row["target"]: row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}
    for problem in problems(options.posteriordb):
        if problem.floor is None or (options.only is not None and problem.name not in options.only):
            continue
        rows[problem.name] = measure(problem, 0)
        print(
            {name: x if not isinstance(x, float) else round(x, 3) for name, x in rows[problem.name].items()}, flush=True
        )
        path.write_text(json.dumps({"versions": about, "rows": list(rows.values())}, indent=1) + "\n")
    update_readme(HERE / "README.md", "peers", table(list(rows.values())))


if __name__ == "__main__":
    main()
