"""What looking elsewhere has shown, and what that does to the verdict on a fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit._agreement import coordinates_at, lacking, separate
from vi_kit._evaluator import Evaluator
from vi_kit._posterior import Posterior
from vi_kit._restarts import Exploration
from vi_kit._types import Target
from vi_kit.diagnostics import Report
from vi_kit.diagnostics._draws import Draws
from vi_kit.diagnostics._far_out import FarPoints, compare_far_out
from vi_kit.diagnostics._report import judge
from vi_kit.diagnostics._target_draws import log_q_at


class Findings:
    """Where dispersed starts ended, and what was seen farther out than draws; nothing before they were made."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.agreement = ""
        self.doubt = "the fit ended before other starts could be tried, and nobody looked for another mode"
        self.far: tuple[tuple[FarPoints, np.ndarray, np.ndarray], ...] = ()  # with log p̃ and the user's coordinates
        self.light_tails = False  # of the fit that was judged last
        self.spreads: tuple[np.ndarray, ...] = ()
        self.places, self.heights = np.zeros((1, target.dim)), np.zeros(1)

    def add(self, found: Exploration, evaluate: Evaluator) -> None:
        """Keep what an exploration found."""
        places = np.stack([fit.mean for fit in found.fits])
        self.heights, _ = evaluate(places)  # raises where the budget ends, and nothing is known then
        several = len(found.fits) > 1
        where = f"in {len(found.fits)} places" if several else "in the same place"
        self.agreement = f"{found.num_starts} dispersed starts ended {where}"
        self.doubt = "" if found.complete else f"{self.agreement}, the last of them in new ones: there may be more"
        self.places, self.spreads = places, tuple(fit.scale for fit in found.fits)
        self.far = tuple((at, log_p, coordinates_at(self.target, at.points)) for at, log_p in found.far)

    def revised(self, posterior: Posterior, draws: Draws) -> Posterior:
        """Judge a fit again, of these draws: has it the places that were found, and what p has farther out?"""
        report = posterior.report
        if report.reliable and (lacks := self._lacks(posterior)):
            return replace(posterior, report=replace(report, reliable=False, reason=f"Do not believe it: {lacks}."))
        found = report.log_normalizer
        if not self.far or found is None or not np.isfinite(float(found.value)):
            return posterior
        log_z = float(found.value), float(found.standard_error)
        rows = report.coordinates.values()
        means, sds = np.array([row.mean for row in rows]), np.array([row.sd for row in rows])
        far = []
        for at, log_p, values in self.far:
            log_q = log_q_at(posterior.family, posterior.params, np.asarray(at.points, jnp.result_type(float)))
            with np.errstate(all="ignore"):
                standardized = np.where(sds > 0, (values - means) / sds, 0.0)
            far.append(compare_far_out(at.log_volumes, log_p, log_q, standardized, *log_z))
        self.light_tails = any(of.missing for of in far)
        finite = all(bool(np.isfinite(leaf).all()) for leaf in jax.device_get(jax.tree.leaves(posterior.params)))
        again = judge(self.target, posterior.family, draws, finite=finite, far=tuple(far))
        return replace(posterior, report=replace(report, reliable=again.reliable, reason=again.reason))

    def _lacks(self, posterior: Posterior) -> str:
        """Say of how many places, where starts ended, q has too little."""
        if len(self.places) == 1:
            return ""
        log_normalizer = posterior.report.log_normalizer
        assert log_normalizer is not None, "the target has a density"
        value = float(log_normalizer.value)
        missing = lacking(posterior.family, posterior.params, self.places, self.heights, value)
        return f"{self.agreement}, of which q lacks {missing}" if missing else ""

    def best(self, posteriors: Sequence[Posterior], improper: str) -> Posterior:
        """Return the fit that can be believed, or the one of highest ELBO, with the verdict that all of this leaves.

        Args:
            posteriors: the fits, one a rung.
            improper: what speaks for an improper posterior, if anything does.
        """

        def worth(posterior: Posterior) -> tuple[bool, float]:
            elbo = posterior.report.elbo
            value = float(elbo.value) if elbo is not None else float("nan")
            return posterior.report.reliable, value if np.isfinite(value) else -np.inf

        best = max(posteriors, key=worth)
        warnings = (*best.report.warnings, *separate(self.target, self.places, self.spreads))
        return replace(best, report=replace(self._judged(best, improper), warnings=warnings))

    def _judged(self, best: Posterior, improper: str) -> Report:
        report = best.report
        doubt = improper or (self.doubt if report.reliable else "")
        if doubt:
            return replace(report, reliable=False, reason=f"Do not believe it: {doubt}.")
        if report.reliable:
            return replace(report, reason=f"{report.reason} {self.agreement[:1].upper()}{self.agreement[1:]}.")
        return report
