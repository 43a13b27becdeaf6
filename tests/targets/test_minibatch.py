"""minibatch: every row is as likely, only the likelihood is scaled, and what is reported is of all the data."""

import dataclasses
import itertools

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from statistical import assert_mean, expect_rejection

import vi_kit as vk
from vi_kit._rows import random_rows, rows_at
from vi_kit.targets import make_target, minibatch

ROWS = {"x": np.array([0.1, -0.7, 1.1, 2.0]), "y": np.array([0.3, -1.0, 2.0, 5.0])}
FAMILY = vk.families.MeanField(1)
PARAMS = FAMILY.init(jax.random.key(0), mean=np.array([0.4], np.float32), scale=np.array([0.5], np.float32))


def log_likelihood(x, data):
    return -0.5 * jnp.sum((data["y"] - x["slope"] * data["x"]) ** 2)


def prior():
    return {"slope": distrax.Normal(0.0, 2.0)}


def regression(data=ROWS, **changes):
    return make_target(log_likelihood, **{"like": {"slope": 0.0}, "data": data, "prior": prior(), **changes})


def exact_loss(params, *, kl_scale=1.0, likelihood_scale=1.0):
    """Return −ELBO of a normal q in closed form."""
    (mean,), (log_scale,) = params.mean, params.log_scale
    sd, x, y = jnp.exp(log_scale), jnp.asarray(ROWS["x"], jnp.float32), jnp.asarray(ROWS["y"], jnp.float32)
    kl = jnp.log(2.0) - log_scale + (sd**2 + mean**2) / 8.0 - 0.5
    return kl_scale * kl + likelihood_scale * 0.5 * jnp.sum((y - mean * x) ** 2 + (sd * x) ** 2)


class TestRows:
    @pytest.mark.parametrize(("length", "batch_size"), [(5, 2), (6, 3), (7, 7), (4, 1), (7, 3), (9, 8)])
    def test_every_row_is_as_likely(self, length, batch_size):
        """Over all offsets, which are equally likely, every row comes up batch_size times."""
        offsets = jnp.broadcast_to(jnp.arange(length)[:, None], (length, batch_size))
        rows = np.asarray(jax.vmap(lambda o: rows_at(o, length))(offsets))
        np.testing.assert_array_equal(np.bincount(rows.ravel(), minlength=length), batch_size)
        assert np.all(np.diff(rows.min(axis=0)) >= 0)
        assert np.all(rows.max(axis=0) <= -(-np.arange(1, batch_size + 1) * length // batch_size) - 1)

    def test_integers_do_not_overflow(self):
        length, batch_size = 2_000_003, 4_000  # their product is no int32
        for offset in (0, length - 1):
            rows = rows_at(jnp.full(batch_size, offset, jnp.int32), length)
            expected = [(k * length + offset) // batch_size for k in range(batch_size)]
            np.testing.assert_array_equal(rows, expected)

    def test_draws_are_uniform(self, key):
        rows = jax.vmap(lambda k: random_rows(k, 5, 2))(jax.random.split(key, 20_000))
        counts = jnp.sum(rows[:, :, None] == jnp.arange(5)[None, None, :], axis=1).astype(float)
        assert_mean(counts, np.full(5, 0.4), effect=0.03)
        expect_rejection(lambda: assert_mean(counts, np.array([0.5, 0.5, 0.0, 0.5, 0.5])))  # the middle row left out

    def test_variance_is_at_most_that_of_independent_rows(self):
        values, batch_size = np.array([3.0, -1.0, 0.5, 2.0, 0.1, 4.0, -2.0]), 3
        offsets = jnp.array(list(itertools.product(range(7), repeat=batch_size)))
        rows = np.asarray(jax.vmap(lambda o: rows_at(o, 7))(offsets))
        totals = values[rows].sum(axis=1)
        np.testing.assert_allclose(totals.mean(), batch_size * values.mean())
        assert totals.var() < batch_size * values.var()


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
def test_the_mean_over_all_minibatches_is_the_target_of_all_data(batch_size, monkeypatch, x64):
    """Value and gradient, by enumeration."""
    target = regression()
    z = jnp.array([0.7])

    def one(offsets):
        monkeypatch.setattr("vi_kit._target.random_rows", lambda key, length, size: rows_at(offsets, length))
        step = minibatch(target, batch_size).subsample(jax.random.key(0))
        assert step.data["x"].shape == (batch_size,)
        return jax.value_and_grad(step.log_density)(z)

    offsets = jnp.array(list(itertools.product(range(4), repeat=batch_size)))
    values, gradients = jax.vmap(one)(offsets)
    value, gradient = jax.value_and_grad(target.log_density)(z)
    np.testing.assert_allclose(np.mean(values), value, rtol=1e-12)
    np.testing.assert_allclose(np.mean(gradients, axis=0), gradient, rtol=1e-12)
    assert (np.std(values) > 0.1) == (batch_size < 4)


@pytest.mark.parametrize("kl_term", [vk.objectives.monte_carlo_kl, vk.objectives.closed_form_kl])
def test_loss_and_gradient_are_unbiased(kl_term, key):
    objective = vk.objectives.ReverseKL(FAMILY, vk.estimators.pathwise, num_samples=4, kl_term=kl_term)
    evaluate = jax.jit(jax.vmap(jax.value_and_grad(objective), (None, None, 0)))
    values, gradients = evaluate(PARAMS, minibatch(regression(), 2), jax.random.split(key, 40_000))
    value, gradient = jax.value_and_grad(exact_loss)(PARAMS)
    assert_mean(values, value, effect=0.5)
    assert_mean(gradients, gradient, effect=0.7)
    for wrong in ({"likelihood_scale": 0.5}, {"kl_scale": 2.0}):  # nothing scaled, or the prior too
        expect_rejection(lambda wrong=wrong: assert_mean(gradients, jax.grad(exact_loss)(PARAMS, **wrong)))


def test_a_minibatch_of_all_rows_is_all_the_data(key):
    target = regression()
    objective = vk.objectives.ReverseKL(FAMILY)
    own_key, _ = jax.random.split(jax.random.clone(key))
    np.testing.assert_allclose(
        objective(PARAMS, minibatch(target, 4), key), objective(PARAMS, target, own_key), rtol=1e-6
    )


def test_what_is_reported_is_of_all_the_data(key):
    target = regression()
    batched = minibatch(target, 1)
    z = jnp.array([0.3])
    assert batched.log_density(z) == target.log_density(z)
    report, expected = (
        vk.diagnose(jax.random.clone(key), t, FAMILY, PARAMS, num_samples=200) for t in (batched, target)
    )
    assert (report.elbo, report.khat) == (expected.elbo, expected.khat)


def test_a_scale_of_the_likelihood_stays_and_the_prior_is_not_scaled(key):
    target = dataclasses.replace(regression(), likelihood_scale=3.0)
    z = jnp.array([0.3])
    expected = stats.norm.logpdf(0.3, 0, 2) - 1.5 * np.sum((ROWS["y"] - 0.3 * ROWS["x"]) ** 2)
    np.testing.assert_allclose(target.log_density(z), expected, rtol=1e-6)
    np.testing.assert_allclose(minibatch(target, 4).subsample(key).log_density(z), expected, rtol=1e-6)


def test_evaluations_are_of_all_the_data_rounded_up():
    objective = vk.objectives.ReverseKL(FAMILY, num_samples=10)
    assert [objective.evaluations(minibatch(regression(), size)) for size in (1, 2, 3, 4)] == [3, 5, 8, 10]
    assert objective.evaluations(regression()) == 10
    assert objective.describe(minibatch(regression(), 2)).endswith(", minibatches of 2 rows")


def test_stochastic_steps_find_the_posterior(key):
    """Conjugate: posterior precision 1/4 + Σx², mean Σxy over it."""
    algorithm = vk.algorithms.IterateAveraging(
        vk.algorithms.GradientDescent(vk.objectives.ReverseKL(FAMILY), optax.adam, learning_rate=0.01)
    )
    fit = vk.optimize(key, minibatch(regression(), 2), algorithm, PARAMS, num_steps=4_000)
    q = FAMILY.dist(fit.params)
    precision = 0.25 + np.sum(ROWS["x"] ** 2)
    np.testing.assert_allclose(q.mean()[0], np.sum(ROWS["x"] * ROWS["y"]) / precision, atol=0.05)
    np.testing.assert_allclose(q.std()[0], precision**-0.5, rtol=0.1)


def test_other_data_compile_nothing(compiles, key):
    algorithm = vk.algorithms.GradientDescent(vk.objectives.ReverseKL(FAMILY), optax.adam, learning_rate=0.01)
    other = {"x": ROWS["y"], "y": ROWS["x"]}
    targets = [minibatch(regression(), 2), minibatch(regression(other), 2)]
    targets.append(dataclasses.replace(targets[0], data=targets[1].data))
    fits = []
    for target in targets:
        before = compiles()
        fits.append(vk.optimize(jax.random.clone(key), target, algorithm, PARAMS, num_steps=3))
    assert compiles() == before
    np.testing.assert_array_equal(fits[1].params.mean, fits[2].params.mean)


class TestRefusals:
    @pytest.mark.parametrize(
        ("build", "error", "message"),
        [
            (lambda: minibatch("target", 2), TypeError, "target: expected a Target"),
            (lambda: minibatch(regression(), 0), ValueError, "batch_size: expected at least 1, got 0"),
            (
                lambda: minibatch(regression(), 5),
                ValueError,
                "batch_size: expected at most the number of rows, 4, got 5",
            ),
            (lambda: minibatch(regression(prior=None), 2), ValueError, "made with prior=, since only the likelihood"),
            (
                lambda: minibatch(regression({**ROWS, "noise": 1.0}), 2),
                ValueError,
                r"one leading axis of rows in all arrays, got data\['noise'\] \[\], data\['x'\] \[4\]",
            ),
            (lambda: minibatch(regression({**ROWS, "group": np.zeros(3)}), 2), ValueError, r"data\['group'\] \[3\]"),
            (
                lambda: minibatch(make_target(lambda x: x["slope"], {"slope": 0.0}, prior=prior()), 1),
                ValueError,
                "got no data",
            ),
        ],
    )
    def test_targets_without_rows_or_prior(self, build, error, message):
        with pytest.raises(error, match=message):
            build()

    @pytest.mark.parametrize(
        "algorithm",
        [
            vk.algorithms.FixedDraws(FAMILY),
            vk.algorithms.NaturalGradient(FAMILY),
            vk.algorithms.GradientDescent(vk.objectives.ForwardKL(FAMILY), optax.adam),
            vk.algorithms.GradientDescent(vk.objectives.ImportanceWeighted(FAMILY), optax.adam),
            vk.algorithms.IterateAveraging(vk.algorithms.NaturalGradient(FAMILY)),
        ],
        ids=lambda algorithm: type(algorithm).__name__,
    )
    def test_algorithms_that_minibatches_would_lead_astray(self, algorithm, key):
        with pytest.raises(ValueError, match=r"minibatches are for algorithms that follow the gradient of .*ReverseKL"):
            vk.optimize(key, minibatch(regression(), 2), algorithm, PARAMS, num_steps=1)
