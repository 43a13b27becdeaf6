"""KL between counts and classes: mpmath, enumeration, and what is required at the edges."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy import special, stats

import vi_kit as vk
from vi_kit.divergences import distributions as d

INF = np.inf
mp.mp.dps = 220  # e⁻²⁰⁰ beside 1, differentiated


def both(function, *arguments, dtype=np.float32):
    """Value an entry and its gradients."""
    arrays = [jnp.asarray(a, dtype) for a in arguments]

    @jax.jit
    def run(*arrays):
        value, pull = jax.vjp(function, *arrays)
        return value, *pull(jnp.ones_like(value))

    return [np.asarray(x, np.float64) for x in run(*arrays)]


# --- against mpmath: concentrated, extreme and nearly equal -----------------------------------------------------------


def sigmoid(t):
    return 1 / (1 + mp.exp(-t))


def trial(p, q):
    return p * mp.log(p / q) + (1 - p) * mp.log((1 - p) / (1 - q))


CHANGES = [s * e for e in (1e-1, 1e-3, 1e-4, 1e-6) for s in (1, -1)]
PROBS = [1e-9, 1e-3, 0.25, 0.5, 0.73, 1 - 1e-6]
LOGITS = [-200.0, -20.0, 0.0, 0.3, 17.0, 200.0]
NEAR_PROBS = [(p, p + e * min(p, 1 - p)) for p in PROBS for e in CHANGES]
FAR_PROBS = [(p, q) for p in PROBS for q in PROBS if p != q]
NEAR_LOGITS = [(t, t + e * max(abs(t), 1)) for t in LOGITS for e in (0.9, 1.1, *CHANGES)]
FAR_LOGITS = [(t, s) for t in LOGITS for s in LOGITS if t != s and abs(t) < 100]
MIXED = [(p, s) for p in PROBS for s in LOGITS]
MIXED += [(p, np.log(p / (1 - p)) + e) for p in PROBS[1:-1] for e in (0.1, -1e-2)]

PROBS_PAIRS, LOGITS_PAIRS = NEAR_PROBS + FAR_PROBS, NEAR_LOGITS + FAR_LOGITS
CLEAR = [(p, q) for p, q in PROBS_PAIRS if abs(q * (1 - p) / p - 1) > 1e-5]  # the gradient is 0 at q = p / (1 − p)
SWAPPED = [pair[::-1] for pair in MIXED]
RATES = [(1e3 * p, 1e3 * q) for p, q in NEAR_PROBS] + FAR_PROBS


def rate(p, q):
    return p * mp.log(p / q) - p + q


def bernoulli_rate(p, q):
    return p * mp.log(p / q) + (1 - p) * mp.log(1 - p) + q


def many(**given):
    count = jnp.full_like(next(iter(given.values())), 2.5)
    return d.NegativeBinomial(total_count=count, **given)


def probs(family):
    return lambda p: family(probs=p)


def logits(family):
    return lambda t: family(logits=t)


B, G = d.Bernoulli, d.Geometric
SLOW = pytest.mark.slow
CASES = [
    pytest.param(probs(B), probs(B), trial, PROBS_PAIRS, id="bernoulli"),
    pytest.param(logits(B), logits(B), lambda t, s: trial(sigmoid(t), sigmoid(s)), LOGITS_PAIRS, id="bernoulli_logits"),
    pytest.param(probs(B), logits(B), lambda p, s: trial(p, sigmoid(s)), MIXED, id="bernoulli_mixed"),
    pytest.param(logits(B), probs(B), lambda t, q: trial(sigmoid(t), q), SWAPPED, id="bernoulli_swapped", marks=SLOW),
    pytest.param(probs(G), probs(G), lambda p, q: trial(p, q) / p, PROBS_PAIRS, id="geometric"),
    pytest.param(
        logits(G), logits(G), lambda t, s: trial(sigmoid(t), sigmoid(s)) / sigmoid(t), LOGITS_PAIRS,
        id="geometric_logits", marks=SLOW,
    ),
    pytest.param(
        probs(G), logits(G), lambda p, s: trial(p, sigmoid(s)) / p, MIXED, id="geometric_mixed", marks=SLOW
    ),
    pytest.param(
        probs(many), probs(many), lambda p, q: 2.5 * trial(p, q) / (1 - p), PROBS_PAIRS, id="negative_binomial"
    ),
    pytest.param(
        logits(many), logits(many), lambda t, s: 2.5 * trial(sigmoid(t), sigmoid(s)) / sigmoid(-t), LOGITS_PAIRS,
        id="negative_binomial_logits",
    ),
    pytest.param(d.Poisson, d.Poisson, rate, RATES, id="poisson"),
    pytest.param(probs(B), d.Poisson, bernoulli_rate, CLEAR, id="bernoulli_poisson"),
    pytest.param(
        logits(B), d.Poisson, lambda t, q: bernoulli_rate(sigmoid(t), q),
        [(t, q) for q, t in MIXED if abs(t) < 20 and abs(q * np.exp(-t) - 1) > 1e-2],
        id="bernoulli_poisson_logits", marks=SLOW,
    ),
]  # fmt: skip


def assert_agrees(make_p, make_q, oracle, pairs, dtype):
    rounding = 2e3 if pairs in (MIXED, SWAPPED) else 2e2  # no digit in common where log odds meet probabilities
    pairs = np.array(pairs, dtype)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    found = both(lambda a, b: vk.kl_divergence(make_p(a), make_q(b)), *pairs.T, dtype=dtype)
    huge = np.finfo(dtype).max
    for i, pair in enumerate(pairs):
        x = [mp.mpf(float(v)) for v in pair]
        steps = [mp.mpf(10) ** -25 * max(abs(v), mp.mpf(10) ** -9) for v in x]
        exact = [oracle(*x)]
        exact.append((oracle(x[0] + steps[0], x[1]) - oracle(x[0] - steps[0], x[1])) / (2 * steps[0]))
        exact.append((oracle(x[0], x[1] + steps[1]) - oracle(x[0], x[1] - steps[1])) / (2 * steps[1]))
        for got, right in zip(found, exact, strict=True):
            right = float(right) if abs(right) < huge else INF * float(mp.sign(right))
            tolerance = rounding * float(np.finfo(dtype).eps)
            small = 1e-32 if dtype == np.float32 else 1e-45
            assert got[i] == pytest.approx(right, rel=tolerance, abs=small), (pair, got[i], right)
        assert found[0][i] >= 0


@pytest.mark.parametrize(("make_p", "make_q", "oracle", "pairs"), CASES)
def test_value_and_gradients(make_p, make_q, oracle, pairs):
    assert_agrees(make_p, make_q, oracle, pairs, np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(("make_p", "make_q", "oracle", "pairs"), CASES)
def test_value_and_gradients_in_double_precision(make_p, make_q, oracle, pairs, x64):
    assert_agrees(make_p, make_q, oracle, pairs, np.float64)


# --- against enumeration: the conventions -----------------------------------------------------------------------------


def enumerated(p, q):
    inside = p > 0
    return np.sum(p[inside] * np.log(p[inside] / q[inside]))


def test_conventions():
    """Binomial: successes of n; Geometric: failures before a success; NegativeBinomial: successes before failures."""
    k = np.arange(3000)
    n = np.arange(7)
    pairs = [
        (d.Binomial(6, probs=0.2), d.Binomial(6, probs=0.7), stats.binom.pmf(n, 6, 0.2), stats.binom.pmf(n, 6, 0.7)),
        (d.Geometric(probs=0.2), d.Geometric(probs=0.7), 0.2 * 0.8**k, np.exp(np.log(0.7) + k * np.log(0.3))),
        (
            d.NegativeBinomial(2.5, probs=0.2),
            d.NegativeBinomial(2.5, probs=0.7),
            stats.nbinom.pmf(k, 2.5, 0.8),
            np.exp(stats.nbinom.logpmf(k, 2.5, 0.3)),
        ),
        (d.Bernoulli(probs=0.2), d.Poisson(0.6), np.array([0.8, 0.2]), stats.poisson.pmf([0, 1], 0.6)),
        (d.Poisson(0.2), d.Poisson(0.7), stats.poisson.pmf(k[:60], 0.2), stats.poisson.pmf(k[:60], 0.7)),
        (d.DiscreteUniform(1, 4), d.DiscreteUniform(0, 9), np.full(4, 0.25), np.full(4, 0.1)),
    ]
    for p, q, p_mass, q_mass in pairs:
        with np.errstate(divide="ignore"):
            expected = enumerated(p_mass, np.maximum(q_mass, 1e-300))
        np.testing.assert_allclose(vk.kl_divergence(p, q), expected, rtol=1e-5, err_msg=type(p).__name__)
    p, q = np.array([0.2, 0.3, 0.5]), np.array([0.6, 0.3, 0.1])
    draws = [(i, j, 3 - i - j) for i in range(4) for j in range(4 - i)]
    masses = [np.array([stats.multinomial.pmf(x, 3, v) for x in draws]) for v in (p, q)]
    found = vk.kl_divergence(d.Multinomial(3, probs=jnp.asarray(p)), d.Multinomial(3, probs=jnp.asarray(q)))
    np.testing.assert_allclose(found, enumerated(*masses), rtol=1e-5)


# --- edges ------------------------------------------------------------------------------------------------------------

EDGES = [(0, 0), (0, 0.5), (0, 1), (1, 1), (1, 0.5), (1, 0), (0.5, 0), (0.5, 1), (0.3, 0.3)]


def test_bernoulli_at_the_edges():
    """Values are right, gradients ±inf in the direction that raises KL, one-sided where p has no mass, never NaN."""
    value, to_p, to_q = both(lambda p, q: vk.kl_divergence(B(probs=p), B(probs=q)), *np.transpose(EDGES))
    np.testing.assert_allclose(value, [0, np.log(2), INF, 0, np.log(2), INF, INF, INF, 0], rtol=1e-6)
    np.testing.assert_array_equal(to_p, [0, -INF, -INF, 0, INF, INF, INF, -INF, 0])
    np.testing.assert_allclose(to_q, [1, 2, INF, -1, -2, -INF, -INF, INF, 0])


def test_sure_log_odds():
    pairs = [(INF, INF), (INF, 0), (-INF, -INF), (0, INF), (0, -INF), (200, 0), (0, 200), (3, 3), (-INF, INF)]
    value, to_p, to_q = both(lambda p, q: vk.kl_divergence(B(logits=p), B(logits=q)), *np.transpose(pairs))
    np.testing.assert_allclose(value, [0, np.log(2), 0, INF, INF, np.log(2), 100 - np.log(2), 0, INF], rtol=1e-6)
    np.testing.assert_array_equal(to_p, [0, 0, 0, -INF, INF, 0, -50, 0, 0])
    np.testing.assert_allclose(to_q, [0, -0.5, 0, 0.5, -0.5, -0.5, 0.5, 0, 1])


@pytest.mark.parametrize("family", [G, functools.partial(many)], ids=["geometric", "negative_binomial"])
def test_trials_at_the_edges_have_no_nan(family):
    found = both(lambda p, q: vk.kl_divergence(family(probs=p), family(probs=q)), *np.transpose(EDGES))
    assert not np.isnan(found).any()
    np.testing.assert_array_equal(found[0][[0, 3, 8]], 0)
    for gradient in found[1:]:
        assert np.isfinite(gradient[[0, 3, 8]]).all()
        assert (gradient[np.isinf(found[0])] != 0).all()


def test_poisson_at_the_edges():
    value, to_p, to_q = both(lambda p, q: vk.kl_divergence(d.Poisson(p), d.Poisson(q)), [0, 0, 1, 2], [0, 1, 0, 2])
    np.testing.assert_array_equal(value, [0, 1, INF, 0])
    np.testing.assert_array_equal(to_p, [0, -INF, INF, 0])
    np.testing.assert_array_equal(to_q, [1, 1, -INF, 0])


def test_numbers_of_trials():
    """More trials than q: +inf, unless there is no success. Fewer: no closed form."""
    n, p, m = [3.0, 5, 5, 2, 0], [0.2, 0.5, 0, 0.3, 0.3], [3.0, 3, 3, 4, 0]
    value, to_n, to_p, to_m = both(
        lambda n, p, m: vk.kl_divergence(d.Binomial(n, probs=p), d.Binomial(m, probs=jnp.full_like(p, 0.5))), n, p, m
    )
    expected = 3 * float(trial(mp.mpf("0.2"), mp.mpf("0.5")))
    np.testing.assert_allclose(value, [expected, INF, 3 * np.log(2), np.nan, 0], rtol=1e-6)
    assert (to_n[1], to_p[1], to_m[1]) == (INF, INF, -INF)
    with pytest.raises(NotImplementedError, match="p a Binomial and q a Binomial"):
        vk.kl_divergence(d.Binomial(2, probs=0.3), d.Binomial(4, probs=0.3))
    with pytest.raises(NotImplementedError, match="`total_count` has to be the same"):
        vk.kl_divergence(d.NegativeBinomial(2, probs=0.3), d.NegativeBinomial(4, probs=0.3))


def test_whole_intervals():
    low, high = [1, 1, 1, 0], [4, 4, 4, 4]
    value, *gradients = both(
        lambda a, b, c, e: vk.kl_divergence(d.DiscreteUniform(a, b), d.DiscreteUniform(c, e)),
        low, high, [1, 0, 2, 2], [4, 9, 4, 3],
    )  # fmt: skip
    np.testing.assert_allclose(value, [0, np.log(10 / 4), INF, INF], rtol=1e-6)
    np.testing.assert_array_equal([g[3] for g in gradients], [-INF, INF, INF, -INF])


# --- classes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["probs", "logits"])
@pytest.mark.parametrize("second", ["probs", "logits"])
def test_classes_given_either_way(first, second):
    """Far and nearly equal; the gradient to probabilities is that along the simplex."""
    rng = np.random.default_rng(0)
    logits_p = rng.normal(size=(6, 5)) * 2
    logits_q = logits_p + rng.normal(size=(6, 5)) * np.array([3, 1, 1e-1, 1e-2, 1e-3, 1e-3])[:, None]
    arrays = [special.softmax(t, -1) if kind == "probs" else t for kind, t in ((first, logits_p), (second, logits_q))]
    arrays = [a.astype(np.float32) for a in arrays]
    found = both(lambda p, q: vk.kl_divergence(d.Categorical(**{first: p}), d.Categorical(**{second: q})), *arrays)

    wide = []
    for kind, x in ((first, arrays[0]), (second, arrays[1])):
        weight = np.float64(x) if kind == "probs" else np.exp(np.float64(x))
        wide.append(weight / weight.sum(-1, keepdims=True))
    p, q = wide
    log = np.log(p / q)
    value = np.sum(p * log, -1, keepdims=True)
    to_p = log - value if first == "probs" else p * (log - value)
    to_q = 1 - p / q if second == "probs" else q - p
    # A class of 1e-7 given by float32 logits on one side only is known to 1e-7.
    tolerance = 2e-5 if first == second else 2e-3
    np.testing.assert_allclose(found[0], value[:, 0], rtol=tolerance)
    for gradient, right in zip(found[1:], (to_p, to_q), strict=True):
        size = np.abs(right).max(-1, keepdims=True)
        np.testing.assert_allclose(gradient / size, right / size, rtol=0, atol=tolerance)


def test_classes_that_are_absent():
    p, q = [[0.2, 0.8, 0], [1, 0, 0], [0, 0, 1]], [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]]
    value, to_p, to_q = both(lambda p, q: vk.kl_divergence(d.Categorical(probs=p), d.Categorical(probs=q)), p, q)
    np.testing.assert_allclose(value, [0.2 * np.log(0.4) + 0.8 * np.log(1.6), INF, 0], rtol=1e-6)
    assert not np.isnan(to_p).any()
    assert (to_p[1, 0], to_q[1, 0]) == (INF, -INF)
    value, to_p, to_q = both(
        lambda p, q: vk.kl_divergence(d.Categorical(probs=p), d.Categorical(logits=q)),
        [[0.5, 0.5, 0], [1, 0, 0]], [[0, -200, -INF], [-INF, 0, 0]],
    )  # fmt: skip
    np.testing.assert_allclose(value, [100 - np.log(2), INF], rtol=1e-6)
    assert not np.isnan(to_p).any()
    np.testing.assert_allclose(to_q, [[0.5, -0.5, 0], [-1, 0.5, 0.5]], rtol=1e-6)


def test_different_numbers_of_classes_are_refused():
    with pytest.raises(ValueError, match="q: expected 3 classes as p has, got 4"):
        vk.kl_divergence(d.Categorical(logits=jnp.zeros(3)), d.Categorical(probs=jnp.full(4, 0.25)))


def test_numbers_of_draws():
    p = d.Multinomial(jnp.array([3.0, 2.0, 0.0]), probs=jnp.array([0.25, 0.75]))
    q = d.Multinomial(jnp.array([3.0, 3.0, 0.0]), logits=jnp.array([0.0, 0.0]))
    one = vk.kl_divergence(d.OneHotCategorical(probs=jnp.array([0.25, 0.75])), d.OneHotCategorical(logits=jnp.zeros(2)))
    np.testing.assert_allclose(vk.kl_divergence(p, q), [3 * one, INF, 0], rtol=1e-6)


# --- what is contained in what, and the door --------------------------------------------------------------------------


def test_one_trial_and_one_draw():
    """A Bernoulli is a binomial, a one-hot class a multinomial; half precision and integers are taken."""
    found = vk.kl_divergence(B(probs=0.25), d.Binomial(1, logits=0.0))
    np.testing.assert_allclose(found, float(trial(mp.mpf("0.25"), mp.mpf("0.5"))), rtol=1e-6)
    classes = jnp.array([0.25, 0.75], jnp.bfloat16)
    again = vk.kl_divergence(d.OneHotCategorical(probs=classes), d.Multinomial(1, logits=jnp.zeros(2)))
    np.testing.assert_allclose(again, found, rtol=1e-6)
    assert again.dtype == jnp.float32


def test_curvature_at_equality():
    """The Fisher information: second derivatives too go through what is exactly 0 there."""

    def hessian(make, x):
        x = jnp.float32(x)
        return jax.jit(jax.grad(jax.grad(lambda q: vk.kl_divergence(make(x), make(q)))))(x)

    np.testing.assert_allclose(hessian(logits(B), 0.4), special.expit(0.4) * special.expit(-0.4), rtol=1e-5)
    np.testing.assert_allclose(hessian(probs(G), 0.3), 1 / (0.09 * 0.7), rtol=1e-5)
