"""Simulation-based calibration: is the posterior right on average over data that the model itself makes?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, PyTree

from vi_kit._types import KeyArray, Target, check_count, check_key
from vi_kit.diagnostics._draws import coordinates

_LEVEL = 0.01  # chance of a false alarm, over all coordinates together


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of what made the data among draws of the posterior; uniform where the fits are right. Prints as a table.

    Attributes:
        labels: names of the coordinates, derived quantities included.
        ranks: how many of `num_draws` draws are below the truth, shape (simulations, coordinates).
        num_draws: draws of each posterior.
        unreliable: fits whose own report said not to believe them; they count all the same.
    """

    labels: tuple[str, ...]
    ranks: Int[np.ndarray, "simulations coordinates"]
    num_draws: int
    unreliable: int

    @property
    def bias(self) -> dict[str, float]:
        """Standard errors by which the mean rank is off: above 0 the posterior lies too low, below 0 too high."""
        shift = self._standardized().mean(axis=0) * math.sqrt(12 * len(self.ranks))
        return dict(zip(self.labels, shift.tolist(), strict=True))

    @property
    def spread(self) -> dict[str, float]:
        """Standard errors by which ranks are spread too far: above 0 the posterior is too narrow, below 0 too wide."""
        excess = (self._standardized() ** 2).mean(axis=0) - 1 / 12
        return dict(zip(self.labels, (excess * math.sqrt(180 * len(self.ranks))).tolist(), strict=True))

    @property
    def p_values(self) -> dict[str, float]:
        """Chance of a bias or spread at least as large if the posterior were right, both looked at."""
        found = {}
        for label in self.labels:
            largest = max(abs(self.bias[label]), abs(self.spread[label]))
            found[label] = min(1.0, 2 * math.erfc(largest / math.sqrt(2)))
        return found

    @property
    def calibrated(self) -> bool:
        """Whether no coordinate is off, at a chance of 1 % of a false alarm over all of them."""
        return min(self.p_values.values()) * len(self.labels) > _LEVEL

    def _standardized(self) -> np.ndarray:
        found: np.ndarray = (self.ranks + 0.5) / (self.num_draws + 1) - 0.5
        return found

    def __rich__(self) -> Any:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("", "bias", "spread", "p"):
            table.add_column(name, justify="left" if not name else "right")
        bias, spread, p_values = self.bias, self.spread, self.p_values
        for label in self.labels:
            table.add_row(label, f"{bias[label]:+.1f}", f"{spread[label]:+.1f}", f"{p_values[label]:.2g}")
        verdict = Text(self.reason, style="bold green" if self.calibrated else "bold red")
        return Group(table, verdict)

    @property
    def reason(self) -> str:
        """What the ranks say, in one sentence."""
        if self.calibrated:
            return f"Nothing against it in {len(self.ranks)} simulations; smaller faults would need more of them."
        label = min(self.p_values, key=lambda name: self.p_values[name])
        bias, spread = self.bias[label], self.spread[label]
        if abs(bias) >= abs(spread):
            what = "lies too low" if bias > 0 else "lies too high"
        else:
            what = "is too narrow" if spread > 0 else "is too wide"
        return f"The posterior of {label} {what}, by {max(abs(bias), abs(spread)):.1f} standard errors."

    def __str__(self) -> str:
        from vi_kit.diagnostics._table import as_text

        return as_text(self)


def simulation_based_calibration(
    key: KeyArray,
    target: Target,
    simulate: Callable[[KeyArray], tuple[PyTree, PyTree]],
    fit: Callable[[KeyArray, Target], Any],
    *,
    num_simulations: int = 100,
    num_draws: int = 99,
) -> Calibration:
    r"""Fit data simulated from the model and see where the truth lies among the draws.

    $$ x^* \sim p(x), \quad data \sim p(data | x^*), \quad
       \#\{x_i < x^*\} \sim \mathrm{Uniform}\{0, \dots, n\}, \; x_i \sim p(x | data) $$

    Right for the exact posterior, whatever the model; a posterior that is too narrow has ranks near the ends, one that
    is off has them at one end. It tells of the average over data sets, not of your own.

    Args:
        key: a typed key.
        target: the model; its `data` are replaced by what is simulated, so that one program serves all fits.
        simulate: returns variables drawn from the prior, shaped as the target's `like`, and data drawn given them,
            shaped as its `data`.
        fit: how to fit: `lambda key, target: vk.fit(key, target, progress=False)`. What it returns is asked for
            `sample(key, n)`, or is used as it is where you return an object with another `sample`.
        num_simulations: fits.
        num_draws: draws of each posterior.

    Returns:
        The ranks, with a test of bias and spread for every coordinate.

    Raises:
        TypeError: for a key that is not typed.
        ValueError: for data of other shapes than the target's.

    Source: Talts, Betancourt, Simpson, Vehtari and Gelman, "Validating Bayesian Inference Algorithms with
    Simulation-Based Calibration", 2018, https://arxiv.org/abs/1804.06788; Yao, Vehtari, Simpson and Gelman, "Yes, but
    Did It Work?: Evaluating Variational Inference", 2018, https://arxiv.org/abs/1802.02538

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> def log_density(x, data):
        ...     return -0.5 * x**2 - 0.5 * jnp.sum((data - x) ** 2)
        >>> def simulate(key):
        ...     x = jax.random.normal(key)
        ...     return x, x + jax.random.normal(jax.random.fold_in(key, 1), (5,))
        >>> target = vk.make_target(log_density, like=0.0, data=jnp.zeros(5))
        >>> algorithm = vk.algorithms.NaturalGradient(vk.families.FullRank(1))
        >>> def fit(key, target):
        ...     return vk.fit(key, target, algorithm, num_steps=5, progress=False)
        >>> calibrate = vk.diagnostics.simulation_based_calibration
        >>> calibrate(jax.random.key(0), target, simulate, fit, num_simulations=20).calibrated
        True
    """
    check_key(key)
    check_count("num_simulations", num_simulations, least=10)
    check_count("num_draws", num_draws, least=9)
    ranks: list[np.ndarray] = []
    labels: tuple[str, ...] = ()
    unreliable = 0
    expected: Any = jax.tree.map(np.shape, target.data)
    for simulate_key, fit_key, draw_key in jax.random.split(key, (num_simulations, 3)):
        truth, data = simulate(simulate_key)
        found: Any = jax.tree.map(np.shape, data)
        if found != expected:
            raise ValueError(f"simulate: expected data of the target's shapes {expected}, got {found}")
        posed = dataclasses.replace(target, data=data)
        posterior = fit(fit_key, posed)
        unreliable += not posterior.report.reliable
        draws = posterior.sample(draw_key, num_draws)
        true = jax.tree.map(lambda leaf: np.asarray(leaf)[None], posed.report(posed.unconstrain(truth)))
        labels, values = coordinates(draws, target.layout)
        ranks.append((values < coordinates(true, target.layout)[1]).sum(axis=0))
    return Calibration(labels, np.stack(ranks), num_draws, unreliable)
