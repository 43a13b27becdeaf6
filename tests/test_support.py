"""Supports: the log-Jacobian is that of the map, the map lands inside and comes back, and is Stan's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import SUPPORTS

import vi_kit as vk

SHAPES = [(), (2, 3)]
CASES = [
    pytest.param(build, shape, id=f"{name}-{'x'.join(map(str, shape)) or 'scalar'}")
    for name, (build, on_axis) in SUPPORTS.items()
    for shape in SHAPES
    if shape or not on_axis
]
INSIDE = {
    "real": lambda x: np.isfinite(x),
    "positive": lambda x: x > 0,
    "unit_interval": lambda x: (x > 0) & (x < 1),
    "interval": lambda x: (x > -2) & (x < 5),
    "greater_than": lambda x: x > -1.5,
    "less_than": lambda x: x < 2.5,
    "simplex": lambda x: x > 0,
    "ordered": lambda x: np.diff(x, axis=-1) > 0,
}


def draw(key, support, shape, dtype=jnp.float32):
    return jax.random.normal(key, support.unconstrained_shape(shape), dtype)


def free_coordinates(support, x):
    """The coordinates of x that vary freely: on the simplex all but the last."""
    return (x[..., :-1] if support is vk.support.simplex else x).reshape(-1)


@pytest.mark.parametrize(("build", "shape"), CASES)
def test_log_jacobian_is_that_of_the_map(build, shape, key, x64):
    support = build()
    z = draw(key, support, shape, jnp.float64)
    matrix = jax.jacfwd(lambda flat: free_coordinates(support, support.constrain(flat.reshape(z.shape))))(z.reshape(-1))
    expected = np.linalg.slogdet(np.asarray(matrix))[1]
    np.testing.assert_allclose(support.log_jacobian(z), expected, rtol=1e-12, atol=1e-12)
    assert support.log_jacobian(z).shape == ()


@pytest.mark.parametrize(("build", "shape"), CASES)
def test_round_trip_keeps_dtype_and_digits(build, shape, key):
    support = build()
    z = draw(key, support, shape)
    x = support.constrain(z)
    assert x.shape == shape
    assert x.dtype == z.dtype
    np.testing.assert_allclose(support.unconstrain(x), z, rtol=2e-5, atol=2e-5)
    with jax.enable_x64(True):
        np.testing.assert_allclose(support.unconstrain(support.constrain(z.astype(float))), z, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SUPPORTS)
def test_values_are_inside(name, key):
    support = SUPPORTS[name][0]()
    x = support.constrain(4 * draw(key, support, (50, 4)))
    assert np.all(INSIDE[name](np.asarray(x)))


def test_simplex_sums_to_one_even_far_out(key):
    z = 20 * jax.random.normal(key, (100, 5))
    np.testing.assert_allclose(jnp.sum(vk.support.simplex.constrain(z), axis=-1), 1.0, rtol=1e-5)
    assert np.isfinite(vk.support.simplex.log_jacobian(z))


def test_maps_are_stans():
    """Values worked out by hand from the formulas of the Stan Reference Manual."""
    np.testing.assert_allclose(vk.support.simplex.constrain(jnp.zeros(3)), np.full(4, 0.25), rtol=1e-6)

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    first = sigmoid(0.7 + np.log(1 / 2))
    second = (1 - first) * sigmoid(-0.4)
    expected = [first, second, 1 - first - second]
    np.testing.assert_allclose(vk.support.simplex.constrain(jnp.array([0.7, -0.4])), expected, rtol=1e-6)
    np.testing.assert_allclose(
        vk.support.ordered.constrain(jnp.array([1.0, 0.5, -1.0])),
        [1.0, 1.0 + np.exp(0.5), 1.0 + np.exp(0.5) + np.exp(-1.0)],
        rtol=1e-6,
    )
    np.testing.assert_allclose(vk.support.positive.constrain(jnp.array(0.3)), np.exp(0.3), rtol=1e-6)
    np.testing.assert_allclose(vk.support.less_than(2.0).constrain(jnp.array(0.3)), 2 - np.exp(0.3), rtol=1e-6)
    np.testing.assert_allclose(vk.support.interval(1.0, 3.0).constrain(jnp.array(0.3)), 1 + 2 * sigmoid(0.3), rtol=1e-6)


def test_bounds_may_be_arrays_one_an_element(key):
    support = vk.support.interval(jnp.array([0.0, -1.0, 10.0]), jnp.array([1.0, 1.0, 20.0]))
    assert support.unconstrained_shape((3,)) == (3,)
    z = jax.random.normal(key, (3,))
    np.testing.assert_allclose(support.unconstrain(support.constrain(z)), z, rtol=1e-4, atol=1e-5)
    expected = jnp.log(jnp.diagonal(jax.jacfwd(support.constrain)(z))).sum()
    np.testing.assert_allclose(support.log_jacobian(z), expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(), (2,), (3, 1)])
def test_bounds_that_would_spread_a_variable_are_refused(shape):
    with pytest.raises(ValueError, match=r"lower has shape \(3,\)"):
        vk.support.greater_than(jnp.zeros(3)).unconstrained_shape(shape)


@pytest.mark.parametrize(("lower", "upper"), [(1.0, 1.0), (2.0, 1.0), (np.array([0.0, 3.0]), np.array([1.0, 2.0]))])
def test_bounds_the_wrong_way_round_are_refused(lower, upper):
    with pytest.raises(ValueError, match="lower must be below upper"):
        vk.support.interval(lower, upper)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bounds_that_are_not_finite_are_refused(bad):
    for build in (vk.support.greater_than, vk.support.less_than, lambda b: vk.support.interval(0.0, b)):
        with pytest.raises(ValueError, match="must be finite"):
            build(bad)


def test_traced_bounds_pass():
    value = jax.jit(lambda lower, upper: vk.support.interval(lower, upper).constrain(jnp.zeros(())))(1.0, 3.0)
    np.testing.assert_allclose(value, 2.0)


def test_vectors_are_required_where_the_last_axis_counts():
    with pytest.raises(ValueError, match="simplex needs a last axis of at least 2"):
        vk.support.simplex.unconstrained_shape((1,))
    with pytest.raises(ValueError, match="ordered needs a vector"):
        vk.support.ordered.unconstrained_shape(())


def test_points_outside_give_nan():
    assert np.isnan(vk.support.positive.unconstrain(jnp.array(-1.0)))
    assert np.isnan(vk.support.unit_interval.unconstrain(jnp.array(1.5)))
    assert np.isnan(vk.support.ordered.unconstrain(jnp.array([1.0, 0.0]))).any()


@pytest.mark.parametrize(
    ("support", "text"),
    [
        (vk.support.real, "real"),
        (vk.support.positive, "> 0"),
        (vk.support.less_than(2.5), "< 2.5"),
        (vk.support.unit_interval, "in (0, 1)"),
        (vk.support.simplex, "simplex"),
        (vk.support.ordered, "ordered"),
    ],
)
def test_names(support, text):
    assert str(support) == text
