"""The host driver of one algorithm: chunks of steps, progress, budgets, and the report at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from vi_kit._budget import Budget
from vi_kit._checkpoint import Checkpoint, pack, unpack
from vi_kit._environment import device, versions
from vi_kit._nonfinite import explain_nonfinite, explain_steps
from vi_kit._optimize import CAPACITY, LoopState, advance, begin
from vi_kit._posterior import History, Posterior, make_posterior
from vi_kit._progress import Progress, ProgressBar
from vi_kit._static import combine, partition
from vi_kit._types import Algorithm, Estimate, Family, KeyArray, Params, Target
from vi_kit.diagnostics._draws import BLOCK, Draws, draw, joined
from vi_kit.diagnostics._report import (
    NUM_EXACT_DRAWS,
    evidence_upper_bound,
    judge,
    mean_estimate,
    wants_more_draws,
)
from vi_kit.objectives import ReverseKL

_SINGLE_STEPS = 4
_CHUNK_SECONDS = 0.1
_LEAST_CHUNKS = 12
_ELBO_SHARE = 0.02
_LEAST_ELBOS = 4
_LEAST_ELBO_DRAWS = 16
_ELBO_BUDGET = 0.1
_MOST_NONFINITE = 25

Callback = Callable[[Progress], bool | None]


@dataclass
class Run:
    """One fit in progress, on the host."""

    target: Target
    algorithm: Algorithm
    num_steps: int
    budget: Budget
    callback: Callback | None
    checkpoint: Checkpoint | None = None
    name: str = "run"

    def __post_init__(self) -> None:
        self.done = 0
        self.chunks = 0
        self.stopped = "all steps taken"
        self.losses: list[np.ndarray] = []
        self.finite: list[np.ndarray] = []
        self.elbos: list[tuple[int, Estimate]] = []
        self.elbo_seconds = 0.0
        self.compile_seconds = 0.0
        self.step_seconds = 0.0
        self.best: tuple[Estimate, Params] | None = None
        self.params: Params = None

    def go(self, key: KeyArray, params: Params, elbo_key: KeyArray, bar: ProgressBar) -> None:
        """Take the steps; leave the reason for stopping in `stopped`."""
        self.params = params
        static, leaves = partition(self.algorithm)
        state = self._resumed(begin(key, self.target, params, leaves, static))
        evaluations = self.budget.evaluations - self.resumed_evaluations
        try:
            while self.done < self.num_steps:
                count = self._next_count()
                if count == 0:
                    break
                chunk_began = time.perf_counter()
                state = self._advance(state, leaves, count, static)
                taken = time.perf_counter() - chunk_began
                if self.chunks == 1:  # the first chunk is one step, and compiles
                    self._check_first_step(params)
                    self.compile_seconds = self.budget.seconds()
                else:
                    self._time(taken / count)
                self._look(elbo_key, bar)
                self._keep(state, evaluations, now=False)
                if self.stopped != "all steps taken":
                    break
                if bool(getattr(state.algorithm_state, "converged", False)):
                    self.stopped = "the algorithm converged"
                    break
        except KeyboardInterrupt:
            self.stopped = "interrupted"
        finally:
            if self.chunks > 1:
                self._keep(state, evaluations, now=True)

    def _resumed(self, state: LoopState) -> LoopState:
        """Return the state that a checkpoint holds, with what else was known then; else the given one."""
        self.resumed_evaluations = 0
        kept = {} if self.checkpoint is None else self.checkpoint.section(self.name)
        if not kept:
            return state
        state = unpack(kept, state)
        self.params = jax.jit(combine(*partition(self.algorithm)).params)(state.algorithm_state)
        self.done, self.resumed_evaluations = map(int, kept["counts"])
        if self.done > self.num_steps:
            raise ValueError(
                f"checkpoint: it has gone {self.done} steps, and num_steps asks for {self.num_steps}; name another file"
            )
        self.budget.evaluations += self.resumed_evaluations
        self.losses, self.finite = [kept["loss"]], [kept["finite"]]
        self.elbos = [(int(step), Estimate(*map(float, numbers))) for step, *numbers in kept["elbos"]]
        if "best" in kept:
            params = unpack({key[5:]: array for key, array in kept.items() if key.startswith("best_")}, self.params)
            self.best = Estimate(*map(float, kept["best"])), params
        return state

    def _keep(self, state: LoopState, evaluations: int, *, now: bool) -> None:
        """Write the state to the checkpoint, if there is one and it is due."""
        if self.checkpoint is None or not (now or self.checkpoint.is_due()):
            return
        arrays = pack(state) | {
            "loss": np.concatenate(self.losses),
            "finite": np.concatenate(self.finite),
            "elbos": np.array([(step, *map(float, elbo)) for step, elbo in self.elbos], float).reshape(-1, 4),
            "counts": np.array([self.done, self.budget.evaluations - evaluations]),
        }
        if self.best is not None:
            arrays["best"] = np.array([float(number) for number in self.best[0]])
            arrays |= {f"best_{key}": array for key, array in pack(self.best[1]).items()}
        self.checkpoint.keep(self.name, arrays)
        self.checkpoint.write(now=True)

    def _advance(self, state: LoopState, leaves: dict[str, Any], count: int, static: Algorithm) -> LoopState:
        state, params, infos = advance(self.target, state, leaves, np.int32(count), static)
        infos = jax.device_get(infos)
        self.params = params
        self.losses.append(infos.loss[:count])
        self.finite.append(infos.finite[:count])
        self.done += count
        self.chunks += 1
        self.budget.evaluations += count * self.algorithm.evaluations(self.target)
        return state

    def _time(self, step_seconds: float) -> None:
        if 1 < self.chunks <= _SINGLE_STEPS and self.step_seconds > 0:
            step_seconds = min(step_seconds, self.step_seconds)  # the machine may have been busy
        self.step_seconds = step_seconds
        per_step = self.algorithm.evaluations(self.target)
        self.budget.evaluation_seconds = step_seconds / per_step if per_step else 0.0

    def _next_count(self) -> int:
        """Return the steps of the next chunk, zero when a budget is spent."""
        if self.chunks < _SINGLE_STEPS and (self.step_seconds == 0.0 or self.budget.seconds_left() > 0):
            return 1  # one step to compile, some to know what a step takes, the first of them whatever the budget
        per_step = self.algorithm.evaluations(self.target)
        left = self.num_steps - self.done
        if per_step:
            left = int(min(left, self.budget.evaluations_left() // per_step))
        seconds_left = self.budget.seconds_left()
        if left < 1 or seconds_left <= 0:
            self.stopped = self.budget.spent()
            return 0
        wanted = int(min(_CHUNK_SECONDS, seconds_left) / self.step_seconds)
        grown = 8 * len(self.losses[-1])  # one lucky timing must not make a long chunk
        return max(1, min(wanted, grown, left, CAPACITY, -(-self.num_steps // _LEAST_CHUNKS)))

    def _check_first_step(self, params: Params) -> None:
        if self.finite[0].all() or not self.target.has_density:
            return
        center = self.algorithm.family.dist(params).mean()
        if not np.isfinite(float(self.target.log_density(center))):
            raise ValueError(explain_nonfinite(self.target, center))

    def _look(self, key: KeyArray, bar: ProgressBar) -> None:
        """Between chunks: estimate the ELBO where its cost is small, show it, call back."""
        if self.target.has_density and self._is_timed() and self._elbo_is_due():
            self._estimate_elbo(key)
        recent = np.concatenate(self.finite[-_MOST_NONFINITE:])[-_MOST_NONFINITE:]
        if len(recent) == _MOST_NONFINITE and not recent.any():
            why = explain_steps(jax.random.fold_in(key, self.done), self.target, self.algorithm, self.params)
            self.stopped = f"{_MOST_NONFINITE} steps in a row were not finite: {why}"
        elbo = self.elbos[-1][1] if self.elbos else None
        loss = float(self.losses[-1][-1])
        seconds, evaluations = self.budget.seconds(), self.budget.evaluations
        now = Progress(self.done, self.num_steps, loss, elbo, seconds, evaluations, self.params)
        bar.update(now)
        if self.callback is not None and self.callback(now):
            self.stopped = "the callback asked for it"

    def _is_timed(self) -> bool:
        """Whether steps were timed in a chunk of several: alone they may take mostly the call."""
        return self.chunks > _SINGLE_STEPS or self.done >= self.num_steps

    def _elbo_is_due(self) -> bool:
        draws = max(self.budget.block(), _LEAST_ELBO_DRAWS)
        if self.budget.max_evaluations is not None:
            spent = sum(int(float(elbo.num_effective)) for _, elbo in self.elbos)
            if spent + draws > _ELBO_BUDGET * self.budget.max_evaluations:
                return False
        if self.budget.block() < BLOCK:  # a slow density: only where it is a small part of the time
            return self.elbo_seconds + draws * self.budget.evaluation_seconds < _ELBO_BUDGET * self.budget.seconds()
        due = len(self.elbos) < _LEAST_ELBOS or self.elbo_seconds < _ELBO_SHARE * self.budget.seconds()
        return due or self.done >= self.num_steps

    def _estimate_elbo(self, key: KeyArray) -> None:
        began = time.perf_counter()
        block = self.budget.block()
        num = max(block, _LEAST_ELBO_DRAWS)
        # The same draws each time: the differences along the fit are then those of q, not of the noise.
        draws = draw(key, self.target, self.algorithm.family, self.params, num, block=block)
        elbo = mean_estimate(np.asarray(draws.log_p, np.float64) - np.asarray(draws.log_q, np.float64))
        self.budget.evaluations += num
        taken = time.perf_counter() - began
        if self.elbos:
            self.elbo_seconds += taken
        else:  # the first one compiles
            self.compile_seconds += taken
        self.elbos.append((self.done, elbo))
        if math.isfinite(float(elbo.value)) and (self.best is None or elbo.value > self.best[0].value):
            self.best = (elbo, self.params)

    def _use_best(self) -> None:
        """Where the run ended early on something clearly worse than an earlier point, take that point."""
        if self.best is None or not self.elbos:
            return
        last, best = self.elbos[-1][1], self.best[0]
        error = math.hypot(float(last.standard_error), float(best.standard_error))
        if math.isfinite(error) and not float(last.value) >= float(best.value) - 3 * error:
            self.params = self.best[1]
            self.stopped += "; the best point seen on the way was taken, the last one was worse"

    def history(self) -> History:
        """Return how the steps went."""
        return History(
            loss=np.concatenate(self.losses) if self.losses else np.zeros(0),
            elbo_step=np.array([step for step, _ in self.elbos], int),
            elbo=np.array([float(e.value) for _, e in self.elbos]),
            elbo_standard_error=np.array([float(e.standard_error) for _, e in self.elbos]),
        )

    def finish(self, key: KeyArray) -> Posterior:
        """Draw, judge and pack the result."""
        objective = getattr(self.algorithm, "objective", None)
        if isinstance(objective, ReverseKL):
            self._use_best()
        finite = np.concatenate(self.finite) if self.finite else np.ones(0, bool)
        posterior, _ = conclude(
            key,
            self.target,
            self.algorithm.family,
            self.params,
            self.budget,
            self.history(),
            finite=not len(finite) or bool(finite.any()),
            objective=objective.describe(self.target) if objective is not None else repr(self.algorithm),
            stopped=self.stopped,
            steps=self.done,
            nonfinite_steps=int((~finite).sum()),
            compile_seconds=self.compile_seconds,
        )
        return posterior


def conclude(
    key: KeyArray,
    target: Target,
    family: Family,
    params: Params,
    budget: Budget,
    history: History,
    *,
    finite: bool = True,
    **facts: Any,
) -> tuple[Posterior, Draws]:
    """Draw from a fitted q, judge it and pack the result; `facts` are fields of the report."""
    num, block, began = budget.num_draws(), budget.block(), budget.seconds()
    draws: Draws = draw(key, target, family, params, num, with_density=target.has_density, block=block)
    if target.has_density:
        budget.evaluations += budget.diagnosis_evaluations()
    bound = None
    if budget.evaluations_left() >= NUM_EXACT_DRAWS and (bound := evidence_upper_bound(key, target, family, params)):
        budget.evaluations += NUM_EXACT_DRAWS
    leaves_finite = all(bool(np.isfinite(leaf).all()) for leaf in jax.device_get(jax.tree.leaves(params)))
    report = judge(target, family, draws, bound, finite=leaves_finite and finite)
    if wants_more_draws(report) and (more := budget.more_draws(target.dim)):
        draws = joined(draws, draw(key, target, family, params, more, block=block, first=num // block))
        budget.evaluations += more
        report = judge(target, family, draws, bound, finite=leaves_finite and finite)
    report = replace(report, evaluations=budget.evaluations, device=device(), versions=versions(), **facts)
    posterior = make_posterior(target, family, params, report, history, draws.x)
    budget.diagnosis_seconds = max(budget.diagnosis_seconds, budget.seconds() - began)
    return replace(posterior, report=replace(report, seconds=budget.seconds())), draws
