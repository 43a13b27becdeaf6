"""Families of vectors and matrices."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Array, Bool

from vi_kit.divergences.distributions._declare import (
    Distribution,
    direction,
    factor,
    family,
    matrix,
    non_negative,
    parameter,
    positive,
    positive_vector,
    real,
    static,
    vector,
)


class _Vector(Distribution):
    support: ClassVar[str] = "vector"
    event_ndims: ClassVar[int] = 1


@family
class MultivariateNormal(_Vector):
    """Multivariate normal; `scale_tril` is a lower Cholesky factor of the covariance."""

    loc: Array = parameter(vector)
    scale_tril: Array = parameter(factor)


@family
class MultivariateNormalLowRank(_Vector):
    """Multivariate normal with covariance F Fᵀ + diag(scale_diag²), F = `factor` of shape (…, dim, rank)."""

    loc: Array = parameter(vector)
    factor: Array = parameter(matrix, axes=("dim", "rank"))
    scale_diag: Array = parameter(positive_vector)


@family
class Dirichlet(Distribution):
    """Density ∝ Π xᵢ^{concentrationᵢ − 1} on the simplex."""

    support: ClassVar[str] = "simplex"
    event_ndims: ClassVar[int] = 1
    concentration: Array = parameter(positive_vector)


@family
class VonMisesFisher(Distribution):
    """Density ∝ e^{concentration · mean_directionᵀ x} on the unit sphere."""

    support: ClassVar[str] = "sphere"
    event_ndims: ClassVar[int] = 1
    mean_direction: Array = parameter(direction)
    concentration: Array = parameter(non_negative)


@family
class PowerSpherical(Distribution):
    """Density ∝ (1 + mean_directionᵀ x)^concentration on the unit sphere."""

    support: ClassVar[str] = "sphere"
    event_ndims: ClassVar[int] = 1
    mean_direction: Array = parameter(direction)
    concentration: Array = parameter(non_negative)


@family
class SphericalUniform(Distribution):
    """Uniform on the unit sphere in R^dim."""

    support: ClassVar[str] = "sphere"
    event_ndims: ClassVar[int] = 1
    dim: int = static()
    batch: tuple[int, ...] = static(default=())

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch."""
        return self.batch

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one event."""
        return (self.dim,)

    def broadcast_to(self, batch_shape: tuple[int, ...]) -> SphericalUniform:
        """Return the same distribution with this batch shape."""
        return SphericalUniform(self.dim, batch_shape)


class _Degrees(Distribution):
    """What has degrees of freedom that bound its dimension."""

    def relations(self) -> dict[str, tuple[Bool[Array, "..."], str]]:
        """Tell whether there are enough degrees of freedom."""
        scale_tril, df = getattr(self, "scale_tril", None), getattr(self, "df", None)
        if scale_tril is None or df is None:
            return {}
        return {"df": (df > scale_tril.shape[-1] - 1, "numbers above the dimension minus 1")}


class _Matrix(_Degrees):
    support: ClassVar[str] = "positive_definite"
    event_ndims: ClassVar[int] = 2


@family
class MatrixNormal(Distribution):
    """Rows and columns of a normal matrix are correlated by the covariances with these Cholesky factors."""

    support: ClassVar[str] = "matrix"
    event_ndims: ClassVar[int] = 2
    loc: Array = parameter(matrix, axes=("rows", "columns"))
    row_scale_tril: Array = parameter(factor, axes=("rows", "rows"))
    column_scale_tril: Array = parameter(factor, axes=("columns", "columns"))


@family
class Wishart(_Matrix):
    """Wishart with `df` degrees of freedom, of mean df · V; `scale_tril` is the lower Cholesky factor of V."""

    scale_tril: Array = parameter(factor)
    df: Array = parameter(positive)


@family
class InverseWishart(_Matrix):
    """The inverse of a Wishart(df, Ψ⁻¹) matrix; `scale_tril` is the lower Cholesky factor of Ψ."""

    scale_tril: Array = parameter(factor)
    df: Array = parameter(positive)


class _Pair(_Degrees):
    """A mean with its precision or variance: the event is the pair."""

    support: ClassVar[str] = "pair"


@family
class NormalGamma(_Pair):
    """Precision τ ~ Gamma(concentration, rate), mean | τ ~ Normal(loc, (count · τ)^{−1/2})."""

    loc: Array = parameter(real)
    count: Array = parameter(positive)
    concentration: Array = parameter(positive)
    rate: Array = parameter(positive)


@family
class NormalInverseGamma(_Pair):
    """Variance v ~ InverseGamma(concentration, scale), mean | v ~ Normal(loc, (v / count)^{1/2})."""

    loc: Array = parameter(real)
    count: Array = parameter(positive)
    concentration: Array = parameter(positive)
    scale: Array = parameter(positive)


@family
class NormalWishart(_Pair):
    """Precision Λ ~ Wishart(df, V), mean | Λ ~ Normal(loc, (count · Λ)⁻¹); `scale_tril` is the factor of V."""

    loc: Array = parameter(vector)
    count: Array = parameter(positive)
    scale_tril: Array = parameter(factor)
    df: Array = parameter(positive)


@family
class NormalInverseWishart(_Pair):
    """Covariance Σ ~ InverseWishart(df, Ψ), mean | Σ ~ Normal(loc, Σ / count); `scale_tril` is the factor of Ψ."""

    loc: Array = parameter(vector)
    count: Array = parameter(positive)
    scale_tril: Array = parameter(factor)
    df: Array = parameter(positive)
