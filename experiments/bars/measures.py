"""What is measured of each fit, and the bar it has to reach: a row for every test and target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from problems import LEAST_ELBO, RICHER, Gaussian, Problem, gaussian, gaussian_kl
from recipes import Effort, Fits, forward, full_rank, judge, mean_field, moments, richer

import vi_kit as vk

Row = dict[str, Any]


def row(
    test: str, target: str, values: Sequence[float], bar: float, stretch: float | None = None,
    floor: float = 0.0, **more: Any,
) -> Row:  # fmt: skip
    """Return a row: the median of the seeds has to be at most the bar."""
    value = float(np.median(values))
    return {
        "test": test, "target": target, "value": value, "values": [float(v) for v in values], "floor": floor,
        "bar": bar, "stretch": stretch, "reached": bool(value <= bar),
        "stretched": None if stretch is None else bool(value <= stretch), **more,
    }  # fmt: skip


PARTS = ("full-rank", "mean-field", "forward", "given", "flow")


def part_of(test: str) -> str:
    """Return the part that a test belongs to; Gaussian targets are one of their own."""
    return next((part for part in ("given", *PARTS) if part in test), "Gaussian")


def posterior(problem: Problem, effort: Effort, parts: Sequence[str] = PARTS) -> list[Row]:
    """Measure the Gaussians, and where there is a bar for it a flow, on one posterior."""
    rows: list[Row] = []
    fits = full_rank(problem, effort) if set(parts) & {"full-rank", "forward", "flow"} else None
    if fits is not None and "full-rank" in parts:
        reports = judge(problem, fits, effort)
        rows += reverse_rows(problem, "full-rank", fits, reports) + diagnosis_rows(problem, "full-rank", reports)
        if "mean" in problem.floors["full-rank"]:
            rows += moment_rows(problem, reports)
    if "mean-field" in parts and "mean-field" in problem.floors:
        found = mean_field(problem, effort)
        reports = judge(problem, found, effort)
        rows += reverse_rows(problem, "mean-field", found, reports) + diagnosis_rows(problem, "mean-field", reports)
    if fits is not None and "forward" in parts and problem.forward is not None and problem.forward < 1:
        rows += forward_rows(problem, forward(problem, effort, fits), effort)
    if "given" in parts and problem.reference is not None and problem.reference.draws is not None:
        rows.append(given_row(problem.name, problem.reference.draws))
    if fits is not None and "flow" in parts and problem.name in RICHER:
        rows.append(richer_row(problem, fits, effort))
    return rows


def reverse_rows(problem: Problem, title: str, fits: Fits, reports: Sequence[Any]) -> list[Row]:
    """KL(q‖p) = log Z − ELBO, and for the full-rank Gaussian the evaluations."""
    floor = problem.floors[title]["rev_kl"]
    values = [problem.log_normalizer - float(report.elbo.value) for report in reports]
    if problem.name in LEAST_ELBO:
        bar = problem.log_normalizer - LEAST_ELBO[problem.name]
        test = "full-rank, d about 30: KL(q‖p)"
        return [row(test, problem.name, values, bar, None, floor, evaluations=fits.evaluations)]
    if problem.name in RICHER and problem.reference is None:
        return []  # the bar is that of a flow
    slack = 0.05
    if title == "full-rank" and problem.name == "eight_schools-eight_schools_centered":
        slack = 0.10
    if title == "mean-field" and floor > 5:
        slack = 0.2
    errors = [float(report.elbo.standard_error) for report in reports]
    rows = [
        row(
            f"{title}: KL(q‖p)", problem.name, values, floor + slack, floor + 0.02, floor,
            error=float(np.median(errors)), evaluations=fits.evaluations,
        )
    ]  # fmt: skip
    if title == "full-rank":
        rows.append(row("full-rank: evaluations", problem.name, [fits.evaluations], 20_000, 2_000))
    return rows


def moment_rows(problem: Problem, reports: Sequence[Any]) -> list[Row]:
    """Means and sds of the full-rank fit in the user's space, beside those of the best one."""
    reference, floor = problem.reference, problem.floors["full-rank"]
    means, ratios = [], []
    for report in reports:
        shared = [label for label in reference.labels if label in report.coordinates and reference.sd[label] > 0]
        found = [report.coordinates[label] for label in shared]
        sds = np.array([reference.sd[label] for label in shared])
        off = np.array([c.mean for c in found]) - np.array([reference.mean[label] for label in shared])
        ratio = np.array([c.sd for c in found]) / sds
        means.append(float(np.max(np.abs(off) / sds)))
        ratios.append(max(abs(ratio.min() - floor["ratio"][0]), abs(ratio.max() - floor["ratio"][1])))
    name, best = problem.name, floor["mean"]
    return [
        row("full-rank: worst mean error, sd", name, means, best + 0.03, best + 0.02, best),
        row("full-rank: sd ratio, off the best one's", name, ratios, 0.03, 0.02),
    ]


def forward_rows(problem: Problem, fits: Fits, effort: Effort) -> list[Row]:
    """KL(p‖q) is that of the Gaussian with p's moments and KL(that‖q), which has a closed form."""
    assert problem.moments is not None, "only where moments are known"
    assert problem.forward is not None, "only where it is known"
    kls, means, sds = [], [], []
    for i in range(len(effort.seeds)):
        own = moments(fits, i)
        kls.append(problem.forward + gaussian_kl(problem.moments, own))
        deviations = np.sqrt(np.diag(problem.moments[1]))
        means.append(float(np.max(np.abs(own[0] - problem.moments[0]) / deviations)))
        sds.append(float(np.max(np.abs(np.sqrt(np.diag(own[1])) / deviations - 1))))
    name, best = problem.name, problem.forward
    return [
        row(
            "forward KL from the density: KL(p‖q)",
            name,
            kls,
            best + 0.1,
            best + 0.03,
            best,
            evaluations=fits.evaluations,
        ),
        row("forward KL from the density: worst mean error, sd", name, means, 0.05),
        row("forward KL from the density: worst sd error", name, sds, 0.05),
    ]


def given_row(name: str, columns: dict[str, np.ndarray]) -> Row:
    """Return the largest error of a mean, sd or covariance, in the sds of the draws; in double precision too."""
    draws = np.stack(list(columns.values()), axis=1)
    single = off_moments(draws.astype(np.float32))
    with jax.enable_x64(True):
        double = off_moments(draws.astype(np.float64))
    return row("forward KL from given draws: off their moments", name, [double], 1e-5, single_precision=single)


def off_moments(draws: np.ndarray) -> float:
    """Match a full-rank Gaussian to draws in their precision, and compare."""
    family = vk.families.FullRank(draws.shape[1])
    algorithm = vk.algorithms.MomentMatching(vk.objectives.ForwardKL(family))
    start = family.init(jax.random.key(1), mean=jnp.zeros(family.dim, draws.dtype), scale=jnp.ones((), draws.dtype))
    fit = vk.optimize(jax.random.key(0), vk.targets.from_draws(jnp.asarray(draws)), algorithm, start, num_steps=3)
    q = family.dist(fit.params)
    exact = draws.astype(np.float64)
    mean, covariance = exact.mean(axis=0), np.cov(exact.T, ddof=0)
    sds = np.sqrt(np.diag(covariance))
    factor = np.asarray(q.scale_tri, np.float64)
    off = np.abs(np.asarray(q.mean(), np.float64) - mean) / sds
    off_covariance = np.abs(factor @ factor.T - covariance) / np.outer(sds, sds)
    return float(max(off.max(), off_covariance.max()))


def richer_row(problem: Problem, start: Fits, effort: Effort) -> Row:
    """KL(q‖p) of a flow that starts as the Gaussian."""
    fits = richer(problem, effort, start)
    reports = judge(problem, fits, effort)
    values = [problem.log_normalizer - float(report.elbo.value) for report in reports]
    errors = [float(report.elbo.standard_error) for report in reports]
    bar, stretch = RICHER[problem.name]
    khats = [float(report.khat) for report in reports]
    return row(
        "flow: KL(q‖p)", problem.name, values, bar, stretch,
        error=float(np.median(errors)), khats=khats, evaluations=fits.evaluations,
    )  # fmt: skip


def diagnosis_rows(problem: Problem, title: str, reports: Sequence[Any]) -> list[Row]:
    """k̂ beside the table's, and log Z by importance sampling where k̂ allows it."""
    rows = []
    khats = [float(report.khat) for report in reports]
    known = problem.floors.get(title, {}).get("khat")
    if known is not None and 0.3 <= known <= 1:
        off = [abs(float(np.median(khats)) - known)]
        rows.append(row(f"diagnosis: k̂, {title}, off the table's", problem.name, off, 0.1, khats=khats, known=known))
    if np.median(khats) < 0.5:
        off = [abs(float(report.log_normalizer.value) - problem.log_normalizer) for report in reports]
        rows.append(row(f"diagnosis: log Z, {title}", problem.name, off, 0.05))
    return rows


def gaussian_targets(dims: Sequence[int], effort: Effort) -> list[Row]:
    """Gradients until KL(q‖p) ≤ 0.01 where p is a Gaussian of condition 100, and the noise of gradients at q = p."""
    rows = []
    for dim in dims:
        problem, name, family = gaussian(dim), f"Gaussian, d = {dim}", vk.families.FullRank(dim)
        score = vk.algorithms.BatchAndMatch(family, 2 * dim)
        counts = [_gradients(problem, score, seed) for seed in effort.seeds]
        rows.append(row("Gaussian target: gradients, by scores", name, counts, 4 * dim, 2 * dim))
        counts = [_gradients(problem, vk.algorithms.NaturalGradient(family), seed) for seed in effort.seeds]
        rows.append(row("Gaussian target: gradients, by reverse KL", name, counts, 2_000))
        rows.append(_sticking(problem, name, effort))
    return rows


def _gradients(problem: Gaussian, algorithm: Any, seed: int, most: int = 4_000) -> float:
    """Count gradients until the bar is reached; infinite where it is not."""
    family, state, count = algorithm.family, None, 0
    start = family.init(jax.random.key(0))
    while count < most:
        fit = vk.optimize(jax.random.key(seed), problem.target, algorithm, start, num_steps=1, state=state)
        state, count = fit.state, count + algorithm.evaluations(problem.target)
        factor = np.asarray(family.dist(fit.params).scale_tri, np.float64)
        own = (np.asarray(fit.params.mean, np.float64), factor @ factor.T)
        if gaussian_kl(own, (problem.mean, problem.covariance)) <= 0.01:
            return float(count)
    return float("inf")


def _sticking(problem: Gaussian, name: str, effort: Effort) -> Row:
    """Compare variances at the optimum: sticking the landing over pathwise."""
    family = vk.families.FullRank(len(problem.mean))
    factor = jnp.asarray(np.linalg.cholesky(problem.covariance), jnp.float32)
    params = family.init(jax.random.key(0), mean=jnp.asarray(problem.mean, jnp.float32), scale=factor)
    objective = vk.objectives.ReverseKL(family, num_samples=8)
    both = (vk.estimators.pathwise, vk.estimators.sticking_the_landing)
    shares = []
    for seed in effort.seeds:
        found = vk.diagnostics.gradient_variance(
            jax.random.key(seed), problem.target, objective, params, estimators=both, num_repeats=64
        ).estimators
        shares.append(float(found["sticking_the_landing"].variance.value) / float(found["pathwise"].variance.value))
    return row("Gaussian target: variance of sticking the landing over pathwise", name, shares, 1e-10)
