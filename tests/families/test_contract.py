"""What every family promises: a normalized density, draws that agree with it, and parameters that are all legal."""

from typing import NamedTuple

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

SLOW = {"spline_flow", "student_t_flow"}  # they compile for half a minute; tests/families/test_flow.py is quicker
families = pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=[pytest.mark.slow] * (name in SLOW), id=name) for name, row in FAMILIES.items()],
)


def build(row, *, scale=None):
    """A member with mean MEAN and, where the family takes one, a factor as its scale; with its covariance."""
    if scale is None:
        scale = FACTOR if row.matrix_scale else DEVIATIONS
    params = row.family.init(jax.random.key(0), mean=jnp.asarray(MEAN), scale=jnp.asarray(scale))
    factor = scale if np.ndim(scale) == 2 else np.diag(np.broadcast_to(scale, (DIM,)))
    if row.couples:  # an exact one has a test of its own
        return params, np.asarray(row.family.dist(params).covariance(), np.float64)
    return params, factor @ factor.T


def member(row):
    """A member with mean, covariance, entropy and marginal distributions: by hand where normal, else by quadrature."""
    params, covariance = build(row)
    if row.gaussian:
        deviations = np.sqrt(np.diag(covariance))
        cdfs = [stats.norm(m, s).cdf for m, s in zip(MEAN, deviations, strict=True)]
        return params, Moments(MEAN, covariance, stats.multivariate_normal.entropy(MEAN, covariance), cdfs)
    leaves, structure = jax.tree.flatten(params)  # away from what `init` makes, all of them
    keys = jax.random.split(jax.random.key(5), len(leaves))
    leaves = [leaf + row.moved * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    params = structure.unflatten(leaves)
    return params, quadrature(row, params)


class Moments(NamedTuple):
    mean: np.ndarray
    covariance: np.ndarray
    entropy: float
    cdfs: list


def grid(row, params, reach=12.0, size=401):
    """Points over so many standard deviations, the weight of each, and the axes."""
    q = row.family.dist(params)
    mean, deviations = np.asarray(q.mean(), float), np.asarray(q.std(), float)
    axes = [np.linspace(m - reach * s, m + reach * s, size) for m, s in zip(mean, deviations, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, DIM)
    return points, np.prod([axis[1] - axis[0] for axis in axes]), axes


def log_density(row, params, points):
    """The family's own, many points at once."""
    return np.asarray(
        jax.jit(jax.vmap(lambda params, z: row.family.dist(params).log_prob(z), (None, 0)))(
            params, jnp.asarray(points, jnp.float32)
        ),
        float,
    )


def quadrature(row, params):
    points, weight, axes = grid(row, params)
    log_q = log_density(row, params, points) if row.oracle is None else row.oracle(params, points)
    density = np.exp(log_q) * weight
    mean = density @ points
    centered = points - mean
    marginals = [density.reshape(len(axes[0]), -1).sum(axis=1 - i) for i in range(DIM)]
    # Half of each cell lies below its point.
    cdfs = [
        lambda x, a=axis, m=marginal: np.interp(x, a, np.cumsum(m) - 0.5 * m)
        for axis, marginal in zip(axes, marginals, strict=True)
    ]
    return Moments(mean, (density[:, None] * centered).T @ centered, -(density @ log_q), cdfs)


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=list(FAMILIES))
def drawn(request):
    """NUM draws of a member with their log densities."""
    row = request.param
    params, moments = member(row)
    keys = jax.random.split(jax.random.key(1), NUM)
    draw = jax.jit(jax.vmap(lambda params, key: row.family.dist(params).sample_and_log_prob(seed=key), (None, 0)))
    z, log_q = draw(params, keys)
    return row, params, moments, np.asarray(z), np.asarray(log_q)


@families
def test_is_a_family_that_compares_by_value(row):
    assert row.family == row.make(DIM)
    assert hash(row.family) == hash(row.make(DIM))
    assert row.family != row.make(DIM + 1)
    assert row.family.dim == DIM


@pytest.mark.parametrize("dim", [0, -1, 1.5, True, "2"])
@families
def test_dimension_is_checked(row, dim):
    with pytest.raises(ValueError, match="dim: expected a positive int"):
        row.make(dim)


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
    np.testing.assert_allclose(q.mean(), np.zeros(DIM), atol=1e-6)
    np.testing.assert_allclose(q.covariance(), np.eye(DIM), rtol=1e-6, atol=row.couples + 1e-6)


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
    deviations = jax.vmap(lambda params: row.family.dist(params).std())(mapped)
    np.testing.assert_allclose(deviations, [[0.5, 0.5], [2.0, 2.0]], rtol=2e-6)


@families
def test_log_prob_is_scipys(row, key):
    params, _ = member(row)
    if not row.gaussian and row.oracle is None:
        return  # normalized, and followed by the draws: the two next tests
    points = np.asarray(3 * jax.random.normal(key, (20, DIM)), np.float64)
    if row.gaussian:
        expected = stats.multivariate_normal.logpdf(points, MEAN, build(row)[1])
    else:
        expected = row.oracle(params, points)
    np.testing.assert_allclose(log_density(row, params, points), expected, rtol=1e-5, atol=1e-5)


@families
def test_density_integrates_to_one(row):
    """On a grid; the trapezoid rule is exact to rounding for such functions."""
    params, _ = member(row)
    points, weight, _ = grid(row, params)
    np.testing.assert_allclose(np.exp(log_density(row, params, points)).sum() * weight, 1.0, rtol=row.grid_error)


@families
def test_moments_are_those_of_the_density(row):
    params, moments = member(row)
    q = row.family.dist(params)
    deviations = np.sqrt(np.diag(moments.covariance))
    np.testing.assert_allclose(q.mean(), moments.mean, atol=row.moment_error * deviations.max())
    np.testing.assert_allclose(q.std(), deviations, rtol=row.moment_error)
    np.testing.assert_allclose(q.covariance(), moments.covariance, atol=2 * row.moment_error * moments.covariance.max())


def test_draws_follow_the_density(drawn):
    row, params, moments, z, log_q = drawn
    uniform = np.stack([cdf(z[:, i]) for i, cdf in enumerate(moments.cdfs)], axis=1)
    assert_same_distribution(uniform, stats.uniform.cdf)
    wider = moments.mean + 1.1 * (z - moments.mean)
    wider = np.stack([cdf(wider[:, i]) for i, cdf in enumerate(moments.cdfs)], axis=1)
    expect_rejection(lambda: assert_same_distribution(wider, stats.uniform.cdf))
    centered = z - moments.mean
    products = centered[:, :, None] * centered[:, None, :]
    assert_mean(products, moments.covariance, effect=0.2 * max(1, moments.covariance.max() / 2))
    expect_rejection(lambda: assert_mean(products, moments.covariance * 1.2 + 0.1))
    assert_mean(z, moments.mean, effect=0.1 * np.sqrt(moments.covariance.max()))
    np.testing.assert_allclose(log_q, log_density(row, params, z), rtol=1e-5, atol=row.joint_error)


def test_entropy_is_the_mean_of_minus_log_q(drawn):
    row, params, moments, _, log_q = drawn
    if row.entropy:
        np.testing.assert_allclose(row.family.dist(params).entropy(), moments.entropy, rtol=row.grid_error)
    else:
        with pytest.raises(NotImplementedError, match=r"entropy: .* none in closed form"):
            row.family.dist(params).entropy()
    assert_mean(-log_q, moments.entropy, effect=0.05)
    expect_rejection(lambda: assert_mean(-log_q, moments.entropy + 0.05))


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
    if not row.normal_base:  # other draws have tests of their own
        return
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
