"""Sequence KL: value and full gradient against all sequences of a tiny language model, in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from statistical import assert_mean, expect_rejection

import vi_kit.kl as kl

TEMPERATURE = 1.5
SEQUENCES = np.array(list(itertools.product(range(3), repeat=3)))
# After a 0 the sequence is over: what follows does not count, and each sequence stands in the list once.
ENDED = np.cumsum(np.pad(SEQUENCES[:, :-1] == 0, ((0, 0), (1, 0))), axis=1) > 0
ENDED_SEQUENCES, ENDED_FIRST = np.unique(np.where(ENDED, -100, SEQUENCES), axis=0, return_index=True)


def close(actual, expected, rtol=1e-9, atol=1e-12):
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=rtol, atol=atol), actual, expected)


def language_models(ending):
    """Logits after each prefix of two models; and the sequences, their mask and the pads after the end."""
    rng = np.random.default_rng(0)
    tables = {name: [jnp.asarray(rng.normal(size=(3,) * (t + 1))) for t in range(3)] for name in ("p", "q")}
    if ending:
        return tables, ENDED_SEQUENCES, ~ENDED[ENDED_FIRST]
    return tables, SEQUENCES, np.ones_like(SEQUENCES, bool)


def along(table, x, mask):
    """Logits along sequences, NaN after the end."""
    x = np.where(mask, x, 0)
    steps = [jnp.broadcast_to(table[0], (*x.shape[:-1], 3)), table[1][x[..., 0]], table[2][x[..., 0], x[..., 1]]]
    return jnp.where(mask[..., None], jnp.stack(steps, axis=-2), jnp.nan)


def log_probs(table, x, mask):
    logits = jnp.where(mask[..., None], along(table, x, mask), 0.0)
    steps = jnp.take_along_axis(jax.nn.log_softmax(logits / TEMPERATURE), np.where(mask, x, 0)[..., None], axis=-1)
    return jnp.sum(jnp.where(mask, steps[..., 0], 0.0), axis=-1)


def exact(tables, x, mask):
    p, q = log_probs(tables["p"], x, mask), log_probs(tables["q"], x, mask)
    return jnp.sum(jnp.exp(p) * (p - q))


def both(function, *arguments):
    return jax.jit(jax.value_and_grad(lambda v: function(v, *arguments)))(language_models(ending=False)[0])


@pytest.mark.parametrize("ending", [False, True])
def test_value_and_full_gradient_by_enumeration(x64, ending):
    """To p and to q, at a temperature, with sequences that end early; one at a time and in pairs with a baseline."""
    tables, x, mask = language_models(ending)
    assert len(x) == (15 if ending else 27)
    weight = np.exp(log_probs(tables["p"], x, mask))
    close(weight.sum(), 1.0)
    pairs = np.array(list(itertools.product(range(len(x)), repeat=2)))

    def expected(tables, pairs, full, **named):
        logits = [along(tables[name], x, mask)[pairs] for name in ("p", "q")]
        tokens = {"tokens": jnp.asarray(x)[pairs]} if full else {}
        values = kl.sequence(*logits, mask=mask[pairs], temperature=TEMPERATURE, **tokens, **named)
        chance = weight[pairs]
        return jnp.sum(chance * values) if pairs.ndim == 1 else jnp.sum(chance.prod(axis=1) * values.mean(axis=1))

    value, gradient = both(exact, x, mask)
    close(both(lambda v: expected(v, np.arange(len(x)), True)), (value, gradient))
    close(both(lambda v: expected(v, pairs, True, baseline_axis=1)), (value, gradient))
    # Negative control: without the tokens the gradient misses what a token does to later states; q's is right.
    token_value, token_gradient = both(lambda v: expected(v, np.arange(len(x)), False))
    close((token_value, token_gradient["q"]), (value, gradient["q"]))
    missed = jnp.linalg.norm(token_gradient["p"][0] - gradient["p"][0])
    assert missed > 0.1 * jnp.linalg.norm(gradient["p"][0])


def test_a_baseline_from_dependent_sequences_would_be_biased(x64):
    """Negative control for `baseline_axis`: the other sequence is the same one, so the full gradient is lost."""
    tables, x, mask = language_models(ending=False)
    weight = np.exp(log_probs(tables["p"], x, mask))

    def expected(tables):
        logits = [jnp.stack([along(tables[name], x, mask)] * 2) for name in ("p", "q")]
        values = kl.sequence(*logits, tokens=np.stack([x] * 2), temperature=TEMPERATURE, baseline_axis=0)
        return jnp.sum(weight * values.mean(axis=0))

    value, gradient = both(exact, x, mask)
    wrong_value, wrong = both(expected)
    close(wrong_value, value)
    assert jnp.linalg.norm(wrong["p"][0] - gradient["p"][0]) > 0.1 * jnp.linalg.norm(gradient["p"][0])


# --- statistics on a Markov chain of 50 tokens ----------------------------------------------------------------------


def chain(seed, spread, num_tokens=50):
    a, b = jax.random.split(jax.random.key(seed))
    p = jax.random.normal(a, (num_tokens, num_tokens))
    return p, p + spread * jax.random.normal(b, p.shape)


def sample_chain(key, p, n, length):
    """States and the tokens drawn from them."""
    noise = jax.random.gumbel(key, (length, n, len(p)))

    def step(x, noise):
        token = jnp.argmax(p[x] + noise, axis=-1).astype(jnp.int32)
        return token, (x, token)

    _, (states, tokens) = jax.lax.scan(step, jnp.zeros(n, jnp.int32), noise)
    return states.T, tokens.T


def exact_chain(p, q, length):
    p, q = (np.asarray(v, np.float64) for v in (p, q))
    p, q = (v - np.log(np.exp(v).sum(axis=1, keepdims=True)) for v in (p, q))
    state, total = np.eye(len(p))[0], 0.0
    for _ in range(length):
        total, state = total + state @ (np.exp(p) * (p - q)).sum(axis=1), state @ np.exp(p)
    return total


@pytest.fixture(scope="module")
def chains():
    @jax.jit
    def run(key, p, q):
        states, tokens = sample_chain(key, p, 2000, 20)
        log_p, log_q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
        r = log_p[states, tokens] - log_q[states, tokens]
        return kl.sequence(p[states], q[states]), jnp.sum(kl.k3(r), axis=1), jnp.sum(r, axis=1)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.1, pytest.param(0.5, marks=pytest.mark.slow), 0.95])
def test_it_needs_twenty_times_fewer_sequences_than_k3(chains, spread):
    """KL 0.1, 2.4 and 8.4: the variance of a sequence's k3 (the default of TRL and others) is 25 times as large (median
    over eight models, 16 to 34 for single ones), that of k1 5000, 200 and 50 times."""
    models = [chain(seed, spread) for seed in range(8)]
    exact = np.array([exact_chain(p, q, 20) for p, q in models])
    runs = [chains(jax.random.key(100 + i), p, q) for i, (p, q) in enumerate(models)]
    values, k3, k1 = (np.stack(v, axis=1).astype(np.float64) for v in zip(*runs, strict=True))
    assert values.min() >= 0
    assert_mean(values / exact, np.ones(8), effect=0.03)
    expect_rejection(lambda: assert_mean(values / exact, np.full(8, 1.03)))
    assert np.median(k3.var(axis=0) / values.var(axis=0)) >= 20
    assert np.median(k1.var(axis=0) / values.var(axis=0)) >= 40


@pytest.mark.slow
def test_the_baseline_takes_most_of_the_noise_away():
    """Unbiased both (see above); the variance of the gradient to p falls about 75-fold with sixteen sequences. (By 2 to
    100 over other models: least where KL and vocabulary are small, since the first term has noise of its own.)"""
    p, q = chain(0, 0.5)

    def gradient(states, tokens, axis):
        return jax.grad(lambda v: kl.sequence(v[states], q[states], tokens=tokens, baseline_axis=axis).mean())(p)

    def run(key):
        states, tokens = sample_chain(key, p, 16, 20)
        return gradient(states, tokens, None), gradient(states, tokens, 0)

    without, with_baseline = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(4), 60))
    assert np.var(with_baseline, axis=0).sum() < np.var(without, axis=0).sum() / 50


# --- what it is made of -----------------------------------------------------------------------------------------------


def batch(*shape):
    p, q = jax.random.normal(jax.random.key(5), (2, *shape))
    return p, q


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5), (2, 3, 4, 5), (0, 4, 5), (3, 0, 5)])
def test_it_is_the_sum_over_positions(shape):
    p, q = batch(*shape)
    axis = 0 if len(shape) > 2 else None

    @jax.jit
    def run(p, q):
        tokens = jnp.zeros(shape[:-1], jnp.int32)
        full = kl.sequence(p, q, tokens=tokens, baseline_axis=axis)
        return kl.sequence(p, q), full, jnp.sum(kl.categorical(p, q), axis=-1)

    values, full, sums = run(p, q)
    assert values.shape == shape[:-2]
    close((values, full), (sums, sums), rtol=1e-6)


@pytest.mark.slow
def test_several_baseline_axes_are_one_group():
    p, q = batch(2, 3, 4, 5)
    tokens = jax.random.randint(jax.random.key(6), (2, 3, 4), 0, 5)

    def gradient(p, q, tokens, axis):
        return jax.grad(lambda p: kl.sequence(p, q, tokens=tokens, baseline_axis=axis).sum())(p)

    @jax.jit
    def run(p, q, tokens):
        flat = gradient(*(v.reshape(6, *v.shape[2:]) for v in (p, q, tokens)), 0).reshape(p.shape)
        columns = jnp.stack([gradient(p[:, i], q[:, i], tokens[:, i], 0) for i in range(3)], axis=1)
        return (gradient(p, q, tokens, (0, 1)), gradient(p, q, tokens, 0)), (flat, columns)

    close(*run(p, q, tokens), rtol=1e-5, atol=1e-6)


def test_positions_after_the_end_count_nothing():
    """NaN logits and pad tokens of −100 there reach neither the value nor any gradient, the baseline's neither."""
    p, q = batch(3, 4, 5)
    tokens = jax.random.randint(jax.random.key(6), (3, 4), 0, 5)
    mask = jnp.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    after = mask[..., None] == 0

    @jax.jit
    def run(p, q, tokens):
        def total(p, q):
            values = kl.sequence(p, q, tokens=tokens, mask=mask, baseline_axis=0)
            return jnp.sum(values), values

        return jax.grad(total, (0, 1), has_aux=True)(p, q)

    clean = run(jnp.where(after, 0.0, p), jnp.where(after, 0.0, q), jnp.where(mask > 0, tokens, 0))
    dirty = run(jnp.where(after, jnp.nan, p), jnp.where(after, -jnp.inf, q), jnp.where(mask > 0, tokens, -100))
    close(dirty, clean, rtol=0, atol=0)
    (to_p, to_q), values = dirty
    assert values[2] == 0
    assert not np.any(np.where(after, to_p, 0))
    assert not np.any(np.where(after, to_q, 0))
    short = kl.sequence(p[1, :2], q[1, :2])
    close(values[1], short, rtol=1e-6)


def test_absent_classes_and_temperature():
    """`where`, −∞ and a temperature that is differentiated; a token that p cannot make is no sample of p."""
    p, q = batch(3, 4, 5)
    tokens = jax.random.randint(jax.random.key(6), (3, 4), 0, 4)
    exists = jnp.arange(5) < 4

    @jax.jit
    def run(p, q, temperature, tokens=tokens, where=exists):
        def total(p, q, temperature):
            return kl.sequence(p, q, tokens=tokens, where=where[: p.shape[-1]], temperature=temperature).sum()

        return jax.value_and_grad(total, (0, 1, 2))(p, q, temperature)

    value, (to_p, to_q, to_temperature) = run(p[..., :4], q[..., :4], 0.7)
    for filler in (jnp.nan, -jnp.inf):
        holes = [jnp.where(exists, v, filler) for v in (p, q)]
        found, (found_p, found_q, found_temperature) = run(*holes, 0.7)
        close((found, found_p[..., :4], found_temperature), (value, to_p, to_temperature), rtol=1e-5, atol=1e-5)
        close(found_q[..., :4], to_q, rtol=1e-5, atol=1e-5)
        assert not np.any(found_p[..., 4])
        assert not np.any(found_q[..., 4])
    impossible, _ = run(*holes, 0.7, tokens=tokens.at[0, 3].set(4))
    assert np.isnan(impossible)


def test_half_precision_vmap_and_jit_agree():
    p, q = (v.astype(jnp.bfloat16) for v in batch(3, 4, 5))
    tokens = jax.random.randint(jax.random.key(6), (3, 4), 0, 5).astype(jnp.uint8)

    def one(p, q, tokens):
        return jax.value_and_grad(lambda p: kl.sequence(p, q, tokens=tokens).sum())(p)

    values, gradients = jax.jit(jax.vmap(one))(p, q, tokens)
    assert (values.dtype, gradients.dtype) == (jnp.float32, jnp.bfloat16)
    wide_value, wide = jax.jit(one)(p.astype(jnp.float32), q.astype(jnp.float32), tokens)
    close(values.sum(), wide_value, rtol=1e-6)
    close(gradients.astype(jnp.float32), wide, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("shapes", "named", "error", "message"),
    [
        ([(3,), (3,)], {}, ValueError, "p_logits: expected axes of positions and classes"),
        ([(2, 3), (2, 4)], {}, ValueError, "q_logits"),
        ([(2, 3), (2, 3)], {"tokens": jnp.zeros(3, int)}, ValueError, r"tokens: expected shape \(2,\)"),
        ([(2, 3), (2, 3)], {"tokens": jnp.zeros(2)}, TypeError, "tokens: expected integers"),
        ([(2, 3), (2, 3)], {"tokens": jnp.array([0, 3])}, ValueError, "tokens: expected classes from 0 to 2 .* got 3"),
        ([(2, 3), (2, 3)], {"tokens": jnp.array([0, -100])}, ValueError, "tokens: .* got -100"),
        ([(4, 2, 3), (4, 2, 3)], {"baseline_axis": 0}, ValueError, "baseline_axis: expected only with tokens"),
        ([(4, 2, 3), (4, 2, 3)], {"tokens": jnp.zeros((4, 2), int), "baseline_axis": 1}, ValueError, "axis"),
        ([(4, 2, 3), (4, 2, 3)], {"mask": jnp.ones((4, 2))}, TypeError, "mask"),
        ([(4, 2, 3), (4, 2, 3)], {"mask": jnp.ones((3, 2), bool)}, ValueError, "mask"),
    ],
)
def test_bad_input_is_refused(shapes, named, error, message):
    with pytest.raises(error, match=message):
        kl.sequence(*map(jnp.zeros, shapes), **named)


def test_traced_tokens_that_are_no_class_give_nan():
    p, q = batch(2, 4, 5)
    tokens = jnp.array([[0, 1, 2, 3], [0, 1, 5, 3]])
    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(lambda p, q, t: kl.sequence(p, q, tokens=t))))(p, q, tokens)
    np.testing.assert_array_equal(np.isnan(value), [False, True])
    assert np.isfinite(gradient[0]).all()
    assert np.isnan(gradient[1]).any()
