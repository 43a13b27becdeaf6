"""`fit_mixture`: densities against scipy, and the weights of modes."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from vi_kit._gaussian_fit import fit_gaussian
from vi_kit._mixture_fit import MODES, MixtureFit, fit_mixture, of_modes

MEANS = np.array([[6.0, 4.0], [-5.0, -6.0]])
SCALES = np.array([[[1.0, 0.0], [0.6, 0.8]], [[2.0, 0.0], [-0.3, 0.5]]])
WEIGHTS = np.array([0.85, 0.15])


def generator(seed=0):
    return np.random.default_rng(seed)


def log_densities(points):
    parts = [stats.multivariate_normal(m, s @ s.T).logpdf(points) for m, s in zip(MEANS, SCALES, strict=True)]
    return np.stack(parts, axis=1) + np.log(WEIGHTS)


def evaluate(points):
    logs = log_densities(points)
    values = logsumexp(logs, axis=1)
    shares = np.exp(logs - values[:, None])
    gradients = np.zeros_like(points)
    for k in range(2):
        gradients -= shares[:, k : k + 1] * ((points - MEANS[k]) @ np.linalg.inv(SCALES[k] @ SCALES[k].T))
    return values, gradients


def test_log_densities():
    points = 5 * generator().normal(size=(20, 2))
    np.testing.assert_allclose(MixtureFit(WEIGHTS, MEANS, SCALES).log_densities(points), log_densities(points))


def test_draws_have_the_moments():
    points = MixtureFit(WEIGHTS, MEANS, SCALES).draw(generator(), 40_000)
    first = points[:, 1] > -2  # six standard deviations from either
    assert first.mean() == pytest.approx(0.85, abs=5 * np.sqrt(0.85 * 0.15 / 40_000) + 1e-3)
    covariance = np.cov(points[first].T)
    np.testing.assert_allclose(covariance, SCALES[0] @ SCALES[0].T, atol=0.05)
    np.testing.assert_allclose(points[first].mean(axis=0), MEANS[0], atol=0.05)


def test_wider_copies_leave_the_centers():
    wide = MixtureFit(WEIGHTS, MEANS, SCALES).widened()
    assert wide.weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(wide.weights[:2] + wide.weights[2:], WEIGHTS)
    np.testing.assert_array_equal(wide.means, np.concatenate([MEANS, MEANS]))
    assert (wide.scales[2:][SCALES != 0] ** 2 > SCALES[SCALES != 0] ** 2).all()


@pytest.mark.parametrize("seed", range(3))
def test_unequal_modes_are_recovered(seed):
    start = [fit_gaussian(evaluate, center, np.eye(2), generator(seed), most_steps=60) for center in MEANS]
    assert all(fit is not None for fit in start)
    biased = [start[0]._replace(elbo=start[0].elbo - 2), start[1]]  # so that the weights come from the draws
    found = fit_mixture(evaluate, of_modes(biased), generator(seed), MODES)
    # Four rounds of 2,000 draws: a standard error below 0.01 for a weight, 0.06 for the rest.
    np.testing.assert_allclose(found.weights, WEIGHTS, atol=0.05)
    np.testing.assert_allclose(found.means, MEANS, atol=0.3)
    for k in range(2):
        covariance = SCALES[k] @ SCALES[k].T
        np.testing.assert_allclose(found.scales[k] @ found.scales[k].T, covariance, atol=0.15 * covariance.max())
    assert found.weights.sum() == pytest.approx(1)


def test_standard_deviations_are_taken_too():
    fits = [fit_gaussian(evaluate, center, np.ones(2), generator(), most_steps=60) for center in MEANS]
    found = fit_mixture(evaluate, of_modes(fits), generator(), MODES)
    np.testing.assert_allclose(found.weights, WEIGHTS, atol=0.05)
    correlation = found.scales[0] @ found.scales[0].T
    assert correlation[0, 1] == pytest.approx(0.6, abs=0.2)  # learned from the draws


def test_without_a_finite_draw_the_mixture_is_the_first():
    fits = [fit_gaussian(evaluate, center, np.eye(2), generator(), most_steps=60) for center in MEANS]

    def nowhere(points):
        return np.full(len(points), np.nan), np.full_like(points, np.nan)

    found = fit_mixture(nowhere, of_modes(fits), generator(), MODES)
    np.testing.assert_array_equal(found.means, np.stack([fit.mean for fit in fits]))
    assert np.isfinite(found.weights).all()
