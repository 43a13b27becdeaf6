"""Low-rank batch and match: the step is the full-rank one, the patch its factor analysis, memory linear."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vi_kit as vk
from vi_kit import _distributions as distributions
from vi_kit.algorithms._batch_and_match import _matched
from vi_kit.algorithms._batch_and_match_low_rank import Factors, best_of_equal_diagonal, improve, patch, reduce


def _log_density(x, data):
    return distributions.LowRankNormal(*data).log_prob(x)


def low_rank_target(dim, rank, strength=3.0, seed=0):
    """A Gaussian of this rank with unequal scales, and mean, scales and couplings."""
    rng = np.random.default_rng(seed)
    parts = 3 * rng.normal(size=dim), np.exp(rng.normal(size=dim)), strength * rng.normal(size=(dim, rank))
    data = tuple(jnp.asarray(part) for part in parts)
    return vk.make_target(_log_density, dim, data=data), data


def kl_from(family, params, data):
    """KL(q‖p) in double precision, by dense matrices."""
    q, p = family.dist(params), distributions.LowRankNormal(*data)
    own, covariance = np.asarray(q.covariance(), np.float64), np.asarray(p.covariance(), np.float64)
    shift = np.asarray(q.mean() - p.mean(), np.float64)
    logs = np.linalg.slogdet(covariance)[1] - np.linalg.slogdet(own)[1]
    whole = np.linalg.solve(covariance, own + np.outer(shift, shift))
    return 0.5 * (np.trace(whole) - len(shift) + logs)


def member(family, data):
    return family.init(jax.random.key(0))._replace(mean=data[0], log_scale=jnp.log(data[1]), coupling=data[2])


def quartic(x):
    return -0.25 * jnp.sum((x - 0.5) ** 4) + x[0] * x[1]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("dim", "batch_size"), [(5, 4), (14, 3)])  # fewer and more dimensions than directions
def test_the_step_before_the_patch_is_the_full_rank_one(dim, batch_size, key):
    data = low_rank_target(dim, 2, strength=1.0)[1]
    q, (draw_key, score_key) = distributions.LowRankNormal(*data), jax.random.split(key)
    z, scores = q.sample(seed=draw_key, sample_shape=batch_size), jax.random.normal(score_key, (batch_size, dim))
    strength = jnp.float64(7.0)
    batch = reduce(q, z, scores)
    shift, factor = _matched(jnp.zeros_like(batch.y[0]), batch.lower, batch.y, batch.scores, strength)
    inside = batch.basis @ factor
    covariance = jnp.eye(dim) - batch.basis @ batch.basis.T + inside @ inside.T
    mean, lower = _matched(q.loc, jnp.linalg.cholesky(q.covariance()), z, scores, strength)
    scales = q.scale_diag
    np.testing.assert_allclose(scales[:, None] * covariance * scales[None], lower @ lower.T, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(q.loc + scales * (batch.basis @ shift), mean, rtol=1e-8, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_a_step_loses_nothing_where_the_rank_represents_everything(key):
    """All but one direction of correlation: mean and covariance are those of the full-rank step on the same draws."""
    family = vk.families.LowRank(5, 4)
    algorithm = vk.algorithms.BatchAndMatch(family, 3)
    params = member(family, low_rank_target(5, 4, strength=1.0)[1])
    target = vk.make_target(quartic, 5)
    q, draw_keys = family.dist(params), jax.random.split(jax.random.clone(key), 3)
    z = jax.vmap(lambda k: distributions.sample(q, k))(draw_keys)
    state = algorithm.init(params, target, jax.random.key(0))
    found = family.dist(algorithm.step(state, target, key)[0].params)
    mean, lower = _matched(
        q.loc, jnp.linalg.cholesky(q.covariance()), z, jax.vmap(jax.grad(quartic))(z), state.regularization
    )
    np.testing.assert_allclose(found.mean(), mean, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.covariance(), lower @ lower.T, rtol=1e-7, atol=1e-7)
    assert np.max(np.abs(found.covariance() - q.covariance())) > 0.1  # it was a step


def _kl_to_factors(covariance, factors):
    model = jnp.diag(factors.diagonal) + factors.loadings @ factors.loadings.T
    whole = jnp.linalg.solve(model, covariance)
    return 0.5 * (jnp.trace(whole) - len(covariance) - jnp.linalg.slogdet(whole)[1])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("width", "columns"), [(8, 38), (5, 5)])
def test_every_step_of_the_patch_lowers_kl_and_its_end_is_stationary(width, columns):
    """A covariance of more directions than the rank, with and without a part that is the identity."""
    rng = np.random.default_rng(4)  # the best has all of its diagonal above 0
    basis = jnp.asarray(np.linalg.qr(rng.normal(size=(8, width)))[0])
    draws = rng.normal(size=(width, columns))
    factor = jnp.asarray(np.linalg.cholesky(draws @ draws.T * width / columns + 0.2 * np.eye(width)))
    inside = basis @ factor
    covariance = jnp.eye(8) - basis @ basis.T + inside @ inside.T
    values, factors = [], [best_of_equal_diagonal(basis, factor, 2)]
    step = jax.jit(lambda old: improve(old, basis, factor))
    for _ in range(40):
        values.append(float(_kl_to_factors(covariance, factors[-1])))
        factors.append(step(factors[-1]))
    assert np.all(np.diff(values) < 1e-12)
    assert values[0] - values[-1] > 0.04
    # Marginal variances are kept by every step.
    sums = factors[1].diagonal + jnp.sum(factors[1].loadings ** 2, axis=1)
    np.testing.assert_allclose(sums, jnp.diagonal(covariance), rtol=1e-9)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), patch(basis, factor, 2), factors[10]
    )
    last = jax.lax.fori_loop(0, 20_000, lambda _, old: improve(old, basis, factor), factors[-1])
    slope = jax.grad(lambda f: _kl_to_factors(covariance, f))
    assert max(float(jnp.max(jnp.abs(leaf))) for leaf in slope(last)) < 1e-6
    assert max(float(jnp.max(jnp.abs(leaf))) for leaf in slope(factors[0])) > 1e-2


@pytest.mark.usefixtures("x64")
def test_the_best_of_equal_diagonals_is_stationary_in_the_loadings_and_their_level():
    rng = np.random.default_rng(5)
    basis = jnp.asarray(np.linalg.qr(rng.normal(size=(9, 4)))[0])
    factor = jnp.diag(jnp.asarray([3.0, 2.0, 0.5, 1.5]))
    inside = basis @ factor
    covariance = jnp.eye(9) - basis @ basis.T + inside @ inside.T
    found = best_of_equal_diagonal(basis, factor, 3)

    def kl(level, loadings):
        return _kl_to_factors(covariance, Factors(jnp.full((9,), level), loadings))

    for slope in jax.grad(kl, argnums=(0, 1))(found.diagonal[0], found.loadings):
        np.testing.assert_allclose(slope, 0, atol=1e-9)
    assert best_of_equal_diagonal(basis, factor, 5).loadings.shape == (9, 5)
    # The axis shorter than the rest is left to the diagonal, and a column unused.
    assert int(jnp.sum(jnp.any(best_of_equal_diagonal(basis, factor, 4).loadings != 0, axis=0))) == 3


def test_a_target_of_the_family_is_a_fixed_point(key):
    target, data = low_rank_target(10, 2)
    family = vk.families.LowRank(10, 2)
    fit = vk.optimize(key, target, vk.algorithms.BatchAndMatch(family), member(family, data), num_steps=20)
    assert bool(fit.finite)
    assert kl_from(family, fit.params, data) < 1e-6


@pytest.mark.parametrize(
    ("dim", "rank", "batch_size", "num_steps"),
    [(10, 2, 8, 30), pytest.param(200, 3, 16, 240, marks=pytest.mark.slow)],
)
def test_targets_of_the_family_are_found(dim, rank, batch_size, num_steps, key):
    target, data = low_rank_target(dim, rank)
    algorithm = vk.algorithms.BatchAndMatch(vk.families.LowRank(dim, rank), batch_size)
    start = algorithm.family.init(jax.random.key(0))
    fit = vk.optimize(key, target, algorithm, start, num_steps=num_steps)
    assert bool(fit.finite)
    assert kl_from(algorithm.family, fit.params, data) < 1e-3
    assert kl_from(algorithm.family, start, data) > 100


def test_more_correlations_than_the_rank(key):
    """Scores that no member matches: near the covariance of least KL, as far as draws and a falling λ take it."""
    target, data = low_rank_target(8, 3, strength=1.0)
    family = vk.families.LowRank(8, 2)
    algorithm = vk.algorithms.BatchAndMatch(family, 16)
    start = family.init(jax.random.key(0))
    fit = vk.optimize(key, target, algorithm, start, num_steps=200)
    assert bool(fit.finite)
    best = family.init_from(jax.random.key(0), distributions.LowRankNormal(*data))
    assert kl_from(family, fit.params, data) < min(kl_from(family, best, data), 0.1 * kl_from(family, start, data))


def test_memory_is_linear_in_the_dimension():
    """Numbers a coordinate for what a step works with: a matrix of dim × dim would be 20,000."""
    dim = 20_000
    algorithm = vk.algorithms.BatchAndMatch(vk.families.LowRank(dim, 10))
    target = vk.make_target(lambda x: -0.5 * jnp.sum(jnp.square(x)), dim)
    key = jax.random.key(0)
    state = algorithm.init(algorithm.family.init(jax.random.clone(key)), target, key)
    compiled = jax.jit(lambda s, k: algorithm.step(s, target, k)).lower(state, jax.random.key(1)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * 300 * dim
