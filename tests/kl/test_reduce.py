"""The mean over rows that count: masked, weighted, accumulated and sharded rows give the mean of the whole batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from vi_kit.kl._reduce import reduce

VALUES = np.array([[0.5, 2.0, -1.0], [3.0, 0.25, 7.0]], np.float32)
MASK = np.array([[True, False, True], [True, True, False]])
WEIGHTS = np.array([[0.1, 5.0, 0.05], [0.1, 0.05, 0.0]], np.float32)


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_against_numpy(mask, weights):
    w = np.ones_like(VALUES) if weights is None else weights
    w = (w if mask is None else w * mask).astype(np.float64)
    call = functools.partial(reduce, VALUES, mask=mask, weights=weights)
    np.testing.assert_allclose(call(), (w * VALUES).sum() / w.sum(), rtol=1e-6)
    np.testing.assert_allclose(call(reduction="sum"), (w * VALUES).sum(), rtol=1e-6)
    np.testing.assert_allclose(call(reduction="none"), w * VALUES, rtol=1e-6)
    np.testing.assert_allclose(call(normalizer=12), (w * VALUES).sum() / 12, rtol=1e-6)


def test_small_weights_are_not_divided_by_one():
    """TRL divides by max(Σw, 1): weights that sum to 0.3 would give 0.3 times the mean."""
    values, weights = jnp.full(3, 2.0), jnp.full(3, 0.1)
    np.testing.assert_allclose(reduce(values, weights=weights), 2.0, rtol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (0,), (0, 4)])
@pytest.mark.parametrize("how", [{}, {"normalizer": 0}, {"normalizer": 5}, {"weights": 0.0}])
def test_no_row_is_zero_with_gradient_zero(shape, how):
    """LMOps divides by Σ mask unclamped: NaN for a batch of padding (LMOps#38)."""
    value, gradient = jax.value_and_grad(lambda v: reduce(v, mask=jnp.zeros(shape, bool), **how))(
        jnp.full(shape, jnp.nan)
    )
    assert value == 0
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("off", [{"mask": [True, True, False, False]}, {"weights": [1, 1, 0, 0]}])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_rows_that_do_not_count_may_hold_anything(off, reduction):
    off = {name: jnp.array(value) for name, value in off.items()}
    values = jnp.array([1.0, 3.0, jnp.nan, jnp.inf])
    value, pull = jax.vjp(lambda v: reduce(v, **off, reduction=reduction), values)
    expected = {"mean": 2.0, "sum": 4.0, "none": [1.0, 3.0, 0.0, 0.0]}
    np.testing.assert_array_equal(value, expected[reduction])
    (gradient,) = pull(jnp.ones_like(value))
    np.testing.assert_array_equal(gradient, np.array([1, 1, 0, 0]) * (0.5 if reduction == "mean" else 1.0))


def test_a_row_that_counts_is_never_hidden():
    assert jnp.isnan(reduce(jnp.array([1.0, jnp.nan])))
    assert reduce(jnp.array([1.0, jnp.inf])) == jnp.inf


def test_gradient_in_the_weights_is_the_derivative_of_the_mean():
    """A weight of zero too: its row's value is finite."""
    values, weights = VALUES.ravel(), WEIGHTS.ravel()
    gradient = jax.grad(lambda w: reduce(values, weights=w))(weights)
    mean = np.average(values, weights=weights)
    np.testing.assert_allclose(gradient, (values - mean) / weights.sum(), rtol=1e-5)


def test_micro_batches_with_one_normalizer_add_up():
    """Means of means would weigh rows of a short micro-batch more (trl#4719)."""
    whole = reduce(VALUES, mask=MASK)
    parts = [reduce(v, mask=m, normalizer=MASK.sum()) for v, m in zip(VALUES, [MASK[0], MASK[1]], strict=True)]
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-6)
    uneven = np.array([[True, False, False], [True, True, True]])
    of_means = np.mean([reduce(v, mask=m) for v, m in zip(VALUES, uneven, strict=True)])
    assert abs(of_means - reduce(VALUES, mask=uneven)) > 0.1


def loss(scale, x, mask, weights, axis_name=None):
    """A model with one parameter, so that both gradients can be compared."""
    return reduce(jnp.sin(scale * x), mask=mask, weights=weights, axis_name=axis_name)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=8), rng.uniform(size=8)
    mask = np.array([True, False, True, True, True, False, False, False])  # uneven between the halves
    return jnp.array(2.0), jnp.asarray(x, jnp.float32), jnp.asarray(mask), jnp.asarray(weights, jnp.float32)


def assert_same(got, expected):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_sharded_over_devices_is_the_whole(batch):
    expected = jax.value_and_grad(loss, argnums=(0, 1))(*batch)
    mesh = jax.make_mesh((2,), ("device",), axis_types=(jax.sharding.AxisType.Auto,))
    replicated, split = PartitionSpec(), PartitionSpec("device")
    sharded = functools.partial(jax.shard_map, mesh=mesh, in_specs=(replicated, split, split, split))
    whole = functools.partial(loss, axis_name="device")
    outside = sharded(whole, out_specs=replicated)
    assert_same(jax.jit(jax.value_and_grad(outside, argnums=(0, 1)))(*batch), expected)
    inside = sharded(jax.value_and_grad(whole, argnums=(0, 1)), out_specs=(replicated, (replicated, split)))
    assert_same(jax.jit(inside)(*batch), expected)
    # Negative control: the mean of the devices' means is another number where they hold unequal weights.
    means = jax.vmap(loss, in_axes=(None, 0, 0, 0))(batch[0], *(a.reshape(2, 4) for a in batch[1:])).mean()
    assert abs(means - expected[0]) > 1e-2


def test_mapped_over_an_axis_is_the_whole(batch):
    """Inside `vmap` (and `pmap`) the caller averages the gradient, as after every collective sum there."""
    expected = jax.value_and_grad(loss, argnums=(0, 1))(*batch)
    halves = (batch[0], *(a.reshape(2, 4) for a in batch[1:]))
    mapped = functools.partial(jax.vmap, in_axes=(None, 0, 0, 0), axis_name="device")
    whole = functools.partial(loss, axis_name="device")
    value, (in_scale, in_x) = jax.value_and_grad(mapped(whole, out_axes=None), argnums=(0, 1))(*halves)
    assert_same((value, (in_scale, in_x.reshape(8))), expected)

    def step(*arguments):
        value, gradient = jax.value_and_grad(whole)(*arguments)
        return value, jax.lax.pmean(gradient, "device")

    assert_same(mapped(step, out_axes=None)(*halves), (expected[0], expected[1][0]))


def test_unweighted_counts_are_summed_over_the_axis_too():
    values = jnp.arange(6.0).reshape(2, 3)
    mean = functools.partial(reduce, axis_name="device")
    np.testing.assert_allclose(jax.vmap(mean, axis_name="device")(values), 2.5)
    total = functools.partial(reduce, axis_name="device", reduction="sum")
    np.testing.assert_allclose(jax.vmap(total, axis_name="device")(values), 15.0)


def test_half_precision_is_summed_in_single():
    """1000 rows of 0.1 summed in bfloat16 stop growing at 32."""
    values = jnp.full(1000, 0.1, jnp.bfloat16)
    value, gradient = jax.value_and_grad(reduce)(values)
    assert (value.dtype, gradient.dtype) == (jnp.float32, jnp.bfloat16)
    np.testing.assert_allclose(value, float(values[0]), rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_dtype_follows_the_values():
    values = jnp.ones(3, jnp.float32)
    assert reduce(values, weights=[1, 2, 3], normalizer=3).dtype == jnp.float32
    assert reduce(values, weights=np.ones(3, bool), normalizer=3.0).dtype == jnp.float32
    assert reduce(values.astype(jnp.float64)).dtype == jnp.float64


def test_scalars_and_broadcasting():
    assert reduce(2.0) == 2.0
    np.testing.assert_allclose(reduce(VALUES, mask=MASK[:, :1]), VALUES.mean())
    np.testing.assert_allclose(reduce(VALUES, weights=np.array([1, 0, 0])), VALUES[:, 0].mean())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"reduction": "batchmean"}, r'^reduction: expected "mean", "sum" or "none", got \'batchmean\''),
        ({"reduction": None}, "^reduction: expected"),
        ({"reduction": "sum", "normalizer": 3.0}, "^normalizer: expected only with"),
        ({"reduction": "none", "axis_name": "device"}, "^axis_name: expected only with"),
        ({"weights": [1.0, -1.0, 1.0]}, "^weights: expected finite numbers from 0 up"),
        ({"weights": [1.0, np.nan, 1.0]}, "^weights: expected finite numbers"),
        ({"normalizer": -2}, "^normalizer: expected finite numbers from 0 up, got -2"),
        ({"normalizer": np.ones(3)}, "^normalizer: expected one number"),
        ({"mask": np.ones(2, bool)}, "^mask: expected shapes that broadcast"),
        ({"mask": np.ones((2, 1, 1), bool)}, r"^mask: expected a shape that broadcasts to \(2, 3\)"),
        ({"weights": np.ones((4, 2, 3))}, "^weights: expected a shape"),
    ],
)
def test_wrong_arguments(how, message):
    with pytest.raises(ValueError, match=message):
        reduce(VALUES, **how)


def test_wrong_types():
    with pytest.raises(TypeError, match=r"^values: expected floating-point"):
        reduce(np.arange(3))
    with pytest.raises(TypeError, match=r"^mask: expected booleans"):
        reduce(VALUES, mask=MASK.astype(np.float32))


def test_traced_numbers_out_of_range_give_nan():
    assert jnp.isnan(jax.jit(lambda w: reduce(VALUES, weights=w))(-WEIGHTS))
    assert jnp.isnan(jax.jit(lambda n: reduce(VALUES, normalizer=n))(-1))
    assert jax.jit(lambda n: reduce(VALUES, normalizer=n))(0) == jnp.inf  # rows counted, divided by nothing
