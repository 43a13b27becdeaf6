"""Natural gradients for mixtures of Gaussians: every component by its own means of log p − log q, and the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vi_kit import _distributions as distributions
from vi_kit._types import Event, KeyArray, Params, Scalar, Target
from vi_kit.algorithms._expected_derivatives import ExpectedDerivatives, expected_derivatives
from vi_kit.algorithms._gaussian import Scale, mean_and_scale, with_mean_and_scale
from vi_kit.families import Mixture, MixtureParams

_MOST = 1.0  # nats by which a weight rises or falls in a step, and widths of its own by which a component moves


class MixtureDerivatives(NamedTuple):
    """Means over a mixture.

    Attributes:
        components: for every component the means of log p − log q over it, with a leading axis of num_components; to
            `slopes` are added those of its own log density, as if the others were part of p.
        error: standard error of the mean over the mixture.
    """

    components: ExpectedDerivatives
    error: Scalar


def mixture_derivatives(
    family: Mixture, params: MixtureParams, target: Target, key: KeyArray, num_pairs: int
) -> tuple[MixtureDerivatives, Scalar, Scalar]:
    """Return the means, the negative ELBO and the root of the mean square of gradients, by draws of every component."""
    component: Any = family.component(family.dim)
    q = family.dist(params)

    def gap(z: Event) -> Scalar:
        return target.log_density(z) - distributions.log_prob(q, z)

    def means(own: Params, key: KeyArray) -> ExpectedDerivatives:
        found = expected_derivatives(gap, *mean_and_scale(component, own), key, num_pairs)
        return found._replace(slopes=found.slopes + found.directions)

    found = jax.vmap(means)(params.components, jax.random.split(key, family.num_components))
    weights = jnp.exp(q.log_weights)
    loss = -jnp.sum(weights * found.log_density)
    norm = jnp.sqrt(jnp.sum(weights[:, None] * jnp.square(found.gradient)))
    error = jnp.sqrt(jnp.sum(jnp.square(weights * found.error)))
    return MixtureDerivatives(found, error), loss, norm


def move_mixture(
    family: Mixture,
    params: MixtureParams,
    found: MixtureDerivatives,
    rate: Scalar,
    move: Callable[[Event, Scale, ExpectedDerivatives, Scalar], tuple[Event, Scale]],
) -> MixtureParams:
    """Return the parameters after a step of this length: components by the rule of a single one, weights by theirs."""
    component: Any = family.component(family.dim)

    def one(own: Params, means: ExpectedDerivatives) -> Params:
        mean, scale = mean_and_scale(component, own)
        moved, changed = move(mean, scale, means, rate)
        if family.num_components > 1:
            length = jnp.linalg.norm(_whitened(scale, moved - mean))
            moved = mean + (moved - mean) / jnp.maximum(length / _MOST, 1)
        return with_mean_and_scale(component, moved, changed, jax.random.key(0))

    log_weights = jax.nn.log_softmax(params.logits)
    gains: Float[Array, " num_components"] = found.components.log_density
    change = rate * (gains - jnp.sum(jnp.exp(log_weights) * gains))
    logits = jax.nn.log_softmax(log_weights + jnp.clip(change, -_MOST, _MOST))
    return MixtureParams(jax.vmap(one)(params.components, found.components), logits)


def _whitened(scale: Scale, shift: Event) -> Event:
    """Return L⁻¹ s."""
    if scale.ndim == 1:
        return shift / scale
    found: Array = jax.scipy.linalg.solve_triangular(scale, shift, lower=True)
    return found
