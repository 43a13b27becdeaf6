"""Bounds made from importance weights: never below what they bound, and none where weights give no honest one."""

import math

import numpy as np
import pytest

from vi_kit.diagnostics._error_bounds import chi_square_limit, moment_bounds, wasserstein_bounds

NUM = 4_096


def log_weights_of_gaussians(generator, mean, sd, num=NUM):
    """Weights of p = N(mean, sd²) at draws of q = N(0, 1), and χ²(p‖q)."""
    x = generator.normal(size=num)
    exact = math.exp(mean**2 / (2 - sd**2)) / (sd * math.sqrt(2 - sd**2)) - 1
    return x, -0.5 * ((x - mean) / sd) ** 2 - math.log(sd) + 0.5 * x**2, exact


@pytest.mark.parametrize(("mean", "sd"), [(0.1, 1.0), (0.5, 0.9), (0.0, 1.05), (0.3, 1.1)])
def test_the_limit_is_above_chi_square_and_near_it(mean, sd):
    generator = np.random.default_rng(0)
    limits = []
    for _ in range(50):
        _, log_weights, exact = log_weights_of_gaussians(generator, mean, sd)
        limits.append(chi_square_limit(log_weights))
    found = np.array([limit for limit in limits if limit is not None])
    assert len(found) >= 40
    assert np.mean(found >= exact) >= 0.8  # 50 limits of 95 %: below 40 with probability 1e-6
    assert np.median(found) < 2 * exact + 1e-3


@pytest.mark.parametrize("exponent", [3.0, 4.0, 6.0])
def test_heavy_tails_are_covered_or_refused(exponent):
    generator = np.random.default_rng(1)
    exact = exponent / (exponent - 2) / (exponent / (exponent - 1)) ** 2 - 1
    limits = [chi_square_limit(np.log(generator.pareto(exponent, NUM) + 1)) for _ in range(100)]
    found = [limit for limit in limits if limit is not None]
    assert np.mean([limit >= exact for limit in found]) >= 0.8
    # A sample mean of squares with its standard error is not: what the tail is for.
    plain = []
    for _ in range(100):
        weights = generator.pareto(3.0, NUM) + 1
        squares = (weights / weights.mean()) ** 2
        plain.append(squares.mean() + 1.645 * squares.std() / math.sqrt(NUM) - 1)
    assert np.mean(np.array(plain) >= 1 / 3) < 0.75


def test_ties_and_rare_weights_are_not_taken_for_light_tails():
    generator = np.random.default_rng(4)
    rare = [chi_square_limit(np.log(np.where(generator.random(NUM) < 0.003, 100.0, 0.7 / 0.997))) for _ in range(20)]
    assert rare == [None] * 20
    two = [chi_square_limit(np.log(generator.choice([0.5, 1.5], size=NUM))) for _ in range(100)]
    assert np.mean([limit >= 0.25 for limit in two]) > 0.8  # 0.5 for the plain mean


def test_no_limit_where_there_is_none():
    generator = np.random.default_rng(2)
    assert all(chi_square_limit(np.log(generator.pareto(1.8, NUM) + 1)) is None for _ in range(20))
    assert chi_square_limit(np.array([0.0, -np.inf] * 100)) is None
    assert chi_square_limit(np.zeros(NUM)) == 0.0


def test_moments_and_distances_are_within_their_bounds():
    generator = np.random.default_rng(3)
    for mean, sd in [(0.4, 1.0), (0.0, 0.7), (0.0, 1.15), (-0.5, 0.8)]:
        x, _, exact = log_weights_of_gaussians(generator, mean, sd, 100_000)
        means, sds = moment_bounds(x[:, None], exact)
        assert abs(mean) <= means[0] + 0.01
        assert abs(sd - 1) <= sds[0] + 0.01
        distances = wasserstein_bounds(x[:, None], exact)
        assert distances.first == pytest.approx(means[0])
        assert math.hypot(mean, sd - 1) <= distances.second  # W₂ of two normals
        # Not far above either: a bound that is always huge would pass.
        assert means[0] < 1.5
        assert distances.second < 2.5
    assert moment_bounds(x[:, None], 0.0)[0] == 0.0
