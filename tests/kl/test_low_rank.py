"""KL between low-rank plus diagonal Gaussians against dense double precision: value, gradient, and what it costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

import vi_kit.kl as kl

divergence = jax.jit(kl.multivariate_normal_low_rank)
compute = jax.jit(jax.value_and_grad(kl.multivariate_normal_low_rank, argnums=tuple(range(6))))


def dense(p_mean, p_factor, p_log_scale, q_mean, q_factor, q_log_scale):
    """Dense, for double precision: Σ_p − Σ_q is formed from differences, and nothing cancels but in x − log(1 + x)."""
    variances = jnp.exp(2 * q_log_scale) * jnp.expm1(2 * (p_log_scale - q_log_scale))
    rank = max(p_factor.shape[1], q_factor.shape[1])
    p_factor, q_factor = (jnp.pad(f, ((0, 0), (0, rank - f.shape[1]))) for f in (p_factor, q_factor))
    step = p_factor - q_factor
    difference = step @ q_factor.T + p_factor @ step.T + jnp.diag(variances)
    lower = jnp.linalg.cholesky(q_factor @ q_factor.T + jnp.diag(jnp.exp(2 * q_log_scale)))
    solve = lambda x: jax.scipy.linalg.solve_triangular(lower, x, lower=True)  # noqa: E731
    x = jnp.linalg.eigvalsh(solve(solve(difference).T))
    near = jnp.where(jnp.abs(x) < 1e-2, x, 0.0)
    series = sum((-near) ** k / k for k in range(2, 10))
    far = jnp.where(jnp.abs(x) < 1e-2, 1.0, x)
    return 0.5 * (
        jnp.sum(jnp.where(jnp.abs(x) < 1e-2, series, far - jnp.log1p(far))) + jnp.sum(solve(p_mean - q_mean) ** 2)
    )


dense_compute = jax.jit(jax.value_and_grad(dense, argnums=tuple(range(6))))


def exact(inputs):
    """Value and gradients in double precision on the same inputs."""
    with jax.enable_x64(True):
        doubles = [jnp.asarray(np.asarray(v), jnp.float64) for v in inputs]
        return jax.tree.map(np.asarray, dense_compute(*doubles))


def pair(rng, dim, rank, size, p_rank=None):
    """Return parameters of p and q; those of p differ by the size."""
    q = [rng.normal(size=dim), rng.normal(size=(dim, rank)), 0.5 * rng.normal(size=dim)]
    p = [v + size * rng.normal(size=v.shape) for v in q]
    if p_rank is not None:
        p[1] = rng.normal(size=(dim, p_rank))
    return [v.astype(np.float32) for v in (*p, *q)]


@pytest.mark.parametrize("size", [3.0, 1.0, 0.3, 0.1, 1e-2, 1e-3, 1e-4, 1e-5])
def test_value_and_gradient_keep_their_digits_however_close_p_and_q_are(size):
    """The textbook sum of trace, log determinants and −d loses everything in float32 at 1e-4 (below)."""
    rng = np.random.default_rng(0)
    for _ in range(3):
        inputs = pair(rng, 8, 2, size)
        value, gradients = compute(*inputs)
        expected, expected_gradients = exact(inputs)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        for found, truth in zip(gradients, expected_gradients, strict=True):
            assert np.linalg.norm(found - truth) <= 3e-5 * np.linalg.norm(truth)


def test_the_textbook_formula_would_fail_that():
    inputs = pair(np.random.default_rng(0), 8, 2, 1e-4)
    _, p_factor, p_log_scale, _, q_factor, q_log_scale = inputs
    p, q = (f @ f.T + np.diag(np.exp(2 * s)) for f, s in ((p_factor, p_log_scale), (q_factor, q_log_scale)))
    textbook = 0.5 * (np.trace(np.linalg.solve(q, p)) - 8 + np.linalg.slogdet(q)[1] - np.linalg.slogdet(p)[1])
    inputs[0] = inputs[3]
    assert textbook.dtype == np.float32
    assert abs(textbook / exact(inputs)[0] - 1) > 0.1


@pytest.mark.parametrize(("p_rank", "rank"), [(3, 1), (0, 2), (8, 0)])
def test_ranks_may_differ_and_be_zero(p_rank, rank):
    rng = np.random.default_rng(1)
    inputs = pair(rng, 6, rank, 0.5, p_rank)
    value, gradients = compute(*inputs)
    expected, expected_gradients = exact(inputs)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for found, truth in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-4)


def test_without_columns_it_is_the_elementwise_normal():
    rng = np.random.default_rng(2)
    p_mean, p_log_scale, q_mean, q_log_scale = jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)
    empty = jnp.zeros((5, 0))
    found = divergence(p_mean, empty, p_log_scale, q_mean, empty, q_log_scale)
    np.testing.assert_allclose(found, jnp.sum(kl.normal(p_mean, p_log_scale, q_mean, q_log_scale)), rtol=1e-6)


def test_zero_with_zero_gradient_at_equality():
    inputs = pair(np.random.default_rng(3), 8, 2, 0.0)
    value, gradients = compute(*inputs)
    assert value == 0
    for gradient in gradients:
        np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


@pytest.mark.slow
def test_the_curvature_at_equality_is_the_fisher_information():
    """½ tr(Σ⁻¹ ∂Σ Σ⁻¹ ∂Σ) for the parameters of the covariance, Σ⁻¹ for the mean."""
    rng = np.random.default_rng(4)
    mean, factor, log_scale = (np.float32(v) for v in pair(rng, 3, 1, 0.0)[3:])
    covariance = lambda v: jnp.outer(v[3:6], v[3:6]) + jnp.diag(jnp.exp(2 * v[6:]))  # noqa: E731
    point = jnp.concatenate([mean, factor[:, 0], log_scale])
    read = lambda v: (v[:3], v[3:6, None], v[6:])  # noqa: E731
    hessian = jax.jit(jax.hessian(lambda v: divergence(*read(v), mean, factor, log_scale)))(point)
    precision = np.linalg.inv(np.float64(covariance(point)))
    slopes = precision @ np.moveaxis(np.float64(jax.jacfwd(covariance)(point)), -1, 0)
    fisher = 0.5 * np.einsum("aij,bji->ab", slopes, slopes)
    fisher[:3, :3] += precision
    np.testing.assert_allclose(hessian, fisher, rtol=1e-4, atol=1e-4)


def test_factors_that_are_rotations_of_each_other_agree_to_rounding():
    """What the docstring says does not hold: the same covariance by another factor is 0 only absolutely."""
    rng = np.random.default_rng(5)
    _, _, _, mean, factor, log_scale = pair(rng, 8, 2, 0.0)
    rotation = np.linalg.qr(rng.normal(size=(2, 2)))[0].astype(np.float32)
    value = divergence(mean, factor @ rotation, log_scale, mean, factor, log_scale)
    assert abs(value) < 8 * 1e-6


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_factors_far_from_the_diagonal_in_size(scale):
    rng = np.random.default_rng(6)
    inputs = pair(rng, 8, 2, 0.1)
    inputs[1] *= np.float32(scale)
    for arguments in (inputs, inputs[3:] + inputs[:3]):
        np.testing.assert_allclose(compute(*arguments)[0], exact(arguments)[0], rtol=1e-5)


@pytest.mark.parametrize("factor_size", [0.0, 1.0])
def test_scales_of_p_that_underflow(factor_size):
    """In units of p's diagonal part the factor overflows float32, and its square long before."""
    rng = np.random.default_rng(9)
    inputs = pair(rng, 8, 2, 0.5)
    inputs[1] *= np.float32(factor_size)
    for log_scale in (-30.0, -44.0, -60.0, -100.0):
        inputs[2] = np.full(8, log_scale, np.float32)
        value, gradients = compute(*inputs)
        # All but two directions of p are points: each is log-scale away from the reference at 0.
        count = 6 if factor_size else 8
        reference = compute(*inputs[:2], np.full(8, -20, np.float32), *inputs[3:])[0]
        np.testing.assert_allclose(value - reference, -count * (log_scale + 20), rtol=1e-5)
        assert all(np.all(np.isfinite(g)) for g in gradients)


def test_batches_broadcast_and_masked_events_are_zero():
    rng = np.random.default_rng(7)
    rows = [pair(rng, 4, 2, 0.5)[:3] for _ in range(3)]
    q = pair(rng, 4, 1, 0.0)[3:]
    stacked = [jnp.stack([row[i] for row in rows]) for i in range(3)]
    values = divergence(*stacked, *q)
    np.testing.assert_allclose(values, [divergence(*row, *q) for row in rows], rtol=1e-6)
    keep = jnp.array([True, False, True])
    holed = [v.at[1].set(jnp.nan) for v in stacked]
    total = lambda p: jnp.sum(kl.multivariate_normal_low_rank(*p, *q, mask=keep))  # noqa: E731
    value, gradients = jax.jit(jax.value_and_grad(total))(holed)
    np.testing.assert_allclose(value, values[0] + values[2], rtol=1e-6)
    assert all(np.all(g[1] == 0) and np.all(np.isfinite(g)) for g in gradients)


def shapes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (v.aval.shape for v in equation.outvars)
        for sub in jaxprs_in_params(equation.params):
            yield from shapes(sub)


def test_no_array_of_dimension_squared():
    dim, rank = 5000, 4
    rng = np.random.default_rng(8)
    inputs = pair(rng, dim, rank, 1e-3)
    jaxpr = jax.make_jaxpr(jax.value_and_grad(kl.multivariate_normal_low_rank, argnums=tuple(range(6))))(*inputs)
    largest = max(int(np.prod(shape)) for shape in shapes(jaxpr.jaxpr))
    assert largest <= dim * (2 * rank + 1)
    compiled = compute.lower(*inputs).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 100 * 4 * dim * rank  # d × d would be 100 MB
    assert np.isfinite(compiled(*inputs)[0])


def test_shapes_that_do_not_fit_are_refused():
    mean, factor, log_scale = jnp.zeros(3), jnp.zeros((3, 2)), jnp.zeros(3)
    with pytest.raises(ValueError, match=r"q_factor: expected shape \(…, 3, r\).*got \(2, 3\)"):
        kl.multivariate_normal_low_rank(mean, factor, log_scale, mean, factor.T, log_scale)
    with pytest.raises(ValueError, match=r"p_log_scale: expected shape \(…, 3\).*got \(\)"):
        kl.multivariate_normal_low_rank(mean, factor, 0.0, mean, factor, log_scale)


def test_without_dimensions_or_events_it_is_empty():
    none = jnp.zeros(0), jnp.zeros((0, 1)), jnp.zeros(0)
    assert kl.multivariate_normal_low_rank(*none, *none) == 0
    batch = jnp.zeros((0, 3)), jnp.zeros((3, 1)), jnp.zeros(3)
    assert divergence(*batch, *batch).shape == (0,)
