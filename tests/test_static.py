"""Comparison by value: freshly built equal objects are equal, and whatever computes something else is not."""

import dataclasses
import functools
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vi_kit as vk
from vi_kit._static import Static, combine, configuration, leaf, partition, value_key

scale = 2.0  # a global that functions below read
table = jnp.arange(3.0)


def close_over(value):
    return lambda x: x * value


def helper(x):
    return x + 1


def make(source: str, **scope: Any) -> Any:
    """A function as the prompt or a notebook would make it: not importable, its globals its own."""
    namespace = {"__name__": "__main__", "jnp": jnp, **scope}
    exec(source, namespace)
    return namespace["f"]


@dataclasses.dataclass(frozen=True)
class Holder:
    value: Any


EQUAL = {
    "lambda": lambda: lambda x: x**2 + 1,
    "closure over a number": lambda: close_over(3.0),
    "closure over an array": lambda: close_over(jnp.arange(3.0)),
    "closure over numpy": lambda: close_over(np.arange(3)),
    "closure over a closure": lambda: close_over(close_over(1)),
    "closure over a distribution": lambda: close_over(vk.families.MeanField(2).dist),
    "closure over a support": lambda: close_over(vk.support.interval(jnp.zeros(2), jnp.ones(2))),
    "closure over a dataclass": lambda: close_over(Holder(jnp.ones(2))),
    "closure over a dict": lambda: close_over({"a": [1, 2.0], "b": None}),
    "closure over a key": lambda: close_over(jax.random.key(3)),
    "global number": lambda: lambda x: x * scale,
    "global array": lambda: lambda x: x * table,
    "defaults": lambda: lambda x, a=1.0, *, b=(1, 2): x * a,
    "nested function": lambda: lambda x: (lambda y: y + 2)(x),
    "partial": lambda: functools.partial(close_over(1), x=2),
    "jit": lambda: jax.jit(lambda x: x + 1),
    "bound method": lambda: Holder(3.0).__eq__,
    "adam": lambda: optax.adam(1e-2),
    "chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3, weight_decay=0.1)),
    "schedule": lambda: optax.warmup_cosine_decay_schedule(0.0, 1.0, 10, 100),
    "nan": lambda: close_over(float("nan")),
    "frozen set in code": lambda: lambda x: x in {1, 2, 3},
}

DIFFERENT = {
    "constant": (lambda x: x + 1, lambda x: x + 2),
    "type of a constant": (lambda x: x + 1, lambda x: x + 1.0),
    "sign of zero": (close_over(0.0), close_over(-0.0)),
    "default": (lambda x, a=1: x * a, lambda x, a=2: x * a),
    "keyword default": (lambda x, *, a=1: x * a, lambda x, *, a=2: x * a),
    "closure": (close_over(1.0), close_over(2.0)),
    "array": (close_over(jnp.zeros(3)), close_over(jnp.ones(3))),
    "dtype": (close_over(np.zeros(3, np.float32)), close_over(np.zeros(3, np.int32))),
    "shape": (close_over(np.zeros(3)), close_over(np.zeros((3, 1)))),
    "strength of a type": (close_over(1.0), close_over(np.float64(1.0))),
    "weak type": (close_over(jnp.asarray(1.0)), close_over(jnp.ones(()))),
    "function read": (make("f = lambda x: jnp.sin(x)"), make("f = lambda x: jnp.cos(x)")),
    "global": (make("f = lambda x: x * a", a=1.0), make("f = lambda x: x * a", a=2.0)),
    "global array": (make("f = lambda x: x * a", a=jnp.zeros(2)), make("f = lambda x: x * a", a=jnp.ones(2))),
    "global helper": (
        make("def g(x): return x + 1\ndef f(x): return g(x)"),
        make("def g(x): return x + 2\ndef f(x): return g(x)"),
    ),
    "global of an inner function": (
        make("f = lambda x: (lambda y: y * a)(x)", a=1.0),
        make("f = lambda x: (lambda y: y * a)(x)", a=2.0),
    ),
    "partial": (functools.partial(helper, 1), functools.partial(helper, 2)),
    "learning rate": (optax.adam(1e-2), optax.adam(1e-3)),
    "optimizer": (optax.adam(1e-2), optax.sgd(1e-2)),
    "importable": (optax.adam, optax.sgd),
    "dataclass": (close_over(Holder(jnp.ones(2))), close_over(Holder(jnp.zeros(2)))),
    "support": (close_over(vk.support.greater_than(0.0)), close_over(vk.support.greater_than(1.0))),
    "order of a dict": (close_over({"a": 1, "b": 2}), close_over({"b": 2, "a": 1})),
    "list and tuple": (close_over([1]), close_over((1,))),
    "exception": (
        make("def f(x):\n try:\n  return x\n except ValueError:\n  return 1"),
        make("def f(x):\n try:\n  return x\n except TypeError:\n  return 1"),
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_freshly_built_equal_objects_have_one_key(name):
    first, second = EQUAL[name](), EQUAL[name]()
    assert value_key(first) == value_key(second)
    assert Static(first) == Static(second)
    assert hash(Static(first)) == hash(Static(second))


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_computes_something_else_has_another_key(name):
    first, second = DIFFERENT[name]
    assert value_key(first) != value_key(second)
    assert Static(first) != Static(second)


def test_the_line_does_not_count():
    def first(x):
        return x * scale

    def second(x):
        return x * scale

    assert first.__code__.co_firstlineno != second.__code__.co_firstlineno
    assert value_key(first) == value_key(second)


def test_an_attribute_of_a_globals_name_does_not_count():
    assert value_key(make("f = lambda x: x.sum()", sum=1)) == value_key(make("f = lambda x: x.sum()", sum=2))


def test_a_function_that_has_run_often_keeps_its_key():
    """CPython rewrites the bytecode of hot functions in place."""
    hot, cold = make("def f(x): return x * 2 + 1"), make("def f(x): return x * 2 + 1")
    for i in range(2_000):
        hot(i)
    assert value_key(hot) == value_key(cold)


def test_recursive_functions_end():
    source = "def f(n): return 1 if n == 0 else n * f(n - 1)"
    assert value_key(make(source)) == value_key(make(source))
    mutual = "def g(n): return f(n - 1)\ndef f(n): return n if n < 1 else g(n) + {}"
    assert value_key(make(mutual.format(1))) == value_key(make(mutual.format(1)))
    assert value_key(make(mutual.format(1))) != value_key(make(mutual.format(2)))


def test_objects_that_cannot_be_looked_into_are_equal_to_themselves_alone():
    for build in (object, lambda: np.array([object()], dtype=object)):
        one = build()
        assert value_key(close_over(one)) == value_key(close_over(one))
        assert value_key(close_over(one)) != value_key(close_over(build()))


def test_static_names_itself():
    assert repr(Static(helper)) == "helper"
    assert (Static(helper) == helper) is False


@configuration
class Inner:
    rate: Any = leaf(default=0.1)
    name: str = "inner"


@configuration
class Outer:
    function: Any
    inner: Inner = Inner()
    weights: Any = leaf(default=None)


def build(rate=0.1, weights=None, number=1.0, name="inner"):
    return Outer(close_over(number), Inner(rate, name), weights)


def test_configurations_compare_by_value():
    assert build() == build()
    assert hash(build()) == hash(build())
    assert len({build(), build(), build(number=2.0)}) == 2
    for other in (build(number=2.0), build(rate=0.2), build(name="x"), build(weights=jnp.ones(2)), "text"):
        assert build() != other
    assert build(weights=jnp.ones(2)) == build(weights=jnp.ones(2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        build().function = None


def test_partition_takes_the_leaves_out_of_the_key():
    """Other numbers, the same static part: they compile nothing."""
    static, leaves = partition(build(rate=0.1, weights=[1.0, 2.0]))
    other, other_leaves = partition(build(rate=0.5, weights=[3.0, 4.0]))
    assert static == other
    assert hash(static) == hash(other)
    assert jax.tree.structure(leaves) == jax.tree.structure(other_leaves)

    def shapes(tree):
        return [(a.shape, a.dtype, a.weak_type) for a in jax.tree.leaves(tree)]

    assert shapes(leaves) == shapes(partition(build(rate=jnp.float32(0.7), weights=[5.0, jnp.ones(())]))[1])
    assert static != partition(build(number=2.0, weights=[1.0, 2.0]))[0]
    assert static != partition(build())[0]  # no weights is another program


def test_combine_is_the_inverse_of_partition():
    config = build(rate=0.3, weights=[1.0, 2.0])
    again = combine(*partition(config))
    assert float(again.inner.rate) == pytest.approx(0.3)
    assert [float(w) for w in again.weights] == [1.0, 2.0]
    assert again.inner.name == "inner"
    assert again.function is config.function
    assert partition(again)[0] == partition(config)[0]
    traced = jax.jit(lambda leaves: combine(partition(config)[0], leaves).inner.rate * 2)(partition(config)[1])
    assert float(traced) == pytest.approx(0.6)


def test_callable_leaves_stay_static():
    schedule = optax.constant_schedule(0.1)
    static, leaves = partition(Inner(schedule))
    assert leaves == {}
    assert static.rate is schedule
    assert static == partition(Inner(optax.constant_schedule(0.1)))[0]


def test_a_class_of_the_users_own_is_all_static():
    class Mine:
        pass

    mine = Mine()
    assert partition(mine) == (mine, {})
    assert combine(mine, {}) is mine


def test_learning_rate_and_given_draws_are_not_in_the_static_part():
    family = vk.families.MeanField(2)

    def algorithm(rate, draws):
        objective = vk.objectives.ForwardKL(family, vk.objectives.given(draws))
        return vk.algorithms.GradientDescent(objective, optax.adam, learning_rate=rate)

    assert partition(algorithm(0.1, jnp.ones((3, 2))))[0] == partition(algorithm(0.2, jnp.zeros((3, 2))))[0]
    assert algorithm(0.1, jnp.ones((3, 2))) != algorithm(0.2, jnp.ones((3, 2)))


@pytest.mark.parametrize(
    "config",
    [
        vk.families.MeanField(2),
        vk.families.FullRank(2),
        vk.objectives.ReverseKL(vk.families.MeanField(2), vk.estimators.pathwise, 4, vk.objectives.closed_form_kl),
        vk.objectives.ForwardKL(vk.families.FullRank(2), vk.objectives.exact, 4),
        vk.algorithms.GradientDescent(vk.objectives.ReverseKL(vk.families.MeanField(2)), optax.adam, learning_rate=0.1),
    ],
    ids=lambda config: type(config).__name__,
)
def test_configurations_pickle_and_print(config):
    hash(config)  # the cached key must not travel: it may hold addresses
    again = pickle.loads(pickle.dumps(config))
    assert again == config
    assert hash(again) == hash(config)
    assert repr(config).startswith(type(config).__name__ + "(")
    assert "0x" not in repr(config), "an address in a repr makes two equal configurations print differently"


def _reads_itself(x):
    return x - _reads_itself.center


class _Settings:
    center = 1.0


def _reads_a_class(x):
    return x - _Settings.center


class _Model:
    def __init__(self, center):
        self.center = center

    def log_density(self, x):
        return -((x - self.center) ** 2)

    def __call__(self, x):
        return self.log_density(x)


def test_state_that_a_function_reads_is_part_of_its_key():
    """What was changed in place since makes another program: no stale answers."""
    model = _Model(1.0)
    _reads_itself.center = _Settings.center = 1.0
    before = [value_key(f) for f in (_reads_itself, _reads_a_class, model.log_density, model)]
    again = [value_key(f) for f in (_reads_itself, _reads_a_class, model.log_density, model)]
    assert before == again
    _reads_itself.center = _Settings.center = model.center = 4.0
    after = [value_key(f) for f in (_reads_itself, _reads_a_class, model.log_density, model)]
    assert all(old != new for old, new in zip(before, after, strict=True))


def test_near_equal_containers_are_told_apart():
    masked = [np.ma.array([1.0, 2.0], mask=mask) for mask in ([0, 1], [1, 0])]
    assert value_key(masked[0]) != value_key(masked[1])
    assert value_key(np.float32(1.0)) != value_key(np.ones(1, np.float32))
    assert value_key(np.ones(())) != value_key(np.ones(1))
    changing = {1, 2}
    first = value_key(changing)
    changing.add(3)
    assert value_key(changing) != first


def test_a_changed_model_is_not_answered_by_the_old_program():
    """End to end: the same function object with other state compiles anew."""
    model = _Model(1.0)
    target = vk.make_target(lambda x: jnp.sum(model(x)), 1)
    evaluate = jax.jit(lambda t, z: t.log_density(z))
    assert float(evaluate(target, jnp.zeros(1))) == -1.0
    model.center = 3.0
    assert float(evaluate(vk.make_target(lambda x: jnp.sum(model(x)), 1), jnp.zeros(1))) == -9.0
