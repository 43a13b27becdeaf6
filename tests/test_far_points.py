"""Integrals over points far out: against closed forms, and against what is hidden from draws."""

import numpy as np
import pytest
from scipy import stats

from vi_kit._far_points import FARTHEST, NEAREST, along_coordinates, directions, on_shells
from vi_kit._gaussian_fit import GaussianFit
from vi_kit.diagnostics._far_out import compare_far_out

FACTOR = np.array([[2.0, 0.0, 0.0], [0.5, 1.0, 0.0], [-0.3, 0.4, 0.7]])
SDS = np.array([2.0, 0.5, 3.0])
MEAN = np.array([1.0, -2.0, 0.0])


def around(scale):
    return GaussianFit(MEAN, scale, 0.0, 1, settled=True, widest=(0, 1.0), losses=())


def normal(scale, widening=1.0):
    factor = np.diag(scale) if scale.ndim == 1 else scale
    return stats.multivariate_normal(MEAN, widening**2 * factor @ factor.T)


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("scale", [FACTOR, SDS])
def test_shells_hold_the_mass_of_the_density(scale):
    """Of a normal, twice as wide as the one they are around, P(χ²₃ > (1.5² · 3) / 4) lies on them."""
    far = on_shells(around(scale), generator(), 4_096)
    log_p = normal(scale, 2.0).logpdf(far.points)
    nothing = np.full(len(log_p), -np.inf)
    found = compare_far_out(far, log_p + 7.0, nothing, 7.0, 0.0)
    assert found.mass == pytest.approx(stats.chi2(3).sf(NEAREST**2 * 3 / 4), rel=1e-3)
    assert found.outside == pytest.approx(found.mass, rel=0.01)


@pytest.mark.parametrize("scale", [FACTOR, SDS])
def test_points_along_coordinates_hold_the_mass_of_the_density(scale):
    """Of independent coordinates all but P(|x| < 1.5 sd)³; of a correlated pair what 400,000 draws say."""
    p = normal(scale, 2.0)
    found = []
    for seed in range(40):
        far = along_coordinates(around(scale), generator(seed), 1_024)
        nothing = np.full(len(far.points), -np.inf)
        found.append(compare_far_out(far, p.logpdf(far.points), nothing, 0.0, 0.0))
    masses = np.array([one.mass for one in found])
    error = masses.std(ddof=1) / np.sqrt(len(masses))
    draws = np.abs(p.rvs(400_000, random_state=1) - MEAN) / np.sqrt(np.diag(normal(scale).cov))
    exact = np.mean(np.any(draws > NEAREST, axis=1))
    assert masses.mean() == pytest.approx(exact, abs=5 * error + 4e-3)
    assert error < 0.02
    reported = np.mean([one.mass_error for one in found]) / 2
    assert masses.std(ddof=1) == pytest.approx(reported, rel=0.5)


def test_directions_come_in_pairs_from_near_to_far():
    points = directions(generator(), 64, 3)
    np.testing.assert_array_equal(points[:32], -points[32:])
    lengths = np.linalg.norm(points[:32], axis=1) / np.sqrt(3)
    assert (np.diff(lengths) > 0).all()
    assert lengths[[0, -1]] == pytest.approx([NEAREST, FARTHEST])


def test_what_is_the_same_in_both_cancels():
    for make in (on_shells, along_coordinates):
        far = make(around(FACTOR), generator(), 512)
        log_p = normal(FACTOR).logpdf(far.points)
        found = compare_far_out(far, log_p, log_p, 0.0, 0.0)
        assert found.mass == found.mass_error == found.spread == found.outside == found.outside_spread == 0
        assert found.missing == ""
        unsure = compare_far_out(far, log_p, log_p, 0.0, 0.1)  # twice a tenth of the mass that is there
        assert unsure.mass_error == pytest.approx(0.2 * np.exp(far.log_volumes + log_p).sum())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("wide", ["one coordinate", "all coordinates"])
def test_a_hundredth_of_the_mass_thirty_deviations_out_is_seen(wide, seed):
    """Of ten coordinates; q is the normal that has the rest."""
    dim, share = 10, 0.01
    fit = GaussianFit(np.zeros(dim), np.ones(dim), 0.0, 1, settled=True, widest=(0, 1.0), losses=())
    widths = np.where((np.arange(dim) == 3) | (wide == "all coordinates"), 30.0, 1.0)
    words = []
    for make in (on_shells, along_coordinates):
        far = make(fit, generator(seed), 512)
        log_q = stats.norm.logpdf(far.points).sum(axis=1)
        log_far = stats.norm.logpdf(far.points / widths).sum(axis=1) - np.log(widths).sum()
        log_p = np.logaddexp(np.log1p(-share) + log_q, np.log(share) + log_far)
        words.append(compare_far_out(far, log_p, log_q, np.log1p(-share), 0.001).missing)
    assert words["one coordinate" == wide].endswith("its tails are too light")


def test_densities_that_are_not_finite_count_as_nothing():
    far = on_shells(around(SDS), generator(), 64)
    log_p = np.where(np.arange(64) % 2 == 0, np.nan, np.inf)
    found = compare_far_out(far, log_p, np.full(64, -1e30), 0.0, 0.0)
    assert found.mass == found.spread == 0
