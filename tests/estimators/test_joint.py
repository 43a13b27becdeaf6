"""Estimators of logarithms of means of two weights, and of means over several draws, against exact gradients."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quadrature_problem import (
    EVERY_FAMILY,
    Pair,
    bound_of_two,
    exact_mean,
    log_density,
    start,
    stratified_bound,
)
from statistical import assert_mean, assert_same_distribution, expect_rejection

import vi_kit as vk
from vi_kit import estimators
from vi_kit.estimators import Form, valid
from vi_kit.estimators._sticking_the_landing import log_q_of_draw

NUM = 20_000


def log_weight(params, z, log_q):
    del params
    return log_density(z) - log_q


def loss(params, z, log_q):
    return -log_weight(params, z, log_q)


def gradients_of(function, params, key, num=NUM):
    return jax.jit(jax.vmap(jax.value_and_grad(function), (None, 0)))(params, jax.random.split(key, num))


@functools.cache
def exact_bound(family, stratified, power):
    exact = stratified_bound if stratified else bound_of_two
    return jax.jit(jax.value_and_grad(lambda p: exact(family, p, power)))(start(family))


CELLS = [
    ("mean_field", "pathwise", 1.0),
    ("full_rank", "doubly_reparameterized", 1.0),
    ("full_rank", "doubly_reparameterized", 0.4),
    ("mean_field", "score_function", 0.4),
    ("pair", "stratified", 1.0),
    ("pair", "stratified", 0.0),
    ("pair", "score_function", 1.0),
]


@pytest.mark.parametrize(("name", "estimator", "power"), CELLS, ids=lambda part: str(part))
def test_bounds_are_unbiased(name, estimator, power, x64, key):
    """Value and gradient of the bound of two draws: power 1 is importance weighting, 0 the ELBO, between is Rényi."""
    family = EVERY_FAMILY[name]
    chosen = getattr(estimators, estimator)
    exact, gradient = exact_bound(family, estimator == "stratified", power)

    def bound(params, key):
        return chosen.log_mean(log_weight, family, params, key, (1, 2), power)

    values, gradients = gradients_of(bound, start(family), key)
    assert_mean(values, exact, effect=0.1)
    assert_mean(gradients, gradient, effect=0.15)


def test_sticking_the_landing_of_a_bound_is_caught(x64, key):
    """Negative control: without the second step the gradient is biased, and weights in place of their squares are."""
    family = EVERY_FAMILY["full_rank"]
    _, gradient = exact_bound(family, False, 1.0)

    def biased(params, key):
        def path(params, z, log_q):
            del log_q
            return log_density(z) - log_q_of_draw(family, params, z)

        return estimators.pathwise.log_mean(path, family, params, key, (1, 2), 1.0)

    _, gradients = gradients_of(biased, start(family), key)
    expect_rejection(lambda: assert_mean(gradients, gradient))


@pytest.mark.parametrize(("name", "estimator"), [("mean_field", "score_function"), ("pair", "stratified")])
def test_means_over_several_draws_are_unbiased(name, estimator, x64, key):
    """The leave-one-out baseline needs three draws to be seen; the integrand depends on the parameters besides."""
    family = EVERY_FAMILY[name]

    def integrand(params, z, log_q):
        return jnp.sum(params.mean) * z[0] + log_q - log_density(z)

    def function(params, z):
        return integrand(params, z, family.dist(params).log_prob(z))

    exact, gradient = jax.jit(jax.value_and_grad(lambda p: exact_mean(function, family, p)))(start(family))
    chosen = getattr(estimators, estimator)

    def mean(params, key):
        return chosen(integrand, family, params, key, 3)

    values, gradients = gradients_of(mean, start(family), key)
    assert_mean(values, exact, effect=0.1)
    assert_mean(gradients, gradient, effect=0.2)


def test_a_baseline_that_holds_its_own_draw_is_caught(x64, key):
    """Negative control: it shrinks the gradient by (n − 1) / n."""
    family = EVERY_FAMILY["mean_field"]
    exact = jax.jit(jax.grad(lambda p: -exact_mean(lambda p, z: log_density(z), family, p)))(start(family))

    def by_hand(baseline_of):
        def surrogate(params, key):
            z = jax.lax.stop_gradient(jax.vmap(lambda k: family.dist(params).sample(seed=k))(jax.random.split(key, 3)))
            values = -jax.vmap(log_density)(z)
            return jnp.mean((values - baseline_of(values)) * jax.vmap(family.dist(params).log_prob)(z))

        return gradients_of(surrogate, start(family), jax.random.clone(key))[1]

    assert_mean(by_hand(lambda v: (jnp.sum(v) - v) / 2), exact, effect=0.25)
    expect_rejection(lambda: assert_mean(by_hand(jnp.mean), exact))


@pytest.mark.parametrize("estimator", ["sticking_the_landing", "doubly_reparameterized", "score_function"])
def test_no_variance_where_q_is_p(estimator, x64, key):
    """All weights are equal there: every draw's gradient is 0, of means and of bounds; that of `pathwise` is not."""
    family = EVERY_FAMILY["full_rank"]
    params = start(family)
    q = family.dist(params)
    chosen = getattr(estimators, estimator)

    def weight(params, z, log_q):
        del params
        return 2.0 + q.log_prob(z) - log_q

    def mean(params, key):
        return chosen(weight, family, params, key, 4)

    def bound(params, key):
        return chosen.log_mean(weight, family, params, key, (1, 4), 0.7)

    for function in (mean, bound) if Form.LOG_MEAN in chosen.forms else (mean,):
        values, gradients = gradients_of(function, params, jax.random.clone(key), 50)
        np.testing.assert_allclose(values, 2.0, rtol=1e-12)
        for leaf in jax.tree.leaves(gradients):
            np.testing.assert_allclose(leaf, 0.0, atol=1e-12)
    _, noisy = gradients_of(lambda p, k: estimators.pathwise(weight, family, p, k, 4), params, key, 50)
    assert np.std(noisy.log_scale) > 0.1


def test_stratified_has_no_variance_where_q_is_p(x64, key):
    family = Pair()
    params = start(family)
    q = family.dist(params)

    def mean(params, key):
        return estimators.stratified(lambda p, z, log_q: log_q - q.log_prob(z), family, params, key, 2)

    _, gradients = gradients_of(mean, params, key, 50)
    for leaf in jax.tree.leaves(gradients):
        np.testing.assert_allclose(leaf, 0.0, atol=1e-12)


@pytest.mark.parametrize("estimator", ["pathwise", "doubly_reparameterized", "score_function"])
def test_a_bound_of_one_draw_is_the_mean(estimator, key):
    """Draw by draw, value and gradient: IWAE(1) is the ELBO, for every power."""
    family = EVERY_FAMILY["mean_field"]
    params = family.init(jax.random.key(0))
    chosen = getattr(estimators, estimator)

    def bound(params, key):
        return -chosen.log_mean(log_weight, family, params, key, (5, 1), 0.7)

    one = jax.value_and_grad(bound)(params, jax.random.clone(key))
    other = jax.value_and_grad(lambda p: chosen(loss, family, p, key, 5))(params)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("estimator", ["doubly_reparameterized", "score_function", "stratified"])
def test_second_derivatives_are_those_of_the_gradient(estimator, x64, key):
    """What a gradient through a whole fit needs: the derivative of the estimator, draws included."""
    family = Pair() if estimator == "stratified" else EVERY_FAMILY["mean_field"]
    chosen = getattr(estimators, estimator)

    @jax.jit
    def gradient(shift):
        params = start(family)
        params = params._replace(log_scale=params.log_scale + shift)

        def both(params):
            bound = chosen.log_mean(log_weight, family, params, jax.random.clone(key), (1, 3), 0.7)
            return bound + chosen(loss, family, params, jax.random.clone(key), 3)

        return jnp.sum(jax.grad(both)(params).log_scale ** 2)

    step = 1e-5
    expected = (gradient(step) - gradient(-step)) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.grad(gradient))(0.0), expected, rtol=1e-6)


def test_the_best_valid_estimator_comes_first():
    normal, mixture = EVERY_FAMILY["mean_field"], Pair()
    assert valid(normal, Form.LOG_RATIO)[0] is estimators.sticking_the_landing
    assert valid(normal, Form.LOG_MEAN)[0] is estimators.doubly_reparameterized
    assert valid(normal, Form.MEAN)[0] is estimators.pathwise
    for form in Form:
        assert valid(mixture, form) == (estimators.stratified, estimators.score_function)


def test_a_family_with_a_sequential_inverse_does_without_the_density_of_given_points():
    @dataclasses.dataclass(frozen=True)
    class Sequential(Pair):
        reparameterized: bool = True
        sequential_inverse: bool = True

    assert valid(Sequential(), Form.LOG_RATIO)[:2] == (estimators.stratified, estimators.pathwise)
    with pytest.raises(ValueError, match=r"sticking_the_landing needs .* sequential inverse, which .*Sequential"):
        estimators.sticking_the_landing(loss, Sequential(), None, None, 1)


@pytest.mark.parametrize(
    ("name", "family", "form", "message"),
    [
        ("pathwise", "pair", Form.MEAN, r"pathwise needs draws that .* Pair.*; use vk.estimators.stratified or vk"),
        ("stratified", "mean_field", Form.MEAN, r"stratified needs a mixture, .* use vk.estimators.pathwise"),
        ("sticking_the_landing", "mean_field", Form.LOG_MEAN, "biased where the objective is the logarithm of a mean"),
        ("closed_form_entropy", "mean_field", Form.MEAN, "closed_form_entropy is biased where the objective is a mean"),
        ("doubly_reparameterized", "mean_field", Form.MEAN, "doubly_reparameterized is biased where"),
    ],
)
def test_what_is_not_valid_is_refused_with_what_works(name, family, form, message):
    with pytest.raises(ValueError, match=message):
        estimators.choose(getattr(estimators, name), EVERY_FAMILY[family], form)


def test_a_users_own_estimator_is_taken_where_it_can_do_it():
    def own(integrand, family, params, key, num_samples):
        return 0.0

    family = vk.families.MeanField(2)
    assert estimators.choose(own, family, Form.LOG_RATIO) is own
    with pytest.raises(TypeError, match="estimator: the objective is the logarithm of a mean of weights, for which"):
        estimators.choose(own, family, Form.LOG_MEAN)


def test_a_mixture_of_one_is_its_component(x64, key):
    """Stratified draws of one component are sticking the landing, in law: both have its exact gradient and variance."""
    one, normal = vk.families.Mixture(2, 1), EVERY_FAMILY["mean_field"]
    params = start(normal)
    mixed = one.init(jax.random.key(0))
    mixed = mixed._replace(components=jax.tree.map(lambda leaf: leaf[None], params))

    def by_mixture(mixed, key):
        return estimators.stratified(loss, one, mixed, key, 4)

    def by_component(params, key):
        return estimators.sticking_the_landing(loss, normal, params, key, 4)

    first, second = jax.random.split(key)
    values, gradients = gradients_of(by_mixture, mixed, first, 5_000)
    others, other_gradients = gradients_of(by_component, params, second, 5_000)
    assert_same_distribution(values, others)
    assert_same_distribution([leaf[:, 0] for leaf in gradients.components], list(other_gradients))
    np.testing.assert_array_equal(gradients.logits, 0.0)
