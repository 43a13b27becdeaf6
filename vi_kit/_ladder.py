"""What `fit` does where it is given no algorithm: rungs from cheap to rich, until the answer can be believed.

1. A Gaussian by natural gradients: nothing to tune, one program for the density and its gradient.
2. Climbs from dispersed starts. Where they end in other modes: a mixture with a component for each.
3. Where modes are not Gaussian enough, in few coordinates: a mixture with several components for each.
4. A flow that starts as the Gaussian of 1; once more with more draws a step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit import families
from vi_kit._budget import Budget, OutOfBudgetError
from vi_kit._checkpoint import Checkpoint
from vi_kit._driver import Callback, Run, conclude
from vi_kit._evaluator import Evaluator
from vi_kit._far_points import heavy_ways
from vi_kit._findings import Findings
from vi_kit._gaussian_fit import GaussianFit, fit_gaussian
from vi_kit._members import gaussian_member, mixture_member, short_name, start_from
from vi_kit._mixture_fit import MODES, PARTS, Adaptation, MixtureFit, fit_mixture, of_modes, parted
from vi_kit._nonfinite import explain_start, named
from vi_kit._posterior import History, Posterior
from vi_kit._progress import Progress, ProgressBar
from vi_kit._restarts import MOST_SCREENED, explore
from vi_kit._training import Training, steps_within
from vi_kit._types import Family, KeyArray, Params, Target
from vi_kit._weights import tail_size

LARGEST_FULL_RANK = 300
MOST_STEPS = 120
_START_SCALES = (0.1, 0.01, 1e-3)  # the first that keeps the draws where the density is finite
_OTHER_STARTS = 8
_WIDENING = 1.3  # growth of a standard deviation in a last step, from which there may be no end to it
_LARGEST_FLOW = 64
_LARGEST_PARTED = 16
_NUM_PARTS, _MOST_PARTS = 8, 32
_HEAVY_WAYS = 2  # directions of large weights, along which to look for mass farther out
_PARTS_SHARE = 0.3  # of the seconds left, that a mixture of parts may take
_RANK = 10
_SCREENED_SHARE = 0.03  # of the budget, for points looked at before the first climbs
_BETWEEN_CALLS = 0.5  # seconds, of the callback while other modes are looked for
_TRAINING_COMPILES = 10.0  # seconds that a training is taken to compile for, until one has been seen


_FIRST, _SECOND, _LOW_RANK = Training(32, 1e-2), Training(256, 5e-3), Training(8, 1e-2)


class _AskedToStopError(Exception):
    """The callback wants the fit to end."""


class Ladder:
    """One fit without an algorithm, on the host."""

    def __init__(
        self,
        key: KeyArray,
        target: Target,
        budget: Budget,
        callback: Callback | None,
        bar: ProgressBar,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.key, host_key = jax.random.split(key)
        self.generator = np.random.default_rng(np.asarray(jax.random.key_data(host_key)).ravel())
        self.target = target
        self.budget = budget
        self.callback = callback
        self.bar = bar
        self.checkpoint = checkpoint
        self.evaluate = Evaluator(target, budget, checkpoint)
        self.story: list[str] = []
        self.posteriors: list[Posterior] = []
        self.gaussian: GaussianFit | None = None
        self.mixture: MixtureFit | None = None
        self.findings = Findings(target)
        self.improper = ""
        self.training_compiles = _TRAINING_COMPILES
        self.steps = 0
        self.shown = 0.0  # seconds at which the callback was last called
        self.compile_seconds = 0.0
        self.asked_to_stop = False
        self.stopped = "nothing was left to try"

    def run(self, mean: np.ndarray | None) -> Posterior:
        """Climb; return the best posterior there is when it can be believed, or nothing is left to try or to spend."""
        try:
            self._gaussian_rung(mean)
            self._judge_gaussian()
            self._other_rungs()
        except OutOfBudgetError as error:
            self.stopped = str(error)
        except _AskedToStopError:
            pass  # what `_best` says of it
        except KeyboardInterrupt:
            if self.gaussian is None:
                raise
            self.stopped = "interrupted"
        finally:
            if self.checkpoint is not None and self.gaussian is not None:
                self.checkpoint.write(now=True)
        if not self.posteriors:
            if self.gaussian is None:
                raise ValueError(f"max_seconds, max_evaluations: {self.stopped} before the first step was done")
            self._judge_gaussian()
        return self._best()

    # --- the rungs ----------------------------------------------------------------------------------------------------

    def _gaussian_rung(self, mean: np.ndarray | None) -> None:
        """Fit from the origin, or from the mean that was given; where the density is not finite there, nearby."""
        self.bar.begin("a Gaussian", MOST_STEPS)
        dim = self.target.dim
        origin = np.zeros(dim) if mean is None else mean
        for i in range(_OTHER_STARTS + 1):
            center = origin + (self.generator.normal(size=dim) if i else 0)
            for scale in _START_SCALES:
                first = np.full(dim, scale)
                found = fit_gaussian(
                    self.evaluate, center, np.diag(first) if dim <= LARGEST_FULL_RANK else first, self.generator,
                    most_steps=MOST_STEPS, watch=self._watch,
                )  # fmt: skip
                if found is not None:
                    self.gaussian = found
                    return
            if mean is not None:
                break
        raise ValueError(explain_start(self.target, jnp.asarray(origin, jnp.result_type(float))))

    def _watch(self, now: GaussianFit) -> bool:
        self.gaussian = now
        self.steps += 1
        self.compile_seconds = self.evaluate.compile_seconds
        self._show()
        return self.asked_to_stop

    def _show(self) -> None:
        """Show the bar and the callback how far the Gaussian has come."""
        assert self.gaussian is not None, "a step was taken"
        params = None if self.callback is None else gaussian_member(self.gaussian)[1]
        seconds, evaluations = self.budget.seconds(), self.budget.evaluations
        progress = Progress(self.steps, MOST_STEPS, -self.gaussian.elbo, None, seconds, evaluations, params)
        self.bar.update(progress)
        self.shown = seconds
        if self.callback is not None and self.callback(progress):
            self.asked_to_stop = True

    def _look(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Evaluate for a rung that has no steps; now and then the callback is asked whether to go on."""
        found = self.evaluate(points)
        if self.callback is not None and self.budget.seconds() > self.shown + _BETWEEN_CALLS:
            self._show()
            if self.asked_to_stop:
                raise _AskedToStopError
        return found

    def _judge_gaussian(self) -> None:
        assert self.gaussian is not None, "a Gaussian was fitted"
        family, params = gaussian_member(self.gaussian)
        how = f"{self.gaussian.steps} steps of natural gradients"
        self._conclude(family, params, how, _history(self.gaussian.losses), self.gaussian.steps)

    def _other_rungs(self) -> None:
        assert self.gaussian is not None, "a Gaussian was fitted"
        if self.asked_to_stop:
            return
        coordinate, growth = self.gaussian.widest
        if not self.gaussian.settled and growth > _WIDENING:
            label = named(self.target, np.arange(self.target.dim) == coordinate)
            self.improper = f"q kept widening along {label} to the last step, so the posterior may be improper there"
            return
        self.bar.begin("other modes", None)
        believed = self.posteriors[-1].report.reliable
        found = explore(
            self._look, self.gaussian, self.generator, doubted=not believed, num_screened=self._num_screened(),
            ways=self._heavy_ways(self.gaussian),
        )  # fmt: skip
        self.findings.add(found, self.evaluate)
        self.posteriors[-1] = self.findings.revised(self.posteriors[-1], self.draws)
        self.story.append(self.findings.agreement)
        if len(found.fits) > 1:
            self._mixture_rung(found.fits)
        if not self._is_done() and found.complete:
            self._richer_rungs()

    def _heavy_ways(self, gaussian: GaussianFit) -> np.ndarray:
        """Return the directions in which those draws of the Gaussian lie that have the largest weights."""
        log_weights = np.asarray(self.draws.log_p, np.float64) - np.asarray(self.draws.log_q, np.float64)
        largest = np.argsort(np.where(np.isnan(log_weights), -np.inf, log_weights))[-tail_size(len(log_weights)) :]
        whitened = gaussian.whiten(np.asarray(self.draws.z[largest], np.float64))
        return heavy_ways(whitened, np.zeros(len(largest)), _HEAVY_WAYS)

    def _num_screened(self) -> int:
        """Return how many points to look at before the first climbs: fewer where they are dear."""
        affordable = min(
            _SCREENED_SHARE * self.budget.max_seconds / max(self.budget.evaluation_seconds, 1e-9),
            _SCREENED_SHARE * (self.budget.max_evaluations or math.inf),
        )
        return int(min(MOST_SCREENED, affordable)) // 2 * 2

    def _mixture_rung(self, fits: tuple[GaussianFit, ...]) -> None:
        if self.target.dim > LARGEST_FULL_RANK:
            return
        self._adapt(of_modes(fits), MODES, "weighted draws from every mode")

    def _parts_rung(self) -> None:
        assert self.gaussian is not None, "a Gaussian was fitted"
        modes = of_modes([self.gaussian]) if self.mixture is None else self.mixture
        each = min(_NUM_PARTS, _MOST_PARTS // len(modes.weights))
        evaluations = PARTS.rounds * PARTS.draws
        seconds = evaluations * self.budget.evaluation_seconds
        if each < 2 or self.target.dim > _LARGEST_PARTED:
            return
        if evaluations > self.budget.evaluations_left() or seconds > _PARTS_SHARE * self.budget.seconds_left():
            self.story.append(f"a mixture of {each} parts a mode: beyond the budget")
            return
        self._adapt(parted(modes, self.generator, each), PARTS, f"weighted draws from {each} parts of every mode")

    def _adapt(self, start: MixtureFit, adaptation: Adaptation, how: str) -> None:
        self.bar.begin("a mixture", None)
        self.mixture = fit_mixture(self._look, start, self.generator, adaptation)
        if self.mixture is None:
            self.story.append(f"Mixture, {how}: given up, as these are worth too few")
            return
        family, params = mixture_member(self.mixture)
        self._conclude(family, params, how, _history(()), 0)

    def _richer_rungs(self) -> None:
        dim = self.target.dim
        if any(not math.isfinite(row.mean) for row in self.posteriors[-1].report.coordinates.values()):
            return  # a derived quantity that no family makes finite
        light_tails = self.findings.light_tails
        self._parts_rung()
        if self._is_done():
            return
        if dim > LARGEST_FULL_RANK:
            self._train(families.LowRank(dim, _RANK), None, _LOW_RANK)
        if dim > _LARGEST_FLOW:
            return
        flow, heavy = families.Flow(dim), families.Flow(dim, base=families.StudentT)
        if dim == 1 or light_tails:  # one coordinate couples to none
            self._train(heavy, None, _FIRST)
            return
        params = self._train(flow, None, _FIRST)
        if params is None or self._is_done():
            return
        report = self.posteriors[-1].report
        assert report.khat is not None, "the target has a density"
        # Where weights hold but change moments, it is the tails; else more draws a step show what is missing.
        tails = report.khat < report.khat_threshold
        for of_tails in (tails, not tails):
            went = self._train(heavy, None, _FIRST) if of_tails else self._train(flow, params, _SECOND)
            if went is None or self._is_done():
                return

    def _is_done(self) -> bool:
        return self.asked_to_stop or self.posteriors[-1].report.reliable

    def _start(self, family: Any) -> Params:
        """Return the member that equals the Gaussian of the first rung."""
        self.key, start_key = jax.random.split(self.key)
        first = self.posteriors[0]
        return start_from(start_key, first.params, first.family, family)

    def _train(self, family: Any, params: Params | None, training: Training) -> Params | None:
        """Train from these parameters, or from the first Gaussian; None where there is too little left to spend."""
        name = f"training {len(self.posteriors)}"
        steps = steps_within(training, self.budget, self.training_compiles, self.checkpoint, name)
        if steps == 0:
            self.story.append(f"{short_name(family)} with {training.num_samples} draws a step: beyond the budget")
            self.stopped = "what is left of the budget is too little for the next rung"
            return None
        algorithm = training.algorithm(family, steps)
        run = Run(self.target, algorithm, steps, self.budget, self._relay(steps), self.checkpoint, name)
        self.key, run_key, elbo_key = jax.random.split(self.key, 3)
        self.bar.begin(short_name(family), steps)
        began = self.budget.seconds()
        run.go(run_key, self._start(family) if params is None else params, elbo_key, self.bar)
        if not run.done:  # interrupted while it compiled
            raise KeyboardInterrupt
        if run.chunks:  # none where a checkpoint holds all of it
            self.training_compiles = run.compile_seconds - began
            self.compile_seconds += self.training_compiles
        how = f"{run.done:,} steps of Adam with {training.num_samples} draws"
        self._conclude(family, run.params, how, run.history(), run.done)
        if run.stopped == "interrupted":
            raise KeyboardInterrupt
        return run.params

    def _relay(self, steps: int) -> Callback | None:
        if self.callback is None:
            return None
        done, callback = self.steps, self.callback

        def relay(progress: Progress) -> bool:
            now = progress._replace(step=done + progress.step, num_steps=done + steps)
            self.asked_to_stop = self.asked_to_stop or bool(callback(now))
            return self.asked_to_stop

        return relay

    # --- what comes of them -------------------------------------------------------------------------------------------

    def _conclude(
        self,
        family: Family,
        params: Params,
        how: str,
        history: History,
        steps: int,
    ) -> None:
        self.key, draw_key = jax.random.split(self.key)
        posterior, self.draws = conclude(
            draw_key, self.target, family, params, self.budget, history, objective=how, steps=steps
        )
        self.posteriors.append(self.findings.revised(posterior, self.draws))
        report = posterior.report
        elbo = report.elbo
        assert elbo is not None, "the target has a density"
        self.story.append(
            f"{short_name(family)}, {how}: ELBO {float(elbo.value):.2f} ± {float(elbo.standard_error):.2f}, "
            f"k̂ {report.khat:.2f} ({self.budget.evaluations:,} evaluations, {self.budget.seconds():.1f} s)"
        )

    def _best(self) -> Posterior:
        """Return the best rung with the whole story."""
        best = self.findings.best(self.posteriors, self.improper)
        if self.asked_to_stop:
            self.stopped = "the callback asked for it"
        elif best.report.reliable:
            self.stopped = "it can be believed"
        report = replace(
            best.report,
            stopped=self.stopped,
            story=tuple(self.story),
            evaluations=self.budget.evaluations,
            compile_seconds=self.compile_seconds,
            seconds=self.budget.seconds(),
        )
        return replace(best, report=report)


def _history(losses: Sequence[float]) -> History:
    return History(np.asarray(losses, np.float64), np.zeros(0, int), np.zeros(0), np.zeros(0))
