"""The parametrizations themselves."""

import jax
import jax.numpy as jnp
import numpy as np

import vi_kit as vk


def test_full_rank_covers_every_covariance(key):
    """Row by row: the parameters of a factor L are log diag L and the entries of diag(L)⁻¹ L below the diagonal."""
    factor = np.array([[2.0, 0, 0], [1.0, 0.5, 0], [-3.0, 4.0, 5.0]])
    params = vk.families.FullRank(3).init(key, scale=jnp.asarray(factor, jnp.float32))
    np.testing.assert_allclose(jnp.exp(params.log_scale), [2.0, 0.5, 5.0], rtol=1e-6)
    np.testing.assert_allclose(params.coupling, [1.0 / 0.5, -3.0 / 5.0, 4.0 / 5.0], rtol=1e-6)
    np.testing.assert_allclose(vk.families.FullRank(3).dist(params).scale_tri, factor, rtol=1e-6)


def test_full_rank_without_couplings_is_mean_field(key):
    mean, scale = jnp.array([1.0, -1.0]), jnp.array([0.5, 3.0])
    full = vk.families.FullRank(2).dist(vk.families.FullRank(2).init(key, mean=mean, scale=scale))
    diagonal = vk.families.MeanField(2).dist(vk.families.MeanField(2).init(key, mean=mean, scale=scale))
    z = jnp.array([0.3, 0.4])
    np.testing.assert_allclose(full.log_prob(z), diagonal.log_prob(z), rtol=1e-6)
    seed = jax.random.key(1)
    np.testing.assert_allclose(full.sample(seed=jax.random.clone(seed)), diagonal.sample(seed=seed), rtol=1e-6)


def test_one_dimension_has_no_couplings(key):
    family = vk.families.FullRank(1)
    params = family.init(key, scale=2.0)
    assert params.coupling.shape == (0,)
    np.testing.assert_allclose(family.dist(params).std(), [2.0], rtol=1e-6)
