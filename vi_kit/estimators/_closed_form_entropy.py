"""Pathwise gradients with the entropy of q in closed form."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp

from vi_kit._static import configuration
from vi_kit._types import Family, Integrand, KeyArray, Params, Scalar, check_count
from vi_kit.estimators._base import Base, draw, makes, shown
from vi_kit.estimators._forms import REPARAMETERIZED, Form, check_family
from vi_kit.estimators._pathwise import values_at


@configuration
class ClosedFormEntropy:
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

    base: Base | None = None

    forms: ClassVar[frozenset[Form]] = frozenset({Form.LOG_RATIO})
    needs: ClassVar[str] = REPARAMETERIZED

    def __repr__(self) -> str:
        return shown("closed_form_entropy", self.base)

    def accepts(self, family: Family) -> bool:
        """Tell whether it is valid for a family."""
        return family.reparameterized and makes(self.base, family)

    def __call__(self, integrand: Integrand, family: Family, params: Params, key: KeyArray, num_samples: int) -> Scalar:
        """Return the mean over `num_samples` draws."""
        check_count("num_samples", num_samples)
        check_family(self, family)
        z = draw(self.base, family, params, key, num_samples)
        entropy = family.dist(params).entropy()
        return jnp.mean(values_at(integrand, params, z, jnp.broadcast_to(-entropy, (num_samples,))))


closed_form_entropy = ClosedFormEntropy()
