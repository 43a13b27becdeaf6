"""The terms of a diffusion model's bound: identities between them, and the formulas of DDPM in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from statistical import assert_mean, assert_same_distribution, expect_rejection

import vi_kit.kl as kl


def ddpm(betas):
    """ᾱ of DDPM and the noise levels in this library's convention."""
    alphas_bar = np.cumprod(1 - np.asarray(betas, np.float64))
    return alphas_bar, np.log1p(-alphas_bar) - np.log(alphas_bar)


BETAS = np.linspace(1e-4, 0.02, 1000)


@pytest.mark.parametrize("t", [1, 2, 500, 999])
def test_posterior_is_ddpm_s(t):
    """Equations 6 and 7 of Ho et al.: μ̃ and β̃."""
    alphas_bar, gammas = ddpm(BETAS)
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(2, 5))
    mean = np.sqrt(alphas_bar[t - 1]) * BETAS[t] * x + np.sqrt(1 - BETAS[t]) * (1 - alphas_bar[t - 1]) * z
    variance = BETAS[t] * (1 - alphas_bar[t - 1]) / (1 - alphas_bar[t])
    found, log_scale = kl.diffusion_posterior(
        jnp.asarray(x, jnp.float32), jnp.asarray(z, jnp.float32), gammas[t - 1], gammas[t]
    )
    np.testing.assert_allclose(found, mean / (1 - alphas_bar[t]), rtol=2e-4, atol=1e-5)  # γ rounded to float32
    np.testing.assert_allclose(log_scale, np.full(5, 0.5 * np.log(variance)), rtol=2e-4)


def test_posterior_composes_to_the_marginal(x64):
    """z_s drawn through q(z_s | z_t, x) has mean α_s x and variance σ_s², whatever z_t's part was."""
    gamma_s, gamma_t, x = -1.3, 0.4, 0.7
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    at_0, log_scale = kl.diffusion_posterior(x, 0.0, gamma_s, gamma_t)
    slope = kl.diffusion_posterior(0.0, 1.0, gamma_s, gamma_t)[0]
    mean = at_0 + slope * np.sqrt(sigmoid(-gamma_t)) * x
    np.testing.assert_allclose(mean, np.sqrt(sigmoid(-gamma_s)) * x, rtol=1e-12)
    variance = np.exp(2 * log_scale) + slope**2 * sigmoid(gamma_t)
    np.testing.assert_allclose(variance, sigmoid(gamma_s), rtol=1e-12)


@pytest.mark.parametrize("step", [1.0, 1e-2, 1e-4])
def test_the_kl_of_a_step_is_the_term_of_the_discrete_loss(step):
    """½ (e^{γ_t−γ_s} − 1)(ε − ε̂)²: neither side loses its digits where the step is small."""
    gamma_s = np.float32(-2.0)
    gamma_t = np.float32(gamma_s + step)
    x, guess, z = np.float32(0.5), np.float32(0.45), np.float32(0.8)
    p, q = (kl.diffusion_posterior(v, z, gamma_s, gamma_t) for v in (x, guess))
    ratio = np.exp(-np.float64(gamma_t))  # ε − ε̂ = (α/σ)(x̂ − x)
    error = ratio * (np.float64(x) - guess) ** 2
    expected = 0.5 * np.expm1(np.float64(gamma_t) - gamma_s) * error
    # The means differ by less than their size: their rounding is what is left.
    np.testing.assert_allclose(kl.normal(*p, *q), expected, rtol=2e-7 / (0.05 * min(step, 0.5)) + 1e-5)
    np.testing.assert_allclose(kl.diffusion_loss(error, gamma_s, gamma_t, num_steps=1), expected, rtol=1e-6)


@pytest.mark.parametrize("gamma", [-10.0, -1.0, 0.0, 5.0, 13.3, 30.0])
def test_prior_term_in_double_precision(gamma):
    x, gamma = np.float32(0.8), np.float64(np.float32(gamma))
    value, slope = jax.value_and_grad(kl.diffusion_prior, argnums=1)(x, jnp.float32(gamma))
    alpha_squared = 1 / (1 + np.exp(gamma))  # σ² − 1 − log σ² by its series where σ² is near 1
    rest = -np.log1p(-alpha_squared) - alpha_squared
    if alpha_squared < 1e-2:
        rest = sum(alpha_squared**k / k for k in range(2, 9))
    np.testing.assert_allclose(value, 0.5 * (alpha_squared * np.float64(x) ** 2 + rest), rtol=5e-6)
    # ½ [(1 − σ²) x² + σ² − log σ² − 1], its derivative in γ by the chain rule through α²
    expected = 0.5 * (np.float64(x) ** 2 + alpha_squared / (1 - alpha_squared)) * -alpha_squared * (1 - alpha_squared)
    np.testing.assert_allclose(slope, expected, rtol=1e-5)


def test_continuous_time_is_the_limit_of_many_steps():
    slope = jnp.float32(7.0)
    gamma = lambda t, slope=slope: -3.0 + slope * t * t  # noqa: E731
    times, error = jnp.array([0.25, 0.75]), jnp.array([2.0, 3.0])
    found = kl.continuous_diffusion_loss(error, gamma, times)
    np.testing.assert_allclose(found, 0.5 * 14 * times * error, rtol=1e-6)
    many = 1000
    discrete = kl.diffusion_loss(error, gamma(times - 1 / many), gamma(times), num_steps=many)
    np.testing.assert_allclose(discrete, found, rtol=1e-2)
    learned = jax.grad(lambda s: jnp.sum(kl.continuous_diffusion_loss(error, lambda t: gamma(t, s), times)))(slope)
    np.testing.assert_allclose(learned, jnp.sum(times * error), rtol=1e-6)


def test_a_bound_of_many_terms_is_the_evidence_of_a_gaussian(x64):
    """With the exact denoiser for x ~ N(0, v), diffusion and prior terms integrate to KL and entropy by hand."""
    variance, gammas = 0.3, np.linspace(-6.0, 6.0, 40_001)
    noise_variance = 1 / (1 + np.exp(-gammas))
    # E (ε − ε̂)² of the posterior mean: SNR times the posterior variance of x.
    signal = (1 - noise_variance) / noise_variance
    error = signal / (1 / variance + signal)
    terms = kl.diffusion_loss(error[1:], gammas[:-1], gammas[1:], num_steps=1)
    first, last = gammas[0], gammas[-1]
    # d/dγ of the mutual information of x and z is −½ of that error: I(x; z_γ) = ½ log(1 + v e^{−γ}).
    information = 0.5 * np.log((1 + variance * np.exp(-first)) / (1 + variance * np.exp(-last)))
    np.testing.assert_allclose(np.sum(terms), information, rtol=1e-3)


def test_low_discrepancy_times_are_uniform_and_equally_spaced(key):
    batches = jax.jit(jax.vmap(lambda k: kl.low_discrepancy_times(k, 5)))(jax.random.split(key, 2000))
    assert jnp.all((batches >= 0) & (batches < 1))
    spacing = jnp.diff(jnp.sort(batches, axis=1), axis=1)
    np.testing.assert_allclose(spacing, 0.2, atol=1e-6)
    assert_same_distribution(batches, lambda x: np.clip(x, 0, 1))
    squares = np.mean(np.square(batches), axis=1)
    assert_mean(squares, 1 / 3, effect=0.01)
    expect_rejection(lambda: assert_mean(squares, 0.35))
    assert np.var(squares) < 0.25 * (4 / 45) / 5  # independent times would have 4/45 a draw
    with pytest.raises(ValueError, match="num: expected a positive number, got 0"):
        kl.low_discrepancy_times(key, 0)


def test_extremes_and_wrong_inputs():
    mean, log_scale = kl.diffusion_posterior(0.5, 0.4, -jnp.inf, 0.0)  # no noise at s: z_s is the data
    assert (mean, log_scale) == (0.5, -jnp.inf)
    assert jnp.isnan(kl.diffusion_posterior(0.5, 0.4, 1.0, 0.0)[1])
    assert kl.diffusion_loss(jnp.ones(3, jnp.bfloat16), -1.0, 0.0, num_steps=5).dtype == jnp.float32
    with pytest.raises(ValueError, match="num_steps: expected a positive number, got 0"):
        kl.diffusion_loss(1.0, 0.0, 1.0, num_steps=0)
    with pytest.raises(ValueError, match=r"x \(2,\), gamma_1 \(3,\)"):
        kl.diffusion_prior(jnp.zeros(2), jnp.zeros(3))
