"""Directions: 50 digits of Bessel functions beside float32, for any dimension and concentration."""

import itertools

import distrax
import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import vi_kit as vk
from vi_kit.divergences import distributions as d

CONCENTRATIONS = (1e-3, 0.5, 2.5, 30.0, 1e4)
MORE = (0.0, 1e-6, -1e-4, 1e-2, 0.3, -0.4, 0.8, 3.0)


def log_mean(dim, k):
    """Return log of the mean of e^{k x₁} over the sphere, and its first two derivatives."""
    if k == 0:
        return mp.mpf(0), mp.mpf(0), mp.mpf(1) / dim
    order, k = mp.mpf(dim) / 2 - 1, mp.mpf(float(k))
    bessel = mp.besseli(order, k)
    ratio = mp.besseli(order + 1, k) / bessel
    value = mp.log(bessel) - order * mp.log(k / 2) + mp.loggamma(order + 1)
    return value, ratio, 1 - ratio**2 - (dim - 1) * ratio / k


def worst(dim, dtype):
    """Return the largest relative errors of KL and of its slopes in the concentrations, and the smallest value."""
    pairs = [(k, dtype(k) * (1 + dtype(m))) for k in CONCENTRATIONS for m in MORE]
    pairs += list(itertools.product((0.0, *CONCENTRATIONS), repeat=2))
    p, q = np.array(pairs, dtype).T
    pole = jnp.zeros(dim, dtype).at[0].set(1)

    def kl(a, b):
        return vk.kl_divergence(d.VonMisesFisher(pole, a), d.VonMisesFisher(pole, b))

    found = jax.jit(lambda a, b: (kl(a, b), *jax.grad(lambda x, y: kl(x, y).sum(), (0, 1))(a, b)))(p, q)
    exact = []
    with mp.workdps(50):
        known = {k: log_mean(dim, k) for k in {*p.tolist(), *q.tolist()}}
        for a, b in zip(p.tolist(), q.tolist(), strict=True):
            (first, slope, curvature), (second, q_slope, _) = known[a], known[b]
            exact.append((second - first - (b - mp.mpf(a)) * slope, (a - mp.mpf(b)) * curvature, q_slope - slope))
        exact = np.array(exact, float)
    found = np.stack(found).astype(float).T
    same = p == q
    np.testing.assert_array_equal(found[same], 0.0)
    errors = np.abs(found - exact)[~same] / np.abs(exact)[~same]
    return errors.max(0), found[:, 0].min()


@pytest.mark.parametrize("dim", [2, 5, 50])
def test_von_mises_fisher(dim):
    errors, least = worst(dim, np.float32)
    assert (errors < 4e-5).all(), errors
    assert least == 0


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dim", [2, 3, 4, 7, 12, 30, 200, 1000])
def test_von_mises_fisher_in_double_precision(dim):
    errors, least = worst(dim, np.float64)
    assert (errors < 1e-10).all(), errors
    assert least == 0


def test_von_mises_is_the_circle():
    loc, concentration = jnp.array([[0.3, 0.3, 3.0], [0.3, 1.2, -3.0]]), jnp.array([[1.0, 50.0, 4.0], [1.0, 40.0, 9.0]])
    found = vk.kl_divergence(*(d.VonMises(m, k) for m, k in zip(loc, concentration, strict=True)))
    directions = jnp.stack([jnp.cos(loc), jnp.sin(loc)], axis=-1)
    circle = vk.kl_divergence(*(d.VonMisesFisher(m, k) for m, k in zip(directions, concentration, strict=True)))
    np.testing.assert_allclose(found, circle, rtol=1e-5)
    assert found[0] == 0
    again = vk.kl_divergence(d.VonMises(loc[0] + 2 * jnp.pi, concentration[0]), d.VonMises(loc[1], concentration[1]))
    np.testing.assert_allclose(again, found, rtol=1e-4, atol=1e-10)


def test_von_mises_nearly_equal_angles():
    """1 − cos of a small angle has no digits left in float32; its gradient is 0 at equality."""
    angles = jnp.array([0.0, 1e-5, 1e-3, 0.1])

    def kl(angle):
        return vk.kl_divergence(d.VonMises(angle, 500.0), d.VonMises(0.0, 500.0))

    found, slopes = jax.vmap(jax.value_and_grad(kl))(angles)
    mean = 500 * float(log_mean(2, 500.0)[1])
    small = np.asarray(angles, float)
    np.testing.assert_allclose(found, mean * 2 * np.sin(small / 2) ** 2, rtol=1e-5)
    np.testing.assert_allclose(slopes, mean * np.sin(small), rtol=1e-5)


def test_distrax_agrees_where_it_has_digits():
    p, q = distrax.VonMises(0.5, 1.5), distrax.VonMises(-1.0, 3.0)
    np.testing.assert_allclose(vk.kl_divergence(p, q), p.kl_divergence(q), rtol=1e-4)


def test_uniform_directions():
    uniform, pole = d.SphericalUniform(3), jnp.array([0.0, 0.6, 0.8])
    assert vk.kl_divergence(uniform, uniform) == 0
    # In three dimensions the log normalizer is log(sinh(κ)/κ).
    exact = np.log(np.sinh(2.5) / 2.5)
    np.testing.assert_allclose(vk.kl_divergence(uniform, d.VonMisesFisher(pole, 2.5)), exact, rtol=1e-5)
    np.testing.assert_allclose(vk.kl_divergence(d.PowerSpherical(pole, 0.0), uniform), 0, atol=1e-12)


def power_spherical_von_mises_fisher(dim, p, q):
    """Return KL and its slopes in the concentrations."""
    p, rest = mp.mpf(p), mp.mpf(dim - 1) / 2
    first, total = p + rest, p + 2 * rest
    uniform = mp.loggamma(rest) - mp.loggamma(2 * rest) - mp.loggamma(first) + mp.loggamma(total)
    uniform += p * (mp.digamma(first) - mp.digamma(total))
    normalizer, slope, _ = log_mean(dim, q)
    to_p = p * (mp.polygamma(1, first) - mp.polygamma(1, total)) - q * 2 * rest / total**2
    return uniform + normalizer - q * p / total, to_p, slope - p / total


def power_spherical_errors(dim, dtype):
    """Return the largest relative error of KL, its smallest value, and errors of slopes, against the larger of them."""
    p = np.repeat(np.array([1e-3, 0.3, 5, 120, 5e4, 3e7], dtype), 5)
    nearest = p / 2 * (p + dim * (dim + 1) / (dim - 1)) / (p + dim)  # about
    q = (nearest * np.tile(np.array([1, 1 + 1e-5, 0.99, 0.5, 5], dtype), 6)).astype(dtype)
    pole = jnp.zeros(dim, dtype).at[0].set(1)

    def kl(a, b):
        return vk.kl_divergence(d.PowerSpherical(pole, a), d.VonMisesFisher(pole, b))

    found = jax.jit(lambda a, b: (kl(a, b), *jax.grad(lambda x, y: kl(x, y).sum(), (0, 1))(a, b)))(p, q)
    found = np.stack(found).astype(float)
    with mp.workdps(50):
        exact = [power_spherical_von_mises_fisher(dim, *pair) for pair in zip(p.tolist(), q.tolist(), strict=True)]
        exact = np.array(exact, float).T
    wrong, size = (np.abs(x) * np.stack([p, q]) for x in (found[1:] - exact[1:], exact[1:]))
    far = np.abs(q / nearest - 1) > 1e-3  # at the nearest, slopes in q are 0
    return np.max(np.abs(found[0] / exact[0] - 1)), found[0].min(), (wrong.max(0) / size.max(0))[far].max()


@pytest.mark.parametrize("dim", [2, 100])
def test_power_spherical_from_the_nearest_von_mises_fisher(dim):
    """By way of the uniform distribution, it is −2e-5 to 2e-5 where it is less than 1e-7."""
    value, least, slope = power_spherical_errors(dim, np.float32)
    assert value < 2e-5
    assert least > 0
    assert slope < 1e-4


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dim", [2, 3, 20, 500])
def test_power_spherical_from_von_mises_fisher_in_double_precision(dim):
    value, least, slope = power_spherical_errors(dim, np.float64)
    assert value < 1e-9
    assert least > 0
    assert slope < 1e-8
