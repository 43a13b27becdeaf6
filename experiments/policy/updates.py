"""Three ways to move a policy without moving it too far: a KL penalty, a clipped ratio, a trust region."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from actors import Batch, Discrete

from vi_kit import kl


class Moved(NamedTuple):
    """What an update did: KL(old‖new) on its batch, and the coefficient with which it was made (NaN: has none)."""

    kl: Any
    coefficient: Any


@dataclasses.dataclass(frozen=True)
class Epochs:
    """Passes over a batch in shuffled minibatches, with Adam."""

    num: int = 4
    minibatch: int = 256
    rate: float = 1e-3

    def optimizer(self) -> optax.GradientTransformation:
        """Return Adam on clipped gradients."""
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(self.rate))

    def init(self, model: Any) -> Any:
        """Return the optimizer's state."""
        return self.optimizer().init(model)

    def minimize(self, loss: Callable[[Any, Any], Any], model: Any, state: Any, data: Any, key: Any) -> Any:
        """Make the passes; the model is a tree of arrays."""

        def step(carry: Any, chosen: Any) -> tuple[Any, None]:
            return self._step(loss, data, *carry, chosen), None

        return jax.lax.scan(step, (model, state), self._minibatches(data, key))[0]

    def minimize_within(
        self,
        loss: Callable[[Any, Any], Any],
        model: Any,
        state: Any,
        data: Any,
        key: Any,
        *,
        measure: Callable[[Any], Any],
        limit: float,
    ) -> tuple[Any, Any, Any]:
        """Make steps until `measure(model)` is above a limit; the step that took it there is taken back, and the last.

        Returns also the measure after the last step that was tried, whether it was kept or not.
        """

        def attempt(carry: Any, chosen: Any) -> Any:
            old, _, _ = carry
            new = self._step(loss, data, *old, chosen)
            measured = measure(new[0])
            kept = measured <= limit
            return jax.tree.map(lambda a, b: jnp.where(kept, a, b), new, old), measured, kept

        def step(carry: Any, chosen: Any) -> tuple[Any, None]:
            return jax.lax.cond(carry[2], attempt, lambda carry, _: carry, carry, chosen), None

        first = (model, state), jnp.zeros(()), jnp.asarray(True)
        ((model, state), measured, _), _ = jax.lax.scan(step, first, self._minibatches(data, key))
        return model, state, measured

    def _minibatches(self, data: Any, key: Any) -> Any:
        """Return which rows are in each minibatch, (epochs times minibatches, rows)."""
        size = len(jax.tree.leaves(data)[0])
        orders = jnp.argsort(jax.random.uniform(key, (self.num, size)), axis=1)
        return orders[:, : size // self.minibatch * self.minibatch].reshape(-1, self.minibatch)

    def _step(self, loss: Callable[[Any, Any], Any], data: Any, model: Any, state: Any, chosen: Any) -> Any:
        """Make one step of Adam."""
        gradient = jax.grad(loss)(model, jax.tree.map(lambda leaf: leaf[chosen], data))
        change, state = self.optimizer().update(gradient, state)
        return optax.apply_updates(model, change), state


class Problem(NamedTuple):
    """A policy's arrays become a policy, and its actions have a law."""

    policy: Callable[[Any, Any], Any]  # (arrays, batch) -> distribution parameters
    actions: Any

    def ratio(self, arrays: Any, batch: Batch) -> Any:
        """Return π(a) / π_old(a), one a step."""
        log_prob = self.actions.log_prob(self.policy(arrays, batch), batch.action)
        return jnp.exp(log_prob - batch.log_prob)

    def kl(self, arrays: Any, batch: Batch) -> Any:
        """Return the mean KL(old‖new) over the states of the batch."""
        return kl.reduce(self.actions.kl(batch.distribution, self.policy(arrays, batch)))


@dataclasses.dataclass(frozen=True)
class Penalty:
    """PPO with a KL penalty: −mean(ratio · advantage) + β KL(old‖new), β adapted after every update.

    With a limit, steps end where KL(old‖new) on the whole batch is above it, and the last one is taken back; β adapts
    to the KL that was tried. Without the taking back: the early stopping of Spinning Up, CleanRL, Stable-Baselines3.
    Source: Schulman et al., Proximal Policy Optimization Algorithms, 2017, section 4, https://arxiv.org/abs/1707.06347
    """

    adaptive: kl.AdaptiveCoefficient
    target: float
    limit: float | None = None  # nats
    coefficient: float = 1.0
    epochs: Epochs = Epochs()

    def init(self, arrays: Any) -> Any:
        """Return the optimizer's state and the coefficient's."""
        return self.epochs.init(arrays), self.adaptive.init(self.coefficient, self.target)

    def update(self, problem: Problem, arrays: Any, state: Any, batch: Batch, key: Any) -> tuple[Any, Any, Moved]:
        """Move the policy."""
        state, coefficient = state

        def loss(arrays: Any, batch: Batch) -> Any:
            gain = jnp.mean(problem.ratio(arrays, batch) * batch.advantage)
            return coefficient.coefficient * problem.kl(arrays, batch) - gain

        if self.limit is None:
            arrays, state = self.epochs.minimize(loss, arrays, state, batch, key)
            moved = tried = problem.kl(arrays, batch)
        else:
            arrays, state, tried = self.epochs.minimize_within(
                loss, arrays, state, batch, key, measure=lambda arrays: problem.kl(arrays, batch), limit=self.limit
            )
            moved = problem.kl(arrays, batch)
        made = Moved(moved, coefficient.coefficient)
        return arrays, (state, self.adaptive.update(coefficient, tried)), made


@dataclasses.dataclass(frozen=True)
class Clip:
    """PPO as it is mostly used: the ratio cut at 1 ± width, no KL in it."""

    width: float = 0.2
    epochs: Epochs = Epochs()

    def init(self, arrays: Any) -> Any:
        """Return the optimizer's state."""
        return self.epochs.init(arrays)

    def update(self, problem: Problem, arrays: Any, state: Any, batch: Batch, key: Any) -> tuple[Any, Any, Moved]:
        """Move the policy."""

        def loss(arrays: Any, batch: Batch) -> Any:
            ratio = problem.ratio(arrays, batch)
            cut = jnp.clip(ratio, 1 - self.width, 1 + self.width)
            return -jnp.mean(jnp.minimum(ratio * batch.advantage, cut * batch.advantage))

        arrays, state = self.epochs.minimize(loss, arrays, state, batch, key)
        return arrays, state, Moved(problem.kl(arrays, batch), jnp.asarray(jnp.nan))


@dataclasses.dataclass(frozen=True)
class TrustRegion:
    """TRPO: one natural-gradient step a batch, as long as the KL allows.

    Source: Schulman et al., Trust Region Policy Optimization, 2015, https://arxiv.org/abs/1502.05477
    """

    target: float
    shrink: float = 1.0  # what the budget is multiplied by after every update
    damping: float = 0.01

    def init(self, arrays: Any) -> Any:
        """Return the budget."""
        return jnp.asarray(self.target)

    def update(self, problem: Problem, arrays: Any, state: Any, batch: Batch, key: Any) -> tuple[Any, Any, Moved]:
        """Move the policy."""

        def loss(arrays: Any, batch: Batch) -> Any:
            return -jnp.mean(problem.ratio(arrays, batch) * batch.advantage)

        step = kl.trust_region_step(
            loss,
            problem.policy,
            arrays,
            batch,
            divergence=kl.categorical if isinstance(problem.actions, Discrete) else kl.normal,
            max_kl=state,
            damping=self.damping,
        )
        return step.params, self.shrink * state, Moved(step.kl, jnp.asarray(jnp.nan))


def value_loss(critic_static: Any) -> Callable[[Any, Batch], Any]:
    """Return the critic's loss, a mean square."""

    def loss(arrays: Any, batch: Batch) -> Any:
        values = jax.vmap(eqx.combine(arrays, critic_static))(batch.observation)
        return jnp.mean(jnp.square(values - batch.value_target)) / 2

    return loss
