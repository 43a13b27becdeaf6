"""`explore`: other modes are found, none are invented; and the climb it is made of."""

import numpy as np
import pytest
from scipy.special import logsumexp

from vi_kit._gaussian_fit import fit_gaussian
from vi_kit._restarts import _apart, _climb, explore


def generator(seed=0):
    return np.random.default_rng(seed)


def mixture(weights, means, sds):
    """Components of one standard deviation each, normalized, with the gradient by the textbook formula."""
    weights, means, sds = (np.asarray(part, float) for part in (weights, means, sds))
    dim = means.shape[1]

    def evaluate(points):
        centered = points[:, None] - means
        logs = -0.5 * np.sum(centered**2, axis=2) / sds**2 - dim * np.log(sds * np.sqrt(2 * np.pi)) + np.log(weights)
        values = logsumexp(logs, axis=1)
        shares = np.exp(logs - values[:, None])
        return values, -np.sum((shares / sds**2)[:, :, None] * centered, axis=1)

    return evaluate


def correlated(points):
    precision = np.linalg.inv(np.array([[4.0, 3.9], [3.9, 4.0]]))
    gradients = -points @ precision
    return 0.5 * np.sum(gradients * points, axis=1), gradients


def banana(points):
    x, y = points.T
    bend = y - 0.3 * x**2
    values = -0.5 * x**2 - 0.5 * bend**2 / 0.09
    return values, np.stack([-x + 0.6 * x * bend / 0.09, -bend / 0.09], axis=1)


def first_fit(evaluate, center, dim=2):
    return fit_gaussian(evaluate, np.full(dim, center), 0.1 * np.eye(dim), generator(), most_steps=120)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("center", [-10.0, 10.0])
def test_both_of_two_far_modes(seed, center):
    means = [[10.0, 10.0], [-10.0, -10.0]]
    evaluate = mixture([0.8, 0.2], means, [1.0, 1.0])
    fit = first_fit(evaluate, center)
    found = explore(evaluate, fit, generator(seed), doubted=False)
    assert found.complete
    assert len(found.fits) == 2
    assert found.fits[0] is fit
    ends = np.stack([one.mean for one in found.fits])
    np.testing.assert_allclose(ends[np.argsort(-ends[:, 0])], means, atol=0.3)
    assert found.num_starts == 16 + 32


@pytest.mark.parametrize("center", [-10.0, 10.0])
def test_modes_of_unlike_width_see_each_other(center):
    """From afar every climb goes to the wider one, which the points looked at before make up for."""
    evaluate = mixture([0.8, 0.2], [[10.0, 10.0], [-10.0, -10.0]], [1.0, 2.0])
    fit = first_fit(evaluate, center)
    for seed in range(10):
        found = explore(evaluate, fit, generator(seed), doubted=False)
        assert sorted(round(float(one.scale[0, 0])) for one in found.fits) == [1, 2]


def test_climbs_alone_would_miss_the_narrower_mode():
    """Negative control of the points looked at."""
    evaluate = mixture([0.8, 0.2], [[10.0, 10.0], [-10.0, -10.0]], [1.0, 2.0])
    fit = first_fit(evaluate, -10.0)
    found = [explore(evaluate, fit, generator(seed), doubted=False, num_screened=0) for seed in range(10)]
    assert any(len(one.fits) == 1 for one in found)


@pytest.mark.parametrize("evaluate", [correlated, banana])
@pytest.mark.parametrize("doubted", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_one_mode_is_one_mode(evaluate, doubted, seed):
    fit = first_fit(evaluate, 0.0)
    found = explore(evaluate, fit, generator(seed), doubted=doubted)
    assert found.fits == (fit,)
    assert found.complete


def test_a_valley_is_what_parts_modes(monkeypatch):
    """Negative control: without it, ends of climbs on one bent ridge would count as modes."""
    monkeypatch.setattr("vi_kit._restarts._VALLEY", -np.inf)
    monkeypatch.setattr("vi_kit._restarts._same", lambda a, b: a is b)
    found = explore(banana, first_fit(banana, 0.0), generator(), doubted=True)
    assert len(found.fits) > 1


def test_many_modes_are_not_said_to_be_all():
    """As long as new ones turn up with the last starts, there may be more."""
    corners = np.array(np.meshgrid(*[[-20.0, 20.0]] * 10)).reshape(10, -1).T  # 1,024 of equal mass
    evaluate = mixture(np.ones(1024) / 1024, corners, np.ones(1024))
    fit = fit_gaussian(evaluate, corners[0], np.eye(10), generator(), most_steps=30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vi_kit._restarts._MOST_STARTS", 32)
        found = explore(evaluate, fit, generator(), doubted=True)
    assert not found.complete
    assert len(found.fits) > 2


def test_a_mode_without_mass_is_left_out():
    evaluate = mixture([1 - 1e-6, 1e-6], [[10.0, 10.0], [-10.0, -10.0]], [1.0, 1.0])
    found = explore(evaluate, first_fit(evaluate, 10.0), generator(), doubted=False)
    assert len(found.fits) == 1
    # From there, the one with the mass is found, and where the search began is given up.
    found = explore(evaluate, first_fit(evaluate, -10.0), generator(), doubted=False)
    assert len(found.fits) == 1
    np.testing.assert_allclose(found.fits[0].mean, 10.0, atol=0.3)


@pytest.mark.parametrize("scale", [np.array([[0.5, 0.0], [0.3, 2.0]]), np.array([0.5, 2.0])])
def test_a_climb_on_a_quadratic_ends_on_top(scale):
    center, precision = np.array([1.0, -2.0]), np.array([[3.0, 1.0], [1.0, 2.0]])

    def evaluate(points):
        gradients = -(points - center) @ precision
        return 5 + 0.5 * np.sum(gradients * (points - center), axis=1), gradients

    fit = first_fit(evaluate, 0.0)._replace(scale=scale)
    ends, values = _climb(evaluate, fit, 10 * generator().normal(size=(6, 2)))
    assert ends.shape == (6, 2)
    assert (values > 5 - 1).all()  # less than the valley between two modes
    np.testing.assert_allclose(values, evaluate(ends)[0], atol=1e-9)
    starts = fit.place(10 * generator().normal(size=(6, 2)))
    assert np.median(evaluate(starts)[0]) < -10  # the control: it was a way


def test_a_climb_stays_where_the_density_is_finite():
    def evaluate(points):
        values = -0.5 * np.sum(points**2, axis=1)
        outside, above = points[:, 0] > 2, points[:, 1] > 2
        return np.where(outside, np.nan, np.where(above, np.inf, values)), -points + 3

    fit = first_fit(correlated, 0.0)._replace(mean=np.zeros(2), scale=np.eye(2))
    ends, values = _climb(evaluate, fit, np.array([[0.0, 0.0], [-1.0, 0.5], [3.0, 0.0]]))
    assert len(ends) == 2  # what starts outside is dropped
    assert np.isfinite(values).all()


def test_enormous_values_leave_a_fit():
    """Where rounding hides seven nats, the best fit is still its own equal."""

    def evaluate(points):
        values, gradients = correlated(points)
        return values + 1e18, gradients

    fit = fit_gaussian(evaluate, np.zeros(2), np.eye(2), generator(), most_steps=10)
    assert len(explore(evaluate, fit, generator(), doubted=False).fits) == 1


def test_a_third_mode_between_two_does_not_join_them():
    centers = np.array([[-10.0, 0.0], [0.0, 0.0], [10.0, 0.0]])

    def evaluate(points):
        squares = np.sum((points[:, None] - centers[None]) ** 2, axis=2)
        return np.logaddexp.reduce(-0.5 * squares, axis=1), None

    # The midpoint of the outer two is the middle one.
    assert _apart(evaluate, centers[2:], np.zeros(1), centers[:1], np.zeros(1)) == [0]
    assert _apart(evaluate, centers[2:] + 0.3, np.zeros(1), centers[2:], np.zeros(1)) == []
