"""The dual bounds: identities and closed forms of Gaussians, then means, coverage and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from statistical import assert_mean, expect_rejection

import vi_kit.kl as kl

BOUNDS = [kl.donsker_varadhan, kl.nguyen_wainwright_jordan]
SHIFT, KL = 0.5, 0.125  # p = N(½, 1), q = N(0, 1): log p/q = x/2 − 1/8


def log_ratio(x: jax.Array) -> jax.Array:
    return SHIFT * x - KL


def draws(key: jax.Array, *shape: int) -> tuple[jax.Array, jax.Array]:
    key_p, key_q = jax.random.split(key)
    return SHIFT + jax.random.normal(key_p, shape), jax.random.normal(key_q, shape)


def critics(seed: int, n: int = 40, m: int = 30, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (scale * rng.normal(size=n)).astype(np.float32), (scale * rng.normal(size=m) - 1).astype(np.float32)


# --- exact ------------------------------------------------------------------------------------------------------------


def test_values_and_standard_errors_in_double_precision() -> None:
    p, q = critics(0)
    wide_p, wide_q = p.astype(np.float64), q.astype(np.float64)
    w = np.exp(wide_q)
    value, error, effective = kl.donsker_varadhan(p, q)
    np.testing.assert_allclose(value, wide_p.mean() - np.log(w.mean()), rtol=1e-6)
    relative = w.var(ddof=1) / w.mean() ** 2 / 30
    np.testing.assert_allclose(error, np.sqrt(wide_p.var(ddof=1) / 40 + relative), rtol=1e-5)
    np.testing.assert_allclose(effective, w.sum() ** 2 / np.sum(w**2), rtol=1e-5)
    value, error, effective_again = kl.nguyen_wainwright_jordan(p, q)
    np.testing.assert_allclose(value, wide_p.mean() - w.mean() / np.e, rtol=1e-6)
    np.testing.assert_allclose(error, np.sqrt(wide_p.var(ddof=1) / 40 + (w / np.e).var(ddof=1) / 30), rtol=1e-5)
    assert effective_again == effective
    value, error, number = kl.classifier(p + np.float32(np.log(3)), log_prior_odds=np.log(3))
    np.testing.assert_allclose(value, wide_p.mean(), atol=1e-6)
    np.testing.assert_allclose(error, wide_p.std(ddof=1) / np.sqrt(40), rtol=1e-5)
    assert number == 40


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0])
@pytest.mark.parametrize("seed", range(5))
def test_donsker_varadhan_is_never_below(seed: int, scale: float) -> None:
    p, q = critics(seed, scale=scale)
    assert kl.donsker_varadhan(p, q).value >= kl.nguyen_wainwright_jordan(p, q).value
    # and they meet where the critic is normalized: the mean of exp(T − 1) over q is 1
    c = 1 - np.float32(np.log(np.mean(np.exp(q.astype(np.float64)))))
    first, second = (bound(p + c, q + c).value for bound in BOUNDS)
    np.testing.assert_allclose(first, second, atol=1e-5 * scale)


@pytest.mark.parametrize("constant", [-1e4, -100.0, 100.0, 1e4])
def test_donsker_varadhan_forgives_a_constant(constant: float) -> None:
    # log(mean(exp(T))) as it is written overflows from 89 and is log 0 below −104
    p, q = critics(1)
    p, q = np.round(p * 64) / 64, np.round(q * 64) / 64  # so that adding the constant rounds nothing
    shifted = kl.donsker_varadhan(p + np.float32(constant), q + np.float32(constant))
    np.testing.assert_allclose(shifted, kl.donsker_varadhan(p, q), rtol=1e-4, atol=2e-3)


def test_no_more_than_the_draws_can_tell() -> None:
    p, q = critics(2, scale=1000.0)
    assert kl.donsker_varadhan(p, q).value <= p.max() - q.max() + np.log(30) + 1e-3
    assert kl.donsker_varadhan(p, q).num_effective < 1.1


@pytest.mark.parametrize("bound", BOUNDS)
def test_masked_draws_are_as_if_absent(bound: Callable) -> None:
    p, q = critics(3)
    in_p, in_q = np.arange(40) % 3 != 0, np.arange(30) % 4 != 0
    spoiled_p, spoiled_q = np.where(in_p, p, np.nan), np.where(in_q, q, np.nan)

    def masked(p: Any, q: Any) -> kl.Estimate:
        return bound(p, q, mask_p=in_p, mask_q=in_q)

    np.testing.assert_allclose(masked(spoiled_p, spoiled_q), bound(p[in_p], q[in_q]), rtol=1e-6)
    gradients = jax.grad(lambda p, q: masked(p, q).value, (0, 1))(spoiled_p, spoiled_q)
    expected = jax.grad(lambda p, q: bound(p, q).value, (0, 1))(p[in_p], q[in_q])
    for counts, gradient, dense in zip((in_p, in_q), gradients, expected, strict=True):
        np.testing.assert_allclose(gradient[counts], dense, rtol=1e-5)
        assert not np.any(gradient[~counts])


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("side", ["mask_p", "mask_q"])
def test_a_side_without_draws(bound: Callable, side: str) -> None:
    nothing = np.full(4, np.nan, np.float32)
    mask = {side: np.zeros(4, bool)}
    p, q = (nothing, np.ones(4, np.float32)) if side == "mask_p" else (np.ones(4, np.float32), nothing)
    assert bound(p, q, **mask) == (0, np.inf, 0)
    assert not np.any(jax.grad(lambda p, q: bound(p, q, **mask).value, (0, 1))(p, q))


def test_classifier_mask() -> None:
    logits, mask = np.array([1.0, np.nan, 3.0], np.float32), np.array([True, False, True])
    np.testing.assert_allclose(kl.classifier(logits, mask=mask), (2, 1, 2))
    np.testing.assert_allclose(jax.grad(lambda a: kl.classifier(a, mask=mask).value)(logits), [0.5, 0, 0.5])
    assert kl.classifier(logits, mask=np.zeros(3, bool), log_prior_odds=0.3) == (0, np.inf, 0)


def test_infinite_critics() -> None:
    one, inf = np.array([1.0, 2.0], np.float32), np.inf
    dv, nwj = BOUNDS
    some = np.array([0.0, -inf], np.float32)
    np.testing.assert_allclose(dv(one, some).value, 1.5 + np.log(2), rtol=1e-6)
    np.testing.assert_allclose(nwj(one, some).value, 1.5 - np.exp(-1) / 2, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda q: dv(one, q).value)(some), [-1, 0])
    nothing = np.full(2, -inf, np.float32)
    assert dv(one, nothing).value == inf
    assert nwj(one, nothing).value == 1.5
    for bound in BOUNDS:
        assert not np.any(jax.grad(lambda q, bound=bound: bound(one, q).value)(nothing))
        assert bound(one, nothing).num_effective == 0
        assert bound(some, one).value == -inf
        assert bound(one, -some).value == -inf
        assert np.isnan(bound(one, -some).standard_error)
        assert np.isnan(bound(-some, -some).value)
        assert np.isnan(bound(one, one * np.nan).value)


def test_single_draws_have_no_standard_error() -> None:
    for bound in BOUNDS:
        assert bound(np.ones(1, np.float32), np.zeros(5, np.float32)).standard_error == np.inf
        assert bound(np.ones(5, np.float32), np.zeros(1, np.float32)).standard_error == np.inf
    assert kl.classifier(np.ones(1, np.float32)).standard_error == np.inf


@pytest.mark.parametrize("bound", BOUNDS)
def test_half_precision_batches_and_x64(bound: Callable) -> None:
    p, q = (jnp.asarray(a, jnp.bfloat16) for a in critics(4))
    half, single = bound(p, q), bound(p.astype(jnp.float32), q.astype(jnp.float32))
    np.testing.assert_array_equal(half, single)
    assert half.value.dtype == jnp.float32
    assert jax.grad(lambda q: bound(p, q).value)(q).dtype == jnp.bfloat16
    batch = jax.jit(jax.vmap(bound))(jnp.stack([p, -p]), jnp.stack([q, -q]))
    np.testing.assert_allclose([a[0] for a in batch], single, rtol=1e-5)
    with jax.enable_x64(True):
        p64, q64 = (a.astype(np.float64) for a in critics(4))
        assert bound(p64, q64).value.dtype == np.float64
        expected = np.mean(p64) - np.log(np.mean(np.exp(q64)))
        np.testing.assert_allclose(kl.donsker_varadhan(p64, q64).value, expected, rtol=1e-13)


def test_only_the_value_has_a_gradient() -> None:
    p, q = critics(5)
    for bound in BOUNDS:
        for part in (1, 2):
            gradients = jax.grad(lambda p, q, bound=bound, part=part: bound(p, q)[part], (0, 1))(p, q)
            assert not any(np.any(g) for g in gradients)


def test_the_moving_average_gradient_is_in_the_other_bound() -> None:
    p, q = critics(6)

    def moving_average(p: jax.Array, q: jax.Array) -> jax.Array:
        c = jax.lax.stop_gradient(jax.nn.logsumexp(q) - np.log(30))  # of this batch alone: then both agree
        return kl.nguyen_wainwright_jordan(p + 1 - c, q + 1 - c).value

    first = jax.grad(lambda p, q: kl.donsker_varadhan(p, q).value, (0, 1))(p, q)
    for a, b in zip(first, jax.grad(moving_average, (0, 1))(p, q), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda a: kl.donsker_varadhan(a[None], a), ValueError, "critic_p: expected a number for each"),
        (lambda a: kl.nguyen_wainwright_jordan(a, a[:0]), ValueError, "critic_q: expected a number for each"),
        (lambda a: kl.donsker_varadhan(a, a[0]), ValueError, "critic_q: expected a number for each"),
        (lambda a: kl.donsker_varadhan(a, a, mask_p=np.ones(3, bool)), ValueError, "mask_p: expected shape"),
        (lambda a: kl.donsker_varadhan(a, a, mask_q=np.ones((1, 4), bool)), ValueError, "mask_q: expected shape"),
        (lambda a: kl.donsker_varadhan(a, a, mask_q=np.ones(4)), TypeError, "mask_q: expected booleans"),
        (lambda a: kl.donsker_varadhan(a.astype(int), a), TypeError, "critic_p: expected floating-point"),
        (lambda a: kl.classifier(a[None]), ValueError, "logits_p: expected a number for each"),
        (lambda a: kl.classifier(a, log_prior_odds=a), ValueError, "log_prior_odds: expected a number"),
        (lambda a: kl.classifier(a, mask=np.ones(3, bool)), ValueError, "mask: expected shape"),
    ],
)
def test_refuses(call: Callable, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(np.ones(4, np.float32))


# --- statistics -------------------------------------------------------------------------------------------------------


def optimal(bound: Callable) -> Callable:
    """Return the estimate with the critic for which the bound is KL itself."""
    constant = {kl.donsker_varadhan: 3.0, kl.nguyen_wainwright_jordan: 1.0}.get(bound)
    if constant is None:
        return lambda x, y: kl.classifier(log_ratio(x) + jnp.log(3.0), log_prior_odds=jnp.log(3.0))
    return lambda x, y: bound(log_ratio(x) + constant, log_ratio(y) + constant)


@pytest.mark.parametrize("bound", [*BOUNDS, kl.classifier])
def test_best_critic_gives_kl_and_intervals_that_hold_it(bound: Callable, key: jax.Array) -> None:
    x, y = draws(key, 2000, 1000)
    values, errors, _ = jax.jit(jax.vmap(optimal(bound)))(x, y)
    assert_mean(values, KL, effect=0.005)
    # negative control: p and q exchanged; for the classifier the prior odds forgotten
    swapped = jax.jit(jax.vmap(optimal(bound)))(y, x).value if bound in BOUNDS else values + np.log(3)
    expect_rejection(lambda: assert_mean(swapped, KL))

    def coverage(factor: float) -> float:
        return float(np.mean(np.abs(values - KL) < 1.96 * factor * errors))

    assert 0.925 < coverage(1.0) < 0.975
    assert coverage(0.7) < 0.925  # as large as with one of the two sets taken for fixed
    assert coverage(1.4) > 0.975


def test_donsker_varadhan_bias_is_the_documented_one(key: jax.Array) -> None:
    x, y = draws(key, 20_000, 50)
    values = jax.jit(jax.vmap(optimal(kl.donsker_varadhan)))(x, y).value
    # What is unbiased and linear is taken off, so that little but the bias is left.
    rest = values - jnp.mean(log_ratio(x), axis=1) + jnp.mean(jnp.exp(log_ratio(y)), axis=1) - 1
    np.testing.assert_allclose(np.mean(rest), np.expm1(SHIFT**2) / (2 * 50), rtol=0.1)


def test_gradient_of_nguyen_wainwright_jordan_is_unbiased(key: jax.Array) -> None:
    x, y = draws(key, 20_000, 4)
    a, b = 0.8, 0.3  # critic a x + b

    def gradient(bound: Callable) -> jax.Array:
        def value(ab: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
            return bound(ab[0] * x + ab[1], ab[0] * y + ab[1]).value

        return jax.jit(jax.vmap(jax.grad(value), (None, 0, 0)))(jnp.array([a, b]), x, y)

    normalizer = np.exp(b - 1 + a * a / 2)
    assert_mean(gradient(kl.nguyen_wainwright_jordan), np.array([SHIFT - normalizer * a, 1 - normalizer]), effect=0.06)
    # Donsker–Varadhan's is not, for few draws: E_p x − a would be its expectation
    expect_rejection(lambda: assert_mean(gradient(kl.donsker_varadhan)[:, 0], SHIFT - a))
