"""KL between Gaussians against double precision on the very same float32 inputs: value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vi_kit.kl as kl


def exact_normal(p_mean, p_log_scale, q_mean, q_log_scale):
    """In double precision with the cancelling part by its series where it is small (relative error 1e-15)."""
    p_mean, p_log_scale, q_mean, q_log_scale = (np.float64(v) for v in (p_mean, p_log_scale, q_mean, q_log_scale))
    a = 2 * (p_log_scale - q_log_scale)
    series = sum(a**k / np.prod(np.arange(1.0, k + 1)) for k in range(2, 18))
    with np.errstate(over="ignore"):
        rest = np.where(np.abs(a) < 0.5, series, np.expm1(a) - a)
    return 0.5 * (rest + ((p_mean - q_mean) * np.exp(-q_log_scale)) ** 2)


def near_pair(rng, size, scale=1.0, dim=None):
    shape = (dim,) if dim else ()
    base = rng.normal(size=(2, *shape)) * scale
    return [
        np.float32(v) for v in (base[0] + size * rng.normal(size=shape), base[1] + size * rng.normal(size=shape), *base)
    ]


@pytest.mark.parametrize("size", [1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
def test_normal_keeps_its_digits_near_equality(size):
    """The difference of inputs is exact in float32, so nothing but rounding may be lost."""
    rng = np.random.default_rng(0)
    inputs = np.array([near_pair(rng, size) for _ in range(200)]).T
    np.testing.assert_allclose(kl.normal(*inputs), exact_normal(*inputs), rtol=2e-6)
    value, gradient = jax.value_and_grad(lambda v: jnp.sum(kl.normal(*v)))(jnp.asarray(inputs))
    p_mean, p_log_scale, q_mean, q_log_scale = inputs.astype(np.float64)
    a, shift, precision = 2 * (p_log_scale - q_log_scale), p_mean - q_mean, np.exp(-2 * q_log_scale)
    expected = np.array([shift * precision, np.expm1(a), -shift * precision, -np.expm1(a) - shift**2 * precision])
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).min(axis=0).max())
    assert value >= 0


def test_the_textbook_formula_would_fail_that():
    """Negative control: log q/p + (σ_p² + Δ²)/2σ_q² − 1/2 in float32 loses everything at 1e-4."""
    s, t = np.float32(0.3001), np.float32(0.3)
    textbook = (t - s) + np.exp(2 * s) / (2 * np.exp(2 * t)) - np.float32(0.5)
    assert abs(textbook / exact_normal(0.0, s, 0.0, t) - 1) > 0.1
    np.testing.assert_allclose(kl.normal(0.0, s, 0.0, t), exact_normal(0.0, s, 0.0, t), rtol=2e-6)


@pytest.mark.parametrize("log_scale", [-200.0, -80.0, 0.0, 80.0, 200.0])
def test_normal_is_zero_with_zero_gradient_at_equality(log_scale):
    point = jnp.array([1.5, log_scale, 1.5, log_scale])
    value, gradient = jax.value_and_grad(lambda v: kl.normal(*v))(point)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0.0)


def test_normal_survives_scales_that_underflow():
    """exp(−200) is zero in float32; the KL is 199.5."""
    value, gradient = jax.value_and_grad(lambda v: kl.normal(v[0], v[1], v[2], v[3]))(
        jnp.array([0.0, -200.0, 0.0, 0.0])
    )
    np.testing.assert_allclose(value, 199.5, rtol=1e-6)
    np.testing.assert_allclose(gradient, [0.0, -1.0, 0.0, 1.0], rtol=1e-6)
    assert kl.normal(1.0, -200.0, 0.0, -200.0) == np.inf


def test_normal_curvature_is_the_fisher_information():
    """The second derivative at equality: 1/σ² in the mean, 2 in the log scale."""
    hessian = jax.hessian(lambda v: kl.normal(v[0], v[1], 1.0, 0.5))(jnp.array([1.0, 0.5]))
    np.testing.assert_allclose(hessian, np.diag([np.exp(-1.0), 2.0]), rtol=1e-5, atol=1e-6)


def test_normal_is_elementwise_with_standard_normal_as_default():
    values = kl.normal(jnp.array([0.0, 1.0, 2.0]), jnp.zeros(3))
    np.testing.assert_allclose(values, [0.0, 0.5, 2.0])
    assert kl.normal(1, 0).dtype == jnp.float32


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    p_mean, p_log_scale = jnp.asarray(3.0, dtype), jnp.asarray(-7.0, dtype)
    value = kl.normal(p_mean, p_log_scale)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, exact_normal(3.0, -7.0, 0.0, 0.0), rtol=1e-6)
    assert jax.grad(lambda m: kl.normal(m, p_log_scale))(p_mean).dtype == dtype


def test_double_precision_is_used_where_it_is_given(x64):
    rng = np.random.default_rng(1)
    inputs = [rng.normal(size=100) for _ in range(4)]
    value = kl.normal(*map(jnp.asarray, inputs))
    assert value.dtype == jnp.float64
    np.testing.assert_allclose(value, exact_normal(*inputs), rtol=1e-9)


def random_factor(rng, dim):
    return np.tril(rng.normal(size=(dim, dim)), -1) * 0.5 + np.diag(np.exp(0.5 * rng.normal(size=dim)))


def exact_multivariate(p_mean, p_factor, q_mean, q_factor):
    """In double precision; only the sum over the diagonal cancels, and is taken by the series above."""
    p_mean, p_factor, q_mean, q_factor = (np.asarray(v, np.float64) for v in (p_mean, p_factor, q_mean, q_factor))
    m = np.linalg.solve(q_factor, p_factor)
    shift = np.linalg.solve(q_factor, p_mean - q_mean)
    log_diagonal = np.log(np.diag(p_factor)) - np.log(np.diag(q_factor))
    on_diagonal = sum(exact_normal(0.0, a, 0.0, 0.0) for a in log_diagonal)
    return on_diagonal + 0.5 * (np.sum(np.tril(m, -1) ** 2) + shift @ shift)


multivariate = jax.jit(jax.value_and_grad(kl.multivariate_normal, argnums=(0, 1, 2, 3)))


@pytest.mark.parametrize("size", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
def test_multivariate_normal_keeps_its_digits_near_equality(size):
    rng = np.random.default_rng(2)
    for _ in range(20):
        q_mean, q_factor = rng.normal(size=3), random_factor(rng, 3)
        p_mean = q_mean + size * rng.normal(size=3)
        p_factor = q_factor + size * np.tril(rng.normal(size=(3, 3)))
        inputs = [v.astype(np.float32) for v in (p_mean, p_factor, q_mean, q_factor)]
        value, gradients = multivariate(*inputs)
        np.testing.assert_allclose(value, exact_multivariate(*inputs), rtol=1e-5)
        assert all(np.all(np.isfinite(g)) for g in gradients)


def test_multivariate_normal_far_apart():
    """Where p is far narrower than q, M − I would round to −I."""
    for ratio in (1e-10, 1e-4, 1e4, 1e10):
        inputs = [np.float32(v) for v in (np.zeros(2), np.diag([ratio, 1.0]), np.ones(2), np.eye(2))]
        value, gradients = multivariate(*inputs)
        np.testing.assert_allclose(value, exact_multivariate(*inputs), rtol=1e-5)
        assert all(np.all(np.isfinite(g)) for g in gradients)


def test_multivariate_normal_against_the_textbook_in_double_precision(x64):
    rng = np.random.default_rng(3)
    p_mean, p_factor, q_mean, q_factor = (
        rng.normal(size=4),
        random_factor(rng, 4),
        rng.normal(size=4),
        random_factor(rng, 4),
    )
    p_covariance, q_covariance = p_factor @ p_factor.T, q_factor @ q_factor.T
    expected = 0.5 * (
        np.trace(np.linalg.inv(q_covariance) @ p_covariance)
        + (q_mean - p_mean) @ np.linalg.inv(q_covariance) @ (q_mean - p_mean)
        - 4
        + np.log(np.linalg.det(q_covariance) / np.linalg.det(p_covariance))
    )
    found = kl.multivariate_normal(*map(jnp.asarray, (p_mean, p_factor, q_mean, q_factor)))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_multivariate_normal_is_zero_with_zero_gradient_at_equality():
    rng = np.random.default_rng(4)
    mean, factor = jnp.asarray(rng.normal(size=3), jnp.float32), jnp.asarray(random_factor(rng, 3), jnp.float32)
    value, gradients = multivariate(mean, factor, mean, factor)
    assert value == 0
    for gradient in gradients:
        np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


def test_multivariate_normal_takes_batches_that_broadcast():
    rng = np.random.default_rng(5)
    p_mean, q_mean = rng.normal(size=(4, 1, 3)), rng.normal(size=3)
    p_factor, q_factor = [random_factor(rng, 3) for _ in range(5)], random_factor(rng, 3)
    arguments = [jnp.asarray(v, jnp.float32) for v in (p_mean, np.stack(p_factor), q_mean, q_factor)]
    values = jax.jit(kl.multivariate_normal)(*arguments)
    assert values.shape == (4, 5)
    expected = [[exact_multivariate(m[0], f, q_mean, q_factor) for f in p_factor] for m in p_mean]
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    # A batch axis is vmap over it, and q's gradient is the sum of the rows'.
    one = jax.jit(jax.vmap(kl.multivariate_normal, in_axes=(0, 0, None, None)))
    rows = jnp.broadcast_to(arguments[0], (4, 5, 3))
    np.testing.assert_allclose(one(rows[0], *arguments[1:]), values[0], rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda q: jnp.sum(kl.multivariate_normal(rows[0], arguments[1], arguments[2], q))))
    found = gradient(arguments[3])
    single = jax.jit(jax.grad(lambda q, f: kl.multivariate_normal(rows[0, 0], f, arguments[2], q)))
    np.testing.assert_allclose(found, sum(single(arguments[3], f) for f in arguments[1]), rtol=1e-5, atol=1e-5)


def test_multivariate_normal_without_dimensions_or_events_is_empty():
    assert kl.multivariate_normal(jnp.zeros(0), jnp.zeros((0, 0)), jnp.zeros(0), jnp.zeros((0, 0))) == 0
    assert kl.multivariate_normal(jnp.zeros((0, 2)), jnp.eye(2), jnp.zeros(2), jnp.eye(2)).shape == (0,)


def test_a_triangular_diagonal_is_the_elementwise_normal():
    rng = np.random.default_rng(6)
    p_mean, q_mean, p_log_scale, q_log_scale = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
    whole = kl.multivariate_normal(p_mean, jnp.diag(jnp.exp(p_log_scale)), q_mean, jnp.diag(jnp.exp(q_log_scale)))
    np.testing.assert_allclose(whole, jnp.sum(kl.normal(p_mean, p_log_scale, q_mean, q_log_scale)), rtol=1e-5)


@pytest.mark.parametrize("nan", [jnp.nan, jnp.inf])
def test_what_a_mask_leaves_out_gives_zero_and_zero_gradient(nan):
    keep = jnp.array([True, False])

    def total(mean, log_scale, events, factor):
        multivariate = kl.multivariate_normal(events, factor, jnp.zeros(2), jnp.eye(2), mask=keep)
        return jnp.sum(kl.normal(mean, log_scale, mask=keep)) + jnp.sum(multivariate)

    point = jnp.array([1.0, nan]), jnp.array([0.0, nan]), jnp.full((2, 2), nan).at[0].set(1.0)
    factor = jnp.full((2, 2, 2), nan).at[0].set(jnp.eye(2))
    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2, 3)))(*point, factor)
    assert value == 1.5
    for found, expected in zip(gradients, ([1, 0], [0, 0], [[1, 1], [0, 0]], np.zeros((2, 2, 2))), strict=True):
        np.testing.assert_array_equal(found, expected)


at_standard_normal = jax.jit(jax.value_and_grad(lambda v: kl.normal(v[0], v[1])))
curvature = jax.jit(jax.hessian(lambda v: kl.normal(v[0], v[1])))


# log-variance: numpyro gives inf at -100, TFP and distrax inf with NaN gradients at -200 (their scale underflows); the
# textbook formula (flax, keras, transformers) is off by 5 % at 1e-3 and gives 0 at 1e-4, where TFP is off by 0.2 %.
@pytest.mark.parametrize("log_variance", [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, -100.0, -200.0, 80.0])
def test_normal_against_the_standard_normal_at_every_scale(log_variance):
    mean, log_scale = np.float32(1e-4), np.float32(log_variance / 2)
    point = jnp.array([mean, log_scale])
    value, gradient = at_standard_normal(point)
    np.testing.assert_allclose(value, exact_normal(mean, log_scale, 0.0, 0.0), rtol=1e-6)
    np.testing.assert_allclose(gradient, [mean, np.expm1(2 * np.float64(log_scale))], rtol=1e-6)
    if log_variance == -200:
        np.testing.assert_allclose(value, 99.5, rtol=1e-6)
    np.testing.assert_allclose(
        curvature(point), np.diag([1.0, 2 * np.exp(2 * np.float64(log_scale))]), rtol=1e-5, atol=1e-30
    )


def test_normal_far_out_is_infinite_or_nan_but_never_wrong():
    assert kl.normal(0.0, -jnp.inf) == jnp.inf  # p is a point
    assert kl.normal(0.0, 0.0, 0.0, jnp.inf) == jnp.inf
    assert kl.normal(0.0, 100.0) == jnp.inf  # beyond float32
    assert kl.normal(jnp.inf, 0.0) == jnp.inf
    assert jnp.isnan(kl.normal(jnp.nan, 0.0))


def test_normal_under_vmap_and_forward_mode():
    rng = np.random.default_rng(7)
    inputs = jnp.asarray(rng.normal(size=(4, 6)), jnp.float32)
    np.testing.assert_allclose(jax.jit(jax.vmap(kl.normal))(*inputs), jax.jit(kl.normal)(*inputs), rtol=1e-6)
    tangent = jnp.asarray(rng.normal(size=(4, 6)), jnp.float32)
    total = lambda v: jnp.sum(kl.normal(*v))  # noqa: E731
    forward = jax.jit(lambda v, t: jax.jvp(total, (v,), (t,))[1])(inputs, tangent)
    np.testing.assert_allclose(forward, jnp.sum(jax.jit(jax.grad(total))(inputs) * tangent), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (jnp.zeros(2), jnp.eye(3), jnp.zeros(2), jnp.eye(2)),
            r"p_scale_tril: expected shape \(…, 2, 2\).*got \(3, 3\)",
        ),
        ((jnp.zeros(2), jnp.eye(2), jnp.zeros(3), jnp.eye(2)), r"q_mean: expected shape \(…, 2\).*got \(3,\)"),
        (
            (jnp.zeros(2), jnp.eye(2), jnp.zeros(2), jnp.ones(2)),
            r"q_scale_tril: expected shape \(…, 2, 2\).*got \(2,\)",
        ),
        ((0.0, jnp.eye(2), jnp.zeros(2), jnp.eye(2)), r"p_mean: expected shape \(…, d\).*got \(\)"),
        ((jnp.zeros((5, 2)), jnp.eye(2), jnp.zeros((3, 2)), jnp.eye(2)), r"p_mean \(5,\).*q_mean \(3,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        kl.multivariate_normal(*arguments)


def test_wrong_inputs_of_normal_are_refused():
    with pytest.raises(ValueError, match=r"p_mean \(3,\), p_log_scale \(2,\)"):
        kl.normal(jnp.zeros(3), jnp.zeros(2))
    with pytest.raises(TypeError, match="p_log_scale: expected floating-point numbers, got int32"):
        kl.normal(0.0, jnp.zeros(2, int))
    with pytest.raises(TypeError, match="mask: expected booleans"):
        kl.normal(0.0, 0.0, mask=jnp.ones(()))
