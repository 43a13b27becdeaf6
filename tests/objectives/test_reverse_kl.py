"""Reverse KL: loss + log Z is KL(q‖p) in expectation, with either KL term, and its gradient is that KL's."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_problem import LOG_NORMALIZER, gaussian_kl, gaussian_target, reverse_kl, start
from registry import DIM, FAMILIES, GAUSSIANS
from statistical import assert_mean, expect_rejection

import vi_kit as vk

NUM = 20_000
PRIOR_MEAN, PRIOR_SD = np.array([0.5, -1.0]), np.array([2.0, 0.7])
Y, NOISE = np.array([1.2, -0.3]), 0.9


def conjugate_target(prior=None, support=None):
    """A normal likelihood with normal priors: the posterior and the evidence are known."""
    prior = prior or {"a": distrax.Normal(PRIOR_MEAN[0], PRIOR_SD[0]), "b": distrax.Normal(PRIOR_MEAN[1], PRIOR_SD[1])}

    def log_likelihood(x, y):
        residual = (y - jnp.stack([x["a"], x["b"]])) / NOISE
        return -0.5 * residual @ residual - DIM * np.log(NOISE * np.sqrt(2 * np.pi))

    return vk.make_target(log_likelihood, {"a": 0.0, "b": 0.0}, data=Y, prior=prior, support=support)


def exact_loss(family, params):
    """KL(q‖posterior) − log evidence, by conjugacy."""
    q = family.dist(params)
    precision = 1 / PRIOR_SD**2 + 1 / NOISE**2
    mean = (PRIOR_MEAN / PRIOR_SD**2 + Y / NOISE**2) / precision
    marginal = PRIOR_SD**2 + NOISE**2
    log_evidence = np.sum(-0.5 * (Y - PRIOR_MEAN) ** 2 / marginal - 0.5 * np.log(2 * np.pi * marginal))
    return gaussian_kl(q.mean(), q.covariance(), jnp.asarray(mean), jnp.diag(1 / jnp.asarray(precision))) - log_evidence


def draws_of(objective, params, target, key, num=NUM):
    evaluate = jax.vmap(jax.value_and_grad(objective), (None, None, 0))
    return jax.jit(evaluate)(params, target, jax.random.split(key, num))


@pytest.mark.parametrize("name", GAUSSIANS)
def test_loss_plus_log_normalizer_is_the_kl(name, key):
    family = FAMILIES[name].family
    params = start(family)
    values, gradients = draws_of(vk.objectives.ReverseKL(family, num_samples=4), params, gaussian_target(), key, 5_000)
    exact, exact_gradient = jax.value_and_grad(lambda p: reverse_kl(family, p))(params)
    assert_mean(values + LOG_NORMALIZER, exact, effect=0.2)
    assert_mean(gradients, exact_gradient, effect=0.3)
    expect_rejection(lambda: assert_mean(values, exact))


@pytest.mark.parametrize(
    "kl_term", [vk.objectives.monte_carlo_kl, vk.objectives.closed_form_kl], ids=lambda f: f.__name__
)
def test_both_kl_terms_are_the_same_in_expectation(kl_term, key):
    family = vk.families.FullRank(DIM)
    params = start(family)
    values, gradients = draws_of(
        vk.objectives.ReverseKL(family, num_samples=1, kl_term=kl_term), params, conjugate_target(), key
    )
    exact, exact_gradient = jax.value_and_grad(lambda p: exact_loss(family, p))(params)
    assert_mean(values, exact, effect=0.25)
    assert_mean(gradients, exact_gradient, effect=0.3)
    expect_rejection(lambda: assert_mean(values, exact + 0.4))


def test_a_prior_as_a_function_gives_the_same_loss(key):
    """The Monte Carlo term needs only log probabilities."""
    family = vk.families.MeanField(DIM)
    objective = vk.objectives.ReverseKL(family)

    def log_prior(x):
        return distrax.Normal(PRIOR_MEAN[0], PRIOR_SD[0]).log_prob(x["a"]) + distrax.Normal(
            PRIOR_MEAN[1], PRIOR_SD[1]
        ).log_prob(x["b"])

    one = objective(start(family), conjugate_target(), jax.random.clone(key))
    np.testing.assert_allclose(objective(start(family), conjugate_target(log_prior), key), one, rtol=1e-5)


@pytest.mark.parametrize(
    "prior",
    [
        distrax.MultivariateNormalDiag(jnp.asarray(PRIOR_MEAN), jnp.asarray(PRIOR_SD)),
        distrax.Independent(distrax.Normal(jnp.asarray(PRIOR_MEAN), jnp.asarray(PRIOR_SD)), 1),
        distrax.Normal(jnp.asarray(PRIOR_MEAN), jnp.asarray(PRIOR_SD)),
        distrax.MultivariateNormalTri(jnp.asarray(PRIOR_MEAN), jnp.diag(jnp.asarray(PRIOR_SD))),
    ],
    ids=lambda prior: type(prior).__name__,
)
def test_closed_form_reads_every_normal_prior(prior, key):
    family = vk.families.FullRank(DIM)
    target = vk.make_target(lambda x: 0.0 * jnp.sum(x), DIM, prior=prior)
    objective = vk.objectives.ReverseKL(family, num_samples=1, kl_term=vk.objectives.closed_form_kl)
    q = family.dist(start(family))
    expected = gaussian_kl(q.mean(), q.covariance(), jnp.asarray(PRIOR_MEAN), jnp.diag(jnp.asarray(PRIOR_SD) ** 2))
    np.testing.assert_allclose(objective(start(family), target, key), expected, rtol=1e-5)


def test_closed_form_spreads_one_normal_over_a_variable(key):
    family = vk.families.MeanField(3)
    target = vk.make_target(
        lambda x: 0.0 * x["m"],
        {"m": 0.0, "v": jnp.zeros(2)},
        prior={"m": distrax.Normal(0.0, 1.0), "v": distrax.Normal(1.0, 2.0)},
    )
    objective = vk.objectives.ReverseKL(family, num_samples=1, kl_term=vk.objectives.closed_form_kl)
    expected = 2 * (np.log(2.0) + (1 + 1) / (2 * 4.0) - 0.5)
    np.testing.assert_allclose(objective(family.init(key), target, jax.random.key(0)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (lambda: gaussian_target(), ValueError, "closed_form_kl needs a target made with prior="),
        (
            lambda: conjugate_target(lambda x: 0.0 * x["a"]),
            ValueError,
            "closed_form_kl needs a target made with prior=",
        ),
        (
            lambda: conjugate_target({"a": distrax.Normal(0.0, 1.0), "b": distrax.Laplace(0.0, 1.0)}),
            NotImplementedError,
            r"because of b \(Laplace prior, Real support\); use kl_term=vk.objectives.monte_carlo_kl",
        ),
        (
            lambda: conjugate_target(support={"a": vk.support.positive}),
            NotImplementedError,
            r"because of a \(Normal prior, GreaterThan support\)",
        ),
    ],
)
def test_closed_form_says_which_variable_has_none(target, error, message, key):
    family = vk.families.MeanField(DIM)
    objective = vk.objectives.ReverseKL(family, kl_term=vk.objectives.closed_form_kl)
    with pytest.raises(error, match=message):
        objective(start(family), target(), key)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: vk.objectives.ReverseKL(3), TypeError, "family: expected one of vi_kit.families, got 3"),
        (
            lambda: vk.objectives.ReverseKL(vk.families.MeanField(2), num_samples=0),
            ValueError,
            "num_samples: expected at least 1",
        ),
        (
            lambda: vk.objectives.ReverseKL(vk.families.MeanField(2), num_samples=2.5),
            TypeError,
            "num_samples: expected an int",
        ),
        (
            lambda: vk.objectives.ReverseKL(vk.families.MeanField(2), "pathwise"),
            TypeError,
            "estimator: expected one of",
        ),
        (
            lambda: vk.objectives.ReverseKL(vk.families.MeanField(2), kl_term="mc"),
            TypeError,
            "kl_term: expected vk.objectives",
        ),
    ],
)
def test_arguments_are_checked(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_a_family_of_another_dimension_is_refused(key):
    family = vk.families.MeanField(3)
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(3,\)"):
        vk.objectives.ReverseKL(family)(family.init(key), gaussian_target(), jax.random.key(0))


def test_it_says_what_it_does_and_costs():
    objective = vk.objectives.ReverseKL(vk.families.MeanField(2), vk.estimators.pathwise, 7)
    assert objective.describe(gaussian_target()) == "reverse KL(q‖p), pathwise, 7 draws a step"
    assert objective.evaluations(gaussian_target()) == 7
