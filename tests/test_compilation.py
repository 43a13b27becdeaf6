"""Freshly built equal objects hit the compiled program; only another program compiles."""

from collections.abc import Callable, Iterator
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vi_kit as vk

DIM = 2


@pytest.fixture
def compilations() -> Iterator[Callable[[Callable[[], Any]], int]]:
    """A function that runs another one and says how many programs the backend compiled meanwhile."""
    count = [0]

    def listen(event: str, duration: float, **_: Any) -> None:
        del duration
        count[0] += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(listen)

    def during(function: Callable[[], Any]) -> int:
        before = count[0]
        jax.block_until_ready(jax.tree.leaves(function()))
        return count[0] - before

    yield during
    jax.monitoring.unregister_event_duration_listener(listen)


def target(data: float = 1.0, sd: float = 1.0, bound: float = 0.0, slope: float = 2.0) -> Any:
    return vk.make_target(
        lambda x, y: -slope * x["b"] + jnp.sum(jnp.sin(y["rows"])) * x["a"],
        {"a": 0.0, "b": 1.0},
        support={"b": vk.support.greater_than(bound)},
        data={"rows": data * np.arange(3.0)},
        prior={"a": distrax.Normal(0.0, sd), "b": distrax.Gamma(2.0, sd)},
        derived=lambda x, y: {"sum": x["a"] + x["b"]},
    )


def reverse(rate: Any = 0.01, optimizer: Any = None) -> Any:
    objective = vk.objectives.ReverseKL(vk.families.FullRank(DIM), vk.estimators.pathwise, 4)
    return vk.algorithms.GradientDescent(objective, optimizer or optax.adam, learning_rate=rate)


def forward(shift: float, rate: float = 0.01) -> Any:
    draws = {"a": shift + np.arange(4.0), "b": shift + np.arange(4.0)}
    objective = vk.objectives.ForwardKL(vk.families.MeanField(DIM), vk.objectives.given(draws, shift * np.ones(4)))
    return vk.algorithms.GradientDescent(objective, optax.adam, learning_rate=rate)


def fit(algorithm: Any, seed: int = 0, num_steps: int = 3, **changes: float) -> Any:
    made = target(**changes)
    params = algorithm.family.init(jax.random.key(seed))
    return vk.optimize(jax.random.key(seed), made, algorithm, params, num_steps=num_steps)


def ready(rate: float = 0.1) -> Any:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate))


SAME = {
    "the same again": (lambda: fit(reverse()), lambda: fit(reverse())),
    "another seed": (lambda: fit(reverse()), lambda: fit(reverse(), seed=1)),
    "another rate": (lambda: fit(reverse()), lambda: fit(reverse(0.5))),
    "a rate of another type": (lambda: fit(reverse()), lambda: fit(reverse(np.float32(0.5)))),
    "other data": (lambda: fit(reverse()), lambda: fit(reverse(), data=3.0)),
    "another prior": (lambda: fit(reverse()), lambda: fit(reverse(), sd=3.0)),
    "another bound": (lambda: fit(reverse()), lambda: fit(reverse(), bound=0.5)),
    "a ready transformation": (lambda: fit(reverse(None, ready())), lambda: fit(reverse(None, ready()), seed=1)),
    "a schedule": (
        lambda: fit(reverse(optax.cosine_decay_schedule(0.1, 10))),
        lambda: fit(reverse(optax.cosine_decay_schedule(0.1, 10)), seed=1),
    ),
    "other given draws": (lambda: fit(forward(1.0)), lambda: fit(forward(2.0, 0.3), seed=1, data=2.0)),
}

DIFFERENT = {
    "another density": lambda: fit(reverse(), slope=3.0),
    "another optimizer": lambda: fit(reverse(0.01, optax.sgd)),
    "another ready transformation": lambda: fit(reverse(None, ready(0.2))),
    "another number of steps": lambda: fit(reverse(), num_steps=4),
}


@pytest.mark.parametrize("name", SAME)
def test_a_second_fit_compiles_nothing(name, compilations):
    first, second = SAME[name]
    jnp.asarray(np.float32(0.5))  # JAX compiles a program to take in a host number of a new type, once a process
    jax.block_until_ready(jax.tree.leaves(first()))
    assert compilations(second) == 0


@pytest.mark.parametrize("name", DIFFERENT)
def test_another_program_is_compiled(name, compilations):
    """Negative control: the count would see it."""
    jax.block_until_ready(jax.tree.leaves((fit(reverse()), fit(reverse(None, ready())))))
    assert compilations(DIFFERENT[name]) == 1


def test_going_on_compiles_once(compilations):
    algorithm = reverse()

    def go_on(done):
        return vk.optimize(jax.random.key(0), target(), reverse(), done.params, num_steps=3, state=done.state)

    done = fit(algorithm)
    assert compilations(lambda: go_on(done)) <= 1
    once = go_on(fit(algorithm))
    assert compilations(lambda: go_on(once)) == 0


def whole_fit(algorithm: Any = None, seed: int = 0, **changes: float) -> Any:
    posterior = vk.fit(jax.random.key(seed), target(**changes), algorithm, num_steps=40, progress=False)
    return posterior.params


WHOLE = {
    "another seed": (whole_fit, lambda: whole_fit(seed=1)),
    "other data": (whole_fit, lambda: whole_fit(data=3.0)),
    "another rate": (lambda: whole_fit(reverse()), lambda: whole_fit(reverse(0.02))),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_second_fit_with_its_report_compiles_nothing(name, compilations):
    first, second = WHOLE[name]
    jax.block_until_ready(first())
    assert compilations(second) == 0
