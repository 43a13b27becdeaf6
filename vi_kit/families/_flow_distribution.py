"""What a flow builds: a base distribution, couplings and an affine map, with densities both ways."""

from __future__ import annotations

from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vi_kit._distributions import DiagonalNormal, TriangularNormal
from vi_kit._types import Event, KeyArray, Scalar
from vi_kit.families import _couplings
from vi_kit.families._couplings import ConditionerParams, Coupling
from vi_kit.families._gaussian_forms import lower_factor

_NUM_PAIRS = 2048


class FlowDistribution:
    r"""The distribution of $z = A(f_L(\dots f_1(\epsilon)))$.

    Args:
        base: distribution of ε with mean 0 and independent coordinates.
        coupling: the kind of the f.
        conditioners: their networks.
        affine: A, as the normal that it makes of a standard one.
    """

    def __init__(
        self, base: Any, coupling: Coupling, conditioners: ConditionerParams, affine: DiagonalNormal | TriangularNormal
    ) -> None:
        self.base, self.coupling, self.conditioners, self.affine = base, coupling, conditioners, affine
        layers, dim, _ = conditioners.first.shape
        self._masks: np.ndarray = _couplings.masks(layers, dim)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """One distribution."""
        return ()

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of an event."""
        return tuple(self.affine.loc.shape)

    def _scales(self) -> Event:
        dense = isinstance(self.affine, TriangularNormal)
        return jnp.diagonal(self.affine.scale_tri) if dense else self.affine.scale_diag  # type: ignore[no-any-return]

    def _forward(self, noise: Event) -> tuple[Event, Scalar]:
        """Return the draw that a draw of the base makes, and the log determinant of the map there."""
        x, log_determinant = _couplings.forward(self.coupling, self.conditioners, self._masks, noise)
        return self.affine.from_base(x), log_determinant + jnp.sum(jnp.log(self._scales()))

    def sample(self, *, seed: KeyArray) -> Event:
        """Draw one event."""
        return self._forward(self.base.sample(seed=seed))[0]

    def sample_and_log_prob(self, *, seed: KeyArray) -> tuple[Event, Scalar]:
        """Draw one event with its log density; nothing is inverted."""
        noise, log_base = self.base.sample_and_log_prob(seed=seed)
        z, log_determinant = self._forward(noise)
        return z, log_base - log_determinant

    def log_prob(self, value: Event) -> Scalar:
        """Log density of one event, in nats, by the inverse; it costs what a draw does."""
        centered = value - self.affine.loc
        if isinstance(self.affine, TriangularNormal):
            x = jax.scipy.linalg.solve_triangular(self.affine.scale_tri, centered, lower=True)
        else:
            x = centered / self.affine.scale_diag
        noise, log_determinant = _couplings.inverse(self.coupling, self.conditioners, self._masks, x)
        return self.base.log_prob(noise) + log_determinant - jnp.sum(jnp.log(self._scales()))  # type: ignore[no-any-return]

    def _fixed_draws(self) -> Float[Array, "n dim"]:
        """Return the images of fixed draws of the base, which have its mean and (co)variances exactly."""
        dim, dtype = self.affine.loc.shape[0], self.affine.loc.dtype
        half = jax.vmap(lambda k: self.base.sample(seed=k))(jax.random.split(jax.random.key(0), _NUM_PAIRS))
        if isinstance(self.affine, TriangularNormal):
            root = lower_factor(half.T / jnp.sqrt(jnp.asarray(_NUM_PAIRS, dtype)))
            half = jax.scipy.linalg.solve_triangular(root, half.T, lower=True).T
        else:
            half = half / jnp.sqrt(jnp.mean(jnp.square(half), axis=0, keepdims=True))
        half = half * jnp.broadcast_to(self.base.std(), (1, dim))
        return jax.vmap(lambda noise: self._forward(noise)[0])(jnp.concatenate([half, -half]))

    def mean(self) -> Event:
        """Mean over 4,096 fixed draws, antithetic and whitened: exact where no coupling changes anything."""
        return jnp.mean(self._fixed_draws(), axis=0)

    def _centered(self) -> tuple[Event, Float[Array, "n dim"]]:
        draws = self._fixed_draws()
        mean = jnp.mean(draws, axis=0)
        return mean, (draws - mean[None]) / jnp.sqrt(jnp.asarray(len(draws), draws.dtype))

    def std(self) -> Event:
        """Marginal standard deviations of the same draws."""
        return jnp.sqrt(jnp.sum(jnp.square(self._centered()[1]), axis=0))

    def covariance(self) -> Float[Array, "dim dim"]:
        """Covariance of the same draws."""
        rows = self._centered()[1]
        return jnp.matmul(rows.T, rows, precision=jax.lax.Precision.HIGHEST)

    def entropy(self) -> NoReturn:
        """Refuse: flows have no entropy in closed form.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("entropy: a flow has none in closed form; use estimate_kl or an ELBO by draws")

    def gaussian(self) -> DiagonalNormal | TriangularNormal:
        """Return the Gaussian with the mean and covariance (deviations, of many coordinates) of the same draws."""
        mean, rows = self._centered()
        if isinstance(self.affine, TriangularNormal):
            return TriangularNormal(mean, lower_factor(rows.T))
        return DiagonalNormal(mean, jnp.sqrt(jnp.sum(jnp.square(rows), axis=0)))


class NormalFlowDistribution(FlowDistribution):
    """A flow whose base is a standard normal."""

    @property
    def num_base(self) -> int:
        """Standard normals that a draw is made of."""
        return int(self.affine.loc.shape[0])

    def from_base(self, noise: Event) -> Event:
        """Return the draw that these standard normals make."""
        return self._forward(noise)[0]
