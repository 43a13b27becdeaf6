"""kl_bounds: on the right side of double-precision values, for many random mixtures; exact where they can be."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vi_kit as vk
from vi_kit.divergences.distributions import (
    Bernoulli,
    Laplace,
    Mixture,
    MultivariateNormal,
    Normal,
    Poisson,
    StudentT,
)

COUNT = 60
ROUNDING = 2e-5


def random(key, components, *, spread=3.0):
    """Return logits and two parameters of mixtures, as float32."""
    logits, first, second = jax.random.normal(key, (3, COUNT, components))
    return 1.5 * logits, spread * first, jnp.exp(0.7 * second)


def log_mixture(x, parameters, log_density):
    logits, *values = (np.asarray(v, float) for v in parameters)
    log_weights = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return np.logaddexp.reduce(log_weights + log_density(x[:, None, None], *values), axis=-1)


def exact(p, q, log_density, x, weight):
    """Return KL of mixtures in double precision, by a sum over x."""
    log_p, log_q = (log_mixture(x, v, log_density) for v in (p, q))
    mass = weight * np.exp(log_p)
    assert np.all(np.abs(mass.sum(axis=0) - 1) < 3e-6)
    return np.sum(mass * (log_p - log_q), axis=0)


def between(bounds, truth):
    assert np.all(bounds.lower >= 0)
    assert np.all(bounds.lower <= truth * (1 + ROUNDING) + ROUNDING)
    assert np.all(bounds.upper >= truth * (1 - ROUNDING) - ROUNDING)


def test_normal_mixtures(key):
    p, q = random(key, 3), random(jax.random.fold_in(key, 1), 4)
    x = np.linspace(-60, 60, 30_001)
    truth = exact(p, q, stats.norm.logpdf, x, x[1] - x[0])
    bounds = vk.kl_bounds(*(Mixture(logits, Normal(loc, scale)) for logits, loc, scale in (p, q)))
    between(bounds, truth)
    # They say something: for half of the mixtures less than a factor of 2.5 on either side.
    assert np.median(bounds.lower / truth) > 0.4
    assert np.median(bounds.upper / truth) < 2.5


def test_nearly_equal_and_equal_mixtures(key):
    p = random(key, 3)
    q = p[0] + 0.01, p[1] + 0.01 * p[2], p[2] * 1.01
    x = np.linspace(-60, 60, 30_001)
    truth = exact(p, q, stats.norm.logpdf, x, x[1] - x[0])

    def bounds(*values):
        return vk.kl_bounds(Mixture(p[0], Normal(p[1], p[2])), Mixture(values[0], Normal(*values[1:])))

    close = bounds(*q)
    assert np.all(close.lower <= truth)
    assert np.all((close.upper >= truth * (1 - 1e-4)) & (close.upper < 1e-3))
    (lower, upper), pull = jax.vjp(bounds, *p)
    assert np.all(lower == 0)
    assert np.all(upper == 0)
    for slope in pull(vk.Bounds(jnp.ones(COUNT), jnp.ones(COUNT))):
        np.testing.assert_array_equal(slope, jnp.zeros_like(slope))


def test_counts(key):
    p, q = random(key, 2), random(jax.random.fold_in(key, 1), 3)
    p, q = ((logits, 3 * rate) for logits, _, rate in (p, q))
    truth = exact(p, q, lambda x, rate: stats.poisson.logpmf(x, rate), np.arange(200.0), 1.0)
    between(vk.kl_bounds(*(Mixture(logits, Poisson(rate)) for logits, rate in (p, q))), truth)


@pytest.mark.slow
def test_what_has_only_kl(key):
    p, q = random(key, 2), random(jax.random.fold_in(key, 1), 3)
    x = np.linspace(-150, 150, 150_001)
    truth = exact(p, q, stats.laplace.logpdf, x, x[1] - x[0])
    between(vk.kl_bounds(*(Mixture(logits, Laplace(*rest)) for logits, *rest in (p, q))), truth)


@pytest.mark.slow
def test_where_only_one_is_a_mixture(key):
    p = random(key, 3)
    one = (jnp.zeros((COUNT, 1)), jnp.full((COUNT, 1), 0.5), jnp.full((COUNT, 1), 2.0))
    x = np.linspace(-60, 60, 30_001)
    mixture, single = Mixture(p[0], Normal(*p[1:])), Normal(0.5, 2.0)
    bounds = vk.kl_bounds(mixture, single)
    truth = exact(p, one, stats.norm.logpdf, x, x[1] - x[0])
    between(bounds, truth)
    assert np.median(bounds.lower / truth) > 0.8  # the cross term is exact
    between(vk.kl_bounds(single, mixture), exact(one, p, stats.norm.logpdf, x, x[1] - x[0]))


def test_vectors_of_several_kinds(key):
    """Diagonal components against dense ones; a mixture of vectors of bits against its enumeration."""
    weights = jnp.array([0.3, 0.7])
    loc = jnp.array([[-3.0, 0.0], [1.0, 2.0]])
    p = distrax.MixtureSameFamily(
        distrax.Categorical(probs=weights), distrax.MultivariateNormalDiag(loc, 0 * loc + 0.5)
    )
    factor = jnp.array([[[1.0, 0.0], [0.5, 0.8]], [[0.7, 0.0], [-0.3, 1.2]]])
    q = Mixture(jnp.zeros(2), MultivariateNormal(loc + 0.3, factor))
    grid = np.stack(np.meshgrid(*[np.linspace(-9, 9, 400)] * 2, indexing="ij"), axis=-1)
    log_p, log_q = (
        np.logaddexp.reduce(
            [np.log(w) + stats.multivariate_normal.logpdf(grid, m, s) for w, m, s in zip(ws, ms, ss, strict=True)]
        )
        for ws, ms, ss in (
            (np.array(weights), np.array(loc), [0.25 * np.eye(2)] * 2),
            ([0.5, 0.5], np.array(loc + 0.3), np.array(factor @ jnp.swapaxes(factor, -1, -2))),
        )
    )
    truth = np.sum(np.exp(log_p) * (log_p - log_q)) * (18 / 399) ** 2
    bounds = vk.kl_bounds(p, q)
    between(bounds, truth)
    assert bounds.lower > 0.5 * truth
    assert bounds.upper < 1.5 * truth


@pytest.mark.slow
def test_weights_of_zero_and_infinite_divergences():
    probs = jnp.array([0.0, 0.4])
    logits = jnp.array([-jnp.inf, 0.0])

    def bounds(logits):
        return vk.kl_bounds(Mixture(logits, Bernoulli(probs=probs)), Mixture(jnp.zeros(2), Bernoulli(probs=probs)))

    found = bounds(logits)
    exact = 0.4 * np.log(0.4 / 0.2) + 0.6 * np.log(0.6 / 0.8)
    assert found.lower <= exact <= found.upper < np.log(2) + 1e-6
    slope = jax.grad(lambda a: sum(bounds(a)))(jnp.array([-2.0, 0.0]))
    assert np.all(np.isfinite(slope))


def test_no_mixtures_and_no_closed_form():
    bounds = vk.kl_bounds(Normal(0.0, 1.0), Normal(1.0, 1.0))
    assert bounds == vk.divergences.Bounds(0.5, 0.5)
    mixture = Mixture(jnp.zeros(2), Normal(jnp.zeros(2), jnp.ones(2)))
    with pytest.raises(NotImplementedError, match=r"kl_bounds: no closed form .* p a Mixture and q a StudentT"):
        vk.kl_bounds(mixture, StudentT(3.0, 0.0, 1.0))
    with pytest.raises(ValueError, match=r"p\.scale: expected positive numbers, got -1"):
        vk.kl_bounds(Normal(0.0, -1.0), Normal(1.0, 1.0))
