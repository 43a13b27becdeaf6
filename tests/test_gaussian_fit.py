"""`fit_gaussian`: exact on Gaussians, the steps of `NaturalGradient`, and when it ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vi_kit._gaussian_fit import GaussianFit, fit_gaussian
from vi_kit.algorithms._expected_derivatives import means_of, points_of
from vi_kit.algorithms._natural_gradient import move_full_rank, move_mean_field

MEAN = np.array([3.0, -1.0, 0.5])
FACTOR = np.array([[2.0, 0.0, 0.0], [1.5, 0.3, 0.0], [-0.4, 0.1, 1.0]])
SDS = np.array([0.2, 3.0, 1.0])


def gaussian(mean, covariance, log_normalizer=0.0):
    precision = np.linalg.inv(covariance)
    volume = 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]

    def evaluate(points):
        gradients = -(points - mean) @ precision
        return log_normalizer - volume + 0.5 * np.sum(gradients * (points - mean), axis=1), gradients

    return evaluate


def generator():
    return np.random.default_rng(0)


def test_a_gaussian_is_exact():
    evaluate = gaussian(MEAN, FACTOR @ FACTOR.T, log_normalizer=1.7)
    fit = fit_gaussian(evaluate, np.zeros(3), 0.1 * np.eye(3), generator(), most_steps=60)
    np.testing.assert_allclose(fit.mean, MEAN, atol=0.05)
    np.testing.assert_allclose(fit.scale @ fit.scale.T, FACTOR @ FACTOR.T, rtol=0.1, atol=0.02)
    assert fit.elbo == pytest.approx(1.7, abs=0.01)  # the last gain is below a hundredth of a nat
    assert fit.settled
    assert fit.steps < 20
    assert len(fit.losses) >= fit.steps
    assert fit.losses[-1] == -fit.elbo


def test_a_gaussian_without_correlations_is_exact_for_standard_deviations():
    fit = fit_gaussian(gaussian(MEAN, np.diag(SDS**2), 0.3), np.zeros(3), np.full(3, 0.1), generator(), most_steps=60)
    np.testing.assert_allclose(fit.mean, MEAN, atol=0.1 * SDS.min() + 0.05)
    np.testing.assert_allclose(fit.scale, SDS, rtol=0.1)
    assert fit.elbo == pytest.approx(0.3, abs=0.01)
    assert fit.settled


@pytest.mark.parametrize(("scale", "move"), [(0.5 * np.eye(3), move_full_rank), (np.full(3, 0.5), move_mean_field)])
def test_a_step_is_that_of_natural_gradients(scale, move):
    """The same points and moves, in numpy and in jax, whichever family."""
    seen = []

    def evaluate(points):
        seen.append(points)
        return -np.sum(np.cosh(points), axis=1), -np.sinh(points)

    mean = np.array([0.5, -0.2, 0.1])
    fits = []
    fit_gaussian(evaluate, mean, scale, generator(), most_steps=2, watch=lambda now: fits.append(now) or False)
    first = seen[0]
    whitened = (first - mean) / 0.5  # of either scale
    radii = np.linalg.norm(whitened[:3], axis=1)
    directions = whitened[:3] / radii[:, None]
    np.testing.assert_allclose(directions @ directions.T, np.eye(3), atol=1e-12)
    with jax.enable_x64(True):
        mean_, scale_, directions_, radii_ = map(jnp.asarray, (mean, scale, directions, radii))
        points = points_of(mean_, scale_, directions_, radii_)
        np.testing.assert_allclose(first, points, rtol=1e-12)
        values, gradients = jax.vmap(jax.value_and_grad(lambda x: -jnp.sum(jnp.cosh(x))))(points)
        expected = move(mean_, scale_, means_of(values, 0.5 * gradients, directions_, radii_), 1.0)
    np.testing.assert_allclose(fits[1].mean, expected[0], rtol=1e-9)
    np.testing.assert_allclose(fits[1].scale, expected[1], rtol=1e-9, atol=1e-12)


def test_the_rule_is_that_of_the_algorithm():
    """The spread of the radii that the algorithm in jax draws from: chi with dim + 2 degrees of freedom."""
    seen = []

    def evaluate(points):
        seen.append(points)
        return -0.5 * np.sum(points**2, axis=1), -points

    for seed in range(2_000):
        fit_gaussian(evaluate, np.zeros(2), np.eye(2), np.random.default_rng(seed), most_steps=1)
    squares = np.array([np.sum(points[:2] ** 2, axis=1) for points in seen]).ravel()
    error = np.sqrt(2 * 4 / len(squares))  # chi-square with four degrees: mean 4, variance 8
    assert abs(squares.mean() - 4) < 5 * error


def test_where_the_density_is_not_finite_there_is_no_fit():
    def evaluate(points):
        return np.full(len(points), -np.inf), np.zeros_like(points)

    assert fit_gaussian(evaluate, np.zeros(2), np.eye(2), generator(), most_steps=20) is None
    fine = gaussian(np.zeros(2), np.eye(2))

    def without_gradient(points):
        return fine(points)[0], np.full_like(points, np.nan)

    assert fit_gaussian(without_gradient, np.zeros(2), np.eye(2), generator(), most_steps=20) is None


def test_steps_into_where_the_density_is_not_finite_are_taken_back():
    fine = gaussian(np.array([1.0, 0.0]), np.eye(2))

    def evaluate(points):
        values, gradients = fine(points)
        return np.where(points[:, 0] > 1.5, np.nan, values), gradients

    calls = []
    fit = fit_gaussian(evaluate, np.zeros(2), 0.1 * np.eye(2), generator(), most_steps=200, watch=calls.append)
    assert fit is not None
    assert np.isfinite(fit.elbo)
    assert calls[-1] is fit  # the watch has seen what is returned
    assert np.isnan(fit.losses).any()  # the control: there were such steps


def test_it_stops():
    evaluate = gaussian(np.full(2, 1e6), np.eye(2))
    few = fit_gaussian(evaluate, np.zeros(2), 1e-3 * np.eye(2), generator(), most_steps=3)
    assert few.steps == 3
    assert not few.settled
    asked = fit_gaussian(
        evaluate, np.zeros(2), 1e-3 * np.eye(2), generator(), most_steps=60, watch=lambda now: now.steps == 2
    )
    assert asked.steps == 2


def test_a_flat_direction_is_the_widest():
    def evaluate(points):
        gradients = -points * np.array([1.0, 0.0])
        return 0.5 * np.sum(gradients * points, axis=1), gradients

    fit = fit_gaussian(evaluate, np.zeros(2), np.eye(2), generator(), most_steps=30)
    coordinate, growth = fit.widest
    assert coordinate == 1
    assert growth == pytest.approx(np.sqrt(2), rel=0.01)  # its variance doubles in every step of full length
    assert not fit.settled
    assert fit.steps == 30


@pytest.mark.parametrize("scale", [FACTOR, SDS])
def test_whitening_and_back(scale):
    fit = GaussianFit(MEAN, scale, 0.0, 1, True, (0, 1.0), ())
    points = generator().normal(size=(5, 3))
    np.testing.assert_allclose(fit.place(fit.whiten(points)), points, rtol=1e-12)
    full = FACTOR if scale.ndim == 2 else np.diag(SDS)
    np.testing.assert_allclose(fit.place(np.eye(3)) - MEAN, full.T, atol=1e-12)
