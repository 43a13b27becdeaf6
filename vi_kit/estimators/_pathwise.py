"""The pathwise (reparameterization) gradient, and the mean over draws that its relatives share."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vi_kit import _distributions as distributions
from vi_kit._types import Event, Family, Integrand, KeyArray, Params, Scalar


def mean_over_draws(
    name: str,
    draw: Callable[[KeyArray], tuple[Event, Scalar]],
    integrand: Integrand,
    family: Family,
    params: Params,
    key: KeyArray,
    num_samples: int,
) -> Scalar:
    """Average the integrand over reparameterized draws; the one place where an estimator vectorizes."""
    if not family.reparameterized:
        raise ValueError(
            f"estimator: {name} needs draws that are differentiable in the parameters, which {family!r} does not give"
        )
    if num_samples < 1:
        raise ValueError(f"num_samples: expected at least 1, got {num_samples}")

    def one(key: KeyArray) -> Scalar:
        return integrand(params, *draw(key))

    return jnp.mean(jax.vmap(one)(jax.random.split(key, num_samples)))


def pathwise(integrand: Integrand, family: Family, params: Params, key: KeyArray, num_samples: int) -> Scalar:
    r"""Differentiate through the draws: z is a function of the parameters and of noise.

    $$ \nabla E_q[f] = E_\epsilon[\nabla f(z(params, \epsilon))] $$

    The gradient is unbiased for families with `reparameterized` draws, others are refused. One value-and-gradient of
    the target a draw. At q = p its variance is not zero; `sticking_the_landing` has zero variance there.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes", 2013, https://arxiv.org/abs/1312.6114
    """

    def draw(key: KeyArray) -> tuple[Event, Scalar]:
        return distributions.sample_and_log_prob(family.dist(params), key)

    return mean_over_draws("pathwise", draw, integrand, family, params, key, num_samples)
