"""Preflight: what is wrong with a model, said before anything is fitted."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vi_kit._nonfinite import explain_nonfinite, named
from vi_kit._types import KeyArray, Target, check_key

# Whole names only: `sex` is no standard error, and `std_income` may be a standardized covariate.
_SCALE_NAME = re.compile(
    r"\W(sigma(_\w*)?|scale|sd|std|se|stddev|stderr|standard_(error|deviation))s?\d*\W*$", re.IGNORECASE
)


@dataclass(frozen=True)
class Check:
    """What `vi_kit.check` found.

    Attributes:
        ok: whether nothing stands against a fit.
        problems: what stands against it, one sentence each.
        warnings: what may be meant so, one sentence each.
        dim: number of unconstrained coordinates.
        seconds_per_evaluation: seconds for one log density with its gradient, in a batch.
    """

    ok: bool
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    dim: int
    dtype: str
    seconds_per_evaluation: float

    def __str__(self) -> str:
        head = f"{'ready to fit' if self.ok else 'not ready to fit'}: dim {self.dim}, {self.dtype}"
        if self.seconds_per_evaluation > 0:
            head += f", {self.seconds_per_evaluation * 1e6:.3g} µs an evaluation with gradient"
        lines = [f"  problem: {text}" for text in self.problems] + [f"  warning: {text}" for text in self.warnings]
        return "\n".join([head, *lines])


def check(key: KeyArray, target: Target, *, num_points: int = 16) -> Check:
    """Look for what would spoil a fit: shapes, dtypes, NaN at the start, gradients, supports, flat directions.

    Evaluates the density and its gradient at the origin of unconstrained space, where a fit starts, and at random
    points around it.

    Args:
        key: a typed key.
        target: the model.
        num_points: random points.

    Returns:
        What was found; print it.

    Raises:
        TypeError: for a key that is not typed or something that is not a target.

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(lambda x: -jnp.sum(x["a"] ** 2), {"a": 0.0, "b": 0.0})
        >>> print(vk.check(jax.random.key(0), target).problems[0])
        the log density does not depend on b: its posterior is flat there and cannot be normalized
    """
    check_key(key)
    if not isinstance(target, Target):
        raise TypeError(f"target: expected a Target from vi_kit.make_target, got {type(target).__name__}")
    target = target.refreshed()
    dtype = str(jnp.zeros(()).dtype)
    if not target.has_density:
        return Check(True, (), ("the target was made from draws and has no density to check",), target.dim, dtype, 0.0)  # noqa: FBT003
    try:
        check_static(target)
    except (TypeError, ValueError) as error:
        problem = (str(error),)
        return Check(ok=False, problems=problem, warnings=(), dim=target.dim, dtype=dtype, seconds_per_evaluation=0.0)
    points = jnp.concatenate([jnp.zeros((1, target.dim)), jax.random.normal(key, (num_points, target.dim))])
    values, gradients = jax.device_get(_evaluate(target, points))
    start = time.perf_counter()
    jax.device_get(_evaluate(target, points))
    seconds = (time.perf_counter() - start) / len(points)
    problems: list[str] = []
    warnings: list[str] = []
    if not np.isfinite(values[0]):
        problems.append(explain_nonfinite(target, jnp.zeros(target.dim)))
    elif not np.isfinite(gradients[0]).all():
        problems.append(
            f"the gradient of log_density is not finite at the start, for {named(target, ~np.isfinite(gradients[0]))}"
        )
    largest = np.abs(values[np.isfinite(values)]).max(initial=0.0)
    if (resolution := np.finfo(values.dtype).eps * largest) > 0.1:
        warnings.append(
            f"log_density is as large as {largest:.2g} near the start, where {values.dtype} cannot tell differences "
            f"below {resolution:.2g} nats: subtract a constant, rescale, start elsewhere or use float64"
        )
    bad = ~(np.isfinite(values[1:]) & np.isfinite(gradients[1:]).all(axis=1))
    if bad.any():
        text = (
            f"log_density or its gradient is not finite at {bad.sum()} of {num_points} random points around the start"
        )
        (problems if bad.all() else warnings).append(text)
    usable = np.isfinite(gradients).all(axis=1)
    flat = (gradients[usable] == 0).all(axis=0) if usable.any() else np.zeros(target.dim, bool)
    if flat.any():
        problems.append(
            f"the log density does not depend on {named(target, flat)}: its posterior is flat there and cannot be "
            "normalized"
        )
    round_trip = jax.device_get(jax.vmap(lambda z: target.unconstrain(target.constrain(z)))(points))
    drift = np.abs(round_trip - points).max(axis=0)
    if (drift > 1e-2).any():
        warnings.append(
            f"support loses digits for {named(target, drift > 1e-2)}: constrain and back differs by {drift.max():.2g}"
        )
    return Check(not problems, tuple(problems), tuple(warnings), target.dim, str(values.dtype), seconds)


@jax.jit
def _evaluate(target: Target, points: Float[Array, "n dim"]) -> tuple[Array, Array]:
    return jax.vmap(jax.value_and_grad(target.log_density))(points)


def check_static(target: Target) -> None:
    """Raise what tracing alone can tell: the shape and dtype of the log density, and whether it depends on anything.

    Raises:
        TypeError: for a log density that is not floating point.
        ValueError: for one that is not a scalar or does not depend on its argument, or data named as a scale that are
            not positive.
    """
    z = jnp.zeros((target.dim,))
    try:
        traced = jax.make_jaxpr(lambda point: (target.log_density(point), target.log_likelihood(point)))(z)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
        raise TypeError(
            "log_density: it must be a JAX function: write it with jax.numpy instead of numpy or scipy, jnp.where "
            "instead of `if`, and without float() or int() of its argument"
        ) from error
    except KeyError as error:
        raise ValueError(f"log_density: it reads {error} from x or data, which have no such name") from error
    reasons = _data_reasons(target)
    if reasons:  # a negative scale is often squared on its way, and gives a finite, wrong answer
        raise ValueError("; ".join(reasons))
    if not _depends(traced.jaxpr):
        raise ValueError(
            "log_density does not depend on x: it returns the same number everywhere, so there is nothing to fit"
        )


def _depends(jaxpr: Any) -> bool:
    """Tell whether the last output depends on the first input."""
    reached = {jaxpr.invars[0]}
    for equation in jaxpr.eqns:
        if any(not hasattr(v, "val") and v in reached for v in equation.invars):
            reached.update(equation.outvars)
    last = jaxpr.outvars[-1]
    return not hasattr(last, "val") and last in reached


def _data_reasons(target: Target) -> list[str]:
    reasons = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(target.data):
        if isinstance(leaf, jax.core.Tracer) or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            continue
        name, array = "data" + jax.tree_util.keystr(path), np.asarray(leaf)
        if array.dtype.kind in "fiu" and array.size and _SCALE_NAME.search(name) and array.min() <= 0:
            reasons.append(f"{name} should be positive, its smallest value is {array.min():g}")
    return reasons
