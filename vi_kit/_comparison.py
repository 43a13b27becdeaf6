"""Both directions of KL fitted to one target, and both divergences of both fits."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from vi_kit._fit import default_algorithm, fit
from vi_kit._posterior import Posterior
from vi_kit._resolve import Resolved
from vi_kit._runs import plain
from vi_kit._types import Family, Target
from vi_kit.algorithms import GradientDescent
from vi_kit.diagnostics._directions import (
    Measurement,
    forward_kl,
    log_normalizer,
    reverse_kl,
)
from vi_kit.diagnostics._table import estimate, number
from vi_kit.diagnostics._target_draws import TargetDraws, exact_draws, reference_draws, weighted_draws
from vi_kit.objectives import ForwardKL, ReverseKL, self_normalized

REVERSE, FORWARD = "reverse KL", "forward KL"
_NUM_SAMPLES = 4_096
_EXACT_SAMPLES = 16_384
_MOST_ROWS = 8


@dataclass(frozen=True)
class Comparison:
    """Fits in both directions with KL(q‖p) and KL(p‖q) of each.

    Attributes:
        fits: the posteriors, by direction; one is missing where the user interrupted the other.
        reverse: KL(q‖p) of each.
        forward: KL(p‖q) of each.
        log_z: log Z, and how it was found.
        draws: draws of p: exact ones, else the reference's, else importance-weighted ones.
        interrupted: whether a fit was cut short.
    """

    fits: dict[str, Posterior]
    reverse: dict[str, Measurement]
    forward: dict[str, Measurement]
    log_z: Measurement
    draws: TargetDraws
    interrupted: bool


def algorithm_for(
    target: Target, num_steps: int, *, family: Family | None = None, forward: bool = False
) -> GradientDescent:
    """Return what `fit` uses by default, over another family or in the other direction."""
    algorithm = default_algorithm(target, num_steps)
    chosen = family if family is not None else algorithm.family
    return replace(algorithm, objective=ForwardKL(chosen) if forward else ReverseKL(chosen))


def compare(
    resolved: Resolved,
    *,
    seed: int,
    num_steps: int,
    max_seconds: float,
    family: Family | None = None,
    progress: bool = True,
) -> Comparison:
    """Fit both directions over one family and measure both divergences of both fits.

    KL(p‖q) is over exact draws of p where there are any, else over reference draws, else over
    importance-weighted draws of both fits together. A forward fit that has to weight its own draws starts
    where the reverse one ended.

    Raises:
        TypeError: when the model is at fault (see `vi_kit.fit`).
        ValueError: the same.
    """
    target = resolved.target
    if not target.has_density:
        raise ValueError("TARGET: comparing needs a log density, and this target was made from draws")
    fits: dict[str, Posterior] = {}
    interrupted = False
    for direction in (REVERSE, FORWARD):
        algorithm = algorithm_for(target, num_steps, family=family, forward=direction == FORWARD)
        source = algorithm.objective.source(target) if isinstance(algorithm.objective, ForwardKL) else None
        posterior = fit(
            jax.random.key(seed),
            target,
            algorithm,
            num_steps=num_steps,
            max_seconds=max_seconds,
            start=fits[REVERSE] if source is self_normalized else None,
            progress=progress,
        )
        interrupted = posterior.report.stopped.startswith("interrupted")
        if posterior.report.steps:
            fits[direction] = posterior
        if interrupted:
            break
    if not fits:
        raise KeyboardInterrupt
    return _measure(resolved, fits, seed, interrupted=interrupted)


def _measure(resolved: Resolved, fits: dict[str, Posterior], seed: int, *, interrupted: bool) -> Comparison:
    target, reference = resolved.target, resolved.reference
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 2), 2 + len(fits))
    num = min(_NUM_SAMPLES, *(posterior.report.num_samples for posterior in fits.values()))
    proposals = [(posterior.family, posterior.params) for posterior in fits.values()]
    if target.has_sampler:
        candidates = [exact_draws(keys[0], target, _EXACT_SAMPLES)]
    else:
        # Few reference draws may say too little of the tails; the fits' own draws may then say more. Exact draws
        # are not given up for them: what they see of the tails is there.
        kept = reference_draws(target, reference)
        candidates = [draws for draws in (kept, weighted_draws(keys[1], target, proposals, num)) if draws]
    known = target.log_normalizer is not None or (reference is not None and reference.log_normalizer is not None)
    weighted = candidates[-1] if candidates[-1].log_weights is not None else None
    if weighted is None and not known:
        weighted = weighted_draws(keys[1], target, proposals, num)
    log_z = log_normalizer(target, reference, weighted)
    forward, reverse = {}, {}
    for (name, posterior), key in zip(fits.items(), keys[2:], strict=True):
        reverse[name] = reverse_kl(key, target, posterior.family, posterior.params, log_z, num)
        tried = []
        for draws in candidates:
            # Where log Z comes from the very weights that KL(p‖q) is over, the two errors are taken together.
            joint = not known and draws is weighted and log_z.estimate is not None
            tried.append(forward_kl(draws, posterior.family, posterior.params, None if joint else log_z))
        forward[name] = next((found for found in tried if found.estimate is not None), tried[0])
    return Comparison(fits, reverse, forward, log_z, candidates[0], interrupted)


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Return everything that is printed, and more, as plain numbers for JSON."""

    def measured(measurement: Measurement) -> Any:
        if measurement.estimate is None:
            return {"value": None, "standard_error": None, **_rest(measurement)}
        return {**measurement.estimate._asdict(), **_rest(measurement)}

    content: dict[str, Any] = plain(
        {
            "log_normalizer": measured(comparison.log_z),
            "draws_of_p": comparison.draws.source,
            "interrupted": comparison.interrupted,
            "fits": {
                name: {
                    "reverse_kl": measured(comparison.reverse[name]),
                    "forward_kl": measured(comparison.forward[name]),
                    "report": posterior.report.to_dict(),
                }
                for name, posterior in comparison.fits.items()
            },
        }
    )
    return content


def _rest(measurement: Measurement) -> dict[str, Any]:
    return {key: value for key, value in asdict(measurement).items() if key != "estimate"}


def differences(comparison: Comparison, labels: tuple[str, ...]) -> list[str]:
    """Sort labels: first those on which the fits differ most in mean or sd, in units of the wider sd."""
    if len(comparison.fits) < 2:
        return list(labels)
    first, second = (posterior.report.coordinates for posterior in comparison.fits.values())

    def difference(label: str) -> float:
        one, other = first[label], second[label]
        wide = max(one.sd, other.sd)
        return max(abs(one.mean - other.mean), abs(one.sd - other.sd)) / wide if wide > 0 else 0.0

    return sorted(labels, key=lambda label: -difference(label))


def comparison_table(comparison: Comparison, reference: Any | None) -> Group:
    """Lay the comparison out as tables."""
    fits = comparison.fits
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("nats")
    for name in fits:
        table.add_column(f"{name} fit", justify="right")
    for title, row in (
        ("KL(q‖p), what reverse KL minimizes", comparison.reverse),
        ("KL(p‖q), what forward KL minimizes", comparison.forward),
    ):
        table.add_row(title, *(_cell(row[name]) for name in fits))
    table.add_row("ELBO", *(estimate(posterior.report.elbo) for posterior in fits.values()))
    table.add_row("Pareto k̂ of p̃/q", *(number(posterior.report.khat, 2) for posterior in fits.values()))
    parts: list[Any] = [table, _moments(comparison, reference)]
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="dim")
    facts.add_column()
    log_z = comparison.log_z
    exact = log_z.source == "known exactly"
    value = number(float(log_z.estimate.value)) if exact and log_z.estimate else _cell(log_z)
    facts.add_row("log Z", f"{value}, {log_z.source}")
    for pair, row in (("KL(q‖p)", comparison.reverse), ("KL(p‖q)", comparison.forward)):
        sources = list(dict.fromkeys(found.source for found in row.values()))
        told = sources if len(sources) == 1 else [f"{name} fit {found.source}" for name, found in row.items()]
        facts.add_row(pair, "; ".join(told))
    for name, posterior in fits.items():
        facts.add_row(f"{name} fit", f"{posterior.report.family}, {posterior.report.objective}")
    parts.append(facts)
    caveats = [
        f"KL({pair}) of the {name} fit: {row[name].caveat}."
        for pair, row in (("q‖p", comparison.reverse), ("p‖q", comparison.forward))
        for name in fits
        if row[name].caveat
    ]
    parts += [Text(caveat, style="yellow") for caveat in caveats]
    for name, posterior in fits.items():
        style = "green" if posterior.report.reliable else "red"
        parts.append(Text.assemble((f"The {name} fit. ", "bold"), (posterior.report.reason, style)))
    return Group(*parts)


def _cell(measurement: Measurement) -> str:
    return "not to be trusted" if measurement.estimate is None else estimate(measurement.estimate)


def _moments(comparison: Comparison, reference: Any | None) -> Table:
    """Return the means and sds of the coordinates on which the fits differ most."""
    fits = comparison.fits
    labels = tuple(next(iter(fits.values())).report.coordinates)
    shown = differences(comparison, labels)[:_MOST_ROWS]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("mean ± sd")
    for name in fits:
        table.add_column(f"{name} fit", justify="right")
    if reference is not None:
        table.add_column("reference", justify="right")
    for label in shown:
        rows = [posterior.report.coordinates[label] for posterior in fits.values()]
        cells = [f"{number(row.mean)} ± {number(row.sd)}" for row in rows]
        if reference is not None:
            there = label in reference.mean
            cells.append(f"{number(reference.mean[label])} ± {number(reference.sd[label])}" if there else "")
        table.add_row(label, *cells)
    if len(labels) > len(shown):
        table.add_row(f"… {len(labels) - len(shown)} more that differ less")
    return table
