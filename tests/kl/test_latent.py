"""Free bits, balancing, capacity, active units, bits per dimension: by hand, and against double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vi_kit.kl as kl

VALUES = jnp.array([[0.5, 3.0, 0.0], [2.5, 5.0, 0.0]])  # two data points, three groups


@pytest.mark.parametrize(
    ("order", "axis", "expected"),
    [
        (kl.batch_then_clip, 0, [2.0, 4.0, 2.0]),
        (kl.clip_then_batch, 0, [2.25, 4.0, 2.0]),
        (kl.batch_then_clip, 1, [2.0, 2.5]),
        (kl.batch_then_clip, (0, 1), 2.0),  # DreamerV1 and V2: max(mean, λ)
        (kl.clip_then_batch, (-1, 0), (2 + 3 + 2 + 2.5 + 5 + 2) / 6),  # DreamerV3: mean of max(KL, λ)
    ],
)
def test_free_bits_by_hand(order, axis, expected):
    np.testing.assert_allclose(kl.free_bits(VALUES, 2.0, order=order, axis=axis), expected, rtol=1e-6)


def test_the_gradient_stops_where_bits_are_free():
    total = lambda v, order: jnp.sum(kl.free_bits(v, 2.0, order=order))  # noqa: E731
    after = jax.grad(total)(VALUES, kl.batch_then_clip)
    np.testing.assert_array_equal(after, [[0, 0.5, 0], [0, 0.5, 0]])  # the mean of the first group, 1.5, is below
    before = jax.grad(total)(VALUES, kl.clip_then_batch)
    np.testing.assert_array_equal(before, [[0, 0.5, 0], [0.5, 0.5, 0]])
    # Nothing is free at 0: a KL of 0 keeps its gradient, which jnp.maximum would halve.
    np.testing.assert_array_equal(
        jax.grad(lambda v: jnp.sum(kl.free_bits(v, 0.0, order=kl.batch_then_clip)))(VALUES), 0.5
    )


def test_clipping_first_is_never_smaller():
    values = jax.random.exponential(jax.random.key(0), (50, 7))
    first, last = (kl.free_bits(values, 1.0, order=order) for order in (kl.clip_then_batch, kl.batch_then_clip))
    assert jnp.all(first >= last)
    assert jnp.any(first > last)


@pytest.mark.parametrize("order", [kl.batch_then_clip, kl.clip_then_batch])
def test_free_bits_leaves_masked_rows_out(order):
    keep = jnp.array([[True], [True], [False]])
    padded = jnp.concatenate([VALUES, jnp.full((1, 3), jnp.nan)])
    compute = jax.value_and_grad(lambda v: jnp.sum(kl.free_bits(v, 2.0, order=order, mask=keep)))
    value, gradient = compute(padded)
    plain, plain_gradient = jax.value_and_grad(lambda v: jnp.sum(kl.free_bits(v, 2.0, order=order)))(VALUES)
    assert value == plain
    np.testing.assert_array_equal(gradient, jnp.concatenate([plain_gradient, jnp.zeros((1, 3))]))
    value, gradient = jax.value_and_grad(
        lambda v: jnp.sum(kl.free_bits(v, 0.0, order=order, mask=jnp.zeros((3, 1), bool)))
    )(padded)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0.0)


def test_free_bits_hides_no_nan_and_takes_orders_of_ones_own():
    assert jnp.isnan(kl.free_bits(jnp.array([jnp.nan, 0.0]), 1.0, order=kl.batch_then_clip))
    assert jnp.isnan(kl.free_bits(jnp.array([jnp.nan, 0.0]), 1.0, order=kl.clip_then_batch))
    plain = kl.free_bits(VALUES, 1.0, order=lambda values, minimum, mean: mean(values))
    np.testing.assert_allclose(plain, jnp.mean(VALUES, axis=0))
    assert kl.free_bits(VALUES.astype(jnp.bfloat16), 1.0, order=kl.batch_then_clip).dtype == jnp.float32


def test_free_bits_refuses_what_it_cannot_mean():
    with pytest.raises(TypeError, match="order"):
        kl.free_bits(VALUES, 1.0)
    with pytest.raises(ValueError, match="minimum: expected a number not below 0, got -1"):
        kl.free_bits(VALUES, -1.0, order=kl.batch_then_clip)
    with pytest.raises(ValueError, match=r"minimum: expected a scalar, got shape \(3,\)"):
        kl.free_bits(VALUES, jnp.ones(3), order=kl.batch_then_clip)
    with pytest.raises(ValueError, match=r"mask: expected a shape that broadcasts to \(2, 3\), got \(4, 2, 3\)"):
        kl.free_bits(VALUES, 1.0, order=kl.batch_then_clip, mask=jnp.ones((4, 2, 3), bool))
    assert jnp.isnan(jax.jit(lambda m: kl.free_bits(VALUES, m, order=kl.batch_then_clip))(-1.0)).all()


def two_terms(divergence, posterior, prior, alpha):
    """The formula as published, with both terms evaluated."""
    stop = jax.lax.stop_gradient
    return alpha * divergence(stop(posterior), prior) + (1 - alpha) * divergence(posterior, stop(prior))


NORMALS = ([jnp.array([1.0, 2.0]), jnp.array([0.1, -0.2])], [jnp.array([0.0, 1.0]), jnp.array([0.3, 0.4])])
LOGITS = (jnp.array([[0.0, 1.0, -1.0]]), jnp.array([[1.0, 0.5, 0.0]]))


@pytest.mark.parametrize(
    ("divergence", "posterior", "prior"),
    [(lambda q, p: kl.normal(*q, *p), *NORMALS), (kl.categorical, *LOGITS)],
    ids=["normal", "categorical"],
)
def test_balance_has_the_plain_value_and_the_published_gradient(divergence, posterior, prior):
    total = lambda q, p, alpha: jnp.sum(kl.balance(divergence, q, p, alpha=alpha))  # noqa: E731

    @jax.jit
    def compute(q, p, alpha):
        ours, plain = jax.value_and_grad(total, argnums=(0, 1)), lambda q, p: jnp.sum(divergence(q, p))
        published = lambda q, p: jnp.sum(two_terms(divergence, q, p, alpha))  # noqa: E731
        _, forward = jax.jvp(lambda q, p: total(q, p, alpha), (q, p), (q, p))
        return ours(q, p, alpha), forward, *(jax.value_and_grad(f, argnums=(0, 1))(q, p) for f in (plain, published))

    for alpha in (0.0, 0.1, 0.8, 1.0):
        (value, found), forward, (plain_value, plain), (_, expected) = compute(posterior, prior, alpha)
        np.testing.assert_array_equal(value, plain_value)
        for tree, weight in ((0, 1 - alpha), (1, alpha)):
            for a, b, c in zip(*(jax.tree.leaves(g[tree]) for g in (found, expected, plain)), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
                np.testing.assert_allclose(a, weight * c, rtol=1e-6, atol=1e-7)
        steps = jax.tree.leaves(jax.tree.map(lambda g, t: np.sum(g * t), found, (posterior, prior)))
        np.testing.assert_allclose(forward, sum(steps), rtol=1e-5)


def test_balance_keeps_absent_classes_dtypes_and_what_is_not_differentiated():
    absent = jnp.array([0.0, -jnp.inf, 1.0], jnp.bfloat16)
    gradient = jax.grad(lambda q: kl.balance(kl.categorical, q, q, alpha=0.5))(absent)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient, 0.0)
    seen = kl.balance(lambda q, p: q["count"] * p, {"count": 3}, 2.0, alpha=0.5)
    assert seen == 6


def test_dreamer_v3_is_balance_under_free_bits():
    """0.5 · max(1, KL(sg q‖p)) + 0.1 · max(1, KL(q‖sg p)), at every step, averaged."""
    logits = jax.random.normal(jax.random.key(1), (2, 9, 4)) * 2
    stop = jax.lax.stop_gradient

    def published(q, p):
        dynamics, representation = kl.categorical(stop(q), p), kl.categorical(q, stop(p))
        return jnp.mean(0.5 * jnp.maximum(dynamics, 1.0) + 0.1 * jnp.maximum(representation, 1.0))

    def ours(q, p):
        balanced = kl.balance(kl.categorical, q, p, alpha=0.5 / 0.6)
        return 0.6 * kl.free_bits(balanced, 1.0, order=kl.clip_then_batch)

    found, expected = (jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(*logits) for f in (ours, published))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected)
    free = kl.categorical(*logits) < 1
    assert jnp.any(free)
    assert not jnp.all(free)


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_balance_refuses_alpha_out_of_range(alpha):
    with pytest.raises(ValueError, match="alpha: expected a number from 0 to 1"):
        kl.balance(kl.categorical, *LOGITS, alpha=alpha)
    traced = jax.jit(
        lambda a: jax.grad(lambda q: jnp.sum(kl.balance(kl.categorical, q, LOGITS[1], alpha=a)))(LOGITS[0])
    )
    assert jnp.isnan(traced(alpha)).all()


def test_capacity_by_hand():
    values = jnp.array([3.0, 5.0, 8.0])
    np.testing.assert_array_equal(kl.capacity(values, 5.0, gamma=10.0), [20.0, 0.0, 30.0])
    gradient = jax.grad(lambda v: jnp.sum(kl.capacity(v, 5.0, gamma=10.0)))(values)
    np.testing.assert_array_equal(gradient, [-10.0, 0.0, 10.0])
    with pytest.raises(ValueError, match="target: expected a number not below 0"):
        kl.capacity(values, -1.0, gamma=1.0)
    with pytest.raises(ValueError, match="gamma: expected a positive number"):
        kl.capacity(values, 1.0, gamma=0.0)
    assert jnp.isnan(jax.jit(lambda c: kl.capacity(1.0, c, gamma=1.0))(-1.0))


@pytest.mark.slow
def test_active_units_against_the_variance_in_double_precision():
    rng = np.random.default_rng(0)
    scales = np.array([0.0, 0.05, 0.09, 0.11, 1.0])
    means = (100 + rng.normal(size=(400, 5)) * scales).astype(np.float32)  # E[x²] − E[x]² would lose this in float32
    expected = np.var(means.astype(np.float64), axis=0) > 0.01
    np.testing.assert_array_equal(kl.active_units(means), expected)
    assert set(expected) == {True, False}
    np.testing.assert_array_equal(kl.active_units(means.reshape(20, 20, 5), axis=(0, 1)), expected)
    np.testing.assert_array_equal(kl.active_units(means, threshold=1e-3), [False, True, True, True, True])
    padded = np.concatenate([means, np.full((3, 5), np.nan, np.float32)])
    np.testing.assert_array_equal(kl.active_units(padded, mask=jnp.arange(403)[:, None] < 400), expected)
    assert not kl.active_units(padded).any()
    with pytest.raises(ValueError, match="threshold: expected a number not below 0"):
        kl.active_units(means, threshold=-1.0)


def test_a_bit_per_dimension_is_log_two_nats():
    np.testing.assert_allclose(kl.nats_to_bits_per_dim(jnp.array([0.0, 10 * np.log(2.0)]), 10), [0.0, 1.0], rtol=1e-6)
    with pytest.raises(ValueError, match="num_dims: expected a positive number, got 0"):
        kl.nats_to_bits_per_dim(1.0, 0)


def test_everything_under_jit_and_vmap():
    schedule = kl.schedules.linear(10, end=2.0)

    def loss(step, values):
        balanced = kl.free_bits(values, schedule(step), order=kl.batch_then_clip)
        return jnp.sum(kl.capacity(balanced, schedule(step), gamma=2.0))

    steps = jnp.arange(3)
    found = jax.jit(jax.vmap(loss, in_axes=(0, None)))(steps, VALUES)
    np.testing.assert_allclose(found, [loss(step, VALUES) for step in steps], rtol=1e-6)


def test_balance_passes_tuples_as_arguments():
    q, p = map(tuple, NORMALS)
    np.testing.assert_array_equal(kl.balance(kl.normal, q, p, alpha=0.8), kl.normal(*q, *p))
