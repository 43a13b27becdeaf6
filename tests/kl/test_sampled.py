"""KL from draws: expectations by enumeration in float64, coverage of the intervals, and what must not reach them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from statistical import assert_mean, expect_rejection

import vi_kit.kl as kl

ESTIMATORS = [kl.k1, kl.k2, kl.k3, kl.control_variate]
GRADIENTS = [kl.score, kl.pathwise, kl.none]
UNBIASED = [kl.k1, kl.k3, kl.control_variate]


def exact_kl(p_logits, q_logits):
    log_p, log_q = jax.nn.log_softmax(p_logits), jax.nn.log_softmax(q_logits)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def close(actual, expected, rtol=1e-9, atol=1e-12):
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=rtol, atol=atol), actual, expected)


# --- six classes: every tuple of n draws, weighted by its probability -----------------------------


def logits(classes=6):
    rng = np.random.default_rng(1)
    return {name: jnp.asarray(rng.normal(size=classes) * 0.7) for name in ("p", "q")}


def expectation(functions, params, num_draws, behavior):
    """E of values and gradients over all tuples of draws, which are fixed samples: their weight has no gradient."""
    draws_from = jax.nn.log_softmax(params["p"] if behavior is None else behavior)
    tuples = np.array(list(itertools.product(np.flatnonzero(draws_from > -np.inf), repeat=num_draws)))
    weight = jnp.exp(jnp.sum(draws_from[tuples], axis=1))

    def one(params, x):
        log_p, log_q = jax.nn.log_softmax(params["p"])[x], jax.nn.log_softmax(params["q"])[x]
        log_behavior = None if behavior is None else draws_from[x]
        return jnp.stack(
            [kl.estimate(log_p, log_q, estimator=e, gradient=g, log_behavior=log_behavior).value for e, g in functions]
        )

    def expected(params):
        return weight @ jax.vmap(one, (None, 0))(params, jnp.asarray(tuples))

    values, gradients = jax.jit(lambda v: (expected(v), jax.jacrev(expected)(v)))(params)
    return [(values[i], jax.tree.map(lambda g, i=i: g[i], gradients)) for i in range(len(functions))]


def exact_with_gradient(params):
    return jax.jit(jax.value_and_grad(lambda v: exact_kl(v["p"], v["q"])))(params)


@pytest.mark.parametrize("off_policy", [False, True])
@pytest.mark.parametrize("num_draws", [1, 3])
def test_expected_value_and_gradient_by_enumeration(x64, num_draws, off_policy):
    """Values: k2's own bias and nothing else. The score gradient is that of KL(p‖q) with each of them, with a
    leave-one-out baseline too (three draws). Peers differentiate the estimator at fixed draws (k3 in TRL, tunix,
    Liger), which is another gradient: see the next test."""
    params = logits()
    behavior = jnp.asarray(np.random.default_rng(2).normal(size=6)) if off_policy else None
    value, gradient = exact_with_gradient(params)
    p, q = jax.nn.log_softmax(params["p"]), jax.nn.log_softmax(params["q"])
    squares = jnp.sum(jnp.exp(p) * (p - q) ** 2) / 2
    zero = jax.tree.map(jnp.zeros_like, gradient)
    # Pathwise at constant draws is right for q and 0 for p, unless the weights are there to be differentiated too.
    constant = gradient if off_policy else {"p": zero["p"], "q": gradient["q"]}
    pairs = list(itertools.product(ESTIMATORS, GRADIENTS))
    for (estimator, how), found in zip(pairs, expectation(pairs, params, num_draws, behavior), strict=True):
        to = {kl.score: gradient, kl.pathwise: constant, kl.none: zero}[how]
        close(found, (squares if estimator is kl.k2 else value, to))


def test_what_differentiating_the_estimator_gives(x64):
    """The peers' wrong gradients to p: k1 exactly 0, k3 that of KL(q‖p); k2's is right, though its value is not."""
    params = logits()
    _, forward = exact_with_gradient(params)
    _, reverse = exact_with_gradient({"p": params["q"], "q": params["p"]})
    naive = [(kl.k1, lambda p, q, w, estimator=e: estimator(p - q, w)) for e in (kl.k1, kl.k2, kl.k3)]
    expected = 0 * forward["p"], forward["p"], reverse["q"]
    close([gradient["p"] for _, gradient in expectation(naive, params, 1, None)], list(expected))
    assert np.linalg.norm(reverse["q"] - forward["p"]) > 0.3 * np.linalg.norm(forward["p"])


def test_fitting_the_coefficient_to_all_draws_would_be_biased(x64):
    """Negative control for leaving one out."""

    def fitted_to_all(r, log_weight):
        a, b = kl.k3(r), jnp.expm1(-r)
        return a - jnp.sum(a * b) / jnp.sum(b * b) * b

    params = logits()
    [(value, _)] = expectation([(fitted_to_all, kl.none)], params, 3, None)
    assert abs(value / exact_kl(params["p"], params["q"]) - 1) > 0.05


@pytest.mark.parametrize("draws_from", [None, "uniform"])
def test_mass_of_q_outside_the_support_of_p_is_missed(x64, draws_from):
    """The documented limit: k3 gives KL minus that mass (for instance with a p cut to its top classes); k1 has none.
    Off policy, draws that p cannot make have weight 0."""
    params = logits()
    params["p"] = params["p"].at[0].set(-jnp.inf)
    p, q = jax.nn.softmax(params["p"]), jax.nn.softmax(params["q"])
    exact = jnp.sum(p[1:] * jnp.log(p[1:] / q[1:]))
    pairs = [(e, kl.score) for e in UNBIASED]
    found = expectation(pairs, params, 1, None if draws_from is None else jnp.zeros(6))
    close([value for value, _ in found], [exact, exact - q[0], exact - q[0]])
    for _, gradient in found:
        assert gradient["p"][0] == 0
        assert np.isfinite(gradient["p"]).all()


# --- sequences of one or two tokens, a masked term after the end ----------------------------------


def token_log_probs(table, x):
    """Log probabilities of tokens x_1 and x_2 given x_1; nothing follows a 0."""
    first, second = jax.nn.log_softmax(table["first"]), jax.nn.log_softmax(table["second"])
    return jnp.stack([first[x[..., 0]], second[x[..., 0], x[..., 1]]], axis=-1)


@pytest.mark.parametrize("off_policy", [False, True])
def test_terms_of_a_draw_by_enumeration(x64, off_policy):
    """Sequences that may end early: the KL of whole sequences and its gradient, weights and all."""
    rng = np.random.default_rng(3)
    tables = {
        name: {"first": jnp.asarray(rng.normal(size=3)), "second": jnp.asarray(rng.normal(size=(3, 3)))}
        for name in ("p", "q", "behavior")
    }
    behavior = tables.pop("behavior") if off_policy else tables["p"]

    def exact(tables):
        p, q = tables["p"], tables["q"]
        later = jax.nn.softmax(p["first"])[1:] @ exact_kl(p["second"][1:], q["second"][1:])
        return exact_kl(p["first"], q["first"]) + later

    sequences = np.array(list(itertools.product(range(3), repeat=2)))
    counts = np.stack([np.ones(9, bool), sequences[:, 0] != 0], axis=1)
    behavior_terms = token_log_probs(behavior, sequences)
    # An ended sequence stands three times in the list, with a different pad: a third of its probability each.
    chance = jnp.exp(jnp.sum(jnp.where(counts, behavior_terms, -jnp.log(3.0)), axis=1))
    pairs = np.array(list(itertools.product(range(9), repeat=2)))
    weight = jnp.prod(chance[pairs], axis=1)

    def one(tables, pair):
        x, mask = jnp.asarray(sequences)[pair], jnp.asarray(counts)[pair]
        p, q = (jnp.where(mask, token_log_probs(tables[k], x), jnp.nan) for k in ("p", "q"))
        given = {"mask": mask, "log_behavior": behavior_terms[pair] if off_policy else None}
        return jnp.stack([kl.estimate(p, q, estimator=e, **given).value for e in UNBIASED])

    def expected(tables):
        return jnp.tensordot(weight, jax.vmap(one, (None, 0))(tables, pairs), axes=1)

    values, gradients = jax.jit(lambda t: (expected(t), jax.jacrev(expected)(t)))(tables)
    value, gradient = jax.value_and_grad(exact)(tables)
    for i in range(len(UNBIASED)):
        close((values[i], jax.tree.map(lambda g, i=i: g[i], gradients)), (value, gradient))


# --- reparameterized draws: quadrature over the noise ---------------------------------------------


def gaussian(x, mean, log_scale):
    return jax.scipy.stats.norm.logpdf(x, mean, jnp.exp(log_scale))


def test_pathwise_gradient_by_quadrature(x64):
    """The draws move with p (or with the behavior, which then gets a gradient of 0 on average)."""
    params = {"p": jnp.array([0.3, -0.2]), "q": jnp.array([-0.4, 0.3]), "behavior": jnp.array([0.2, 0.1])}
    nodes, weight = np.polynomial.hermite_e.hermegauss(120)
    noise, weight = jnp.asarray(nodes), jnp.asarray(weight / weight.sum())

    def one(params, source, noise, gradient):
        x = (params[source][0] + jnp.exp(params[source][1]) * noise)[None]
        behavior = None if source == "p" else gaussian(x, *params[source])
        p, q = gaussian(x, *params["p"]), gaussian(x, *params["q"])
        return kl.estimate(p, q, gradient=gradient, log_behavior=behavior).value

    def expected(params, source, gradient):
        return weight @ jax.vmap(lambda e: one(params, source, e, gradient))(noise)

    def run(source, gradient):
        return jax.jit(jax.value_and_grad(lambda v: expected(v, source, gradient)))(params)

    exact = jax.jit(jax.value_and_grad(lambda v: kl.normal(*v["p"], *v["q"])))(params)
    for source in ("p", "behavior"):
        close(run(source, kl.pathwise), exact, rtol=1e-7, atol=1e-7)
    _, wrong = run("p", kl.score)  # with draws that move, the score gradient is another thing
    assert abs(wrong["p"][1] - exact[1]["p"][1]) > 0.1


# --- standard errors ------------------------------------------------------------------------------


def draw(key, log_p, n=1000):
    """By inverting the distribution function: one uniform number a draw, where the Gumbel trick takes six."""
    cumulative = jnp.broadcast_to(jnp.cumsum(jnp.exp(log_p), axis=-1), (n, log_p.shape[-1]))
    return jnp.sum(jax.random.uniform(key, (n, 1)) > cumulative[:, :-1], axis=1)


def on_policy(key, p, q):
    x = draw(key, p)
    return {e.__name__: kl.estimate(p[x], q[x], estimator=e) for e in UNBIASED}


def off_policy(key, p, q):
    behavior = jax.nn.log_softmax(0.5 * p)
    x = draw(key, behavior)
    return {"off_policy": kl.estimate(p[x], q[x], estimator=kl.k3, log_behavior=behavior[x])}


def masked(key, p, q):
    """A third of the draws is missing and holds NaN."""
    draws, missing = jax.random.split(key)
    mask = jax.random.uniform(missing, (1500,)) < 0.67
    x = draw(draws, p, 1500)
    p, q = (jnp.where(mask, v[x], jnp.nan) for v in (p, q))
    return {"masked": kl.estimate(p, q, estimator=kl.k3, mask=mask)}


STAY = 2.0 * np.eye(6, dtype=np.float32)  # a token is more likely to repeat the one before


def sequences(key, p, q):
    """Four tokens, each given the one before."""
    p, q = jax.nn.log_softmax(p[None] + STAY), jax.nn.log_softmax(q[None] + STAY)
    x, terms = jnp.zeros(1000, jnp.int32), []
    for k in jax.random.split(key, 4):
        before, x = x, draw(k, p[x])
        terms.append((p[before, x], q[before, x]))
    log_p, log_q = jnp.array(terms).swapaxes(0, 1)
    return {"sequences": kl.estimate(log_p, log_q, estimator=kl.k3, axis=1)}


def exact_sequences(p, q):
    p, q = p[None] + STAY, q[None] + STAY
    step, given = np.asarray(jax.nn.softmax(p), np.float64), np.asarray(exact_kl(p, q), np.float64)
    state, total = np.eye(6)[0], 0.0
    for _ in range(4):
        total, state = total + state @ given, state @ step
    return total


@pytest.fixture(scope="module")
def repetitions():
    """Estimates from 2000 repetitions of 1000 draws, and the exact KL of one draw and of a sequence."""
    p, q = (jax.nn.log_softmax(v.astype(jnp.float32)) for v in logits().values())

    def run(key):
        keys = jax.random.split(key, 4)
        runs = zip((on_policy, off_policy, masked, sequences), keys, strict=True)
        return {name: found for run, k in runs for name, found in run(k, p, q).items()}

    found = jax.jit(lambda keys: jax.lax.map(run, keys, batch_size=100))(jax.random.split(jax.random.key(3), 2000))
    return found, float(exact_kl(p, q)), float(exact_sequences(p, q))


@pytest.mark.parametrize("case", ["k1", "k3", "control_variate", "off_policy", "masked", "sequences"])
def test_intervals_cover_what_they_say(repetitions, case):
    """95 % intervals of 1000 draws cover 92.5 to 97.5 % over 2000 repetitions. No peer returns a standard error."""
    found, exact, exact_of_sequences = repetitions
    found, exact = found[case], exact_of_sequences if case == "sequences" else exact
    errors = np.abs(found.value - exact) / found.standard_error
    assert 0.925 <= np.mean(errors <= 1.959964) <= 0.975
    assert np.mean(errors <= 0.85 * 1.959964) < 0.925  # standard errors 15 % too small would be seen
    assert_mean(found.value, exact, effect=0.02 * exact)
    expect_rejection(lambda: assert_mean(found.value, 1.03 * exact))


def test_the_control_variate_has_the_least_noise(repetitions):
    spread = {e: np.std(repetitions[0][e].value) for e in ("k1", "k3", "control_variate")}
    assert spread["control_variate"] < 1.01 * spread["k3"]
    assert spread["control_variate"] < 0.6 * spread["k1"]


def test_the_baseline_takes_the_noise_away():
    """Where log p − log q is 3 whatever the draw, all of the score gradient to p would be noise."""
    p = jax.nn.log_softmax(jnp.arange(6.0))

    def gradient(x, how):
        return jax.grad(lambda t: kl.estimate(jax.nn.log_softmax(t)[x], p[x] - 3, gradient=how).value)(p)

    x = jnp.array([0, 5, 5, 4, 3, 5, 4])
    assert np.abs(jax.jit(lambda x: gradient(x, kl.score))(x)).max() < 1e-6
    assert np.abs(jax.jit(lambda x: gradient(x, lambda p, q, w: jax.lax.stop_gradient(p - q) * p))(x)).max() > 0.1


def test_effective_number_of_draws():
    log_p, log_behavior = jnp.log(jnp.array([0.5, 0.3, 0.2, 0.1])), jnp.log(jnp.array([0.25, 0.3, 0.4, 0.2]))
    weight = np.array([2.0, 1.0, 0.5, 0.5])
    run = jax.jit(lambda p, q, b=None: kl.estimate(p, q, log_behavior=b))
    found = run(log_p, log_p - 1, log_behavior)
    close(found.num_effective, weight.sum() ** 2 / (weight**2).sum(), rtol=1e-6)
    close(found.value, weight.mean(), rtol=1e-6)  # not normalized by the weights
    close(found.standard_error, weight.std(ddof=1) / 2, rtol=1e-6)
    huge = run(log_p + 500, log_p, log_behavior)  # weights that overflow
    close(huge.num_effective, found.num_effective, rtol=1e-4)
    assert run(log_p, log_p - 1).num_effective == 4


# --- numerics -------------------------------------------------------------------------------------


def test_k3_keeps_its_digits_and_does_not_overflow_early():
    r = np.float32([0.0, 1e-6, -1e-4, 1e-2, -0.3, 0.31, -0.999, -1.001, 5.0, -30.0, 80.0, -80.0])
    wide = r.astype(np.float64)
    series = sum((-wide) ** k / np.prod(np.arange(1.0, k + 1)) for k in range(2, 25))
    expected = np.where(np.abs(wide) < 1, series, np.expm1(-wide) + wide)
    close(kl.k3(r), expected, rtol=1e-6, atol=0)
    close(jax.jit(jax.vmap(jax.grad(kl.k3)))(r), -np.expm1(-wide), rtol=1e-6, atol=0)
    # Weight exp(−200) of a draw with r = −190: the product is exp(−10), though both factors leave float32.
    close(kl.k3(-190.0, -200.0), np.exp(-10.0), rtol=1e-5)
    p, q, b = (jnp.array([v, -1.0]) for v in (-200.0, -10.0, 0.0))
    run = jax.jit(lambda p, q, b: [kl.estimate(p, q, estimator=e, log_behavior=b).value for e in UNBIASED])
    assert np.isfinite(run(p, q, b)).all()


def test_one_huge_draw_costs_the_others_no_digits():
    """Sums over the other draws by subtraction would be rounding: the fit of all but the huge one in float32."""
    r = np.random.default_rng(0).normal(size=50).astype(np.float32) * 0.1
    r[7] = -18.0
    with jax.enable_x64(True):
        exact = np.asarray(jax.jit(kl.control_variate)(jnp.asarray(r, jnp.float64)))
    close(jax.jit(kl.control_variate)(r), exact, rtol=2e-4, atol=1e-6)


def test_equal_distributions_give_exactly_zero():
    log_p = jax.nn.log_softmax(jnp.arange(8.0))
    for found in jax.jit(lambda p: [kl.estimate(p, p, estimator=e)[:2] for e in ESTIMATORS])(log_p):
        assert found == (0, 0)


def test_a_draw_that_q_cannot_make():
    """KL is +∞, and says so; the gradient to log q is finite still."""
    log_p, log_q = jnp.log(jnp.array([0.5, 0.2, 0.3])), jnp.log(jnp.array([0.5, 0.5, 0.0]))

    @jax.jit
    def run(log_q):
        functions = [lambda q, e=e: kl.estimate(log_p, q, estimator=e).value for e in ESTIMATORS]
        return [jax.value_and_grad(f)(log_q) for f in functions]

    for value, gradient in run(log_q):
        assert value == jnp.inf
        close(gradient, np.full(3, -1 / 3), rtol=1e-6)


# --- masks, shapes, dtypes ------------------------------------------------------------------------


def by_hand(estimator, p, q, mask, axis):
    """Loop over draws and terms in float64."""
    p, q, mask = (np.moveaxis(v, axis, range(len(axis))) for v in (p, q, np.broadcast_to(mask, p.shape)))
    n = int(np.prod(p.shape[: len(axis)]))
    p, q, mask = (v.reshape(n, -1) for v in (p, q, mask))
    r = (p - q).astype(np.float64)
    f = {kl.k1: r, kl.k2: r * r / 2, kl.k3: np.expm1(-r) + r}[estimator]
    totals = [f[i][mask[i]].sum() for i in range(n) if mask[i].any()]
    return np.mean(totals), np.std(totals, ddof=1) / np.sqrt(len(totals)), len(totals)


@pytest.mark.parametrize(
    ("shape", "axis", "mask_shape"),
    [
        ((7,), 0, (7,)),
        ((5, 3), 0, (5, 1)),
        ((3, 5), -1, (3, 5)),
        ((4, 2, 3), (2, 0), (4, 1, 3)),
        ((2, 3, 4), (1,), (2, 1, 1)),
    ],
)
def test_axes_and_masks_against_a_loop(shape, axis, mask_shape):
    rng = np.random.default_rng(0)
    p, q = rng.normal(size=(2, *shape)).astype(np.float32)
    mask = rng.uniform(size=mask_shape) < 0.6
    mask.flat[:2] = True, False
    axes = axis if isinstance(axis, tuple) else (axis,)
    there = np.broadcast_to(mask, shape)
    holes = np.where(there, p, np.nan), np.where(there, q, -np.inf)
    estimators = kl.k1, kl.k2, kl.k3
    found = jax.jit(lambda p, q: [kl.estimate(p, q, estimator=e, mask=mask, axis=axis) for e in estimators])(*holes)
    close([tuple(f) for f in found], [by_hand(e, p, q, mask, axes) for e in estimators], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(("estimator", "gradient"), list(zip(ESTIMATORS, [*GRADIENTS, kl.score], strict=True)))
def test_masked_terms_count_nothing(estimator, gradient):
    """NaN and infinities there reach neither value, standard error nor gradient; without draws all is 0."""
    rng = np.random.default_rng(0)
    p, q, b = (jnp.asarray(v, jnp.float32) for v in rng.normal(size=(3, 4, 3)))
    mask = jnp.array([[1, 1, 1], [1, 1, 0], [0, 0, 0], [1, 0, 0]])
    bad = jnp.array([[jnp.nan], [jnp.inf], [-jnp.inf], [jnp.nan]])

    @jax.jit
    def run(inputs, mask):
        def values(v):
            found = kl.estimate(v[0], v[1], log_behavior=v[2], mask=mask, estimator=estimator, gradient=gradient)
            return found.value, found

        return jax.grad(values, has_aux=True)(inputs)

    gradients, found = run([jnp.where(mask > 0, v, bad) for v in (p, q, b)], mask)
    close(found, run([jnp.where(mask > 0, v, 0.0) for v in (p, q, b)], mask)[1], rtol=1e-6)
    for g in gradients:
        assert np.isfinite(g).all()
        assert not np.any(g[mask == 0])
    gradients, found = run([jnp.broadcast_to(bad, v.shape) for v in (p, q, b)], jnp.zeros_like(mask))
    assert found == (0, jnp.inf, 0)
    assert not any(np.any(g) for g in gradients)


def test_standard_error_and_size_have_no_gradient():
    log_p, log_q, log_b = jax.random.normal(jax.random.key(0), (3, 6))

    def parts(log_p):
        found = [kl.estimate(log_p, log_q, gradient=g, log_behavior=log_b) for g in GRADIENTS]
        return jnp.stack([part for f in found for part in f[1:]])

    assert not np.any(jax.jit(jax.jacrev(parts))(log_p))


def test_few_draws_say_that_nothing_is_known():
    assert kl.estimate(jnp.zeros(1), jnp.ones(1)) == (-1, jnp.inf, 1)
    assert kl.estimate(jnp.zeros(0), jnp.zeros(0)) == (0, jnp.inf, 0)
    assert kl.estimate(jnp.zeros((2, 0)), jnp.zeros((2, 0)), estimator=kl.control_variate) == (0, jnp.inf, 0)


def test_half_precision_is_computed_in_float32():
    log_p, log_q = jax.random.normal(jax.random.key(1), (2, 20)).astype(jnp.bfloat16)

    @jax.jit
    def run(p, q):
        found = [kl.estimate(p, q, estimator=e) for e in ESTIMATORS]
        return found, jax.grad(lambda p: kl.estimate(p, q).value)(p)

    found, gradient = run(log_p, log_q)
    wide, wide_gradient = run(log_p.astype(jnp.float32), log_q.astype(jnp.float32))
    close(found, wide, rtol=1e-6)
    assert {v.dtype for f in found for v in f} == {np.dtype("float32")}
    assert gradient.dtype == jnp.bfloat16
    close(gradient.astype(jnp.float32), wide_gradient, rtol=1e-2)


def test_vmap_is_a_batch_of_estimates():
    p, q = jax.random.normal(jax.random.key(2), (2, 3, 8))
    one = jax.jit(lambda p, q: tuple(kl.estimate(p, q, estimator=kl.control_variate)))
    close(jax.vmap(one)(p, q), tuple(map(np.stack, zip(*map(one, p, q), strict=True))), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((jnp.zeros(3), jnp.zeros(4)), ValueError, r"log_q: expected shape \(3,\)"),
        ((jnp.zeros((3, 2)), jnp.zeros((3, 1))), ValueError, "log_q: expected shape"),
        ((jnp.zeros(3, int), jnp.zeros(3)), TypeError, "log_p: expected floating-point"),
        ((0.0, 0.0), ValueError, "axis"),
        ((jnp.zeros(3), jnp.zeros(3), {"axis": 1}), ValueError, "axis"),
        ((jnp.zeros(3), jnp.zeros(3), {"log_behavior": jnp.zeros(1)}), ValueError, "log_behavior: expected shape"),
        ((jnp.zeros((3, 3)), jnp.zeros((3, 3)), {"mask": jnp.ones(3, bool)}), ValueError, "mask: expected shape"),
        ((jnp.zeros((3, 2)), jnp.zeros((3, 2)), {"mask": jnp.ones((3, 3), bool)}), ValueError, "mask: expected shape"),
        ((jnp.zeros(3), jnp.zeros(3), {"mask": jnp.ones(3)}), TypeError, "mask: expected booleans"),
        ((jnp.zeros(3), jnp.zeros(3), {"estimator": lambda r, w: jnp.sum(r)}), ValueError, "estimator"),
    ],
)
def test_bad_input_is_refused(arguments, error, message):
    *positional, named = arguments if isinstance(arguments[-1], dict) else (*arguments, {})
    with pytest.raises(error, match=message):
        kl.estimate(*positional, **named)
