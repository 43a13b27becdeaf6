"""Policies and critics in equinox, vmapped actors in scanned rollouts, and generalized advantage estimation."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from environments import Environment

from vi_kit import kl

REWARD_SCALE = 0.1  # brings the values of both environments to order 10, for the critic's sake


@dataclasses.dataclass(frozen=True)
class Discrete:
    """Actions 0, 1, …; the network gives logits."""

    size: int

    def sample(self, key: Any, logits: Any) -> Any:
        """Draw an action a row."""
        return jax.random.categorical(key, logits)

    def log_prob(self, logits: Any, action: Any) -> Any:
        """Return log π(a), one a row."""
        log_probs = jax.nn.log_softmax(logits)
        return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]

    def kl(self, old: Any, new: Any) -> Any:
        """Return KL(old‖new), one a row."""
        return kl.categorical(old, new)


@dataclasses.dataclass(frozen=True)
class Continuous:
    """Actions in R^size, independent normals; the network gives means and log standard deviations."""

    size: int

    def sample(self, key: Any, normal: Any) -> Any:
        """Draw an action a row."""
        mean, log_scale = normal
        return mean + jnp.exp(log_scale) * jax.random.normal(key, mean.shape)

    def log_prob(self, normal: Any, action: Any) -> Any:
        """Return log π(a), one a row."""
        return jnp.sum(jax.scipy.stats.norm.logpdf(action, normal[0], jnp.exp(normal[1])), axis=-1)

    def kl(self, old: Any, new: Any) -> Any:
        """Return KL(old‖new), one a row."""
        return jnp.sum(kl.normal(*old, *new), axis=-1)


class Policy(eqx.Module):
    """Observation to the parameters of the action distribution; for continuous actions one spread for all states."""

    network: eqx.nn.MLP
    log_scale: Any

    def __init__(self, key: Any, inputs: int, actions: Discrete | Continuous, width: int) -> None:
        """Begin near the uniform distribution, or near mean 0 with a standard deviation of 1."""
        network = eqx.nn.MLP(inputs, actions.size, width, 2, activation=jnp.tanh, key=key)
        self.network = eqx.tree_at(lambda n: n.layers[-1].weight, network, replace_fn=lambda weight: 0.01 * weight)
        self.log_scale = jnp.zeros(actions.size) if isinstance(actions, Continuous) else None

    def __call__(self, observation: Any) -> Any:
        """Return logits, or means and log standard deviations."""
        output = self.network(observation)
        return output if self.log_scale is None else (output, self.log_scale)


class Actor(NamedTuple):
    """Where an actor stands in its episode."""

    state: Any
    step: Any
    total: Any
    finished_total: Any  # of the last episode that ended, NaN before


class Batch(NamedTuple):
    """Steps in the order drawn, flat over time and actors."""

    observation: Any
    action: Any
    log_prob: Any
    distribution: Any
    advantage: Any
    value_target: Any


def begin(environment: Environment, key: Any, num: int) -> Actor:
    """Start actors."""
    zero = jnp.zeros(num)
    state = jax.vmap(environment.reset)(jax.random.split(key, num))
    return Actor(state, jnp.zeros(num, jnp.int32), zero, jnp.full(num, jnp.nan))


def rollout(environment: Environment, actions: Any, policy: Any, actors: Actor, key: Any, num_steps: int) -> Any:
    """Let the actors go on for some steps; return them and what they saw, did and got, by step and actor."""
    num = actors.step.shape[0]

    def advance(actors: Actor, key: Any) -> tuple[Actor, dict[str, Any]]:
        act_key, reset_key = jax.random.split(key)
        observation = jax.vmap(environment.observe)(actors.state)
        distribution = jax.vmap(policy)(observation)
        action = actions.sample(act_key, distribution)
        state, reward, failed = jax.vmap(environment.step)(actors.state, action)
        total, step = actors.total + reward, actors.step + 1
        over = failed | (step >= environment.num_steps)
        seen = {"observation": observation, "action": action, "distribution": distribution, "reward": reward}
        seen |= {"next_observation": jax.vmap(environment.observe)(state), "failed": failed, "over": over}
        fresh = jax.vmap(environment.reset)(jax.random.split(reset_key, num))
        actors = Actor(
            jnp.where(over[:, None], fresh, state),
            jnp.where(over, jnp.zeros_like(step), step),
            jnp.where(over, jnp.zeros_like(total), total),
            jnp.where(over, total, actors.finished_total),
        )
        return actors, seen

    return jax.lax.scan(advance, actors, jax.random.split(key, num_steps))


def advantages(rewards: Any, values: Any, next_values: Any, over: Any, discount: float, decay: float) -> Any:
    """Sum discounted temporal differences up to each episode's end, by generalized advantage estimation.

    `next_values` are 0 where the episode has failed, and the critic's where only the time was over.
    Source: Schulman et al., High-Dimensional Continuous Control Using Generalized Advantage Estimation, 2015,
    https://arxiv.org/abs/1506.02438
    """
    differences = rewards + discount * next_values - values

    def back(later: Any, now: tuple[Any, Any]) -> tuple[Any, Any]:
        difference, last = now
        total = difference + discount * decay * jnp.where(last, jnp.zeros_like(later), later)
        return total, total

    return jax.lax.scan(back, jnp.zeros_like(values[0]), (differences, over), reverse=True)[1]


def collect(environment: Environment, actions: Any, policy: Any, critic: Any, seen: dict[str, Any]) -> Batch:
    """Turn a rollout into a batch with advantages of mean 0 and standard deviation 1."""
    values, following = (jax.vmap(jax.vmap(critic))(seen[name]) for name in ("observation", "next_observation"))
    following = jnp.where(seen["failed"], jnp.zeros_like(following), following)
    advantage = advantages(
        REWARD_SCALE * seen["reward"], values, following, seen["over"], environment.discount, decay=0.95
    )
    target = advantage + values
    advantage = (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)
    log_prob = actions.log_prob(seen["distribution"], seen["action"])
    batch = Batch(seen["observation"], seen["action"], log_prob, seen["distribution"], advantage, target)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)
