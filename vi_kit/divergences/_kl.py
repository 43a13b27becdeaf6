"""KL between distributions in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vi_kit.divergences._compare import compare
from vi_kit.divergences._cross_moments import cross_moment
from vi_kit.divergences._door import (
    holds_opaque,
    of_one_dtype,
    prepare,
    refuse_bad_parameters,
    refuse_no_closed_form,
)
from vi_kit.divergences._points import from_point
from vi_kit.divergences._registered import opened, registered, registered_parts
from vi_kit.divergences._rules import NoClosedForm
from vi_kit.divergences._support import excludes, infinite, nan_unless_valid
from vi_kit.divergences._table import RULES
from vi_kit.divergences.distributions import Deterministic, Distribution


def kl_divergence(p: Any, q: Any) -> Float[Array, "..."]:
    """KL(p‖q) in closed form.

    Takes objects of distrax, TensorFlow Probability and NumPyro, mixed freely, and the families of
    `vk.divergences.distributions`. `vk.divergences.table()` lists the pairs. Right in float32 also where p and q are
    nearly equal or concentrated, never negative, 0 at equality, +inf where p has mass that q has not.

    Args:
        p: the distribution the mean is taken over.
        q: the other one; batch shapes broadcast, event shapes are equal.

    Returns:
        KL in nats, one value an entry of the batch. NaN where traced parameters are out of range.

    Raises:
        TypeError: where p or q is no distribution.
        ValueError: where event shapes differ or parameters are out of range.
        NotImplementedError: when the pair has no closed form; nothing is estimated instead.

    Example:
        >>> import distrax, jax.numpy as jnp, vi_kit as vk
        >>> p = distrax.MultivariateNormalDiag(jnp.ones(2), jnp.ones(2))
        >>> float(vk.kl_divergence(p, distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))))
        1.0
    """
    own = registered(p, q)
    if own is not None:
        known: Array = own(p, q)
        return known
    first, second = prepare("kl_divergence", p, q)
    try:
        evaluate: Callable[..., Array] = kl_of_families if holds_opaque(first, second) else _jitted
        value: Array = evaluate(first, second)
        refuse_bad_parameters("kl_divergence", first, second, value, kl_of_families)
    except NoClosedForm as error:
        raise refuse_no_closed_form("kl_divergence", p, q, error) from None
    return value


def kl_of_families(p: Distribution, q: Distribution) -> Array:
    """Return KL between two families with parameters: what `kl_divergence` compiles."""
    value = compare(p, q, RULES, _fallback)
    if any(rule.checked and (type(p), type(q)) == (rule.p, rule.q) for rule in RULES):
        return value
    return nan_unless_valid(value, p, q)


_jitted = jax.jit(kl_of_families)


def _fallback(p: Distribution, q: Distribution) -> Array | None:
    """Try what needs no row: moments (`_cross_moments.py`), then supports that leave mass out."""
    value = cross_moment(p, q)
    if value is not None:
        return value
    own = registered_parts(p, q)
    if own is not None:
        return own
    parts = opened(p, q)
    if parts is not None:
        return kl_of_families(*of_one_dtype(*parts))
    if isinstance(p, Deterministic):
        return from_point(p, q)
    if excludes(p.support, q.support):
        dtype = jnp.result_type(*(x.dtype for x in jax.tree.leaves((p, q))))
        batch = np.broadcast_shapes(p.batch_shape, q.batch_shape)
        return infinite((p, q), jnp.zeros(batch, dtype))
    return None
