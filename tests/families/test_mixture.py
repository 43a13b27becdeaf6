"""Mixtures: one component is that component, components start apart, and draws of each of them."""

import functools

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from statistical import assert_same_distribution, expect_rejection

import vi_kit as vk

COMPONENTS = {
    "mean_field": vk.families.MeanField,
    "full_rank": vk.families.FullRank,
    "low_rank": functools.partial(vk.families.LowRank, rank=1),
    "student_t": vk.families.StudentT,
}


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_mixture_of_one_is_its_component(name, key):
    keys = [*jax.random.split(key, 3)]
    make = COMPONENTS[name]
    mixture, single = vk.families.Mixture(2, 1, component=make), make(2)
    start = mixture.init(keys[0], mean=jnp.array([1.0, -2.0]), scale=jnp.array([0.5, 3.0]))
    q, p = mixture.dist(start), single.dist(jax.tree.map(lambda leaf: leaf[0], start.components))
    z = jax.random.normal(keys[1], (5, 2))
    np.testing.assert_array_equal(jax.vmap(q.log_prob)(z), jax.vmap(p.log_prob)(z))
    for found, expected in ((q.mean(), p.mean()), (q.std(), p.std()), (q.covariance(), p.covariance())):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(p.mean(), [1.0, -2.0], rtol=1e-6)
    np.testing.assert_allclose(p.std(), [0.5, 3.0], rtol=1e-6)
    z = q.sample(seed=jax.random.clone(keys[2]))
    inner = jax.random.split(keys[2])[1]
    np.testing.assert_allclose(z, p.sample(seed=inner), rtol=1e-6)


@pytest.mark.parametrize("num", [2, 5])
def test_components_start_apart_as_documented(num, key):
    """Means with standard deviation 0.8 in each coordinate, components with 0.6, another place for another key."""
    family = vk.families.Mixture(3, num)
    params = family.init(jax.random.clone(key), scale=2.0)
    np.testing.assert_allclose(jnp.std(params.components.mean, axis=0), 1.6, rtol=1e-5)
    np.testing.assert_allclose(jnp.exp(params.components.log_scale), 1.2, rtol=1e-5)
    np.testing.assert_array_equal(params.logits, 0)
    other = family.init(jax.random.split(key)[0], scale=2.0)
    assert np.abs(params.components.mean - other.components.mean).max() > 0.1


def test_draws_of_every_component_are_theirs_and_differentiable(key):
    family = vk.families.Mixture(2, 3)
    params = family.init(jax.random.key(0))
    draw = jax.jit(jax.vmap(lambda p, k: family.dist(p).sample_components(seed=k), (None, 0)))
    z = draw(params, jax.random.split(key, 5_000))
    assert z.shape == (5_000, 3, 2)
    standard = (z - params.components.mean[None]) / jnp.exp(params.components.log_scale)[None]

    def cdf(x):
        return 0.5 * (1 + special.erf(np.asarray(x) / np.sqrt(2)))

    assert_same_distribution(standard, cdf)
    expect_rejection(lambda: assert_same_distribution(z, cdf))
    jacobian = jax.jacobian(lambda p: family.dist(p).sample_components(seed=jax.random.key(3)))(params)
    expected = np.einsum("ab,cd->acbd", np.eye(3), np.eye(2))
    np.testing.assert_allclose(jacobian.components.mean, expected, atol=1e-6)
    np.testing.assert_array_equal(jacobian.logits, 0)


def test_weights_are_those_of_the_logits():
    family = vk.families.Mixture(1, 3)
    params = family.init(jax.random.key(0))._replace(logits=jnp.array([0.0, 1.0, 2.0]) + 100)
    np.testing.assert_allclose(family.dist(params).log_weights, jax.nn.log_softmax(jnp.arange(3.0)), rtol=1e-5)


@pytest.mark.parametrize("name", ["mean_field", "full_rank", "low_rank"])
def test_the_gaussian_of_its_moments(name, key):
    """Of diagonal and low-rank components in the form of a low-rank covariance."""
    family = vk.families.Mixture(3, 2, component=COMPONENTS[name])
    params = family.init(jax.random.key(0), scale=jnp.array([1.0, 2.0, 3.0]))
    keys = iter([*jax.random.split(key, 10)])
    params = jax.tree.map(lambda leaf: leaf + 0.5 * jax.random.normal(next(keys), leaf.shape), params)
    q = family.dist(params)
    np.testing.assert_allclose(q.gaussian().covariance(), q.covariance(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(q.gaussian().mean(), q.mean(), rtol=1e-6)
    assert hasattr(q.gaussian(), "coupling") == (name != "full_rank")


def test_divergences_read_it(key):
    """Bounds on KL between mixtures need the components."""
    family = vk.families.Mixture(2, 2)
    q = family.dist(family.init(key))
    means, scales = q.components.mean, jnp.exp(q.components.log_scale)
    same = distrax.MixtureSameFamily(distrax.Categorical(jnp.zeros(2)), distrax.MultivariateNormalDiag(means, scales))
    other = distrax.MultivariateNormalDiag(jnp.zeros(2), 2 * jnp.ones(2))
    found, expected = vk.kl_bounds(q, other), vk.kl_bounds(same, other)
    np.testing.assert_allclose(found.lower, expected.lower, rtol=1e-5)
    np.testing.assert_allclose(found.upper, expected.upper, rtol=1e-5)
    assert 0 < found.lower < found.upper


def test_estimators_through_draws_alone_refuse_it(key):
    family = vk.families.Mixture(2)
    target = vk.make_target(lambda x: -0.5 * jnp.sum(x * x), 2)
    objective = vk.objectives.ReverseKL(family, vk.estimators.pathwise)
    with pytest.raises(ValueError, match="estimator: pathwise needs draws that are differentiable"):
        objective(family.init(jax.random.key(0)), target, key)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="num_components: expected at least 1, got 0"):
        vk.families.Mixture(2, 0)
    with pytest.raises(TypeError, match=r"component: expected a family of vi_kit\.families"):
        vk.families.Mixture(2, component=vk.families.MeanField(2))
    with pytest.raises(TypeError, match="component: expected a family with parameters mean and log_scale"):
        vk.families.Mixture(2, component=vk.families.Mixture)
