"""Antithetic and quasi-Monte Carlo draws: each has the law of q, together they cancel errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_problem import LOG_NORMALIZER, gaussian_target, reverse_kl, start
from quadrature_problem import Pair, log_density
from registry import DIM, FAMILIES
from scipy import stats
from statistical import assert_mean, assert_same_distribution

import vi_kit as vk
from vi_kit import estimators
from vi_kit.estimators import antithetic, pathwise, quasi_monte_carlo, sticking_the_landing
from vi_kit.estimators._base import draw

TARGET = gaussian_target()
WAYS = {"antithetic": antithetic, "quasi_monte_carlo": quasi_monte_carlo}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
NORMAL = vk.families.MeanField(DIM)


def integrand(params, z, log_q):
    del params
    return log_q - TARGET.log_density(z)


@ways
@pytest.mark.parametrize("name", ["full_rank", "low_rank"])
def test_means_and_gradients_stay_unbiased(name, way, key):
    family = FAMILIES[name].family
    params = start(family)

    def loss(params, key):
        return way(sticking_the_landing)(integrand, family, params, key, 4)

    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(params, jax.random.split(key, 5_000))
    exact, exact_gradient = jax.value_and_grad(lambda p: reverse_kl(family, p))(params)
    assert_mean(values, exact - LOG_NORMALIZER, effect=0.2)
    assert_mean(gradients, exact_gradient, effect=0.3)


@ways
def test_every_draw_alone_is_one_of_q(way, key):
    base = way(pathwise).base
    params = NORMAL.init(jax.random.key(0))
    z = jax.vmap(lambda k: draw(base, NORMAL, params, k, 8))(jax.random.split(key, 3_000))
    for i in (0, 1, 5):
        assert_same_distribution(z[:, i], stats.norm.cdf)


def test_antithetic_draws_cancel_what_is_odd(key):
    params = NORMAL.init(jax.random.key(0), mean=jnp.array([0.5, -1.0]))
    z = draw(antithetic(pathwise).base, NORMAL, params, key, 6)
    np.testing.assert_allclose(z[:3] + z[3:], 2 * np.array([[0.5, -1.0]] * 3), rtol=1e-6)
    assert np.std(z[:3]) > 0.1


def test_the_error_of_quasi_monte_carlo_falls_faster(key):
    """Four times as many draws: a factor 2 for independent ones, nearly 4 or more for a lattice."""

    def error(estimator, num):
        def mean(key):
            params = NORMAL.init(jax.random.key(0))
            return estimator(lambda p, z, log_q: log_density(z), NORMAL, params, key, num)

        return np.std(jax.jit(jax.vmap(mean))(jax.random.split(jax.random.clone(key), 200)))

    assert error(pathwise, 64) / error(pathwise, 256) < 2.5
    assert error(quasi_monte_carlo(pathwise), 64) / error(quasi_monte_carlo(pathwise), 256) > 2.8
    assert error(quasi_monte_carlo(pathwise), 256) < error(pathwise, 256) / 3


@ways
def test_bounds_of_such_draws_are_bounds(way, key):
    """Rows stay independent; within one, the weights' mean is unbiased, so that Jensen holds."""
    params = NORMAL.init(jax.random.key(0))

    def bound(key):
        return way(pathwise).log_mean(
            lambda p, z, log_q: TARGET.log_density(z) - log_q, NORMAL, params, key, (500, 4), 1.0
        )

    values = jax.jit(jax.vmap(bound))(jax.random.split(key, 10))
    assert np.mean(values) + 5 * np.std(values) / np.sqrt(10) < LOG_NORMALIZER
    assert np.mean(values) > LOG_NORMALIZER - float(reverse_kl(NORMAL, params))


def test_they_compare_by_value_and_are_named():
    assert antithetic(pathwise) == antithetic(estimators.pathwise) != pathwise
    assert hash(quasi_monte_carlo(pathwise)) == hash(quasi_monte_carlo(pathwise))
    assert repr(antithetic(pathwise)) == "antithetic(pathwise)"


def test_what_cannot_have_them_is_refused(key):
    with pytest.raises(ValueError, match="num_samples: antithetic draws come in pairs, expected an even number, got 3"):
        antithetic(pathwise)(integrand, NORMAL, start(NORMAL), key, 3)
    for estimator in (estimators.score_function, estimators.doubly_reparameterized, estimators.stratified):
        with pytest.raises(
            TypeError, match=rf"estimator: antithetic draws are for .* not for {estimator!r}, which needs"
        ):
            antithetic(estimator)

    with pytest.raises(
        ValueError, match=r"quasi_monte_carlo\(pathwise\) needs draws that are made of standard normals"
    ):
        quasi_monte_carlo(pathwise)(integrand, Pair(reparameterized=True), start(Pair()), key, 4)
