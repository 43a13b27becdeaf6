"""Gradient estimators: unbiased against the exact gradient, and a biased one is caught by the same test."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gaussian_problem import FACTOR, LOG_NORMALIZER, MEAN, gaussian_target, reverse_kl, start
from registry import DIM, ESTIMATORS, FAMILIES, GAUSSIANS, LOCATION_SCALE, UNBIASED
from statistical import assert_mean, expect_rejection

import vi_kit as vk
from vi_kit import estimators

NUM = 20_000
TARGET = gaussian_target()


def integrand(params, z, log_q):
    del params
    return log_q - TARGET.log_density(z)


def draws_of(estimator, family, params, key, num=NUM):
    """NUM independent one-draw values and gradients."""

    def loss(params, key):
        return estimator(integrand, family, params, key, 1)

    return jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(params, jax.random.split(key, num))


def without_entropy(integrand, family, params, key, num_samples):
    """Biased on purpose: the gradient of log q is lost altogether."""

    def stopped(params, z, log_q):
        return integrand(params, z, jax.lax.stop_gradient(log_q))

    return estimators.pathwise(stopped, family, params, key, num_samples)


@pytest.mark.parametrize(("family_name", "estimator_name"), UNBIASED, ids=map("-".join, UNBIASED))
def test_value_and_gradient_are_unbiased(family_name, estimator_name, key):
    family = FAMILIES[family_name].family
    params = start(family)
    exact, exact_gradient = jax.value_and_grad(lambda p: reverse_kl(family, p))(params)
    values, gradients = draws_of(ESTIMATORS[estimator_name], family, params, key)
    assert_mean(values, exact - LOG_NORMALIZER, effect=0.2)
    # One draw has no baseline, and so the score function more variance; `test_joint` has more draws.
    assert_mean(gradients, exact_gradient, effect=0.6 if estimator_name == "score_function" else 0.3)


@pytest.mark.parametrize("family_name", GAUSSIANS)
def test_a_biased_gradient_is_rejected(family_name, key):
    family = FAMILIES[family_name].family
    params = start(family)
    exact_gradient = jax.grad(lambda p: reverse_kl(family, p))(params)
    _, gradients = draws_of(without_entropy, family, params, key)
    expect_rejection(lambda: assert_mean(gradients, exact_gradient, effect=0.3))


def test_sticking_the_landing_has_no_variance_at_the_optimum(key):
    family = vk.families.FullRank(DIM)
    params = family.init(jax.random.key(0), mean=jnp.asarray(MEAN), scale=jnp.asarray(FACTOR))
    _, gradients = draws_of(estimators.sticking_the_landing, family, params, jax.random.clone(key), 100)
    for leaf in jax.tree.leaves(gradients):
        np.testing.assert_allclose(leaf, 0.0, atol=2e-5)
    values, gradients = draws_of(estimators.pathwise, family, params, key, 100)
    assert np.std(gradients.log_scale) > 0.5  # negative control
    np.testing.assert_allclose(values, -LOG_NORMALIZER, atol=1e-5)  # log q − log p is constant there


@pytest.mark.parametrize("family_name", LOCATION_SCALE)
def test_closed_form_entropy_has_the_pathwise_gradient_for_location_scale_families(family_name, key):
    """log q of a draw is then that of its noise less the log scale: the same in every draw, as the entropy is."""
    family = FAMILIES[family_name].family
    _, one = draws_of(estimators.closed_form_entropy, family, start(family), jax.random.clone(key), 100)
    _, other = draws_of(estimators.pathwise, family, start(family), key, 100)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family_name", GAUSSIANS)
def test_the_value_is_the_plain_mean_whatever_the_gradient(family_name, key):
    family = FAMILIES[family_name].family
    params = start(family)

    def value(estimator):
        return estimator(integrand, family, params, jax.random.clone(key), 7)

    def one(key):
        z, log_q = family.dist(params).sample_and_log_prob(seed=key)
        return log_q - TARGET.log_density(z), TARGET.log_density(z)

    plain, log_p = jax.vmap(one)(jax.random.split(jax.random.clone(key), 7))
    np.testing.assert_allclose(value(estimators.pathwise), np.mean(plain), rtol=1e-5)
    np.testing.assert_allclose(value(estimators.sticking_the_landing), np.mean(plain), rtol=1e-5)
    by_entropy = -family.dist(params).entropy() - np.mean(log_p)
    np.testing.assert_allclose(value(estimators.closed_form_entropy), by_entropy, rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class Unreparameterized:
    """A family whose draws have no derivative in the parameters."""

    dim: int = DIM
    reparameterized: bool = False

    def init(self, key, *, mean=None, scale=None):
        return vk.families.MeanField(self.dim).init(key, mean=mean, scale=scale)

    def dist(self, params):
        return vk.families.MeanField(self.dim).dist(params)


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "score_function"])
def test_families_without_reparameterization_are_refused(name, key):
    family = Unreparameterized()
    with pytest.raises(ValueError, match=f"estimator: {name} needs draws .* Unreparameterized"):
        ESTIMATORS[name](integrand, family, start(family), key, 2)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_no_draws_are_refused(name, key):
    family = vk.families.MeanField(DIM)
    with pytest.raises(ValueError, match="num_samples: expected at least 1, got 0"):
        ESTIMATORS[name](integrand, family, start(family), key, 0)


@pytest.mark.parametrize(
    "name", ["pathwise", "sticking_the_landing", "closed_form_entropy", "score_function", "self_normalized"]
)
def test_second_derivatives_are_right(name):
    """The gradient through a whole fit, in the learning rate, against finite differences with common draws."""
    family = vk.families.MeanField(2)
    target = vk.make_target(lambda x: -0.5 * jnp.sum((x - 1.0) ** 2) / 0.3, 2)
    if name == "self_normalized":
        objective = vk.objectives.ForwardKL(family, vk.objectives.self_normalized, num_samples=8)
    else:
        objective = vk.objectives.ReverseKL(family, getattr(vk.estimators, name), num_samples=4)
    start = family.init(jax.random.key(0), mean=jnp.array([0.5, -0.5]))

    def final_loss(rate):
        algorithm = vk.algorithms.GradientDescent(objective, optax.sgd, learning_rate=rate)
        fitted = vk.optimize(jax.random.key(1), target, algorithm, start, num_steps=5)
        return jnp.sum(fitted.params.mean**2) + jnp.sum(fitted.params.log_scale)

    step = 1e-3
    finite_difference = (final_loss(0.05 + step) - final_loss(0.05 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(final_loss)(0.05), finite_difference, rtol=2e-2)
