"""Batch and match: the equation it solves, Gaussians in few evaluations, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vi_kit as vk
from vi_kit.algorithms._batch_and_match import _matched


def gaussian(dim, condition, seed=0):
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    values, mean = np.geomspace(1, condition, dim), rng.normal(size=dim)
    precision = jnp.asarray(rotation / values @ rotation.T, jnp.float32)
    center = jnp.asarray(mean, jnp.float32)
    target = vk.make_target(lambda x: -0.5 * (x - center) @ precision @ (x - center), dim)
    return target, mean, rotation * values @ rotation.T


def kl_from(q, mean, covariance):
    """KL(q‖p) in double precision."""
    own, shift = np.asarray(q.covariance(), np.float64), np.asarray(q.mean(), np.float64) - mean
    logs = np.linalg.slogdet(covariance)[1] - np.linalg.slogdet(own)[1]
    return 0.5 * (
        np.trace(np.linalg.solve(covariance, own)) - len(mean) + logs + shift @ np.linalg.solve(covariance, shift)
    )


def _outer(rows):
    return rows.T @ rows / len(rows)


@pytest.mark.usefixtures("x64")
def test_a_step_solves_the_equation_of_the_paper(key):
    """Σ′ U Σ′ + Σ′ = V, and the mean of equation 12."""
    parts = jax.random.split(key, 4)
    lower = jnp.tril(jax.random.normal(parts[0], (3, 3))) + 3 * jnp.eye(3)
    mean, z, scores = (jax.random.normal(k, s) for k, s in zip(parts[1:], ((3,), (5, 3), (5, 3)), strict=True))
    strength = jnp.float64(7.0)
    moved, factor = _matched(mean, lower, z, scores, strength)
    share, center, slope = strength / (1 + strength), z.mean(axis=0), scores.mean(axis=0)
    spread, slopes = _outer(z - center[None]), _outer(scores - slope[None])
    u = strength * slopes + share * jnp.outer(slope, slope)
    v = lower @ lower.T + strength * spread + share * jnp.outer(mean - center, mean - center)
    covariance = factor @ factor.T
    np.testing.assert_allclose(covariance @ u @ covariance + covariance, v, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(moved, mean / (1 + strength) + share * (covariance @ slope + center), rtol=1e-12)
    assert np.all(np.diagonal(factor) > 0)
    assert np.all(np.triu(factor, 1) == 0)


@pytest.mark.parametrize(("dim", "condition"), [(2, 10.0), pytest.param(10, 1e4, marks=pytest.mark.slow)])
def test_gaussians_in_few_evaluations(dim, condition, key):
    target, mean, covariance = gaussian(dim, condition)
    algorithm = vk.algorithms.BatchAndMatch(vk.families.FullRank(dim))
    start = algorithm.family.init(jax.random.key(0))
    fit = vk.optimize(key, target, algorithm, start, num_steps=50)  # 400 evaluations
    assert bool(fit.finite)
    assert kl_from(algorithm.family.dist(fit.params), mean, covariance) < 1e-3
    assert kl_from(algorithm.family.dist(start), mean, covariance) > 0.1


@pytest.mark.slow
def test_a_tenth_of_the_evaluations_of_adam(key):
    """At dim 100: 1,600 evaluations reach what Adam on the ELBO has not reached after 16,000."""
    target, mean, covariance = gaussian(100, 100.0)
    family = vk.families.FullRank(100)
    start, (own, key) = family.init(jax.random.key(0)), jax.random.split(key)
    matched = vk.optimize(own, target, vk.algorithms.BatchAndMatch(family, 16), start, num_steps=100)
    found = kl_from(family.dist(matched.params), mean, covariance)
    objective = vk.objectives.ReverseKL(family, num_samples=16)
    for rate in (0.01, 0.03, 0.1):
        algorithm = vk.algorithms.GradientDescent(
            objective, optax.adam, learning_rate=optax.cosine_decay_schedule(rate, 1000)
        )
        fit = vk.optimize(jax.random.clone(key), target, algorithm, start, num_steps=1000)
        assert found < kl_from(family.dist(fit.params), mean, covariance)
    assert found < 1e-2


def test_a_step_that_is_not_finite_changes_nothing(key):
    target = vk.make_target(lambda x: jnp.where(x[0] > 1e9, 0.0, jnp.nan) * jnp.sum(x), 2)
    algorithm = vk.algorithms.BatchAndMatch(vk.families.FullRank(2))
    start = algorithm.family.init(jax.random.key(0))
    fit = vk.optimize(key, target, algorithm, start, num_steps=3)
    assert not fit.finite
    jax.tree.map(np.testing.assert_array_equal, fit.params, start)


def test_a_resumed_run_is_the_run_and_another_strength_compiles_nothing(key, compiles):
    target, *_ = gaussian(2, 10.0)
    family = vk.families.FullRank(2)
    start = family.init(jax.random.key(0))

    def run(strength, steps, state=None):
        algorithm = vk.algorithms.BatchAndMatch(family, regularization=strength)
        return vk.optimize(jax.random.clone(key), target, algorithm, start, num_steps=steps, state=state)

    whole = run(5.0, 6)
    again = run(5.0, 3, run(5.0, 3).state)
    jax.tree.map(np.testing.assert_array_equal, whole.params, again.params)
    before = compiles()
    run(6.0, 6)
    assert compiles() == before


def test_refusals():
    with pytest.raises(TypeError, match=r"family: expected vk\.families\.FullRank or vk\.families\.LowRank"):
        vk.algorithms.BatchAndMatch(vk.families.MeanField(2))
    with pytest.raises(ValueError, match="batch_size: expected at least 2, got 1"):
        vk.algorithms.BatchAndMatch(vk.families.FullRank(2), 1)
    with pytest.raises(ValueError, match="batch_size: expected at least 2, got 1"):
        vk.algorithms.BatchAndMatch(vk.families.LowRank(2, 1), 1)
