"""What looking elsewhere has shown, and what that does to the verdict on a fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vi_kit._agreement import lacking, mass_of, separate, together
from vi_kit._evaluator import Evaluator
from vi_kit._gaussian_fit import GaussianFit
from vi_kit._posterior import Posterior
from vi_kit._restarts import NEAREST, Beyond, Exploration, Mass
from vi_kit._types import Target
from vi_kit.diagnostics import Report
from vi_kit.diagnostics._draws import Draws

_MOST_MISSING = 0.05  # of the mass, farther out than draws of q
_MOST_SPREAD_MISSING = 0.2  # of the variance, in that mass: a tenth of an sd


class Findings:
    """Where dispersed starts ended and how much mass lies farther out than draws; nothing before they were made."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.agreement = ""
        self.doubt = "the fit ended before other starts could be tried, and nobody looked for another mode"
        self.near: Mass | None = None
        self.beyond: Beyond | None = None
        self.whole: Mass | None = None
        self.spreads: tuple[np.ndarray, ...] = ()
        self.places, self.heights = np.zeros((1, target.dim)), np.zeros(1)

    def weigh_near(self, gaussian: GaussianFit, draws: Draws) -> None:
        """Keep what draws of the Gaussian say of the mass within the distance from which on others looked."""
        assert draws.log_p is not None, "the target has a density"
        lengths = np.linalg.norm(gaussian.whiten(np.asarray(draws.z, np.float64)), axis=1)
        near = lengths < NEAREST * math.sqrt(self.target.dim)
        log_weights = np.asarray(draws.log_p, np.float64) - np.asarray(draws.log_q, np.float64)
        self.near = mass_of(log_weights, near)

    def add(self, found: Exploration, evaluate: Evaluator) -> None:
        """Keep what an exploration found."""
        places = np.stack([fit.mean for fit in found.fits])
        self.heights, _ = evaluate(places)  # raises where the budget ends, and nothing is known then
        several = len(found.fits) > 1
        where = f"in {len(found.fits)} places" if several else "in the same place"
        self.agreement = f"{found.num_starts} dispersed starts ended {where}"
        self.doubt = "" if found.complete else f"{self.agreement}, the last of them in new ones: there may be more"
        self.places, self.spreads = places, tuple(fit.scale for fit in found.fits)
        if found.beyond is not None and self.near is not None and not several:
            self.beyond, self.whole = found.beyond, together(self.near, found.beyond.mass)

    def misses(self, posterior: Posterior) -> str:
        """Say how much of the mass this fit's own weights do not know of, where points farther out show it."""
        found = posterior.report.log_normalizer
        if self.whole is None or self.beyond is None or found is None:
            return ""
        missing = 1 - math.exp(min(float(found.value) - self.whole.log_mass, 0.0))
        noise = 2 * math.hypot(self.whole.error, float(found.standard_error))
        if not missing > noise or not (missing > _MOST_MISSING or missing * self.beyond.square > _MOST_SPREAD_MISSING):
            return ""
        return (
            f"points farther out than draws of q hold about {missing:.1%} of the mass, "
            f"{math.sqrt(self.beyond.square):.1f} sd out, so its tails are too light"
        )

    def _lacks(self, posterior: Posterior) -> str:
        """Say of how many places, where starts ended, q has too little."""
        if len(self.places) == 1:
            return ""
        log_normalizer = posterior.report.log_normalizer
        assert log_normalizer is not None, "the target has a density"
        value = float(log_normalizer.value)
        missing = lacking(posterior.family, posterior.params, self.places, self.heights, value)
        return f"{self.agreement}, of which q lacks {missing}" if missing else ""

    def believes(self, posterior: Posterior) -> bool:
        """Return whether a fit's own verdict stands, as far as the mass farther out goes."""
        return posterior.report.reliable and not self.misses(posterior)

    def best(self, posteriors: Sequence[Posterior], improper: str) -> Posterior:
        """Return the fit that can be believed, or the one of highest ELBO, with the verdict that all of this leaves.

        Args:
            posteriors: the fits, one a rung.
            improper: what speaks for an improper posterior, if anything does.
        """

        def worth(posterior: Posterior) -> tuple[bool, float]:
            elbo = posterior.report.elbo
            value = float(elbo.value) if elbo is not None else float("nan")
            return self.believes(posterior), value if np.isfinite(value) else -np.inf

        best = max(posteriors, key=worth)
        warnings = (*best.report.warnings, *separate(self.target, self.places, self.spreads))
        return replace(best, report=replace(self._judged(best, improper), warnings=warnings))

    def _judged(self, best: Posterior, improper: str) -> Report:
        report = best.report
        doubt = improper
        if not doubt and report.reliable:
            doubt = self.doubt or self._lacks(best) or self.misses(best)
        if doubt:
            return replace(report, reliable=False, reason=f"Do not believe it: {doubt}.")
        if report.reliable:
            return replace(report, reason=f"{report.reason} {self.agreement[:1].upper()}{self.agreement[1:]}.")
        return report
