"""`fit`: the host driver. Start, chunks of steps, progress, budgets, and the report at the end."""

from __future__ import annotations

import time
from os import PathLike
from typing import Any

import jax
import numpy as np
import optax

from vi_kit._budget import Budget
from vi_kit._check import check_static
from vi_kit._checkpoint import Checkpoint, facts_of
from vi_kit._driver import Callback, Run
from vi_kit._ladder import MOST_STEPS, Ladder
from vi_kit._posterior import Posterior
from vi_kit._progress import ProgressBar
from vi_kit._start import start_params
from vi_kit._types import Algorithm, Family, KeyArray, Target, check_count, check_key
from vi_kit.algorithms import GradientDescent
from vi_kit.families import FullRank, MeanField
from vi_kit.objectives import ForwardKL, ReverseKL

_DEFAULT_NUM_STEPS = 5_000
_DEFAULT_LEARNING_RATE = 0.05
_LARGEST_FULL_RANK = 100


def default_algorithm(target: Target, num_steps: int) -> GradientDescent:
    """Return what `fit` uses when it is given a number of steps but no algorithm, or a target without a density.

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
    checkpoint: str | PathLike[str] | None = None,
) -> Posterior:
    """Fit q to a target and judge the result: with an algorithm of your choice, or with nothing to tune.

    Without an algorithm a ladder is climbed until the result can be believed: a full-rank Gaussian (mean-field beyond
    300 coordinates) by natural gradients; climbs from dispersed starts, and a mixture where they find other modes;
    where a mode is not Gaussian enough, or has mass beyond any draw of q, a mixture with several components for it (up
    to 16 coordinates), then a flow that starts as the Gaussian (up to 64). Each rung is judged by its importance
    weights and by points farther out; what was tried, what it cost and why it went on is `posterior.report.story`.

    With an algorithm, steps run compiled, in chunks of at most half a second; between them the host updates the
    progress bar, calls the callback and looks at the budgets. Ctrl-C ends any fit and returns the best so far. A
    second fit with another key, other data of the same shapes or another learning rate compiles nothing.

    Args:
        key: a typed key, `jax.random.key(seed)`.
        target: what to fit, from `vi_kit.make_target` or `vi_kit.targets`.
        algorithm: how; None for the ladder.
        num_steps: steps of the algorithm; 5,000 where none are given. Given without an algorithm, and for targets
            without a density: steps of Adam on the KL, with a full-rank Gaussian up to 100 coordinates.
        max_seconds: stop the steps after this wall time, compilation included.
        max_evaluations: stop the steps so that no more target evaluations are spent, those of the diagnosis included.
        start: where to start: a `Posterior`, a `Fit`, parameters of the family, or a point x in the user's space. The
            ladder takes its mean.
        progress: whether to show a bar with the current ELBO.
        callback: called with a `Progress` between chunks; return True to stop.
        checkpoint: a file that is written now and then, and that a later call with the same arguments goes on from,
            as if it had never stopped; seconds count from the call. The checkpoint of another fit is refused.

    Returns:
        The posterior with its report; `posterior.report.reliable` says whether to believe it.

    Raises:
        TypeError: when an argument is of the wrong kind.
        ValueError: when the log density is not a scalar, depends on nothing, or is not finite at the start; when the
            checkpoint is damaged or that of another fit.

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum((x - 1.0) ** 2), 2)
        >>> posterior = vk.fit(jax.random.key(0), target, progress=False)
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
    budget = Budget(began, max_seconds, max_evaluations)
    if algorithm is None:
        if num_steps is None and target.has_density:
            return _without_algorithm(key, target.refreshed(), budget, start, callback, checkpoint, progress=progress)
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
    kept = None if checkpoint is None else Checkpoint(checkpoint, facts_of(key, target, algorithm, params))
    run = Run(target, algorithm, int(steps), budget, callback, kept)
    with ProgressBar(run.num_steps, enabled=progress) as bar:
        run.go(run_key, params, elbo_key, bar)
    return run.finish(draw_key)


def _without_algorithm(
    key: KeyArray,
    target: Target,
    budget: Budget,
    start: Any,
    callback: Callback | None,
    checkpoint: str | PathLike[str] | None,
    *,
    progress: bool,
) -> Posterior:
    check_static(target)
    whole_key = key
    start_key, key = jax.random.split(key)
    mean = None
    if start is not None:
        algorithm = default_algorithm(target, 1)
        params = start_params(start_key, start, algorithm, target)
        mean = np.asarray(algorithm.family.dist(params).mean(), np.float64)
    kept = None if checkpoint is None else Checkpoint(checkpoint, facts_of(whole_key, target, None, mean))
    with ProgressBar(MOST_STEPS, enabled=progress) as bar:
        return Ladder(key, target, budget, callback, bar, kept).run(mean)
