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

    # Not by stop_gradient on the parameters: that would also cut second derivatives, as those through a whole fit.
    @jax.custom_jvp
    def log_q(params: Params, z: Event) -> Scalar:
        return distributions.log_prob(family.dist(params), z)

    @log_q.defjvp
    def _(primals: tuple[Params, Event], tangents: tuple[Params, Event]) -> tuple[Scalar, Scalar]:
        params, z = primals
        return jax.jvp(lambda event: distributions.log_prob(family.dist(params), event), (z,), (tangents[1],))

    def draw(key: KeyArray) -> tuple[Event, Scalar]:
        z = distributions.sample(family.dist(params), key)
        return z, log_q(params, z)

    return mean_over_draws("sticking_the_landing", draw, integrand, family, params, key, num_samples)
