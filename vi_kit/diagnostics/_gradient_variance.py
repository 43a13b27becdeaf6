"""How noisy each gradient estimator is on a problem."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from vi_kit._static import combine, display, partition
from vi_kit._types import Estimate, Family, KeyArray, Objective, Params, Target, check_count, check_key
from vi_kit.estimators import valid
from vi_kit.objectives import ReverseKL

_AT_ONCE = 16


@dataclass(frozen=True)
class EstimatorNoise:
    """How noisy one estimator is.

    Attributes:
        variance: of the gradient of one call, summed over the parameters, with its standard error.
        norm: length of the mean gradient, an overestimate by about √(variance / number of repeats).
        evaluations: target evaluations a call costs.
    """

    variance: Estimate
    norm: float
    evaluations: int

    @property
    def signal_to_noise(self) -> float:
        """Length of the mean gradient over that of its noise; infinite without noise."""
        noise = math.sqrt(max(float(self.variance.value), 0.0))
        return self.norm / noise if noise > 0 else math.inf


@dataclass(frozen=True)
class GradientVariance:
    """The noise of every estimator, the least variance first; prints as a table.

    Attributes:
        objective: what is minimized, in words, with the estimator that it has by itself.
        estimators: an `EstimatorNoise` for each name.
        num_repeats: gradients of each.
    """

    objective: str
    estimators: dict[str, EstimatorNoise]
    num_repeats: int

    def __rich__(self) -> Any:
        from rich import box
        from rich.table import Table

        from vi_kit.diagnostics._table import estimate, number

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=self.objective, title_justify="left")
        table.add_column("estimator", no_wrap=True)
        for name in ("variance", "signal / noise", "evaluations"):
            table.add_column(name, justify="right", no_wrap=True)
        for name, row in self.estimators.items():
            table.add_row(name, estimate(row.variance), number(row.signal_to_noise), f"{row.evaluations:,}")
        return table

    def __str__(self) -> str:
        from vi_kit.diagnostics._table import as_text

        return as_text(self)


def gradient_variance(
    key: KeyArray,
    target: Target,
    objective: Objective | Family,
    params: Params,
    *,
    estimators: tuple[Any, ...] | None = None,
    num_repeats: int = 256,
) -> GradientVariance:
    r"""Compare gradient estimators on one's own problem: the variance of a call's gradient, over all parameters.

    $$ \sum_i Var[\hat g_i], \quad \text{standard error from the spread of } \|\hat g - \bar g\|^2 $$

    Where the parameters are matters: near the optimum sticking the landing wins, far off it may not.

    Args:
        key: a typed key.
        target: what q approximates.
        objective: one of `vi_kit.objectives` with an `estimator`, or a family (for `ReverseKL` over it).
        params: where to compare.
        estimators: which; None takes all that are valid for the family and the objective.
        num_repeats: gradients of each, at least 2.

    Returns:
        The noise of each; all are of the same mean gradient. Costs num_repeats calls of the objective each.

    Raises:
        TypeError: for a key that is not typed, or an objective without a choice of estimators.
        ValueError: for an estimator that is not valid, naming those that are.

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum(x**2), 2)
        >>> family = vk.families.MeanField(2)
        >>> params = family.init(jax.random.key(0))
        >>> found = vk.diagnostics.gradient_variance(jax.random.key(1), target, family, params, num_repeats=20)
        >>> found.estimators["sticking_the_landing"].variance.value < 1e-9
        True
    """
    check_key(key)
    check_count("num_repeats", num_repeats, least=2)
    made: Any = ReverseKL(objective) if isinstance(objective, Family) else objective
    if not hasattr(made, "estimator") or not hasattr(made, "form"):
        raise TypeError(f"objective: expected one with a choice of estimators, or a family, got {objective!r}")
    chosen = valid(made.family, made.form) if estimators is None else estimators
    target = target.refreshed()
    found = {}
    for estimator, own in zip(chosen, jax.random.split(key, len(chosen)), strict=True):
        one = dataclasses.replace(made, estimator=estimator)
        static, leaves = partition(one)
        try:
            gradients = np.asarray(_gradients(jax.random.split(own, num_repeats), target, params, leaves, static))
        except NotImplementedError:
            if estimators is not None:  # asked for by name
                raise
            continue  # no entropy in closed form
        found[display(estimator)] = _noise(gradients.astype(np.float64), one.evaluations(target))
    ordered = sorted(found.items(), key=lambda item: (math.isnan(item[1].variance.value), item[1].variance.value))
    return GradientVariance(made.describe(target), dict(ordered), num_repeats)


@partial(jax.jit, static_argnums=(4,))
def _gradients(
    keys: KeyArray, target: Target, params: Params, leaves: dict[str, Any], static: Objective
) -> Float[Array, "n num_params"]:
    objective = combine(static, leaves)

    def one(key: KeyArray) -> Array:
        return ravel_pytree(jax.grad(objective)(params, target, key))[0]

    found: Array = jax.lax.map(one, keys, batch_size=_AT_ONCE)
    return found


def _noise(gradients: np.ndarray, evaluations: int) -> EstimatorNoise:
    num = len(gradients)
    mean = gradients.mean(axis=0)
    squares = np.sum((gradients - mean) ** 2, axis=1) * num / (num - 1)
    error = float(squares.std(ddof=1) / math.sqrt(num))
    return EstimatorNoise(Estimate(float(squares.mean()), error, float(num)), float(np.linalg.norm(mean)), evaluations)
