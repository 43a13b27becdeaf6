"""What does the direction of KL do? Forward and reverse fits of the same family to the same targets.

Shapes: a full-rank Gaussian on the mixture, the banana and the funnel, with KL in both directions and the share of each
bump. Scales: mean-field Gaussians on correlated ones of 2 to 20 dimensions, against the closed forms: reverse KL ends
at the conditional standard deviations 1/sqrt(Λᵢᵢ), forward KL at the marginal ones sqrt(Σᵢᵢ). Forward KL alone: the
sds of normals, Student-ts and the mixture, from exact draws and from the density by importance weights.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from figure import draw

import vi_kit as vk

HERE = Path(__file__).parent
SHAPES = ("mixture", "banana", "funnel")
DIMS = (2, 5, 10, 20)
SEEDS = (0,)


def correlated(dim: int, degrees: float | None = None) -> vk.Target:
    """Build a normal, or a multivariate Student-t, along axes that are no coordinates; condition number 100."""
    direction = np.arange(1.0, dim + 1)
    axes = np.eye(dim) - 2 * np.outer(direction, direction) / np.sum(direction**2)
    data = {"axes": axes, "scale": np.logspace(-0.5, 0.5, dim)}

    def log_density(x: Any, data: Any) -> Any:
        squares = jnp.sum(jnp.square((x @ data["axes"]) / data["scale"]))
        return -0.5 * squares if degrees is None else -0.5 * (degrees + dim) * jnp.log1p(squares / degrees)

    def sample(key: Any, data: Any) -> Any:
        noise_key, scale_key = jax.random.split(key)
        x = data["axes"] @ (data["scale"] * jax.random.normal(noise_key, (dim,)))
        return x if degrees is None else x * jnp.sqrt(0.5 * degrees / jax.random.gamma(scale_key, 0.5 * degrees))

    log_z = 0.5 * dim * np.log(2 * np.pi) + np.sum(np.log(data["scale"])) if degrees is None else None
    return vk.make_target(log_density, dim, data=data, sample=sample, log_normalizer=log_z)


def covariance(dim: int) -> np.ndarray:
    """Return the covariance of `correlated(dim)`."""
    target = correlated(dim)
    factor = np.asarray(target.data["axes"], float) * np.asarray(target.data["scale"], float)
    return factor @ factor.T


def fit(target: vk.Target, objective: Any, seed: int, num_steps: int) -> vk.Posterior:
    """Fit with the rate and schedule that `vk.fit` uses by default."""
    schedule = optax.cosine_decay_schedule(0.05, num_steps)
    algorithm = vk.algorithms.GradientDescent(objective, optax.adam, learning_rate=schedule)
    return vk.fit(jax.random.key(seed), target, algorithm, num_steps=num_steps, max_seconds=7_200.0, progress=False)


def both_kls(posterior: vk.Posterior, target: vk.Target, num: int) -> dict[str, float]:
    """Return KL(q‖p) and KL(p‖q) with standard errors; the target's log Z is 0."""
    family, params = posterior.family, posterior.params

    @jax.jit
    def both(key: Any, params: Any) -> Any:
        def one(key: Any) -> Any:
            q_key, p_key = jax.random.split(key)
            q = family.dist(params)
            z, log_q = q.sample_and_log_prob(seed=q_key)
            x = target.unconstrain(target.sample(p_key))
            return log_q - target.log_density(z), target.log_density(x) - q.log_prob(x)

        return jax.vmap(one)(jax.random.split(key, num))

    found = {}
    for name, terms in zip(("reverse", "forward"), both(jax.random.key(99), params), strict=True):
        terms = np.asarray(terms, float)
        found[f"KL {name}"] = float(terms.mean())
        found[f"KL {name}, error"] = float(terms.std() / np.sqrt(num))
    return found


def shares(posterior: vk.Posterior, target: vk.Target, num: int) -> list[float]:
    """Return how much of q lies at each bump of the mixture, by the nearer mean."""
    draws = np.asarray(posterior.sample(jax.random.key(7), num)["x"])
    means = np.asarray(target.data["means"])
    nearest = np.argmin(np.linalg.norm(draws[:, None] - means[None], axis=-1), axis=1)
    return [float(np.mean(nearest == k)) for k in range(len(means))]


def shapes(num_steps: int, num: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Fit the three shapes in both directions."""
    rows, fits = [], {}
    for name in SHAPES:
        target = vk.targets.load(name)
        family = vk.families.FullRank(target.dim)
        for title, objective in (
            ("reverse", vk.objectives.ReverseKL(family)),
            ("forward", vk.objectives.ForwardKL(family, vk.objectives.exact)),
        ):
            posterior = fit(target, objective, 0, num_steps)
            row = {"target": name, "fit by": title, **both_kls(posterior, target, num)}
            if name == "mixture":
                row["share of each bump"] = shares(posterior, target, num)
            rows.append(row)
            fits[name, title] = posterior
    return rows, fits


def scales(dims: tuple[int, ...], seeds: tuple[int, ...], num_steps: int) -> list[dict[str, Any]]:
    """Fit mean-field Gaussians to correlated ones; ratios to the true marginal standard deviations."""
    rows = []
    for dim in dims:
        target, sigma = correlated(dim), covariance(dim)
        marginal = np.sqrt(np.diag(sigma))
        predicted = {"reverse": 1 / np.sqrt(np.diag(np.linalg.inv(sigma))) / marginal, "forward": np.ones(dim)}
        family = vk.families.MeanField(dim)
        for title, objective in (
            ("reverse", vk.objectives.ReverseKL(family)),
            ("forward", vk.objectives.ForwardKL(family, vk.objectives.exact)),
        ):
            fits = [fit(target, objective, seed, num_steps) for seed in seeds]
            ratios = np.array([np.asarray(family.dist(f.params).std()) / marginal for f in fits])
            rows.append(
                {
                    "dim": dim,
                    "fit by": title,
                    "smallest ratio": float(ratios.min()),
                    "largest ratio": float(ratios.max()),
                    "smallest predicted": float(predicted[title].min()),
                    "largest predicted": float(predicted[title].max()),
                    "worst relative error to prediction": float(np.abs(ratios / predicted[title] - 1).max()),
                }
            )
    return rows


def recovered(dims: tuple[int, ...], seeds: tuple[int, ...], num_steps: int) -> list[dict[str, Any]]:
    """Fit full-rank Gaussians by forward KL; the worst relative error of a marginal standard deviation."""
    problems = [(f"normal, d = {d}", correlated(d), np.sqrt(np.diag(covariance(d)))) for d in dims]
    problems += [
        (f"Student-t of 10 degrees, d = {d}", correlated(d, 10.0), np.sqrt(np.diag(covariance(d)) * 10 / 8))
        for d in dims
    ]
    mixture = vk.targets.load("mixture")
    weights, means, factors = (np.asarray(mixture.data[k], float) for k in ("log_weights", "means", "scale_tril"))
    weights = np.exp(weights)
    second = np.einsum("k,kij,klj->il", weights, factors, factors) + np.einsum("k,ki,kj->ij", weights, means, means)
    center = weights @ means
    problems.append(("mixture, d = 2", mixture, np.sqrt(np.diag(second - np.outer(center, center)))))
    rows = []
    for name, target, truth in problems:
        family = vk.families.FullRank(target.dim)
        for source in (vk.objectives.exact, vk.objectives.tempered()):
            fits = [fit(target, vk.objectives.ForwardKL(family, source), seed, num_steps) for seed in seeds]
            ratios = np.array([np.asarray(family.dist(f.params).std()) / truth for f in fits])
            reports = [f.report for f in fits]
            rows.append(
                {
                    "target": name,
                    "draws": "exact" if source is vk.objectives.exact else repr(source),
                    "worst error of a standard deviation": float(np.abs(ratios - 1).max()),
                    "effective share of draws": float(np.median([float(r.ess) / 4096 for r in reports])),
                    "reliable": sum(bool(r.reliable) for r in reports),
                }
            )
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Run all, print the tables, write results.json and the figure beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few steps, nothing written")
    smoke = parser.parse_args().smoke
    num_steps, num, dims, seeds = (20, 100, (2,), (0,)) if smoke else (5_000, 200_000, DIMS, SEEDS)
    rows, fits = shapes(num_steps, num)
    results: dict[str, Any] = {
        "question": __doc__.splitlines()[0],
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "vi_kit": vk.__version__},
        "settings": {"steps": num_steps, "seeds": list(seeds), "draws for KL": num},
        "shapes": rows,
        "scales": scales(dims, seeds, num_steps),
        "recovered": recovered(dims, seeds, num_steps),
    }
    for section in ("shapes", "scales"):
        for row in results[section]:
            print(row)
    if not smoke:
        (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        draw(fits, HERE / "forward_reverse.png")


if __name__ == "__main__":
    main()
