"""Simulation-based calibration on a conjugate model, where posteriors of any width can be had exactly."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vi_kit as vk

NUM = 5


def log_density(x, data):
    return -0.5 * x**2 - 0.5 * jnp.sum((data - x) ** 2)


def simulate(key):
    prior_key, data_key = jax.random.split(key)
    x = jax.random.normal(prior_key)
    return x, x + jax.random.normal(data_key, (NUM,))


def exact(shift=0.0, wider=1.0, *, reliable=True):
    """Fit by hand: the posterior is normal with precision NUM + 1."""

    def fit(key, target):
        del key
        mean, sd = jnp.sum(target.data) / (NUM + 1), (NUM + 1) ** -0.5

        def sample(key, n):
            return mean + sd * (shift + wider * jax.random.normal(key, (n,)))

        return SimpleNamespace(sample=sample, report=SimpleNamespace(reliable=reliable))

    return fit


def calibrate(fit, key, **options):
    target = vk.make_target(log_density, like=0.0, data=jnp.zeros(NUM))
    return vk.diagnostics.simulation_based_calibration(key, target, simulate, fit, **{"num_simulations": 200} | options)


def test_the_exact_posterior_is_calibrated(key):
    """Bias and spread are standard normal: beyond 5.1 with a chance of 1e-6 in all."""
    found = calibrate(exact(), key)
    assert found.ranks.shape == (200, 1)
    assert abs(found.bias["x"]) < 5.1
    assert abs(found.spread["x"]) < 5.1
    assert found.calibrated
    assert "Nothing against it" in str(found)


@pytest.mark.parametrize(
    ("fit", "words"),
    [
        (exact(shift=0.5), "lies too high"),
        (exact(shift=-0.5), "lies too low"),
        (exact(wider=0.5), "too narrow"),
        (exact(wider=2.0), "too wide"),
    ],
)
def test_a_wrong_posterior_is_seen(fit, words, key):
    found = calibrate(fit, key)
    assert not found.calibrated
    assert words in found.reason
    assert words in str(found)


def test_bias_and_spread_are_standardized():
    """Ranks spread evenly over all values have neither."""
    ranks = np.arange(100)[:, None]
    even = vk.diagnostics.Calibration(("x",), ranks, 99, 0)
    assert even.bias["x"] == pytest.approx(0, abs=1e-9)
    assert even.spread["x"] == pytest.approx(0, abs=0.01)
    ends = vk.diagnostics.Calibration(("x",), np.where(ranks < 50, 0, 99), 99, 0)
    assert ends.spread["x"] > 20
    assert ends.p_values["x"] < 1e-6


def test_unreliable_fits_are_counted(key):
    assert calibrate(exact(reliable=False), key, num_simulations=10).unreliable == 10


def test_arguments_are_checked(key):
    target = vk.make_target(log_density, like=0.0, data=jnp.zeros(NUM))
    with pytest.raises(ValueError, match=r"simulate: expected data of the target's shapes \(5,\), got \(6,\)"):
        vk.diagnostics.simulation_based_calibration(key, target, lambda key: (0.0, jnp.zeros(6)), exact())
    with pytest.raises(ValueError, match="num_simulations"):
        calibrate(exact(), key, num_simulations=3)
