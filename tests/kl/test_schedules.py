"""Schedules against their formulas step by step, under jit and inside optax."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vi_kit.kl as kl

STEPS = np.arange(-3, 45)


def exact_cyclical(step, num_steps, num_cycles, ramp_fraction):
    """Whole numbers decide where a cycle begins."""
    if step >= num_steps:
        return 1.0
    position = max(step, 0) * num_cycles % num_steps / num_steps
    return min(position / ramp_fraction, 1.0)


def exact_sigmoid(step, num_steps, steepness):
    logistic = lambda t: 1 / (1 + math.exp(-steepness * (t - 0.5)))  # noqa: E731
    part = min(max(step / num_steps, 0), 1)
    return (logistic(part) - logistic(0)) / (logistic(1) - logistic(0))


@pytest.mark.parametrize(
    ("schedule", "exact"),
    [
        (kl.schedules.linear(30), lambda t: min(max(t / 30, 0), 1)),
        (kl.schedules.cyclical(30), lambda t: exact_cyclical(t, 30, 4, 0.5)),
        (kl.schedules.cyclical(30, 7, 0.9), lambda t: exact_cyclical(t, 30, 7, 0.9)),
        (kl.schedules.cyclical(30, 1, 1.0), lambda t: min(max(t / 30, 0), 1)),
        (kl.schedules.sigmoid(30), lambda t: exact_sigmoid(t, 30, 10.0)),
        (kl.schedules.sigmoid(30, steepness=3.0), lambda t: exact_sigmoid(t, 30, 3.0)),
    ],
)
def test_every_step_by_its_formula(schedule, exact):
    expected = [exact(int(t)) for t in STEPS]
    np.testing.assert_allclose([schedule(int(t)) for t in STEPS[::9]], expected[::9], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(schedule))(STEPS), expected, rtol=1e-5, atol=1e-6)
    assert schedule(0) == 0
    assert schedule(30) == schedule(10**9) == 1


@pytest.mark.parametrize("make", [kl.schedules.linear, kl.schedules.sigmoid, kl.schedules.cyclical])
def test_start_and_end_are_met_exactly(make):
    schedule = make(7, start=0.3, end=-2.7)
    assert schedule(0) == np.float32(0.3)
    assert schedule(7) == np.float32(-2.7)
    assert schedule(jnp.int32(3)).dtype == jnp.float32


def test_linear_is_optax_s():
    ours, theirs = kl.schedules.linear(20, 1.0, 3.0), optax.schedules.linear_schedule(1.0, 3.0, 20)
    np.testing.assert_allclose([ours(t) for t in (0, 7, 20, 33)], [theirs(t) for t in (0, 7, 20, 33)], rtol=1e-6)


def test_a_schedule_drives_an_optax_transform():
    transform = optax.scale_by_schedule(kl.schedules.cyclical(8, num_cycles=2))
    state, found = transform.init(jnp.ones(())), []
    for _ in range(9):
        update, state = jax.jit(transform.update)(jnp.ones(()), state)
        found.append(float(update))
    np.testing.assert_allclose(found, [0, 0.5, 1, 1, 0, 0.5, 1, 1, 1])
    optax.inject_hyperparams(optax.sgd)(kl.schedules.linear(5)).init(jnp.ones(()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kl.schedules.linear(0), "num_steps: expected a positive whole number, got 0"),
        (lambda: kl.schedules.linear(2.5), "num_steps: expected a positive whole number, got 2.5"),
        (lambda: kl.schedules.linear(5, end=math.inf), "end: expected a finite number, got inf"),
        (lambda: kl.schedules.cyclical(5, 0), "num_cycles: expected a positive whole number, got 0"),
        (lambda: kl.schedules.cyclical(5, ramp_fraction=0.0), "ramp_fraction: expected a number above 0"),
        (lambda: kl.schedules.cyclical(5, ramp_fraction=1.5), "ramp_fraction: expected a number above 0"),
        (lambda: kl.schedules.sigmoid(5, start=math.nan), "start: expected a finite number, got nan"),
        (lambda: kl.schedules.sigmoid(5, steepness=0.0), "steepness: expected a positive number, got 0"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
