"""Gradient descent with the optax optimizers that people use, ready or as a factory with a rate or a schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import vi_kit as vk

FAMILY = vk.families.MeanField(2)
START = FAMILY.init(jax.random.key(0), mean=jnp.array([2.0, -2.0]))
OBJECTIVE = vk.objectives.ReverseKL(FAMILY, num_samples=4)

OPTIMIZERS = {
    "sgd": (optax.sgd, 0.05),
    "adam": (optax.adam, 0.1),
    "adamw": (optax.adamw, 0.1),
    "rmsprop": (optax.rmsprop, 0.1),
    "default rate": (optax.adam, None),
    "schedule": (optax.adam, optax.cosine_decay_schedule(0.2, 30)),
    "ready chain": (optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)), None),
    "apply_if_finite": (optax.apply_if_finite(optax.adam(0.1), max_consecutive_errors=3), None),
    "lbfgs": (optax.lbfgs(), None),
    "schedule_free": (optax.contrib.schedule_free_adamw, 0.1),
    "prodigy": (optax.contrib.prodigy, 1.0),
    "dog": (optax.contrib.dog, 1.0),
    "dowg": (optax.contrib.dowg, 1.0),
    "wants params": (optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.05)), None),
    "reduce_on_plateau": (optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau()), None),
}


def target():
    return vk.make_target(lambda x: -0.5 * jnp.sum(x**2), 2)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optax_optimizers_bring_the_mean_nearer(name, key):
    optimizer, rate = OPTIMIZERS[name]
    algorithm = vk.algorithms.GradientDescent(OBJECTIVE, optimizer, learning_rate=rate)
    fit = vk.optimize(key, target(), algorithm, START, num_steps=30)
    assert bool(fit.finite)
    distance = np.linalg.norm(fit.params.mean)
    slow_starter = name in {"prodigy", "dog", "dowg"}  # they first feel out the size of a step
    assert distance < np.linalg.norm(START.mean) - (0.003 if slow_starter else 0.05), distance
    assert {leaf.dtype for leaf in jax.tree.leaves(fit.params)} == {jnp.dtype("float32")}


def test_a_step_is_optax_by_hand(key):
    """The same draws, the same gradient, the same update."""
    algorithm = vk.algorithms.GradientDescent(OBJECTIVE, optax.sgd, learning_rate=0.3)
    state = algorithm.init(START, target(), jax.random.key(0))
    after, info = algorithm.step(state, target(), jax.random.clone(key))
    loss, gradient = jax.value_and_grad(OBJECTIVE)(START, target(), key)
    np.testing.assert_allclose(info.loss, loss, rtol=1e-6)
    expected = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
    np.testing.assert_allclose(info.gradient_norm, expected, rtol=1e-6)
    moved = algorithm.params(after)
    np.testing.assert_allclose(moved.mean, START.mean - 0.3 * gradient.mean, rtol=1e-6)
    np.testing.assert_allclose(moved.log_scale, START.log_scale - 0.3 * gradient.log_scale, rtol=1e-6)


def test_a_schedule_sees_the_step(key):
    """A rate that drops to zero after three steps stops the parameters there."""
    schedule = optax.piecewise_constant_schedule(0.1, {3: 0.0})

    def run(n):
        return vk.optimize(
            jax.random.clone(key),
            target(),
            vk.algorithms.GradientDescent(OBJECTIVE, optax.sgd, schedule),
            START,
            num_steps=n,
        )

    np.testing.assert_array_equal(run(10).params.mean, run(3).params.mean)
    assert np.any(run(3).params.mean != run(2).params.mean)


@pytest.mark.parametrize("family", [FAMILY, vk.families.FullRank(2)], ids=["mean_field", "full_rank"])
def test_the_proximal_step_of_the_entropy_is_its_gradient_step(family, key):
    """argmin −rate Σ s + ½ |s − s₀|² = s₀ + rate: the entropy alone, of a flat target, moves log scales by the rate."""
    flat = vk.make_target(lambda x: 0.0 * jnp.sum(x), 2)
    objective = vk.objectives.ReverseKL(family, vk.estimators.closed_form_entropy, num_samples=2)
    algorithm = vk.algorithms.GradientDescent(objective, optax.sgd, learning_rate=0.3)
    start = family.init(jax.random.key(0), scale=jnp.array([0.01, 100.0]))
    after, _ = algorithm.step(algorithm.init(start, flat, jax.random.key(0)), flat, key)
    np.testing.assert_allclose(after.params.log_scale, start.log_scale + 0.3, rtol=1e-6)
    np.testing.assert_array_equal(after.params.mean, start.mean)


def test_params_are_passed_to_an_optimizer_that_wants_them(key):
    """Weight decay by hand: θ − rate (gradient + decay θ)."""
    decayed = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.3))
    algorithm = vk.algorithms.GradientDescent(OBJECTIVE, decayed)
    after, _ = algorithm.step(algorithm.init(START, target(), jax.random.key(0)), target(), jax.random.clone(key))
    gradient = jax.grad(OBJECTIVE)(START, target(), key)
    np.testing.assert_allclose(after.params.mean, START.mean - 0.3 * (gradient.mean + 0.5 * START.mean), rtol=1e-6)


def test_eval_params_of_schedule_free_are_the_mean_of_its_inner_iterates(key):
    """At a constant rate x_t = (z_1 + … + z_t) / t, of z the optimizer's own sequence; gradients are taken at y."""
    algorithm = vk.algorithms.GradientDescent(
        OBJECTIVE, optax.contrib.schedule_free_sgd, 0.1, eval_params=optax.contrib.schedule_free_eval_params
    )
    step = jax.jit(algorithm.step)
    state = algorithm.init(START, target(), jax.random.key(0))
    np.testing.assert_allclose(algorithm.params(state).mean, START.mean, rtol=1e-6)
    inner = []
    for step_key in jax.random.split(key, 5):
        state, _ = step(state, target(), step_key)
        inner.append(state.optimizer_state.z)
    averaged = algorithm.params(state)
    np.testing.assert_allclose(averaged.mean, np.mean([z.mean for z in inner], axis=0), rtol=1e-5)
    np.testing.assert_allclose(averaged.log_scale, np.mean([z.log_scale for z in inner], axis=0), rtol=1e-4, atol=1e-6)
    assert np.abs(averaged.mean - state.params.mean).max() > 1e-3  # the iterate is elsewhere
    fit = vk.optimize(jax.random.key(1), target(), algorithm, START, num_steps=30)
    last = fit.state.algorithm_state
    expected = optax.contrib.schedule_free_eval_params(last.optimizer_state, last.params)
    np.testing.assert_allclose(fit.params.mean, expected.mean, rtol=1e-5)


def test_the_learning_rate_is_in_the_state():
    algorithm = vk.algorithms.GradientDescent(OBJECTIVE, optax.adam, learning_rate=0.3)
    assert float(algorithm.init(START, target(), jax.random.key(0)).learning_rate) == pytest.approx(0.3)
    default = vk.algorithms.GradientDescent(OBJECTIVE, optax.adam)
    assert float(default.init(START, target(), jax.random.key(0)).learning_rate) == pytest.approx(0.01)
    assert algorithm.family is FAMILY
    assert algorithm.evaluations(target()) == 4


def test_double_precision_stays_double(x64, key):
    algorithm = vk.algorithms.GradientDescent(OBJECTIVE, optax.adam, learning_rate=0.1)
    fit = vk.optimize(key, target(), algorithm, FAMILY.init(jax.random.key(0)), num_steps=2)
    assert {leaf.dtype for leaf in jax.tree.leaves(fit.params)} == {jnp.dtype("float64")}
    assert fit.history.loss.dtype == jnp.float64


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            lambda: vk.algorithms.GradientDescent(OBJECTIVE, optax.adam(0.1), 0.1),
            ValueError,
            "learning_rate: a ready optax",
        ),
        (lambda: vk.algorithms.GradientDescent(OBJECTIVE, None), TypeError, "optimizer: expected an optax factory"),
        (
            lambda: vk.algorithms.GradientDescent(FAMILY, optax.adam),
            TypeError,
            r"objective: expected .*got MeanField\(dim=2\)",
        ),
        (
            lambda: vk.algorithms.GradientDescent(OBJECTIVE, optax.adam, "fast"),
            TypeError,
            "learning_rate: expected one number",
        ),
        (
            lambda: vk.algorithms.GradientDescent(OBJECTIVE, optax.adam, True),
            TypeError,
            "learning_rate: expected one number",
        ),
        (
            lambda: vk.algorithms.GradientDescent(OBJECTIVE, optax.adam, eval_params=True),
            TypeError,
            "eval_params: expected a function of the optimizer's state",
        ),
        (
            lambda: vk.algorithms.GradientDescent(OBJECTIVE, optax.adam, np.ones(2)),
            TypeError,
            "learning_rate: expected one number",
        ),
    ],
)
def test_arguments_are_checked(build, error, message):
    with pytest.raises(error, match=message):
        build()
