"""Annealed importance sampling: the mean weight is Z exactly, and draws with weights are those of p."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_problem import FACTOR, LOG_NORMALIZER, MEAN, gaussian_target
from statistical import assert_mean, expect_rejection

import vi_kit as vk
from vi_kit.objectives import ForwardKL, annealed, self_normalized

FAMILY = vk.families.MeanField(2)
PARAMS = FAMILY.init(jax.random.key(0), mean=jnp.array([0.0, 0.5]), scale=1.5)


def test_the_mean_weight_is_the_normalizer_and_moments_are_those_of_p(key):
    """For every number of temperatures, the weighted draws are unbiased before they are normalized."""
    z, log_weights = jax.jit(lambda k: annealed(4)(FAMILY, PARAMS, gaussian_target(), k, 20_000))(key)
    weights = np.exp(np.asarray(log_weights, float) - LOG_NORMALIZER)
    centered = np.asarray(z, float) - MEAN
    assert_mean(weights, 1.0, effect=0.1)
    assert_mean(weights[:, None] * centered, np.zeros(2), effect=0.1)
    products = weights[:, None, None] * centered[:, :, None] * centered[:, None, :]
    assert_mean(products, FACTOR @ FACTOR.T, effect=0.2)
    expect_rejection(lambda: assert_mean(centered, np.zeros(2)))  # unweighted draws lag behind
    expect_rejection(lambda: assert_mean(weights, np.exp(0.1)))


def test_weights_are_more_even_than_plain_ones(key):
    keys = jax.random.split(key)
    far = FAMILY.init(jax.random.key(0), mean=jnp.array([-2.0, 2.0]))

    def share(source, key):
        _, log_weights = jax.jit(lambda k: source(FAMILY, far, gaussian_target(), k, 2_000))(key)
        weights = np.exp(np.asarray(log_weights, float) - np.max(log_weights))
        return weights.sum() ** 2 / np.sum(weights**2) / 2_000

    assert share(annealed(32), keys[0]) > 5 * share(self_normalized, keys[1])


def test_it_counts_what_it_costs():
    objective = ForwardKL(FAMILY, annealed(8), 10)
    assert objective.evaluations(gaussian_target()) == 90
    assert objective.describe(gaussian_target()) == "forward KL(p‖q), annealed(num_temperatures=8)"
    with pytest.raises(ValueError, match="num_temperatures: expected at least 1, got 0"):
        annealed(0)
