"""Where a fit starts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vi_kit._posterior import Posterior
from vi_kit._types import Algorithm, Family, Fit, KeyArray, Params, StartsFromFit, Target
from vi_kit.objectives import ForwardKL, self_normalized

_NUM_DRAWS = 1_000
_SCALE = 0.1
"""Standard deviations to start reverse KL from: small, so that the first draws stay where the density is tame.

Chosen in experiments/defaults.
"""


def start_params(key: KeyArray, start: Any, algorithm: Algorithm, target: Target) -> Params:
    """Return the family's parameters to start from.

    Args:
        key: a typed key.
        start: None (a normal around the origin of unconstrained space, or the moments of the draws where forward KL
            has draws of p), a `Posterior` (from that of another family, as `family.init_from` documents), a `Fit`,
            parameters of the family, or a point x in the user's space.
        algorithm: whose family is started.
        target: what is fitted.

    Raises:
        TypeError: when `start` is none of these.
        ValueError: when it does not fit the family or lies outside the support.
    """
    family = algorithm.family
    if start is None:
        return _default_start(key, algorithm, target)
    if isinstance(start, Posterior):
        if start.family == family:
            return start.params
        q = start.family.dist(start.params)
        if isinstance(family, StartsFromFit):
            return family.init_from(key, q)
        return family.init(key, mean=q.mean(), scale=q.std())
    if isinstance(start, Fit):
        start = start.params
    expected = jax.eval_shape(family.init, key)
    found: Any = jax.tree.structure(start)
    if found == jax.tree.structure(expected):
        return _checked_params(start, expected, family)
    try:
        center = target.unconstrain(start)
    except (TypeError, ValueError) as error:
        raise TypeError(
            "start: expected a Posterior, a Fit, parameters of the family or a point shaped like `like`, got "
            f"{type(start).__name__}"
        ) from error
    if not bool(jnp.all(jnp.isfinite(center))):
        raise ValueError("start: the point lies outside the support of the target or on its edge")
    return family.init(key, mean=center)


def _checked_params(start: Params, expected: Any, family: Family) -> Params:
    def convert(given: Any, wanted: Any) -> Array:
        array = jnp.asarray(given, wanted.dtype)
        if array.shape != wanted.shape:
            raise ValueError(f"start: expected parameters of {family!r} of shape {wanted.shape}, got {array.shape}")
        if not bool(jnp.all(jnp.isfinite(array))):
            raise ValueError("start: the parameters hold values that are not finite")
        return array

    return jax.tree.map(convert, start, expected)


def _default_start(key: KeyArray, algorithm: Algorithm, target: Target) -> Params:
    family = algorithm.family
    objective = getattr(algorithm, "objective", None)
    if not isinstance(objective, ForwardKL):
        return family.init(key, scale=jnp.asarray(_SCALE))
    if objective.source(target) is self_normalized:
        return family.init(key)  # importance weights need a q that is wider than p
    # Draws of p are at hand: their moments are where a Gaussian's forward KL is least.
    given = family.init(key)
    draws, log_weights = objective.source(target)(family, given, target, key, _NUM_DRAWS)
    weights = jax.nn.softmax(log_weights)
    mean = weights @ draws
    centered = draws - mean[None, :]
    deviations = jnp.sqrt(weights @ (centered * centered))
    return family.init(key, mean=mean, scale=jnp.where(deviations > 0, deviations, jnp.ones_like(deviations)))
