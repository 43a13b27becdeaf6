"""The edge cases a KL meets inside a model, one test a row: what is required, and what other libraries answer there.

Fused, sampled, reduced and Gaussian rows are with their own functions' tests. The peers' answers were measured on
the same inputs; `experiments/kl_accuracy` measures them again.
"""

import functools

import dense_oracles as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vi_kit.kl as kl

INF = np.inf
DIVERGENCES = {
    "categorical": kl.categorical,
    "from_log_probs": kl.categorical_from_log_probs,
    "jensen_shannon": kl.jensen_shannon,
    "normalized": functools.partial(kl.jensen_shannon, beta=0.3, normalize=True),
    "skew": kl.skew,
    "jeffreys": kl.jeffreys,
    "renyi_half": functools.partial(kl.renyi, alpha=0.5),
    "renyi_two": functools.partial(kl.renyi, alpha=2.0),
    "alpha_half": functools.partial(kl.alpha_divergence, alpha=0.5),
    "total_variation": kl.total_variation,
}
DEFAULT = {"categorical", "normalized", "skew", "renyi_half"}  # the others share their code: `-m slow` has them all
every_divergence = pytest.mark.parametrize(
    "divergence",
    [pytest.param(f, id=name, marks=() if name in DEFAULT else pytest.mark.slow) for name, f in DIVERGENCES.items()],
)


few_divergences = pytest.mark.parametrize(
    "divergence",
    [
        pytest.param(f, id=name, marks=() if name in {"categorical", "normalized"} else pytest.mark.slow)
        for name, f in DIVERGENCES.items()
    ],
)


def array(*values):
    return jnp.asarray(values, jnp.float32)


def both(function, p, q):
    """Value a row, and the gradients of their sum."""

    @jax.jit
    def run(p, q):
        values, pull = jax.vjp(function, p, q)
        return values, pull(jnp.ones_like(values))

    return jax.tree.map(np.asarray, run(p, q))


def distance(found, exact):
    """Return the relative error in norm, row by row."""
    exact = np.asarray(exact)
    return np.linalg.norm((found - exact).astype(float), axis=-1) / np.linalg.norm(exact.astype(float), axis=-1)


def perturbed(num_classes, size, num_rows=2, seed=0):
    rng = np.random.default_rng(seed)
    p = (3 * rng.normal(size=(num_rows, num_classes))).astype(np.float32)
    return p, (p + size * rng.normal(size=p.shape)).astype(np.float32)


@every_divergence
def test_row_1_equal_is_zero(divergence):
    """Bitwise, with absent classes too. optax's log-target form: NaN."""
    logits = array([1.0, 2.0, -INF, 0.3], [0.1, -1e4, 30.0, 29.0])
    value, gradients = both(divergence, logits, logits)
    np.testing.assert_array_equal(value, 0)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("num_classes", [2, 10, 1000, 32_000, 128_256])
def test_row_2_nearly_equal(num_classes):
    """A perturbation of 1e-4 at V = 1000: optax is off by a factor of −39; at 1e-5 and V = 128 256 by −740."""
    sizes = (8.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5) if num_classes < 100_000 else (8.0, 1e-3, 1e-5)
    rows = max(1, min(30, 10_000 // num_classes))
    for seed, size in enumerate(sizes):
        p, q = perturbed(num_classes, size, rows, seed)
        value, (to_p, to_q) = both(kl.categorical, p, q)
        assert np.all(value >= 0)
        np.testing.assert_allclose(value, oracle.kl(p, q).astype(float), rtol=1e-5, err_msg=f"{size}")
        exact_p, exact_q = oracle.kl_gradients(p, q)
        assert distance(to_p, exact_p).max() < 1e-5, size
        assert distance(to_q, exact_q).max() < 1e-5, size


def test_row_2_the_textbook_form_would_fail():
    """Negative control: the check sees what every other library does."""
    p, q = perturbed(1000, 1e-4)
    log_p, log_q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
    textbook = jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1)
    assert np.max(np.abs(textbook / oracle.kl(p, q).astype(np.float32) - 1)) > 1


@pytest.mark.parametrize("shift", [1e3, -1e3])
@pytest.mark.parametrize("size", [1.0, 1e-2, 1e-3])
def test_row_3_shift(shift, size):
    """Either logits moved by a constant, against the exact KL of the moved float32 numbers."""
    p, q = perturbed(50, size)
    for moved_p, moved_q in ((p + np.float32(shift), q), (p, q + np.float32(shift)), (p + np.float32(shift),) * 2):
        value, (to_p, to_q) = both(kl.categorical, moved_p, moved_q)
        np.testing.assert_allclose(value, oracle.kl(moved_p, moved_q).astype(float), rtol=1e-5, atol=0)
        if np.any(moved_p != moved_q):
            exact_p, exact_q = oracle.kl_gradients(moved_p, moved_q)
            assert distance(to_p, exact_p).max() < 1e-5
            assert distance(to_q, exact_q).max() < 1e-5


ROWS = {  # p's logits, q's logits, peers
    "dense": (array(1, 2, 0.3, 0.5), array(0.3, 1, 0.7, 0), "all right"),
    "same mask": (array(1, 2, -INF, 0.5), array(0.3, 1, -INF, 0), "optax, torch NaN; numpyro NaN gradient"),
    "p zero": (array(1, 2, -INF, 0.5), array(0.3, 1, 0.2, 0), "optax NaN (gradient); keras clips: 0.740145"),
    "one-hot": (array(0, -INF, -INF, -INF), array(0.3, 1, 0.2, 0), "optax, torch, TRL NaN"),
    "-1e4 in both": (array(1, 2, -1e4, 0.5), array(0.3, 1, -1e4, 0), "optax and numpyro NaN gradient"),
    "q at -200": (array(1, 2, 0.3, 0.5), array(0.3, 1, -200, 0), "numpyro, rel_entr inf; keras 4.127"),
    "q at -1e4": (array(1, 2, 0.3, 0.5), array(0.3, 1, -1e4, 0), "the same"),
    "far apart": (array(0, -60, -70), array(-60, 0, -90), "right"),
    "q overflows against p": (array(0, -200, 1), array(-200, 0, -100), "right"),
}


@pytest.mark.parametrize("row", ROWS)
def test_rows_4_5_7_zeros_masks_and_far_tails(row):
    p, q, _ = ROWS[row]
    value, (to_p, to_q) = both(kl.categorical, p, q)
    exact_p, exact_q = oracle.kl_gradients(p, q)
    np.testing.assert_allclose(value, float(oracle.kl(p, q)), rtol=1e-5)
    np.testing.assert_allclose(to_p, np.where(np.isneginf(p), 0, exact_p.astype(float)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_q, exact_q.astype(float), rtol=1e-5, atol=1e-6)
    assert np.all(to_p[np.isneginf(p)] == 0)


@every_divergence
def test_row_5_where_is_absence(divergence):
    """Classes that do not exist may hold NaN, and all is as if they were not there."""
    p, q = perturbed(6, 1.0)
    exists = np.array([True, False, True, True, False, True])
    holes = [jnp.where(exists, x, jnp.asarray([0, jnp.nan, 0, 0, jnp.inf, 0], jnp.float32)) for x in (p, q)]
    value, gradients = both(functools.partial(divergence, where=exists), *holes)
    small_value, small_gradients = both(divergence, p[:, exists], q[:, exists])
    np.testing.assert_allclose(value, small_value, rtol=1e-6)
    for gradient, small in zip(gradients, small_gradients, strict=True):
        np.testing.assert_array_equal(gradient[:, ~exists], 0)
        np.testing.assert_allclose(gradient[:, exists], small, rtol=1e-5, atol=1e-8)


def test_row_6_infinite():
    """Nothing is clipped (keras: 4.127), and q's gradient stays q − p (rel_entr: 0, silently)."""
    p, q = array(1, 2, 0.3, 0.5), array(0.3, 1, -INF, 0)
    value, (to_p, to_q) = both(kl.categorical, p, q)
    assert value == INF
    np.testing.assert_allclose(to_q, jax.nn.softmax(q) - jax.nn.softmax(p), rtol=1e-5)
    np.testing.assert_array_equal(to_p, [-INF, -INF, INF, -INF])


@every_divergence
def test_row_8_rows_that_do_not_count(divergence):
    p, q = perturbed(5, 1.0, num_rows=3)
    bad = p.copy()
    bad[1], bad[2] = np.nan, [INF, 1, 2, -INF, 0]
    mask = np.array([True, False, False])
    value, gradients = both(functools.partial(divergence, mask=mask), bad, q)
    np.testing.assert_allclose(value, [float(divergence(p[0], q[0])), 0, 0], rtol=1e-6)
    for gradient in gradients:
        assert np.all(np.isfinite(gradient))
        np.testing.assert_array_equal(gradient[1:], 0)
        assert np.all(gradient[0] != 0)
    nothing = np.zeros((3, 5), bool)
    value, gradients = both(functools.partial(divergence, where=nothing), bad, q)
    np.testing.assert_array_equal(value, 0)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0)


@every_divergence
def test_row_10_cold(divergence):
    """A temperature of 0.05 and logits of ±30: others' reverse KL and Jensen–Shannon gradients are NaN there."""
    rng = np.random.default_rng(0)
    p, q = (rng.uniform(-30, 30, (8, 20)).astype(np.float32) for _ in range(2))
    value, gradients = both(functools.partial(divergence, temperature=0.05), p, q)
    assert np.all(np.isfinite(value))
    for gradient in gradients:
        assert np.all(np.isfinite(gradient))
    exact = oracle.kl(p, q, temperature=float(np.float32(0.05)))
    np.testing.assert_allclose(kl.categorical(p, q, temperature=0.05), exact.astype(float), rtol=1e-5)


def test_row_10_warm():
    """Temperature enters after the difference of the logits: nearly equal ones keep their digits."""
    p, q = perturbed(100, 1e-4)
    for temperature in (0.3, 7.0, 1e3):
        value, (to_p, to_q) = both(functools.partial(kl.categorical, temperature=temperature), p, q)
        given = float(np.float32(temperature))
        np.testing.assert_allclose(value, oracle.kl(p, q, given).astype(float), rtol=1e-5)
        exact_p, exact_q = oracle.kl_gradients(p, q, given)
        assert distance(to_p, exact_p).max() < 1e-5
        assert distance(to_q, exact_q).max() < 1e-5


@few_divergences
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_row_11_half_precision(divergence, dtype):
    """Computed in float32; peers in bfloat16 are off by −100 % to +290 % at a perturbation of 0.1 to 0.01."""
    p, q = perturbed(40, 0.1)
    p, q = jnp.asarray(p, dtype), jnp.asarray(q, dtype)
    value, gradients = both(divergence, p, q)
    full, full_gradients = both(divergence, p.astype(jnp.float32), q.astype(jnp.float32))
    assert value.dtype == np.float32
    np.testing.assert_allclose(value, full, rtol=1e-6)
    for gradient, exact in zip(gradients, full_gradients, strict=True):
        assert gradient.dtype == dtype
        np.testing.assert_array_equal(gradient, exact.astype(dtype))
    if dtype == jnp.float16:
        wide = jnp.asarray([[6e4, -6e4, 0.0]], dtype)
        value, gradients = both(divergence, wide, -wide)
        assert not np.any(np.isnan(value))


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 1.0])
def test_row_12_both_underflow(beta):
    """Liger's Jensen–Shannon is NaN where both probabilities underflow."""
    for depth in (-104.0, -1e4, -1e30):
        p, q = array(1, depth, 0.3, depth), array(0.5, depth, 0.9, 2 * depth)
        value, gradients = both(functools.partial(kl.jensen_shannon, beta=beta), p, q)
        exact = oracle.jensen_shannon(p[np.array([0, 2])], q[np.array([0, 2])], beta=float(np.float32(beta)))
        np.testing.assert_allclose(value, float(exact), rtol=1e-5)
        for gradient in gradients:
            assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("size", [1.0, 1e-4])
@pytest.mark.parametrize("beta", [0.0, 1e-8, 1e-3, 0.5, 0.999, 1 - 1e-7, 1.0])
def test_row_13_ends_of_beta(beta, size):
    """By GKD's convention the ends are the KLs, a factor 1000 above β = 0.001; normalized, it is continuous."""
    p, q = perturbed(4, size)
    beta = float(np.float32(beta))
    for normalize in (False, True):
        function = functools.partial(kl.jensen_shannon, beta=beta, normalize=normalize)
        value, (to_p, to_q) = both(function, p, q)
        exact = functools.partial(oracle.jensen_shannon, beta=beta, normalize=normalize)
        np.testing.assert_allclose(value, exact(p, q).astype(float), rtol=1e-5)
        step = 1e-3 * size
        assert distance(to_p, oracle.numerical_gradient(lambda x, f=exact: f(x, q), p, step)).max() < 2e-5
        assert distance(to_q, oracle.numerical_gradient(lambda x, f=exact: f(p, x), q, step)).max() < 2e-5
    if beta in (0, 1):
        forward, reverse = kl.categorical(p, q), kl.categorical(q, p)
        for normalize in (False, True):
            found = kl.jensen_shannon(p, q, beta=beta, normalize=normalize)
            np.testing.assert_allclose(found, forward if beta == 0 else reverse, rtol=1e-6)


def test_row_13_the_three_conventions_differ():
    """One fixed pair of four classes: 0.0027 at β = 0.001 where the ends are 2.7 (TRL, Liger and the GKD paper)."""
    p, q = perturbed(4, 2.0, num_rows=1)
    near, end = kl.jensen_shannon(p, q, beta=0.001)[0], kl.jensen_shannon(p, q, beta=0.0)[0]
    assert end / near > 500
    normalized = kl.jensen_shannon(p, q, beta=0.001, normalize=True)[0]
    np.testing.assert_allclose(normalized, end, rtol=0.02)


@few_divergences
def test_row_14_shapes(divergence):
    p, q = perturbed(6, 1.0, num_rows=3)
    value = divergence(p, q)
    assert divergence(p[:, :1], q[:, :1]).tolist() == [0, 0, 0]  # one class
    assert divergence(p[:0], q[:0]).shape == (0,)
    assert divergence(p[0], q[0]).shape == ()
    np.testing.assert_allclose(divergence(p[:1], q), [float(divergence(p[0], row)) for row in q], rtol=1e-6)
    np.testing.assert_allclose(divergence(p[0], q), divergence(p[:1], q), rtol=1e-6)
    np.testing.assert_allclose(divergence(p.T, q.T, axis=0), value, rtol=1e-6)
    pair = divergence(p.reshape(3, 2, 3), q.reshape(3, 2, 3), axis=(1, 2))
    np.testing.assert_allclose(pair, value, rtol=1e-6)
    split = divergence(p.reshape(3, 2, 3).swapaxes(0, 1), q.reshape(3, 2, 3).swapaxes(0, 1), axis=(0, -1))
    np.testing.assert_allclose(split, value, rtol=1e-6)
    to_first = jax.grad(lambda x: divergence(x, q).sum())(p[0])  # broadcast: the gradients add up
    each = jax.grad(lambda x: divergence(x, q).sum())(jnp.broadcast_to(p[0], q.shape))
    np.testing.assert_allclose(to_first, each.sum(0), rtol=1e-5, atol=1e-7)


@few_divergences
def test_row_16_transformations(divergence):
    p, q = perturbed(5, 1.0, num_rows=3)
    value, (to_p, to_q) = both(divergence, p, q)
    np.testing.assert_allclose(jax.vmap(divergence)(p, q), value, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(divergence, in_axes=(0, None))(p, q[0]), divergence(p, q[0]), rtol=1e-6)
    direction = np.random.default_rng(1).normal(size=(2, *p.shape)).astype(np.float32)
    _, moved = jax.jvp(lambda p, q: divergence(p, q).sum(), (p, q), (direction[0], direction[1]))
    np.testing.assert_allclose(moved, np.sum(to_p * direction[0] + to_q * direction[1]), rtol=1e-4)


@pytest.mark.parametrize(
    ("divergence", "curvature"),
    [
        (kl.categorical, 1.0),
        pytest.param(functools.partial(kl.jensen_shannon, beta=0.3), 0.21, marks=pytest.mark.slow),
        (functools.partial(kl.jensen_shannon, beta=0.3, normalize=True), 1.0),
        (kl.skew, 0.81),
        pytest.param(kl.jeffreys, 2.0, marks=pytest.mark.slow),
        (functools.partial(kl.renyi, alpha=0.5), 0.5),
        pytest.param(functools.partial(kl.renyi, alpha=1.0), 1.0, marks=pytest.mark.slow),
        (functools.partial(kl.renyi, alpha=2.0), 2.0),
        (functools.partial(kl.alpha_divergence, alpha=0.5), 1.0),
    ],
)
def test_row_16_hessian_at_equality_is_fisher(divergence, curvature):
    """Times the second derivative of the divergence's generator."""
    logits = jnp.asarray(np.random.default_rng(0).normal(size=5), jnp.float32)
    p = jax.nn.softmax(logits)
    fisher = curvature * (jnp.diag(p) - p[:, None] * p[None, :])

    @jax.jit
    def hessians(x, y):
        return jax.jacfwd(jax.jacrev(divergence, argnums=(0, 1)), argnums=(0, 1))(x, y)

    (pp, pq), (qp, qq) = hessians(logits, logits)
    for found, exact in ((pp, fisher), (pq, -fisher), (qp, -fisher), (qq, fisher)):
        np.testing.assert_allclose(found, exact, atol=1e-5 * curvature)
    assert np.linalg.eigvalsh(np.asarray(qq, np.float64)).min() > -1e-6


def skew_textbook(p, q):
    return (jnp.exp(p) * (jnp.where(jnp.isfinite(p), p, 0) - jnp.log(0.1 * jnp.exp(p) + 0.9 * jnp.exp(q)))).sum()


def test_row_16_hessian_elsewhere(x64):
    """Against the textbook form in double precision, through masks and zeros of p."""
    rng = np.random.default_rng(0)
    p, q = rng.normal(size=(2, 5))
    p[1] = -INF
    for divergence, textbook in (
        (kl.categorical, lambda p, q: (jnp.exp(p) * (jnp.where(jnp.isfinite(p), p, 0) - q)).sum()),
        (kl.skew, skew_textbook),
    ):
        exact = jax.hessian(lambda q, f=textbook: f(jax.nn.log_softmax(p), jax.nn.log_softmax(q)))(q)
        np.testing.assert_allclose(jax.hessian(lambda q, f=divergence: f(p, q))(q), exact, atol=1e-12)


@pytest.mark.parametrize("divergence", [kl.categorical, functools.partial(kl.jensen_shannon, beta=0.3)])
def test_large_arrays_give_what_small_ones_do(divergence):
    """On a CPU they are taken in blocks of rows; with a remainder, under vmap, with a temperature and a mask a row."""
    rng = np.random.default_rng(0)
    p, q = rng.normal(size=(2, 3, 177, 2048)).astype(np.float32)
    options = {"mask": rng.random((3, 177)) < 0.9, "temperature": rng.uniform(0.5, 2, (3, 177)).astype(np.float32)}
    value, gradients = both(functools.partial(divergence, **options), p, q)
    part = {name: option[1, 5:8] for name, option in options.items()}
    small, small_gradients = both(functools.partial(divergence, **part), p[1, 5:8], q[1, 5:8])
    np.testing.assert_allclose(value[1, 5:8], small, rtol=2e-6)
    for gradient, exact in zip(gradients, small_gradients, strict=True):
        np.testing.assert_allclose(gradient[1, 5:8], exact, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(jax.vmap(divergence)(p, q), divergence(p, q), rtol=2e-6)
