"""Rows of probabilities: read, and checked to sum to one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from vi_kit.kl._core import Rows, rows
from vi_kit.kl._inputs import is_traced

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Bool, Float

    from vi_kit.kl._inputs import Axis

_WORDS = "expected probabilities of at least 0 that sum to 1 within"


def _tolerance(value: ArrayLike) -> float:
    """Return how far from one a sum may be: what rounding the dtype's probabilities can do, and a margin."""
    return 2e-2 if jnp.result_type(value).itemsize < 4 else 1e-3


def _read(values: Array, given: Rows, tolerance: float) -> tuple[Array, Bool[Array, "..."]]:
    """Return probabilities and which rows are no distributions (NaN is none); a row that does not count passes."""
    absent = values == -jnp.inf  # written by `rows` where a class does not exist
    values = jnp.where(absent, jnp.zeros_like(values), values)
    total = jnp.sum(values, axis=given.axes, keepdims=True)
    good = (jnp.abs(total - 1) <= tolerance) & jnp.all(values >= 0, axis=given.axes, keepdims=True)
    good |= jnp.all(absent, axis=given.axes, keepdims=True)
    return values, ~good if given.mask is None else ~good & jnp.expand_dims(given.mask, given.axes)


def probability_rows(
    axis: Axis, where: ArrayLike | None, mask: ArrayLike | None, **named: ArrayLike
) -> tuple[Rows, Bool[Array, "..."]]:
    """Read rows of probabilities; classes that do not exist hold 0, as do rows that do not count.

    Returns:
        The rows and which of them are valid, class axes kept.

    Raises:
        ValueError: for concrete rows that are no distributions.
    """
    given = rows(axis, where, mask, **named)
    probabilities, wrong = [], []
    for (name, original), x in zip(named.items(), (given.p_logits, given.q_logits), strict=False):
        tolerance = _tolerance(original)
        values, off = _read(x, given, tolerance)
        if not is_traced(off) and np.any(off):
            sums = np.asarray(jnp.sum(values, axis=given.axes, keepdims=True))[np.asarray(off)]
            least = float(np.min(np.asarray(values)))
            got = f"the probability {least:g}" if least < 0 else f"a row whose sum is {sums[0]:g}"
            raise ValueError(f"{name}: {_WORDS} {tolerance:g}, got {got}")
        probabilities.append(values)
        wrong.append(off)
    return given._replace(p_logits=probabilities[0], q_logits=probabilities[-1]), ~(wrong[0] | wrong[-1])


def check_probabilities(
    p: Float[ArrayLike, "..."],
    *,
    axis: Axis = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    mask: Bool[ArrayLike, "..."] | None = None,
) -> None:
    """Check that rows are probabilities: at least 0, with a sum of one within 0.001 (0.02 in half precision).

    Under `jax.jit` the values are not known while tracing; there this is a `jax.experimental.checkify` check, which
    takes effect in a function transformed by `checkify.checkify`. Costs one pass over p.

    Args:
        p: probabilities, any shape.
        axis: the class axis, or several.
        where: which classes exist.
        mask: which rows count.

    Raises:
        ValueError: for a concrete row that is no distribution.

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit.kl as kl
        >>> from jax.experimental import checkify
        >>> def loss(p):
        ...     kl.check_probabilities(p)
        ...     return kl.categorical_from_probs(p, jnp.array([0.5, 0.5]))
        >>> error, _ = jax.jit(checkify.checkify(loss))(jnp.array([0.7, 0.7]))
        >>> print(error.get().split(" (")[0])
        p: expected probabilities of at least 0 that sum to 1 within 0.001
    """
    from jax.experimental import checkify  # costs more than all else that `vi_kit.kl` imports

    if not is_traced(p):
        probability_rows(axis, where, mask, p=p)
        return
    given = rows(axis, where, mask, p=p)
    tolerance = _tolerance(p)
    checkify.check(~jnp.any(_read(given.p_logits, given, tolerance)[1]), f"p: {_WORDS} {tolerance:g}")
