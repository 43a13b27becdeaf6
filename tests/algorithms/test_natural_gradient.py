"""Natural gradients: the rule of degree three, steps that are exact, steps back, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_targets import gaussian
from statistical import assert_mean, expect_rejection

import vi_kit as vk
from vi_kit.algorithms._expected_derivatives import expected_derivatives
from vi_kit.algorithms._natural_gradient import move_full_rank

FULL = vk.families.FullRank(2)


def fit(problem, algorithm, start, key, num_steps):
    return vk.optimize(key, problem.target, algorithm, start, num_steps=num_steps)


def quartic(x):
    """Means over a Gaussian are known: it is no quadratic, so nothing is exact by chance."""
    return -0.25 * jnp.sum(x**4) + x[0] * x[1] ** 2


def test_expected_derivatives_are_unbiased(key):
    """Value, gradient and curvature against the moments of a normal, and the control: radii of another law."""
    mean, scale = np.array([0.5, -0.3]), np.array([0.8, 1.2])
    key, plain_key = jax.random.split(key)
    keys = jax.random.split(key, 20_000)

    @jax.jit
    @jax.vmap
    def means(key):
        found = expected_derivatives(quartic, jnp.asarray(mean), jnp.asarray(scale), key, 2)
        return found.log_density, found.gradient, found.matrix(), found.diagonal()

    variances = scale**2
    fourth = mean**4 + 6 * mean**2 * variances + 3 * variances**2
    value = -0.25 * fourth.sum() + mean[0] * (mean[1] ** 2 + variances[1])
    gradient = -(mean**3 + 3 * mean * variances) + [mean[1] ** 2 + variances[1], 2 * mean[0] * mean[1]]
    hessian = np.array([[0, 2 * mean[1]], [2 * mean[1], 2 * mean[0]]]) - 3 * np.diag(mean**2 + variances)
    curvature = -scale[:, None] * hessian * scale[None]
    draws = means(keys)
    assert_mean(draws, (value, scale * gradient, curvature, np.diag(curvature)), effect=0.2)
    # Stein's identity with the radii of plain draws, but this rule's weights.
    plain = jax.random.normal(plain_key, (20_000, 2))
    lengths = jnp.linalg.norm(plain, axis=1, keepdims=True)
    slopes = jax.vmap(jax.grad(quartic))(jnp.asarray(mean)[None] + scale[None] * plain) * scale[None] / lengths
    wrong = -2 * (plain / lengths)[:, :, None] * slopes[:, None, :]
    expect_rejection(lambda: assert_mean(wrong, curvature))


@pytest.mark.usefixtures("x64")
def test_expected_derivatives_of_a_quadratic_have_no_error(key):
    problem = gaussian(4, 30.0)
    lower = np.tril(np.random.default_rng(1).normal(size=(4, 4))) + 3 * np.eye(4)
    found = expected_derivatives(problem.target.log_density, jnp.ones(4), jnp.asarray(lower), key, 4)
    precision = np.linalg.inv(problem.covariance)
    np.testing.assert_allclose(found.matrix(), lower.T @ precision @ lower, rtol=1e-9)
    np.testing.assert_allclose(found.diagonal(), np.diag(lower.T @ precision @ lower), rtol=1e-9)
    np.testing.assert_allclose(found.gradient, lower.T @ precision @ (problem.mean - 1), rtol=1e-9)
    shift = problem.mean - 1
    expected = -0.5 * (shift @ precision @ shift + np.trace(precision @ lower @ lower.T))
    np.testing.assert_allclose(found.log_density, expected, rtol=1e-9)
    np.testing.assert_allclose(found.error, 0, atol=1e-9)
    direction = jnp.arange(4.0)
    np.testing.assert_allclose(found.along(direction), direction @ lower.T @ precision @ lower @ direction, rtol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_a_step_is_the_bayesian_learning_rule_where_precisions_rise(rate, key):
    """Λ′ = (1 − ρ) Λ + ρ P and m′ = m + ρ Λ′⁻¹ P (μ − m), in plain coordinates."""
    problem = gaussian(3, 20.0, widest=0.5)
    lower = np.array([[2.0, 0, 0], [0.5, 1.5, 0], [-0.3, 0.4, 3.0]])
    mean = np.array([1.0, -2.0, 0.5])
    found = expected_derivatives(problem.target.log_density, jnp.asarray(mean), jnp.asarray(lower), key, 3)
    moved, factor = move_full_rank(jnp.asarray(mean), jnp.asarray(lower), found, jnp.asarray(rate))
    target_precision = np.linalg.inv(problem.covariance)
    precision = (1 - rate) * np.linalg.inv(lower @ lower.T) + rate * target_precision
    np.testing.assert_allclose(np.linalg.inv(factor @ factor.T), precision, rtol=1e-9)
    expected = mean + rate * np.linalg.solve(precision, target_precision @ (problem.mean - mean))
    np.testing.assert_allclose(moved, expected, rtol=1e-9)
    assert np.all(np.diagonal(factor) > 0)


@pytest.mark.parametrize("family", [FULL, vk.families.MeanField(2)], ids=repr)
def test_the_target_is_a_fixed_point(family, key):
    variances = np.array([2.0, 0.3])
    target = vk.make_target(lambda x: -0.5 * jnp.sum((x - 1) ** 2 / jnp.array([2.0, 0.3])), 2)
    start = family.init(jax.random.key(0), mean=jnp.ones(2), scale=jnp.sqrt(jnp.asarray(variances)))
    algorithm = vk.algorithms.NaturalGradient(family)
    fitted = vk.optimize(key, target, algorithm, start, num_steps=5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), fitted.params, start)
    np.testing.assert_allclose(fitted.history.gradient_norm, 0, atol=1e-5)


@pytest.mark.parametrize("condition", [1.0, 1e4])
def test_one_step_where_the_target_is_narrower(condition, key):
    problem = gaussian(10, condition, widest=1.0)
    algorithm = vk.algorithms.NaturalGradient(vk.families.FullRank(10), decay=jnp.inf)
    start = algorithm.family.init(jax.random.key(0))
    assert problem.kl(algorithm.family, start) > 1
    fitted = fit(problem, algorithm, start, key, 2)  # one step, and the look at where it went
    assert problem.kl(algorithm.family, fitted.params) < 1e-5


def test_mean_field_takes_the_diagonal_of_the_precision(key):
    """The member of least KL(q‖p): precisions P_ii and the mean of p, however strong the correlations."""
    problem = gaussian(10, 30.0, widest=10.0)
    family = vk.families.MeanField(10)
    algorithm = vk.algorithms.NaturalGradient(family, num_pairs=10, decay=jnp.inf)
    fitted = fit(problem, algorithm, family.init(jax.random.key(0)), key, 300)
    q = family.dist(fitted.params)
    np.testing.assert_allclose(q.std(), np.diag(np.linalg.inv(problem.covariance)) ** -0.5, rtol=1e-3)
    np.testing.assert_allclose(q.mean(), problem.mean, atol=1e-3)


def test_wider_gaussians_after_the_logarithm_of_their_variance(key):
    problem = gaussian(10, 1e4)
    algorithm = vk.algorithms.NaturalGradient(vk.families.FullRank(10))
    fitted = fit(problem, algorithm, algorithm.family.init(jax.random.key(0)), key, 30)
    assert problem.kl(algorithm.family, fitted.params) < 1e-3
    assert algorithm.evaluations(problem.target) == 21


def test_a_density_without_second_derivatives(key):
    """Laplace: a Hessian by differentiation would be zero; the best normal has variance π/2, by E|z| = σ √(2/π)."""
    target = vk.make_target(lambda x: -jnp.sum(jnp.abs(x)), 2)
    algorithm = vk.algorithms.NaturalGradient(FULL, num_pairs=16)
    fitted = vk.optimize(key, target, algorithm, FULL.init(jax.random.key(0)), num_steps=200)
    np.testing.assert_allclose(FULL.dist(fitted.params).std(), np.sqrt(np.pi / 2), rtol=0.1)


def test_steps_too_far_are_taken_back(key):
    """A log scale with a thousand observations: full steps from the start would leave for where nothing is finite."""

    def log_density(x):  # 1,000 observations with mean 5 and variance 0.01
        return -1_000 * x[1] - 500 * jnp.exp(-2 * x[1]) * (0.01 + (x[0] - 5) ** 2)

    target = vk.make_target(log_density, 2)
    algorithm = vk.algorithms.NaturalGradient(FULL)
    fitted = vk.optimize(key, target, algorithm, FULL.init(jax.random.key(0)), num_steps=150)
    q = FULL.dist(fitted.params)
    np.testing.assert_allclose(q.mean(), [5, np.log(0.1)], atol=0.02)
    np.testing.assert_allclose(q.std(), [0.1 / np.sqrt(1_000), 1 / np.sqrt(2_000)], rtol=0.1)
    assert np.any(np.diff(fitted.history.loss) > 10)  # steps that were taken back


def test_refusals():
    with pytest.raises(TypeError, match=r"family: expected vk\.families\.FullRank or vk\.families\.MeanField"):
        vk.algorithms.NaturalGradient(vk.families.LowRank(2, 1))
    with pytest.raises(ValueError, match="num_pairs: expected at least 2, got 1"):
        vk.algorithms.NaturalGradient(FULL, num_pairs=1)
