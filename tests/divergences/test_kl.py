"""kl_divergence: closed forms against the textbook in double precision, and a plain refusal where there is none."""

import distrax
import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import vi_kit as vk

TINY = 4 * float(np.finfo(np.float32).tiny)  # where slopes may be flushed to 0
P_MEAN, Q_MEAN = np.array([0.3, -1.0]), np.array([0.5, 0.5])
P_SD, Q_SD = np.array([0.7, 2.0]), np.array([1.5, 0.4])
P_FACTOR, Q_FACTOR = np.array([[1.2, 0.0], [0.5, 0.7]]), np.array([[0.6, 0.0], [-0.9, 1.1]])


def textbook(p_mean, p_covariance, q_mean, q_covariance):
    shift = q_mean - p_mean
    precision = np.linalg.inv(q_covariance)
    log_ratio = np.log(np.linalg.det(q_covariance) / np.linalg.det(p_covariance))
    return 0.5 * (np.trace(precision @ p_covariance) + shift @ precision @ shift - len(shift) + log_ratio)


def members(mean, sd, factor):
    mean, sd, factor = (jnp.asarray(v, jnp.float32) for v in (mean, sd, factor))
    return {
        "diagonal": (distrax.MultivariateNormalDiag(mean, sd), np.diag(np.asarray(sd, float) ** 2)),
        "independent": (distrax.Independent(distrax.Normal(mean, sd), 1), np.diag(np.asarray(sd, float) ** 2)),
        "triangular": (distrax.MultivariateNormalTri(mean, factor), np.asarray(factor @ factor.T, float)),
        "covariance": (
            distrax.MultivariateNormalFullCovariance(mean, factor @ factor.T),
            np.asarray(factor @ factor.T, float),
        ),
    }


P, Q = members(P_MEAN, P_SD, P_FACTOR), members(Q_MEAN, Q_SD, Q_FACTOR)


@pytest.mark.parametrize("second", Q)
@pytest.mark.parametrize("first", P)
def test_gaussian_pairs(first, second):
    (p, p_covariance), (q, q_covariance) = P[first], Q[second]
    expected = textbook(P_MEAN, p_covariance, Q_MEAN, q_covariance)
    np.testing.assert_allclose(vk.kl_divergence(p, q), expected, rtol=1e-5)
    assert vk.kl_divergence(p, q).shape == ()


@pytest.mark.parametrize("name", P)
def test_zero_at_equality(name):
    np.testing.assert_allclose(vk.kl_divergence(P[name][0], P[name][0]), 0.0, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e-3])
@pytest.mark.parametrize("change", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("scalar", [True, False])
def test_digits_survive_near_equality_at_any_scale(scale, change, scalar):
    """log σ_p − log σ_q would lose them: at σ = 100 its rounding is 4e-7 whatever the difference."""
    p_scale, q_scale = np.float32(scale * (1 + change)), np.float32(scale)
    if scalar:
        found = vk.kl_divergence(distrax.Normal(0.0, p_scale), distrax.Normal(0.0, q_scale))
    else:

        def one(s):
            return distrax.MultivariateNormalDiag(jnp.zeros(1), jnp.array([s]))

        found = vk.kl_divergence(one(p_scale), one(q_scale))
    a = np.log1p((np.float64(p_scale) - np.float64(q_scale)) / np.float64(q_scale))
    exact = sum((2 * a) ** k / np.prod(np.arange(1.0, k + 1)) for k in range(2, 12)) / 2
    np.testing.assert_allclose(found, exact, rtol=1e-5)


def test_normals_of_any_ratio_and_their_gradients():
    """Against 50 digits: across both branches of the scales' term, their seam, and scales near the ends of float32."""
    ratios = [1 + s * e for e in (1e-6, 1e-3, 0.1, 0.28, 0.2853, 0.29, 0.5, 0.99) for s in (-1, 1)]
    ratios += [1.0, 0.22178, 0.2217, 3.0, 1e3, 1e-3, 1e8, 1e-18]
    scales = np.array([1.0, 1e-18, 1e18], np.float32)
    q_scale = np.repeat(scales, len(ratios)).astype(np.float32)
    p_scale = (q_scale * np.tile(ratios, len(scales))).astype(np.float32)
    p_loc, q_loc = (0.75 * q_scale).astype(np.float32), (-0.5 * q_scale).astype(np.float32)
    p_scale, q_scale = np.append(p_scale, np.float32(1.5e38)), np.append(q_scale, np.float32(1e38))
    p_loc, q_loc = np.append(p_loc, np.float32(0)), np.append(q_loc, np.float32(0))

    def kl(*given):
        return vk.kl_divergence(distrax.Normal(*given[:2]), distrax.Normal(*given[2:]))

    given = p_loc, p_scale, q_loc, q_scale
    found, gradients = kl(*given), jax.grad(lambda x: jnp.sum(kl(*x)))(given)
    with mp.workdps(50):
        for i, (a, s, b, t) in enumerate(zip(*([mp.mpf(float(v)) for v in x] for x in given), strict=True)):
            exact = mp.log(t / s) + (s * s + (a - b) ** 2) / (2 * t * t) - mp.mpf(1) / 2
            slopes = [(a - b) / t**2, s / t**2 - 1 / s, (b - a) / t**2, 1 / t - (s * s + (a - b) ** 2) / t**3]
            np.testing.assert_allclose(found[i], float(exact), rtol=3e-6)
            for slope, expected in zip(gradients, slopes, strict=True):
                np.testing.assert_allclose(slope[i], float(expected), rtol=3e-6, atol=TINY)


def test_scalar_normals_are_elementwise():
    found = vk.kl_divergence(distrax.Normal(jnp.array([0.0, 1.0]), 1.0), distrax.Normal(0.0, 1.0))
    np.testing.assert_allclose(found, [0.0, 0.5])

    def batch(loc):
        return distrax.Independent(distrax.Normal(loc, 1.0), 0)

    np.testing.assert_allclose(vk.kl_divergence(batch(jnp.zeros(2)), batch(jnp.ones(2))), [0.5, 0.5])


def test_classes():
    p, q = np.array([0.2, 0.8]), np.array([0.5, 0.5])
    found = vk.kl_divergence(distrax.Categorical(probs=jnp.asarray(p)), distrax.Categorical(probs=jnp.asarray(q)))
    np.testing.assert_allclose(found, np.sum(p * np.log(p / q)), rtol=1e-5)


def test_pairs_without_a_closed_form_are_refused_by_name():
    components = distrax.Categorical(logits=jnp.zeros(2))
    mixture = distrax.MixtureSameFamily(components, distrax.Normal(jnp.zeros(2), 1.0))
    for p, q, names in [
        (mixture, distrax.Normal(0.0, 1.0), "p a distrax.MixtureSameFamily and q a distrax.Normal"),
        (distrax.Normal(0.0, 1.0), mixture, "p a distrax.Normal and q a distrax.MixtureSameFamily"),
    ]:
        with pytest.raises(NotImplementedError, match=names):
            vk.kl_divergence(p, q)


def test_what_is_no_distribution_is_refused():
    with pytest.raises(TypeError, match="q: expected a distribution, got float"):
        vk.kl_divergence(distrax.Normal(0.0, 1.0), 1.0)


def test_events_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"q: expected events of shape \(2,\) as p has, got \(3,\)"):
        vk.kl_divergence(P["diagonal"][0], distrax.MultivariateNormalDiag(jnp.zeros(3), jnp.ones(3)))
