"""The Laplace approximation: exact for Gaussians in two steps, textbook modes, saddles, and as a start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_targets import gaussian

import vi_kit as vk

FULL = vk.families.FullRank(2)


def fit(target, family, key, num_steps=20, **start):
    algorithm = vk.algorithms.Laplace(family)
    found = vk.optimize(key, target, algorithm, family.init(jax.random.key(0), **start), num_steps=num_steps)
    return family.dist(found.params), found


def test_a_gaussian_takes_two_steps(key):
    problem = gaussian(4, 1e3)
    family = vk.families.FullRank(4)
    _, found = fit(problem.target, family, key, 2)
    assert abs(problem.kl(family, found.params)) < 1e-5
    _, more = fit(problem.target, family, jax.random.clone(key), 6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), found.params, more.params)


def test_mean_field_takes_the_diagonal_of_the_precision(key):
    problem = gaussian(4, 10.0)
    q, _ = fit(problem.target, vk.families.MeanField(4), key, 2)
    np.testing.assert_allclose(q.std(), np.diag(np.linalg.inv(problem.covariance)) ** -0.5, rtol=1e-4)
    np.testing.assert_allclose(q.mean(), problem.mean, atol=1e-3)


@pytest.mark.usefixtures("x64")
def test_a_mode_from_afar(key):
    """Log of a gamma variable: log p = 3 y − 2 eʸ, mode log(3/2), variance 1/3; and steps that would overshoot."""
    target = vk.make_target(lambda y: jnp.sum(3 * y - 2 * jnp.exp(y)), 2)
    q, found = fit(target, FULL, key, 40, mean=jnp.array([-9.0, 5.0]))
    np.testing.assert_allclose(q.mean(), np.log(1.5), rtol=1e-8)
    np.testing.assert_allclose(q.covariance(), np.eye(2) / 3, atol=1e-8)
    assert bool(found.state.algorithm_state.concave)


def test_steps_climb_where_the_curvature_is_not_that_of_a_mode(key):
    """Two modes with a saddle between them: from beside it uphill to the near one."""
    target = vk.make_target(lambda x: jnp.logaddexp(-0.5 * jnp.sum((x - 3) ** 2), -0.5 * jnp.sum((x + 3) ** 2)), 2)
    _, first = fit(target, FULL, key, 1, mean=jnp.array([0.1, 0.2]))
    assert not bool(first.state.algorithm_state.concave)
    q, found = fit(target, FULL, jax.random.clone(key), 30, mean=jnp.array([0.1, 0.2]))
    np.testing.assert_allclose(q.mean(), 3, atol=1e-3)
    np.testing.assert_allclose(q.std(), 1, atol=1e-3)
    assert bool(found.state.algorithm_state.concave)


def test_it_is_a_start_for_another_family(key):
    problem = gaussian(2, 10.0)
    q, _ = fit(problem.target, FULL, key, 2)
    family = vk.families.LowRank(2, 1)
    start = family.init(jax.random.key(0), mean=q.mean(), scale=q.std())
    np.testing.assert_allclose(family.dist(start).mean(), problem.mean, atol=1e-3)


def test_refusals():
    with pytest.raises(TypeError, match=r"family: expected vk\.families\.FullRank or vk\.families\.MeanField"):
        vk.algorithms.Laplace(vk.families.LowRank(2, 1))
