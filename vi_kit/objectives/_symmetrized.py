"""The sum of both directions."""

from __future__ import annotations

import jax
from jaxtyping import Array, Int

from vi_kit._static import configuration
from vi_kit._types import Family, KeyArray, Objective, Params, Scalar, Target


@configuration
class Symmetrized:
    r"""Jeffreys divergence KL(q‖p) + KL(p‖q) up to constants: an objective of each direction, added.

    $$ -ELBO + H(p, q) = KL(q\|p) + KL(p\|q) - \log Z + H(p) $$

    Args:
        reverse: such as `ReverseKL(family)`.
        forward: such as `ForwardKL(family)`, over the same family.

    The gradient is unbiased where both are; a call costs what both cost.

    Raises:
        ValueError: for objectives over different families.

    Source: Jeffreys, "An Invariant Form for the Prior Probability in Estimation Problems", 1946,
    https://doi.org/10.1098/rspa.1946.0056

    Example:
        >>> import vi_kit as vk
        >>> family = vk.families.MeanField(2)
        >>> objective = vk.objectives.Symmetrized(vk.objectives.ReverseKL(family), vk.objectives.ForwardKL(family))
        >>> objective.family
        MeanField(dim=2)
    """

    reverse: Objective
    forward: Objective

    def __post_init__(self) -> None:
        """Check that both are objectives over one family."""
        for name in ("reverse", "forward"):
            if not hasattr(getattr(self, name), "family"):
                raise TypeError(f"{name}: expected one of vi_kit.objectives, got {getattr(self, name)!r}")
        if self.reverse.family != self.forward.family:
            raise ValueError(
                f"forward: expected an objective over {self.reverse.family!r}, got {self.forward.family!r}"
            )

    @property
    def family(self) -> Family:
        """The family of both."""
        return self.reverse.family

    def evaluations(self, target: Target) -> int:
        """Target evaluations a call costs."""
        return self.reverse.evaluations(target) + self.forward.evaluations(target)

    def describe(self, target: Target) -> str:
        """Say in words what is minimized, for reports."""
        return f"sum of {self.reverse.describe(target)} and {self.forward.describe(target)}"

    def __call__(self, params: Params, target: Target, key: KeyArray, *, step: int | Int[Array, ""] = 0) -> Scalar:
        """Return the sum, in nats."""
        first, second = jax.random.split(key)
        return self.reverse(params, target, first, step=step) + self.forward(params, target, second, step=step)
