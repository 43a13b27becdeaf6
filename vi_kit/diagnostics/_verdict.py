"""The verdict: whether to believe a fit, in one plain sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vi_kit.diagnostics._far_out import FarOut

_LEAST_ESS = 100.0
_LARGEST_SHIFT = 0.3
_LARGEST_SHIFT_NOISY = 0.15
_LARGEST_SHIFT_HEAVY = 0.1
_LARGEST_GAP = 0.3
_COARSEST = 0.1
_ROUNDING = 1e-12  # sd over mean, of double precision
_LARGEST_EXCESS = 6.0
_NOISY_KHAT = 0.5  # beyond it the weights have no variance, and the change they show falls short of the true one
_HEAVY_KHAT = 0.7  # beyond it by more: draws that do not come hold a good part of the mean
_EVEN = 0.9  # of the draws, that weights are worth where k̂ may be large: their tail then is of small differences
_KNOWN_MASS, _KNOWN_SPREAD = 0.01, 0.05  # that p may have where it is twice q, and of a variance


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
    sd_khats: np.ndarray | None = None  # by coordinate, of weights times squares: what the corrected sds are means of
    far: tuple[FarOut, ...] = ()  # what p has farther out than draws of q, by the points that were looked at there

    @property
    def even(self) -> bool:
        """Whether weights are nearly even and nothing lies farther out, so that their tail does not matter."""
        if not self.far or self.ess is None or self.ess < _EVEN * self.num_samples:
            return False
        return all(far.outside < _KNOWN_MASS and far.outside_spread < _KNOWN_SPREAD for far in self.far)


def verdict(evidence: Evidence) -> tuple[bool, str]:
    """Return whether the fit is reliable and why, in one sentence."""
    threshold = evidence.khat_threshold
    if not evidence.finite:
        return False, "Do not believe it: the fit ended on numbers that are not finite."
    if evidence.khat is None:
        return _against_given_draws(evidence)
    if evidence.nonfinite_draws:
        return False, (
            f"Do not believe it: the log density is not finite at {evidence.nonfinite_draws} of "
            f"{evidence.num_samples} draws of q, so q reaches where the target has no mass or cannot be evaluated."
        )
    endless = ~(np.isfinite(evidence.means) & np.isfinite(evidence.sds))
    if endless.any():
        return False, (
            f"Do not believe it: {evidence.labels[int(np.argmax(endless))]} is not finite at draws of q, where the log "
            "density is."
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
    missing = next((far.missing for far in evidence.far if far.missing), "")
    if missing:
        return False, f"Do not believe it: {missing}."
    if evidence.khat >= threshold and not evidence.even:
        if evidence.ess is not None and evidence.ess >= _EVEN * evidence.num_samples:
            return False, (
                f"Do not believe it: Pareto k̂ = {_shown(evidence.khat, threshold)} is not below {threshold:.2f}; the "
                f"weights are worth {evidence.ess:.0f} of {evidence.num_samples} draws, but nothing shows that no mass "
                "lies farther out, where they grow."
            )
        return False, (
            f"Do not believe it: Pareto k̂ = {_shown(evidence.khat, threshold)} is not below {threshold:.2f}, so q "
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
    shift, limit, label, khat = _worst_shift(evidence, relative=True)
    if shift > limit:
        of_sd = f" for the sd of {label}, move that" if khat > evidence.khat else f", move the mean or sd of {label}"
        return False, (
            f"Do not believe q itself: importance weights, with k̂ = {_shown(khat, threshold)}{of_sd} by {shift:.2f} "
            f"sd, more than {limit:.2f}; draws from posterior.resample, which corrects for it, are closer."
        )
    shift, _, label, _ = _worst_shift(evidence, relative=False)
    most = f" ({label} the most)" if shift >= 0.01 else ""
    change = f"change no mean or sd by more than {max(shift, 0.01):.2f} sd{most}"
    if evidence.khat >= threshold:
        return True, (
            f"Believe it: the importance weights are worth {evidence.ess:.0f} of {evidence.num_samples} draws, and "
            f"points up to 40 sd farther out show no more mass than q has there, so Pareto k̂ = "
            f"{_shown(evidence.khat, threshold)} is that of small differences; they {change}."
        )
    return True, (
        f"Believe it: Pareto k̂ = {_shown(evidence.khat, threshold)} is below {threshold:.2f}, and the importance "
        f"weights it vouches for {change}; a mode that no draw of q reaches cannot be seen from here."
    )


def _shown(khat: float, threshold: float) -> str:
    """Format k̂ so that rounding does not put it on the other side of its threshold."""
    if not math.isfinite(khat):
        return "∞" if khat > 0 else "−∞"
    same = f"{khat:.2f}" == f"{threshold:.2f}"
    return f"{khat:.4f}" if same else f"{khat:.2f}"


def _worst_shift(evidence: Evidence, *, relative: bool) -> tuple[float, float, str, float]:
    """Return the largest change that importance weights make to a mean or sd, in sds, its limit, the label and k̂.

    With `relative` it is the one that comes closest to its limit, which is lower where weights show too little of it.
    """
    corrected_means, corrected_sds, khat = evidence.corrected_means, evidence.corrected_sds, evidence.khat
    assert corrected_means is not None, "weights come with corrected moments"
    assert corrected_sds is not None, "weights come with corrected moments"
    assert khat is not None, "weights come with their k̂"
    if not evidence.labels:
        return 0.0, _LARGEST_SHIFT, "", khat
    sd_khats = np.full(len(evidence.labels), khat) if evidence.sd_khats is None else evidence.sd_khats
    means, sds = _differences(evidence, corrected_means, corrected_sds)
    shifts = np.concatenate([means, sds])
    khats = np.concatenate([np.full(len(means), khat), np.maximum(sd_khats, khat)])
    limits = np.select(
        [khats < _NOISY_KHAT, khats < _HEAVY_KHAT], [_LARGEST_SHIFT, _LARGEST_SHIFT_NOISY], _LARGEST_SHIFT_HEAVY
    )
    worst = int(np.argmax(shifts / limits if relative else shifts))
    label = evidence.labels[worst % len(evidence.labels)]
    return float(shifts[worst]), float(limits[worst]), label, float(khats[worst])


def _differences(evidence: Evidence, means: np.ndarray, sds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return by how many of these sds the means of q are off, and by what share its sds."""
    varies = sds > _ROUNDING * np.abs(means)  # constants, such as the ones of a correlation matrix, are never off
    unit = np.where(varies, sds, 1.0)
    return np.abs(evidence.means - means) / unit, np.abs(evidence.sds / unit - 1.0) * varies


def _largest_difference(evidence: Evidence, means: np.ndarray, sds: np.ndarray) -> tuple[float, str]:
    changes = np.maximum(*_differences(evidence, means, sds))
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
