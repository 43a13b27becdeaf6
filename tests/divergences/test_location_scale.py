"""Families of a location and a scale: quadrature rules against closed forms, near equality, and where supports end."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vi_kit as vk
from vi_kit.divergences import distributions as d

CHANGES = np.float32([1e-2, -1e-4, 3e-6])


# Compiled without optimizing: most of what these tests cost is compiling.
QUICKLY = {"xla_backend_optimization_level": 0}
compiled = jax.jit(vk.kl_divergence, compiler_options=QUICKLY)


def kl(p, q):
    return np.asarray(compiled(p, q), np.float64)


@functools.partial(jax.jit, compiler_options=QUICKLY)
def differentiated(p, q):
    def total(p, q):
        values = vk.kl_divergence(p, q)
        return jnp.sum(values), values

    return jax.value_and_grad(total, (0, 1), has_aux=True)(p, q)


def value_and_slopes(p, q):
    """Return values and the gradients of their sum, of both arguments."""
    (_, values), slopes = differentiated(p, q)
    return np.asarray(values, np.float64), slopes


def test_logistic_with_one_scale_has_a_closed_form():
    """KL = z coth(z/2) − 2 with z the distance in units of the scale."""
    z = np.float64([1e-4, 1e-2, 0.5, 3.0, 40.0, 1e4])
    exact = np.where(z < 0.1, z**2 / 6 - z**4 / 360, z / np.tanh(z / 2) - 2)
    found = kl(
        d.Logistic(jnp.zeros(6), jnp.full(6, 3.0)), d.Logistic(jnp.asarray(3 * z, jnp.float32), jnp.full(6, 3.0))
    )
    np.testing.assert_allclose(found, exact, rtol=2e-5)


def logistic_sum(ratio, shift):
    z = np.arange(-60, 60, 1e-4)
    log_p = -np.abs(z) - 2 * np.log1p(np.exp(-np.abs(z)))
    y = np.abs(ratio * z + shift)
    log_q = np.log(ratio) - y - 2 * np.log1p(np.exp(-y))
    return 1e-4 * np.sum(np.exp(log_p) * (log_p - log_q))


def test_logistic_of_any_scale_and_distance():
    cases = np.float32([[1e-3, 0.0], [0.3, 4.0], [1.9, -1.0], [2.1, -1.0], [30.0, 20.0], [1e3, -7.0]])
    exact = [logistic_sum(*case) for case in cases.astype(float)]
    ratio, shift = jnp.asarray(cases.T)
    found = kl(d.Logistic(jnp.zeros(6), jnp.ones(6)), d.Logistic(-shift / ratio, 1 / ratio))
    np.testing.assert_allclose(found, exact, rtol=1e-5)


def test_student_t_between_cauchy_and_normal():
    loc, scale = jnp.array([0.0, 3.0, 1e3, -5.0]), jnp.array([1.0, 1e-3, 0.2, 1e3])
    zero, one = jnp.zeros(4), jnp.ones(4)
    for df, other, rtol in ((1.0, d.Cauchy, 2e-5), (1e6, d.Normal, 1e-3)):
        found = kl(d.StudentT(df * one, zero, one), d.StudentT(df * one, loc, scale))
        exact = kl(other(zero, one), other(loc, scale))
        keep = exact < 1e4  # beyond, 1e6 degrees of freedom are not yet normal
        np.testing.assert_allclose(found[keep], exact[keep], rtol=rtol, atol=1e-7)


def test_student_t_from_a_narrow_one_of_other_tails():
    """mpmath.quad with 15 digits."""
    p = d.StudentT(3.4169711055681553, -0.8020309927359384, 93.0403951362608)
    q = d.StudentT(0.694409375075984, -2.7505027977544545, 0.350604255137895)
    np.testing.assert_allclose(kl(p, q), 2.88168748612949, rtol=1e-5)


def test_extreme_values_of_shape_0_are_gumbel_and_of_one_end_shifted_gumbel():
    loc, scale = jnp.array([0.5, -1.0]), jnp.array([2.0, 0.7])
    zero, one = jnp.zeros(2), jnp.ones(2)
    found = kl(d.GeneralizedExtremeValue(loc, scale, zero), d.GeneralizedExtremeValue(zero, one, zero))
    np.testing.assert_allclose(found, kl(d.Gumbel(loc, scale), d.Gumbel(zero, one)), rtol=1e-5)
    shape = jnp.array([0.4, -0.3])  # log of what is left to the end is Gumbel / shape, of scale 1 on both sides
    q = d.GeneralizedExtremeValue(zero, one, shape)
    p = d.GeneralizedExtremeValue((scale - 1) / shape, scale, shape)
    moved = np.log(np.float64(scale)) / np.float64(shape)
    np.testing.assert_allclose(kl(p, q), np.expm1(-moved) + moved, rtol=1e-5)


def test_generalized_normal_is_normal_and_laplace():
    loc, ours, theirs = jnp.ones(2), jnp.array([0.7, 2.0]), jnp.array([1.5, 0.1])
    for power, family, unit in ((2.0, d.Normal, 2**-0.5), (1.0, d.Laplace, 1.0)):
        general = d.GeneralizedNormal(loc, theirs, jnp.full(2, power))
        exact = kl(family(loc, ours), family(loc, theirs * unit))
        np.testing.assert_allclose(kl(family(loc, ours), general), exact, rtol=1e-5)
    with pytest.raises(NotImplementedError, match="`loc` has to be the same"):
        vk.kl_divergence(d.GeneralizedNormal(0.0, 1.0, 3.0), d.GeneralizedNormal(1.0, 1.0, 3.0))


LOC, SCALE = np.float32([2.0, -0.3, 0.0]), np.float32([0.5, 30.0, 1e-3])
# Half the Fisher information of the loc and of the log of the scale, in units of the scale.
LOCATION_SCALE = {
    d.Laplace: (1 / 2, 1 / 2),
    d.Cauchy: (1 / 4, 1 / 4),
    d.Logistic: (1 / 6, (np.pi**2 + 3) / 18),
    d.Gumbel: (1 / 2, (np.pi**2 / 6 + (1 - np.euler_gamma) ** 2) / 2),
}


@pytest.mark.parametrize("family", LOCATION_SCALE)
def test_digits_near_equality(family):
    """KL is half the Fisher information times the squared change, to relative order of the change."""
    of_loc, of_scale = LOCATION_SCALE[family]
    moved = LOC + SCALE * CHANGES
    change = (moved.astype(float) - LOC) / SCALE
    wider = SCALE * (1 + CHANGES)
    log = np.log(wider.astype(float) / SCALE)
    p = family(jnp.asarray(np.tile(LOC, 3)), jnp.asarray(np.tile(SCALE, 3)))
    q = family(jnp.asarray(np.concatenate([moved, LOC, LOC])), jnp.asarray(np.concatenate([SCALE, wider, SCALE])))
    values, slopes = value_and_slopes(p, q)
    np.testing.assert_allclose(values[:3], of_loc * change**2, rtol=2e-2 if family is d.Gumbel else 5e-3)
    np.testing.assert_allclose(values[3:6], of_scale * log**2, rtol=2e-2)
    np.testing.assert_allclose(values[1:3], of_loc * change[1:] ** 2, rtol=1e-3)
    np.testing.assert_array_equal(values[6:], 0.0)
    for slope in jax.tree.leaves(slopes):
        np.testing.assert_array_equal(slope[6:], 0.0)
    np.testing.assert_allclose(np.asarray(slopes[1].loc)[1:3], 2 * of_loc * change[1:] / SCALE[1:], rtol=1e-3)


def test_heavier_tails_near_equality():
    """The Fisher information of Student's t: (df + 1)/(df + 3) for the loc, 2 df/(df + 3) for the log of the scale."""
    df, zero, one = jnp.array([1.0, 5.0, 300.0]), jnp.zeros(3), jnp.ones(3)
    nu = np.float64(df)
    near = kl(d.StudentT(df, zero, one), d.StudentT(df, zero + 1e-4, one))
    np.testing.assert_allclose(near, 0.5e-8 * (nu + 1) / (nu + 3), rtol=1e-3)
    change = float(np.log(np.float64(np.float32(1 + 1e-4))))
    near = kl(d.StudentT(df, zero, one), d.StudentT(df, zero, one * np.float32(1 + 1e-4)))
    np.testing.assert_allclose(near, change**2 * nu / (nu + 3), rtol=1e-3)


def test_what_begins_below_the_support_is_infinite_and_says_which_way_is_up():
    values, (slope, _) = value_and_slopes(
        d.Pareto(jnp.full(2, 2.0), jnp.array([0.5, 2.0])), d.Pareto(jnp.full(2, 3.0), jnp.ones(2))
    )
    np.testing.assert_allclose(values, [np.inf, np.log(2 / 3) + 3 * np.log(2) + 0.5], rtol=1e-6)
    assert slope.scale[0] == -jnp.inf
    zero, shape = jnp.zeros(2), jnp.full(2, 0.3)
    values, (slope, _) = value_and_slopes(
        d.GeneralizedExtremeValue(jnp.array([0.0, 5.0]), jnp.full(2, 2.0), shape),
        d.GeneralizedExtremeValue(zero, jnp.ones(2), shape),
    )
    assert values[0] == np.inf
    assert (slope.loc[0], slope.scale[0]) == (-jnp.inf, jnp.inf)
    assert np.isfinite(values[1])
    assert np.isfinite([x[1] for x in jax.tree.leaves(slope)]).all()


def test_inverse_gaussian_and_half_cauchy():
    m, c, n, b = 1.3, 4.0, 0.8, 7.0
    exact = 0.5 * (np.log(c / b) + b / c - 1) + b * (m - n) ** 2 / (2 * n**2 * m)
    np.testing.assert_allclose(kl(d.InverseGaussian(m, c), d.InverseGaussian(n, b)), exact, rtol=1e-6)
    np.testing.assert_allclose(kl(d.HalfCauchy(m), d.HalfCauchy(c)), np.log((m + c) ** 2 / (4 * m * c)), rtol=1e-6)


@pytest.mark.slow
def test_double_precision(x64):
    np.testing.assert_allclose(kl(d.Logistic(0.0, 1.0), d.Logistic(5.0, 1.0)), 5 / np.tanh(2.5) - 2, rtol=1e-12)
    exact = kl(d.Cauchy(0.0, 1.0), d.Cauchy(3.0, 1e-2))
    np.testing.assert_allclose(kl(d.StudentT(1.0, 0.0, 1.0), d.StudentT(1.0, 3.0, 1e-2)), exact, rtol=1e-9)
