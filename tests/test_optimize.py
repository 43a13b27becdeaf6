"""The loop: a resumed run is the run, vmap is the loop, jit is eager, and a bad step leaves things as they were."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gaussian_problem import FACTOR, MEAN, forward_kl, gaussian_target, reverse_kl, start
from registry import ALGORITHMS, DIM, FAMILIES, GAUSSIANS, OBJECTIVES

import vi_kit as vk
from vi_kit._static import configuration
from vi_kit._types import StepInfo

FULL_RANK = vk.families.FullRank(DIM)
CELLS = [("full_rank", objective, algorithm) for objective in OBJECTIVES for algorithm in ALGORITHMS] + [
    (family, "reverse_kl", algorithm) for family in GAUSSIANS if family != "full_rank" for algorithm in ALGORITHMS
]


def same(one, other, **tolerance):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        if tolerance:
            np.testing.assert_allclose(a, b, **tolerance)
        else:
            np.testing.assert_array_equal(a, b)


# Two cells by default; the rest goes the same way.
RESUMED = [pytest.param(*cell, marks=[pytest.mark.slow] * (i > 1), id="-".join(cell)) for i, cell in enumerate(CELLS)]


@pytest.mark.parametrize(("family", "objective", "algorithm"), RESUMED)
def test_a_resumed_run_is_the_run(family, objective, algorithm, key):
    """Bitwise: params, state and history."""
    family = FAMILIES[family].family
    made = ALGORITHMS[algorithm](OBJECTIVES[objective](family))

    def run(num_steps, state=None):
        return vk.optimize(
            jax.random.clone(key), gaussian_target(), made, start(family), num_steps=num_steps, state=state
        )

    whole, first = run(7), run(3)
    second = run(4, first.state)
    same(second.params, whole.params)
    same(second.state, whole.state)
    same(jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first.history, second.history), whole.history)
    assert whole.history.loss.shape == (7,)
    assert bool(whole.finite)
    assert np.abs(jax.tree.leaves(whole.params)[0] - jax.tree.leaves(start(family))[0]).max() > 0.01


def adam(learning_rate=0.05, objective=None):
    objective = objective or vk.objectives.ReverseKL(FULL_RANK, num_samples=8)
    return vk.algorithms.GradientDescent(objective, optax.adam, learning_rate=learning_rate)


def run(key, target=None, algorithm=None, params=None, num_steps=20, **rest):
    target = gaussian_target() if target is None else target
    params = start(FULL_RANK) if params is None else params
    return vk.optimize(jax.random.clone(key), target, algorithm or adam(), params, num_steps=num_steps, **rest)


def test_the_same_key_gives_the_same_bits_and_another_key_other_ones(key):
    same(run(key), run(key))
    assert np.any(run(key).params.mean != run(jax.random.fold_in(key, 1)).params.mean)


def test_steps_draw_afresh(key):
    """Were a key used twice, two steps at the same place would see the same loss."""
    still = run(key, algorithm=adam(learning_rate=0.0))
    assert len(np.unique(still.history.loss)) == 20
    same(still.params, start(FULL_RANK))


def test_vmap_over_restarts_is_the_loop(key):
    keys = jax.random.split(key, 3)
    starts = jax.vmap(lambda shift: start(FULL_RANK)._replace(mean=shift))(
        jnp.array([[0.0, 0.0], [1.0, 1.0], [-1.0, 2.0]])
    )
    together = jax.vmap(lambda k, p: vk.optimize(k, gaussian_target(), adam(), p, num_steps=20))(
        jax.random.clone(keys), starts
    )
    for i in range(3):
        one = run(keys[i], params=jax.tree.map(lambda leaf, i=i: leaf[i], starts))
        same(jax.tree.map(lambda leaf, i=i: leaf[i], together.params), one.params, rtol=1e-4, atol=1e-5)


def test_vmap_over_data_and_learning_rates(key):
    targets = gaussian_target()
    means = jnp.array([[1.0, -0.5], [3.0, 3.0]])

    def fit(mean, rate):
        return run(key, dataclasses.replace(targets, data=(mean, targets.data[1])), adam(rate)).params

    together = jax.vmap(fit)(means, jnp.array([0.05, 0.01]))
    same(jax.tree.map(lambda leaf: leaf[1], together), fit(means[1], 0.01), rtol=1e-4, atol=1e-5)
    assert np.abs(together.mean[0] - fit(means[0], 0.01).mean).max() > 0.1


def test_jit_is_eager(key):
    same(jax.jit(lambda k: run(k))(key), run(key), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_compiled_is_op_by_op(key):
    family = vk.families.MeanField(DIM)
    algorithm = adam(objective=vk.objectives.ReverseKL(family, num_samples=1))

    def step():
        return run(key, algorithm=algorithm, params=start(family), num_steps=1).params

    with jax.disable_jit():
        eager = step()
    same(step(), eager, rtol=1e-5, atol=1e-6)


def test_sharded_data_give_the_unsharded_answer(key):
    assert len(jax.devices()) >= 2
    x = np.linspace(-1, 1, 40, dtype=np.float32)
    target = vk.make_target(
        lambda z, data: -0.5 * jnp.sum((data["y"] - z[0] - z[1] * data["x"]) ** 2), 2, data={"x": x, "y": 2 * x + 1}
    )
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
    sharded = dataclasses.replace(target, data=jax.device_put(target.data, rows))
    same(run(key, sharded).params, run(key, target).params, rtol=1e-4, atol=1e-5)


def test_no_steps_return_the_start(key):
    fit = run(key, num_steps=0)
    same(fit.params, start(FULL_RANK))
    assert fit.history.loss.shape == (0,)
    assert bool(fit.finite)


def fragile_target(limit):
    """Its density is not a number beyond a limit."""
    return vk.make_target(
        lambda x, limit: jnp.where(jnp.any(x > limit), jnp.nan, -0.5 * jnp.sum(x**2)), DIM, data=limit
    )


def test_a_step_that_is_not_finite_leaves_the_state_as_it_was(key):
    fit = run(key, fragile_target(-1e9))
    assert not bool(fit.finite)
    assert not np.any(fit.history.finite)
    same(fit.params, start(FULL_RANK))
    count = [leaf for leaf in jax.tree.leaves(fit.state.algorithm_state.optimizer_state) if leaf.dtype == jnp.int32]
    assert all(int(c) == 0 for c in count)
    assert int(fit.state.step) == 20


def test_it_goes_on_after_a_bad_step(key):
    fit = run(key, fragile_target(2.5), num_steps=60)
    finite = np.asarray(fit.history.finite)
    assert not bool(fit.finite)
    assert 0 < finite.sum() < 60
    assert np.all(np.isnan(np.asarray(fit.history.loss)) == ~finite)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(fit.params))


@pytest.mark.parametrize("direction", ["reverse", "forward"])
def test_it_converges_to_the_target(direction, key):
    """A few hundred steps bring a full-rank Gaussian to a Gaussian target: from 1.7 nats to a hundredth."""
    if direction == "reverse":
        objective, exact = vk.objectives.ReverseKL(FULL_RANK, num_samples=8), reverse_kl
    else:
        objective, exact = vk.objectives.ForwardKL(FULL_RANK, num_samples=64), forward_kl
    assert exact(FULL_RANK, start(FULL_RANK)) > 0.5
    fit = run(key, algorithm=adam(optax.exponential_decay(0.1, 100, 0.3), objective), num_steps=400)
    assert exact(FULL_RANK, fit.params) < 0.02
    q = FULL_RANK.dist(fit.params)
    np.testing.assert_allclose(q.mean(), MEAN, atol=0.2)
    np.testing.assert_allclose(q.covariance(), FACTOR @ FACTOR.T, atol=0.3)


@pytest.mark.parametrize(
    "learning_rate", [0.05, 1, np.float32(0.05), jnp.array(0.05)], ids=lambda rate: type(rate).__name__
)
def test_any_number_is_a_learning_rate(learning_rate, key):
    fit = run(
        key,
        algorithm=vk.algorithms.GradientDescent(
            vk.objectives.ReverseKL(FULL_RANK, num_samples=8), optax.sgd, learning_rate=learning_rate
        ),
        num_steps=1,
    )
    gradient = (np.asarray(start(FULL_RANK).mean) - np.asarray(fit.params.mean)) / float(learning_rate)
    one = jax.tree.leaves(fit.history.gradient_norm)[0][0]
    assert np.linalg.norm(gradient) <= one * (1 + 1e-4)
    assert np.abs(gradient).max() > 0


@configuration
class Counting:
    """A user's own algorithm, to see that the loop asks for no more than the Protocol."""

    family: object = FULL_RANK

    def evaluations(self, target):
        return 0

    def init(self, params, target, key):
        return params, jnp.zeros((), jnp.int32)

    def step(self, state, target, key):
        return (state[0], state[1] + 1), StepInfo(jnp.zeros(()), jnp.zeros(()), jnp.array(True))

    def params(self, state):
        return state[0]


class Plain(Counting.__bases__[0]):
    """Nor must it be a configuration."""

    family = FULL_RANK
    evaluations, init, step, params = Counting.evaluations, Counting.init, Counting.step, Counting.params


@pytest.mark.parametrize("algorithm", [Counting(), Plain()], ids=["configuration", "plain"])
def test_a_users_own_algorithm(algorithm, key):
    fit = vk.optimize(key, gaussian_target(), algorithm, start(FULL_RANK), num_steps=5)
    assert int(fit.state.algorithm_state[1]) == 5


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"key": 0}, TypeError, r"key: expected a typed key from jax.random.key\(seed\), got 0"),
        ({"key": jnp.zeros(2, jnp.uint32)}, TypeError, r"key: expected a typed key .*got an array of uint32\[2\]"),
        ({"key": jax.random.split(jax.random.key(0), 2)}, ValueError, "key: expected one key"),
        ({"target": lambda x: x}, TypeError, "target: expected a Target.*got function"),
        ({"algorithm": vk.objectives.ReverseKL(FULL_RANK)}, TypeError, r"algorithm: expected .*got ReverseKL\("),
        ({"params": None}, TypeError, "params: expected parameters"),
        (
            {"params": start(vk.families.MeanField(DIM))},
            ValueError,
            r"params: expected those of FullRank\(dim=2\), got Mean",
        ),
        (
            {"params": vk.families.FullRank(1).init(jax.random.key(0))},
            ValueError,
            r"got FullRankParams of shapes \[\(0,\)",
        ),
        ({"num_steps": -1}, ValueError, "num_steps: expected at least 0, got -1"),
        ({"num_steps": 2.0}, TypeError, "num_steps: expected an int, got 2.0"),
    ],
)
def test_arguments_are_checked(change, error, message):
    good = {
        "key": jax.random.key(0),
        "target": gaussian_target(),
        "algorithm": adam(),
        "params": start(FULL_RANK),
        "num_steps": 1,
    }
    with pytest.raises(error, match=message):
        vk.optimize(**{**good, **change})
