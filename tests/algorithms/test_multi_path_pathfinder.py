"""Several paths: each is Pathfinder's, q is their mixture, its weights are right, and what failed is left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_targets import gaussian
from scipy import stats
from statistical import FALSE_ALARM, assert_mean

import vi_kit as vk
from vi_kit._weights import khat_threshold

SHARE, APART = 0.3, 6.0


def mixture_of_paths(dim, num_paths):
    return vk.families.Mixture(dim, num_paths, component=vk.families.FullRank)


def two_modes():
    """N(-6, I) with a share of 0.3 and N(6, diag(1, 4)) with the rest, normalized."""

    def log_density(x):
        low = jnp.log(SHARE) - 0.5 * jnp.sum((x + APART) ** 2)
        high = jnp.log(1 - SHARE) - 0.5 * jnp.sum((x - APART) ** 2 / jnp.array([1.0, 4.0])) - jnp.log(2.0)
        return jnp.logaddexp(low, high) - jnp.log(2 * jnp.pi)

    return vk.make_target(log_density, 2)


@pytest.mark.slow
def test_every_path_is_pathfinders_own(key):
    """From its own start with its own keys; starts lie within the radius, and all over it."""
    problem, family = gaussian(3, 5.0), mixture_of_paths(3, 64)
    algorithm = vk.algorithms.MultiPathPathfinder(family, num_samples=4, radius=3.0)
    init_key, step_key = jax.random.split(key)
    params = family.init(jax.random.key(0))
    state = algorithm.init(params, problem.target, init_key)
    away = state.paths.descent.position - params.components.mean
    assert np.all(np.abs(away) <= 3.0)
    assert stats.kstest(np.ravel(away), stats.uniform(-3, 6).cdf).pvalue > FALSE_ALARM
    after, info = jax.jit(lambda s, k: algorithm.step(s, problem.target, k))(state, jax.random.clone(step_key))
    path = vk.algorithms.Pathfinder(vk.families.FullRank(3), num_samples=4)
    one, one_info = jax.jit(lambda s, k: path.step(s, problem.target, k))(
        jax.tree.map(lambda leaf: leaf[5], state.paths), jax.random.split(step_key, 64)[5]
    )
    for a, b in zip(jax.tree.leaves(after.paths), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(a[5], b, rtol=1e-4, atol=1e-4)
    losses = -jax.vmap(problem.target.log_density)(state.paths.descent.position)
    np.testing.assert_allclose(losses[5], one_info.loss, rtol=1e-5)
    np.testing.assert_allclose(info.loss, np.min(losses), rtol=1e-5)  # it tells of the highest
    assert algorithm.evaluations(problem.target) == 64 * 5


def test_resampled_draws_have_the_moments_of_a_gaussian(key):
    problem, keys = gaussian(3, 5.0), jax.random.split(key, 2)
    algorithm = vk.algorithms.MultiPathPathfinder(mixture_of_paths(3, 4))
    posterior = vk.fit(keys[0], problem.target, algorithm, num_steps=25, progress=False)
    assert posterior.report.khat < khat_threshold(4_096)
    centered = np.asarray(posterior.resample(keys[1], 2_000)) - problem.mean
    # Draws are drawn again from 8,000, so some are equal: their errors are larger by a factor that this allows for.
    products = centered[:, :, None] * centered[:, None, :]
    assert_mean(centered[::2], np.zeros(3), effect=0.6)
    assert_mean(products[::2], problem.covariance, effect=2.0)


def test_both_modes_with_their_shares_where_one_path_has_one(key):
    """The weights have the mixture below: shares are the target's, not those of the paths that end at a mode."""
    target, keys = two_modes(), jax.random.split(key, 3)
    family = mixture_of_paths(2, 8)
    start = family.init(jax.random.key(0))
    means = jnp.where(jnp.arange(8)[:, None] < 6, -3.0, 3.0) * jnp.ones((8, 2))
    start = start._replace(components=start.components._replace(mean=means))
    algorithm = vk.algorithms.MultiPathPathfinder(family, radius=1.0)
    posterior = vk.fit(keys[0], target, algorithm, num_steps=30, start=start, progress=False)
    assert posterior.report.khat < khat_threshold(4_096)
    low = np.asarray(posterior.params.components.mean)[:, 0] < 0
    num = 2_000
    draws = np.asarray(posterior.resample(keys[1], num))
    count = np.sum(draws[:, 0] < 0)
    # Of draws by weights of 8,000 draws of q whose effective share is that of the report, besides those of a coin.
    variance = SHARE * (1 - SHARE) * (1 / num + 1 / (8_000 * posterior.report.ess / posterior.report.num_samples))
    bound = stats.norm.isf(FALSE_ALARM / 2) * np.sqrt(variance)
    assert abs(count / num - SHARE) < bound < 0.1
    assert low.mean() == 0.75  # negative control: the paths themselves have other shares
    single = vk.algorithms.MultiPathPathfinder(mixture_of_paths(2, 1), radius=10.0)
    one = vk.fit(keys[2], target, single, num_steps=30, progress=False)
    sides = np.asarray(one.sample(jax.random.key(0), 1_000))[:, 0] < 0
    assert sides.all() or not sides.any()


def test_a_path_that_is_not_finite_is_left_out(key):
    """And said; the others are as they would be without it."""
    target = vk.make_target(lambda x: jnp.where(x[0] > -50.0, 0.0, jnp.nan) - 0.5 * jnp.sum((x - 1.0) ** 2), 2)
    family = mixture_of_paths(2, 3)
    start = family.init(jax.random.key(0))
    means = start.components.mean.at[1].set(-100.0)
    start = start._replace(components=start.components._replace(mean=means))
    algorithm = vk.algorithms.MultiPathPathfinder(family, radius=0.0)
    fit = vk.optimize(key, target, algorithm, start, num_steps=15)
    assert fit.state.algorithm_state.found.tolist() == [True, False, True]
    weights = np.exp(family.dist(fit.params).log_weights)
    np.testing.assert_allclose(weights, [0.5, 0, 0.5], atol=1e-7)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fit.params))
    np.testing.assert_allclose(family.dist(fit.params).mean(), 1, atol=0.1)
    assert bool(fit.finite)  # steps of the others were


def test_refusals():
    with pytest.raises(TypeError, match=r"family: expected vk\.families\.Mixture\(dim, num_paths, component="):
        vk.algorithms.MultiPathPathfinder(vk.families.Mixture(2))
    with pytest.raises(TypeError, match=r"family: expected vk\.families\.Mixture"):
        vk.algorithms.MultiPathPathfinder(vk.families.FullRank(2))
    with pytest.raises(ValueError, match="num_samples: expected at least 1, got 0"):
        vk.algorithms.MultiPathPathfinder(mixture_of_paths(2, 2), 0)
