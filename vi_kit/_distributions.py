"""The one door to distrax: Gaussians at event level, and the few questions that the rest asks of a distribution.

Nothing else touches distrax's internals. Batching is `vmap` over keys or values; a distribution built here is used
inside the traced function that built it and never returned from a `vmap`, where distrax objects go silently wrong.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vi_kit._types import Event, KeyArray, Scalar

with warnings.catch_warnings():
    # TensorFlow Probability, which distrax imports, reads a deprecated JAX symbol while it is imported.
    warnings.filterwarnings("ignore", message=".*pytype_aval_mappings.*", category=DeprecationWarning)
    try:
        import distrax as distrax
    except Exception as error:
        raise ImportError(
            f"vi_kit: distrax cannot be imported here ({type(error).__name__}: {error}); vi_kit.kl and the families of "
            "vi_kit.divergences work without it. The known cause is tensorflow-probability beside tfp-nightly: they "
            "share a folder, so uninstall both and install tfp-nightly again"
        ) from error

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def _standard_normal(key: KeyArray, like: Event) -> tuple[Event, Scalar]:
    noise = jax.random.normal(key, like.shape, like.dtype)
    return noise, -0.5 * jnp.sum(noise * noise) - like.shape[0] * _HALF_LOG_TWO_PI


class DiagonalNormal(distrax.MultivariateNormalDiag):  # type: ignore[misc]
    """A multivariate normal with independent coordinates.

    distrax's own joint draw fails where rank promotion is an error, so the event-level one is spelled out.
    """

    def sample_and_log_prob(self, *, seed: KeyArray, sample_shape: Any = ()) -> tuple[Any, Any]:
        """Draw one event with its log density (several, where `sample_shape` is given)."""
        if sample_shape != ():
            return super().sample_and_log_prob(seed=seed, sample_shape=sample_shape)  # type: ignore[no-any-return]
        noise, log_density = _standard_normal(seed, self.loc)
        return self.loc + self.scale_diag * noise, log_density - jnp.sum(jnp.log(self.scale_diag))

    def std(self) -> Event:
        """Marginal standard deviations."""
        return self.stddev()  # type: ignore[no-any-return]


class TriangularNormal(distrax.MultivariateNormalTri):  # type: ignore[misc]
    """A multivariate normal with a lower-triangular factor of its covariance."""

    def sample_and_log_prob(self, *, seed: KeyArray, sample_shape: Any = ()) -> tuple[Any, Any]:
        """Draw one event with its log density (several, where `sample_shape` is given)."""
        if sample_shape != ():
            return super().sample_and_log_prob(seed=seed, sample_shape=sample_shape)  # type: ignore[no-any-return]
        noise, log_density = _standard_normal(seed, self.loc)
        return self.loc + self.scale_tri @ noise, log_density - jnp.sum(jnp.log(jnp.diagonal(self.scale_tri)))

    def std(self) -> Event:
        """Marginal standard deviations."""
        return self.stddev()  # type: ignore[no-any-return]


def plain(distribution: Any) -> Any:
    """Return the same distribution, safe as an argument of a compiled function.

    distrax's diagonal normal keeps bound methods over its first parameters in its static part: it would never equal
    a freshly built one, and under `vmap` it would go on using the old parameters.
    """
    if isinstance(distribution, distrax.MultivariateNormalDiag):
        return distrax.Independent(distrax.Normal(distribution.loc, distribution.scale_diag), 1)
    return distribution


def sample_and_log_prob(distribution: Any, key: KeyArray) -> tuple[Event, Scalar]:
    """Draw one event with its log density."""
    return distribution.sample_and_log_prob(seed=key)  # type: ignore[no-any-return]


def sample(distribution: Any, key: KeyArray) -> Event:
    """Draw one event."""
    return distribution.sample(seed=key)  # type: ignore[no-any-return]


def log_prob(distribution: Any, value: Float[Array, "..."]) -> Scalar:
    """Log density of one event, in nats."""
    return distribution.log_prob(value)  # type: ignore[no-any-return]
