"""The report of a fit: what was found, how far it can be believed, and why."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from vi_kit._types import Estimate, Family, KeyArray, Params, Target, check_key
from vi_kit._weights import effective_sample_size, khat_threshold, pareto_smooth
from vi_kit.diagnostics._draws import Draws, coordinates, draw
from vi_kit.diagnostics._error_bounds import WassersteinBounds, chi_square_limit, moment_bounds, wasserstein_bounds
from vi_kit.diagnostics._far_out import FarOut
from vi_kit.diagnostics._target_draws import exact_draws, log_q_at
from vi_kit.diagnostics._verdict import Evidence, verdict
from vi_kit.diagnostics._warnings import coordinate_warnings, tails

_ROUNDING = 8  # steps of rounding within which log weights count as equal
_LARGEST_SD_ERROR = 0.1
_LIGHT_TAIL = 0.5  # k̂ below which weights have a variance
_MOVED = 0.05  # of an sd
_COARSE = 1e-3  # nats; beyond it rounding is not to be taken for equality
NUM_EXACT_DRAWS = 1_024
_EXACT = 2**32 - 1  # no block of draws of q has this number


@dataclass(frozen=True)
class Coordinate:
    """Moments of one coordinate in the user's space.

    Attributes:
        mean: mean under q, with `standard_error` its Monte Carlo error.
        sd: standard deviation under q, with `sd_standard_error`.
        corrected_mean: mean under Pareto-smoothed importance weights, None without a density.
        corrected_sd: the same for the standard deviation.
        mean_error_bound: how far the mean under p can be from that under q at most, at 95 % confidence, as far as
            draws of q can tell; it bounds the Wasserstein distance W₁ of this coordinate too. None where the weights
            give no honest one.
        sd_error_bound: the same for the standard deviation.
        sd_khat: Pareto k̂ of the weights times squared deviations, of which `corrected_sd` is made: from 0.5 on it falls
            short of the true sd where q is too narrow. None without a density.
    """

    mean: float
    standard_error: float
    sd: float
    sd_standard_error: float
    corrected_mean: float | None = None
    corrected_sd: float | None = None
    mean_error_bound: float | None = None
    sd_error_bound: float | None = None
    sd_khat: float | None = None


@dataclass(frozen=True)
class Report:
    """What a fit found and how far it can be believed.

    Attributes:
        elbo: the evidence lower bound with its standard error, nats; None for a target without a density.
        khat: Pareto shape of the importance weights p̃/q; below `khat_threshold` they can be trusted.
        ess: effective sample size of those weights, out of `num_samples`.
        log_normalizer: log Z by importance sampling with its standard error.
        reverse_kl: KL(q‖p) where log Z is known, else None.
        upper_bound: an upper bound on log Z with its standard error: E_p[log p̃ − log q] where p can be sampled, else
            ½ log E_q[(p̃/q)²]; None where k̂ is 0.5 or more, as that mean is then infinite or settled by a few draws.
        forward_kl: KL(p‖q) by the smoothed weights; None where k̂ is 0.5 or more: it is then far too low.
        chi_square: χ²(p‖q) at most, at 95 % confidence, as far as draws of q can tell; every mean is then within √χ² of
            q's sds. None where the weights give no honest limit.
        wasserstein: bounds on W₁ and W₂ between p and q in unconstrained coordinates, from it.
        warnings: what to know of single coordinates: mass at a bound, tails that do not settle, several modes.
        reliable: whether to believe the fit.
        reason: why, in plain words.
        coordinates: moments of every coordinate, derived quantities included.
        evaluations: log densities evaluated, with or without gradient.
        seconds: wall time of the whole fit, `compile_seconds` of it before the first step was done.
        story: what `fit` tried where it was given no algorithm, what that cost, and why it went on.
    """

    dim: int
    family: str
    num_samples: int
    elbo: Estimate | None
    khat: float | None
    khat_threshold: float
    ess: float | None
    log_normalizer: Estimate | None
    reverse_kl: Estimate | None
    reliable: bool
    reason: str
    coordinates: dict[str, Coordinate]
    objective: str = ""
    stopped: str = ""
    steps: int = 0
    nonfinite_steps: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0
    upper_bound: Estimate | None = None
    forward_kl: Estimate | None = None
    chi_square: float | None = None
    wasserstein: WassersteinBounds | None = None
    warnings: tuple[str, ...] = ()
    story: tuple[str, ...] = ()
    device: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings and dicts, ready for JSON; what is not finite is "inf", "-inf" or "nan"."""
        return _plain(dataclasses.asdict(self))  # type: ignore[no-any-return]

    def __rich__(self) -> Any:
        from vi_kit.diagnostics._table import report_table

        return report_table(self)

    def __str__(self) -> str:
        from vi_kit.diagnostics._table import as_text, report_table

        return as_text(report_table(self))


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return {name: _plain(float(part)) for name, part in value._asdict().items()}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def diagnose(key: KeyArray, target: Target, family: Family, params: Params, *, num_samples: int = 4_096) -> Report:
    """Judge q = family.dist(params) against a target.

    Draws from q and evaluates the density once a draw: ELBO, importance weights p̃/q and their Pareto k̂, effective
    sample size, log Z, moments under q and corrected by the weights, and a verdict in words.

    Args:
        key: a typed key.
        target: what q approximates.
        family: the family of q.
        params: its parameters.
        num_samples: draws, at least 100.

    Returns:
        The report.

    Raises:
        TypeError: for a key that is not typed.
        ValueError: for fewer than 100 draws.

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum(x**2), 2)
        >>> family = vk.families.MeanField(2)
        >>> report = vk.diagnose(jax.random.key(0), target, family, family.init(jax.random.key(1)))
        >>> report.reliable
        True
    """
    check_key(key)
    if num_samples < 100:
        raise ValueError(f"num_samples: expected at least 100, got {num_samples}")
    target = target.refreshed()
    draws = draw(key, target, family, params, num_samples, with_density=target.has_density)
    return judge(target, family, draws, evidence_upper_bound(key, target, family, params))


def evidence_upper_bound(key: KeyArray, target: Target, family: Family, params: Params) -> Estimate | None:
    """Return E_p[log p̃ − log q] = log Z + KL(p‖q) from exact draws of p; None where p cannot be sampled."""
    if not (target.has_sampler and target.has_density):
        return None
    draws = exact_draws(jax.random.fold_in(key, _EXACT), target, NUM_EXACT_DRAWS)
    bound = mean_estimate(draws.log_p - log_q_at(family, params, draws.z))
    return bound if math.isfinite(float(bound.value)) else None


@np.errstate(over="ignore", invalid="ignore")  # of quantities that are not finite, which the verdict names
def judge(
    target: Target,
    family: Family,
    draws: Draws,
    upper_bound: Estimate | None = None,
    *,
    finite: bool = True,
    far: tuple[FarOut, ...] = (),
) -> Report:
    """Make the report of draws that are already there.

    Args:
        target: p.
        family: the family of q.
        draws: of q.
        upper_bound: on log Z, from exact draws of p.
        finite: whether the fit ended on finite numbers.
        far: what p has farther out than draws of q, if somebody looked.
    """
    num = len(draws.log_q)
    labels, values = coordinates(draws.x, target.layout)
    values = values.astype(np.float64)
    means, sds = values.mean(axis=0), values.std(axis=0, ddof=1)
    threshold = khat_threshold(num)
    if draws.log_p is None:
        kept, ess = _kept_draws(target)
        evidence = Evidence(threshold, finite=finite, labels=labels, means=means, sds=sds, given=kept, ess=ess)
        reliable, reason = verdict(evidence)
        rows = _rows(labels, values, means, sds)
        return Report(
            target.dim, repr(family), num, None, None, threshold, ess, None, None, reliable, reason, rows,
            warnings=coordinate_warnings(target, labels, values, np.full(num, 1 / num)),
        )  # fmt: skip
    log_weights = np.asarray(draws.log_p, np.float64) - np.asarray(draws.log_q, np.float64)
    centered = log_weights - np.nanmax(np.where(np.isfinite(log_weights), log_weights, -np.inf), initial=-np.inf)
    finite_log_p = draws.log_p[np.isfinite(draws.log_p)]
    resolution = float(np.finfo(draws.log_p.dtype).eps * np.abs(finite_log_p).max(initial=1.0))
    if resolution < _COARSE and np.ptp(centered) < _ROUNDING * resolution:
        centered = np.zeros_like(centered)  # equal but for rounding, whose tail says nothing
    smoothed = pareto_smooth(np.where(np.isnan(log_weights), np.nan, centered))  # by numpy, which compiles nothing
    ess = float(effective_sample_size(smoothed.log_weights))
    weights = np.exp(np.asarray(smoothed.log_weights, np.float64))
    weights /= weights.sum()
    corrected_means = weights @ values
    corrected_sds = np.sqrt(weights @ (values - corrected_means) ** 2)
    elbo = mean_estimate(log_weights)
    known = None if target.log_normalizer is None else float(target.log_normalizer)
    log_z = _log_mean_estimate(log_weights)
    chi_square = chi_square_limit(centered)
    bounds = (None, None) if chi_square is None else moment_bounds(values, chi_square)
    sd_khats = tails(values, np.exp(np.where(np.isfinite(log_weights), centered, -np.inf)))
    rows = _rows(labels, values, means, sds, corrected_means, corrected_sds, *bounds, sd_khats)
    evidence = Evidence(
        threshold,
        finite=finite and bool(np.isfinite(log_weights).any()),
        khat=float(smoothed.khat),
        ess=ess,
        num_samples=num,
        nonfinite_draws=int(np.sum(~np.isfinite(log_weights))),
        labels=labels,
        means=means,
        sds=sds,
        corrected_means=corrected_means,
        corrected_sds=corrected_sds,
        resolution=resolution,
        gap=float(log_z.value) - float(elbo.value),
        excess=0.0 if known is None else (float(elbo.value) - known) / max(float(elbo.standard_error), 1e-3),
        unsettled=_unsettled(rows),
        sd_khats=sd_khats,
        far=far,
    )
    reliable, reason = verdict(evidence)
    return Report(
        dim=target.dim,
        family=repr(family),
        num_samples=num,
        elbo=elbo,
        khat=float(smoothed.khat),
        khat_threshold=threshold,
        ess=ess,
        log_normalizer=log_z,
        reverse_kl=None if known is None else Estimate(known - elbo.value, elbo.standard_error, elbo.num_effective),
        reliable=reliable,
        reason=reason,
        coordinates=rows,
        upper_bound=upper_bound if upper_bound is not None else _upper_bound(log_weights, float(smoothed.khat)),
        forward_kl=_forward_kl(log_weights, weights) if float(smoothed.khat) < _LIGHT_TAIL else None,
        chi_square=chi_square,
        wasserstein=None if chi_square is None else wasserstein_bounds(np.asarray(draws.z, np.float64), chi_square),
        warnings=coordinate_warnings(target, labels, values, weights),
    )


def wants_more_draws(report: Report) -> bool:
    """Return whether a fit is believed although weights with a heavy tail move an sd: more may move it farther."""
    if not report.reliable or report.khat is None:
        return False
    return any(
        max(row.sd_khat or -math.inf, report.khat) >= _LIGHT_TAIL
        and abs(row.sd / (row.corrected_sd or row.sd) - 1) > _MOVED
        for row in report.coordinates.values()
        if row.sd > 0
    )


def _unsettled(rows: dict[str, Coordinate]) -> str:
    """Name the coordinate whose sd has the largest relative error, where that is large."""
    errors = {label: row.sd_standard_error / row.sd for label, row in rows.items() if row.sd > 0}
    worst = max(errors, key=lambda label: errors[label], default="")
    return worst if worst and errors[worst] > _LARGEST_SD_ERROR else ""


def _kept_draws(target: Target) -> tuple[tuple[np.ndarray, np.ndarray] | None, float | None]:
    """Moments of the draws a target was made from, by weight, and how many they are worth."""
    if target.draws is None:
        return None, None
    _, values = coordinates(target.draws)
    log_weights = target.draws_log_weights
    weights = np.ones(len(values)) if log_weights is None else np.asarray(jax.nn.softmax(log_weights), np.float64)
    weights = weights / weights.sum()
    mean = weights @ values
    return (mean, np.sqrt(weights @ (values - mean) ** 2)), float(1 / np.sum(weights**2))


def mean_estimate(values: np.ndarray) -> Estimate:
    """Return the mean with its standard error, infinite where a value is not finite."""
    num = len(values)
    error = float(np.std(values, ddof=1) / math.sqrt(num)) if np.isfinite(values).all() else math.inf
    return Estimate(float(np.mean(values)), error, float(num))


def _log_mean_estimate(log_weights: np.ndarray) -> Estimate:
    finite = np.where(np.isfinite(log_weights), log_weights, -np.inf)
    largest = finite.max()
    if not np.isfinite(largest):
        return Estimate(math.nan, math.inf, 0.0)
    weights = np.exp(finite - largest)
    mean, num = weights.mean(), len(weights)
    effective = weights.sum() ** 2 / np.sum(weights**2)
    error = weights.std(ddof=1) / math.sqrt(num) / mean  # delta method
    return Estimate(float(largest + math.log(mean)), float(error), float(effective))


def _forward_kl(log_weights: np.ndarray, weights: np.ndarray) -> Estimate:
    """Return E_p[log p̃/q] − log Z, both by weights that sum to one, with the error of the delta method."""
    num = len(weights)
    relative = num * weights
    ratio = np.where(weights > 0, log_weights, 0.0)
    largest = ratio.max()
    log_z = float(largest + np.log(np.mean(np.where(weights > 0, np.exp(ratio - largest), 0.0))))
    center = float(weights @ ratio)
    influence = relative * (ratio - center) - (relative - 1)
    return Estimate(center - log_z, float(influence.std(ddof=1) / math.sqrt(num)), float(1 / np.sum(weights**2)))


def _upper_bound(log_weights: np.ndarray, khat: float) -> Estimate | None:
    """Return ½ log of the mean squared weight: above log Z by ½ log(1 + χ²(p‖q))."""
    if not (np.isfinite(log_weights).all() and khat < _LIGHT_TAIL):
        return None
    mean = _log_mean_estimate(2 * log_weights)
    return Estimate(0.5 * float(mean.value), 0.5 * float(mean.standard_error), mean.num_effective)


def _rows(
    labels: tuple[str, ...],
    values: np.ndarray,
    means: np.ndarray,
    sds: np.ndarray,
    *columns: np.ndarray | None,
) -> dict[str, Coordinate]:
    """Make one row a coordinate; `columns` are its further fields in order, None for those that are not known."""
    num = len(values)
    # Standard error of a standard deviation from the fourth moment, by the delta method.
    fourth = np.mean((values - means) ** 4, axis=0)
    sd_errors = np.sqrt(np.maximum(fourth - sds**4, 0.0) / num) / (2 * np.maximum(sds, np.finfo(float).tiny))
    return {
        label: Coordinate(
            float(means[i]),
            float(sds[i] / math.sqrt(num)),
            float(sds[i]),
            float(sd_errors[i]),
            *(None if column is None else float(column[i]) for column in columns),
        )
        for i, label in enumerate(labels)
    }
