"""Train policies on the two environments; what has been trained is kept every so many updates."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import workbench
from actors import Actor, Continuous, Discrete, Policy, begin, collect, rollout
from environments import CartPole, Environment, Pendulum
from updates import Clip, Epochs, Penalty, Problem, TrustRegion, value_loss

from vi_kit import kl


@dataclasses.dataclass(frozen=True)
class Task:
    """An environment, its actions, and how long to train on it."""

    environment: Environment
    actions: Discrete | Continuous
    num_updates: int
    num_actors: int = 16
    num_steps: int = 128
    width: int = 32
    critic: Epochs = Epochs()  # noqa: RUF009, frozen


class Training(NamedTuple):
    """Everything that changes."""

    policy: Any
    method: Any
    critic: Any
    critic_optimizer: Any
    actors: Actor
    key: Any


TASKS = (
    ("cart-pole", Task(CartPole(), Discrete(2), num_updates=30)),
    ("pendulum", Task(Pendulum(), Continuous(1), num_updates=120, width=64)),
)


def methods(target: float, epochs: Epochs) -> dict[str, Any]:
    """Return what is compared, by name: the first and the last are given the KL, the others are not."""
    return {
        "PPO, adaptive penalty": Penalty(kl.AdaptiveCoefficient(kl.ThresholdRule()), target, epochs=epochs),
        "PPO, penalty of 1": Penalty(None, target, epochs=epochs),
        "PPO, clipped ratio": Clip(epochs=epochs),
        "TRPO": TrustRegion(target),
    }


def start(task: Task, method: Any, seed: int) -> tuple[Training, Any, Any]:
    """Return the first state, and the parts of policy and critic that are no arrays."""
    policy_key, critic_key, actors_key, key = jax.random.split(jax.random.key(seed), 4)
    inputs = task.environment.observation_size
    policy, policy_static = eqx.partition(Policy(policy_key, inputs, task.actions, task.width), eqx.is_array)
    critic = eqx.nn.MLP(inputs, "scalar", task.width, 2, activation=jnp.tanh, key=critic_key)
    critic, critic_static = eqx.partition(critic, eqx.is_array)
    actors = begin(task.environment, actors_key, task.num_actors)
    state = Training(policy, method.init(policy), critic, task.critic.init(critic), actors, key)
    return state, policy_static, critic_static


@eqx.filter_jit
def act(task: Task, policy: Any, critic: Any, actors: Actor, key: Any) -> tuple[Actor, Any]:
    """Return the actors after a rollout, and its batch."""
    actors, seen = rollout(task.environment, task.actions, policy, actors, key, task.num_steps)
    return actors, collect(task.environment, task.actions, policy, critic, seen)


@eqx.filter_jit
def fit_critic(task: Task, static: Any, arrays: Any, optimizer: Any, batch: Any, key: Any) -> Any:
    """Fit the critic to a batch."""
    return task.critic.minimize(value_loss(static), arrays, optimizer, batch, key)


@eqx.filter_jit
def improve(task: Task, method: Any, static: Any, arrays: Any, state: Any, batch: Any, key: Any) -> Any:
    """Move the policy."""

    def policy_of(arrays: Any, batch: Any) -> Any:
        return jax.vmap(eqx.combine(arrays, static))(batch.observation)

    return method.update(Problem(policy_of, task.actions), arrays, state, batch, key)


def train(task: Task, method: Any, statics: Any, state: Training) -> tuple[Training, Any]:
    """Make an update; return also the mean return of the actors' last episodes, the KL and the coefficient."""
    policy_static, critic_static = statics
    key, act_key, policy_key, critic_key = jax.random.split(state.key, 4)
    policy, critic = eqx.combine(state.policy, policy_static), eqx.combine(state.critic, critic_static)
    actors, batch = act(task, policy, critic, state.actors, act_key)
    arrays, method_state, moved = improve(task, method, policy_static, state.policy, state.method, batch, policy_key)
    critic_arrays, optimizer = fit_critic(task, critic_static, state.critic, state.critic_optimizer, batch, critic_key)
    learned = jnp.nanmean(actors.finished_total)
    return Training(arrays, method_state, critic_arrays, optimizer, actors, key), (learned, *moved)


@eqx.filter_jit
def evaluate(task: Task, static: Any, arrays: Any, key: Any, num_episodes: int) -> Any:
    """Return the totals of new episodes, one an actor."""
    begin_key, act_key = jax.random.split(key)
    actors = begin(task.environment, begin_key, num_episodes)
    policy = eqx.combine(arrays, static)
    _, seen = rollout(task.environment, task.actions, policy, actors, act_key, task.environment.num_steps)
    first = jnp.cumsum(seen["over"], axis=0) - seen["over"] == 0
    return jnp.sum(jnp.where(first, seen["reward"], jnp.zeros_like(seen["reward"])), axis=0)


def run_one(run: workbench.Run, name: str, task: Task, method: Any, seed: int, every: int) -> dict[str, Any]:
    """Train one policy, from where it was left, and return its row."""
    if (row := run.row(name)) is not None:
        return row
    state, *statics = start(task, method, seed)
    history = jnp.full((task.num_updates, 3), jnp.nan)
    like = (state, history, jnp.asarray(0), jnp.asarray(0.0))
    state, history, done, spent = run.restore(name, like) or like
    done, spent = int(done), float(spent)
    began, since = None, done
    while done < task.num_updates:
        state, found = jax.block_until_ready(train(task, method, tuple(statics), state))
        history, done = history.at[done].set(jnp.stack(found)), done + 1
        if done % every == 0 or done == task.num_updates:
            if began is not None:  # the first ones of a process compile: what was measured before, if any, stands
                spent = (time.process_time() - began) / (done - since)
            run.save(name, (state, history, jnp.asarray(done), jnp.asarray(spent)))
            began, since = time.process_time(), done
    totals = evaluate(task, statics[0], state.policy, jax.random.key(10_000 + seed), 100)
    learned, moved, coefficient = (np.asarray(column, float) for column in history.T)
    row = {"return": float(np.mean(totals)), "seconds an update": spent or None, "seed": seed}
    row |= {"curve": [None if np.isnan(v) else round(float(v), 2) for v in learned]}
    row |= {"kl": [float(f"{v:.3g}") for v in moved]}
    row |= {"coefficient": None if np.isnan(coefficient).all() else [float(f"{v:.3g}") for v in coefficient]}
    run.finish(name, row)
    return row
