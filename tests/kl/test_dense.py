"""Categorical divergences: identities, oracles in extended precision, and whatever shapes, dtypes and masks come in."""

import functools

import dense_oracles as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vi_kit.kl as kl

ORACLES = {
    "categorical": (kl.categorical, oracle.kl),
    "jensen_shannon": (
        functools.partial(kl.jensen_shannon, beta=0.25),
        functools.partial(oracle.jensen_shannon, beta=0.25),
    ),
    "skew": (functools.partial(kl.skew, alpha=0.75), functools.partial(oracle.skew, alpha=0.75)),
    "renyi_half": (functools.partial(kl.renyi, alpha=0.5), functools.partial(oracle.renyi, alpha=0.5)),
    "renyi_near_one": (functools.partial(kl.renyi, alpha=1.0625), functools.partial(oracle.renyi, alpha=1.0625)),
    "renyi_three": (functools.partial(kl.renyi, alpha=3.0), functools.partial(oracle.renyi, alpha=3.0)),
    "alpha": (functools.partial(kl.alpha_divergence, alpha=0.5), functools.partial(oracle.alpha_divergence, alpha=0.5)),
    "jeffreys": (kl.jeffreys, oracle.jeffreys),
    "total_variation": (kl.total_variation, oracle.total_variation),
}


def pair(size, shape=(4, 7), seed=0):
    rng = np.random.default_rng(seed)
    p = (2 * rng.normal(size=shape)).astype(np.float32)
    return p, (p + size * rng.normal(size=shape)).astype(np.float32)


@pytest.mark.parametrize("name", ORACLES)
def test_against_extended_precision(name):
    """Values and gradients, from far apart to nearly equal."""
    function, exact = ORACLES[name]
    run = jax.jit(lambda p, q: (function(p, q), jax.grad(lambda p, q: function(p, q).sum(), (0, 1))(p, q)))
    for size in (10.0, 1.0, 1e-2, 1e-5):
        p, q = pair(size)
        values, gradients = jax.tree.map(np.asarray, run(p, q))
        np.testing.assert_allclose(values, exact(p, q).astype(float), rtol=1e-5, err_msg=f"{size}")
        step = 1e-3 * min(size, 1)
        numerical = (
            oracle.numerical_gradient(lambda x, q=q: exact(x, q), p, step),
            oracle.numerical_gradient(lambda x, p=p: exact(p, x), q, step),
        )
        if name == "total_variation" and size > 1e-2:
            continue  # the step may cross a kink
        for found, right in zip(gradients, numerical, strict=True):
            error = np.linalg.norm((found - right).astype(float)) / np.linalg.norm(right.astype(float))
            assert error < 2e-5, (size, error)


def test_kl_is_cross_entropy_less_entropy():
    p, q = pair(1.0)
    np.testing.assert_allclose(kl.cross_entropy(p, q) - kl.entropy(p), kl.categorical(p, q), rtol=1e-5)
    np.testing.assert_allclose(kl.entropy(p), oracle.entropy(p).astype(float), rtol=1e-6)
    np.testing.assert_allclose(kl.cross_entropy(p, q), oracle.cross_entropy(p, q).astype(float), rtol=1e-6)
    np.testing.assert_allclose(kl.to_uniform(p), np.log(7) - kl.entropy(p), rtol=1e-5)
    nearly = 1e-4 * p  # where log K − H has no digit left
    np.testing.assert_allclose(kl.to_uniform(nearly), oracle.to_uniform(nearly).astype(float), rtol=1e-5)


def test_entropy_where_classes_are_absent():
    logits = jnp.asarray([[0.0, -jnp.inf, 1.0], [-jnp.inf, 0.0, -jnp.inf], [0.0, jnp.nan, 1.0]], jnp.float32)
    exists = np.array([[True, True, True], [True, True, True], [True, False, True]])
    values, gradients = jax.value_and_grad(lambda x: kl.entropy(x, where=exists).sum())(logits)
    sure = float(kl.entropy(jnp.asarray([0.0, 1.0])))
    np.testing.assert_allclose(values, 2 * sure, rtol=1e-6)
    assert np.all(np.isfinite(gradients))
    crossed = jax.grad(lambda q: kl.cross_entropy(logits[0], q))(logits[0])
    np.testing.assert_allclose(crossed, 0, atol=1e-7)
    assert kl.cross_entropy(jnp.zeros(3), logits[0]) == np.inf
    assert np.isnan(kl.cross_entropy(jnp.full(3, -jnp.inf), jnp.zeros(3)))
    assert float(kl.to_uniform(logits[1])) == pytest.approx(np.log(3))
    assert float(kl.to_uniform(logits[1], where=np.array([False, True, True]))) == pytest.approx(np.log(2))


def test_from_probs():
    """From the probabilities themselves: logarithms would lose what a small KL is made of."""
    p, _ = (np.asarray(jax.nn.softmax(x)) for x in pair(1.0))
    rng = np.random.default_rng(1)
    run = jax.jit(
        lambda p, q: (kl.categorical_from_probs(p, q), jax.grad(lambda q: kl.categorical_from_probs(p, q).sum())(q))
    )
    for size in (0.5, 1e-3, 1e-5):
        q = (p * (1 + size * rng.uniform(-1, 1, p.shape))).astype(np.float32)
        q = q / q.sum(-1, keepdims=True)
        wide = [x.astype(oracle.Extended) for x in (p, q)]
        wide = [x / x.sum(-1, keepdims=True) for x in wide]
        values, to_q = run(p, q)
        np.testing.assert_allclose(values, oracle.kl(np.log(wide[0]), np.log(wide[1])).astype(float), rtol=1e-5)
        np.testing.assert_allclose(to_q, (1 - wide[0] / wide[1]).astype(float), rtol=1e-3, atol=1e-5 * size)


def test_from_probs_zeros():
    p, q = jnp.asarray([0.5, 0.5, 0.0, 0.0]), jnp.asarray([0.25, 0.25, 0.5, 0.0])
    value, (to_p, to_q) = jax.value_and_grad(kl.categorical_from_probs, (0, 1))(p, q)
    assert float(value) == pytest.approx(np.log(2))
    np.testing.assert_allclose(to_p, 0, atol=1e-6)  # log p/q = KL in both classes, none at the zeros
    np.testing.assert_allclose(to_q, [-1, -1, 1, 1], rtol=1e-6)
    value, (_, to_q) = jax.value_and_grad(kl.categorical_from_probs, (0, 1))(q, p)
    assert value == np.inf
    np.testing.assert_allclose(to_q, [0.5, 0.5, -np.inf, 1.0])
    mask, exists = np.array([True, False]), np.array([True, True, True, False])
    rows = jnp.stack([p, jnp.full(4, jnp.nan)]).at[0, 3].set(7.0)
    gradient = jax.grad(lambda x: kl.categorical_from_probs(x, q, mask=mask, where=exists).sum())(rows)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(gradient[1], 0)


def test_log_probs_are_logits():
    p, q = pair(1e-3)
    log_p, log_q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
    found = kl.categorical_from_log_probs(log_p, log_q)
    np.testing.assert_allclose(found, oracle.kl(log_p, log_q).astype(float), rtol=1e-5)


def test_bernoulli():
    rng = np.random.default_rng(0)
    for size in (20.0, 1.0, 1e-5):
        p = rng.normal(size=50).astype(np.float32)
        q = (p + size * rng.normal(size=50)).astype(np.float32)
        logits = [np.stack([x, np.zeros_like(x)], -1) for x in (p, q)]
        np.testing.assert_allclose(kl.bernoulli(p, q), oracle.kl(*logits).astype(float), rtol=1e-5)
    inf = np.inf
    sure = kl.bernoulli(jnp.asarray([inf, -inf, inf, inf, 0.0]), jnp.asarray([0.0, 0.0, inf, -inf, inf]))
    np.testing.assert_allclose(sure, [np.log(2), np.log(2), 0, inf, inf], rtol=1e-6)
    gradient = jax.grad(lambda q: kl.bernoulli(jnp.asarray([inf, 0.5]), q).sum())(jnp.asarray([0.3, 0.2]))
    np.testing.assert_allclose(
        gradient, [jax.nn.sigmoid(0.3) - 1, jax.nn.sigmoid(0.2) - jax.nn.sigmoid(0.5)], rtol=1e-5
    )
    nan = kl.bernoulli(jnp.asarray([jnp.nan, 1.0]), 0.0, mask=np.array([False, True]))
    assert nan[0] == 0
    assert nan[1] > 0


def test_renyi_and_alpha_limits():
    p, q = pair(1.0)
    np.testing.assert_allclose(kl.renyi(p, q, alpha=1.0), kl.categorical(p, q), rtol=1e-6)
    np.testing.assert_allclose(kl.renyi(p, q, alpha=1 + 1e-6), kl.categorical(p, q), rtol=1e-5)
    np.testing.assert_allclose(kl.alpha_divergence(p, q, alpha=1.0), kl.categorical(p, q), rtol=1e-6)
    np.testing.assert_allclose(kl.alpha_divergence(p, q, alpha=1e-3), kl.categorical(q, p), rtol=1e-2)
    np.testing.assert_allclose(kl.renyi(p, q, alpha=0.5), kl.renyi(q, p, alpha=0.5), rtol=1e-5)
    apart = jnp.asarray([0.0, 0.0, -jnp.inf]), jnp.asarray([-jnp.inf, 0.0, 0.0])
    assert float(kl.renyi(*apart, alpha=0.5)) == pytest.approx(np.log(4))
    assert kl.renyi(*apart, alpha=2.0) == np.inf
    disjoint = jnp.asarray([0.0, -jnp.inf]), jnp.asarray([-jnp.inf, 0.0])
    assert kl.renyi(*disjoint, alpha=0.5) == np.inf
    assert float(kl.alpha_divergence(*disjoint, alpha=0.5)) == 4
    assert float(kl.jensen_shannon(*disjoint)) == pytest.approx(np.log(2))
    assert float(kl.total_variation(*disjoint)) == 1


def test_gradient_to_temperature_and_parameters():
    p, q = pair(1.0)

    def textbook(temperature):
        log_p, log_q = jax.nn.log_softmax(p / temperature), jax.nn.log_softmax(q / temperature)
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q))

    found = jax.jit(jax.grad(lambda t: kl.categorical(p, q, temperature=t).sum()))(1.7)
    np.testing.assert_allclose(found, jax.jit(jax.grad(textbook))(1.7), rtol=1e-4)
    for function, exact, at in (
        (lambda x: kl.jensen_shannon(p, q, beta=x), lambda x: oracle.jensen_shannon(p, q, beta=x), 0.3),
        (lambda x: kl.renyi(p, q, alpha=x), lambda x: oracle.renyi(p, q, alpha=x), 1.5),
    ):
        slope = (exact(at + 1e-5) - exact(at - 1e-5)).sum() / 2e-5
        found = jax.jit(jax.grad(lambda x, f=function: f(x).sum()))(at)
        np.testing.assert_allclose(found, float(slope), rtol=1e-4)


SHAPES = [((5,), -1), ((3, 4), -1), ((4, 3), 0), ((2, 3, 4), (0, -1))]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16]),
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    name=st.sampled_from(["categorical", "jensen_shannon", "skew"]),
)
def test_whatever_comes_in(shape, dtype, seed, scale, name):
    """Random logits with absent classes and rows that do not count, along any axes: the oracle's values."""
    function, exact = ORACLES[name]
    shape, axis = shape
    rng = np.random.default_rng(seed)
    p, q = (jnp.asarray(scale * rng.normal(size=shape), dtype) for _ in range(2))
    exists = rng.random(shape) < 0.7
    axes = (axis,) if isinstance(axis, int) else axis
    batch = tuple(n for i, n in enumerate(shape) if i not in [a % len(shape) for a in axes])
    mask = rng.random(batch) < 0.8
    values = np.asarray(function(p, q, axis=axis, where=exists, mask=mask))
    assert values.shape == batch
    assert values.dtype == np.float32
    assert np.all(values >= 0)

    def rows(x):
        moved = np.moveaxis(np.asarray(x), axes, range(-len(axes), 0))
        return moved.reshape(-1, int(np.prod([shape[a] for a in axes])))

    for value, a, b, here, counts in zip(
        values.reshape(-1),
        rows(p.astype(jnp.float32)),
        rows(q.astype(jnp.float32)),
        rows(exists),
        mask.reshape(-1),
        strict=True,
    ):
        expected = float(exact(a[here], b[here])) if counts and here.any() else 0.0
        assert value == pytest.approx(expected, rel=2e-5, abs=1e-30)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.zeros(3, int), np.zeros(3)), {}, r"p_logits: expected floating-point numbers, got int64\[3\]|int32\[3\]"),
        ((np.zeros((2, 3)), np.zeros((2, 4))), {}, "q_logits: expected 3 classes along axis -1 as p_logits has, got 4"),
        ((np.zeros((2, 3)), np.zeros((2, 1))), {}, "q_logits: expected 3 classes along axis -1 as p_logits has, got 1"),
        ((np.zeros((2, 3)), np.zeros((5, 3))), {}, "p_logits: expected shapes that broadcast"),
        ((np.zeros((2, 0)), np.zeros((2, 0))), {}, "p_logits: expected at least one class along axis -1"),
        ((1.0, 2.0), {}, "p_logits: expected an array with a class axis, got a scalar"),
        ((np.zeros(3), np.zeros(3)), {"temperature": -1.0}, "temperature: expected a positive number, got -1.0"),
        ((np.zeros(3), np.zeros(3)), {"temperature": 0.0}, "temperature: expected a positive number, got 0.0"),
        ((np.zeros(3), np.zeros(3)), {"temperature": np.nan}, "temperature: expected a positive number, got nan"),
        (
            (np.zeros((2, 3)), np.zeros(3)),
            {"temperature": np.ones(3)},
            "temperature: expected a shape that broadcasts|expected shapes that broadcast",
        ),
        (([np.zeros(3, np.float32)] * 2, np.zeros((2, 3))), {}, "p_logits: expected an array, got a list of arrays"),
        ((np.zeros(3), np.zeros(3)), {"axis": 1}, "axis: expected axes from -1 to 0, each once, got 1"),
        ((np.zeros((2, 3)), np.zeros((2, 3))), {"axis": (0, 0)}, "axis: expected axes from -2 to 1"),
        ((np.zeros((2, 3)), np.zeros((2, 3))), {"mask": np.ones(2, np.float32)}, "mask: expected booleans"),
        ((np.zeros((2, 3)), np.zeros((2, 3))), {"mask": np.ones((2, 3), bool)}, "mask: "),
        ((np.zeros((2, 3)), np.zeros((2, 3))), {"where": np.ones(2, bool)}, "where: "),
    ],
)
def test_bad_input(arguments, options, message):
    """While tracing too: shapes, dtypes and concrete numbers are known there."""
    arguments = [np.asarray(a, np.float32) if getattr(a, "dtype", None) == np.float64 else a for a in arguments]
    with pytest.raises((TypeError, ValueError), match=message):
        kl.categorical(*arguments, **options)
    with pytest.raises((TypeError, ValueError), match=message):
        jax.eval_shape(lambda *a: kl.categorical(*a, **options), *arguments)


def test_parameters_out_of_range():
    """A concrete one is refused, a traced one gives NaN."""
    p = jnp.zeros(3)
    for name, function, bad in (
        ("beta", kl.jensen_shannon, 1.5),
        ("beta", kl.jensen_shannon, -0.1),
        ("alpha", kl.skew, 1.01),
        ("alpha", kl.renyi, 0.0),
        ("alpha", kl.alpha_divergence, -1.0),
        ("temperature", kl.categorical, -1.0),
    ):
        with pytest.raises(ValueError, match=f"{name}: expected .*, got {bad}"):
            function(p, p + 1, **{name: bad})
        assert np.isnan(jax.jit(lambda x, f=function, n=name: f(p, p, **{n: x}))(bad))
    with pytest.raises(ValueError, match=r"beta: expected a scalar, got shape \(2,\)"):
        kl.jensen_shannon(p, p, beta=jnp.asarray([0.1, 0.2]))


def test_probabilities_that_do_not_sum_to_one():
    from jax.experimental import checkify

    good, bad = jnp.asarray([0.5, 0.5]), jnp.asarray([0.7, 0.7])
    kl.check_probabilities(good)
    kl.check_probabilities(jnp.stack([good, bad]), mask=np.array([True, False]))
    for call in (lambda: kl.check_probabilities(bad), lambda: kl.categorical_from_probs(bad, good)):
        with pytest.raises(ValueError, match=r"p: expected probabilities .* got a row whose sum is 1.4"):
            call()
    with pytest.raises(ValueError, match="q: expected probabilities"):
        kl.categorical_from_probs(good, jnp.asarray([1.5, -0.5]))
    assert np.isnan(jax.jit(kl.categorical_from_probs)(bad, good))
    error, _ = jax.jit(checkify.checkify(kl.check_probabilities))(bad)
    assert "sum to 1" in error.get()
    error, _ = jax.jit(checkify.checkify(kl.check_probabilities))(good)
    assert error.get() is None
    half = jax.nn.softmax(jnp.asarray(np.random.default_rng(0).normal(size=(20, 300)), jnp.float32)).astype(
        jnp.bfloat16
    )
    kl.check_probabilities(half)  # its rounding is no mistake


def test_another_parameter_compiles_nothing(compiles):
    p, q = pair(1.0)
    run = jax.jit(lambda p, q, t, b: kl.jensen_shannon(p, q, beta=b, temperature=t))
    run(p, q, 1.0, 0.5)
    before = compiles()
    run(q, p, 2.0, 0.25)
    assert compiles() == before
    kl.categorical(p, q)
    before = compiles()
    kl.categorical(q, p)
    assert compiles() == before


@pytest.mark.parametrize("gap", [2.0, 86.0, 88.0, 200.0, 1200.0])
def test_jensen_shannon_ends_where_a_side_underflows(gap):
    """Its KLs are finite there, and so must its ends be."""
    p, q = jnp.asarray([0.0, gap, 1.0]), jnp.asarray([gap, 0.0, 2.0])
    for beta, exact in ((0.0, kl.categorical(p, q)), (1.0, kl.categorical(q, p))):
        for b in (beta, jnp.asarray(beta)):  # the concrete one and, below, a traced one
            np.testing.assert_allclose(kl.jensen_shannon(p, q, beta=b), exact, rtol=1e-6)
        gradients = jax.jit(jax.grad(lambda p, q, b: kl.jensen_shannon(p, q, beta=b), (0, 1)))(p, q, beta)
        wanted = jax.grad(kl.categorical, (0, 1))(*((p, q) if beta == 0 else (q, p)))
        for found, right in zip(gradients, wanted if beta == 0 else wanted[::-1], strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-7)


def test_infinite_values_have_no_nan_gradient():
    """The convention of `categorical`: q − p where KL is infinite, and ±∞ to p."""
    p, q = jnp.asarray([0.0, 0.0, 0.0]), jnp.asarray([0.0, 0.0, -jnp.inf])
    apart = jnp.asarray([-jnp.inf, 0.0]), jnp.asarray([0.0, -jnp.inf])
    for name, function in (
        ("kl", kl.categorical),
        ("cross_entropy", kl.cross_entropy),
        ("skew", functools.partial(kl.skew, alpha=0.0)),
        ("renyi", functools.partial(kl.renyi, alpha=2.0)),
        ("alpha", functools.partial(kl.alpha_divergence, alpha=2.0)),
        ("jensen_shannon", functools.partial(kl.jensen_shannon, beta=0.0)),
        ("jeffreys", kl.jeffreys),
    ):
        value, (to_p, to_q) = jax.value_and_grad(function, (0, 1))(p, q)
        assert value == np.inf, name
        assert not np.any(np.isnan(to_p)), name
        if name != "jeffreys":
            assert not np.any(np.isnan(to_q)), name
    half = functools.partial(kl.alpha_divergence, alpha=0.5)
    value, gradients = jax.value_and_grad(half, (0, 1))(*apart)
    assert value == 4
    np.testing.assert_array_equal(np.concatenate(gradients), 0)
    far = jnp.asarray([0.0, 100.0]), jnp.asarray([100.0, 0.0])
    value, gradients = jax.value_and_grad(functools.partial(kl.alpha_divergence, alpha=2.0), (0, 1))(*far)
    assert value == np.inf
    assert not np.any(np.isnan(np.concatenate(gradients)))


def test_cross_entropy_gradient_keeps_its_digits():
    """To q it is that of KL, q − p."""
    p, q = pair(1e-4)
    to_q = jax.grad(lambda q: kl.cross_entropy(p, q).sum())(q)
    exact = oracle.kl_gradients(p, q)[1].astype(float)
    assert np.linalg.norm(to_q - exact) < 1e-5 * np.linalg.norm(exact)


@pytest.mark.slow
def test_no_nan_is_formed_on_the_way():
    """With jax_debug_nans, which sees a NaN in what is computed and not selected when it is run op by op."""
    import subprocess
    import sys

    code = """
import jax, jax.numpy as jnp
jax.config.update("jax_debug_nans", True)
from vi_kit import kl
inf = jnp.inf
one = [1.0, 0.0, 0.5]
for p, q in (([0.0, 1.0, 2.0], one), ([0.0, -inf, 2.0], [1.0, -inf, 0.5]), ([0.0, -inf, -inf], one)):
    p, q = jnp.asarray(p), jnp.asarray(q)
    for f in (kl.categorical, kl.jensen_shannon, kl.skew, kl.jeffreys, kl.total_variation, kl.cross_entropy):
        jax.value_and_grad(lambda p, q: f(p, q, temperature=2.0), (0, 1) if p[1] > -inf or q[1] > -inf else 1)(p, q)
    kl.renyi(p, q, alpha=0.5), kl.entropy(p), kl.to_uniform(p)
kl.estimate(jnp.zeros(4), jnp.zeros(4), estimator=kl.control_variate)
print("done")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert result.stdout.strip() == "done", result.stderr[-2000:]


def test_explicitly_sharded_arrays():
    """Large ones are not taken in blocks of rows, which would gather them."""
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    mesh = jax.make_mesh((2,), ("rows",), axis_types=(AxisType.Explicit,))
    p, q = (np.random.default_rng(i).normal(size=(1100, 1000)).astype(np.float32) for i in range(2))
    with jax.set_mesh(mesh):
        sharded = [jax.device_put(x, NamedSharding(mesh, PartitionSpec("rows"))) for x in (p, q)]
        values = kl.categorical(*sharded)
    np.testing.assert_allclose(np.asarray(values)[:3], kl.categorical(p[:3], q[:3]), rtol=1e-6)
