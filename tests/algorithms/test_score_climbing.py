"""Markovian score climbing: the chain keeps p, the gradient is that of the weights, and fits cover p."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from statistical import assert_same_distribution, expect_rejection

import vi_kit as vk

FAMILY = vk.families.MeanField(1)


def logistic(x):
    return -jnp.sum(x + 2 * jax.nn.softplus(-x))


def test_the_chain_keeps_the_target(key):
    """From exact draws of p, one step gives exact draws of p, whatever q: here three draws of a q that is far off."""
    target = vk.make_target(logistic, 1)
    algorithm = vk.algorithms.ScoreClimbing(FAMILY, optax.sgd, 0.0, num_samples=3)
    start = FAMILY.init(jax.random.key(0), mean=jnp.array([1.0]), scale=0.7)
    first, second = jax.random.split(key)
    exact = jax.random.logistic(first, (20_000, 1))

    @jax.jit
    @jax.vmap
    def after(z, key):
        init_key, key = jax.random.split(key)
        state = algorithm.init(start, target, init_key)._replace(z=z, log_p=target.log_density(z))
        return algorithm.step(state, target, key)[0].z

    moved = after(exact, jax.random.split(second, 20_000))
    assert np.mean(moved == exact) < 0.9
    assert_same_distribution(moved, stats.logistic.cdf)
    expect_rejection(lambda: assert_same_distribution(moved, stats.norm(1, 0.7).cdf))


@pytest.mark.usefixtures("x64")
def test_a_step_climbs_by_the_weights(key):
    """The step of plain gradient descent is −Σ w̄ ∇ log q, by the textbook score of a normal."""
    target = vk.make_target(logistic, 1)
    algorithm = vk.algorithms.ScoreClimbing(FAMILY, optax.sgd, 0.5, num_samples=4)
    start = FAMILY.init(jax.random.key(0), mean=jnp.array([0.3]), scale=0.8)
    init_key, step_key = jax.random.split(key)
    state = algorithm.init(start, target, init_key)
    z, log_p, log_weights = algorithm._propose(state, target, jax.random.split(jax.random.clone(step_key), 3)[0])
    np.testing.assert_allclose(log_p, [logistic(x) for x in z], rtol=1e-12)
    weights = np.exp(log_p - stats.norm(0.3, 0.8).logpdf(z[:, 0]))
    weights /= weights.sum()
    after, info = algorithm.step(state, target, step_key)
    score = np.array([weights @ (z[:, 0] - 0.3) / 0.64, weights @ (np.square(z[:, 0] - 0.3) / 0.64 - 1)])
    moved = algorithm.params(after)
    np.testing.assert_allclose(moved.mean - start.mean, 0.5 * score[:1], rtol=1e-9)
    np.testing.assert_allclose(moved.log_scale - start.log_scale, 0.5 * score[1:], rtol=1e-9)
    np.testing.assert_allclose(info.gradient_norm, np.linalg.norm(score), rtol=1e-9)
    np.testing.assert_allclose(log_weights - log_p, -stats.norm(0.3, 0.8).logpdf(z[:, 0]), rtol=1e-9)
    assert np.any(np.all(np.asarray(after.z)[None] == z, axis=1))


def test_a_fit_matches_the_moments_of_p(key):
    """Forward KL: the mean and standard deviation of the logistic, 0 and π/√3."""
    target = vk.make_target(logistic, 1)
    schedule = optax.cosine_decay_schedule(0.05, 4_000)
    algorithm = vk.algorithms.ScoreClimbing(FAMILY, optax.adam, schedule, num_samples=8)
    fit = vk.optimize(key, target, algorithm, FAMILY.init(jax.random.key(0)), num_steps=4_000)
    q = FAMILY.dist(fit.params)
    np.testing.assert_allclose(q.mean(), 0, atol=0.15)
    np.testing.assert_allclose(q.std(), np.pi / np.sqrt(3), rtol=0.07)
    assert algorithm.evaluations(target) == 7


def test_refusals():
    with pytest.raises(ValueError, match="num_samples: expected at least 2, got 1"):
        vk.algorithms.ScoreClimbing(FAMILY, optax.adam, num_samples=1)
    with pytest.raises(TypeError, match=r"family: expected one of vi_kit\.families"):
        vk.algorithms.ScoreClimbing(None, optax.adam)
    with pytest.raises(TypeError, match="optimizer: expected an optax factory"):
        vk.algorithms.ScoreClimbing(FAMILY, None)
