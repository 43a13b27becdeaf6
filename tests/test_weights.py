"""Importance weights against arviz and theory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vi_kit._weights import effective_sample_size, khat_threshold, pareto_smooth


def normal_log_weights(key, scale, num):
    """Return log weights of N(0, 1) over N(0, scale²) at draws of the latter, in float64 on the host."""
    z = np.asarray(jax.random.normal(key, (num,)), np.float64) * scale
    return -0.5 * z**2 + 0.5 * (z / scale) ** 2


def arviz_psis(log_weights):
    """Smooth by arviz: before 1.0 it takes log weights, after it their negatives, with a slightly different tail."""
    arviz = pytest.importorskip("arviz")
    if hasattr(arviz, "psislw"):
        return *arviz.psislw(log_weights), 2e-3
    from arviz_stats.base import array_stats

    return *array_stats.psislw(-log_weights), 2e-2


@pytest.mark.parametrize("scale", [0.5, 0.6, 0.8, 1.3])
@pytest.mark.parametrize("num", [200, 4_000])
def test_agrees_with_arviz(key, scale, num):
    log_weights = normal_log_weights(key, scale, num)
    smoothed = pareto_smooth(jnp.asarray(log_weights, jnp.float32))
    expected, expected_khat, tolerance = arviz_psis(log_weights)
    np.testing.assert_allclose(smoothed.khat, float(expected_khat), atol=tolerance)
    np.testing.assert_allclose(np.exp(smoothed.log_weights), np.exp(expected), rtol=2 * tolerance, atol=1e-6)


@pytest.mark.slow
def test_khat_is_the_tail_of_a_pareto(key):
    # Exact Pareto weights of shape 0.6; the estimator's sd is about (1 + k)/√M, M = 3√n.
    num = 100_000
    log_weights = -0.6 * jnp.log(jax.random.uniform(key, (num,), minval=1e-7))
    khat = float(pareto_smooth(log_weights).khat)
    assert abs(khat - 0.6) < 5 * 1.6 / np.sqrt(3 * np.sqrt(num))


def test_sign_of_the_weights_matters(key):
    # The trap of libraries that expect −log w: the two signs must not agree.
    log_weights = jnp.asarray(normal_log_weights(key, 0.6, 4_000), jnp.float32)
    assert float(pareto_smooth(log_weights).khat) > 0.3
    assert float(pareto_smooth(-log_weights).khat) < 0


@pytest.mark.slow
def test_shift_of_the_log_weights_changes_nothing(key):
    log_weights = jnp.asarray(normal_log_weights(key, 0.7, 1_000), jnp.float32)
    here, there = pareto_smooth(log_weights), pareto_smooth(log_weights - 300.0)
    np.testing.assert_allclose(here.khat, there.khat, atol=1e-3)
    assert float(effective_sample_size(log_weights)) == pytest.approx(
        float(effective_sample_size(log_weights - 300.0)), rel=1e-3
    )


def test_effective_sample_size():
    assert float(effective_sample_size(jnp.zeros(10))) == pytest.approx(10.0)
    assert float(effective_sample_size(jnp.array([0.0, -jnp.inf, -jnp.inf]))) == pytest.approx(1.0)
    assert float(effective_sample_size(jnp.log(jnp.array([1.0, 2.0, 3.0])))) == pytest.approx(36 / 14)
    assert float(effective_sample_size(jnp.full(4, -jnp.inf))) == 0.0


def test_edges():
    assert float(pareto_smooth(jnp.zeros(100)).khat) == -np.inf
    assert float(pareto_smooth(jnp.full(100, -jnp.inf)).khat) == np.inf
    assert float(pareto_smooth(jnp.zeros(100).at[3].set(jnp.nan)).khat) == np.inf
    half = jnp.where(jnp.arange(200) % 2 == 0, -jnp.inf, jnp.linspace(-1.0, 0.0, 200))
    smoothed = pareto_smooth(half)
    assert np.isfinite(float(smoothed.khat))
    assert float(jnp.exp(smoothed.log_weights[::2]).sum()) == 0.0
    with pytest.raises(ValueError, match="at least 25 draws"):
        pareto_smooth(jnp.zeros(24))


@pytest.mark.parametrize("spread", [10.0, 100.0, 1_000.0, 1e5])
def test_collapsed_weights_have_no_small_khat(key, spread):
    # Log weights spread over hundreds of nats: one draw carries all; smoothing must not make them look alike.
    smoothed = pareto_smooth(spread * jax.random.normal(key, (20_000,)))
    assert float(smoothed.khat) > 1.0
    assert float(effective_sample_size(smoothed.log_weights)) < 100


def test_threshold():
    assert khat_threshold(10_000) == pytest.approx(0.7)
    assert khat_threshold(1_000) == pytest.approx(1 - 1 / 3)
