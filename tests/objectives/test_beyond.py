"""Objectives that are no bound of the draws' mean: tail-adaptive, Fisher, χ², symmetrized, annealed, tamed weights."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gaussian_problem import FACTOR, MEAN, gaussian_target, start
from quadrature_problem import Pair, log_density, target
from scipy import stats

import vi_kit as vk
from vi_kit import objectives
from vi_kit._weights import pareto_smooth
from vi_kit.objectives._tail_adaptive import rank_weights
from vi_kit.objectives._tamed_weights import _exponent, _raised

FAMILY = vk.families.FullRank(2)
TARGET = target()


def at_optimum():
    return FAMILY.init(jax.random.key(0), mean=jnp.asarray(MEAN), scale=jnp.asarray(FACTOR))


@pytest.mark.parametrize("name", ["TailAdaptive", "Fisher", "ChiSquare"])
def test_the_gradient_is_zero_in_every_draw_where_q_is_p(name, key):
    objective = getattr(objectives, name)(FAMILY)
    find = jax.jit(jax.grad(objective))
    for leaf in jax.tree.leaves(find(at_optimum(), gaussian_target(), jax.random.clone(key))):
        np.testing.assert_allclose(leaf, 0.0, atol=2e-5)
    away = find(start(FAMILY), gaussian_target(), key)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(away)) > 0.1  # negative control


def test_rank_weights_are_those_of_the_ranks():
    values = np.array([0.3, -2.0, 1.1, 1.1, -0.4])
    share = (6 - stats.rankdata(values, method="min")) / 5  # draws that weigh at least as much
    expected = (1 / share) / np.sum(1 / share)
    np.testing.assert_allclose(rank_weights(jnp.asarray(values), -1.0), expected, rtol=1e-6)
    np.testing.assert_allclose(rank_weights(jnp.asarray(values), 0.0), 0.2, rtol=1e-6)
    np.testing.assert_allclose(rank_weights(100 * jnp.asarray(values), -1.0), expected, rtol=1e-6)  # ranks alone
    assert np.isnan(rank_weights(jnp.array([jnp.nan, 0.0]), -1.0)).any()


def test_the_tail_adaptive_gradient_is_the_papers(key):
    """By hand: rank weights times the derivative of log p − log q along each draw, q's parameters fixed."""
    params = start(FAMILY)
    keys = jax.random.split(jax.random.clone(key), 5)
    z = jax.vmap(lambda k: FAMILY.dist(params).sample(seed=k))(keys)
    log_w = jax.vmap(lambda z: log_density(z) - FAMILY.dist(params).log_prob(z))(z)
    share = np.mean(np.asarray(log_w)[None] >= np.asarray(log_w)[:, None], axis=1)
    weights = (1 / share) / np.sum(1 / share)

    def surrogate(moving):
        drawn = jax.vmap(lambda k: FAMILY.dist(moving).sample(seed=k))(jax.random.clone(keys))
        along = jax.vmap(lambda z: log_density(z) - FAMILY.dist(params).log_prob(z))(drawn)
        return -jnp.sum(jnp.asarray(weights, along.dtype) * along)

    value, gradient = jax.jit(jax.value_and_grad(objectives.TailAdaptive(FAMILY, 5)))(params, TARGET, key)
    np.testing.assert_allclose(value, surrogate(params), rtol=1e-5)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(jax.grad(surrogate)(params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_tail_adaptive_needs_reparameterized_draws(key):
    with pytest.raises(ValueError, match=r"family: TailAdaptive needs draws that are differentiable .* which Pair"):
        objectives.TailAdaptive(Pair())(start(Pair()), TARGET, key)


def test_symmetrized_is_the_sum_of_both(key):
    reverse, forward = objectives.ReverseKL(FAMILY, num_samples=4), objectives.ForwardKL(FAMILY, num_samples=4)
    both = objectives.Symmetrized(reverse, forward)
    first, second = jax.random.split(jax.random.clone(key))
    params, exact = start(FAMILY), gaussian_target()
    expected = reverse(params, exact, first) + forward(params, exact, second)
    np.testing.assert_allclose(both(params, exact, key), expected, rtol=1e-6)
    assert both.family == FAMILY
    assert (both.evaluations(exact), both.evaluations(TARGET)) == (4, 8)
    with pytest.raises(ValueError, match=r"forward: expected an objective over FullRank\(dim=2\), got MeanField"):
        objectives.Symmetrized(reverse, objectives.ForwardKL(vk.families.MeanField(2)))
    with pytest.raises(TypeError, match=r"reverse: expected one of vi_kit\.objectives, got 3"):
        objectives.Symmetrized(3, forward)


def prior_target():
    return vk.make_target(lambda x: -jnp.sum((x - 1.0) ** 2), 2, prior=distrax.Normal(0.0, 2.0))


@pytest.mark.parametrize("estimator", [None, vk.estimators.score_function])
def test_beta_weighs_the_kl_term(estimator, key):
    """Value and gradient are linear in β; a schedule is read at the step."""
    exact, params = prior_target(), start(FAMILY)

    def at(beta, step=0):
        objective = objectives.ReverseKL(FAMILY, estimator, 4, beta=beta)
        return jax.value_and_grad(lambda p: objective(p, exact, jax.random.clone(key), step=step))(params)

    zero, one, some, scheduled = at(0.0), at(None), at(0.3), at(vk.kl.schedules.linear(10), step=3)
    for a, b, c, d in zip(*map(jax.tree.leaves, (zero, one, some, scheduled)), strict=True):
        np.testing.assert_allclose(c, 0.7 * a + 0.3 * b, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(d, c, rtol=1e-4, atol=1e-4)
    assert abs(zero[0] - one[0]) > 0.1
    assert "KL term times 0.3" in objectives.ReverseKL(FAMILY, beta=0.3).describe(exact)


def test_orders_and_other_numbers_compile_nothing(compiles):
    exact, params = gaussian_target(), start(FAMILY)

    def fit(objective):
        algorithm = vk.algorithms.GradientDescent(objective, optax.sgd, learning_rate=0.01)
        return jax.block_until_ready(vk.optimize(jax.random.key(0), exact, algorithm, params, num_steps=2))

    fit(objectives.Renyi(FAMILY, 0.5))
    before = compiles()
    fit(objectives.Renyi(vk.families.FullRank(2), 0.7))
    assert compiles() == before


def test_weights_are_tempered_to_the_effective_sample_size(key):
    """The largest exponent up to 1 that keeps it."""
    params = FAMILY.init(jax.random.key(0), mean=jnp.array([4.0, -3.0]))
    z, raw = objectives.self_normalized(FAMILY, params, TARGET, jax.random.clone(key), 200)
    other, tempered = jax.jit(lambda k: objectives.tempered(0.4)(FAMILY, params, TARGET, k, 200))(key)
    np.testing.assert_allclose(z, other, rtol=1e-6)

    def ess(log_weights):
        weights = np.exp(np.asarray(log_weights, float) - np.max(log_weights))
        return weights.sum() ** 2 / np.sum(weights**2)

    assert ess(raw) < 20
    np.testing.assert_allclose(ess(tempered), 80, rtol=1e-3)
    exponent = np.polyfit(raw, tempered, 1)[0]
    assert 0 < exponent < 1
    np.testing.assert_allclose(tempered, exponent * np.asarray(raw), rtol=1e-3, atol=1e-3)


def test_even_weights_are_not_tempered(key):
    z, raw = objectives.self_normalized(FAMILY, at_optimum(), gaussian_target(), jax.random.clone(key), 50)
    other, tempered = objectives.tempered(0.5)(FAMILY, at_optimum(), gaussian_target(), key, 50)
    np.testing.assert_array_equal(tempered, raw)
    np.testing.assert_array_equal(z, other)


def test_draws_outside_the_support_keep_weight_zero():
    weights = jnp.array([0.0, 9.0, -jnp.inf, 1.0])
    tempered = _raised(weights, _exponent(weights, jnp.asarray(0.7)))
    assert tempered[2] == -jnp.inf
    assert np.isfinite(np.asarray(tempered)[[0, 1, 3]]).all()


def test_smoothed_weights_are_those_of_pareto_smooth(key):
    params = FAMILY.init(jax.random.key(0), mean=jnp.array([1.0, -1.0]), scale=0.5)
    _, raw = objectives.self_normalized(FAMILY, params, TARGET, jax.random.clone(key), 400)
    _, smoothed = objectives.pareto_smoothed(FAMILY, params, TARGET, key, 400)
    np.testing.assert_allclose(smoothed, pareto_smooth(raw).log_weights, rtol=1e-4, atol=1e-4)
    assert np.ptp(np.asarray(smoothed)) < np.ptp(np.asarray(raw)) + 1e-3
    objective = objectives.ForwardKL(FAMILY, objectives.pareto_smoothed, 400)
    assert objective.evaluations(TARGET) == 400
    assert objective.describe(TARGET) == "forward KL(p‖q), pareto_smoothed"


def test_forward_kl_of_tempered_weights_finds_a_target_far_off(key):
    """Where plain self-normalized weights rest on one draw."""
    exact = vk.make_target(lambda x: -0.5 * jnp.sum((x - 6.0) ** 2), 2)
    family = vk.families.MeanField(2)
    objective = objectives.ForwardKL(family, objectives.tempered(0.5), 64)
    algorithm = vk.algorithms.GradientDescent(objective, optax.adam, learning_rate=0.05)
    fit = vk.optimize(key, exact, algorithm, family.init(jax.random.key(0)), num_steps=600)
    np.testing.assert_allclose(fit.params.mean, 6.0, atol=0.2)
    np.testing.assert_allclose(jnp.exp(fit.params.log_scale), 1.0, atol=0.15)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: objectives.Renyi(FAMILY, -1.0), ValueError, "alpha: expected a number at least 0, got -1"),
        (lambda: objectives.Renyi(FAMILY, jnp.ones(2)), TypeError, "alpha: expected one number"),
        (lambda: objectives.Renyi(FAMILY, jnp.nan), ValueError, "alpha: expected a number at least 0, got nan"),
        (
            lambda: objectives.ImportanceWeighted(FAMILY, num_particles=0),
            ValueError,
            "num_particles: expected at least 1",
        ),
        (lambda: objectives.ImportanceWeighted(3), TypeError, "family: expected one of vi_kit.families, got 3"),
        (lambda: objectives.Fisher(FAMILY, "pathwise"), TypeError, "estimator: expected one of vi_kit.estimators"),
        (lambda: objectives.ChiSquare(FAMILY, 1), ValueError, "num_samples: expected at least 2, got 1"),
        (lambda: objectives.TailAdaptive(FAMILY, power=-2.0), ValueError, "power: expected a number from -1 to 0"),
        (lambda: objectives.tempered(1.5), ValueError, "fraction: expected a number from 0 to 1, got 1.5"),
        (lambda: objectives.ReverseKL(FAMILY, beta="a"), TypeError, "beta: expected one number"),
    ],
)
def test_arguments_are_checked(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_traced_orders_below_zero_are_nan():
    def value(alpha):
        return objectives.Renyi(FAMILY, alpha, num_particles=2)(start(FAMILY), TARGET, jax.random.key(0))

    values = jax.jit(jax.vmap(value))(jnp.array([-0.5, 0.5]))
    assert np.isnan(values[0])
    assert np.isfinite(values[1])
