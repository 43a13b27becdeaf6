"""`fit_mixture`: densities against scipy, and the weights of modes."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from vi_kit._gaussian_fit import fit_gaussian
from vi_kit._mixture_fit import MODES, PARTS, MixtureFit, fit_mixture, of_modes, parted

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


def test_parts_lie_around_their_component():
    parts = parted(MixtureFit(WEIGHTS, MEANS, SCALES), generator(), 8)
    assert parts.weights.reshape(2, 8).sum(axis=1) == pytest.approx(WEIGHTS)
    np.testing.assert_array_equal(parts.means[::8], MEANS)
    whitened = np.linalg.solve(np.repeat(SCALES, 8, axis=0), (parts.means - np.repeat(MEANS, 8, axis=0))[..., None])
    assert 0 < np.abs(whitened).max() < 4
    for k in (0, 1):
        np.testing.assert_allclose(parts.scales[8 * k], 1.5 * SCALES[k])
        np.testing.assert_allclose(parts.scales[8 * k + 3], 0.7 * SCALES[k])


def skewed(points):
    """Return a log density whose square root is a Gumbel's in each coordinate: log rates of gamma distributions."""
    return (2 * points - np.exp(points)).sum(axis=1), np.zeros_like(points)


@pytest.mark.parametrize("seed", range(3))
def test_parts_take_the_shape_of_one_mode(seed):
    """Of two log rates, gamma with shape 2: E z = digamma(2), Var z = trigamma(2), and the weights are nearly even."""
    mean, variance = 0.42278, 0.64493
    start = MixtureFit(np.ones(1), np.full((1, 2), mean), np.sqrt(variance) * np.eye(2)[None])
    found = fit_mixture(skewed, parted(start, generator(seed), 8), generator(seed), PARTS)
    assert found is not None

    def worth(mixture):
        points = mixture.draw(generator(9), 4_000)
        log_weights = skewed(points)[0] - logsumexp(mixture.log_densities(points), axis=1)
        weights = np.exp(log_weights - logsumexp(log_weights))
        return 1 / np.sum(weights**2) / 4_000, weights @ points

    before, _ = worth(start)
    after, means = worth(found)
    assert before < 0.9 < 0.97 < after
    np.testing.assert_allclose(means, mean, atol=5 * np.sqrt(variance / 4_000) + 0.01)
    points = found.draw(generator(5), 20_000)
    np.testing.assert_allclose(points.var(axis=0), variance, rtol=0.1)


def test_parts_that_get_nowhere_are_given_up():
    """A shell of radius 30 around the start: three rounds, then no more."""
    calls = []

    def shell(points):
        calls.append(len(points))
        return -0.5 * ((np.linalg.norm(points, axis=1) - 30) / 0.01) ** 2, np.zeros_like(points)

    start = MixtureFit(np.ones(1), np.zeros((1, 6)), np.eye(6)[None])
    assert fit_mixture(shell, parted(start, generator(), 8), generator(), PARTS) is None
    assert calls == [PARTS.draws] * 3
