"""Moment matching: the moments of given draws exactly, those of a target by weights, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_targets import gaussian

import vi_kit as vk

FULL, MEAN = vk.families.FullRank(3), vk.families.MeanField(3)


def run(key, target, objective, num_steps, decay=None, **start):
    algorithm = vk.algorithms.MomentMatching(objective, decay)
    first = algorithm.family.init(jax.random.key(0), **start)
    return vk.optimize(key, target, algorithm, first, num_steps=num_steps)


def collinear_draws(num=2_000):
    """Draws in their data's own units, with a correlation of 0.9999."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(num, 3))
    rows[:, 1] = rows[:, 0] + 0.01 * rows[:, 1]
    return jnp.asarray(rows * [20.0, 1.0, 1e-3] + [70.0, -1.0, 2e-3], jnp.float32)


@pytest.mark.parametrize("weighted", [False, True])
def test_given_draws_are_matched(weighted, key):
    draws = collinear_draws()
    log_weights = jnp.asarray(np.random.default_rng(1).normal(size=len(draws)), jnp.float32) if weighted else None
    target = vk.targets.from_draws(draws, log_weights=log_weights)
    fit = run(key, target, vk.objectives.ForwardKL(FULL), 3)
    weights = np.ones(len(draws)) if log_weights is None else np.exp(np.asarray(log_weights, np.float64))
    mean = np.average(np.asarray(draws, np.float64), axis=0, weights=weights)
    covariance = np.cov(np.asarray(draws, np.float64).T, aweights=weights, ddof=0)
    q = FULL.dist(fit.params)
    sds = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((np.asarray(q.mean()) - mean) / sds, 0, atol=1e-5)
    np.testing.assert_allclose(np.asarray(q.std()) / sds, 1, rtol=1e-5)
    # In the coordinates of the draws the covariance of q is the identity, narrow directions included.
    inner = np.linalg.solve(np.linalg.cholesky(covariance), np.asarray(q.scale_tri, np.float64))
    np.testing.assert_allclose(inner @ inner.T, np.eye(3), atol=1e-3)


def test_mean_field_takes_the_deviations(key):
    draws = collinear_draws()
    fit = run(key, vk.targets.from_draws(draws), vk.objectives.ForwardKL(MEAN), 3)
    q, expected = MEAN.dist(fit.params), np.asarray(draws, np.float64)
    np.testing.assert_allclose(np.asarray(q.mean()), expected.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(np.asarray(q.std()), expected.std(axis=0), rtol=1e-5)


@pytest.mark.parametrize("source", [vk.objectives.self_normalized, vk.objectives.pareto_smoothed])
def test_a_gaussian_is_found_from_its_density(source, key):
    problem = gaussian(3, 4.0)
    fit = run(key, problem.target, vk.objectives.ForwardKL(FULL, source, 1_024), 30, scale=2.0)
    assert problem.kl(FULL, fit.params) < 1e-3
    few = run(jax.random.clone(key), problem.target, vk.objectives.ForwardKL(FULL, source, 64), 1, scale=2.0)
    assert problem.kl(FULL, few.params) > 1e-2


def test_later_steps_average(key):
    """One step of length 1 / (1 + 1 / decay), by the formula."""
    draws = collinear_draws(50) * jnp.array([[0.1, 1.0, 1e3]])
    first, second = draws[:25], draws[25:]
    objective = vk.objectives.ForwardKL(FULL, vk.objectives.given(first))
    target = vk.targets.from_draws(first)
    one = run(key, target, objective, 1, decay=3.0)
    algorithm = vk.algorithms.MomentMatching(vk.objectives.ForwardKL(FULL, vk.objectives.given(second)), 3.0)
    state, _ = algorithm.step(one.state.algorithm_state, target, jax.random.key(3))
    q, rate = FULL.dist(state.params), 1 / (1 + 1 / 3)
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    apart = b.mean(axis=0) - a.mean(axis=0)
    np.testing.assert_allclose(np.asarray(q.mean()), a.mean(axis=0) + rate * apart, rtol=1e-4)
    covariance = (
        (1 - rate) * np.cov(a.T, ddof=0) + rate * np.cov(b.T, ddof=0) + rate * (1 - rate) * np.outer(apart, apart)
    )
    np.testing.assert_allclose(np.asarray(q.covariance()), covariance, rtol=1e-3)


def test_draws_without_variance_change_nothing(key):
    draws = jnp.ones((10, 3)) * jnp.arange(10.0)[:, None]
    fit = run(key, vk.targets.from_draws(draws), vk.objectives.ForwardKL(FULL), 1)
    assert not bool(fit.finite) or bool(jnp.all(FULL.dist(fit.params).std() > 0))
    assert bool(jnp.all(jnp.isfinite(FULL.dist(fit.params).scale_tri)))


def test_refusals():
    with pytest.raises(TypeError, match=r"objective: expected vk\.objectives\.ForwardKL"):
        vk.algorithms.MomentMatching(vk.objectives.ReverseKL(FULL))
    with pytest.raises(TypeError, match=r"FullRank or vk\.families\.MeanField"):
        vk.algorithms.MomentMatching(vk.objectives.ForwardKL(vk.families.Flow(3)))
    with pytest.raises(ValueError, match="decay"):
        vk.algorithms.MomentMatching(vk.objectives.ForwardKL(FULL), 0.0)
