"""The Student-t families: gradients in the degrees of freedom, densities and entropies in float32 far out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import integrate, special, stats
from statistical import assert_mean, assert_same_distribution, expect_rejection

import vi_kit as vk
from vi_kit.families._student_t_distributions import log_gamma_over_shape, log_normalizer

FULL = vk.families.StudentT(2, gaussian=vk.families.FullRank)
ONE = vk.families.StudentT(1)


def heavy(log_excess):
    """One coordinate with mean 0.3 and scale 0.8."""
    return vk.families.StudentTParams(
        jnp.zeros(0), jnp.array([log_excess]), jnp.log(jnp.array([0.8])), jnp.array([0.3])
    )


@pytest.mark.parametrize("log_excess", [1.0, 3.0])
def test_the_gradient_through_draws_is_that_of_the_expectation(log_excess, key):
    """Implicit reparameterization in every parameter: E[cos z], from the characteristic function in float64."""

    def value(params, key):
        return jnp.cos(ONE.dist(params).sample(seed=key)[0])

    params = heavy(log_excess)
    gradients = jax.jit(jax.vmap(jax.grad(value), (None, 0)))(params, jax.random.split(key, 40_000))

    def expectation(r, s, m):
        half = 1 + 0.5 * np.exp(r)
        x = np.sqrt(2 * half) * np.exp(s)
        log_height = (
            np.log(special.kve(half, x)) - x + half * np.log(x) - special.gammaln(half) - (half - 1) * np.log(2)
        )
        return np.cos(m) * np.exp(log_height)

    at, step = np.array([log_excess, np.log(0.8), 0.3]), 1e-3
    exact = [(expectation(*(at + step * e)) - expectation(*(at - step * e))) / (2 * step) for e in np.eye(3)]
    found = np.stack([gradients.log_excess[:, 0], gradients.log_scale[:, 0], gradients.mean[:, 0]], axis=1)
    assert_mean(found, exact, effect=0.03)
    expect_rejection(lambda: assert_mean(found[:, 1:], np.array(exact)[1:] + 0.03))
    if log_excess < 3:  # a derivative of 0 in the degrees of freedom would be seen
        expect_rejection(lambda: assert_mean(found[:, 0], 0.0))


@pytest.mark.parametrize("shape", [1.5, 20.0, 999.0, 1001.0, 1e4, 1e6])
def test_gamma_draws_move_along_their_quantile_in_float32(shape, key):
    """Against finite differences of scipy's quantile function in float64, on both sides of the switch of formulas."""
    draws, rates = jax.vmap(
        lambda k: jax.jvp(lambda a: log_gamma_over_shape(k, a), (jnp.float32(shape),), (jnp.float32(1.0),))
    )(jax.random.split(key, 50))
    gamma = np.exp(np.asarray(draws, float)) * shape
    upper = gamma > shape  # the smaller of the two probabilities keeps its digits
    step = 1e-4 * shape

    def quantile(a):
        low = special.gammaincinv(a, special.gammainc(shape, gamma))
        return np.log(np.where(upper, special.gammainccinv(a, special.gammaincc(shape, gamma)), low) / a)

    exact = (quantile(shape + step) - quantile(shape - step)) / (2 * step)
    size = np.sqrt(np.mean(exact**2))
    np.testing.assert_allclose(rates, exact, rtol=2e-3, atol=5e-3 * size)


@pytest.mark.parametrize("dim", [1, 30])
def test_normalizer_and_its_gradient_hold_at_many_degrees_of_freedom(dim):
    df = np.array([2.001, 5.0, 100.0, 1e4, 1e6])

    def exact(v):
        return special.gammaln((v + dim) / 2) - special.gammaln(v / 2) - 0.5 * dim * np.log(np.pi * v)

    found, rate = jax.vmap(jax.value_and_grad(lambda v: log_normalizer(v, dim)))(jnp.asarray(df, jnp.float32))
    np.testing.assert_allclose(found, exact(df), rtol=1e-6, atol=3e-7 * dim)
    half = dim / 2
    derivative = 0.5 * (special.digamma(df / 2 + half) - special.digamma(df / 2)) - half / df
    np.testing.assert_allclose((rate * df)[:-1], (derivative * df)[:-1], rtol=1e-3, atol=1e-5 * dim)
    assert abs(rate[-1] * df[-1]) < 1e-4 * dim


@pytest.mark.parametrize("family", [vk.families.StudentT(3), vk.families.StudentT(3, gaussian=vk.families.FullRank)])
def test_becomes_the_gaussian_at_many_degrees_of_freedom(family, key):
    """Density, entropy and gradients in float32 where ν = 10⁷: nothing is lost to log-gamma functions."""
    params = family.init(jax.random.key(0), mean=jnp.arange(3.0), scale=jnp.array([0.5, 1.0, 2.0]))
    params = params._replace(log_excess=jnp.full_like(params.log_excess, 16.0))
    q = family.dist(params)
    normal = stats.norm(np.arange(3.0), np.asarray(jnp.exp(params.log_scale), float))
    points = 2 * jax.random.normal(key, (10, 3))
    np.testing.assert_allclose(jax.vmap(q.log_prob)(points), normal.logpdf(points).sum(1), rtol=1e-5)
    np.testing.assert_allclose(q.entropy(), normal.entropy().sum(), rtol=1e-5)
    for value in (lambda p: family.dist(p).log_prob(points[0]), lambda p: family.dist(p).entropy()):
        assert np.all(np.abs(jax.grad(value)(params).log_excess) < 1e-3)


def test_far_points_have_finite_densities_and_gradients():
    params = FULL.init(jax.random.key(0))
    for size in (1e3, 1e8, 1e15):
        value, gradients = jax.value_and_grad(lambda p, z: FULL.dist(p).log_prob(z), argnums=(0, 1))(
            params, size * jnp.ones(2)
        )
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((value, gradients)))


def test_draws_have_the_tails(key):
    """Heavy ones: three degrees of freedom, where a normal is rejected."""
    params = heavy(0.0)
    z = jax.jit(jax.vmap(lambda k: ONE.dist(params).sample(seed=k)))(jax.random.split(key, 20_000))
    assert_same_distribution(z, stats.t(3, 0.3, 0.8).cdf)
    expect_rejection(lambda: assert_same_distribution(z, stats.norm(0.3, 0.8 * np.sqrt(3)).cdf))
    np.testing.assert_allclose(ONE.dist(params).std(), [0.8 * np.sqrt(3)], rtol=1e-6)


def test_init_is_nearly_gaussian():
    """KL from the Gaussian of the same moments, by quadrature: 0.001 nats a coordinate; by draws where elliptical."""
    q = ONE.dist(ONE.init(jax.random.key(0)))
    t = stats.t(float(q.df[0]), 0.0, float(q.scale[0]))
    kl = integrate.quad(lambda z: stats.norm.pdf(z) * (stats.norm.logpdf(z) - t.logpdf(z)), -12, 12)[0]
    assert 0 < kl < 1.2e-3
    for dim in (2, 20):
        family = vk.families.StudentT(dim, gaussian=vk.families.FullRank)
        df = float(family.dist(family.init(jax.random.key(0))).df)

        def integrand(r, dim=dim, df=df):
            """The radius of a standard normal has the chi distribution."""
            scale = (df - 2) / df
            kernel = special.gammaln((df + dim) / 2) - special.gammaln(df / 2) - 0.5 * dim * np.log(np.pi * df * scale)
            log_t = kernel - 0.5 * (df + dim) * np.log1p(r**2 / (df * scale))
            return stats.chi(dim).pdf(r) * (-0.5 * r**2 - 0.5 * dim * np.log(2 * np.pi) - log_t)

        assert 0 < integrate.quad(integrand, 0, 15)[0] < 4e-3


def test_kl_divergence_reads_independent_coordinates():
    q = ONE.dist(heavy(1.0))
    assert float(vk.kl_divergence(q, q)) == 0.0


@pytest.mark.slow
def test_finds_the_degrees_of_freedom(key):
    """Reverse KL of a Student-t target with 4 of them falls to 0; a Gaussian cannot follow."""
    truth = stats.t(4.0)

    def log_density(x):
        return jnp.sum(-2.5 * jnp.log1p(x * x / 4.0))

    target = vk.make_target(log_density, 2, log_normalizer=float(-2 * truth.logpdf(0.0)))
    optimizer = vk.algorithms.GradientDescent

    def fit(family):
        made = optimizer(
            vk.objectives.ReverseKL(family, num_samples=32),
            optax.adam,
            learning_rate=optax.cosine_decay_schedule(0.05, 3000),
        )
        fitted = vk.optimize(jax.random.clone(key), target, made, family.init(jax.random.key(0)), num_steps=3000)
        return vk.diagnose(jax.random.key(1), target, family, fitted.params, num_samples=20_000), fitted.params

    report, params = fit(vk.families.StudentT(2))
    assert abs(float(report.elbo.value) - float(target.log_normalizer)) < 2e-3
    np.testing.assert_allclose(2 + np.exp(params.log_excess), 4.0, rtol=0.1)


def test_arguments_are_checked():
    with pytest.raises(TypeError, match=r"gaussian: expected vk\.families\.MeanField or FullRank"):
        vk.families.StudentT(2, gaussian=vk.families.LowRank)
