"""KL from two sets of draws: against scipy's tree in double precision, then its bias and its standard error."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree
from statistical import assert_mean, expect_rejection

import vi_kit.kl as kl


def by_tree(x: np.ndarray, y: np.ndarray, k: int = 5) -> float:
    x, y = (np.asarray(a, np.float64).reshape(len(a), -1) for a in (x, y))
    own, other = cKDTree(x).query(x, [k + 1])[0], cKDTree(y).query(x, [k])[0]
    return x.shape[1] * np.mean(np.log(other / own)) + np.log(len(y) / (len(x) - 1))


def draws(seed: int, n: int, m: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, dim)), 0.5 + np.sqrt(1.5) * rng.normal(size=(m, dim))
    return x.astype(np.float32), y.astype(np.float32)


def gaussian_kl(dim: int) -> float:
    return dim * 0.5 * (1.25 / 1.5 - 1 + np.log(1.5))


def replicates(num: int, n: int, dim: int) -> tuple[jax.Array, jax.Array]:
    x, y = draws(dim, num * n, num * n, dim)
    batched = jax.jit(lambda x, y: jax.lax.map(lambda pair: kl.from_samples(*pair)[:2], (x, y)))
    values, errors = batched(x.reshape(num, n, dim), y.reshape(num, n, dim))
    return values, errors


# --- exact ------------------------------------------------------------------------------------------------------------


def test_two_draws_by_hand() -> None:
    x, y = jnp.array([[0.0], [1.0]]), jnp.array([[3.0], [10.0]])
    # ν = 3, 2 and ρ = 1, 1: (log 3 + log 2)/2 + log(2/1)
    np.testing.assert_allclose(kl.from_samples(x, y, k=1).value, np.log(6) / 2 + np.log(2), rtol=1e-6)


def plain() -> tuple[np.ndarray, np.ndarray]:
    return draws(0, 600, 500, 3)


def clusters() -> tuple[np.ndarray, np.ndarray]:
    x, y = draws(1, 600, 500, 3)
    shift = 1e3 * (np.arange(600)[:, None] % 2)
    return (1e-3 * x + shift).astype(np.float32), (1e-3 * y + shift[:500]).astype(np.float32)


def near_duplicates() -> tuple[np.ndarray, np.ndarray]:
    x, y = draws(2, 600, 500, 3)
    return np.concatenate([x[:300], x[:300] * np.float32(1 + 1e-5)]), y


def lattice() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.integers(0, 2000, (600, 3)).astype(np.float32), rng.integers(0, 1500, (500, 3)).astype(np.float32)


SETS = {
    "plain": plain,
    # |x|² + |y|² − 2xy in float32 is off by 0.1 at an offset of 1e3 and finds nothing but rounding in the clusters
    "offset": lambda: tuple(a + np.float32(1e3) for a in plain()),
    "clusters": clusters,
    "near duplicates": near_duplicates,
    "ties": lattice,
    "tiny": lambda: tuple(a * np.float32(1e-30) for a in plain()),  # squares would underflow
    "huge": lambda: tuple(a * np.float32(1e30) for a in plain()),  # squares would overflow
}


@pytest.mark.parametrize("name", SETS)
def test_agrees_with_a_tree_in_double_precision(name: str) -> None:
    x, y = SETS[name]()
    np.testing.assert_allclose(kl.from_samples(x, y).value, by_tree(x, y), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize(("n", "m", "dim", "k"), [(2, 1, 3, 1), (7, 5, 1, 5), (90, 300, 40, 1), (300, 90, 2, 89)])
def test_shapes_and_neighbors(n: int, m: int, dim: int, k: int) -> None:
    x, y = draws(4, n, m, dim)
    np.testing.assert_allclose(kl.from_samples(x, y, k=k).value, by_tree(x, y, k), atol=1e-5, rtol=1e-6)


def test_more_tiles_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = plain()
    monkeypatch.setattr("vi_kit.kl._from_samples._TILE", 7 * 500)
    np.testing.assert_allclose(kl.from_samples(x, y, k=4).value, by_tree(x, y, 4), atol=1e-5)


def test_never_an_array_of_all_distances() -> None:
    shape = jax.ShapeDtypeStruct((20_000, 4), jnp.float32)
    function = jax.jit(jax.value_and_grad(lambda x, y: kl.from_samples(x, y).value))
    analysis = function.lower(shape, shape).compile().memory_analysis()
    assert analysis.temp_size_in_bytes < 64 * 2**20, "n × m float32 would be 1526 MiB"


def test_invariances() -> None:
    x, y = plain()
    value, error, _ = kl.from_samples(x, y)
    order = np.random.default_rng(0).permutation(600)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0].astype(np.float32)
    for other in ((x[order], y), (8 * x, 8 * y), (x @ turn, y @ turn)):
        np.testing.assert_allclose(kl.from_samples(*other)[:2], (value, error), atol=1e-5)


@pytest.mark.slow
def test_standard_error_is_the_jackknife() -> None:
    x, y = draws(9, 20, 15, 2)
    own = [by_tree(np.delete(x, i, axis=0), y, 3) for i in range(20)]
    other = [by_tree(x, np.delete(y, i, axis=0), 3) for i in range(15)]
    expected = np.sqrt(19 * np.var(own) + 14 * np.var(other))
    np.testing.assert_allclose(kl.from_samples(x, y, k=3).standard_error, expected, rtol=1e-4)
    assert kl.from_samples(x[:4], y, k=3).standard_error == np.inf  # no fourth neighbor to go on to


def test_numbers_are_draws_of_one_dimension() -> None:
    x, y = draws(5, 600, 500, 3)
    np.testing.assert_array_equal(kl.from_samples(x[:, 0], y[:, 0]), kl.from_samples(x[:, :1], y[:, :1]))


def test_x64(x64: None) -> None:
    x, y = (np.asarray(a, np.float64) + 1e6 for a in plain())
    np.testing.assert_allclose(kl.from_samples(x, y).value, by_tree(x, y), rtol=1e-12)


def test_half_precision_is_computed_in_float32() -> None:
    x, y = (jnp.asarray(a, jnp.float16) for a in plain())
    np.testing.assert_array_equal(kl.from_samples(x, y), kl.from_samples(x.astype(jnp.float32), y.astype(jnp.float32)))
    gradient = jax.jit(jax.grad(lambda x: kl.from_samples(x, y).value))(x)
    assert gradient.dtype == jnp.float16


def test_gradient_of_the_number_returned(x64: None) -> None:
    x, y = (np.asarray(a[:40], np.float64) for a in plain())
    rng = np.random.default_rng(0)
    along = rng.normal(size=x.shape), rng.normal(size=y.shape)
    function = partial(kl.from_samples, k=3)
    _, slope = jax.jvp(lambda x, y: function(x, y).value, (x, y), along)
    gx, gy = jax.grad(lambda x, y: function(x, y).value, (0, 1))(x, y)
    step = 1e-6
    up, down = (by_tree(x + s * along[0], y + s * along[1], 3) for s in (step, -step))
    np.testing.assert_allclose(slope, (up - down) / (2 * step), rtol=1e-5)
    np.testing.assert_allclose(np.sum(gx * along[0]) + np.sum(gy * along[1]), slope, rtol=1e-9)
    assert not np.any(jax.grad(lambda x: function(x, y).standard_error)(x))


def test_batches() -> None:
    x, y = (jnp.asarray(a[:80].reshape(2, 40, 3)) for a in plain())
    batch = jax.vmap(kl.from_samples)(x, y)
    for i in range(2):
        np.testing.assert_allclose([a[i] for a in batch], kl.from_samples(x[i], y[i]), rtol=1e-5)


# --- what has no density, and wrong input -----------------------------------------------------------------------------


def test_repeated_rows() -> None:
    x, y = draws(6, 20, 20, 2)
    same = np.ones_like(x)
    assert kl.from_samples(same, y).value == jnp.inf  # p has an atom that q has not
    assert np.isnan(kl.from_samples(same, same).value)  # log 0/0: no convention is right
    x[:5], y[:5] = 1, 1
    assert np.isnan(kl.from_samples(x, y).value)  # as a formula −∞, which no divergence is
    y[4] = 3
    assert np.isfinite(kl.from_samples(x, y).value)
    x[5] = 1
    assert kl.from_samples(x, y).value == jnp.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_entries_that_are_no_numbers_give_nan(bad: float) -> None:
    x, y = draws(7, 20, 20, 2)
    spoiled = y.copy()
    spoiled[7, 1] = bad
    for pair in ((x, spoiled), (spoiled, x)):
        assert np.isnan(kl.from_samples(*pair)[:2]).all()


@pytest.mark.parametrize(
    ("x", "y", "k", "error", "words"),
    [
        ((9, 3), (9, 2), 5, ValueError, r"y: expected \(m, dim\)"),
        ((9,), (9, 1), 5, ValueError, r"y: expected \(m, dim\)"),
        ((2, 9, 3), (2, 9, 3), 5, ValueError, r"y: expected \(m, dim\)"),
        ((0, 3), (9, 3), 5, ValueError, "at least one draw"),
        ((9, 0), (9, 0), 5, ValueError, "at least one draw"),
        ((9, 3), (20, 3), 9, ValueError, "k: expected an int from 1 to 8"),
        ((20, 3), (9, 3), 10, ValueError, "k: expected an int from 1 to 9"),
        ((9, 3), (9, 3), 0, ValueError, "k: expected an int from 1"),
        ((9, 3), (9, 3), 2.0, TypeError, "k: expected a Python int"),
        ((9, 3), (9, 3), True, TypeError, "k: expected a Python int"),
    ],
)
def test_refuses(x: tuple, y: tuple, k: int, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        jax.eval_shape(partial(kl.from_samples, k=k), *(jax.ShapeDtypeStruct(s, jnp.float32) for s in (x, y)))


def test_refuses_integers_and_a_traced_k() -> None:
    x, y = draws(8, 9, 9, 2)
    with pytest.raises(TypeError, match="y: expected floating-point"):
        kl.from_samples(x, y.astype(np.int32))
    with pytest.raises(TypeError, match="k: expected a Python int"):
        jax.jit(kl.from_samples)(x, y, k=jnp.array(3))


# --- statistics -------------------------------------------------------------------------------------------------------


def test_unbiased_where_the_densities_are_flat_over_a_neighborhood() -> None:
    values, _ = replicates(100, 1000, 1)
    assert_mean(values, gaussian_kl(1), effect=0.03)
    expect_rejection(lambda: assert_mean(values + np.log(5 / 4), gaussian_kl(1)))  # k + 1 taken on one side


@pytest.mark.parametrize(
    ("dim", "bias"),
    [(5, 0.072), (20, 0.559), *(pytest.param(*c, marks=pytest.mark.slow) for c in [(2, 0.01), (10, 0.224)])],
)
def test_the_bias_that_is_documented(dim: int, bias: float) -> None:
    values, errors = replicates(12, 1000, dim)
    spread = np.std(values, ddof=1)
    assert abs(np.mean(values) - gaussian_kl(dim) - bias) < 6 * spread / np.sqrt(12)
    # the standard error is the spread to a factor: the terms' own would be 0.72 (d = 2) to 0.37 (d = 20) of it
    assert 0.6 < np.mean(errors) / spread < 2.5


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "bias"), [(1, 0.0), (2, 0.0), (5, 0.046), (10, 0.174), (20, 0.5)])
def test_the_bias_that_is_documented_for_more_draws(dim: int, bias: float) -> None:
    values, _ = replicates(4, 10_000, dim)
    np.testing.assert_allclose(np.mean(values), gaussian_kl(dim) + bias, atol=0.025 + 0.03 * bias)


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "ratio"), [(2, 1.32), (10, 1.11)])
def test_intervals_hold_the_mean_of_the_estimator(dim: int, ratio: float) -> None:
    values, errors = replicates(400, 1000, dim)
    spread = np.std(values, ddof=1)
    np.testing.assert_allclose(np.mean(errors) / spread, ratio, rtol=0.15)
    covered = np.mean(np.abs(values - np.mean(values)) < 1.96 * errors)
    assert covered > 0.925
    assert np.mean(np.abs(values - np.mean(values)) < 1.96 * 0.5 * errors) < 0.925  # one half as large would not do
