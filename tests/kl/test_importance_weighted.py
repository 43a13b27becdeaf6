"""The importance-weighted bound: identities, double precision, and the noise and bias of its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from statistical import assert_mean, expect_rejection

import vi_kit.kl as kl


def test_one_draw_is_the_elbo_and_equal_weights_are_the_evidence():
    log_weights = jnp.asarray(np.random.default_rng(0).normal(size=(1, 50)) * 100, jnp.float32)
    np.testing.assert_array_equal(kl.importance_weighted_bound(log_weights), log_weights[0])
    np.testing.assert_allclose(kl.importance_weighted_bound(jnp.full((7,), -1e4)), -1e4, rtol=1e-6)


def test_value_and_gradients_against_double_precision():
    log_weights = (np.random.default_rng(1).normal(size=(3, 8, 2)) * 20 - 500).astype(np.float32)
    log_weights[0, 3, 1] = -np.inf
    expected = scipy.special.logsumexp(log_weights.astype(np.float64), axis=1) - np.log(8)
    normalized = scipy.special.softmax(log_weights.astype(np.float64), axis=1)
    for gradient, weights in ((kl.reparameterized, normalized), (kl.doubly_reparameterized, normalized**2)):
        bound = lambda v, g=gradient: jnp.sum(kl.importance_weighted_bound(v, axis=1, gradient=g))  # noqa: E731
        np.testing.assert_allclose(
            kl.importance_weighted_bound(log_weights, axis=1, gradient=gradient), expected, rtol=1e-6
        )
        np.testing.assert_allclose(jax.jit(jax.grad(bound))(jnp.asarray(log_weights)), weights, rtol=1e-4, atol=1e-7)
    both = kl.importance_weighted_bound(log_weights, axis=(1, -1))
    flat = scipy.special.logsumexp(log_weights.reshape(3, 16).astype(np.float64), axis=1) - np.log(16)
    np.testing.assert_allclose(both, flat, rtol=1e-6)


@pytest.mark.parametrize("gradient", [kl.reparameterized, kl.doubly_reparameterized])
def test_weights_of_zero(gradient):
    log_weights = jnp.array([[-jnp.inf, -jnp.inf], [0.0, -jnp.inf]])
    value, gradients = jax.value_and_grad(
        lambda v: kl.importance_weighted_bound(v, gradient=gradient)[0], has_aux=False
    )(log_weights)
    np.testing.assert_allclose(value, -np.log(2), rtol=1e-6)
    np.testing.assert_array_equal(gradients, [[0, 0], [1, 0]])
    value, gradients = jax.value_and_grad(lambda v: kl.importance_weighted_bound(v, gradient=gradient)[1])(log_weights)
    assert value == -jnp.inf
    np.testing.assert_array_equal(gradients, 0.0)
    assert jnp.isnan(kl.importance_weighted_bound(jnp.array([jnp.nan, 0.0]), gradient=gradient))


@pytest.mark.slow
def test_the_hessian_is_that_of_the_log_mean():
    point = jnp.array([0.3, -1.0, 2.0])
    weights = np.asarray(jax.nn.softmax(point), np.float64)
    expected = np.diag(weights) - np.outer(weights, weights)
    np.testing.assert_allclose(jax.hessian(kl.importance_weighted_bound)(point), expected, atol=1e-6)


def test_masked_data_points_are_zero_and_draws_must_exist():
    log_weights = jnp.array([[0.0, jnp.nan], [1.0, jnp.nan]])
    keep = jnp.array([True, False])
    compute = jax.value_and_grad(lambda v: jnp.sum(kl.importance_weighted_bound(v, mask=keep)))
    value, gradient = compute(log_weights)
    np.testing.assert_allclose(value, np.log((1 + np.e) / 2), rtol=1e-6)
    np.testing.assert_array_equal(gradient[:, 1], 0.0)
    with pytest.raises(ValueError, match=r"log_weights: expected at least one draw along axis 0, got shape \(0, 3\)"):
        kl.importance_weighted_bound(jnp.zeros((0, 3)))
    with pytest.raises(ValueError, match=r"mask: expected a shape that broadcasts to \(2,\), got \(2, 2\)"):
        kl.importance_weighted_bound(log_weights, mask=jnp.ones((2, 2), bool))
    with pytest.raises(ValueError, match="axis"):
        kl.importance_weighted_bound(log_weights, axis=2)
    assert kl.importance_weighted_bound(log_weights[:, :0]).shape == (0,)


def log_normal(z, mean, log_scale):
    return -0.5 * ((z - mean) * jnp.exp(-log_scale)) ** 2 - log_scale - 0.5 * np.log(2 * np.pi)


def gradients(key, num_draws, repetitions):
    """Gradients to (encoder mean, encoder log scale, decoder log scale) of one model, on the same draws.

    Returns the plain ones, the doubly reparameterized ones, and sticking the landing: arrays (repetitions, 3).
    """
    stop = jax.lax.stop_gradient

    def log_weights(encoder, q, decoder, noise, x=1.5):
        z = encoder[0] + jnp.exp(encoder[1]) * noise
        return log_normal(z, 0.0, 0.0) + log_normal(x, z, decoder) - log_normal(z, *q)

    def loss(kind):
        choose = kl.doubly_reparameterized if kind == "double" else kl.reparameterized

        def bound(params, noise):
            encoder, decoder = params[:2], params[2]
            q = encoder if kind == "plain" else stop(encoder)
            return kl.importance_weighted_bound(log_weights(encoder, q, decoder, noise), gradient=choose)

        return bound

    params = jnp.array([0.3, -0.1, 0.2])
    noise = jax.random.normal(key, (repetitions, num_draws))
    compute = lambda kind: jax.vmap(jax.value_and_grad(loss(kind)), in_axes=(None, 0))  # noqa: E731
    return jax.jit(lambda noise: [compute(kind)(params, noise) for kind in ("plain", "double", "stuck")])(noise)


def test_doubly_reparameterized_gradients_are_unbiased_for_q_alone(key, x64):
    (values, plain), (same, double), (_, stuck) = gradients(key, 8, 40_000)
    np.testing.assert_array_equal(values, same)
    assert_mean(double[:, :2] - plain[:, :2], np.zeros(2), effect=0.02)
    # Without the square it is biased; and for parameters of p the square is wrong.
    expect_rejection(lambda: assert_mean(stuck[:, :2] - plain[:, :2], np.zeros(2)))
    expect_rejection(lambda: assert_mean(double[:, 2] - plain[:, 2], np.zeros(1)))


def test_doubly_reparameterized_gradients_are_less_noisy(key, x64):
    (_, plain), (_, double), _ = gradients(key, 64, 4_000)
    ratio = np.var(double[:, :2], axis=0) / np.var(plain[:, :2], axis=0)
    assert np.all(ratio < 0.2), ratio


def test_one_draw_doubly_reparameterized_is_sticking_the_landing(key):
    _, (_, double), (_, stuck) = gradients(key, 1, 10)
    np.testing.assert_allclose(double, stuck, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_at_the_posterior_the_gradient_has_no_noise(key):
    """Every weight is p(x) there; the plain gradient still has noise, of mean 0."""
    x, exact = 1.0, jnp.array([0.5, -0.5 * np.log(2.0)])

    def bound(encoder, noise, choose):
        z = encoder[0] + jnp.exp(encoder[1]) * noise
        q = jax.lax.stop_gradient(encoder) if choose is kl.doubly_reparameterized else encoder
        log_weights = log_normal(z, 0.0, 0.0) + log_normal(x, z, 0.0) - log_normal(z, *q)
        return kl.importance_weighted_bound(log_weights, gradient=choose)

    noise = jax.random.normal(key, (5,))
    np.testing.assert_allclose(jax.grad(bound)(exact, noise, kl.doubly_reparameterized), 0.0, atol=1e-6)
    assert np.linalg.norm(jax.grad(bound)(exact, noise, kl.reparameterized)) > 1e-2
