"""The sticking-the-landing gradient."""

from __future__ import annotations

import jax

from vi_kit import _distributions as distributions
from vi_kit._types import Event, Family, Integrand, KeyArray, Params, Scalar
from vi_kit.estimators._pathwise import mean_over_draws


def sticking_the_landing(
    integrand: Integrand, family: Family, params: Params, key: KeyArray, num_samples: int
) -> Scalar:
    r"""Pathwise gradient without the score term of log q, whose expectation is zero.

    $$ \nabla \approx \nabla_{z}[\log q_{\bar\theta}(z) - \log p(z)] \, \partial z / \partial \theta $$

    Unbiased for objectives that are a mean of log q − f(z) over q (reverse KL). Its variance falls to zero as q nears
    p, which pathwise gradients do not do. One value-and-gradient of the target and one density of q a draw.

    Source: Roeder, Wu and Duvenaud, "Sticking the Landing", 2017, https://arxiv.org/abs/1703.09194
    """
    fixed = jax.lax.stop_gradient(params)

    def draw(key: KeyArray) -> tuple[Event, Scalar]:
        z = distributions.sample(family.dist(params), key)
        return z, distributions.log_prob(family.dist(fixed), z)

    return mean_over_draws("sticking_the_landing", draw, integrand, family, params, key, num_samples)
