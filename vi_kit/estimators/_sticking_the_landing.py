"""The sticking-the-landing gradient."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp

from vi_kit import _distributions as distributions
from vi_kit._static import configuration
from vi_kit._types import Event, Family, Integrand, KeyArray, Params, Scalar, check_count
from vi_kit.estimators._base import Base, draw, makes, shown
from vi_kit.estimators._forms import Form, check_family, is_invertible
from vi_kit.estimators._pathwise import values_at


def log_q_of_draw(family: Family, params: Params, z: Event) -> Scalar:
    """Return log q(z) with the derivative in z alone."""

    # Not by stop_gradient on the parameters: that would also cut second derivatives, as those through a whole fit.
    @jax.custom_jvp
    def log_q(params: Params, z: Event) -> Scalar:
        return distributions.log_prob(family.dist(params), z)

    @log_q.defjvp
    def _(primals: tuple[Params, Event], tangents: tuple[Params, Event]) -> tuple[Scalar, Scalar]:
        params, z = primals
        return jax.jvp(lambda event: distributions.log_prob(family.dist(params), event), (z,), (tangents[1],))

    return log_q(params, z)


@configuration
class StickingTheLanding:
    r"""Pathwise gradient without the score term of log q, whose expectation is zero.

    $$ \nabla \approx \nabla_{z}[\log q_{\bar\theta}(z) - \log p(z)] \, \partial z / \partial \theta $$

    Unbiased for objectives that are a mean of log q − f(z) over q (reverse KL). Its variance falls to zero as q nears
    p, which pathwise gradients do not do. One value-and-gradient of the target and one density of q a draw. Refused for
    families whose draws are not `reparameterized` (mixtures take `stratified`), and where log q of a draw takes one
    pass a coordinate. A q that is p cut off at steep edges holds it: flows with splines take `pathwise` first.

    Source: Roeder, Wu and Duvenaud, "Sticking the Landing", 2017, https://arxiv.org/abs/1703.09194
    """

    base: Base | None = None

    forms: ClassVar[frozenset[Form]] = frozenset({Form.LOG_RATIO})
    needs: ClassVar[str] = "draws that are differentiable in the parameters and a density without a sequential inverse"

    def __repr__(self) -> str:
        return shown("sticking_the_landing", self.base)

    def accepts(self, family: Family) -> bool:
        """Tell whether it is valid for a family."""
        return family.reparameterized and is_invertible(family) and makes(self.base, family)

    def __call__(self, integrand: Integrand, family: Family, params: Params, key: KeyArray, num_samples: int) -> Scalar:
        """Return the mean over `num_samples` draws."""
        check_count("num_samples", num_samples)
        check_family(self, family)
        z = draw(self.base, family, params, key, num_samples)
        log_q = jax.vmap(lambda z: log_q_of_draw(family, params, z))(z)
        return jnp.mean(values_at(integrand, params, z, log_q))


sticking_the_landing = StickingTheLanding()
