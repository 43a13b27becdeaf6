"""Fixed draws: their moments, the loss, coordinates whitened by q, the minimum, and linear response."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_targets import gaussian
from scipy import optimize

import vi_kit as vk
from vi_kit.algorithms._fixed_draws import loss_of_draws, moment_matched_noise, moved


def converge(problem, family, key, num_samples=None, num_steps=40):
    algorithm = vk.algorithms.FixedDraws(family, num_samples)
    start = family.init(jax.random.key(0))
    return algorithm, vk.optimize(key, problem.target, algorithm, start, num_steps=num_steps)


@pytest.mark.usefixtures("x64")
def test_draws_have_the_moments_of_a_standard_normal(key):
    first, second = jax.random.split(key)
    noise = moment_matched_noise(first, 7, 4, jnp.dtype("float64"))
    np.testing.assert_allclose(noise.T @ noise / 7, np.eye(4), atol=1e-12)
    few = moment_matched_noise(second, 3, 4, jnp.dtype("float64"))
    np.testing.assert_allclose(np.mean(np.square(few), axis=0), 1, rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("family", [vk.families.FullRank(3), vk.families.MeanField(3)], ids=repr)
def test_the_loss_of_matched_draws_is_the_kl(family, key):
    """On a Gaussian target with the diagonal or all of its precision in reach, up to the normalizer."""
    problem = gaussian(3, 5.0)
    params = family.init(jax.random.key(0), mean=jnp.array([0.5, 0.2, -1.0]), scale=jnp.array([0.5, 2.0, 1.0]))
    q = family.dist(params)
    scale = q.scale_tri if isinstance(family, vk.families.FullRank) else q.scale_diag
    noise = moment_matched_noise(key, 3, 3, jnp.dtype("float64"))
    loss = loss_of_draws(problem.target, q.loc, scale, noise)
    log_normalizer = 0.5 * (3 * np.log(2 * np.pi) + np.linalg.slogdet(problem.covariance)[1])
    np.testing.assert_allclose(loss + log_normalizer, problem.kl(family, params), rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("family", [vk.families.FullRank(3), vk.families.MeanField(3)], ids=repr)
def test_coordinates_measure_kl(family):
    """Half the squared length is KL between neighbors: its Hessian is the identity."""
    mean, scale = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.5, 2.0, 1.0])
    if isinstance(family, vk.families.FullRank):
        scale = jnp.diag(scale) + jnp.tril(jnp.ones((3, 3)), -1)
    width = 3 + (3 if scale.ndim == 1 else 6)

    def kl(shift):
        params = (
            family.init(jax.random.key(0), mean=m, scale=s) for m, s in (moved(mean, scale, shift), (mean, scale))
        )
        return vk.kl_divergence(*map(family.dist, params))

    np.testing.assert_allclose(jax.hessian(kl)(jnp.zeros(width)), np.eye(width), atol=1e-8)


@pytest.mark.parametrize(("dim", "condition"), [(2, 1e4), (10, 1e4), pytest.param(100, 1e4, marks=pytest.mark.slow)])
def test_gaussians(dim, condition, key):
    problem = gaussian(dim, condition)
    algorithm, fit = converge(problem, vk.families.FullRank(dim), key, 2 * dim, 80)
    assert problem.kl(algorithm.family, fit.params) < 1e-5
    assert bool(fit.state.algorithm_state.converged)


@pytest.mark.usefixtures("x64")
def test_the_minimum_is_that_of_scipy(key):
    """On a target that is no Gaussian, and nothing moves any more once it is found."""
    target = vk.make_target(lambda x: -jnp.sum(jnp.cosh(x - jnp.array([1.0, -1.0]))) + 0.3 * x[0] * x[1], 2)
    family = vk.families.MeanField(2)
    algorithm = vk.algorithms.FixedDraws(family, 16, tolerance=1e-7)
    fit = vk.optimize(key, target, algorithm, family.init(jax.random.key(0)), num_steps=60)
    state = fit.state.algorithm_state

    @jax.jit
    def loss(flat):
        return loss_of_draws(target, flat[:2], jnp.exp(flat[2:]), state.noise)

    found = optimize.minimize(loss, np.zeros(4), jac=jax.jit(jax.grad(loss)), tol=1e-12).x
    np.testing.assert_allclose(fit.params.mean, found[:2], atol=1e-6)
    np.testing.assert_allclose(fit.params.log_scale, found[2:], atol=1e-6)
    assert bool(state.converged)
    assert fit.history.loss[-1] == fit.history.loss[-2]


def test_where_the_density_is_not_finite_is_too_far(key):
    target = vk.make_target(lambda x: jnp.sum(50 * jnp.log(x) - 10 * x), 2)  # a gamma, and NaN below 0
    family = vk.families.MeanField(2)
    start = family.init(jax.random.key(0), mean=jnp.array([9.0, 1.0]), scale=0.1)
    algorithm = vk.algorithms.FixedDraws(family)
    fit = vk.optimize(key, target, algorithm, start, num_steps=100)
    assert not np.all(fit.history.finite)
    np.testing.assert_allclose(fit.params.mean, 5, rtol=0.05)


def test_linear_response_repairs_a_mean_field_fit(key):
    """The covariance of a Gaussian exactly; the variances of the fit itself are too small."""
    problem = gaussian(4, 30.0, widest=3.0)
    algorithm, fit = converge(problem, vk.families.MeanField(4), key, 16, 80)
    covariance = vk.algorithms.linear_response_covariance(algorithm, fit.state.algorithm_state, problem.target)
    np.testing.assert_allclose(covariance, problem.covariance, rtol=0.01, atol=0.01)
    own = np.square(algorithm.family.dist(fit.params).std())
    assert np.all(own < 0.9 * np.diag(problem.covariance))


def test_refusals():
    family = vk.families.FullRank(2)
    with pytest.raises(TypeError, match=r"family: expected vk\.families\.FullRank or vk\.families\.MeanField"):
        vk.algorithms.FixedDraws(vk.families.LowRank(2, 1))
    with pytest.raises(ValueError, match="num_samples: expected at least 4, got 2"):
        vk.algorithms.FixedDraws(family, 2)
    with pytest.raises(ValueError, match="num_samples: expected an even number, for mirrored pairs, got 5"):
        vk.algorithms.FixedDraws(family, 5)
    with pytest.raises(TypeError, match=r"algorithm: expected vk\.algorithms\.FixedDraws"):
        vk.algorithms.linear_response_covariance(vk.algorithms.NaturalGradient(family), None, None)
    with pytest.raises(TypeError, match=r"state: expected fit\.state\.algorithm_state"):
        vk.algorithms.linear_response_covariance(vk.algorithms.FixedDraws(family), None, None)
