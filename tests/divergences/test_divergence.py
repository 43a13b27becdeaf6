"""divergence: Rényi and what follows from it against float64 quadrature; identities; refusals in plain words."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

import vi_kit as vk
from vi_kit.divergences import distributions as d

KINDS = vk.divergences

# family: p, q, their scipy twins, the range of p or q
CONTINUOUS = {
    "Normal": (d.Normal(0.3, 1.2), d.Normal(-0.4, 1.0), stats.norm(0.3, 1.2), stats.norm(-0.4, 1.0), (-30, 30)),
    "Gamma": (
        d.Gamma(3.0, 2.0),
        d.Gamma(2.5, 1.5),
        stats.gamma(3, scale=1 / 2),
        stats.gamma(2.5, scale=1 / 1.5),
        (0, 60),
    ),
    "Exponential": (
        d.Exponential(2.0),
        d.Exponential(1.5),
        stats.expon(scale=1 / 2),
        stats.expon(scale=1 / 1.5),
        (0, 60),
    ),
    "InverseGamma": (
        d.InverseGamma(3.0, 2.0),
        d.InverseGamma(2.5, 1.5),
        stats.invgamma(3, scale=2),
        stats.invgamma(2.5, scale=1.5),
        (0, np.inf),
    ),
    "LogNormal": (
        d.LogNormal(0.3, 0.7),
        d.LogNormal(-0.4, 0.6),
        stats.lognorm(0.7, scale=np.exp(0.3)),
        stats.lognorm(0.6, scale=np.exp(-0.4)),
        (0, np.inf),
    ),
    "Beta": (d.Beta(3.0, 2.0), d.Beta(2.5, 1.5), stats.beta(3, 2), stats.beta(2.5, 1.5), (0, 1)),
    "InverseGaussian": (
        d.InverseGaussian(1.2, 2.0),
        d.InverseGaussian(1.5, 1.6),
        stats.invgauss(1.2 / 2, scale=2.0),
        stats.invgauss(1.5 / 1.6, scale=1.6),
        (0, 80),
    ),
    "Weibull": (
        d.Weibull(1.7, 1.0),
        d.Weibull(1.7, 1.3),
        stats.weibull_min(1.7),
        stats.weibull_min(1.7, scale=1.3),
        (0, 40),
    ),
    "Pareto": (d.Pareto(2.0, 1.0), d.Pareto(2.5, 1.0), stats.pareto(2), stats.pareto(2.5), (1, np.inf)),
    "Laplace": (d.Laplace(0.5, 1.0), d.Laplace(0.5, 1.3), stats.laplace(0.5), stats.laplace(0.5, 1.3), (-40, 40)),
    "VonMises": (
        d.VonMises(0.5, 1.0),
        d.VonMises(1.5, 1.3),
        stats.vonmises(1, loc=0.5),
        stats.vonmises(1.3, loc=1.5),
        (-np.pi, np.pi),
    ),
    "Uniform": (d.Uniform(0.5, 1.0), d.Uniform(0.2, 1.3), stats.uniform(0.5, 0.5), stats.uniform(0.2, 1.1), (0.5, 1.0)),
}
DISCRETE = {
    "Poisson": (d.Poisson(3.0), d.Poisson(2.2), stats.poisson(3), stats.poisson(2.2)),
    "Geometric": (d.Geometric(probs=0.3), d.Geometric(probs=0.45), stats.geom(0.3, loc=-1), stats.geom(0.45, loc=-1)),
    "NegativeBinomial": (
        d.NegativeBinomial(3.0, probs=0.3),
        d.NegativeBinomial(3.0, probs=0.45),
        stats.nbinom(3, 0.7),
        stats.nbinom(3, 0.55),
    ),
    "Binomial": (d.Binomial(7.0, probs=0.3), d.Binomial(7.0, probs=0.45), stats.binom(7, 0.3), stats.binom(7, 0.45)),
    "Bernoulli": (
        d.Bernoulli(probs=0.3),
        d.Bernoulli(logits=-0.2),
        stats.bernoulli(0.3),
        stats.bernoulli(0.45016600268752),
    ),
}


def power_integral(name, alpha):
    """∫ p^α q^{1−α} in float64."""
    if name in CONTINUOUS:
        _, _, p, q, (low, high) = CONTINUOUS[name]
        breaks = [low, *(b for b in (0.5, 1.5, 4.0) if low < b < high), high]
        return sum(
            integrate.quad(lambda x: np.exp(alpha * p.logpdf(x) + (1 - alpha) * q.logpdf(x)), a, b, epsabs=1e-13)[0]
            for a, b in itertools.pairwise(breaks)
        )
    _, _, p, q = DISCRETE[name]
    x = np.arange(200)
    with np.errstate(invalid="ignore"):
        terms = np.exp(alpha * p.logpmf(x) + (1 - alpha) * q.logpmf(x))
    return np.nansum(terms)


@pytest.mark.parametrize("name", [*CONTINUOUS, *DISCRETE])
def test_renyi(name):
    p, q = (CONTINUOUS | DISCRETE)[name][:2]
    expected = np.log(power_integral(name, 0.3)) / -0.7
    np.testing.assert_allclose(vk.divergence(p, q, KINDS.Renyi(0.3)), expected, rtol=2e-5)
    assert vk.divergence(p, p, KINDS.Renyi(0.3)) == pytest.approx(0, abs=1e-12)


# What follows from Rényi's does so for every family: two in the default suite.
@pytest.mark.parametrize(
    "name",
    [n if n in ("Normal", "Poisson") else pytest.param(n, marks=pytest.mark.slow) for n in CONTINUOUS | DISCRETE],
)
def test_what_follows_from_renyi(name):
    p, q = (CONTINUOUS | DISCRETE)[name][:2]
    half, double = power_integral(name, 0.5), power_integral(name, 2.0)
    expected = {
        KINDS.Hellinger(): 1 - half,
        KINDS.Bhattacharyya(): -np.log(half),
        KINDS.ChiSquare(): double - 1,
        KINDS.Alpha(2.0): (double - 1) / 2,
    }
    for kind, value in expected.items():
        np.testing.assert_allclose(vk.divergence(p, q, kind), value, rtol=2e-5, err_msg=str(kind))
        assert vk.divergence(p, p, kind) == pytest.approx(0, abs=1e-12), kind


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.3, 2.0])
@pytest.mark.parametrize("name", ["Normal", "Gamma", "Beta", "VonMises", "Weibull"])
def test_gradients_and_their_gradients(name, alpha, x64):
    """Central differences, also of the gradient: the member between moves with p and q."""
    p, q = CONTINUOUS[name][:2]
    p_leaves, treedef = jax.tree.flatten(p)
    q_leaves = jax.tree.leaves(q)

    def value(x):
        size = len(p_leaves)
        a, b = jax.tree.unflatten(treedef, list(x[:size])), jax.tree.unflatten(treedef, list(x[size:]))
        return vk.divergence(a, b, KINDS.Renyi(alpha))

    def shared(x):  # the Weibull's concentrations stay equal
        return jnp.concatenate([x[:2], p_leaves[0] * jnp.ones(1), x[3:]]) if name == "Weibull" else x

    at = jnp.array([*p_leaves, *q_leaves], jnp.float64)
    directions = [1, 3] if name == "Weibull" else list(range(len(at)))
    gradient, hessian = jax.jit(lambda x: (jax.grad(value)(x), jax.hessian(value)(x)))(shared(at))
    evaluate = jax.jit(lambda x: (value(x), jax.grad(value)(x)))
    for i in directions:
        step = np.zeros(len(at))
        step[i] = 1e-5
        up, down = evaluate(at + step), evaluate(at - step)
        np.testing.assert_allclose(gradient[i], (up[0] - down[0]) / 2e-5, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(
            hessian[i][np.array(directions)], ((up[1] - down[1]) / 2e-5)[np.array(directions)], rtol=1e-5, atol=1e-6
        )


def test_multivariate_normals():
    rng = np.random.default_rng(1)
    means, factors = rng.normal(size=(2, 3)), [np.linalg.cholesky(np.cov(rng.normal(size=(3, 30)))) for _ in range(2)]
    p, q = (
        d.MultivariateNormal(jnp.asarray(m, jnp.float32), jnp.asarray(f, jnp.float32))
        for m, f in zip(means, factors, strict=True)
    )
    a, b = (f @ f.T for f in factors)
    for alpha in (0.3, 1.5):
        between, shift = alpha * b + (1 - alpha) * a, means[0] - means[1]
        log_det = np.log(np.linalg.det(between) / np.linalg.det(a) ** (1 - alpha) / np.linalg.det(b) ** alpha)
        expected = alpha / 2 * shift @ np.linalg.solve(between, shift) + log_det / (2 * (1 - alpha))
        np.testing.assert_allclose(vk.divergence(p, q, KINDS.Renyi(alpha)), expected, rtol=1e-5)
    wide = d.MultivariateNormal(jnp.zeros(2), 3 * jnp.eye(2))
    assert vk.divergence(wide, d.MultivariateNormal(jnp.zeros(2), jnp.eye(2)), KINDS.ChiSquare()) == np.inf


def test_near_order_one_it_is_kl():
    p, q = d.Gamma(3.0, 2.0), d.Gamma(2.5, 1.5)
    np.testing.assert_allclose(vk.divergence(p, q, KINDS.Renyi(1.0)), vk.kl_divergence(p, q))
    np.testing.assert_allclose(vk.divergence(p, q, KINDS.Renyi(1.001)), vk.kl_divergence(p, q), rtol=1e-3)
    np.testing.assert_allclose(vk.divergence(p, q, KINDS.Alpha(0.999)), vk.kl_divergence(p, q), rtol=1e-3)


@pytest.mark.parametrize("change", [1e-2, 1e-4])
def test_digits_survive_near_equality(change):
    """D_α → α/2 · (Fisher information) · change²; the member between must be compared with p and q, not subtracted."""
    shape = np.float32(1e4 * (1 + change))
    step = float(shape) - 1e4
    for alpha in (0.5, 2.0):
        found = vk.divergence(d.Gamma(shape, 1.0), d.Gamma(1e4, 1.0), KINDS.Renyi(alpha))
        fisher = special.polygamma(1, 1e4 + (alpha + 1) / 3 * step)  # right to the second order in the change
        np.testing.assert_allclose(found, alpha / 2 * fisher * step**2, rtol=1e-3)


def test_additive_over_independent_parts():
    p = d.Independent(d.Normal(jnp.array([0.0, 1.0]), 1.0), 1)
    q = d.Independent(d.Normal(jnp.zeros(2), jnp.array([1.0, 1.5])), 1)
    parts = vk.divergence(p.base, q.base, KINDS.Renyi(0.5))
    np.testing.assert_allclose(vk.divergence(p, q, KINDS.Renyi(0.5)), parts.sum(), rtol=1e-6)
    np.testing.assert_allclose(1 - vk.divergence(p, q, KINDS.Hellinger()), jnp.exp(-parts.sum() / 2), rtol=1e-6)
    with pytest.raises(NotImplementedError, match="TotalVariation"):
        vk.divergence(p, p, KINDS.TotalVariation())  # not a sum over parts


def test_classes():
    a, b = np.array([0.2, 0.5, 0.3]), np.array([0.3, 0.1, 0.6])
    p, q = d.Categorical(probs=jnp.asarray(a)), d.Categorical(logits=jnp.log(b))
    middle = (a + b) / 2
    shannon = 0.5 * np.sum(a * np.log(a / middle)) + 0.5 * np.sum(b * np.log(b / middle))
    np.testing.assert_allclose(vk.divergence(p, q, KINDS.JensenShannon()), shannon, rtol=1e-5)
    np.testing.assert_allclose(vk.divergence(p, q, KINDS.TotalVariation()), 0.5 * np.abs(a - b).sum(), rtol=1e-5)
    np.testing.assert_allclose(vk.divergence(p, q, KINDS.ChiSquare()), np.sum(a**2 / b) - 1, rtol=1e-5)
    none = d.Categorical(probs=jnp.array([0.0, 0.5, 0.5]))
    assert np.isfinite(vk.divergence(none, q, KINDS.Hellinger()))


def test_total_variation_of_numbers():
    assert vk.divergence(d.Bernoulli(probs=0.2), d.Bernoulli(probs=0.7), KINDS.TotalVariation()) == pytest.approx(0.5)
    found = vk.divergence(d.Normal(0.0, 2.0), d.Normal(1.0, 2.0), KINDS.TotalVariation())
    np.testing.assert_allclose(found, 2 * stats.norm.cdf(0.25) - 1, rtol=1e-5)
    found = vk.divergence(d.Uniform(0.0, 1.0), d.Uniform(0.5, 3.0), KINDS.TotalVariation())
    np.testing.assert_allclose(found, 0.8, rtol=1e-6)
    with pytest.raises(NotImplementedError, match="scale"):
        vk.divergence(d.Normal(0.0, 2.0), d.Normal(1.0, 1.0), KINDS.TotalVariation())


def test_jeffreys_is_both_directions():
    p, q = d.Normal(0.0, 1.0), d.Normal(1.0, 2.0)
    expected = vk.kl_divergence(p, q) + vk.kl_divergence(q, p)
    np.testing.assert_allclose(vk.divergence(p, q, KINDS.Jeffreys()), expected)
    np.testing.assert_allclose(
        vk.divergence(p, q, KINDS.ReverseKullbackLeibler()), vk.divergence(q, p, KINDS.KullbackLeibler())
    )


GENERATORS = {
    KINDS.KullbackLeibler(): lambda u: u * np.log(u),
    KINDS.ReverseKullbackLeibler(): lambda u: -np.log(u),
    KINDS.Jeffreys(): lambda u: (u - 1) * np.log(u),
    KINDS.ChiSquare(): lambda u: (u - 1) ** 2,
    KINDS.Hellinger(): lambda u: 1 - np.sqrt(u),
    KINDS.JensenShannon(): lambda u: 0.5 * (u * np.log(2 * u / (1 + u)) + np.log(2 / (1 + u))),
    KINDS.TotalVariation(): lambda u: 0.5 * np.abs(u - 1),
    KINDS.Alpha(0.7): lambda u: (u**0.7 - 1) / (0.7 * -0.3),
}


@pytest.mark.parametrize("kind", GENERATORS, ids=str)
def test_generators(kind):
    """The textbook's generator less its tangent at 1, in float64."""
    log_ratio = np.array([-6.0, -1.0, -0.51, -0.49, -0.1, 0.1, 0.49, 0.51, 1.0, 6.0])
    u, f = np.exp(log_ratio), GENERATORS[kind]
    slope = 0.0 if kind == KINDS.TotalVariation() else (f(1 + 1e-6) - f(1 - 1e-6)) / 2e-6
    found = kind.generator(jnp.asarray(log_ratio, jnp.float32))
    np.testing.assert_allclose(found, f(u) - slope * (u - 1), rtol=2e-5, atol=1e-8)
    tiny = jnp.float32(1e-4)
    if kind != KINDS.TotalVariation():
        assert float(kind.generator(tiny)) > 0
        assert float(kind.generator(jnp.float32(0.0))) == 0.0


def test_refusals():
    p, q = d.Normal(0.0, 1.0), d.Normal(1.0, 2.0)
    with pytest.raises(TypeError, match=r"kind: expected a divergence .* write Hellinger"):
        vk.divergence(p, q, KINDS.Hellinger)
    with pytest.raises(TypeError, match="kind: expected a divergence"):
        vk.divergence(p, q, "hellinger")
    with pytest.raises(NotImplementedError, match=r"JensenShannon\(\) of \(p, q\).*vk.estimate_divergence"):
        vk.divergence(p, q, KINDS.JensenShannon())
    with pytest.raises(NotImplementedError, match="FDivergence is only estimated"):
        vk.divergence(p, q, KINDS.FDivergence(lambda x: x * x))
    for bad, error in (
        (0.0, ValueError),
        (-1.0, ValueError),
        (float("inf"), ValueError),
        (True, TypeError),
        ("1", TypeError),
    ):
        with pytest.raises(error, match="alpha: expected a positive, finite number"):
            KINDS.Renyi(bad)


def test_compiles_once(compiles):
    ones, others = np.ones(7, np.float32), [np.full(7, x, np.float32) for x in (0.0, 1.0, 2.0)]
    first, *rest = (d.Normal(loc, ones) for loc in others)
    vk.divergence(first, first, KINDS.Renyi(0.37))
    before = compiles()
    for fresh in rest:
        vk.divergence(fresh, first, KINDS.Renyi(0.37))
    assert compiles() == before
    vk.divergence(first, first, KINDS.Renyi(0.38))
    assert compiles() > before
