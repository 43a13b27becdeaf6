"""`fit`: the host driver. Start, chunks of steps, progress, budgets, and the report at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vi_kit._check import check_static
from vi_kit._environment import device, versions
from vi_kit._nonfinite import explain_nonfinite, explain_steps
from vi_kit._optimize import CAPACITY, LoopState, advance, begin
from vi_kit._posterior import History, Posterior, make_posterior
from vi_kit._progress import Progress, ProgressBar
from vi_kit._start import start_params
from vi_kit._static import partition
from vi_kit._types import Algorithm, Estimate, Family, KeyArray, Params, Target, check_count, check_key
from vi_kit.algorithms import GradientDescent
from vi_kit.diagnostics._draws import BLOCK, Draws, draw
from vi_kit.diagnostics._report import judge, mean_estimate
from vi_kit.families import FullRank, MeanField
from vi_kit.objectives import ForwardKL, ReverseKL

_DEFAULT_NUM_STEPS = 5_000
_DEFAULT_LEARNING_RATE = 0.05
_LARGEST_FULL_RANK = 100
_CHUNK_SECONDS = 0.1
_LEAST_CHUNKS = 12
_ELBO_SHARE = 0.02
_LEAST_ELBOS = 4
_LEAST_ELBO_DRAWS = 16
_ELBO_BUDGET = 0.1
_LEAST_DRAWS = 25
_MOST_NONFINITE = 25
_NUM_DRAWS = 4_096

Callback = Callable[[Progress], bool | None]


def default_algorithm(target: Target, num_steps: int) -> GradientDescent:
    """Return what `fit` uses when it is given no algorithm.

    Reverse KL with sticking-the-landing gradients (forward KL where there are only draws), full-rank up to 100
    coordinates, Adam with a cosine-decayed learning rate.
    """
    family: Family = FullRank(target.dim) if target.dim <= _LARGEST_FULL_RANK else MeanField(target.dim)
    schedule = optax.cosine_decay_schedule(_DEFAULT_LEARNING_RATE, num_steps)
    objective = ReverseKL(family) if target.has_density else ForwardKL(family)
    return GradientDescent(objective, optax.adam, learning_rate=schedule)


def fit(
    key: KeyArray,
    target: Target,
    algorithm: Algorithm | None = None,
    *,
    num_steps: int | None = None,
    max_seconds: float = 120.0,
    max_evaluations: int | None = None,
    start: Any = None,
    progress: bool = True,
    callback: Callback | None = None,
) -> Posterior:
    """Fit q to a target and judge the result.

    Steps run compiled, in chunks of at most half a second; between them the host updates the progress bar, calls the
    callback and looks at the budgets. Ctrl-C ends the fit and returns the best so far. A second fit with another
    key, other data of the same shapes or another learning rate compiles nothing.

    Args:
        key: a typed key, `jax.random.key(seed)`.
        target: what to fit, from `vi_kit.make_target` or `vi_kit.targets`.
        algorithm: how; `default_algorithm` where none is given.
        num_steps: steps; 5,000 where none are given.
        max_seconds: stop the steps after this wall time, compilation included.
        max_evaluations: stop the steps so that no more target evaluations are spent, those of the diagnosis included.
        start: where to start: a `Posterior`, a `Fit`, parameters of the family, or a point x in the user's space.
        progress: whether to show a bar with the current ELBO.
        callback: called with a `Progress` between chunks; return True to stop.

    Returns:
        The posterior with its report; `posterior.report.reliable` says whether to believe it.

    Raises:
        TypeError: when an argument is of the wrong kind.
        ValueError: when the log density is not a scalar, depends on nothing, or is not finite at the start.

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum((x - 1.0) ** 2), 2)
        >>> posterior = vk.fit(jax.random.key(0), target, num_steps=500, progress=False)
        >>> posterior.report.reliable
        True
    """
    began = time.perf_counter()
    check_key(key)
    if not isinstance(target, Target):
        raise TypeError(f"target: expected a Target from vi_kit.make_target, got {type(target).__name__}")
    steps = _DEFAULT_NUM_STEPS if num_steps is None else num_steps
    check_count("num_steps", steps)
    if max_evaluations is not None:
        check_count("max_evaluations", max_evaluations)
    if not isinstance(max_seconds, int | float | np.number) or not max_seconds > 0:
        raise ValueError(f"max_seconds: expected a positive number, got {max_seconds!r}")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: expected a function of a Progress, got {callback!r}")
    if algorithm is None:
        algorithm = default_algorithm(target, int(steps))
    if not hasattr(algorithm, "step"):
        raise TypeError(f"algorithm: expected one of vi_kit.algorithms, got {type(algorithm).__name__}")
    if algorithm.family.dim != target.dim:
        raise ValueError(f"algorithm: its family has dim {algorithm.family.dim}, the target has {target.dim}")
    target = target.refreshed()
    if target.has_density:
        check_static(target)
    start_key, run_key, draw_key, elbo_key = jax.random.split(key, 4)
    params = start_params(start_key, start, algorithm, target)
    run = _Run(target, algorithm, int(steps), max_seconds, max_evaluations, callback, began)
    with ProgressBar(run.num_steps, enabled=progress) as bar:
        run.go(run_key, params, elbo_key, bar)
    return run.finish(draw_key)


@dataclass
class _Run:
    """One fit in progress, on the host."""

    target: Target
    algorithm: Algorithm
    num_steps: int
    max_seconds: float
    max_evaluations: int | None
    callback: Callback | None
    began: float

    def __post_init__(self) -> None:
        self.done = 0
        self.evaluations = 0
        self.stopped = "all steps taken"
        self.losses: list[np.ndarray] = []
        self.finite: list[np.ndarray] = []
        self.elbos: list[tuple[int, Estimate]] = []
        self.elbo_seconds = 0.0
        self.compile_seconds = 0.0
        self.step_seconds = 0.0
        self.block = 0
        self.best: tuple[Estimate, Params] | None = None
        self.params: Params = None

    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def go(self, key: KeyArray, params: Params, elbo_key: KeyArray, bar: ProgressBar) -> None:
        """Take the steps; leave the reason for stopping in `stopped`."""
        self.params = params
        static, leaves = partition(self.algorithm)
        state = begin(key, self.target, params, leaves, static)
        try:
            while self.done < self.num_steps:
                count = self._next_count()
                if count == 0:
                    break
                chunk_began = time.perf_counter()
                state = self._advance(state, leaves, count, static)
                taken = time.perf_counter() - chunk_began
                if self.done == count:  # the first chunk is one step, and compiles
                    self._check_first_step(params)
                    self.compile_seconds = self.seconds()
                else:
                    self.step_seconds = taken / count
                self._look(elbo_key, bar)
                if self.stopped != "all steps taken":
                    break
        except KeyboardInterrupt:
            self.stopped = "interrupted"

    def _advance(self, state: LoopState, leaves: dict[str, Any], count: int, static: Algorithm) -> LoopState:
        state, params, infos = advance(self.target, state, leaves, np.int32(count), static)
        infos = jax.device_get(infos)
        self.params = params
        self.losses.append(infos.loss[:count])
        self.finite.append(infos.finite[:count])
        self.done += count
        self.evaluations += count * self.algorithm.evaluations(self.target)
        return state

    def _next_count(self) -> int:
        """Return the steps of the next chunk, zero when a budget is spent."""
        if self.step_seconds == 0.0:  # one step to compile, one to know what a step takes, whatever the budget
            return 1
        per_step = self.algorithm.evaluations(self.target)
        left = self.num_steps - self.done
        if self.max_evaluations is not None and per_step:
            left = min(left, (self.max_evaluations - self.evaluations - self._diagnosis_evaluations()) // per_step)
            if left < 1:
                self.stopped = f"the budget of {self.max_evaluations} evaluations was spent"
                return 0
        reserve = min(self._diagnosis_evaluations() * self._evaluation_seconds(), 0.5 * self.max_seconds)
        seconds_left = self.max_seconds - reserve - self.seconds()
        if seconds_left <= 0:
            self.stopped = f"the budget of {self.max_seconds:g} seconds was spent"
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
        if self.target.has_density and self.done > 1 and self._elbo_is_due():
            self._estimate_elbo(key)
        recent = np.concatenate(self.finite[-_MOST_NONFINITE:])[-_MOST_NONFINITE:]
        if len(recent) == _MOST_NONFINITE and not recent.any():
            why = explain_steps(jax.random.fold_in(key, self.done), self.target, self.algorithm, self.params)
            self.stopped = f"{_MOST_NONFINITE} steps in a row were not finite: {why}"
        elbo = self.elbos[-1][1] if self.elbos else None
        loss = float(self.losses[-1][-1])
        now = Progress(self.done, self.num_steps, loss, elbo, self.seconds(), self.evaluations, self.params)
        bar.update(now)
        if self.callback is not None and self.callback(now):
            self.stopped = "the callback asked for it"

    def _elbo_is_due(self) -> bool:
        draws = max(self._block(), _LEAST_ELBO_DRAWS)
        if self.max_evaluations is not None:
            spent = sum(int(float(elbo.num_effective)) for _, elbo in self.elbos)
            if spent + draws > _ELBO_BUDGET * self.max_evaluations:
                return False
        if self._block() < BLOCK:  # a slow density: only where it is a small part of the time
            return self.elbo_seconds + draws * self._evaluation_seconds() < _ELBO_BUDGET * self.seconds()
        due = len(self.elbos) < _LEAST_ELBOS or self.elbo_seconds < _ELBO_SHARE * self.seconds()
        return due or self.done >= self.num_steps

    def _block(self) -> int:
        """Return how many draws to evaluate at once: fewer where one evaluation takes long."""
        if self.block == 0:  # chosen once: another size is another program
            seconds = self._evaluation_seconds()
            most = self._num_draws()
            self.block = next((size for size in (BLOCK, 32, 4) if size * seconds < 1.0 and size <= most), 1)
        return self.block

    def _diagnosis_evaluations(self) -> int:
        num, block = self._num_draws(), self._block()
        return -(-num // block) * block

    def _evaluation_seconds(self) -> float:
        """Return what one evaluation takes, zero where the steps do not tell."""
        per_step = self.algorithm.evaluations(self.target)
        return self.step_seconds / per_step if per_step else 0.0

    def _estimate_elbo(self, key: KeyArray) -> None:
        began = time.perf_counter()
        block = self._block()
        num = max(block, _LEAST_ELBO_DRAWS)
        # The same draws each time: the differences along the fit are then those of q, not of the noise.
        draws = draw(key, self.target, self.algorithm.family, self.params, num, block=block)
        elbo = mean_estimate(np.asarray(draws.log_p, np.float64) - np.asarray(draws.log_q, np.float64))
        self.evaluations += num
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

    def finish(self, key: KeyArray) -> Posterior:
        """Draw, judge and pack the result."""
        if isinstance(getattr(self.algorithm, "objective", None), ReverseKL):
            self._use_best()
        family = self.algorithm.family
        num, block = self._num_draws(), self._block()
        draws: Draws = draw(
            key, self.target, family, self.params, num,
            with_density=self.target.has_density, block=block,
        )  # fmt: skip
        if self.target.has_density:
            self.evaluations += self._diagnosis_evaluations()
        finite = np.concatenate(self.finite) if self.finite else np.ones(0, bool)
        leaves_finite = all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(self.params))
        report = judge(self.target, family, draws, finite=leaves_finite and (not len(finite) or bool(finite.any())))
        objective = getattr(self.algorithm, "objective", None)
        report = replace(
            report,
            objective=objective.describe(self.target) if objective is not None else repr(self.algorithm),
            stopped=self.stopped,
            steps=self.done,
            nonfinite_steps=int((~finite).sum()),
            evaluations=self.evaluations,
            compile_seconds=self.compile_seconds,
            device=device(),
            versions=versions(),
        )
        history = History(
            loss=np.concatenate(self.losses) if self.losses else np.zeros(0),
            elbo_step=np.array([step for step, _ in self.elbos], int),
            elbo=np.array([float(e.value) for _, e in self.elbos]),
            elbo_standard_error=np.array([float(e.standard_error) for _, e in self.elbos]),
        )
        report = replace(report, seconds=self.seconds())
        return make_posterior(self.target, family, self.params, report, history, draws.x)

    def _num_draws(self) -> int:
        seconds = self._evaluation_seconds()
        affordable = 0.2 * self.max_seconds / seconds if seconds > 0 else math.inf
        if self.max_evaluations is not None:
            affordable = min(affordable, self.max_evaluations / 4)
        return int(max(_LEAST_DRAWS, min(_NUM_DRAWS, affordable)))
