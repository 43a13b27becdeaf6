"""Both directions of KL between a target p and a fitted q, each with its error, or why it has none."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vi_kit._types import Estimate, Family, KeyArray, Params, Target, check_key
from vi_kit._weights import khat_threshold, pareto_smooth
from vi_kit.diagnostics._draws import draw
from vi_kit.diagnostics._report import mean_estimate
from vi_kit.diagnostics._target_draws import TargetDraws, log_q_at
from vi_kit.targets._reference import Reference


@dataclass(frozen=True)
class Measurement:
    """A number with how it was found and whether to believe it.

    Attributes:
        estimate: value and standard error in nats; None where no number can be trusted.
        source: how it was found, in words.
        khat: the largest Pareto k̂ of what was averaged; None where nothing was.
        caveat: why there is no number; empty where there is one.
    """

    estimate: Estimate | None
    source: str
    khat: float | None = None
    caveat: str = ""


def log_normalizer(target: Target, reference: Reference | None, draws: TargetDraws | None) -> Measurement:
    """Return log Z: the known one, else the reference's, else by importance sampling from weighted draws."""
    if target.log_normalizer is not None:
        return Measurement(_estimate(float(target.log_normalizer), 0.0, math.inf), "known exactly")
    if reference is not None and reference.log_normalizer is not None:
        error = reference.log_normalizer_standard_error or 0.0
        return Measurement(_estimate(reference.log_normalizer, error, math.inf), "from the reference")
    if draws is None or draws.log_weights is None:
        return Measurement(None, "not known", caveat="there are no importance weights to estimate it from")
    source = f"estimated from {draws.source}"
    khat = _tail(draws.log_weights)
    caveat = _untrusted(khat, len(draws.log_weights))
    if caveat:
        return Measurement(None, source, khat, caveat)
    weights, largest = _weights(draws.log_weights)
    mean = weights.mean()
    error = weights.std(ddof=1) / math.sqrt(len(weights)) / mean
    return Measurement(_estimate(largest + math.log(mean), error, _effective(weights)), source, khat)


def forward_kl(draws: TargetDraws, family: Family, params: Params, log_z: Measurement | None = None) -> Measurement:
    r"""Estimate KL(p‖q) from draws of p.

    $$ KL(p\|q) = E_p[\log\tilde p(z) - \log q(z)] - \log Z $$

    With weighted draws the mean is self-normalized, and its standard error is that of the delta method. The
    number is withheld where the tail of what is averaged (weights, or weights times log ratios) has a Pareto
    k̂ that says the mean has not settled.

    Args:
        draws: draws of p, by `exact_draws`, `reference_draws` or `weighted_draws`.
        family: the family of q.
        params: its parameters.
        log_z: log Z; None estimates it from the same weights, with the joint standard error.

    Returns:
        KL(p‖q) in nats.

    Raises:
        ValueError: when log Z is neither given nor to be had from weights.
    """
    ratio = draws.log_p - log_q_at(family, params, draws.z)
    log_weights = np.zeros(len(ratio)) if draws.log_weights is None else draws.log_weights
    source = f"over {draws.source}"
    if log_z is not None and log_z.estimate is None:
        return Measurement(None, source, log_z.khat, f"log Z is missing: {log_z.caveat}")
    if log_z is None and draws.log_weights is None:
        raise ValueError("log_z: expected a Measurement, for draws without weights do not tell log Z; got None")
    weights, largest = _weights(log_weights)
    positive = weights > 0
    if not np.isfinite(ratio[positive]).all():
        return Measurement(_estimate(math.inf, math.inf, 0.0), source, caveat="q has no density at some draws of p")
    ratio = np.where(positive, ratio, 0.0)
    center = float(np.average(ratio, weights=weights))
    with np.errstate(divide="ignore"):
        khat = max(_tail(log_weights), _tail(log_weights + np.log(np.abs(ratio - center))))
    caveat = _untrusted(khat, len(ratio))
    if caveat:
        return Measurement(None, source, khat, caveat)
    relative = weights / weights.mean()
    influence = relative * (ratio - center)
    if log_z is None:
        constant, error = largest + math.log(weights.mean()), 0.0
        influence = influence - (relative - 1.0)
    else:
        assert log_z.estimate is not None, "a missing log Z was refused above"
        constant, error = float(log_z.estimate.value), float(log_z.estimate.standard_error)
    own = float(np.std(influence, ddof=1)) / math.sqrt(len(influence))
    return Measurement(_estimate(center - constant, math.hypot(own, error), _effective(weights)), source, khat)


def reverse_kl(
    key: KeyArray,
    target: Target,
    family: Family,
    params: Params,
    log_z: Measurement,
    num_samples: int = 4_096,
) -> Measurement:
    r"""Estimate KL(q‖p) from draws of q.

    $$ KL(q\|p) = \log Z - ELBO, \quad ELBO = E_q[\log\tilde p(z) - \log q(z)] $$

    Args:
        key: a typed key.
        target: p.
        family: the family of q.
        params: its parameters.
        log_z: log Z, by `log_normalizer`.
        num_samples: draws of q.

    Returns:
        KL(q‖p) in nats; no number where log Z has none or the ELBO's tail is too heavy for one.
    """
    check_key(key)
    draws = draw(key, target, family, params, num_samples)
    ratio = np.asarray(draws.log_p, np.float64) - np.asarray(draws.log_q, np.float64)
    source = f"over {num_samples:,} draws of q"
    if log_z.estimate is None:
        return Measurement(None, source, log_z.khat, f"log Z is missing: {log_z.caveat}")
    if not np.isfinite(ratio).all():
        return Measurement(_estimate(math.inf, math.inf, 0.0), source, caveat="p has no density at some draws of q")
    with np.errstate(divide="ignore"):
        khat = _tail(np.log(np.abs(ratio - ratio.mean())))
    caveat = _untrusted(khat, num_samples)
    if caveat:
        return Measurement(None, source, khat, caveat)
    elbo = mean_estimate(ratio)
    error = math.hypot(float(elbo.standard_error), float(log_z.estimate.standard_error))
    value = float(log_z.estimate.value) - float(elbo.value)
    return Measurement(_estimate(value, error, float(num_samples)), source, khat)


def _estimate(value: float, error: float, effective: float) -> Estimate:
    return Estimate(float(value), float(error), float(effective))


def _weights(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Return weights relative to the largest one, and its logarithm."""
    values = np.asarray(log_weights, np.float64)
    finite = np.where(np.isnan(values), -np.inf, values)
    largest = float(finite.max())
    largest = largest if math.isfinite(largest) else 0.0
    return np.exp(finite - largest), largest


def _effective(weights: np.ndarray) -> float:
    return float(weights.sum() ** 2 / np.sum(weights**2))


def _tail(log_values: np.ndarray) -> float:
    """Return the Pareto k̂ of positive values given by their logarithms."""
    values = np.asarray(log_values, np.float64)
    if not (values < np.inf).all() or not np.isfinite(values).any():
        return math.inf
    return float(pareto_smooth(values - values.max()).khat)


def _untrusted(khat: float, num: int) -> str:
    threshold = khat_threshold(num)
    if khat < threshold:
        return ""
    return f"Pareto k̂ = {khat:.2f} is not below {threshold:.2f}, so the mean over these draws has not settled"
