"""kl_divergence: closed forms against the textbook in double precision, and a plain refusal where there is none."""

import distrax
import jax.numpy as jnp
import numpy as np
import pytest

import vi_kit as vk

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
