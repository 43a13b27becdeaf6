"""Coefficients of a KL penalty that adapt so that the KL stays near a target."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from vi_kit.kl._inputs import broadcast_shapes, floats, in_range, positive

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Float


@dataclasses.dataclass(frozen=True)
class ProportionalRule:
    r"""Change the coefficient in proportion to the relative error of the KL, clipped.

    $$ \beta \leftarrow \beta \left( 1 + \frac{n}{h} \operatorname{clip}(KL / target - 1, -e, e) \right) $$

    Args:
        num_steps: n, what one update counts for in the unit of the horizon: the number of episodes in a batch in the
            paper and in verl, OpenRLHF and TRL.
        horizon: h, over how much the coefficient changes by a factor of about exp(max_error).
        max_error: e, where the relative error is clipped.

    Raises:
        ValueError: for numbers not above 0, or so large a step that the coefficient could become negative.

    Source: Ziegler et al., Fine-Tuning Language Models from Human Preferences, 2019, https://arxiv.org/abs/1909.08593

    Example:
        >>> import vi_kit.kl as kl
        >>> round(float(kl.ProportionalRule(num_steps=1000)(1.0, 3.0, 2.0)), 4)
        1.02
    """

    num_steps: float
    horizon: float = 10_000.0
    max_error: float = 0.2

    def __post_init__(self) -> None:
        """Refuse settings under which the coefficient would not stay positive."""
        for field in dataclasses.fields(self):
            positive(field.name, getattr(self, field.name))
        if self.num_steps * self.max_error >= self.horizon:
            most = self.horizon / self.max_error
            raise ValueError(
                f"num_steps: expected less than horizon / max_error = {most:g}, where the coefficient would reach 0, "
                f"got {self.num_steps}"
            )

    def __call__(self, coefficient: ArrayLike, kl: ArrayLike, target: ArrayLike) -> Float[Array, "..."]:
        """Return the next coefficient."""
        coefficient, kl, target = floats(coefficient=coefficient, kl=kl, target=target)
        error = jnp.clip(kl / target - 1, -self.max_error, self.max_error)
        return coefficient * (1 + self.num_steps / self.horizon * error)


@dataclasses.dataclass(frozen=True)
class ThresholdRule:
    """Multiply or divide the coefficient when the KL leaves the band from target / tolerance to target · tolerance.

    The defaults are those of the paper; RLlib's are tolerance 2, increase 1.5, decrease 2.

    Args:
        tolerance: half the width of the band, as a factor above 1.
        increase: by what the coefficient is multiplied above the band.
        decrease: by what it is divided below.

    Raises:
        ValueError: for factors not above 1.

    Source: Schulman et al., Proximal Policy Optimization Algorithms, 2017, section 4, https://arxiv.org/abs/1707.06347

    Example:
        >>> import vi_kit.kl as kl
        >>> float(kl.ThresholdRule()(1.0, 3.1, 2.0))
        2.0
    """

    tolerance: float = 1.5
    increase: float = 2.0
    decrease: float = 2.0

    def __post_init__(self) -> None:
        """Refuse factors that would move the coefficient the wrong way."""
        for field in dataclasses.fields(self):
            in_range(field.name, getattr(self, field.name), "a number above 1", least=1.0, open_at_least=True)

    def __call__(self, coefficient: ArrayLike, kl: ArrayLike, target: ArrayLike) -> Float[Array, "..."]:
        """Return the next coefficient."""
        coefficient, kl, target = floats(coefficient=coefficient, kl=kl, target=target)
        above, below = kl > target * self.tolerance, kl < target / self.tolerance
        factor = jnp.where(above, self.increase, jnp.where(below, 1 / self.decrease, 1.0)).astype(kl.dtype)
        # No comparison holds for NaN, which would leave the coefficient as it was: a broken KL must be seen.
        return coefficient * jnp.where(jnp.isnan(kl), kl, factor)


@dataclasses.dataclass(frozen=True)
class LagrangianRule:
    r"""Ascend the dual of the constraint KL ≤ target, with the multiplier kept positive by a softplus.

    $$ \rho \leftarrow \rho + \eta (KL - target), \quad \beta = \log(1 + e^\rho) $$

    This is mirror ascent on β(KL − target): a small multiplier changes by a factor, a large one by an amount, so that
    it neither takes forever to come back nor overflows. (Plain gradients with respect to ρ, as rlax and Acme take them
    under Adam, would shrink with β.)

    Args:
        learning_rate: η, in 1/nats.

    Raises:
        ValueError: for a learning rate not above 0.

    Source: Abdolmaleki et al., Relative Entropy Regularized Policy Iteration, 2018, https://arxiv.org/abs/1812.02256

    Example:
        >>> import vi_kit.kl as kl
        >>> round(float(kl.LagrangianRule(learning_rate=0.1)(10.0, 3.0, 2.0)), 4)
        10.1
    """

    learning_rate: float

    def __post_init__(self) -> None:
        """Refuse a descent."""
        positive("learning_rate", self.learning_rate)

    def __call__(self, coefficient: ArrayLike, kl: ArrayLike, target: ArrayLike) -> Float[Array, "..."]:
        """Return the next coefficient."""
        coefficient, kl, target = floats(coefficient=coefficient, kl=kl, target=target)
        unconstrained = coefficient + jnp.log(-jnp.expm1(-coefficient))  # the inverse of softplus, without overflow
        return jax.nn.softplus(unconstrained + self.learning_rate * (kl - target))


class CoefficientState(NamedTuple):
    """Where an adaptive coefficient stands; another value of either compiles nothing.

    Attributes:
        coefficient: what the KL is multiplied by in the loss.
        target: the KL aimed at, nats. To follow a schedule: `state._replace(target=…)`.
    """

    coefficient: Float[Array, "..."]
    target: Float[Array, "..."]


@dataclasses.dataclass(frozen=True)
class AdaptiveCoefficient:
    """The coefficient β of a penalty β·KL, adapted so that the KL stays near a target.

    Used like an optax transformation: `init` once, then `update` with the KL measured after every step, inside or
    outside of jit, scan and vmap. The configuration is static and compared by value; the numbers that vary are in the
    state. An update costs a few scalar operations and passes no gradient to the KL.

    Args:
        rule: `ProportionalRule` (Ziegler et al.), `ThresholdRule` (PPO), `LagrangianRule` (a dual variable, as in MPO),
            or any function (coefficient, kl, target) -> coefficient.
        minimum: the smallest coefficient. Without it a KL that stays below its target for long would leave a
            coefficient (RLlib's halves at every such update) that underflows to 0 and never comes back.
        maximum: the largest coefficient.

    A KL that is NaN makes the coefficient NaN, and it stays so: the penalty does not go on as if nothing had happened.
    A negative estimate of the KL counts as far below the target; an infinite one as far above.

    Raises:
        TypeError: for a rule that cannot be called.
        ValueError: unless 0 < minimum < maximum.

    Example:
        >>> import vi_kit.kl as kl
        >>> adaptive = kl.AdaptiveCoefficient(kl.ThresholdRule())
        >>> state = adaptive.init(coefficient=0.2, target=0.01)
        >>> state = adaptive.update(state, 0.05)  # the policy went too far: twice the penalty
        >>> round(float(state.coefficient), 4)
        0.4
    """

    rule: Callable[[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]], Float[Array, "..."]]
    minimum: float = 1e-8
    maximum: float = 1e8

    def __post_init__(self) -> None:
        """Check rule and bounds."""
        if not callable(self.rule) or isinstance(self.rule, type):
            raise TypeError(f"rule: expected a function (coefficient, kl, target) -> coefficient, got {self.rule!r}")
        if not 0 < self.minimum < self.maximum:
            raise ValueError(f"minimum: expected 0 < minimum < maximum, got {self.minimum} and {self.maximum}")

    def init(self, coefficient: ArrayLike, target: ArrayLike) -> CoefficientState:
        """Return the first state.

        Args:
            coefficient: β to begin with, from minimum to maximum; an array holds several, each with a KL of its own.
            target: the KL aimed at, nats, above 0; coefficient and target broadcast.

        Returns:
            The state, whose `coefficient` multiplies the KL in the loss.

        Raises:
            ValueError: for numbers out of range or shapes that do not broadcast; traced numbers give NaN.
        """
        expected = f"a number from {self.minimum:g} to {self.maximum:g}"
        coefficient = in_range(
            "coefficient", coefficient, expected, least=self.minimum, most=self.maximum, open_at_least=False
        )
        arrays = floats(coefficient=coefficient, target=positive("target", target))
        shape = broadcast_shapes(coefficient=arrays[0].shape, target=arrays[1].shape)
        return CoefficientState(*(jnp.broadcast_to(array, shape) for array in arrays))

    def update(self, state: CoefficientState, kl: ArrayLike) -> CoefficientState:
        """Return the next state.

        Args:
            state: from `init` or the last `update`.
            kl: the KL of the step just taken, nats, of the coefficient's shape: reduce it over the batch first.

        Returns:
            The state with the next coefficient, in shape and dtype like the one before.

        Raises:
            TypeError: for an integer KL array.
            ValueError: for a KL of another shape.
        """
        (kl,) = floats(kl=kl)
        if kl.shape != state.coefficient.shape:
            raise ValueError(
                f"kl: expected shape {state.coefficient.shape}, like the coefficient, got {kl.shape}; "
                "average over the batch first"
            )
        kl = jax.lax.stop_gradient(kl).astype(state.coefficient.dtype)
        coefficient = self.rule(state.coefficient, kl, state.target)
        return state._replace(coefficient=jnp.clip(coefficient, self.minimum, self.maximum))
