"""The KL-regularized policy: it is the maximum it claims to be, and the duals hold the KL where they should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special
from statistical import assert_mean, expect_rejection

import vi_kit.kl as kl

policy_of = jax.jit(kl.regularized_policy, static_argnames="axis")
value_of = jax.jit(kl.regularized_value, static_argnames="axis")
value_gradients = jax.jit(jax.grad(lambda r, a, t: jnp.sum(kl.regularized_value(r, a, t)), argnums=(0, 1, 2)))
dual = jax.jit(kl.temperature_dual, static_argnames="axis")


def problem(seed=0, rows=4, actions=6, spread=2.0):
    rng = np.random.default_rng(seed)
    return (spread * rng.normal(size=(rows, actions))).astype(np.float32), rng.normal(size=(rows, actions)).astype(
        np.float32
    )


def exact(reference_logits, advantages, temperature):
    """log π, value and KL(π‖ρ) in double precision on the same float32 inputs."""
    log_reference = special.log_softmax(np.float64(reference_logits), axis=-1)
    largest = np.float64(advantages).max(-1, keepdims=True)
    tilt = (np.float64(advantages) - largest) / temperature
    mean = np.sum(np.exp(log_reference) * np.expm1(tilt), axis=-1, keepdims=True)
    log_mean = np.where(mean > -0.5, np.log1p(mean), special.logsumexp(log_reference + tilt, axis=-1, keepdims=True))
    gap = tilt - log_mean
    policy = np.exp(log_reference + gap)
    near = np.where(np.abs(gap) < 1e-3, gap, 0)
    series = near**2 / 2 - near**3 / 6 + near**4 / 24
    # Σ π φ(gap) with φ(d) = exp(−d) − 1 + d is KL too, as both sum to one.
    terms = np.where(np.abs(gap) < 1e-3, policy * series, np.exp(log_reference) - policy + policy * gap)
    divergence = np.sum(terms, axis=-1)
    return log_reference + gap, (largest + temperature * log_mean)[..., 0], divergence


@jax.jit
def objective(logits, reference_logits, advantages, temperature):
    returns = jnp.sum(jax.nn.softmax(logits) * advantages, axis=-1)
    return returns - temperature * kl.categorical(logits, reference_logits)


TEMPERATURES = [1e-30, 1e-4, 1e-2, 0.3, 1.0, 10.0, 1e3, 1e6, 1e20]


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_policy_value_and_gradients_at_every_temperature(temperature):
    """optax- or rlax-style temperature · logsumexp(A/temperature) − log n loses the value and its gradient far out."""
    reference, advantages = problem()
    log_policy, value, divergence = exact(reference, advantages, temperature)
    np.testing.assert_allclose(jnp.exp(policy_of(reference, advantages, temperature)), np.exp(log_policy), atol=1e-6)
    np.testing.assert_allclose(value_of(reference, advantages, temperature), value, rtol=1e-6, atol=1e-6)
    inputs = [jnp.asarray(x) for x in (reference, advantages, np.full(4, temperature, np.float32))]
    gradients = value_gradients(*inputs)
    pi, rho = np.exp(log_policy), special.softmax(np.float64(reference), axis=-1)
    np.testing.assert_allclose(gradients[1], pi, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradients[2], -divergence, rtol=1e-5, atol=1e-37)
    if temperature < 1e3:  # beyond, π − ρ needs more digits than the reference has in double precision
        np.testing.assert_allclose(gradients[0], temperature * (pi - rho), rtol=1e-5, atol=1e-6)
    assert jnp.isfinite(gradients[0]).all()


def test_the_naive_value_would_fail_that():
    """Negative control."""
    reference, advantages = problem()
    naive = 1e6 * special.logsumexp(jax.nn.log_softmax(reference) + advantages / np.float32(1e6), axis=-1)
    assert np.abs(naive - exact(reference, advantages, 1e6)[1]).max() > 1e-2


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_it_is_the_maximum(x64, temperature):
    reference, advantages = (jnp.asarray(x, jnp.float64) for x in problem(1))
    log_policy = policy_of(reference, advantages, temperature)
    best = objective(log_policy, reference, advantages, temperature)
    np.testing.assert_allclose(best, value_of(reference, advantages, temperature), rtol=1e-12)
    np.testing.assert_allclose(jnp.sum(jnp.exp(log_policy), axis=-1), 1.0, rtol=1e-14)
    slope = jax.grad(lambda x: jnp.sum(objective(x, reference, advantages, temperature)))(log_policy)
    np.testing.assert_allclose(slope, 0.0, atol=1e-12)
    noise = jax.random.normal(jax.random.key(0), (50, *log_policy.shape))
    others = jax.nn.log_softmax(jnp.concatenate([noise, log_policy[None] + 0.1 * noise]))
    values = jax.vmap(lambda x: objective(x, reference, advantages, temperature))(others)
    assert jnp.all(values < best[None])


def test_a_constant_changes_nothing_but_the_value():
    reference, advantages = problem()
    shifted = policy_of(reference + np.float32(4), advantages + np.float32(16), 0.5)
    np.testing.assert_allclose(shifted, policy_of(reference, advantages, 0.5), atol=2e-5)
    difference = value_of(reference, advantages + np.float32(16), 0.5) - value_of(reference, advantages, 0.5)
    np.testing.assert_allclose(difference, 16.0, rtol=1e-5)


def both(reference, advantages, temperature, **keywords):
    return policy_of(reference, advantages, temperature, **keywords), value_of(
        reference, advantages, temperature, **keywords
    )


@jax.jit
def gradients_of(inputs, keywords):
    def total(inputs):
        log_policy, value = both(*inputs, **keywords)
        return jnp.sum(jnp.where(jnp.isfinite(log_policy), log_policy, 0.0)) + jnp.sum(value)

    return jax.grad(total)(inputs)


def finite_gradients(reference, advantages, temperature, **keywords):
    gradients = gradients_of((jnp.asarray(reference), jnp.asarray(advantages), jnp.asarray(temperature)), keywords)
    assert all(bool(jnp.isfinite(g).all()) for g in gradients), gradients
    return gradients


def test_absent_actions():
    """−∞ in the reference, −∞ advantages and `where` all mean: as if the action were not there."""
    reference, advantages = problem()
    keep = np.array([True, False, True, True, False, True])
    policy, value = both(reference[:, keep], advantages[:, keep], 0.5)
    absent = reference.copy()
    absent[:, ~keep] = -np.inf
    anything = advantages.copy()
    anything[:, ~keep] = [np.nan, np.inf]
    temperature = jnp.full(4, 0.5)
    for arguments, keywords in (
        ((absent, advantages), {}),
        ((absent, anything), {}),
        ((reference, anything), {"where": keep}),
    ):
        masked_policy, masked_value = both(*arguments, temperature, **keywords)
        np.testing.assert_allclose(masked_policy[:, keep], policy, rtol=1e-5, atol=1e-6)
        assert (masked_policy[:, ~keep] == -jnp.inf).all()
        np.testing.assert_allclose(masked_value, value, rtol=1e-6)
        gradients = finite_gradients(*arguments, temperature, **keywords)
        assert all((g[:, ~keep] == 0).all() for g in gradients[:2])


def test_forbidden_actions_keep_their_share_of_the_reference():
    """An advantage of −∞ is a limit: the reference is not normalized again without the action."""
    reference, advantages = problem()
    forbidden, nearly = advantages.copy(), advantages.copy()
    forbidden[:, 2], nearly[:, 2] = -np.inf, -1e6
    for temperature in (0.5, 50.0):
        for a, b in zip(both(reference, forbidden, temperature), both(reference, nearly, temperature), strict=True):
            np.testing.assert_allclose(np.maximum(a, -1e3), np.maximum(b, -1e3), rtol=1e-6)
    finite_gradients(reference, forbidden, jnp.float32(0.5))


def test_rows_without_a_choice():
    reference, advantages = problem()
    reference[0], advantages[1] = -np.inf, -np.inf
    policy, value = both(reference, advantages, 0.5)
    assert (policy[:2] == -jnp.inf).all()
    assert value[0] == 0  # a row without actions gives 0, as in every function here
    assert value[1] == -jnp.inf  # one whose actions are all worthless does not


def test_masked_rows_may_hold_nan():
    reference, advantages = problem()
    reference[1], advantages[2] = np.nan, np.inf
    temperature = jnp.array([0.5, 0.5, jnp.nan, 0.5])
    mask = np.array([True, False, False, True])
    policy, value = both(reference, advantages, temperature, mask=mask)
    np.testing.assert_array_equal(policy[1:3], 0.0)
    np.testing.assert_array_equal(value[1:3], 0.0)
    np.testing.assert_array_equal(value[mask], value_of(reference[mask], advantages[mask], 0.5))
    gradients = finite_gradients(reference, advantages, temperature, mask=mask)
    assert all((g[1:3] == 0).all() for g in gradients)


def test_nan_and_infinite_advantages_are_seen():
    for broken in (np.nan, np.inf):
        reference, advantages = problem()
        advantages[1, 3] = broken
        policy, value = both(reference, advantages, 0.5)
        assert jnp.isnan(policy[1]).all()
        assert jnp.isnan(value[1])
        assert jnp.isfinite(policy[np.array([0, 2, 3])]).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision(dtype):
    reference, advantages = (jnp.asarray(x, dtype) for x in problem())
    wide = [x.astype(jnp.float32) for x in (reference, advantages)]
    for a, b in zip(both(reference, advantages, 0.5), both(*wide, 0.5), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_array_equal(a, b)
    assert finite_gradients(reference, advantages, jnp.float32(0.5))[1].dtype == dtype


def test_axes_broadcasting_jit_and_vmap():
    reference, advantages = problem(actions=6)
    policy, value = both(reference, advantages, 0.5)
    np.testing.assert_allclose(policy_of(reference.T, advantages.T, 0.5, axis=0).T, policy, rtol=1e-6)
    cube = [x.reshape(4, 2, 3) for x in (reference, advantages)]
    np.testing.assert_allclose(value_of(*cube, 0.5, axis=(1, 2)), value, rtol=1e-6)
    one_reference = value_of(reference[0], advantages, 0.5)
    np.testing.assert_allclose(one_reference[0], value[0], rtol=1e-6)
    mapped = jax.jit(jax.vmap(kl.regularized_value))(reference, advantages, jnp.full(4, 0.5))
    np.testing.assert_allclose(mapped, value, rtol=1e-6)
    assert value_of(jnp.zeros((0, 3)), jnp.zeros((0, 3)), 1.0).shape == (0,)
    np.testing.assert_array_equal(policy_of(jnp.zeros((2, 1)), jnp.ones((2, 1)), 1.0), 0.0)


def test_second_derivatives(x64):
    """The Hessian of the value in the advantages is the covariance (diag π − ππᵀ)/β; the value is convex."""
    reference, advantages = (jnp.asarray(x[0], jnp.float64) for x in problem())
    hessian = jax.jit(jax.hessian(lambda a: value_of(reference, a, 0.5)))(advantages)
    pi = np.exp(exact(reference, advantages, 0.5)[0])
    np.testing.assert_allclose(hessian, (np.diag(pi) - np.outer(pi, pi)) / 0.5, atol=1e-12)
    curvature = jax.grad(jax.grad(lambda t: value_of(reference, advantages, t)))(0.5)
    spread = np.sum(pi * np.square(advantages - np.sum(pi * advantages)))
    np.testing.assert_allclose(curvature, spread / 0.5**3, rtol=1e-10)


@pytest.mark.parametrize("max_kl", [1e-6, 1e-3, 0.1, 1.0])
def test_the_dual_holds_the_kl(max_kl):
    """At the minimum of the mean dual the mean KL of the E-step's policies is ε; the root is found by scipy."""
    reference, q_values = (jnp.asarray(x) for x in problem(3, rows=8, spread=1.0))
    slope = jax.jit(jax.grad(lambda t: jnp.mean(dual(q_values, t, max_kl, reference_logits=reference))))
    log_temperature = optimize.brentq(lambda x: float(slope(jnp.exp(jnp.float32(x)))), -12.0, 12.0, xtol=1e-6)
    policy = policy_of(reference, q_values, float(np.exp(log_temperature)))
    _, _, divergence = exact(reference, q_values, np.exp(log_temperature))
    np.testing.assert_allclose(divergence.mean(), max_kl, rtol=1e-4)
    np.testing.assert_allclose(jnp.mean(kl.categorical(policy, reference)), max_kl, rtol=1e-3)


@pytest.mark.parametrize("temperature", [1e-6, 1e-2, 1.0, 1e3, 1e6])
def test_the_dual_is_its_formula(temperature):
    """rlax: η ε + η log mean exp(Q/η), over draws, in float64."""
    _, q_values = problem(4)
    value = dual(q_values, temperature, 0.1)
    expected = exact(np.zeros_like(q_values), q_values, temperature)[1] + temperature * 0.1
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    weights = jnp.exp(policy_of(jnp.zeros_like(q_values), q_values, temperature))
    np.testing.assert_allclose(weights, special.softmax(np.float64(q_values) / temperature, axis=-1), atol=1e-6)


def test_the_dual_bounds_every_policy_in_the_region(x64):
    """Weak duality: E_π[Q] ≤ g(η) for every η and every π within ε, with equality at the best of both."""
    reference, q_values = (jnp.asarray(x[0], jnp.float64) for x in problem(5))
    temperatures = jnp.logspace(-3, 3, 2001)
    duals = jax.vmap(lambda t: dual(q_values, t, 0.2, reference_logits=reference))(temperatures)
    policies = jax.vmap(lambda t: policy_of(reference, q_values, t))(temperatures)
    inside = kl.categorical(policies, reference) <= 0.2
    returns = jnp.exp(policies) @ q_values
    best = jnp.max(jnp.where(inside, returns, -jnp.inf))
    assert best <= jnp.min(duals)
    np.testing.assert_allclose(best, jnp.min(duals), rtol=1e-2)


def test_draws_stand_for_the_policy(key):
    """From many draws of the reference the dual is near that of all actions, and too low on average as documented."""
    reference, q_values = (jnp.asarray(x[0]) for x in problem(6, spread=1.0))
    temperature, count = 0.7, 16
    actions = jax.random.categorical(key, reference, shape=(10_000, count))
    sampled = dual(q_values[actions], temperature, 0.1)
    whole = dual(q_values, temperature, 0.1, reference_logits=reference)
    rho, tilted = special.softmax(np.float64(reference)), np.exp(np.float64(q_values) / temperature)
    mean = np.sum(rho * tilted)
    bias = -temperature * np.sum(rho * (tilted - mean) ** 2) / (2 * count * mean**2)
    assert_mean(sampled, float(whole) + bias, effect=abs(bias) / 2)
    expect_rejection(lambda: assert_mean(sampled, float(whole)))


def test_the_dual_takes_rows_of_its_own():
    reference, q_values = problem()
    temperature, max_kl = jnp.array([0.1, 1.0, 10.0, jnp.nan]), jnp.array([0.1, 0.2, 0.3, -1.0])
    mask = jnp.array([True, True, True, False])
    together = jax.jit(kl.temperature_dual)(q_values, temperature, max_kl, reference_logits=reference, mask=mask)
    for i in range(3):
        alone = dual(q_values[i], float(temperature[i]), float(max_kl[i]), reference_logits=reference[i])
        np.testing.assert_allclose(together[i], alone, rtol=1e-6)
    assert together[3] == 0


def test_bad_input():
    zeros = jnp.zeros((2, 3))
    with pytest.raises(ValueError, match=r"temperature: expected a positive number, got 0"):
        kl.regularized_policy(zeros, zeros, 0)
    with pytest.raises(ValueError, match=r"temperature: expected shapes that broadcast, got temperature \(3,\)"):
        kl.regularized_value(zeros, zeros, jnp.ones(3))
    with pytest.raises(ValueError, match="advantages: expected 3 classes"):
        kl.regularized_policy(zeros, jnp.zeros((2, 4)), 1.0)
    with pytest.raises(TypeError, match="advantages: expected floating-point numbers"):
        kl.regularized_value(zeros, jnp.zeros((2, 3), int), 1.0)
    with pytest.raises(ValueError, match="max_kl: expected a positive number, got -1"):
        kl.temperature_dual(zeros, 1.0, -1.0)
    with pytest.raises(ValueError, match="at least one class"):
        kl.temperature_dual(jnp.zeros((2, 0)), 1.0, 0.1)
    with pytest.raises(TypeError, match="where: expected booleans"):
        kl.regularized_value(zeros, zeros, 1.0, where=zeros)
    assert jnp.isnan(jax.jit(kl.regularized_value)(zeros, zeros, -1.0)).all()
    assert jnp.isnan(jax.jit(kl.temperature_dual)(zeros, 1.0, -1.0)).all()
