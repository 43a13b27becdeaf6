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


def _log_standard_normal(noise: Event) -> Scalar:
    return -0.5 * jnp.sum(noise * noise) - noise.shape[0] * _HALF_LOG_TWO_PI


class DiagonalNormal(distrax.MultivariateNormalDiag):  # type: ignore[misc]
    """A multivariate normal with independent coordinates.

    distrax's own joint draw fails where rank promotion is an error, so the event-level one is spelled out.
    """

    def sample_and_log_prob(self, *, seed: KeyArray, sample_shape: Any = ()) -> tuple[Any, Any]:
        """Draw one event with its log density (several, where `sample_shape` is given)."""
        if sample_shape != ():
            return super().sample_and_log_prob(seed=seed, sample_shape=sample_shape)  # type: ignore[no-any-return]
        noise = jax.random.normal(seed, self.loc.shape, self.loc.dtype)
        return self.from_base(noise), _log_standard_normal(noise) - jnp.sum(jnp.log(self.scale_diag))

    @property
    def num_base(self) -> int:
        """Standard normals that a draw is made of."""
        return int(self.loc.shape[0])

    def from_base(self, noise: Event) -> Event:
        """Return the draw that these standard normals make."""
        return self.loc + self.scale_diag * noise  # type: ignore[no-any-return]

    def std(self) -> Event:
        """Marginal standard deviations."""
        return self.stddev()  # type: ignore[no-any-return]


class TriangularNormal(distrax.MultivariateNormalTri):  # type: ignore[misc]
    """A multivariate normal with a lower-triangular factor of its covariance."""

    def sample_and_log_prob(self, *, seed: KeyArray, sample_shape: Any = ()) -> tuple[Any, Any]:
        """Draw one event with its log density (several, where `sample_shape` is given)."""
        if sample_shape != ():
            return super().sample_and_log_prob(seed=seed, sample_shape=sample_shape)  # type: ignore[no-any-return]
        noise = jax.random.normal(seed, self.loc.shape, self.loc.dtype)
        log_determinant = jnp.sum(jnp.log(jnp.diagonal(self.scale_tri)))
        return self.from_base(noise), _log_standard_normal(noise) - log_determinant

    @property
    def num_base(self) -> int:
        """Standard normals that a draw is made of."""
        return int(self.loc.shape[0])

    def from_base(self, noise: Event) -> Event:
        """Return the draw that these standard normals make."""
        return self.loc + self.scale_tri @ noise  # type: ignore[no-any-return]

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


class LowRankNormal:
    r"""A multivariate normal whose covariance is low rank plus diagonal, in memory and time linear in its dimension.

    $$ z = m + s \odot (\epsilon + C \eta), \quad \Sigma = diag(s) (I + C C^T) diag(s) $$

    Only `covariance` forms a matrix of dim × dim.

    Args:
        loc: mean, shape (dim,).
        scale_diag: s > 0, shape (dim,).
        coupling: C, shape (dim, rank).
    """

    def __init__(self, loc: Event, scale_diag: Event, coupling: Float[Array, "dim rank"]) -> None:
        self.loc, self.scale_diag, self.coupling = loc, scale_diag, coupling

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """One distribution."""
        return ()

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of an event."""
        return tuple(self.loc.shape)

    @property
    def factor(self) -> Float[Array, "dim rank"]:
        """F in Σ = diag(s²) + F Fᵀ."""
        return self.scale_diag[:, None] * self.coupling

    def _inner(self) -> Float[Array, "rank rank"]:
        """Return the lower factor of I + CᵀC."""
        gram = _matmul(self.coupling.T, self.coupling)
        found: Array = jnp.linalg.cholesky(gram + jnp.eye(gram.shape[0], dtype=gram.dtype))
        return found

    def _half_log_determinant(self, inner: Array) -> Scalar:
        return jnp.sum(jnp.log(self.scale_diag)) + jnp.sum(jnp.log(jnp.diagonal(inner)))

    def _log_prob_of_whitened(self, y: Event) -> Scalar:
        """Return the log density where (z − m) / s is y, by a sum of squares that no rounding makes negative."""
        inner = self._inner()
        weights = jax.scipy.linalg.cho_solve((inner, True), _matmul(self.coupling.T, y))
        rest = y - _matmul(self.coupling, weights)
        squares = jnp.sum(rest * rest) + jnp.sum(weights * weights)
        return -0.5 * squares - self._half_log_determinant(inner) - y.shape[0] * _HALF_LOG_TWO_PI

    def _whitened(self, noise: Float[Array, " num_base"]) -> Event:
        dim = self.loc.shape[0]
        return noise[:dim] + _matmul(self.coupling, noise[dim:])

    def _noise(self, key: KeyArray) -> Float[Array, " num_base"]:
        return jax.random.normal(key, (self.num_base,), self.loc.dtype)

    @property
    def num_base(self) -> int:
        """Standard normals that a draw is made of: dim + rank."""
        return int(sum(self.coupling.shape))

    def from_base(self, noise: Float[Array, " num_base"]) -> Event:
        """Return the draw that these standard normals make."""
        return self.loc + self.scale_diag * self._whitened(noise)

    def sample(self, *, seed: KeyArray, sample_shape: Any = ()) -> Any:
        """Draw one event (several, where `sample_shape` is given)."""
        if sample_shape == ():
            return self.from_base(self._noise(seed))
        shape = (sample_shape,) if isinstance(sample_shape, int) else tuple(sample_shape)
        flat = jax.vmap(lambda k: self.sample(seed=k))(jax.random.split(seed, math.prod(shape)))
        return flat.reshape(*shape, *self.event_shape)

    def log_prob(self, value: Float[Array, "... dim"]) -> Float[Array, "..."]:
        """Log density of an event, or of several."""

        def one(value: Event) -> Scalar:
            return self._log_prob_of_whitened((value - self.loc) / self.scale_diag)

        found: Array = jnp.vectorize(one, signature="(d)->()")(value)
        return found

    def sample_and_log_prob(self, *, seed: KeyArray) -> tuple[Event, Scalar]:
        """Draw one event with its log density."""
        y = self._whitened(self._noise(seed))
        return self.loc + self.scale_diag * y, self._log_prob_of_whitened(y)

    def mean(self) -> Event:
        """Mean."""
        return self.loc

    def variance(self) -> Event:
        """Marginal variances."""
        return jnp.square(self.std())

    def std(self) -> Event:
        """Marginal standard deviations."""
        return self.scale_diag * jnp.sqrt(1 + jnp.sum(jnp.square(self.coupling), axis=1))

    def covariance(self) -> Float[Array, "dim dim"]:
        """Covariance matrix, of dim × dim numbers."""
        factor = self.factor
        return jnp.diag(jnp.square(self.scale_diag)) + _matmul(factor, factor.T)

    def entropy(self) -> Scalar:
        """Entropy, in nats."""
        return self.loc.shape[0] * (0.5 + _HALF_LOG_TWO_PI) + self._half_log_determinant(self._inner())


def _matmul(x: Array, y: Array) -> Array:
    # Accelerators round the factors of matrix products otherwise.
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)
