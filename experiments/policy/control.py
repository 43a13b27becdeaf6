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


HELD = "PPO, adaptive penalty, held"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the part with the two systems depends on."""

    seeds: tuple[int, ...] = (20, 21, 22, 23, 24)
    choice_seeds: tuple[int, ...] = (100, 101)
    target: float = 0.01  # nats an update, for the penalty and the trust region
    limit: float = 0.015  # nats, where a step is taken back
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    last: tuple[float, ...] = (0.1, 0.01)  # parts of the trust region's budget that are left at the end
    tasks: tuple[tuple[str, Task], ...] = TASKS
    epochs: Epochs = Epochs()  # noqa: RUF009, frozen
    every: int = 10  # updates from one checkpoint to the next


def candidates(settings: Settings, num_updates: int) -> dict[str, dict[str, Any]]:
    """Return what is compared, by name, each with what is chosen from."""
    s = settings
    threshold = kl.AdaptiveCoefficient(kl.ThresholdRule())
    proportional = kl.AdaptiveCoefficient(kl.ProportionalRule(num_steps=1.0, horizon=1.0))
    epochs = {f"rate {rate:g}": dataclasses.replace(s.epochs, rate=rate) for rate in s.rates}
    return {
        HELD: {rate: Penalty(threshold, s.target, s.limit, epochs=made) for rate, made in epochs.items()}
        | {"proportional rule": Penalty(proportional, s.target, s.limit, epochs=s.epochs)},
        "PPO, adaptive penalty": {rate: Penalty(threshold, s.target, epochs=made) for rate, made in epochs.items()},
        "PPO, clipped ratio": {rate: Clip(epochs=made) for rate, made in epochs.items()},
        "TRPO": {"as it is": TrustRegion(s.target)},
        "TRPO, falling budget": {
            f"to {last:g} of it": TrustRegion(s.target, shrink=last ** (1 / num_updates)) for last in s.last
        },
    }


@eqx.filter_jit
def networks(task: Task, policy_key: Any, critic_key: Any) -> tuple[Policy, eqx.nn.MLP]:
    """Draw policy and critic; compiled as one, which the many draws in them are not by themselves."""
    inputs = task.environment.observation_size
    policy = Policy(policy_key, inputs, task.actions, task.width)
    return policy, eqx.nn.MLP(inputs, "scalar", task.width, 2, activation=jnp.tanh, key=critic_key)


def start(task: Task, method: Any, seed: int) -> tuple[Training, Any, Any]:
    """Return the first state, and the parts of policy and critic that are no arrays."""
    policy_key, critic_key, actors_key, key = jax.random.split(jax.random.key(seed), 4)
    drawn = networks(task, policy_key, critic_key)
    (policy, policy_static), (critic, critic_static) = (eqx.partition(model, eqx.is_array) for model in drawn)
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


def choose(run: workbench.Run, name: str, task: Task, tried: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Try candidates on seeds of their own; return their scores, the mean return over the second half of training."""
    scores = {}
    for label, method in tried.items():
        curves = [
            run_one(run, f"choice {name}, {label} {seed}", task, method, seed, settings.every)["curve"]
            for seed in settings.choice_seeds
        ]
        late = np.asarray(curves, float)[:, task.num_updates // 2 :]
        scores[label] = round(float(np.mean(late)), 1)  # NaN, where no episode has ended yet, is never chosen
        print("choice", name, label, scores[label], flush=True)
    return {"chosen": max(scores, key=lambda label: np.nan_to_num(scores[label], nan=-np.inf)), "scores": scores}


def train_all(
    run: workbench.Run, settings: Settings, names: dict[str, tuple[str, ...]] | None = None
) -> dict[str, Any]:
    """Choose, then train every method on every task with every seed; `names` are the methods of a task, None: all."""
    found: dict[str, Any] = {}
    for task_name, task in settings.tasks:
        every = candidates(settings, task.num_updates)
        for name in names[task_name] if names else every:
            tried = every[name]
            choice = choose(run, f"{task_name} {name}", task, tried, settings) if len(tried) > 1 else None
            method = tried[choice["chosen"]] if choice else next(iter(tried.values()))
            rows = []
            for seed in settings.seeds:
                rows.append(run_one(run, f"{task_name} {name} {seed}", task, method, seed, settings.every))
                print(task_name, name, seed, round(rows[-1]["return"], 1), flush=True)
            timed = [row["seconds an update"] for row in rows if row["seconds an update"] is not None]
            found.setdefault(task_name, {})[name] = {
                "choice": choice,
                "return": workbench.summary([row["return"] for row in rows]),
                "seconds an update": float(np.median(timed)) if timed else None,
                "environment steps": task.num_updates * task.num_actors * task.num_steps,
                **{column: [row[column] for row in rows] for column in ("curve", "kl", "coefficient")},
            }
    return found


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
