"""`Evaluator`: values, gradients, counts and budgets, by one program."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vi_kit as vk
from vi_kit._budget import Budget, OutOfBudgetError
from vi_kit._evaluator import Evaluator

DIM = 3


def log_density(x, data):
    return -jnp.sum(jnp.cosh(x - data))


def make(max_seconds=1e3, max_evaluations=None, center=0.3):
    target = vk.make_target(log_density, DIM, data=center)
    return Evaluator(target, Budget(time.perf_counter(), max_seconds, max_evaluations))


def points(count):
    return np.random.default_rng(count).normal(size=(count, DIM))


@pytest.mark.parametrize("count", [1, 7, 8, 600])  # less than, as many as are evaluated at once; more than fit in
def test_values_and_gradients(count):
    where = points(count)
    values, gradients = make()(where)
    np.testing.assert_allclose(values, -np.cosh(where - 0.3).sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(gradients, -np.sinh(where - 0.3), rtol=1e-4, atol=1e-6)
    assert values.dtype == gradients.dtype == np.float64


def test_double_precision_stays(x64):
    where = points(5)
    values, gradients = make()(where)
    np.testing.assert_allclose(values, -np.cosh(where - 0.3).sum(axis=1), rtol=1e-13)
    np.testing.assert_allclose(gradients, -np.sinh(where - 0.3), rtol=1e-12)


def test_every_point_counts():
    evaluate = make()
    evaluate(points(1))
    timing = evaluate.budget.evaluations - 1
    assert 0 < timing <= 4
    for count in (5, 600):
        before = evaluate.budget.evaluations
        evaluate(points(count))
        assert evaluate.budget.evaluations - before == count
    assert evaluate.budget.evaluation_seconds > 0


def test_one_program_for_all_counts(compiles):
    make()(points(2))
    before = compiles()
    evaluate = make(center=2.0)
    for count in (1, 3, 64, 600):
        evaluate(points(count))
    assert compiles() == before
    other = vk.make_target(lambda x: -jnp.sum(x**4), DIM)
    Evaluator(other, Budget(time.perf_counter(), 1e3))(points(1))
    assert compiles() > before  # the control: another density is another program


def test_evaluations_beyond_the_budget_are_refused():
    evaluate = make(max_evaluations=400)
    evaluate(points(10))
    spent = evaluate.budget.evaluations
    left = int(evaluate.budget.evaluations_left())
    assert 0 < left < 400 - spent  # the rest is for the diagnosis
    with pytest.raises(OutOfBudgetError, match="the budget of 400 evaluations was spent"):
        evaluate(points(left + 1))
    assert evaluate.budget.evaluations == spent
    evaluate(points(left))


def test_seconds_beyond_the_budget_are_refused():
    evaluate = make(max_seconds=1e-3)
    with pytest.raises(OutOfBudgetError, match=r"the budget of 0\.001 seconds was spent"):
        evaluate(points(1))


def test_a_slow_density_is_evaluated_one_by_one(monkeypatch):
    asleep = []

    def slow(x):
        asleep.append(None)
        time.sleep(0.05)
        return np.float32(-0.5 * np.sum(np.asarray(x) ** 2))

    @jax.custom_jvp
    def sleeping(x):
        return jax.pure_callback(slow, jax.ShapeDtypeStruct((), jnp.float32), x, vmap_method="sequential")

    sleeping.defjvp(lambda primals, tangents: (sleeping(*primals), -jnp.sum(primals[0] * tangents[0])))
    monkeypatch.setattr("vi_kit._evaluator._SLOW", 0.2)
    evaluate = Evaluator(vk.make_target(sleeping, DIM), Budget(time.perf_counter(), 1e3))
    where = points(3)
    values, gradients = evaluate(where)
    np.testing.assert_allclose(values, -0.5 * np.sum(where**2, axis=1), rtol=1e-5)
    np.testing.assert_allclose(gradients, -where, rtol=1e-5)
    assert 0.05 <= evaluate.budget.evaluation_seconds < 0.15
    asleep.clear()
    evaluate(where)
    assert len(asleep) == 3  # none that pads a batch
    assert " s an evaluation) was spent" not in evaluate.budget.spent()
    evaluate.budget.evaluation_seconds = 3.14159
    assert evaluate.budget.spent() == "the budget of 1000 seconds (3.1 s an evaluation) was spent"
