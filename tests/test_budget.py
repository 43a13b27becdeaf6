"""What a fit may still spend, and what that leaves for training a family."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vi_kit as vk
from vi_kit._budget import Budget
from vi_kit._driver import conclude
from vi_kit._posterior import History
from vi_kit._training import Training, steps_within


def budget(**facts):
    return Budget(time.perf_counter(), 100.0, **facts)


@pytest.mark.parametrize(
    ("facts", "left"),
    [
        ({}, 100.0),
        ({"diagnosis_seconds": 7.0}, 93.0),
        ({"diagnosis_seconds": 80.0}, 50.0),  # at most half is kept back
        ({"evaluation_seconds": 20 / 4_096, "diagnosis_seconds": 7.0}, 80.0),
    ],
)
def test_a_diagnosis_is_kept_back(facts, left):
    assert budget(**facts).seconds_left() == pytest.approx(left, abs=1.0)


def test_training_has_what_compiling_and_a_diagnosis_leave():
    training = Training(num_samples=10, learning_rate=0.01)
    slow = {"evaluation_seconds": 2e-3, "diagnosis_seconds": 10.0}
    # (100 − 10 − 30) seconds, 60 % of them, 20 ms a step.
    assert steps_within(training, budget(**slow), 30.0, None, "a") == pytest.approx(1_800, abs=50)
    assert steps_within(training, budget(**slow), 85.0, None, "a") == 0
    assert steps_within(training, budget(), 30.0, None, "a") == training.steps


@pytest.mark.parametrize(
    ("facts", "dim", "more"),
    [
        ({}, 3, 12_288),
        ({"evaluation_seconds": 1e-4}, 3, 12_288),
        ({"evaluation_seconds": 1e-3}, 3, 0),  # more than a tenth of what is left
        ({"max_evaluations": 10_000}, 3, 0),
        ({"max_evaluations": 20_000}, 3, 12_288),
        ({}, 5_000, 0),  # more numbers than are worth keeping
    ],
)
def test_a_second_look_is_all_or_nothing(facts, dim, more):
    assert budget(**facts).more_draws(dim) == more


@pytest.mark.parametrize(("facts", "num"), [({}, 16_384), ({"max_evaluations": 20_000}, 4_096)])
def test_a_verdict_that_is_open_takes_more_draws(facts, num, key, monkeypatch):
    monkeypatch.setattr("vi_kit._driver.wants_more_draws", lambda report: True)
    target = vk.make_target(lambda x: -0.5 * jnp.sum(jnp.square(x)), 1)
    family, spent = vk.families.MeanField(1), budget(**facts)
    history = History(np.zeros(0), np.zeros(0, int), np.zeros(0), np.zeros(0))
    params = family.init(jax.random.clone(key))
    posterior, draws = conclude(key, target, family, params, spent, history, objective="", steps=0)
    assert posterior.report.num_samples == len(draws.log_q) == num
    assert len(np.unique(posterior.draws)) > 0.99 * num  # no block came twice
    assert spent.evaluations == posterior.report.evaluations == num
