"""Gradient descent on an objective with any optax optimizer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from vi_kit._static import configuration, leaf
from vi_kit._types import Family, KeyArray, Objective, Params, StepInfo, Target

_DEFAULT_LEARNING_RATE = 1e-2


def _optax_promotion() -> AbstractContextManager[None]:
    """Relax strict dtype promotion around optax, which raises floats to integer powers; users may have it on."""
    return jax.numpy_dtype_promotion("standard")  # type: ignore[no-any-return]


class GradientDescentState(NamedTuple):
    """What gradient descent remembers; the learning rate is here, so another one compiles nothing."""

    params: Params
    optimizer_state: PyTree
    learning_rate: Float[Array, ""] | None
    step: Int[Array, ""]


@configuration
class GradientDescent:
    """Follow the gradient of an objective with an optax optimizer.

    Args:
        objective: the loss (`vi_kit.objectives`).
        optimizer: an optax factory such as `optax.adam`, called with the learning rate, or a ready transformation.
        learning_rate: a number (another value compiles nothing) or an optax schedule; 0.01 where none is given.
            Not to be given with a ready transformation, which has its own.
        eval_params: the point to read off, from the optimizer's state and its iterate; None reads the iterate.
            Optimizers that average inside, such as those that are schedule-free, follow gradients elsewhere than at
            the point that they promise: theirs is `optax.contrib.schedule_free_eval_params`. To average the iterates
            of any other, see `vi_kit.algorithms.IterateAveraging`.

    A step whose loss or gradient is not finite leaves parameters and optimizer as they were. Gaussian families hold
    the logarithms of their scales, in which the entropy is linear: its proximal step, which other coordinates need to
    keep scales positive, is its gradient step here.

    Example:
        >>> import jax, jax.numpy as jnp, optax, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum(x**2), 2)
        >>> objective = vk.objectives.ReverseKL(vk.families.MeanField(2))
        >>> algorithm = vk.algorithms.GradientDescent(objective, optax.adam, learning_rate=0.1)
        >>> start = algorithm.family.init(jax.random.key(0), mean=jnp.ones(2))
        >>> fit = vk.optimize(jax.random.key(1), target, algorithm, start, num_steps=200)
        >>> bool(jnp.all(jnp.abs(fit.params.mean) < 0.05))
        True
    """

    objective: Objective
    optimizer: Callable[..., optax.GradientTransformation] | optax.GradientTransformation
    learning_rate: float | Callable[[Any], Any] | Array | None = leaf(default=None)
    eval_params: Callable[[PyTree, Params], Params] | None = None

    def __post_init__(self) -> None:
        """Check that the optimizer and its learning rate go together."""
        ready = isinstance(self.optimizer, optax.GradientTransformation)
        if not ready and not callable(self.optimizer):
            raise TypeError(f"optimizer: expected an optax factory or transformation, got {self.optimizer!r}")
        if ready and self.learning_rate is not None:
            raise ValueError(
                "learning_rate: a ready optax transformation has its own; give the factory (optax.adam) instead"
            )
        rate = self.learning_rate
        if rate is not None and not callable(rate):
            dtype = getattr(rate, "dtype", None) or np.asarray(rate).dtype
            if np.shape(rate) != () or not jnp.issubdtype(dtype, jnp.number):
                raise TypeError(f"learning_rate: expected one number or an optax schedule, got {rate!r}")
        if self.eval_params is not None and not callable(self.eval_params):
            raise TypeError(
                "eval_params: expected a function of the optimizer's state and the parameters, such as "
                f"optax.contrib.schedule_free_eval_params, got {self.eval_params!r}"
            )
        if not callable(self.objective):
            raise TypeError(f"objective: expected one of vi_kit.objectives, got {self.objective!r}")

    @property
    def family(self) -> Family:
        """The family that the objective is over."""
        return self.objective.family

    def evaluations(self, target: Target) -> int:
        """Target evaluations a step costs."""
        return self.objective.evaluations(target)

    def _transformation(self, learning_rate: Array | None) -> optax.GradientTransformationExtraArgs:
        made = self.optimizer
        if not isinstance(made, optax.GradientTransformation):
            made = made(self.learning_rate if callable(self.learning_rate) else learning_rate)
        return optax.with_extra_args_support(made)

    def init(self, params: Params, target: Target, key: KeyArray) -> GradientDescentState:
        """Return the first state."""
        del target, key
        rate = None
        if not callable(self.learning_rate) and not isinstance(self.optimizer, optax.GradientTransformation):
            value = _DEFAULT_LEARNING_RATE if self.learning_rate is None else self.learning_rate
            rate = jnp.asarray(value, jax.tree.leaves(params)[0].dtype)
        with _optax_promotion():
            optimizer_state = self._transformation(rate).init(params)
        return GradientDescentState(params, optimizer_state, rate, jnp.zeros((), jnp.int32))

    def step(self, state: GradientDescentState, target: Target, key: KeyArray) -> tuple[GradientDescentState, StepInfo]:
        """Take one gradient step."""

        def loss_at(params: Params, key: KeyArray = key) -> Array:
            return self.objective(params, target, key, step=state.step)

        def same_draws(params: Params) -> Array:  # a line search compares losses under common random numbers
            return loss_at(params, jax.random.clone(key))  # type: ignore[no-untyped-call]

        loss, gradient = jax.value_and_grad(loss_at)(state.params)
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        with _optax_promotion():
            updates, optimizer_state = self._transformation(state.learning_rate).update(
                gradient, state.optimizer_state, state.params, value=loss, grad=gradient, value_fn=same_draws
            )
        # An update may overflow where the gradient did not.
        finite &= jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(updates)]))
        moved = (optax.apply_updates(state.params, updates), optimizer_state)
        stayed = (state.params, state.optimizer_state)
        params, optimizer_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, stayed)
        new_state = GradientDescentState(params, optimizer_state, state.learning_rate, state.step + 1)
        return new_state, StepInfo(loss, norm, finite)

    def params(self, state: GradientDescentState) -> Params:
        """Read the parameters off a state: the iterate, or what `eval_params` makes of it."""
        if self.eval_params is None:
            return state.params
        with _optax_promotion():
            return self.eval_params(state.optimizer_state, state.params)
