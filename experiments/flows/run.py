"""How near do normalizing flows come to targets that no Gaussian fits?

The funnel (d = 10), the banana and two moons, fitted by reverse KL with the default flow of each coupling and the
default estimator, from the same start, beside mean-field and full-rank Gaussians. What is reported is log Z − ELBO,
that is KL(q‖p), from draws made after the fit. Then gradient estimators with spline couplings: which of them stall.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from figure import draw
from report import update_readme

import vi_kit as vk

HERE = Path(__file__).parent
BAR = 0.1
NUM_STEPS, NUM_DRAWS, NUM_JUDGED, SCALE = 4_000, 32, 100_000, 3.0
SEEDS = (0, 1, 2)
PARTICLES = 8
STARTS = (("banana", 1.0), ("banana", 3.0), ("two moons", 3.0))
TARGETS = ("funnel", "banana", "two moons")


def moons() -> vk.Target:
    """Build two moons: U₁ of Rezende and Mohamed, "Variational Inference with Normalizing Flows", 2015.

    https://arxiv.org/abs/1505.05770, table 1.
    """

    def log_density(z: Any) -> Any:
        ring = jnp.square((jnp.sqrt(jnp.sum(z * z) + 1e-12) - 2) / 0.4)
        sides = jnp.logaddexp(-0.5 * jnp.square((z[0] - 2) / 0.6), -0.5 * jnp.square((z[0] + 2) / 0.6))
        return -0.5 * ring + sides

    return vk.make_target(log_density, 2, log_normalizer=moons_log_normalizer())


def moons_log_normalizer() -> float:
    """Integrate the same density in double precision; a grid of half the spacing changes nothing in 12 digits."""
    grid = np.linspace(-8, 8, 1_601)
    first, second = np.meshgrid(grid, grid, indexing="ij")
    ring = ((np.hypot(first, second) - 2) / 0.4) ** 2
    sides = np.logaddexp(-0.5 * ((first - 2) / 0.6) ** 2, -0.5 * ((first + 2) / 0.6) ** 2)
    return float(np.log(np.exp(-0.5 * ring + sides).sum()) + 2 * np.log(grid[1] - grid[0]))


def load(name: str) -> vk.Target:
    """Return a target by name."""
    return moons() if name == "two moons" else vk.targets.load(name)


def families(dim: int) -> dict[str, Any]:
    """Return what is compared, with default settings."""
    return {
        "mean-field": vk.families.MeanField(dim),
        "full-rank": vk.families.FullRank(dim),
        "affine flow": vk.families.Flow(dim),
        "spline flow": vk.families.Flow(dim, coupling=vk.families.SplineCoupling()),
    }


def clipped_adam(learning_rate: Any) -> optax.GradientTransformation:
    """Adam, with gradients no longer than 10: the funnel has rare ones of a thousand times the usual length."""
    return optax.chain(optax.clip_by_global_norm(10.0), optax.adam(learning_rate))


def fit(target: vk.Target, objective: Any, seed: int, num_steps: int, scale: float = SCALE) -> tuple[Any, float, bool]:
    """Fit; return parameters, seconds of processors and whether every step was finite."""
    # Gaussians get a ten times greater rate: they have no networks.
    rate = 0.005 if isinstance(objective.family, vk.families.Flow) else 0.05
    schedule = optax.cosine_decay_schedule(rate, num_steps)
    algorithm = vk.algorithms.GradientDescent(objective, clipped_adam, learning_rate=schedule)
    start_key, mean_key, key = jax.random.split(jax.random.key(seed), 3)
    # Gaussians stay at the mode that they begin at: those start somewhere else with every seed, and the best counts.
    mean = None if isinstance(objective.family, vk.families.Flow) else 2.0 * jax.random.normal(mean_key, (target.dim,))
    start = objective.family.init(start_key, mean=mean, scale=jnp.asarray(scale))
    began = time.process_time()
    found = vk.optimize(key, target, algorithm, start, num_steps=num_steps)
    jax.block_until_ready(found.params)
    return found.params, time.process_time() - began, bool(found.finite)


def judge(target: vk.Target, family: Any, params: Any, num: int) -> dict[str, float]:
    """Return log Z − ELBO with its standard error, the same of the bound of 8 particles, and the effective share."""

    @jax.jit
    def weigh(params: Any, keys: Any) -> Any:
        def one(key: Any) -> Any:
            z, log_q = family.dist(params).sample_and_log_prob(seed=key)
            return target.log_density(z) - log_q

        return jax.lax.map(one, keys, batch_size=2_000)

    log_z = float(np.asarray(target.log_normalizer))
    log_weights = np.asarray(weigh(params, jax.random.split(jax.random.key(99), num)), float)
    gaps = log_z - log_weights
    groups = log_weights.reshape(-1, PARTICLES)
    bounds = log_z - (np.logaddexp.reduce(groups, axis=1) - np.log(PARTICLES))
    weights = np.exp(log_weights - log_weights.max())
    return {
        "KL": float(gaps.mean()),
        "error": float(gaps.std() / np.sqrt(num)),
        "gap of the 8-particle bound": float(bounds.mean()),
        "its error": float(bounds.std() / np.sqrt(len(bounds))),
        "effective share": float(weights.sum() ** 2 / (num * (weights**2).sum())),
    }


def compare(
    names: tuple[str, ...], seeds: tuple[int, ...], num_steps: int, num: int
) -> tuple[list[dict[str, Any]], dict[Any, Any]]:
    """Fit every family to every target with every seed."""
    rows, best = [], {}
    for name in names:
        target = load(name)
        for title, family in families(target.dim).items():
            objective = vk.objectives.ReverseKL(family, num_samples=NUM_DRAWS)
            for seed in seeds:
                params, seconds, finite = fit(target, objective, seed, num_steps)
                row = {"target": name, "family": title, "seed": seed, **judge(target, family, params, num)}
                row |= {"seconds": round(seconds, 2), "compiled in them": seed == seeds[0]}
                row |= {"evaluations": num_steps * objective.evaluations(target), "every step finite": finite}
                rows.append(row)
                print(row, flush=True)
                if row["KL"] <= best.get((name, title), (np.inf,))[0]:
                    best[name, title] = (row["KL"], family, params)
    return rows, best


def stalls(starts: tuple[tuple[str, float], ...], num_steps: int, num: int) -> list[dict[str, Any]]:
    """Fit spline flows with every estimator that differentiates draws, for the ELBO and for bounds of 8 particles."""
    e = vk.estimators
    rows = []
    for name, scale in starts:
        target = load(name)
        family = families(target.dim)["spline flow"]
        for objective in (
            vk.objectives.ReverseKL(family, e.pathwise, NUM_DRAWS),
            vk.objectives.ReverseKL(family, e.sticking_the_landing, NUM_DRAWS),
            vk.objectives.ImportanceWeighted(family, e.pathwise, PARTICLES, NUM_DRAWS // PARTICLES),
            vk.objectives.ImportanceWeighted(family, e.doubly_reparameterized, PARTICLES, NUM_DRAWS // PARTICLES),
        ):
            params, seconds, finite = fit(target, objective, 0, num_steps, scale)
            row = {
                "target": name,
                "start": scale,
                "objective": type(objective).__name__,
                "estimator": repr(objective.estimator),
            }
            row |= judge(target, family, params, num)
            row |= {"seconds": round(seconds, 2), "every step finite": finite}
            rows.append(row)
            print(row, flush=True)
    return rows


def main() -> None:
    """Run all, write results.json, the README's tables and the figure beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few steps, nothing written")
    smoke = parser.parse_args().smoke
    seeds, num_steps, num = ((0,), 10, 800) if smoke else (SEEDS, NUM_STEPS, NUM_JUDGED)
    began = time.process_time()
    rows, best = compare(("two moons",) if smoke else TARGETS, seeds, num_steps, num)
    results: dict[str, Any] = {
        "question": __doc__.splitlines()[0],
        "machine": {"device": jax.devices()[0].device_kind, "processor": platform.machine()},
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "vi_kit": vk.__version__},
        "settings": {
            "steps": num_steps,
            "draws a step": NUM_DRAWS,
            "seeds": list(seeds),
            "draws for KL": num,
            "rate": "0.005 (flows) or 0.05 (Gaussians), cosine decay; Adam, gradients clipped at 10",
            "start": f"standard deviations of {SCALE}",
        },
        "log Z": {name: float(np.asarray(load(name).log_normalizer)) for name in TARGETS},
        "fits": rows,
        "estimators": stalls(() if smoke else STARTS, num_steps, num),
    }
    results["seconds of processors in all"] = round(time.process_time() - began)
    if not smoke:
        (HERE / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        update_readme(results)
        draw({name: load(name) for name in TARGETS}, best, HERE / "flows.png")


if __name__ == "__main__":
    main()
