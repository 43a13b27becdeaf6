"""Pairs of different families by moments of p: digits of concentrated ones, where they are infinite, edges."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from mpmath import mpf
from scipy import stats

import vi_kit as vk
from vi_kit.divergences import _remainders as remainders
from vi_kit.divergences import distributions as d
from vi_kit.divergences._cross_moments import moment_pairs
from vi_kit.divergences._known_moments import ABSOLUTE
from vi_kit.divergences._table import RULES

# Compiled without optimizing: most of what these tests cost is compiling.
QUICKLY = {"xla_backend_optimization_level": 0}
kl = jax.jit(vk.kl_divergence, compiler_options=QUICKLY)

# --- the special functions -------------------------------------------------------------------------------------------


def relative_errors(found, exact):
    exact = [mpmath.mpf(x) for x in exact]
    return max(float(abs((mpf(float(f)) - x) / x)) for f, x in zip(found, exact, strict=True))


@pytest.mark.parametrize("double", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_remainders_keep_their_digits(double):
    with jax.enable_x64(double), mpmath.workdps(50):
        dtype = np.float64 if double else np.float32
        a = np.array([1e-3, 0.4, 1, 2.9, 3.1, 8.9, 9.1, 1e3, 1e6], dtype)
        a, t = (x.ravel() for x in np.meshgrid(a, np.array([1e-6, -1e-3, 0.3, 1, 2, 50], dtype)))
        a, t = a[a + t > 0], t[a + t > 0]
        gap, excess = jax.jit(remainders.log_gamma_cumulant)(jnp.asarray(a), jnp.asarray(t))
        exact = [
            mpmath.loggamma(x + y) - mpmath.loggamma(x) - y * mpmath.digamma(x)
            for x, y in ((mpf(float(x)), mpf(float(y))) for x, y in zip(a, t, strict=True))
        ]
        curved = [
            e - mpf(float(y)) ** 2 * mpmath.psi(1, mpf(float(x))) / 2 for e, x, y in zip(exact, a, t, strict=True)
        ]
        tolerance = 1e-12 if double else 2e-6
        assert relative_errors(gap, exact) < tolerance
        assert relative_errors(excess, curved) < tolerance
        x = np.array([1e-4, 0.9, 1.1, 9.0, 11.0, 1e3], dtype)
        below, rest = jax.jit(remainders.scaled_exp1)(jnp.asarray(x))
        exact = [mpmath.exp(mpf(float(v))) * mpmath.e1(mpf(float(v))) for v in x]
        assert relative_errors(below, exact) < tolerance
        assert relative_errors(rest, [1 / mpf(float(v)) - e for v, e in zip(x, exact, strict=True)]) < 20 * tolerance
        exact = [mpmath.log(mpmath.sinh(mpf(float(v))) / mpf(float(v))) for v in x]
        assert relative_errors(jax.jit(remainders.log_sinhc)(jnp.asarray(x)), exact) < tolerance


# --- concentrated pairs of the same mean and variance ----------------------------------------------------------------


def gamma_normal(a, b, m, s):
    entropy = a - mpmath.log(b) + mpmath.loggamma(a) + (1 - a) * mpmath.digamma(a)
    return mpmath.log(2 * mpmath.pi * s**2) / 2 + (a / b**2 + (a / b - m) ** 2) / (2 * s**2) - entropy


def gamma_log_normal(a, b, m, s):
    entropy = a + mpmath.loggamma(a) - a * mpmath.digamma(a)  # of log x
    mean = mpmath.digamma(a) - mpmath.log(b)
    return mpmath.log(2 * mpmath.pi * s**2) / 2 + (mpmath.psi(1, a) + (mean - m) ** 2) / (2 * s**2) - entropy


def log_normal_gamma(m, s, a, b):
    mean = mpmath.exp(m + s**2 / 2)
    log_density = a * mpmath.log(b) - mpmath.loggamma(a) + a * m - b * mean
    return -mpmath.log(2 * mpmath.pi * mpmath.e * s**2) / 2 - log_density


def log_normal_inverse_gaussian(m, s, n, c):
    up, down = mpmath.exp(m + s**2 / 2), mpmath.exp(-m + s**2 / 2)
    log_density = mpmath.log(c / (2 * mpmath.pi)) / 2 - m / 2 - c / (2 * n**2) * (up - 2 * n + n**2 * down)
    return -mpmath.log(2 * mpmath.pi * mpmath.e * s**2) / 2 - log_density


def inverse_gaussian_gamma(n, c, a, b):
    mean = mpmath.log(n) - mpmath.exp(2 * c / n) * mpmath.e1(2 * c / n)
    own = mpmath.log(c / (2 * mpmath.pi)) / 2 - 3 * mean / 2 - mpf(1) / 2
    return own - (a * mpmath.log(b) - mpmath.loggamma(a) + (a - 1) * mean - b * n)


def beta_normal(a, b, m, s):
    t = a + b
    entropy = mpmath.log(mpmath.beta(a, b)) - (a - 1) * mpmath.digamma(a) - (b - 1) * mpmath.digamma(b)
    entropy += (t - 2) * mpmath.digamma(t)
    variance = a * b / (t**2 * (t + 1))
    return mpmath.log(2 * mpmath.pi * s**2) / 2 + (variance + (a / t - m) ** 2) / (2 * s**2) - entropy


def root(x):
    return x**0.5


# Families, the formula, and parameters for a mean of about 1 and a variance of 1/a.
CONCENTRATED = {
    (d.Gamma, d.Normal): (gamma_normal, lambda a: (a, a, 1, 1 / root(a))),
    (d.Gamma, d.LogNormal): (gamma_log_normal, lambda a: (a, a, 0, 1 / root(a))),
    (d.LogNormal, d.Gamma): (log_normal_gamma, lambda a: (0, 1 / root(a), a, a)),
    (d.LogNormal, d.InverseGaussian): (log_normal_inverse_gaussian, lambda a: (0, 1 / root(a), 1, a)),
    (d.InverseGaussian, d.Gamma): (inverse_gaussian_gamma, lambda a: (1, a, a, a)),
    (d.Beta, d.Normal): (beta_normal, lambda a: (a, 3 * a, 0.25, root(3 / (64 * a)))),
}


@pytest.mark.parametrize("pair", CONCENTRATED, ids=lambda pair: "-".join(x.__name__ for x in pair))
def test_digits_of_concentrated_pairs(pair):
    """These values are about 1/a: a difference of entropies of about 5 would have none of them right."""
    formula, parameters = CONCENTRATED[pair]
    rows = np.float32([parameters(a) for a in (30.0, 1e3, 1e5)])
    count = len(pair[0].__dataclass_fields__)
    columns = list(jnp.asarray(rows.T))
    p, q = pair[0](*columns[:count]), pair[1](*columns[count:])
    with mpmath.workdps(60):
        exact = [float(formula(*(mpf(float(x)) for x in row))) for row in rows]
    found = np.asarray(kl(p, q))
    assert exact[-1] < 1e-4
    np.testing.assert_allclose(found, exact, rtol=1e-3)
    np.testing.assert_allclose(found[:2], exact[:2], rtol=5e-5)


# --- mean distances --------------------------------------------------------------------------------------------------

DISTANCES = {
    d.Gamma: ((3e4, 2.0), lambda a, b: stats.gamma(a, scale=1 / b)),
    d.InverseGamma: ((400.0, 2.0), lambda a, b: stats.invgamma(a, scale=b)),
    d.Beta: ((3e3, 5e3), stats.beta),
    d.InverseGaussian: ((2.0, 800.0), lambda m, c: stats.invgauss(m / c, scale=c)),
    d.Gumbel: ((2.0, 0.3), stats.gumbel_r),
    d.Logistic: ((2.0, 0.3), stats.logistic),
}


@pytest.mark.parametrize("family", DISTANCES, ids=lambda x: x.__name__)
def test_mean_distances(family):
    """E|x − m| is the area below the distribution function before m and above it after m."""
    parameters, frozen = DISTANCES[family]
    reference = frozen(*np.float64(np.float32(parameters)))
    places = np.float32(reference.ppf([1e-4, 0.1, 0.5, 0.9, 0.9999]))
    p = family(*(jnp.full(5, x) for x in parameters))
    found = jax.jit(ABSOLUTE[family])(p, jnp.asarray(places))
    low, high = reference.ppf(1e-15), reference.isf(1e-15)
    nodes, weights = np.polynomial.legendre.leggauss(400)

    def area(function, a, b):
        x = 0.5 * (b - a) * nodes + 0.5 * (a + b)
        return 0.5 * (b - a) * np.sum(weights * function(x))

    exact = [area(reference.cdf, low, m) + area(reference.sf, m, high) for m in places.astype(float)]
    np.testing.assert_allclose(found, exact, rtol=1e-4)


# --- which pairs, and where they are infinite ------------------------------------------------------------------------


def test_every_finite_pair_of_torch_is_there():
    names = {
        "Beta": "ContinuousBernoulli Exponential Gamma Normal Laplace",
        "ContinuousBernoulli": "Exponential Normal Laplace",
        "Exponential": "Gumbel Normal Laplace",
        "Gamma": "Gumbel Normal Laplace",
        "Gumbel": "Normal Laplace",
        "Laplace": "Normal",
        "Normal": "Gumbel Laplace",
        "Pareto": "Exponential Gamma Normal Laplace",
        "Uniform": "Exponential Gamma Gumbel Normal Laplace",
    }
    known = {(p.__name__, q.__name__) for p, q, _ in moment_pairs()}
    rows = {(rule.p.__name__, rule.q.__name__) for rule in RULES}
    for p, others in names.items():
        for q in others.split():
            assert (p, q) in known | rows
    assert len(known) == len(list(moment_pairs()))


def values_and_slopes(function, *values):
    """Return what a function of one parameter is and its slope at these values, in pairs."""

    def total(x):
        found = function(x)
        return jnp.sum(found), found

    run = jax.jit(jax.grad(total, has_aux=True), compiler_options=QUICKLY)
    slopes, found = run(jnp.asarray(values, jnp.float32))
    return list(zip(np.asarray(found).tolist(), np.asarray(slopes).tolist(), strict=True))


def test_moments_that_are_infinite_make_kl_infinite_with_a_slope():
    standard = d.Normal(0.0, 1.0)
    found = values_and_slopes(lambda c: vk.kl_divergence(d.Pareto(c, 1.0), standard), 1.5, 2.0, 2.5)
    assert found[:2] == [(np.inf, -np.inf)] * 2
    assert np.isfinite(found[2]).all()
    found = values_and_slopes(lambda df: vk.kl_divergence(d.StudentT(df, 0.0, 1.0), standard), 2.0)
    assert found == [(np.inf, -np.inf)]
    found = values_and_slopes(lambda s: vk.kl_divergence(d.Laplace(0.0, s), d.Gumbel(0.0, 1.0)), 1.0)
    assert found == [(np.inf, np.inf)]
    assert kl(d.Exponential(1.0), d.InverseGaussian(1.0, 1.0)) == np.inf


@pytest.mark.slow
def test_uniforms_at_the_edge_of_positive_supports():
    def of_low(q):
        return lambda low: vk.kl_divergence(d.Uniform(low, 2.0), q)

    outside, edge = values_and_slopes(of_low(d.Exponential(1.5)), -0.1, 0.0)
    assert outside == (np.inf, -np.inf)
    np.testing.assert_allclose(edge, [-np.log(3.0) + 1.5, 0.5 + 0.75], rtol=1e-5)
    # And on both sides of where the formula changes.
    outside, edge, below, above = values_and_slopes(of_low(d.Gamma(2.0, 1.5)), -0.1, 0.0, 0.19999, 0.20001)
    assert outside == (np.inf, -np.inf)
    np.testing.assert_allclose(edge[0], -2 * np.log(1.5) - 2 * np.log(2) + 1 + 1.5, rtol=1e-5)
    np.testing.assert_allclose(below, above, rtol=1e-4)
    assert kl(d.Uniform(0.0, 2.0), d.InverseGamma(2.0, 1.0)) == np.inf


def test_one_point_is_infinitely_far():
    found = values_and_slopes(
        lambda p: vk.kl_divergence(d.ContinuousBernoulli(probs=p), d.Exponential(2.0)), 0.0, 1.0, 0.5
    )
    assert found[:2] == [(np.inf, -np.inf), (np.inf, np.inf)]
    np.testing.assert_allclose(found[2][0], 1 - np.log(2), rtol=1e-6)
    found = values_and_slopes(lambda p: vk.kl_divergence(d.Beta(2.0, 3.0), d.ContinuousBernoulli(probs=p)), 1.0)
    assert found == [(np.inf, np.inf)]


def test_rounding_does_not_go_below_zero_where_families_touch():
    """A Laplace distribution as a generalized normal is the Laplace one; the sum is no remainder there."""
    scale = jnp.asarray(np.geomspace(1e-3, 1e3, 200), jnp.float32)
    found = np.asarray(kl(d.GeneralizedNormal(jnp.zeros(200), scale, jnp.ones(200)), d.Laplace(jnp.zeros(200), scale)))
    assert np.all(found >= 0)
    assert np.max(found) < 2e-6
    assert np.all(np.asarray(kl(d.Beta(1.0, 1.0), d.ContinuousBernoulli(probs=0.5))) < 1e-6)


def test_batches_broadcast_and_map():
    loc, scale = jnp.zeros((3, 1)), jnp.array([0.5, 2.0])
    found = kl(d.Normal(loc, 1.0), d.Laplace(0.0, scale))
    assert found.shape == (3, 2)
    mapped = jax.vmap(lambda s: kl(d.Normal(jnp.zeros(3), 1.0), d.Laplace(0.0, s)), out_axes=1)(scale)
    np.testing.assert_allclose(found, mapped, rtol=1e-6)
    exact = np.sqrt(2 / np.pi) / np.float64(scale) + np.log(2 * np.float64(scale)) - 0.5 * np.log(2 * np.pi * np.e)
    np.testing.assert_allclose(found[0], exact, rtol=1e-6)
