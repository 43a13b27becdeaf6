"""Constants for one differentiation: what lets a gradient estimator have right second derivatives."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vi_kit._types import Params, Scalar


@jax.custom_jvp
def hold(value: Any, params: Params) -> Any:
    """Return the value with derivative zero, for the first differentiation in the parameters only.

    `stop_gradient` would make it a constant for all of them, and the derivative of a gradient estimator (of a whole
    fit in its learning rate, say) wrong. The parameters are there to mark that differentiation: a value that does not
    depend on them would otherwise be held in the next one.
    """
    del params
    return value


@hold.defjvp
def _(primals: tuple[Any, Params], tangents: tuple[Any, Params]) -> tuple[Any, Any]:
    del tangents
    value = primals[0]  # not held: the next differentiation sees it
    return value, jax.tree.map(jnp.zeros_like, value)


def with_gradient(value: Scalar, surrogate: Scalar, params: Params) -> Scalar:
    """Return the value with the gradient of the surrogate."""
    result: Scalar = hold(value, params) + (surrogate - hold(surrogate, params))
    return result


def weigh(coefficients: Array, values: Array, params: Params) -> Scalar:
    """Return the sum with coefficients that are held; a value of −∞ with coefficient 0 counts nothing."""
    counted = jnp.where(coefficients == 0, jnp.zeros_like(values), values)
    return jnp.sum(hold(coefficients, params) * counted)
