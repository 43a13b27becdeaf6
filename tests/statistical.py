"""Assertions on Monte Carlo numbers: the tolerance follows from the stated rate of false alarms, never from a guess.

Each takes the probability of failing although the code is right, for the whole call (Bonferroni over entries). A
check that would not see the bias it is there for fails too (`effect`), and `expect_rejection` is the negative
control: a wrong formula must be caught by the very check that the right one passes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from scipy import stats

FALSE_ALARM = 1e-6


class Rejected(AssertionError):
    """The numbers contradict the claim."""


class NoPower(AssertionError):
    """There are too few draws to see the bias that matters."""


def _rows(samples: Any) -> np.ndarray:
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(samples)]
    return np.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)


def _flat(expected: Any) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).reshape(-1) for leaf in jax.tree.leaves(expected)])


def assert_mean(
    samples: Any,
    expected: Any,
    *,
    false_alarm: float = FALSE_ALARM,
    effect: float | None = None,
    slack: float = 0.0,
) -> None:
    """Check that draws (a pytree with a leading axis of independent draws) have this mean, entry by entry.

    An entry is rejected beyond `isf(false_alarm / 2m)` standard errors: 4.9 for one entry, 5.3 for ten. With
    `effect`, a bias of that size in any entry must be visible. `slack` is the error that `expected` itself may have.
    """
    rows, truth = _rows(samples), _flat(expected)
    assert rows.shape[1] == truth.size, f"{rows.shape[1]} entries are compared with {truth.size}"
    threshold = stats.norm.isf(false_alarm / (2 * truth.size))
    mean = rows.mean(axis=0)
    # Rounding of float32 draws is no statistical error: entries that do not vary are compared up to it.
    rounding = 1e-6 * (np.abs(rows).max(axis=0) + np.abs(truth))
    error = rows.std(axis=0, ddof=1) / np.sqrt(len(rows))
    off = ~(np.abs(mean - truth) <= threshold * error + rounding + slack)
    if off.any():
        z = (mean - truth) / np.maximum(error, 1e-300)
        worst = int(np.nanargmax(np.where(off, np.abs(z), -1)))
        raise Rejected(f"entry {worst}: mean {mean[worst]:g} ± {error[worst]:g}, expected {truth[worst]:g}")
    if effect is not None and np.any(threshold * error > effect):
        raise NoPower(
            f"a bias of {effect:g} could hide: {threshold:.1f} standard errors are {threshold * error.max():g}"
        )


def assert_same_distribution(
    samples: Any, other: Any | Callable[[np.ndarray], np.ndarray], *, false_alarm: float = FALSE_ALARM
) -> None:
    """Kolmogorov–Smirnov, coordinate by coordinate: against other draws, or against one cdf for all coordinates."""
    rows = _rows(samples)
    for i in range(rows.shape[1]):
        against = other if callable(other) else _rows(other)[:, i]
        result = stats.kstest(rows[:, i], against)
        if result.pvalue < false_alarm / rows.shape[1]:
            raise Rejected(f"coordinate {i}: distance {result.statistic:.3g}, p = {result.pvalue:.1e}")


def expect_rejection(assertion: Callable[[], None]) -> None:
    """Negative control: the assertion must reject (not merely fail for lack of draws)."""
    try:
        assertion()
    except Rejected:
        return
    raise AssertionError("a wrong claim passed: the check cannot tell it from the truth")
