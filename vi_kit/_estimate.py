"""A Monte Carlo number with what it takes to believe it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, Float


class Estimate(NamedTuple):
    """A Monte Carlo number with what it takes to believe it.

    Attributes:
        value: the estimate, nats where it is a divergence.
        standard_error: its Monte Carlo standard error, same unit.
        num_effective: the effective number of independent draws behind it.
    """

    value: Float[Array, "..."] | float
    standard_error: Float[Array, "..."] | float
    num_effective: Float[Array, "..."] | float
