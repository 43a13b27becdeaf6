"""Markovian score climbing: the chain keeps p, the gradient is that of the weights, and fits cover p."""

import sys

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


def hamiltonian(num_samples, rate=0.0, **options):
    kernel = vk.algorithms.HamiltonianMonteCarlo(**options)
    return vk.algorithms.ScoreClimbing(FAMILY, optax.sgd, rate, num_samples=num_samples, kernel=kernel)


def test_hamiltonian_chains_keep_the_target(key):
    """From exact draws of p, one step gives exact draws of p, whatever the step size and q."""
    target = vk.make_target(logistic, 1)
    algorithm = hamiltonian(20_000, step_size=1.5, num_integration_steps=3)
    start = FAMILY.init(jax.random.key(0), mean=jnp.array([1.0]), scale=1.4)
    init_key, draw_key, key = jax.random.split(key, 3)
    exact = jax.random.logistic(draw_key, (20_000, 1))
    state = algorithm.init(start, target, init_key)._replace(z=exact)
    moved = jax.jit(algorithm.step)(state, target, key)[0].z
    assert np.mean(moved == exact) < 0.5
    assert_same_distribution(moved, stats.logistic.cdf)
    expect_rejection(lambda: assert_same_distribution(moved, stats.logistic(scale=1.1).cdf))


@pytest.mark.usefixtures("x64")
def test_a_step_of_chains_climbs_by_their_mean(key):
    """The step of plain gradient descent is −mean ∇ log q over the new states, by the textbook score of a normal."""
    target = vk.make_target(logistic, 1)
    algorithm = hamiltonian(5, 0.5)
    start = FAMILY.init(jax.random.key(0), mean=jnp.array([0.3]), scale=0.8)
    init_key, key = jax.random.split(key)
    after, info = algorithm.step(algorithm.init(start, target, init_key), target, key)
    z = np.asarray(after.z)[:, 0]
    score = np.array([np.mean(z - 0.3) / 0.64, np.mean(np.square(z - 0.3) / 0.64 - 1)])
    moved = algorithm.params(after)
    np.testing.assert_allclose(moved.mean - start.mean, 0.5 * score[:1], rtol=1e-9)
    np.testing.assert_allclose(moved.log_scale - start.log_scale, 0.5 * score[1:], rtol=1e-9)
    np.testing.assert_allclose(info.gradient_norm, np.linalg.norm(score), rtol=1e-9)
    np.testing.assert_allclose(after.log_p, [logistic(x) for x in after.z], rtol=1e-12)


def test_chains_find_what_proposals_do_not(key):
    """Started 60 of its standard deviations off, in 20 dimensions: proposals from q never come near p."""
    target = vk.make_target(lambda x: -0.5 * jnp.sum(jnp.square(x - 3.0)), 20)
    family = vk.families.MeanField(20)
    start = family.init(jax.random.key(0), scale=0.05)
    schedule = optax.cosine_decay_schedule(0.05, 1_500)

    def fit(kernel, key):
        algorithm = vk.algorithms.ScoreClimbing(family, optax.adam, schedule, num_samples=8, kernel=kernel)
        assert algorithm.evaluations(target) == (7 if kernel is None else 72)
        return family.dist(vk.optimize(key, target, algorithm, start, num_steps=1_500).params)

    one, other = jax.random.split(key)
    q = fit(vk.algorithms.HamiltonianMonteCarlo(), one)
    np.testing.assert_allclose(q.mean(), 3.0, atol=0.15)
    np.testing.assert_allclose(q.std(), 1.0, rtol=0.12)
    assert np.abs(np.asarray(fit(None, other).mean()) - 3.0).max() > 0.5


def test_kernels_that_are_refused(monkeypatch, key):
    with pytest.raises(TypeError, match=r"kernel: expected vk\.algorithms\.HamiltonianMonteCarlo or None, got 'hmc'"):
        vk.algorithms.ScoreClimbing(FAMILY, optax.adam, kernel="hmc")
    with pytest.raises(ValueError, match="num_integration_steps: expected at least 1, got 0"):
        vk.algorithms.HamiltonianMonteCarlo(num_integration_steps=0)
    monkeypatch.setitem(sys.modules, "blackjax", None)
    target = vk.make_target(logistic, 1)
    state = hamiltonian(2).init(FAMILY.init(jax.random.key(0)), target, jax.random.clone(key))
    with pytest.raises(ImportError, match="extra `mcmc`"):
        hamiltonian(2).step(state, target, key)
