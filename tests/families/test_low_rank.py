"""The low-rank family: its density and moments, in memory that is linear in the dimension."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import vi_kit as vk

COUPLING = np.array([[0.5, -1.0], [2.0, 0.3], [0.0, 0.7], [-1.5, 0.2]])
SCALE = np.array([0.5, 1.0, 2.0, 0.1])
MEAN = np.array([1.0, -1.0, 0.0, 3.0])
FAMILY = vk.families.LowRank(4, 2)


def member(dtype=jnp.float32):
    return vk.families.LowRankParams(*(jnp.asarray(x, dtype) for x in (COUPLING, np.log(SCALE), MEAN)))


def covariance():
    return np.diag(SCALE) @ (np.eye(4) + COUPLING @ COUPLING.T) @ np.diag(SCALE)


def test_density_and_moments_are_those_of_the_covariance(key):
    q = FAMILY.dist(member())
    z = MEAN + np.asarray(2 * jax.random.normal(key, (7, 4)), np.float64)
    oracle = stats.multivariate_normal(MEAN, covariance())
    np.testing.assert_allclose(q.covariance(), covariance(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(q.std(), np.sqrt(np.diag(covariance())), rtol=1e-6)
    np.testing.assert_allclose(q.entropy(), oracle.entropy(), rtol=1e-6)
    np.testing.assert_allclose(q.log_prob(jnp.asarray(z, jnp.float32)), oracle.logpdf(z), rtol=1e-4)


@pytest.mark.usefixtures("x64")
def test_large_couplings_lose_no_digits(key):
    """I + C Cᵀ with eigenvalues from 1 to 1e12: the density by a difference of squares would be noise."""
    coupling = jnp.asarray(COUPLING) * 1e6
    q = FAMILY.dist(vk.families.LowRankParams(coupling, jnp.zeros(4), jnp.zeros(4)))
    z, log_q = q.sample_and_log_prob(seed=key)
    vectors, roots, _ = np.linalg.svd(np.asarray(coupling))
    values = np.array([*roots, 0.0, 0.0]) ** 2
    parts = (vectors.T @ np.asarray(z)) ** 2 / (1 + values)
    expected = -0.5 * np.sum(parts) - 0.5 * np.sum(np.log1p(values)) - 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(log_q, expected, rtol=1e-6)


def test_begins_as_mean_field(key):
    """KL between the first member and the mean-field one is below 1e-8 a direction."""
    mean, scale = jnp.asarray(MEAN, jnp.float32), jnp.asarray(SCALE, jnp.float32)
    q = FAMILY.dist(FAMILY.init(key, mean=mean, scale=scale))
    value = vk.kl_divergence(q, distrax.MultivariateNormalDiag(mean, scale))
    assert 0 <= value < 2 * 1e-8


def test_kl_divergence_reads_it():
    q, dense = FAMILY.dist(member()), distrax.MultivariateNormalTri(jnp.zeros(4), jnp.eye(4))
    determinant = np.linalg.slogdet(covariance())[1]
    expected = 0.5 * (np.trace(covariance()) + MEAN @ MEAN - 4 - determinant)
    np.testing.assert_allclose(vk.kl_divergence(q, dense), expected, rtol=1e-5)


@pytest.mark.slow
def test_finds_a_covariance_of_its_own_rank(key):
    """Reverse KL of a target that a member equals falls to 0."""
    truth = distrax.MultivariateNormalFullCovariance(
        jnp.asarray(MEAN, jnp.float32), jnp.asarray(covariance(), jnp.float32)
    )
    target = vk.make_target(truth.log_prob, 4)
    algorithm = vk.algorithms.GradientDescent(
        vk.objectives.ReverseKL(FAMILY), optax.adam, learning_rate=optax.cosine_decay_schedule(0.05, 3000)
    )
    fit = vk.optimize(key, target, algorithm, FAMILY.init(jax.random.key(1)), num_steps=3000)
    assert vk.kl_divergence(FAMILY.dist(fit.params), truth) < 1e-3


def test_memory_of_a_step_is_linear_in_the_dimension():
    """A step at dim 100,000 and rank 10 needs some copies of the parameters, where a dim × dim array has 40 GB."""

    def memory(dim):
        family = vk.families.LowRank(dim, 10)
        target = vk.make_target(lambda x: -0.5 * jnp.sum(x * x), dim)
        algorithm = vk.algorithms.GradientDescent(vk.objectives.ReverseKL(family, num_samples=4), optax.adam)
        params = jax.eval_shape(family.init, jax.random.key(0))

        def step(params, key):
            state = algorithm.init(params, target, key)
            after = algorithm.step(state, target, key)[0].params
            return after, family.dist(after).std()

        lowered = jax.jit(step).lower(params, jax.eval_shape(lambda: jax.random.key(0)))
        return lowered.compile().memory_analysis().temp_size_in_bytes

    small, large = memory(1_000), memory(100_000)
    assert large < 130 * small
    assert large < 40 * 100_000 * 10 * 4


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="rank: expected at least 1, got 0"):
        vk.families.LowRank(3, 0)
    with pytest.raises(ValueError, match="dim: expected a positive int"):
        vk.families.LowRank(0)
