"""The pathwise (reparameterization) gradient, and the means that its relatives share."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from vi_kit._static import configuration
from vi_kit._types import Family, Integrand, KeyArray, Params, Scalar, check_count
from vi_kit.estimators._base import Base, draw_jointly, makes, shown
from vi_kit.estimators._forms import REPARAMETERIZED, Form, check_family
from vi_kit.estimators._power_mean import power_mean


def values_at(integrand: Integrand, params: Params, z: Array, log_q: Array) -> Array:
    """Evaluate the integrand at draws; the one place where an estimator vectorizes it."""
    return jax.vmap(lambda z, log_q: integrand(params, z, log_q))(z, log_q)


@configuration
class Pathwise:
    r"""Differentiate through the draws: z is a function of the parameters and of noise.

    $$ \nabla E_q[f] = E_\epsilon[\nabla f(z(params, \epsilon))] $$

    The gradient is unbiased for every objective, with families of `reparameterized` draws; others are refused. One
    value-and-gradient of the target a draw. At q = p its variance is not zero; `sticking_the_landing` has zero
    variance there. Of a logarithm of a mean of weights its noise drowns the signal as the draws grow in number;
    `doubly_reparameterized` does not.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes", 2013, https://arxiv.org/abs/1312.6114
    """

    base: Base | None = None

    forms: ClassVar[frozenset[Form]] = frozenset(Form)
    needs: ClassVar[str] = REPARAMETERIZED

    def __repr__(self) -> str:
        return shown("pathwise", self.base)

    def accepts(self, family: Family) -> bool:
        """Tell whether it is valid for a family."""
        return family.reparameterized and makes(self.base, family)

    def __call__(self, integrand: Integrand, family: Family, params: Params, key: KeyArray, num_samples: int) -> Scalar:
        """Return the mean over `num_samples` draws."""
        check_count("num_samples", num_samples)
        check_family(self, family)
        z, log_q = draw_jointly(self.base, family, params, key, num_samples)
        return jnp.mean(values_at(integrand, params, z, log_q))

    def log_mean(
        self,
        log_weight: Integrand,
        family: Family,
        params: Params,
        key: KeyArray,
        shape: tuple[int, int],
        power: ArrayLike,
    ) -> Scalar:
        """Return the mean over rows of (1/power) log mean exp(power · log_weight); `shape`: rows, draws of each."""
        check_family(self, family)
        z, log_q = draw_rows(self.base, family, params, key, shape)
        rows = jax.vmap(lambda z, log_q: values_at(log_weight, params, z, log_q))(z, log_q)
        return jnp.mean(jax.vmap(lambda row: power_mean(row, power))(rows))


def draw_rows(
    base: Base | None, family: Family, params: Params, key: KeyArray, shape: tuple[int, int]
) -> tuple[Array, Array]:
    """Draw rows of events with their log densities; rows are independent."""
    num_rows, num = shape
    if base is not None:
        return jax.vmap(lambda k: draw_jointly(base, family, params, k, num))(jax.random.split(key, num_rows))
    z, log_q = draw_jointly(None, family, params, key, num_rows * num)  # those of a mean of as many draws
    return z.reshape(*shape, *z.shape[1:]), log_q.reshape(shape)


pathwise = Pathwise()
