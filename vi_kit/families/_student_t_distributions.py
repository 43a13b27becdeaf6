"""Student-t distributions: independent coordinates, and elliptical ones with a lower factor.

In float32 log-gamma functions lose their digits where the degrees of freedom are many, and so do the derivatives of
gamma draws that JAX has; what is used here holds from 2 to 10⁷ of them and beyond.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import betaln, digamma, gammaln
from jaxtyping import Array, Float

from vi_kit._distributions import DiagonalNormal, TriangularNormal
from vi_kit._types import Event, KeyArray, Scalar

_LOG_PI = 1.1447298858494002


class IndependentStudentT:
    """Independent Student-t coordinates.

    Args:
        excess: degrees of freedom less 2, positive, shape (dim,).
        loc: mean, shape (dim,).
        scale: positive, shape (dim,); less than the standard deviations.
    """

    def __init__(self, excess: Event, loc: Event, scale: Event) -> None:
        self.excess, self.loc, self.scale = excess, loc, scale

    @property
    def df(self) -> Event:
        """Degrees of freedom."""
        return 2 + self.excess

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """One distribution."""
        return ()

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of an event."""
        return tuple(self.loc.shape)

    def sample(self, *, seed: KeyArray) -> Event:
        """Draw one event."""
        return self.loc + self.scale * _standard(seed, self.df, self.loc)

    def log_prob(self, value: Event) -> Scalar:
        """Log density of one event, in nats."""
        standard = (value - self.loc) / self.scale
        one = _log_kernel(self.df, jnp.square(standard), 1) + log_normalizer(self.df, 1)
        return jnp.sum(one - jnp.log(self.scale))

    def sample_and_log_prob(self, *, seed: KeyArray) -> tuple[Event, Scalar]:
        """Draw one event with its log density."""
        z = self.sample(seed=seed)
        return z, self.log_prob(z)

    def mean(self) -> Event:
        """Mean."""
        return self.loc

    def std(self) -> Event:
        """Marginal standard deviations."""
        return self.scale * jnp.sqrt(1 + 2 / self.excess)

    def covariance(self) -> Float[Array, "dim dim"]:
        """Covariance matrix."""
        return jnp.diag(jnp.square(self.std()))

    def entropy(self) -> Scalar:
        """Entropy, in nats."""
        return jnp.sum(jnp.log(self.scale) + _standard_entropy(self.df, 1))

    def gaussian(self) -> DiagonalNormal:
        """Return the Gaussian with this mean and covariance."""
        return DiagonalNormal(self.mean(), self.std())


class MultivariateStudentT:
    """The elliptical Student-t distribution: one number of degrees of freedom for all directions.

    Args:
        excess: degrees of freedom less 2, positive.
        loc: mean, shape (dim,).
        scale_tri: lower factor of the scale matrix, shape (dim, dim).
    """

    def __init__(self, excess: Scalar, loc: Event, scale_tri: Float[Array, "dim dim"]) -> None:
        self.excess, self.loc, self.scale_tri = excess, loc, scale_tri

    @property
    def df(self) -> Scalar:
        """Degrees of freedom."""
        return 2 + self.excess

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """One distribution."""
        return ()

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of an event."""
        return tuple(self.loc.shape)

    def _log_prob_of_standard(self, standard: Event) -> Scalar:
        dim = standard.shape[0]
        log_determinant = jnp.sum(jnp.log(jnp.diagonal(self.scale_tri)))
        kernel = _log_kernel(self.df, jnp.sum(standard * standard), dim)
        return kernel + log_normalizer(self.df, dim) - log_determinant

    def _standard(self, key: KeyArray) -> Event:
        return _standard(key, self.df, self.loc)

    def sample(self, *, seed: KeyArray) -> Event:
        """Draw one event."""
        return self.loc + self.scale_tri @ self._standard(seed)

    def log_prob(self, value: Event) -> Scalar:
        """Log density of one event, in nats."""
        solve = jax.scipy.linalg.solve_triangular
        return self._log_prob_of_standard(solve(self.scale_tri, value - self.loc, lower=True))

    def sample_and_log_prob(self, *, seed: KeyArray) -> tuple[Event, Scalar]:
        """Draw one event with its log density."""
        standard = self._standard(seed)
        return self.loc + self.scale_tri @ standard, self._log_prob_of_standard(standard)

    def mean(self) -> Event:
        """Mean."""
        return self.loc

    def _factor(self) -> Float[Array, "dim dim"]:
        return jnp.sqrt(1 + 2 / self.excess) * self.scale_tri

    def std(self) -> Event:
        """Marginal standard deviations."""
        return jnp.sqrt(jnp.sum(jnp.square(self._factor()), axis=1))

    def covariance(self) -> Float[Array, "dim dim"]:
        """Covariance matrix."""
        factor = self._factor()
        return jnp.matmul(factor, factor.T, precision=jax.lax.Precision.HIGHEST)

    def entropy(self) -> Scalar:
        """Entropy, in nats."""
        log_determinant = jnp.sum(jnp.log(jnp.diagonal(self.scale_tri)))
        return log_determinant + _standard_entropy(self.df, self.loc.shape[0])

    def gaussian(self) -> TriangularNormal:
        """Return the Gaussian with this mean and covariance."""
        return TriangularNormal(self.loc, self._factor())


def _standard(key: KeyArray, df: Array, like: Event) -> Event:
    """Draw normals over the square root of a chi-square variable over its degrees of freedom, one or one each."""
    normal_key, gamma_key = jax.random.split(key)
    log_ratio = log_gamma_over_shape(gamma_key, 0.5 * df)
    return jax.random.normal(normal_key, like.shape, like.dtype) * jnp.exp(-0.5 * log_ratio)


def log_normalizer(df: Array, dim: int) -> Array:
    """Return the logarithm of the density's height at its center, for a unit scale matrix."""
    half = jnp.asarray(0.5 * dim, df.dtype)
    beta: Array = betaln(0.5 * df, half)
    return gammaln(half) - half * (_LOG_PI + jnp.log(df)) - beta


def _log_kernel(df: Array, squares: Array, dim: int) -> Array:
    return -0.5 * (df + dim) * jnp.log1p(squares / df)


_LARGE = 20.0


def _standard_entropy(df: Array, dim: int) -> Array:
    x, half = 0.5 * df, 0.5 * dim
    y = x + half
    series = jnp.log1p(half / x) + 0.5 * (1 / x - 1 / y) + (x**-2 - y**-2) / 12 - (x**-4 - y**-4) / 120
    difference = jnp.where(x > _LARGE, series, digamma(y) - digamma(x))
    return y * difference - log_normalizer(df, dim)


def log_gamma_over_shape(key: KeyArray, shape: Array) -> Array:
    """Draw log(g / shape), g a gamma variable, with its derivative in the shape at a fixed quantile.

    The derivative is JAX's implicit one, which float32 spoils beyond a shape of 1,000 (one percent there, 30 at 10⁴,
    nothing right at 10⁵): from there on it is that of the Wilson–Hilferty approximation, off by 0.1 / shape of itself.

    Source: Figurnov, Mohamed and Mnih, "Implicit Reparameterization Gradients", 2018,
    https://arxiv.org/abs/1805.08498
    """
    fixed = jax.lax.stop_gradient(shape)
    return _moving(shape, jax.random.loggamma(key, fixed, dtype=shape.dtype) - jnp.log(fixed))


@jax.custom_jvp
def _moving(shape: Array, draw: Array) -> Array:
    del shape
    return draw


@_moving.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    shape, draw = primals
    out = _moving(shape, draw)
    switch = 1e3 if shape.dtype.itemsize <= 4 else 1e6
    near = jnp.minimum(shape, switch)
    gamma = near * jnp.exp(out)
    implicit = jax.lax.random_gamma_grad(near, gamma) / gamma - 1 / near
    root = jnp.exp(out / 3)  # normal with mean 1 − 1 / 9 shape and variance 1 / 9 shape, nearly
    quantile = jnp.expm1(out / 3) + 1 / (9 * shape)
    asymptotic = (1 / (3 * shape) - 1.5 * quantile) / (shape * root)
    return out, jnp.where(shape < switch, implicit, asymptotic) * tangents[0]
