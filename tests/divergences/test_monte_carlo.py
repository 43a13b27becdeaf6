"""estimate_kl and estimate_divergence: right on average, with errors that cover, gradients without bias, in blocks."""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as nd
import pytest
from scipy import integrate, stats
from statistical import assert_mean, expect_rejection
from tensorflow_probability.substrates import jax as tfp

import vi_kit as vk
import vi_kit.divergences as dv
from vi_kit import kl

tfd = tfp.distributions


def normal(loc, scale=1.0):
    return distrax.Normal(jnp.float32(loc), jnp.float32(scale))


def by_quadrature(p, q, low=-30.0, high=30.0):
    return integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), low, high, limit=400)[0]


def unlike_parts(t):
    return [
        tfd.Normal(t[0], t[1]),
        tfd.Laplace(t[0], t[1]),
        tfd.Bernoulli(logits=t[0]),
        tfd.Categorical(logits=jnp.stack([t[0], t[1], t[0] * t[1]])),
    ]


def heavier_parts(t):
    return [
        tfd.Gamma(2 + t[0], t[1]),
        tfd.Beta(1 + t[0], t[1]),
        tfd.Dirichlet(jnp.stack([1 + t[0], t[1], t[0] * t[1] + 1])),
        tfd.VonMises(t[0], t[1]),
        tfd.Weibull(1 + t[0], t[1]),
        tfd.InverseGamma(3 + t[0], t[1]),
        tfd.Geometric(logits=t[1]),
        tfd.MultivariateNormalDiag(t, 1 + t**2),
    ]


@pytest.mark.parametrize("parts", [unlike_parts, pytest.param(heavier_parts, marks=pytest.mark.slow)])
def test_joint_distributions_are_right_on_average_and_so_are_both_gradients(parts, key):
    p_at, q_at = jnp.array([0.3, 1.2]), jnp.array([0.5, 1.0])

    def exactly(a, b):
        return sum(vk.kl_divergence(p, q) for p, q in zip(parts(a), parts(b), strict=True))

    def value(a, b, k):
        p, q = (tfd.JointDistributionSequential(parts(t)) for t in (a, b))
        return vk.estimate_kl(k, p, q, num_samples=301, block_size=100).value

    exact = jax.value_and_grad(exactly, (0, 1))(p_at, q_at)
    keys = jax.random.split(key, 400)
    found = jax.jit(jax.vmap(jax.value_and_grad(value, (0, 1)), (None, None, 0)))(p_at, q_at, keys)
    assert_mean(found, exact, effect=0.2)
    expect_rejection(lambda: assert_mean(found, jax.tree.map(lambda x: 0.7 * x, exact)))


@pytest.mark.slow
def test_gradient_is_pathwise_only_where_draws_carry_one(key):
    """The same four parameters in a leaf of either kind: each kind of gradient has the same mean, other noise."""
    t = jnp.array([0.3, 1.2, 0.5, 1.0])
    exact = jax.grad(lambda t: vk.kl_divergence(normal(t[0], t[1]), normal(t[2], t[3])))(t)
    noise = {}
    for gradient in (None, kl.score):

        def value(t, k, gradient=gradient):
            p, q = distrax.Normal(t[0], t[1]), distrax.Normal(t[2], t[3])
            return vk.estimate_kl(k, p, q, num_samples=64, gradient=gradient).value

        found = jax.jit(jax.vmap(jax.grad(value), (None, 0)))(t, jax.random.split(jax.random.clone(key), 2000))
        assert_mean(found, exact, effect=0.05)
        noise[gradient] = np.std(np.asarray(found), axis=0)
    assert (noise[None][:2] < 0.8 * noise[kl.score][:2]).all()
    np.testing.assert_allclose(noise[None][2:], noise[kl.score][2:], rtol=1e-3)  # q's is the same
    none = jax.grad(
        lambda t: (
            vk.estimate_kl(jax.random.clone(key), normal(t, 1.0), normal(0.0), num_samples=64, gradient=kl.none).value
        )
    )
    assert float(none(0.3)) == 0


def test_a_mixture_has_unbiased_gradients_to_weights_components_and_q(key):
    def mixture(t):
        return distrax.MixtureSameFamily(distrax.Categorical(logits=t[:2]), distrax.Normal(t[2:4], jnp.exp(t[4:6])))

    t = jnp.array([0.2, 1.0, -1.0, 1.0, -0.6, -0.2, 0.3, 0.2])
    x = jnp.linspace(-9, 9, 4001)

    def exact(t):
        log_p, log_q = (
            mixture(t).log_prob(x),
            distrax.Normal(t[6], jnp.exp(t[7])).log_prob(x),
        )
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q)) * (x[1] - x[0])

    def value(t, k):
        return vk.estimate_kl(k, mixture(t), distrax.Normal(t[6], jnp.exp(t[7])), num_samples=320).value

    found = jax.jit(jax.vmap(jax.value_and_grad(value), (None, 0)))(t, jax.random.split(jax.random.clone(key), 1000))
    with jax.numpy_rank_promotion("allow"):  # distrax's density of a mixture needs it
        truth = jax.value_and_grad(exact)(t)
    assert_mean(found, truth, effect=0.05)
    # A pathwise gradient alone would be 0 for the weights.
    expect_rejection(lambda: assert_mean(found[1][:, :2], jnp.zeros(2)))


@pytest.mark.parametrize(
    ("loc", "scale"), [pytest.param(0.5, 1.0, id="near", marks=pytest.mark.slow), pytest.param(1.0, 2.0, id="broad q")]
)
def test_standard_errors_cover(key, loc, scale):
    """95 % of the intervals, within 5.5 standard deviations of that count; a broad q has q/p of infinite variance."""
    p, q = normal(0.0), normal(loc, scale)
    exact = float(vk.kl_divergence(p, q))
    many = jax.vmap(lambda k: vk.estimate_kl(k, p, q, num_samples=2000))(jax.random.split(jax.random.clone(key), 1500))
    hits = np.abs(np.asarray(many.value) - exact) < 1.96 * np.asarray(many.standard_error)
    slack = 5.5 * np.sqrt(0.05 * 0.95 / 1500)
    assert abs(hits.mean() - 0.95) < slack
    assert abs((np.abs(many.value - exact) < 1.96 * 0.7 * many.standard_error).mean() - 0.95) > slack
    assert_mean(many.value, exact, effect=0.02)


def test_nearly_equal_pairs_keep_their_digits_and_equal_ones_give_0(key):
    near = vk.estimate_kl(jax.random.clone(key), normal(0.0), normal(1e-3), num_samples=2000)
    np.testing.assert_allclose(near.value, 5e-7, rtol=0.1)
    assert near.standard_error < 2e-8  # log ratios alone: 2e-5
    gradient = jax.grad(
        lambda a, b: (
            vk.estimate_kl(
                jax.random.clone(key), distrax.Normal(a, 1.0), distrax.Normal(b, 1.0), num_samples=2000
            ).value
        ),
        (0, 1),
    )
    same = vk.estimate_kl(jax.random.clone(key), normal(0.0), normal(0.0), num_samples=2000)
    assert (float(same.value), float(same.standard_error), float(same.num_effective)) == (0, 0, 2000)
    assert gradient(0.0, 0.0) == (0, 0)


def test_no_control_variate_where_p_leaves_out_what_q_has(key):
    """E_p[q/p] < 1 there: a control variate would be off by what is missing."""
    cases = [
        (distrax.Uniform(0.0, 1.0), normal(0.5, 0.5), stats.uniform(), stats.norm(0.5, 0.5), (0, 1)),
        (tfd.Exponential(1.0), nd.Normal(1.0, 1.0), stats.expon(), stats.norm(1, 1), (0, 40)),
    ]
    for p, q, sp, sq, ends in cases:
        many = jax.vmap(lambda k, p=p, q=q: vk.estimate_kl(k, p, q, num_samples=500).value)(
            jax.random.split(jax.random.clone(key), 200)
        )
        assert_mean(many, by_quadrature(sp, sq, *ends), effect=0.05)
    # classes: known only from the values
    p, q = distrax.Categorical(probs=jnp.array([0.5, 0.5, 0.0])), distrax.Categorical(probs=jnp.array([0.3, 0.3, 0.4]))
    np.testing.assert_allclose(
        vk.estimate_kl(jax.random.clone(key), p, q, num_samples=500).value, np.log(5 / 3), rtol=1e-5
    )


@pytest.mark.parametrize(
    "q",
    [nd.Exponential(1.0), *(pytest.param(q, marks=pytest.mark.slow) for q in (tfd.Gamma(2.0, 1.0), nd.Beta(2.0, 2.0)))],
)
def test_infinities_are_reported(key, q):
    for loc, scale in ((0.0, 1.0), (50.0, 0.1)):  # of the second no draw is below 0
        found = vk.estimate_kl(jax.random.clone(key), normal(loc, scale), q, num_samples=100, block_size=10)
        assert found.value == np.inf
        assert found.standard_error == np.inf
    divergence = vk.estimate_divergence(
        key, normal(0.0), distrax.Uniform(-1.0, 1.0), dv.JensenShannon(), num_samples=4000
    )
    x = np.linspace(-12, 12, 48_001)
    p, u = stats.norm.pdf(x), 0.5 * (np.abs(x) < 1)
    m = 0.5 * (p + u)
    inside = np.abs(x) < 1
    exact = 0.5 * (np.sum(p * np.log(p / m)) + np.sum((u * np.log(0.5 / m))[inside])) * (x[1] - x[0])
    assert abs(divergence.value - exact) < 5 * divergence.standard_error + 1e-4


def test_batches_and_joint_events_broadcast(key):
    p = distrax.Normal(jnp.zeros(3), jnp.ones(3))
    q = distrax.Normal(jnp.array([[0.0], [1.0]]), jnp.ones((2, 1)))
    found = vk.estimate_kl(jax.random.clone(key), p, q, num_samples=4000)
    assert found.value.shape == found.standard_error.shape == found.num_effective.shape == (2, 3)
    np.testing.assert_allclose(found.value, vk.kl_divergence(p, q), atol=0.1)


@pytest.mark.slow
def test_independent_coordinates_of_different_libraries(key):
    p = distrax.Independent(distrax.Normal(jnp.zeros((2, 3)), 1.0), 1)
    found = vk.estimate_kl(key, p, nd.Normal(jnp.ones(3), 1.0).to_event(1), num_samples=4000)
    np.testing.assert_allclose(found.value, [1.5, 1.5], atol=0.2)


def test_one_program_serves_fresh_objects_and_other_parameters(key, compiles):
    def diagonal(loc):  # distrax keeps bound methods over its parameters in what does not change
        return distrax.MultivariateNormalDiag(jnp.full(2, loc), jnp.ones(2))

    def joint(loc):
        return tfd.JointDistributionSequential([tfd.Normal(loc, 1.0), lambda x: tfd.Normal(x, 1.0)])

    for make in (diagonal, joint):
        arguments = [(make(jnp.float32(a)), make(jnp.float32(b))) for a, b in ((0.0, 1.0), (2.0, 0.5))]
        first = vk.estimate_kl(jax.random.clone(key), *arguments[0], num_samples=200)
        before = compiles()
        second = vk.estimate_kl(jax.random.fold_in(jax.random.clone(key), 1), *arguments[1], num_samples=200)
        assert compiles() == before
        assert abs(float(second.value - first.value)) > 0.05  # and not the first parameters again


def test_memory_does_not_grow_with_the_number_of_draws():
    def needed(num):
        value = lambda t, k: vk.estimate_kl(k, distrax.Normal(t, 1.0), distrax.Normal(0.0, t), num_samples=num).value  # noqa: E731
        compiled = jax.jit(jax.grad(value)).lower(jnp.float32(1.0), jax.random.key(0)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = needed(10_000), needed(1_000_000)
    assert abs(many - few) < 0.1 * few


KINDS = [
    dv.Hellinger(),
    dv.JensenShannon(),
    dv.Renyi(0.5),
    dv.Alpha(1.5),
    dv.Jeffreys(),
    dv.TotalVariation(),
    dv.ChiSquare(),
]


@pytest.mark.parametrize("kind", [KINDS[1], *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS[2:5])])
def test_divergences_and_their_gradients_are_right_on_average(kind, key):
    x = jnp.linspace(-12, 12, 6001)

    def densities(t):
        return distrax.Normal(t[0], t[1]), distrax.Laplace(t[2], t[3])

    def exactly(t):
        log_p, log_q = (d.log_prob(x) for d in densities(t))
        return kind.outer(jnp.sum(jnp.exp(log_q) * kind.generator(log_p - log_q)) * (x[1] - x[0]))

    def value(t, k):
        return vk.estimate_divergence(k, *densities(t), kind, num_samples=2000).value

    t = jnp.array([0.2, 1.1, -0.1, 1.0])
    found = jax.jit(jax.vmap(jax.value_and_grad(value), (None, 0)))(t, jax.random.split(key, 200))
    exact = jax.value_and_grad(exactly)(t)
    if isinstance(kind, dv.Renyi):  # a function of a mean: biased by about 1 / num_samples
        np.testing.assert_allclose(np.mean(found[1], axis=0), exact[1], atol=0.02)
        return
    assert_mean(found, exact, effect=0.05)
    expect_rejection(lambda: assert_mean(found[0], 0.8 * exact[0]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_every_divergence_covers(key, kind):
    p, q = normal(0.2, 1.1), normal(0.0, 1.0)
    x = np.linspace(-12, 12, 20_001)
    log_p, log_q = stats.norm(0.2, 1.1).logpdf(x), stats.norm().logpdf(x)
    values = np.exp(log_q) * np.asarray(kind.generator(jnp.float32(log_p - log_q)), np.float64)
    exact = float(kind.outer(jnp.float32(values.sum() * (x[1] - x[0]))))
    many = jax.vmap(lambda k: vk.estimate_divergence(k, p, q, kind, num_samples=4000))(
        jax.random.split(jax.random.clone(key), 1000)
    )
    hits = np.abs(np.asarray(many.value) - exact) < 1.96 * np.asarray(many.standard_error)
    assert hits.mean() > 0.95 - 5.5 * np.sqrt(0.05 * 0.95 / 1000)


class Spike:
    """A distribution of no library."""

    batch_shape = event_shape = ()

    def __init__(self, loc):
        self.loc = loc

    def sample(self, key, sample_shape):
        return self.loc + jax.random.laplace(key, sample_shape)

    def log_prob(self, x):
        return -jnp.abs(x - self.loc) - jnp.log(2.0)


def test_any_object_with_draws_and_densities_will_do(key):
    def value(a, k):
        return vk.estimate_kl(k, Spike(a), normal(0.5), num_samples=2000).value

    found = jax.vmap(jax.value_and_grad(value), (None, 0))(jnp.float32(0.0), jax.random.split(key, 100))
    exact = by_quadrature(stats.laplace(), stats.norm(0.5))
    assert_mean(found, (exact, -0.5), effect=0.1)


REFUSED = [
    (
        lambda k: vk.estimate_kl(jax.random.PRNGKey(0), normal(0.0), normal(1.0), num_samples=10),
        TypeError,
        "jax.random.key",
    ),
    (lambda k: vk.estimate_kl(k, normal(0.0), normal(1.0), num_samples=1), ValueError, "at least 2"),
    (lambda k: vk.estimate_kl(k, normal(0.0), 1.0, num_samples=10), TypeError, "expected a distribution, got float"),
    (lambda k: vk.estimate_kl(k, distrax.Normal, normal(1.0), num_samples=10), TypeError, "the class Normal"),
    (lambda k: vk.estimate_kl(k, dv.distributions.Normal(0.0, 1.0), normal(1.0), num_samples=10), TypeError, "sample"),
    (
        lambda k: vk.estimate_kl(k, normal(0.0), distrax.MultivariateNormalDiag(jnp.zeros(2)), num_samples=10),
        ValueError,
        r"expected events of shape \(\)",
    ),
    (
        lambda k: vk.estimate_kl(
            k, distrax.Bernoulli(0.5), distrax.Bernoulli(0.4), num_samples=9, gradient=kl.pathwise
        ),
        ValueError,
        "p is a distrax.Bernoulli.*kl.score",
    ),
    (
        lambda k: vk.estimate_kl(
            k,
            distrax.MixtureSameFamily(distrax.Categorical(logits=jnp.zeros(2)), distrax.Normal(jnp.zeros(2), 1.0)),
            normal(1.0),
            num_samples=9,
            gradient=kl.pathwise,
        ),
        ValueError,
        "choice of a component",
    ),
    (lambda k: vk.estimate_kl(k, normal(0.0), normal(1.0), num_samples=9, gradient="score"), TypeError, "kl.score"),
    (
        lambda k: vk.estimate_kl(k, tfd.GeneralizedPareto(jnp.zeros(2), 1.0, 0.1), normal(jnp.zeros(3)), num_samples=9),
        ValueError,
        r"broadcasts with \(2,\) of p, got \(3,\)",
    ),
    (
        lambda k: vk.estimate_kl(
            k,
            normal(0.0),
            normal(1.0),
            num_samples=9,
            draws=dv.Importance(distrax.MultivariateNormalDiag(jnp.zeros(2))),
        ),
        ValueError,
        r"draws.proposal: expected events of shape \(\)",
    ),
    (lambda k: vk.estimate_kl(k, normal(0.0), normal(1.0), num_samples=9, draws="qmc"), TypeError, "Antithetic"),
    (
        lambda k: vk.estimate_divergence(k, normal(0.0), normal(1.0), dv.Hellinger, num_samples=9),
        TypeError,
        "write Hell",
    ),
]


@pytest.mark.parametrize(("call", "error", "words"), REFUSED, ids=range(len(REFUSED)))
def test_refuses_in_one_sentence(key, call, error, words):
    with pytest.raises(error, match=words):
        call(key)


@pytest.mark.usefixtures("x64")
def test_double_precision(key):
    p, q = distrax.Normal(jnp.float64(0.0), 1.0), distrax.Normal(jnp.float64(1e-7), 1.0)
    found = vk.estimate_kl(jax.random.clone(key), p, q, num_samples=2000)
    assert found.value.dtype == jnp.float64
    np.testing.assert_allclose(found.value, 5e-15, rtol=0.1)


TV = vk.divergences.TotalVariation()
UNIFORM, NORMAL = distrax.Uniform(0.0, 1.5), distrax.Normal(0.3, 1.0)


def slope_of(function, at, step=1e-3):
    return (function(at + step) - function(at - step)) / (2 * step)


def assert_mean_and_see_a_tenth(samples, truth):
    assert_mean(samples, truth, effect=0.1 * abs(truth))
    expect_rejection(lambda: assert_mean(samples, 0.9 * truth))


def test_gradients_where_a_support_ends_inside_the_other(key):
    """Draws of the normal do not see the end of the exponential: its scores do."""

    def estimate(loc, key, gradient=None):
        p, q = tfd.Exponential(1.3), tfd.Normal(loc, 1.0)
        return vk.estimate_divergence(key, p, q, dv.Hellinger(), num_samples=4096, gradient=gradient).value

    def exact(loc):
        def overlap(x):
            return np.sqrt(stats.expon(scale=1 / 1.3).pdf(x) * stats.norm(loc).pdf(x))

        return 1 - integrate.quad(overlap, 0, 20)[0]

    keys = jax.random.split(key, 101)
    slopes = jax.vmap(jax.grad(estimate), (None, 0))(jnp.float32(0.2), keys[1:])
    assert_mean_and_see_a_tenth(slopes, slope_of(exact, 0.2))
    with pytest.raises(ValueError, match=r"kl\.pathwise would be biased"):
        estimate(0.2, keys[0], kl.pathwise)


def test_gradients_where_a_density_jumps_at_a_place_that_does_not_move(key):
    """A mixture of TensorFlow Probability goes on below 0, where its exponential component has ended."""

    def estimate(rate, key):
        components = [tfd.Exponential(rate), tfd.Normal(0.0, 1.0)]
        p = tfd.Mixture(tfd.Categorical(probs=jnp.array([0.4, 0.6])), components)
        return vk.estimate_kl(key, p, tfd.Normal(0.0, 2.0), num_samples=4096).value

    def exact(rate):
        def term(x):
            p = 0.4 * stats.expon(scale=1 / rate).pdf(x) + 0.6 * stats.norm.pdf(x)
            return p * (np.log(p) - stats.norm(0, 2).logpdf(x))

        return integrate.quad(term, -15, 0)[0] + integrate.quad(term, 0, 30, limit=200)[0]

    keys = jax.random.split(key, 100)
    values, slopes = jax.vmap(jax.value_and_grad(estimate), (None, 0))(jnp.float32(1.3), keys)
    assert_mean_and_see_a_tenth(values, exact(1.3))
    assert_mean_and_see_a_tenth(slopes, slope_of(exact, 1.3))


@pytest.mark.parametrize(
    "call",
    [
        lambda high, k: vk.estimate_divergence(k, distrax.Uniform(0.0, high), NORMAL, TV, num_samples=500),
        lambda high, k: vk.estimate_divergence(k, NORMAL, distrax.Uniform(0.0, high), TV, num_samples=500),
        lambda high, k: vk.estimate_kl(k, distrax.Uniform(0.0, high), NORMAL, num_samples=500, gradient=kl.score),
        lambda high, k: vk.estimate_kl(
            k, distrax.Uniform(0.0, high), NORMAL, num_samples=500, draws=vk.divergences.Importance(NORMAL)
        ),
    ],
    ids=["p", "q", "score", "importance"],
)
def test_a_gradient_by_what_moves_an_end_is_refused_where_draws_do_not_see_it(key, call):
    assert np.isfinite(call(1.5, key).value)
    with pytest.raises(ValueError, match="expected a density whose ends no parameter moves"):
        jax.grad(lambda high: call(high, jax.random.clone(key)).value)(1.5)


def test_ends_that_do_not_move_leave_the_other_gradients_alone(key):
    """Total variation of Uniform(0, 1.5) and Normal(loc, 1): the loc moves no end."""

    def estimate(loc, key):
        return vk.estimate_divergence(key, UNIFORM, distrax.Normal(loc, 1.0), TV, num_samples=4096).value

    slopes = jax.vmap(jax.grad(estimate), (None, 0))(jnp.float32(0.3), jax.random.split(key, 100))
    normal = stats.norm(0.3)  # below the uniform on all of its support: TV is what the normal has outside
    assert_mean_and_see_a_tenth(slopes, normal.pdf(1.5) - normal.pdf(0.0))


@pytest.mark.slow
def test_a_step_that_does_not_move_leaves_a_finite_gradient(key):
    """KL(Beta(c, 3) ‖ a step at ½) by c."""
    q = distrax.CategoricalUniform(low=0.0, high=1.0, logits=jnp.array([0.0, 2.0]))

    def estimate(concentration, key):
        return vk.estimate_kl(key, distrax.Beta(concentration, 3.0), q, num_samples=4096).value

    def exact(c):
        p = stats.beta(c, 3.0)
        return -p.entropy() - np.log(2) - 2 * p.sf(0.5) + np.log1p(np.exp(2.0))

    slopes = jax.vmap(jax.grad(estimate), (None, 0))(jnp.float32(1.5), jax.random.split(key, 100))
    assert_mean_and_see_a_tenth(slopes, slope_of(exact, 1.5))


# --- events that a distribution cannot make --------------------------------------------------------------------------
# The libraries give them a density all the same, NaN, or that of another class.


def half_and_half(exponential=1.0):
    weights = tfd.Categorical(probs=jnp.array([0.5, 0.5]))
    return tfd.Mixture(weights, [tfd.Exponential(exponential), tfd.Normal(0.0, 1.0)])


def joint(*parts):
    return tfd.JointDistributionSequential(list(parts))


def shifted(rate=1.0):
    return tfd.TransformedDistribution(tfd.Exponential(rate), tfp.bijectors.Shift(0.7))


BEYOND = {
    "joint of uniform and exponential": (lambda: joint(tfd.Uniform(-1.0, 1.0)), lambda: joint(tfd.Exponential(1.0))),
    "joint of distrax": (
        lambda: distrax.Joint([distrax.Uniform(-1.0, 1.0)]), lambda: distrax.Joint([distrax.Gamma(2.0, 1.0)])
    ),
    "shifted": (lambda: tfd.Normal(2.0, 1.0), shifted),
    "shifted, numpyro": (
        lambda: nd.Normal(2.0, 1.0),
        lambda: nd.TransformedDistribution(nd.Exponential(1.0), nd.transforms.AffineTransform(0.7, 0.9)),
    ),
    "more classes": (
        lambda: tfd.Categorical(probs=jnp.array([0.2, 0.2, 0.2, 0.4])),
        lambda: tfd.Categorical(probs=jnp.array([0.5, 0.3, 0.2])),
    ),
    "classes and a coin": (lambda: distrax.Categorical(probs=jnp.ones(3) / 3), lambda: distrax.Bernoulli(probs=0.5)),
    "whole numbers": (lambda: nd.DiscreteUniform(-2, 3), lambda: tfd.Geometric(probs=0.5)),
}  # fmt: skip


@pytest.mark.parametrize(("p", "q"), BEYOND.values(), ids=BEYOND)
def test_infinite_where_p_makes_what_q_cannot(p, q, key):
    assert vk.estimate_kl(key, p(), q(), num_samples=500).value == np.inf


def jensen_shannon_of(p, q, *ranges):
    def term(x):
        a, b = p(x), q(x)
        m = (a + b) / 2
        return sum(0.5 * v * np.log(v / m) for v in (a, b) if v > 0)

    return sum(integrate.quad(term, *r, limit=200)[0] for r in ranges)


JENSEN_SHANNON = {
    "joint": (
        lambda: joint(tfd.Exponential(1.0)), lambda: joint(tfd.Normal(0.0, 1.0)), None,
        lambda: jensen_shannon_of(stats.expon.pdf, stats.norm.pdf, (-9, 0), (0, 40)),
    ),
    "ends that only the library knows": (
        lambda: tfd.GeneralizedPareto(0.2, 1.0, 0.1), lambda: tfd.Normal(0.5, 1.0), None,
        lambda: jensen_shannon_of(stats.genpareto(0.1, 0.2).pdf, stats.norm(0.5).pdf, (-9, 0.2), (0.2, 60)),
    ),
    "coin and whole numbers": (
        lambda: tfd.Bernoulli(probs=0.5, dtype=jnp.float32), lambda: tfd.Poisson(1.0), None,
        lambda: sum(
            0.5 * v * np.log(2 * v / (a + b))
            for k in range(40) for a, b in [(0.5 * (k < 2), stats.poisson(1).pmf(k))] for v in (a, b) if v > 0
        ),
    ),
    "a proposal wider than both": (
        lambda: tfd.Exponential(1.0), lambda: tfd.Gamma(2.0, 1.0), lambda: tfd.Normal(1.0, 2.0),
        lambda: jensen_shannon_of(stats.expon.pdf, stats.gamma(2).pdf, (0, 40)),
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("p", "q", "proposal", "exact"), JENSEN_SHANNON.values(), ids=JENSEN_SHANNON)
def test_jensen_shannon_where_one_ends(p, q, proposal, exact, key):
    draws = None if proposal is None else dv.Importance(proposal())

    def one(k):
        return vk.estimate_divergence(k, p(), q(), dv.JensenShannon(), num_samples=1000, draws=draws).value

    found = jax.vmap(one)(jax.random.split(key, 200))
    assert_mean(found, exact(), effect=0.1 * exact())


def test_jensen_shannon_has_a_gradient_where_one_ends(key):
    def one(loc, k):
        p, q = tfd.Exponential(1.2), tfd.Normal(loc, 1.0)
        return vk.estimate_divergence(k, p, q, dv.JensenShannon(), num_samples=1000).value

    def exact(loc):
        return jensen_shannon_of(stats.expon(scale=1 / 1.2).pdf, stats.norm(loc).pdf, (-9, 0), (0, 40))

    slopes = jax.vmap(jax.grad(one), (None, 0))(jnp.float32(0.3), jax.random.split(key, 200))
    assert_mean_and_see_a_tenth(slopes, slope_of(exact, 0.3))


WRAPPED = {
    "joint": lambda: (joint(half_and_half()), joint(tfd.Normal(0.0, 2.0))),
    "joint, the other way": lambda: (joint(tfd.Normal(0.0, 2.0)), joint(half_and_half())),
    "sample": lambda: (tfd.Sample(tfd.Normal(0.0, 2.0), 1), tfd.Sample(half_and_half(), 1)),
    "shifted component": lambda: (
        tfd.Mixture(tfd.Categorical(probs=jnp.array([0.5, 0.5])), [shifted(), tfd.Normal(0.0, 1.0)]),
        tfd.Normal(0.0, 2.0),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRAPPED)
def test_mixtures_of_components_that_end_within_others(name, key):
    start = 0.7 if name == "shifted component" else 0.0
    mixture, wide = lambda x: 0.5 * stats.expon(start).pdf(x) + 0.5 * stats.norm.pdf(x), stats.norm(0, 2).pdf
    p, q = (mixture, wide) if name in ("joint", "shifted component") else (wide, mixture)
    exact = sum(
        integrate.quad(lambda x: p(x) * np.log(p(x) / q(x)), *r, limit=200)[0] for r in ((-12, start), (start, 30))
    )
    found = jax.vmap(lambda k: vk.estimate_kl(k, *WRAPPED[name](), num_samples=1000).value)(jax.random.split(key, 200))
    assert_mean(found, exact, effect=0.1)


def test_a_proposal_that_q_does_not_fit(key):
    """E[q/p] over draws of a narrow p cannot be had, nor where p underflows under the proposal."""
    p, q = tfd.Normal(2.0, 0.3), tfd.Normal(0.0, 1.0)
    draws = dv.Importance(tfd.StudentT(5.0, 0.0, 1.5))
    found = jax.vmap(lambda k: vk.estimate_kl(k, p, q, num_samples=2048, draws=draws).value)(jax.random.split(key, 400))
    assert_mean(found, vk.kl_divergence(p, q), effect=0.05)


def test_traced_parameters_that_jax_does_not_see_are_refused(key):
    def value(t):
        p = joint(tfd.Normal(0.0, 1.0), lambda x: tfd.Normal(x + t, 1.0))
        return vk.estimate_kl(key, p, joint(tfd.Normal(0.0, 1.0), tfd.Normal(0.0, 1.0)), num_samples=100).value

    class Shifted:
        batch_shape = event_shape = ()

        def __init__(self, loc):
            self.parameters = [loc]

        def sample(self, *, seed, sample_shape=()):
            return self.parameters[0] + jax.random.normal(seed, sample_shape)

        def log_prob(self, x):
            return jax.scipy.stats.norm.logpdf(x - self.parameters[0])

    def of_a_class(t):
        return vk.estimate_kl(jax.random.clone(key), Shifted(t), normal(0.0), num_samples=100).value

    assert np.isfinite(of_a_class(1.0))
    for function in (value, of_a_class):
        with pytest.raises(TypeError, match="every traced parameter in an array that JAX sees"):
            jax.grad(function)(1.0)


def test_standard_error_is_a_number_where_nothing_varies():
    """Between two coins the control variate takes all the noise; rounding is no negative variance."""
    p, q = tfd.Bernoulli(logits=0.5), tfd.Bernoulli(logits=-1.0)
    found = jax.vmap(lambda k: vk.estimate_kl(k, p, q, num_samples=4000))(jax.random.split(jax.random.key(3), 100))
    assert np.isfinite(found.standard_error).all()
    np.testing.assert_allclose(found.value, vk.kl_divergence(p, q), atol=1e-2)


def test_distrax_mixtures_of_two(key):
    mixture = distrax.MixtureOfTwo(0.3, normal(0.0), normal(1.0))
    found = vk.estimate_kl(key, mixture, normal(0.0), num_samples=4000)
    exact = vk.quadrature_kl(mixture, normal(0.0)).value
    assert abs(found.value - exact) < 6 * found.standard_error
