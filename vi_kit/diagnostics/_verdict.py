"""The verdict: whether to believe a fit, in one plain sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_LEAST_ESS = 100.0
_LARGEST_SHIFT = 0.3
_LARGEST_SHIFT_NOISY = 0.15
_LARGEST_GAP = 0.3
_COARSEST = 0.1
_LARGEST_EXCESS = 6.0
_NOISY_KHAT = 0.5  # beyond it the weights have no variance, and the change they show falls short of the true one


@dataclass(frozen=True)
class Evidence:
    """What the verdict is made from."""

    khat_threshold: float
    finite: bool
    labels: tuple[str, ...]
    means: np.ndarray
    sds: np.ndarray
    khat: float | None = None
    ess: float | None = None
    num_samples: int = 0
    nonfinite_draws: int = 0
    corrected_means: np.ndarray | None = None
    corrected_sds: np.ndarray | None = None
    given: tuple[np.ndarray, np.ndarray] | None = None
    resolution: float = 0.0  # nats between neighboring values of the log density in its floating-point type
    gap: float = 0.0  # log Z by importance sampling less the ELBO: an estimate of KL(q‖p)
    excess: float = 0.0  # standard errors by which the ELBO is above the log normalizer that was given
    unsettled: str = ""  # a coordinate whose sd is still noise at this number of draws


def verdict(evidence: Evidence) -> tuple[bool, str]:
    """Return whether the fit is reliable and why, in one sentence."""
    if not evidence.finite:
        return False, "Do not believe it: the fit ended on numbers that are not finite."
    if evidence.khat is None:
        return _against_given_draws(evidence)
    if evidence.nonfinite_draws:
        return False, (
            f"Do not believe it: the log density is not finite at {evidence.nonfinite_draws} of "
            f"{evidence.num_samples} draws of q, so q reaches where the target has no mass or cannot be evaluated."
        )
    if evidence.resolution > _COARSEST:
        return False, (
            "Do not believe it: the log density is so large that rounding hides differences below "
            f"{evidence.resolution:.2g} nats; subtract a constant from it, rescale its variables, or use float64."
        )
    if evidence.excess > _LARGEST_EXCESS:
        return False, (
            "Do not believe it: the ELBO is above the log_normalizer that was given, which no ELBO can be; that number "
            "or the log density is wrong."
        )
    if evidence.num_samples < _LEAST_ESS:
        return False, (
            f"Do not believe it yet: the budget allowed only {evidence.num_samples} draws to judge it by, and it takes "
            f"{_LEAST_ESS:.0f}; allow more seconds or evaluations."
        )
    if evidence.khat >= evidence.khat_threshold:
        return False, (
            f"Do not believe it: Pareto k̂ = {_shown(evidence)} is not below {evidence.khat_threshold:.2f}, so q "
            "misses mass of the target that importance weights cannot bring back; try a richer family, more steps, or "
            "a start= nearer to where the mass is."
        )
    if evidence.ess is None or evidence.ess < _LEAST_ESS:
        return False, (
            f"Do not believe it: the importance weights are worth only {evidence.ess or 0:.0f} of "
            f"{evidence.num_samples} draws; try a richer family or more steps."
        )
    if evidence.khat >= _NOISY_KHAT and evidence.gap > _LARGEST_GAP:
        return False, (
            f"Do not believe it: q is about {evidence.gap:.2f} nats of KL(q‖p) away, and with k̂ = {evidence.khat:.2f} "
            "the importance weights are too noisy to say what that does to means and sds; try a richer family."
        )
    if evidence.unsettled:
        return False, (
            f"Do not believe the sd of {evidence.unsettled}: it has so heavy a tail that {evidence.num_samples} draws "
            "do not settle it; read its quantiles instead."
        )
    shift, label = _largest_shift(evidence)
    limit = _LARGEST_SHIFT if evidence.khat < _NOISY_KHAT else _LARGEST_SHIFT_NOISY
    if shift > limit:
        return False, (
            f"Do not believe q itself: importance weights, with k̂ = {evidence.khat:.2f}, move the mean or sd of "
            f"{label} by {shift:.2f} sd, more than {limit:.2f}; draws from posterior.resample, which corrects for it, "
            "are closer."
        )
    most = f" ({label} the most)" if shift >= 0.01 else ""
    return True, (
        f"Believe it: Pareto k̂ = {_shown(evidence)} is below {evidence.khat_threshold:.2f}, and the importance "
        f"weights it vouches for change no mean or sd by more than {max(shift, 0.01):.2f} sd{most}; a mode that no "
        "draw of q reaches cannot be seen from here."
    )


def _shown(evidence: Evidence) -> str:
    """Format k̂ so that rounding does not put it on the other side of its threshold."""
    khat = math.inf if evidence.khat is None else evidence.khat
    if not math.isfinite(khat):
        return "∞" if khat > 0 else "−∞"
    same = f"{khat:.2f}" == f"{evidence.khat_threshold:.2f}"
    return f"{khat:.4f}" if same else f"{khat:.2f}"


def _largest_shift(evidence: Evidence) -> tuple[float, str]:
    """Return the largest change that importance weights make to a mean or sd, in posterior sds."""
    corrected_means, corrected_sds = evidence.corrected_means, evidence.corrected_sds
    assert corrected_means is not None, "weights come with corrected moments"
    assert corrected_sds is not None, "weights come with corrected moments"
    return _largest_difference(evidence, corrected_means, corrected_sds)


def _largest_difference(evidence: Evidence, means: np.ndarray, sds: np.ndarray) -> tuple[float, str]:
    unit = np.where(sds > 0, sds, 1.0)
    changes = np.maximum(np.abs(evidence.means - means) / unit, np.abs(evidence.sds / unit - 1.0) * (sds > 0))
    worst = int(np.argmax(changes)) if len(changes) else 0
    return (float(changes[worst]), evidence.labels[worst]) if len(changes) else (0.0, "")


def _against_given_draws(evidence: Evidence) -> tuple[bool, str]:
    if evidence.given is None:
        return False, "Do not believe it yet: the target has no density and no draws to judge it by."
    means, sds = evidence.given
    if evidence.ess is not None and evidence.ess < _LEAST_ESS:
        return False, (
            f"Do not believe it: the weights of the given draws are worth only {evidence.ess:.0f} draws; give more "
            "draws or better weights."
        )
    shift, label = _largest_difference(evidence, means, sds)
    if not math.isfinite(shift) or shift > _LARGEST_SHIFT:
        return False, (
            f"Do not believe it: the mean or sd of {label} is {shift:.2f} sd away from that of the given draws."
        )
    return True, (
        f"Believe its means and sds: they are within {max(shift, 0.01):.2f} sd of those of the given draws; there "
        "is no density, so the shape of q between them was not judged."
    )
