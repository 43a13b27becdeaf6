"""Gaussian score matching: the constraint and the formulas of the paper, the fixed point, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_targets import gaussian

import vi_kit as vk
from vi_kit.algorithms._gaussian_score_matching import _match_one, _matched


def paper(mean, covariance, z, score):
    """Algorithm 1 of the paper: the new mean and covariance for one draw."""
    offset = mean - z
    rho = 0.5 * (np.sqrt(1 + 4 * (score @ covariance @ score + (offset @ score) ** 2)) - 1)
    step = covariance @ score - offset
    moved = mean + (step - offset * (score @ step) / (1 + rho + offset @ score)) / (1 + rho)
    return moved, covariance + np.outer(offset, offset) - np.outer(moved - z, moved - z)


@pytest.mark.usefixtures("x64")
def test_a_step_is_that_of_the_paper(key):
    rng = np.random.default_rng(0)
    lower = np.tril(rng.normal(size=(3, 3))) + 3 * np.eye(3)
    mean, z, scores = rng.normal(size=3), rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    moved, factor = _matched(*map(jnp.asarray, (mean, lower, z, scores)))
    expected = [paper(mean, lower @ lower.T, a, b) for a, b in zip(z, scores, strict=True)]
    np.testing.assert_allclose(moved, np.mean([m for m, _ in expected], axis=0), rtol=1e-10)
    np.testing.assert_allclose(factor @ factor.T, np.mean([c for _, c in expected], axis=0), rtol=1e-10)
    assert np.all(np.diagonal(factor) > 0)
    assert np.all(np.triu(factor, 1) == 0)


@pytest.mark.usefixtures("x64")
def test_the_scores_agree_at_the_draw():
    offset, score = jnp.array([0.5, -2.0]), jnp.array([3.0, 0.2])
    shift, half = _match_one(offset, score)
    np.testing.assert_allclose(np.linalg.solve(half @ half.T, shift), score, rtol=1e-10)
    unchanged, half = _match_one(offset, jnp.zeros(2))  # a draw at the mode: the mean goes there
    np.testing.assert_allclose(unchanged, 0)
    np.testing.assert_allclose(half @ half.T, np.eye(2) + np.outer(offset, offset), rtol=1e-10)


def test_a_gaussian_target_is_a_fixed_point(key):
    problem = gaussian(4, 100.0)
    algorithm = vk.algorithms.GaussianScoreMatching(vk.families.FullRank(4))
    fit = vk.optimize(key, problem.target, algorithm, problem.params(algorithm.family), num_steps=10)
    assert abs(problem.kl(algorithm.family, fit.params)) < 1e-4


@pytest.mark.parametrize(
    ("dim", "condition", "steps"), [(2, 10.0, 100), pytest.param(10, 1e4, 400, marks=pytest.mark.slow)]
)
def test_gaussians(dim, condition, steps, key):
    problem = gaussian(dim, condition)
    algorithm = vk.algorithms.GaussianScoreMatching(vk.families.FullRank(dim))
    fit = vk.optimize(key, problem.target, algorithm, algorithm.family.init(jax.random.key(0)), num_steps=steps)
    assert bool(fit.finite)
    assert problem.kl(algorithm.family, fit.params) < 1e-3


def test_refusals():
    with pytest.raises(TypeError, match=r"family: expected vk\.families\.FullRank, got MeanField"):
        vk.algorithms.GaussianScoreMatching(vk.families.MeanField(2))
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        vk.algorithms.GaussianScoreMatching(vk.families.FullRank(2), 0)
