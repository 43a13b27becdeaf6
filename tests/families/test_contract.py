"""What every family promises: a normalized density, draws that agree with it, and parameters that are all legal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import DIM, FAMILIES
from scipy import stats
from statistical import assert_mean, assert_same_distribution, expect_rejection

from vi_kit._types import NormalBase

MEAN = np.array([0.5, -1.0])
DEVIATIONS = np.array([0.7, 1.6])
FACTOR = np.array([[0.8, 0.0], [-0.6, 1.3]])
NUM = 20_000

families = pytest.mark.parametrize("row", FAMILIES.values(), ids=FAMILIES)


def build(row, *, scale=None):
    """A member with mean MEAN and, where the family takes one, a factor as its scale; with its covariance."""
    if scale is None:
        scale = FACTOR if row.matrix_scale else DEVIATIONS
    params = row.family.init(jax.random.key(0), mean=jnp.asarray(MEAN), scale=jnp.asarray(scale))
    factor = scale if np.ndim(scale) == 2 else np.diag(np.broadcast_to(scale, (DIM,)))
    if row.couples:  # an exact one has a test of its own
        return params, np.asarray(row.family.dist(params).covariance(), np.float64)
    return params, factor @ factor.T


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=list(FAMILIES))
def drawn(request):
    """NUM draws of a member with their log densities."""
    row = request.param
    params, covariance = build(row)
    keys = jax.random.split(jax.random.key(1), NUM)
    draw = jax.jit(jax.vmap(lambda params, key: row.family.dist(params).sample_and_log_prob(seed=key), (None, 0)))
    z, log_q = draw(params, keys)
    return row, params, covariance, np.asarray(z), np.asarray(log_q)


@families
def test_is_a_family_that_compares_by_value(row):
    assert row.family == type(row.family)(DIM)
    assert hash(row.family) == hash(type(row.family)(DIM))
    assert row.family != type(row.family)(DIM + 1)
    assert row.family.dim == DIM


@pytest.mark.parametrize("dim", [0, -1, 1.5, True, "2"])
@families
def test_dimension_is_checked(row, dim):
    with pytest.raises(ValueError, match="dim: expected a positive int"):
        type(row.family)(dim)


@families
def test_init_is_an_exact_round_trip(row):
    for scale in (DEVIATIONS, 0.3, *([FACTOR] if row.matrix_scale else [])):
        params, _ = build(row, scale=scale)
        factor = scale if np.ndim(scale) == 2 else np.diag(np.broadcast_to(scale, (DIM,)))
        covariance = factor @ factor.T
        q = row.family.dist(params)
        np.testing.assert_allclose(q.mean(), MEAN, rtol=1e-6)
        np.testing.assert_allclose(q.std(), np.sqrt(np.diag(covariance)), rtol=1e-6)
        np.testing.assert_allclose(q.covariance(), covariance, rtol=1e-5, atol=1e-6 + row.couples * covariance.max())


@families
def test_init_defaults_to_the_standard_normal(row):
    q = row.family.dist(row.family.init(jax.random.key(0)))
    np.testing.assert_array_equal(q.mean(), np.zeros(DIM))
    np.testing.assert_allclose(q.covariance(), np.eye(DIM), rtol=1e-6, atol=row.couples)


@families
def test_scales_and_means_are_checked(row):
    key = jax.random.key(0)
    for scale in (0.0, -1.0, jnp.array([1.0, 0.0])):
        with pytest.raises(ValueError, match="scale: must be positive, got a smallest value of"):
            row.family.init(key, scale=scale)
    for scale in (jnp.nan, jnp.inf, jnp.array([1.0, jnp.nan])):
        with pytest.raises(ValueError, match="scale: must be finite"):
            row.family.init(key, scale=scale)
    with pytest.raises(ValueError, match=r"scale: expected shape .*got \(3,\)"):
        row.family.init(key, scale=jnp.ones(3))
    with pytest.raises(ValueError, match=r"mean: expected shape \(2,\), got \(3,\)"):
        row.family.init(key, mean=jnp.ones(3))
    with pytest.raises(ValueError, match="mean: must be finite"):
        row.family.init(key, mean=jnp.array([0.0, jnp.nan]))
    matrix_message = "entries above its diagonal" if row.matrix_scale else "scale: expected shape"
    with pytest.raises(ValueError, match=matrix_message):
        row.family.init(key, scale=jnp.array([[1.0, 0.5], [0.5, 1.0]]))


@families
def test_init_can_be_traced(row):
    mapped = jax.vmap(lambda s: row.family.init(jax.random.key(0), scale=s))(jnp.array([0.5, 2.0]))
    np.testing.assert_allclose(jnp.exp(mapped.log_scale), [[0.5, 0.5], [2.0, 2.0]], rtol=1e-6 + row.couples)


@families
def test_log_prob_is_scipys(row, key):
    params, covariance = build(row)
    points = np.asarray(3 * jax.random.normal(key, (20, DIM)))
    found = jax.vmap(lambda z: row.family.dist(params).log_prob(z))(points)
    assert row.gaussian, "another family brings its own oracle"
    np.testing.assert_allclose(found, stats.multivariate_normal.logpdf(points, MEAN, covariance), rtol=1e-5, atol=1e-5)


@families
def test_density_integrates_to_one(row):
    """On a grid over eight standard deviations; the trapezoid rule is exact to rounding for such functions."""
    params, covariance = build(row)
    deviations = np.sqrt(np.diag(covariance))
    axes = [np.linspace(m - 8 * s, m + 8 * s, 121) for m, s in zip(MEAN, deviations, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, DIM)
    density = np.exp(
        np.asarray(jax.vmap(lambda z: row.family.dist(params).log_prob(z))(jnp.asarray(grid, jnp.float32)), float)
    )
    np.testing.assert_allclose(density.sum() * np.prod([a[1] - a[0] for a in axes]), 1.0, rtol=1e-5)


def test_draws_follow_the_density(drawn):
    _, _, covariance, z, log_q = drawn
    deviations = np.sqrt(np.diag(covariance))
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), (z - MEAN).T).T
    assert_same_distribution(whitened, stats.norm.cdf)
    expect_rejection(lambda: assert_same_distribution(whitened * 1.1, stats.norm.cdf))
    centered = z - MEAN
    assert_mean(centered[:, :, None] * centered[:, None, :], covariance, effect=0.2)
    expect_rejection(lambda: assert_mean(centered[:, :, None] * centered[:, None, :], covariance + 0.2))
    assert_mean(z, MEAN, effect=0.1 * deviations.max())
    np.testing.assert_allclose(log_q, stats.multivariate_normal.logpdf(z, MEAN, covariance), rtol=1e-5, atol=1e-5)


def test_entropy_is_the_mean_of_minus_log_q(drawn):
    row, params, covariance, _, log_q = drawn
    entropy = row.family.dist(params).entropy()
    np.testing.assert_allclose(entropy, stats.multivariate_normal.entropy(MEAN, covariance), rtol=1e-6)
    assert_mean(-log_q, entropy, effect=0.05)
    expect_rejection(lambda: assert_mean(-log_q, entropy + 0.05))


def test_sample_and_its_joint_form_give_the_same_draw(drawn):
    row, params, *_ = drawn
    key = jax.random.key(3)
    z, log_q = row.family.dist(params).sample_and_log_prob(seed=jax.random.clone(key))
    np.testing.assert_allclose(row.family.dist(params).sample(seed=key), z, rtol=1e-6)
    np.testing.assert_allclose(row.family.dist(params).log_prob(z), log_q, rtol=1e-5)


@families
def test_draws_are_functions_of_their_base_normals(row, key):
    """Where q says so: the same key gives the same draw, and the noise is standard normal."""
    q = row.family.dist(build(row)[0])
    assert isinstance(q, NormalBase) == row.normal_base
    if not row.normal_base:
        return
    noise = jax.random.normal(jax.random.clone(key), (q.num_base,))
    z = q.from_base(noise)
    np.testing.assert_allclose(q.sample(seed=key), z, rtol=1e-6)
    moved = jax.vmap(q.from_base)(noise[None] + jnp.eye(q.num_base))  # every number of the noise matters
    assert np.all(np.any(np.abs(moved - z[None]) > 1e-6, axis=1))


@families
def test_any_real_parameters_are_legal(row, key):
    """No point an optimizer reaches is outside: values and gradients stay finite far out."""
    params = row.family.init(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    noise = [
        4 * jax.random.normal(k, (64, *leaf.shape))
        for k, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True)
    ]
    wild = structure.unflatten(noise)

    def value(params):
        z, log_q = row.family.dist(params).sample_and_log_prob(seed=jax.random.key(0))
        return log_q, z

    (log_q, z), gradients = jax.jit(jax.vmap(jax.value_and_grad(value, has_aux=True)))(wild)
    for leaf in jax.tree.leaves((log_q, z, gradients)):
        assert np.all(np.isfinite(leaf))
    assert np.all(jax.vmap(lambda p: row.family.dist(p).std())(wild) > 0)


@families
def test_reparameterized_gradient_is_the_finite_difference(row, x64):
    """With common random numbers the draw is a smooth function of the parameters."""
    assert row.family.reparameterized
    params, _ = build(row)
    flat, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(lambda leaf: leaf.astype(float), params))
    key = jax.random.key(4)

    def f(flat):
        z = row.family.dist(unravel(flat)).sample(seed=jax.random.clone(key))
        return jnp.sum(jnp.sin(z) * jnp.array([1.0, 2.0])) + z[0] * z[1]

    f = jax.jit(f)
    step = 1e-6
    expected = [(f(flat + step * e) - f(flat - step * e)) / (2 * step) for e in np.eye(flat.size)]
    np.testing.assert_allclose(jax.grad(f)(flat), expected, rtol=1e-6, atol=1e-8)


@families
def test_double_precision_stays_double(row, x64):
    params = row.family.init(jax.random.key(0))
    z, log_q = row.family.dist(params).sample_and_log_prob(seed=jax.random.key(1))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, z, log_q))} == {jnp.dtype("float64")}
