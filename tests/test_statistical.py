"""The checks themselves: right claims pass, wrong ones are rejected, weak ones are called weak."""

import numpy as np
import pytest
from scipy import stats
from statistical import NoPower, Rejected, assert_mean, assert_same_distribution, expect_rejection


@pytest.fixture
def draws():
    return np.random.default_rng(0).normal([1.0, 2.0], [1.0, 3.0], size=(10_000, 2))


def test_right_mean_passes(draws):
    assert_mean({"a": draws[:, 0], "b": draws[:, 1:]}, {"a": 1.0, "b": np.array([2.0])}, effect=0.2)


def test_bias_of_six_standard_errors_is_rejected(draws):
    shifted = draws + np.array([0.0, 6 * 3.0 / 100 + abs(draws[:, 1].mean() - 2.0)])
    with pytest.raises(Rejected, match="entry 1"):
        assert_mean(shifted, np.array([1.0, 2.0]))


def test_nan_is_rejected(draws):
    with pytest.raises(Rejected):
        assert_mean(np.where(draws > 5, np.nan, draws), np.array([1.0, 2.0]))


def test_constant_draws_are_compared_up_to_rounding():
    assert_mean(np.full(10, 0.1, np.float32), 0.1)
    expect_rejection(lambda: assert_mean(np.full(10, 0.1, np.float32), 0.1001))


def test_too_few_draws_are_refused(draws):
    with pytest.raises(NoPower, match="could hide"):
        assert_mean(draws[:50], np.array([1.0, 2.0]), effect=0.01)
    with pytest.raises(NoPower):
        expect_rejection(lambda: assert_mean(draws[:50], np.array([1.0, 2.0]), effect=0.01))


def test_threshold_keeps_its_rate_of_false_alarms():
    rng, alarms = np.random.default_rng(1), 0
    for _ in range(400):
        try:
            assert_mean(rng.normal(size=(500, 5)), np.zeros(5), false_alarm=0.1)
        except Rejected:
            alarms += 1
    assert 18 <= alarms <= 65  # binomial(400, 0.1), at most 1e-4 either side


def test_same_distribution(draws):
    standard = (draws - [1.0, 2.0]) / [1.0, 3.0]
    assert_same_distribution(standard, stats.norm.cdf)
    assert_same_distribution(draws, np.random.default_rng(2).normal([1.0, 2.0], [1.0, 3.0], size=(10_000, 2)))
    expect_rejection(lambda: assert_same_distribution(1.1 * standard, stats.norm.cdf))


def test_negative_control_fails_when_nothing_is_rejected(draws):
    with pytest.raises(AssertionError, match="wrong claim passed"):
        expect_rejection(lambda: assert_mean(draws, np.array([1.0, 2.0])))
