"""The doubly reparameterized gradient of bounds made of several draws."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from vi_kit._static import configuration
from vi_kit._types import Family, Integrand, KeyArray, Params, Scalar, check_count
from vi_kit.estimators._base import draw
from vi_kit.estimators._forms import Form, check_family, is_invertible
from vi_kit.estimators._hold import weigh, with_gradient
from vi_kit.estimators._pathwise import values_at
from vi_kit.estimators._power_mean import power_mean, tilted
from vi_kit.estimators._sticking_the_landing import log_q_of_draw, sticking_the_landing


@configuration
class DoublyReparameterized:
    r"""Sticking the landing for logarithms of a mean of weights: the score term is reparameterized once more.

    $$ \nabla \tfrac1s \log \tfrac1K \sum_k w_k^s \approx
       \sum_k \left[(1 - s) \bar w_k + s \bar w_k^2\right] \nabla_z \log w(z_k) \, \partial z_k / \partial \theta,
       \quad \bar w_k = w_k^s / \sum_j w_j^s $$

    Unbiased, as `pathwise` is, where draws are independent and the log weight is f(z) − log q(z); its variance
    falls to zero as q nears p, and its signal does not drown in noise as K grows. With one draw, and of a mean, it is
    `sticking_the_landing`. One value-and-gradient of the target and one density of q a draw. For the same families as
    sticking the landing, and held by steep edges as it is: with splines that start narrower than p, take `pathwise`.

    Source: Tucker, Lawson, Gu and Maddison, "Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives",
    2019, https://arxiv.org/abs/1810.04152, for s = 1; the same two steps give it for other powers.
    """

    forms: ClassVar[frozenset[Form]] = frozenset({Form.LOG_RATIO, Form.LOG_MEAN})
    needs: ClassVar[str] = "draws that are differentiable in the parameters and a density without a sequential inverse"

    def __repr__(self) -> str:
        return "doubly_reparameterized"

    def accepts(self, family: Family) -> bool:
        """Tell whether it is valid for a family."""
        return family.reparameterized and is_invertible(family)

    def __call__(self, integrand: Integrand, family: Family, params: Params, key: KeyArray, num_samples: int) -> Scalar:
        """Return the mean over `num_samples` draws, with the gradient of sticking the landing."""
        check_family(self, family)
        return sticking_the_landing(integrand, family, params, key, num_samples)

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
        rows = path_rows(log_weight, family, params, key, shape)

        def bound(row: Array) -> Scalar:
            weights = tilted(row, power)
            share = jnp.asarray(power, row.dtype)
            return with_gradient(
                power_mean(row, power), weigh((1 - share) * weights + share * weights**2, row, params), params
            )

        return jnp.mean(jax.vmap(bound)(rows))


def path_rows(log_weight: Integrand, family: Family, params: Params, key: KeyArray, shape: tuple[int, int]) -> Array:
    """Return rows of log weights of independent draws, with derivatives in the draws alone."""
    check_count("num_samples", shape[0])
    z = draw(None, family, params, key, shape[0] * shape[1])
    log_q = jax.vmap(lambda z: log_q_of_draw(family, params, z))(z)
    return values_at(log_weight, params, z, log_q).reshape(shape)


doubly_reparameterized = DoublyReparameterized()
