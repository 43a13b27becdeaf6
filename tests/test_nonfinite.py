"""Which term, coordinate or parameter is not finite."""

import jax
import jax.numpy as jnp
import optax
import pytest

import vi_kit as vk
from vi_kit._nonfinite import explain_steps

FAMILY = vk.families.MeanField(2)
START = FAMILY.init(jax.random.key(0))


def explain(target, params=START):
    algorithm = vk.algorithms.GradientDescent(vk.objectives.ReverseKL(FAMILY, num_samples=2), optax.adam)
    return explain_steps(jax.random.key(1), target, algorithm, params)


def nan_where(x, condition):
    return -0.5 * jnp.sum(x * x) + jnp.where(condition, jnp.nan, 0.0)


def test_the_term_is_named():
    words = explain(vk.make_target(lambda x: nan_where(x, x[0] > 0), 2))
    assert "log_density is not finite at" in words
    assert 10 < int(words.split(" at ")[1].split(" of ")[0]) < 54

    def prior(x):
        return jnp.sum(x) * jnp.inf

    words = explain(vk.make_target(lambda x: -0.5 * jnp.sum(x * x), 2, prior=prior))
    assert words.startswith("the log prior is not finite at 64 of 64 draws")
    words = explain(vk.make_target(lambda x: nan_where(x, x[0] > 0), 2, prior=lambda x: -jnp.sum(x * x)))
    assert words.startswith("the log likelihood is not finite")


def test_the_coordinate_of_a_gradient_is_named():
    def log_density(x):
        return -0.5 * x["a"] ** 2 - 0.5 * jnp.sum(x["b"] ** 2) - jnp.where(x["a"] > 9, jnp.sqrt(x["a"] - 9), 0.0)

    words = explain(vk.make_target(log_density, {"a": jnp.zeros(()), "b": jnp.zeros(1)}))
    assert words == "the gradient of log_density is not finite for a at 64 of 64 draws of q"


def test_parameters_are_named():
    target = vk.make_target(lambda x: -0.5 * jnp.sum(x * x), 2)
    assert explain(target, START._replace(mean=jnp.array([0.0, jnp.nan]))) == "the parameters mean are not finite"
    assert "it is the step itself" in explain(target)


@pytest.mark.parametrize("name", ["log_scale"])
def test_the_gradient_of_the_loss_is_named(name):
    target = vk.make_target(lambda x: -0.5 * jnp.sum(x * x), 2)

    class Objective:
        family = FAMILY

        def __call__(self, params, target, key, *, step=0):
            return jnp.sum(params.mean) + jnp.sum(jnp.sqrt(0 * getattr(params, name)))

    algorithm = vk.algorithms.GradientDescent(Objective(), optax.adam)
    words = explain_steps(jax.random.key(1), target, algorithm, START)
    assert words == f"the gradient of the loss is not finite for the parameters {name}"
