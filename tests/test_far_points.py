"""Integrals over points far out: against closed forms, and against what is hidden from draws."""

import numpy as np
import pytest
from scipy import stats

from vi_kit._far_points import FARTHEST, NEAREST, along, coordinate_ways, directions, heavy_ways, on_shells
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


def along_coordinates(fit, generator, count):
    return along(fit, coordinate_ways(fit), generator, count)


def compared(fit, far, log_p, log_q, log_z=0.0, error=0.0):
    sds = np.linalg.norm(np.atleast_2d(fit.scale), axis=1) if fit.scale.ndim == 2 else fit.scale
    return compare_far_out(far.log_volumes, log_p, log_q, (far.points - fit.mean) / sds, log_z, error)


@pytest.mark.parametrize("scale", [FACTOR, SDS])
def test_shells_hold_the_mass_of_the_density(scale):
    """Of a normal, twice as wide as the one they are around, P(χ²₃ > (1.5² · 3) / 4) lies on them."""
    far = on_shells(around(scale), generator(), 4_096)
    log_p = normal(scale, 2.0).logpdf(far.points)
    nothing = np.full(len(log_p), -np.inf)
    found = compared(around(scale), far, log_p + 7.0, nothing, 7.0)
    assert found.mass == pytest.approx(stats.chi2(3).sf(NEAREST**2 * 3 / 4), rel=1e-3)
    assert found.outside == pytest.approx(found.mass, rel=0.01)


@pytest.mark.parametrize("scale", [FACTOR, SDS])
def test_points_along_coordinates_hold_the_mass_of_the_density(scale):
    """Of independent coordinates all but P(|x| < 1.5 sd)³; of a correlated pair what 400,000 draws say."""
    p = normal(scale, 1.3)
    found = []
    for seed in range(40):
        far = along_coordinates(around(scale), generator(seed), 1_024)
        nothing = np.full(len(far.points), -np.inf)
        found.append(compared(around(scale), far, p.logpdf(far.points), nothing))
    masses = np.array([one.mass for one in found])
    error = masses.std(ddof=1) / np.sqrt(len(masses))
    draws = np.abs(p.rvs(400_000, random_state=1) - MEAN) / np.sqrt(np.diag(normal(scale).cov))
    exact = np.mean(np.any(draws > NEAREST, axis=1))
    assert masses.mean() == pytest.approx(exact, abs=5 * error + 4e-3)
    assert error < 0.03
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
        found = compared(around(FACTOR), far, log_p, log_p)
        assert found.mass == found.mass_error == found.spread == found.outside == found.outside_spread == 0
        assert found.missing == ""
        unsure = compared(around(FACTOR), far, log_p, log_p, error=0.1)  # twice a tenth of the mass that is there
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
        words.append(compared(fit, far, log_p, log_q, np.log1p(-share), 0.001).missing)
    assert words[wide == "one coordinate"].endswith("its tails are too light")


def test_what_is_unknown_vouches_for_nothing():
    far = on_shells(around(SDS), generator(), 64)
    log_p = np.where(np.arange(64) % 2 == 0, np.nan, -np.inf)
    found = compared(around(SDS), far, log_p, np.full(64, -1e30))
    assert found.mass == found.spread == 0
    assert found.outside == found.outside_spread == np.inf


@pytest.mark.parametrize("height", [100.0, 800.0, np.inf])
def test_overwhelming_mass_is_mass(height):
    far = on_shells(around(SDS), generator(), 512)
    lengths = np.linalg.norm((far.points - MEAN) / SDS, axis=1)
    log_q = normal(SDS).logpdf(far.points)
    found = compared(around(SDS), far, np.where(lengths > 20, height, log_q), log_q)
    assert found.missing
    assert found.outside > 1


def test_enormous_coordinates_raise_no_warning():
    far = on_shells(around(SDS), generator(), 64)
    standardized = np.where(np.arange(64)[:, None] % 3 == 0, [[1e300, np.inf, np.nan]], 1.0)
    with np.errstate(all="raise", under="ignore"):
        found = compare_far_out(far.log_volumes, np.full(64, np.inf), np.full(64, -np.inf), standardized, 0.0, 0.01)
    assert found.missing


def test_coordinates_of_the_user_count():
    """One percent of the mass is little, but the exponential of the coordinate has most of its variance there."""
    fit = GaussianFit(np.zeros(1), np.eye(1), 0.0, 1, settled=True, widest=(0, 1.0), losses=())
    far = on_shells(fit, generator(), 512)
    log_q = stats.norm.logpdf(far.points[:, 0])
    log_p = np.logaddexp(np.log(0.99) + log_q, np.log(0.01) + stats.norm.logpdf(far.points[:, 0], 3.0, 0.5))
    plain = compare_far_out(far.log_volumes, log_p, log_q, far.points, 0.0, 0.0)
    assert plain.missing == ""
    scale = np.sqrt(np.exp(1.0) * (np.exp(1.0) - 1))
    x = (np.exp(far.points) - np.exp(0.5)) / scale
    found = compare_far_out(far.log_volumes, log_p, log_q, x, 0.0, 0.0)
    assert found.missing.endswith("its tails are too light")
    grid = np.linspace(NEAREST, 20, 200_001)
    extra = 0.01 * (stats.norm.pdf(grid, 3.0, 0.5) - stats.norm.pdf(grid))
    exact = np.trapezoid(extra * ((np.exp(grid) - np.exp(0.5)) / scale) ** 2, grid)
    assert found.spread == pytest.approx(exact, rel=0.02)


def test_the_direction_of_a_tube_is_found():
    """Four percent of the mass lie along the diagonal of three coordinates; shells and coordinates hardly meet it."""
    u = np.ones(3) / np.sqrt(3)
    fit = GaussianFit(np.zeros(3), np.eye(3), 0.0, 1, settled=True, widest=(0, 1.0), losses=())
    tube = stats.multivariate_normal(np.zeros(3), np.eye(3) + 20.0**2 * np.outer(u, u))
    shells = on_shells(fit, generator(), 512)
    shown = heavy_ways(shells.points, shells.log_volumes + np.log(0.04) + tube.logpdf(shells.points), 1)
    assert abs(shown[0] @ u) > 0.99
    far = along(fit, u[None], generator(), 512)
    log_q = stats.norm.logpdf(far.points).sum(axis=1)
    log_p = np.logaddexp(np.log(0.96) + log_q, np.log(0.04) + tube.logpdf(far.points))
    found = compared(fit, far, log_p, log_q)
    ends = np.array([NEAREST, FARTHEST]) ** 2
    lengthwise = 401 * np.diff(stats.chi2(3).cdf(ends / 401))[0] - stats.chi2(3).sf(NEAREST**2)
    across = np.diff(stats.chi2(1).cdf(ends / 401))[0] - stats.chi2(1).sf(NEAREST**2)
    assert found.spread == pytest.approx(0.04 * (lengthwise + 2 * across) / 3, rel=0.05)
    assert found.missing


def test_no_direction_where_nothing_is_seen():
    assert heavy_ways(np.ones((4, 2)), np.full(4, -np.inf), 2).shape == (0, 2)
