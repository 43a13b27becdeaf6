"""The block-diagonal family: its density and moments, blocks by size and by variable, and no more than blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vi_kit as vk

BLOCKS = [(3, 0), (1,), (5, 2, 6), (4, 7)]
FAMILY = vk.families.BlockDiagonal(8, BLOCKS)


def member(key):
    params = FAMILY.init(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten([jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)])


def covariance(params):
    """By the textbook: block by block, the entries in the order that the docstring gives."""
    found, start = np.zeros((8, 8)), 0
    for block in sorted(BLOCKS, key=len):
        rows, columns = np.tril_indices(len(block), -1)
        unit = np.eye(len(block))
        unit[rows, columns] = params.coupling[start : start + len(rows)]
        start += len(rows)
        factor = np.exp(np.asarray(params.log_scale, float)[list(block)])[:, None] * unit
        found[np.ix_(block, block)] = factor @ factor.T
    return found


def test_density_and_moments_are_those_of_the_covariance(key):
    member_key, key = jax.random.split(key)
    params = member(member_key)
    q, oracle = FAMILY.dist(params), stats.multivariate_normal(np.asarray(params.mean), covariance(params))
    np.testing.assert_allclose(q.covariance(), covariance(params), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(q.std(), np.sqrt(np.diag(covariance(params))), rtol=1e-5)
    np.testing.assert_allclose(q.entropy(), oracle.entropy(), rtol=1e-5)
    z = jax.random.normal(jax.random.clone(key), (7, 8))
    np.testing.assert_allclose(jax.vmap(q.log_prob)(z), oracle.logpdf(z), rtol=1e-4)
    draw, log_q = q.sample_and_log_prob(seed=key)
    np.testing.assert_allclose(log_q, oracle.logpdf(draw), rtol=1e-5)


def test_a_draw_is_linear_in_its_noise_with_the_covariance(key):
    params = member(key)
    root = jax.jacobian(FAMILY.dist(params).from_base)(jnp.zeros(8))
    np.testing.assert_allclose(root @ root.T, covariance(params), rtol=1e-4, atol=1e-5)


def test_kl_divergence_reads_it(key):
    params = member(key)
    q = vk.families.FullRank(8)
    q = q.dist(q.init_from(jax.random.key(0), FAMILY.dist(params)))
    assert abs(float(vk.kl_divergence(FAMILY.dist(params), q))) < 1e-4
    moved = FAMILY.dist(params._replace(mean=params.mean + 1))
    expected = 0.5 * np.sum(np.linalg.inv(covariance(params)))
    np.testing.assert_allclose(vk.kl_divergence(moved, q), expected, rtol=1e-4)


def test_blocks_are_given_by_sizes_or_coordinates():
    assert vk.families.BlockDiagonal(4, (1, 3)) == vk.families.BlockDiagonal(4, [np.array([0]), np.arange(1, 4)])
    assert vk.families.BlockDiagonal(4, (1, 3)) != vk.families.BlockDiagonal(4, (3, 1))
    for blocks in ((1, 2), (0, 4), (5, -1)):
        with pytest.raises(ValueError, match="blocks: expected positive sizes that sum to dim = 4"):
            vk.families.BlockDiagonal(4, blocks)
    for blocks in ([(0, 1), (2,)], [(0, 1), (1, 2, 3)], [(0, 1, 2, 3), ()], [(0, 1, 2, 4)]):
        with pytest.raises(ValueError, match="blocks: expected every coordinate from 0 to 3 in exactly one block"):
            vk.families.BlockDiagonal(4, blocks)
    for blocks in ((), 4, "nonsense"):
        with pytest.raises(ValueError, match="blocks: expected sizes or the coordinates"):
            vk.families.BlockDiagonal(4, blocks)


def test_blocks_of_one_are_mean_field(key):
    family, other = vk.families.BlockDiagonal(3, (1, 1, 1)), vk.families.MeanField(3)
    scale, z = jnp.array([0.5, 1.0, 4.0]), jnp.array([0.3, 0.4, -2.0])
    one = family.dist(family.init(jax.random.key(0), scale=scale))
    two = other.dist(other.init(jax.random.key(0), scale=scale))
    np.testing.assert_allclose(one.log_prob(z), two.log_prob(z), rtol=1e-6)
    np.testing.assert_allclose(one.sample(seed=jax.random.clone(key)), two.sample(seed=key), rtol=1e-6)


def test_blocks_by_variable():
    like = {"b": jnp.zeros(2), "a": 0.0, "p": jnp.ones(3) / 3, "c": 0.0}
    target = vk.make_target(lambda x: -sum(jnp.sum(v**2) for v in x.values()), like, support={"p": vk.support.simplex})
    assert vk.families.variable_blocks(target) == ((0,), (1, 2), (3,), (4, 5))  # a simplex of 3 has 2 coordinates
    assert vk.families.variable_blocks(target, ("p", "a"), "b") == ((0, 4, 5), (1, 2), (3,))
    assert vk.families.BlockDiagonal(target.dim, vk.families.variable_blocks(target, ("p", "a"))).dim == 6
    with pytest.raises(ValueError, match=r"groups: expected names of variables among .*got 'd'"):
        vk.families.variable_blocks(target, ("a", "d"))
    with pytest.raises(ValueError, match="groups: expected each variable once, got 'a' twice"):
        vk.families.variable_blocks(target, ("a", "b"), "a")


def test_memory_grows_with_the_blocks_not_with_the_dimension_squared():
    def memory(dim):
        family = vk.families.BlockDiagonal(dim, (2,) * (dim // 2))

        def value(params, key):
            q = family.dist(params)
            z, log_q = q.sample_and_log_prob(seed=key)
            return log_q + q.log_prob(2 * z) + jnp.sum(q.std())

        params = jax.eval_shape(family.init, jax.random.key(0))
        lowered = jax.jit(jax.grad(value)).lower(params, jax.eval_shape(lambda: jax.random.key(0)))
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert memory(20_000) < 15 * memory(2_000)
