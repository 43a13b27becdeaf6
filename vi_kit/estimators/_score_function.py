"""The score-function gradient with a leave-one-out baseline."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from vi_kit import _distributions as distributions
from vi_kit._static import configuration
from vi_kit._types import Family, Integrand, KeyArray, Params, Scalar, check_count
from vi_kit.estimators._base import draw
from vi_kit.estimators._forms import Form
from vi_kit.estimators._hold import hold, weigh, with_gradient
from vi_kit.estimators._pathwise import values_at
from vi_kit.estimators._power_mean import power_mean, tilted


@configuration
class ScoreFunction:
    r"""Differentiate the density of the draws, not the draws (REINFORCE), each against the mean of the others.

    $$ \nabla E_q[f] \approx \tfrac1n \sum_i (f_i - \bar f_{-i}) \nabla \log q(z_i) + \nabla_\theta f_i,
       \quad \bar f_{-i} = \tfrac{1}{n-1} \sum_{j \ne i} f_j $$

    The baseline costs nothing and leaves the gradient unbiased (REINFORCE leave-one-out, RLOO); with one draw there is
    none. For a mean of log q − log p it is the gradient of half the variance of that ratio (VarGrad), which is 0 at
    q = p. Of a logarithm of a mean of K weights, the baseline of a draw is the logarithm of the mean of the others
    (VIMCO). For every family whose density is differentiable in its parameters, draws reparameterized or not; the
    target is evaluated once a draw and not differentiated. Variance grows with the dimension: where draws are
    reparameterized, `pathwise` and `sticking_the_landing` are better by far.

    Source: Kool, van Hoof and Welling, "Buy 4 REINFORCE Samples, Get a Baseline for Free!", 2019,
    https://openreview.net/forum?id=r1lgTGL5DE; Richter, Boustati, Nüsken, Ruiz and Akyildiz, "VarGrad", 2020,
    https://arxiv.org/abs/2010.10436; Mnih and Rezende, "Variational Inference for Monte Carlo Objectives", 2016,
    https://arxiv.org/abs/1602.06725
    """

    forms: ClassVar[frozenset[Form]] = frozenset(Form)
    needs: ClassVar[str] = "nothing"

    def __repr__(self) -> str:
        return "score_function"

    def accepts(self, family: Family) -> bool:
        """Tell whether it is valid for a family."""
        del family
        return True

    def __call__(self, integrand: Integrand, family: Family, params: Params, key: KeyArray, num_samples: int) -> Scalar:
        """Return the mean over `num_samples` draws."""
        check_count("num_samples", num_samples)
        z, log_q = _fixed_draws(family, params, key, num_samples)
        values = values_at(integrand, params, z, hold(log_q, params))
        others = (jnp.sum(values) - values) / max(num_samples - 1, 1)
        coefficients = (values - others if num_samples > 1 else values) / num_samples
        return jnp.mean(values) + with_gradient(jnp.zeros_like(values[0]), weigh(coefficients, log_q, params), params)

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
        num_rows, num = shape
        if num == 1:
            return self(log_weight, family, params, key, num_rows)
        check_count("num_samples", num_rows)
        z, log_q = _fixed_draws(family, params, key, num_rows * num)
        rows = values_at(log_weight, params, z, hold(log_q, params)).reshape(shape)

        def bound(row: Array, log_q: Array) -> Scalar:
            value, weights = power_mean(row, power), tilted(row, power)
            others = _without_each(row)
            signal = value - jax.vmap(lambda rest: power_mean(rest, power))(others)
            # The score term of log w itself, less its mean at equal weights: a constant costs no bias.
            surrogate = weigh(weights, row, params) + weigh(signal - weights + 1 / num, log_q, params)
            return with_gradient(value, surrogate, params)

        return jnp.mean(jax.vmap(bound)(rows, log_q.reshape(shape)))


def _without_each(row: Array) -> Array:
    """Return the row without each of its entries in turn, shape (n, n − 1)."""
    num = row.shape[0]
    return row[np.nonzero(~np.eye(num, dtype=bool))[1].reshape(num, num - 1)]


def _fixed_draws(family: Family, params: Params, key: KeyArray, num: int) -> tuple[Array, Array]:
    """Draw events that are constants, with log densities as functions of the parameters."""
    z = hold(draw(None, family, params, key, num), params)
    return z, jax.vmap(lambda z: distributions.log_prob(family.dist(params), z))(z)


score_function = ScoreFunction()
