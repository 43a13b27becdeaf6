"""Forward KL: the cross-entropy under draws of p, from every source of draws, and its optimum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_problem import forward_kl, gaussian_target, start, target_entropy
from registry import DIM, FAMILIES, GAUSSIANS, LOCATION_SCALE
from scipy import stats
from statistical import assert_mean, expect_rejection

import vi_kit as vk
from vi_kit._distributions import TriangularNormal
from vi_kit.objectives import ForwardKL, exact, given, self_normalized

FULL_RANK = vk.families.FullRank(DIM)
RNG = np.random.default_rng(0)
DRAWS = RNG.normal(size=(40, DIM)) @ np.array([[1.0, 0.3], [0.0, 2.0]]) + 1.0
LOG_WEIGHTS = DRAWS[:, 0] + 100.0  # up to a constant


def draws_of(objective, params, target, key, num):
    evaluate = jax.vmap(jax.value_and_grad(objective), (None, None, 0))
    return jax.jit(evaluate)(params, target, jax.random.split(key, num))


@pytest.mark.parametrize("name", GAUSSIANS)
def test_exact_draws_give_the_kl_and_its_gradient(name, key):
    family = FAMILIES[name].family
    params = start(family)
    values, gradients = draws_of(ForwardKL(family, exact, num_samples=4), params, gaussian_target(), key, 5_000)
    kl, kl_gradient = jax.value_and_grad(lambda p: forward_kl(family, p))(params)
    assert_mean(values - target_entropy(), kl, effect=0.2)
    assert_mean(gradients, kl_gradient, effect=0.5)
    expect_rejection(lambda: assert_mean(values, kl))


def test_self_normalized_weights_give_the_same_up_to_their_bias(key):
    """With 4000 draws a call the bias, about 1/n, is far below what 100 calls can see."""
    params = FULL_RANK.init(jax.random.key(0), mean=jnp.array([1.2, 0.0]), scale=2.0)
    values, gradients = draws_of(ForwardKL(FULL_RANK, self_normalized, 4_000), params, gaussian_target(), key, 100)
    kl, kl_gradient = jax.value_and_grad(lambda p: forward_kl(FULL_RANK, p))(params)
    assert_mean(values - target_entropy(), kl, effect=0.05)
    assert_mean(gradients, kl_gradient, effect=0.05)
    unweighted = jax.grad(lambda p: -jnp.mean(jax.vmap(FULL_RANK.dist(p).log_prob)(jnp.asarray(DRAWS, jnp.float32))))
    unweighted = unweighted(params)
    expect_rejection(lambda: assert_mean(gradients, unweighted))


def test_self_normalized_weights_carry_no_gradient(key):
    """Were the weights or the draws differentiated, the gradient would be another."""
    params = start(FULL_RANK)
    objective = ForwardKL(FULL_RANK, self_normalized, 16)
    z, log_weights = self_normalized(FULL_RANK, params, gaussian_target(), jax.random.clone(key), 16)

    def cross_entropy(p):
        return -jnp.sum(jax.nn.softmax(log_weights) * jax.vmap(FULL_RANK.dist(p).log_prob)(z))

    by_hand = jax.jit(jax.grad(cross_entropy))(params)
    found = jax.jit(jax.grad(objective))(params, gaussian_target(), key)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(by_hand), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("log_weights", [None, LOG_WEIGHTS], ids=["unweighted", "weighted"])
def test_given_draws_are_a_weighted_sum(log_weights, key):
    params = start(FULL_RANK)
    q = FULL_RANK.dist(params)
    weights = np.ones(40) / 40 if log_weights is None else np.exp(log_weights - 100) / np.exp(log_weights - 100).sum()
    expected = -weights @ stats.multivariate_normal.logpdf(DRAWS, q.mean(), q.covariance())
    value = ForwardKL(FULL_RANK, given(DRAWS, log_weights))(params, gaussian_target(), key)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("log_weights", [None, LOG_WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("name", LOCATION_SCALE)
def test_the_optimum_has_the_moments_of_the_draws(name, log_weights, key):
    """A Gaussian's forward KL is stationary at the (weighted) mean and covariance, and only there."""
    family = FAMILIES[name].family
    weights = None if log_weights is None else np.exp(log_weights - 100)
    mean, covariance = np.average(DRAWS, axis=0, weights=weights), np.cov(DRAWS.T, aweights=weights, ddof=0)
    moments = TriangularNormal(jnp.asarray(mean, jnp.float32), jnp.asarray(np.linalg.cholesky(covariance), jnp.float32))
    params = family.init_from(jax.random.key(0), moments)
    objective = ForwardKL(family, given(DRAWS, log_weights))
    find = jax.jit(jax.grad(objective))
    gradient = find(params, gaussian_target(), jax.random.clone(key))
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_allclose(leaf, 0.0, atol=1e-5)
    moved = find(params._replace(mean=params.mean + 0.01), gaussian_target(), key)
    assert np.abs(moved.mean).max() > 1e-3


def test_draws_are_taken_to_unconstrained_space(key):
    """Given in the user's own space: log-normal draws are normal in z."""
    target = vk.make_target(lambda x: -x["a"], {"a": 1.0}, support={"a": vk.support.positive})
    family = vk.families.MeanField(1)
    value = ForwardKL(family, given({"a": np.exp(DRAWS[:, 0])}))(family.init(key), target, jax.random.key(0))
    np.testing.assert_allclose(value, -np.mean(stats.norm.logpdf(DRAWS[:, 0])), rtol=1e-5)


def test_draws_of_zero_weight_do_not_count_even_outside_the_support(key):
    target = vk.make_target(lambda x: -x["a"], {"a": 1.0}, support={"a": vk.support.positive})
    family = vk.families.MeanField(1)
    keys = jax.random.split(key)
    both = given({"a": jnp.array([1.0, 2.0, -1.0, 0.0])}, jnp.array([0.0, 0.0, -jnp.inf, -jnp.inf]))
    few = given({"a": jnp.array([1.0, 2.0])})
    value, gradient = jax.jit(jax.value_and_grad(ForwardKL(family, both)))(family.init(keys[0]), target, keys[1])
    other, other_gradient = jax.jit(jax.value_and_grad(ForwardKL(family, few)))(
        family.init(jax.random.key(0)), target, jax.random.key(1)
    )
    np.testing.assert_allclose(value, other, rtol=1e-6)
    np.testing.assert_allclose(gradient.mean, other_gradient.mean, rtol=1e-6)
    np.testing.assert_allclose(gradient.log_scale, other_gradient.log_scale, rtol=1e-6)
    outside = given({"a": jnp.array([1.0, -1.0])})
    assert np.isnan(ForwardKL(family, outside)(family.init(jax.random.key(0)), target, jax.random.key(1)))


def test_fewer_draws_a_call_are_resampled_by_weight(key):
    params = start(FULL_RANK)
    all_of_them = ForwardKL(FULL_RANK, given(DRAWS, LOG_WEIGHTS))(params, gaussian_target(), jax.random.key(0))
    values, _ = draws_of(ForwardKL(FULL_RANK, given(DRAWS, LOG_WEIGHTS), 5), params, gaussian_target(), key, 2_000)
    assert np.std(values) > 0
    assert_mean(values, all_of_them, effect=0.5)
    unweighted = ForwardKL(FULL_RANK, given(DRAWS))(params, gaussian_target(), jax.random.key(0))
    expect_rejection(lambda: assert_mean(values, unweighted))


def test_the_first_source_the_target_offers_is_taken_and_named(key):
    with_sampler = gaussian_target()
    without = vk.make_target(lambda x: -jnp.sum(x**2), DIM)
    default = ForwardKL(FULL_RANK, num_samples=10)
    assert default.source(with_sampler) is exact
    assert default.source(without) is self_normalized
    assert default.describe(with_sampler) == "forward KL(p‖q), exact draws"
    assert default.describe(without) == "forward KL(p‖q), self-normalized importance weights"
    assert ForwardKL(FULL_RANK, given(DRAWS)).describe(with_sampler) == "forward KL(p‖q), given draws"
    assert (default.evaluations(with_sampler), default.evaluations(without)) == (0, 10)
    assert ForwardKL(FULL_RANK).evaluations(without) == 128
    assert ForwardKL(FULL_RANK, given(DRAWS)).evaluations(without) == 0


def test_exact_draws_need_a_sampler(key):
    with pytest.raises(NotImplementedError, match="no exact sampler; give one with make_target"):
        ForwardKL(FULL_RANK, exact)(start(FULL_RANK), vk.make_target(lambda x: -jnp.sum(x**2), DIM), key)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: ForwardKL(FULL_RANK, jnp.ones((5, 2))), TypeError, r"draws: expected .*given\(draws\), got"),
        (lambda: ForwardKL(FULL_RANK, num_samples=0), ValueError, "num_samples: expected at least 1, got 0"),
        (lambda: ForwardKL(FULL_RANK, num_samples=1.5), TypeError, "num_samples: expected an int"),
        (lambda: ForwardKL("full_rank"), TypeError, "family: expected one of vi_kit.families"),
    ],
)
def test_arguments_are_checked(build, error, message):
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize(
    ("draws", "message"),
    [
        (given(np.ones((5, 3))), r"should have shape \(2,\), got \(3,\)"),
        (given(np.ones(())), "draws: every variable needs the same leading axis"),
        (given(np.ones((5, 2)), np.zeros(4)), r"log_weights: expected one a draw, shape \(5,\), got \(4,\)"),
    ],
)
def test_draws_that_do_not_fit_are_refused(draws, message, key):
    with pytest.raises(ValueError, match=message):
        ForwardKL(FULL_RANK, draws)(start(FULL_RANK), gaussian_target(), key)


@pytest.mark.parametrize("source", [exact, self_normalized])
def test_a_family_of_another_dimension_is_refused(source, key):
    """A family of dimension 1 would spread over the draws silently."""
    family = vk.families.MeanField(1)
    with pytest.raises(ValueError, match=r"family: its dim is 1|expected one flat point"):
        ForwardKL(family, source)(family.init(key), gaussian_target(), jax.random.key(0))


@pytest.mark.parametrize(
    ("weights", "got"), [([-np.inf, -np.inf], "all of them −∞"), ([0.0, np.nan], "NaN"), ([0.0, np.inf], "∞")]
)
def test_weights_that_leave_no_draw_are_refused(weights, got):
    with pytest.raises(ValueError, match=f"log_weights: expected numbers or −∞, not all of them −∞, got .*{got}"):
        given({"a": jnp.array([1.0, 2.0])}, jnp.array(weights))
