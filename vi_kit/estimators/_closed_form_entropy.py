"""Pathwise gradients with the entropy of q in closed form."""

from __future__ import annotations

from vi_kit import _distributions as distributions
from vi_kit._types import Event, Family, Integrand, KeyArray, Params, Scalar
from vi_kit.estimators._pathwise import mean_over_draws


def closed_form_entropy(
    integrand: Integrand, family: Family, params: Params, key: KeyArray, num_samples: int
) -> Scalar:
    r"""Replace log q by its mean, the negative entropy, where the family knows it.

    $$ E_q[\log q - f] = -H(q) - E_q[f] $$

    Unbiased for objectives that are linear in log q (reverse KL). For mean-field and full-rank Gaussians
    the gradient is that of `pathwise`, draw by draw; its variance does not vanish at q = p, as that of
    `sticking_the_landing` does. One value-and-gradient of the target a draw.

    Source: Kucukelbir et al., "Automatic Differentiation Variational Inference", 2017,
    https://arxiv.org/abs/1603.00788

    Raises:
        NotImplementedError: while tracing, when q has no closed-form entropy.
    """

    def draw(key: KeyArray) -> tuple[Event, Scalar]:
        q = family.dist(params)
        return distributions.sample(q, key), -q.entropy()

    return mean_over_draws("closed_form_entropy", draw, integrand, family, params, key, num_samples)
