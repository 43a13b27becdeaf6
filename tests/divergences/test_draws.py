"""Ways to draw: each unbiased, with an error that covers, and worth its trouble where it claims to be."""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as nd
import pytest
from scipy import stats
from statistical import assert_mean, assert_same_distribution, expect_rejection

import vi_kit as vk
import vi_kit.divergences as dv
from vi_kit import kl
from vi_kit.divergences import distributions as d
from vi_kit.divergences._quantiles import QUANTILES, from_uniforms

SLOW = pytest.mark.slow


def pair():
    p = distrax.MultivariateNormalDiag(jnp.array([0.0, 0.5]), jnp.array([1.0, 0.8]))
    return p, distrax.MultivariateNormalDiag(jnp.array([1.0, 0.0]), jnp.array([1.1, 0.9]))


PLANS = {
    "plain": (dv.Plain(), 0.9),
    "antithetic": (dv.Antithetic(), 1.5),
    "quasi": (dv.QuasiMonteCarlo(), 20.0),
    "importance": (dv.Importance(distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.full(2, 1.5))), 0.1),
}


@pytest.mark.parametrize("name", ["quasi", *(pytest.param(n, marks=SLOW) for n in PLANS if n != "quasi")])
def test_unbiased_with_errors_that_cover_and_less_noise(name, key):
    plan, least_gain = PLANS[name]
    p, q = pair()
    exact = float(vk.kl_divergence(p, q))
    many = jax.vmap(lambda k: vk.estimate_kl(k, p, q, num_samples=1024, draws=plan))(
        jax.random.split(jax.random.clone(key), 1000)
    )
    assert_mean(many.value, exact, effect=0.05)
    expect_rejection(lambda: assert_mean(many.value, 1.1 * exact))
    error = np.asarray(many.standard_error)
    wide = stats.t.isf(0.025, 15 if name == "quasi" else 1000)  # 16 replicates
    hits = np.abs(np.asarray(many.value) - exact) < wide * error
    claimed = 0.91 if name == "quasi" else 0.95  # errors of shifted lattices are not normal
    assert abs(hits.mean() - claimed) < 5.5 * np.sqrt(0.05 * 0.95 / 1000)
    x = np.random.default_rng(0).normal(size=(2, 400_000)) * [[1.0], [0.8]] + [[0.0], [0.5]]
    log_p = stats.norm([[0.0], [0.5]], [[1.0], [0.8]]).logpdf(x).sum(0)
    log_q = stats.norm([[1.0], [0.0]], [[1.1], [0.9]]).logpdf(x).sum(0)
    plain = np.var(log_p - log_q) / 1024
    assert plain / np.var(np.asarray(many.value)) > least_gain


GRADIENTS = {
    "antithetic": (dv.Antithetic(), None),
    "quasi": (dv.QuasiMonteCarlo(4), kl.score),
    "strata": (dv.Stratified(8), None),
    "importance": (dv.Importance(distrax.Normal(0.0, 1.5)), None),
}


@pytest.mark.parametrize("name", ["quasi", *(pytest.param(n, marks=SLOW) for n in GRADIENTS if n != "quasi")])
def test_gradients_are_unbiased_under_every_plan(name, key):
    plan, gradient = GRADIENTS[name]
    t = jnp.array([0.0, 1.0, 0.5, 1.2])

    def pair_at(t):
        return distrax.Normal(t[0], t[1]), distrax.Normal(t[2], t[3])

    def value(t, k):
        return vk.estimate_kl(k, *pair_at(t), num_samples=200, draws=plan, gradient=gradient).value

    found = jax.jit(jax.vmap(jax.grad(value), (None, 0)))(t, jax.random.split(key, 1000))
    exact = jax.grad(lambda t: vk.kl_divergence(*pair_at(t)))(t)
    assert_mean(found, exact, effect=0.05)
    expect_rejection(lambda: assert_mean(found, 0.8 * exact))


@pytest.mark.slow
def test_strata_remove_what_lies_between_components(key):
    """Far-apart components of very different log ratios: nearly all of the variance is between them."""
    p = distrax.MixtureSameFamily(
        distrax.Categorical(probs=jnp.array([0.25, 0.75])), distrax.Normal(jnp.array([-6.0, 6.0]), 0.5)
    )
    q = distrax.Normal(8.0, 4.0)
    noise = {}
    for name, plan in (("strata", None), ("plain", dv.Plain())):
        many = jax.vmap(lambda k, plan=plan: vk.estimate_kl(k, p, q, num_samples=1600, draws=plan))(
            jax.random.split(jax.random.clone(key), 400)
        )
        noise[name] = np.var(np.asarray(many.value))
        np.testing.assert_allclose(np.mean(np.asarray(many.standard_error) ** 2), noise[name], rtol=0.4)
    assert noise["plain"] > 4 * noise["strata"]


def test_importance_draws_say_how_many_of_them_count(key):
    p, q = distrax.Normal(0.0, 1.0), distrax.Normal(1.0, 1.0)
    found = vk.estimate_kl(
        jax.random.clone(key), p, q, num_samples=20_000, draws=dv.Importance(distrax.Normal(0.0, 2.0))
    )
    # (E w)² / E w² = 1 / ∫ p² / s = √(2σ² − 1) / σ² with σ = 2
    np.testing.assert_allclose(found.num_effective / 20_000, np.sqrt(7) / 4, rtol=0.05)


QUANTILE_CASES = {
    d.Cauchy: (d.Cauchy(0.3, 1.2), stats.cauchy(0.3, 1.2)),
    d.Exponential: (d.Exponential(1.2), stats.expon(scale=1 / 1.2)),
    d.Frechet: (d.Frechet(2.0, 1.2), stats.invweibull(2.0, scale=1.2)),
    d.Gumbel: (d.Gumbel(0.3, 1.2), stats.gumbel_r(0.3, 1.2)),
    d.HalfCauchy: (d.HalfCauchy(1.2), stats.halfcauchy(scale=1.2)),
    d.HalfNormal: (d.HalfNormal(1.2), stats.halfnorm(scale=1.2)),
    d.Kumaraswamy: (d.Kumaraswamy(2.0, 1.0), stats.beta(2.0, 1.0)),
    d.Laplace: (d.Laplace(0.3, 1.2), stats.laplace(0.3, 1.2)),
    d.Logistic: (d.Logistic(0.3, 1.2), stats.logistic(0.3, 1.2)),
    d.LogitNormal: (d.LogitNormal(0.0, 1.0), None),
    d.LogLogistic: (d.LogLogistic(0.0, 0.5), stats.fisk(2.0)),
    d.LogNormal: (d.LogNormal(0.3, 1.2), stats.lognorm(1.2, scale=np.exp(0.3))),
    d.Normal: (d.Normal(0.3, 1.2), stats.norm(0.3, 1.2)),
    d.Pareto: (d.Pareto(2.0, 1.2), stats.pareto(2.0, scale=1.2)),
    d.Rayleigh: (d.Rayleigh(1.2), stats.rayleigh(scale=1.2)),
    d.Uniform: (d.Uniform(0.3, 1.2), stats.uniform(0.3, 0.9)),
    d.Weibull: (d.Weibull(2.0, 1.2), stats.weibull_min(2.0, scale=1.2)),
}


def test_every_quantile_function_inverts_its_distribution_function():
    assert set(QUANTILE_CASES) == set(QUANTILES)
    u = jnp.array([1e-3, 0.1, 0.5, 0.8, 0.999], jnp.float32)
    for family, reference in QUANTILE_CASES.values():
        got = np.asarray(from_uniforms(family).function(u[:, None]).value[0])
        want = 1 / (1 + np.exp(-stats.norm.ppf(u))) if reference is None else reference.ppf(np.asarray(u, np.float64))
        np.testing.assert_allclose(got, want, rtol=2e-4)


def test_points_of_a_structure_have_its_distribution(key):
    scale = jnp.array([[1.0, 0.0], [0.6, 0.8]])
    joint = d.Joint(
        {
            "a": d.MultivariateNormal(jnp.array([1.0, 2.0]), scale),
            "b": d.Independent(d.Gumbel(jnp.zeros(3), jnp.ones(3)), 1),
        }
    )
    found = from_uniforms(joint)
    assert found.dim == 5
    with jax.numpy_rank_promotion("allow"):
        drawn = found.function(jax.random.uniform(key, (4000, 5)))
    normal, gumbel = drawn.value
    assert_same_distribution(gumbel, stats.gumbel_r.cdf)
    standard = np.linalg.solve(np.asarray(scale), np.asarray(normal).T - [[1.0], [2.0]]).T
    assert_same_distribution(standard, stats.norm.cdf)
    assert abs(np.corrcoef(standard.T)[0, 1]) < 0.08
    expect_rejection(lambda: assert_same_distribution(gumbel, stats.norm.cdf))


@pytest.mark.slow
def test_a_mixture_of_unlike_components(key):
    p = nd.MixtureGeneral(nd.Categorical(probs=jnp.array([0.3, 0.7])), [nd.Normal(-1.0, 0.5), nd.Laplace(1.0, 0.8)])
    x = np.linspace(-30, 30, 60_001)
    density = 0.3 * stats.norm(-1, 0.5).pdf(x) + 0.7 * stats.laplace(1, 0.8).pdf(x)
    exact = np.sum(density * (np.log(density) - stats.norm(0, 2).logpdf(x))) * (x[1] - x[0])
    keys = jax.random.split(key, 300)
    many = jax.vmap(lambda k: vk.estimate_kl(k, p, nd.Normal(0.0, 2.0), num_samples=400).value)(keys)
    assert_mean(many, exact, effect=0.05)


@pytest.mark.slow
def test_a_mixture_of_coins_has_unbiased_gradients(key):
    def coin(t):
        return distrax.MixtureSameFamily(distrax.Categorical(logits=t[:2]), distrax.Bernoulli(logits=t[2:]))

    t = jnp.array([0.2, -0.3, 1.0, -2.0])
    q = distrax.Bernoulli(probs=0.4)

    def exactly(t):
        one = jnp.sum(jax.nn.softmax(t[:2]) * jax.nn.sigmoid(t[2:]))
        return one * jnp.log(one / 0.4) + (1 - one) * jnp.log((1 - one) / 0.6)

    def value(t, k):
        return vk.estimate_kl(k, coin(t), q, num_samples=400).value

    found = jax.jit(jax.vmap(jax.grad(value), (None, 0)))(t, jax.random.split(jax.random.clone(key), 1000))
    assert_mean(found, jax.grad(exactly)(t), effect=0.02)


REFUSED = [
    (lambda: dv.QuasiMonteCarlo(5), ValueError, "even"),
    (lambda: dv.Stratified(1), ValueError, "at least 2"),
    (
        lambda: vk.estimate_kl(
            jax.random.key(0), distrax.Gamma(1.0, 1.0), distrax.Gamma(2.0, 1.0), num_samples=99, draws=dv.Antithetic()
        ),
        NotImplementedError,
        "quantile function is known, got a distrax.Gamma.*Plain",
    ),
    (
        lambda: vk.estimate_kl(
            jax.random.key(0),
            distrax.Normal(jnp.zeros(2), 1.0),
            distrax.Normal(0.0, 1.0),
            num_samples=99,
            draws=dv.Antithetic,
        ),
        TypeError,
        "write Antithetic",
    ),
    (
        lambda: vk.estimate_kl(
            jax.random.key(0),
            distrax.Normal(0.0, 1.0),
            distrax.Normal(0.0, 1.0),
            num_samples=99,
            draws=dv.Importance(distrax.Normal(0.0, 1.0)),
            gradient=kl.pathwise,
        ),
        ValueError,
        "constants",
    ),
]


@pytest.mark.parametrize(("call", "error", "words"), REFUSED, ids=range(len(REFUSED)))
def test_refuses_in_one_sentence(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_strata_never_reach_one():
    """(15 + u) / 16 is rounded to 1 where u is nearly 1, at which a quantile is infinite."""
    keys = jax.random.split(jax.random.key(2), 400)
    p, q = distrax.Normal(0.0, 1.0), distrax.Laplace(0.0, 1.0)
    plan = dv.Stratified(num_strata=4096)
    found = jax.vmap(lambda k: vk.estimate_kl(k, p, q, num_samples=8192, draws=plan).value)(keys)
    assert np.isfinite(found).all()
