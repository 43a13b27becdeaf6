"""KL from a teacher's k largest probabilities, against the coarse distributions in extended precision."""

import dense_oracles as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

import vi_kit.kl as kl

CLASSES, K = 9, 3
RNG = np.random.default_rng(0)
TEACHER, STUDENT = (np.float32(2 * RNG.normal(size=(4, CLASSES))) for _ in range(2))
COMPILED = jax.jit(kl.top_k, static_argnames=("tail", "axis"))


def top(logits, k=K):
    """Return the k largest log probabilities and their indices, rounded to float32 once."""
    log_probs = np.float64(logits) - special.logsumexp(np.float64(logits), axis=-1, keepdims=True)
    index = np.argsort(-log_probs, axis=-1)[..., :k]
    return np.float32(np.take_along_axis(log_probs, index, -1)), index.astype(np.int32)


def exact(log_probs, index, q_logits, tail):
    """Return the KL of the coarse distributions, row by row."""
    values = []
    for p, i, q in zip(log_probs, index, q_logits, strict=True):
        p, q = np.asarray(p).astype(np.longdouble), np.asarray(q).astype(np.longdouble)
        rest = np.setdiff1d(np.arange(q.size), i)
        p_coarse, q_coarse = p, q[i]
        if tail is kl.bucket and rest.size:
            p_coarse = np.append(p, np.log1p(-np.exp(p).sum()))
            q_coarse = np.append(q_coarse, np.log(np.exp(q[rest]).sum()))
        values.append(oracle.kl(p_coarse, q_coarse))
    return np.array(values)


@pytest.mark.parametrize("tail", [kl.bucket, kl.renormalize])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_against_the_coarse_distributions(tail, k):
    log_probs, index = top(TEACHER, k)
    expected = np.float64(exact(log_probs, index, STUDENT, tail))
    np.testing.assert_allclose(COMPILED(log_probs, index, STUDENT, tail=tail), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("tail", [kl.bucket, kl.renormalize])
@pytest.mark.parametrize("absent", [False, True])
def test_all_classes_give_the_full_kl(tail, absent):
    """A class that the teacher lacks included, and no gradient is NaN though nothing is left for the tail."""
    teacher = TEACHER.copy()
    if absent:
        teacher[:, 2] = -np.inf
    with np.errstate(divide="ignore"):
        log_probs, index = top(teacher, CLASSES)

    def value(p, q):
        return COMPILED(p, index, q, tail=tail)

    np.testing.assert_allclose(value(log_probs, STUDENT), oracle.kl(teacher, STUDENT).astype(float), rtol=1e-5)
    to_p, to_q = jax.grad(lambda p, q: value(p, q).sum(), argnums=(0, 1))(log_probs, STUDENT)
    p_exact, q_exact = oracle.kl_gradients(teacher, STUDENT)
    np.testing.assert_allclose(to_q, q_exact.astype(float), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_p, np.take_along_axis(p_exact.astype(float), index, -1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tail", [kl.bucket, kl.renormalize])
def test_gradients_against_differences(tail):
    log_probs, index = top(TEACHER)
    to_p, to_q = jax.grad(lambda p, q: COMPILED(p, index, q, tail=tail).sum(), argnums=(0, 1))(log_probs, STUDENT)
    expected = oracle.numerical_gradient(lambda q: exact(log_probs, index, q, tail), STUDENT)
    np.testing.assert_allclose(to_q, expected.astype(float), rtol=1e-4, atol=1e-6)
    expected = oracle.numerical_gradient(lambda p: exact(p, index, STUDENT, tail), log_probs)
    np.testing.assert_allclose(to_p, expected.astype(float), rtol=1e-4, atol=1e-5)
    if tail is kl.renormalize:  # the classes outside take no part
        outside = np.ones((4, CLASSES), bool)
        np.put_along_axis(outside, index, False, -1)
        np.testing.assert_array_equal(np.asarray(to_q)[outside], 0.0)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 9]), st.floats(1e-5, 8.0))
def test_the_bucket_is_a_lower_bound_and_nothing_is_negative(seed, k, size):
    """verl drops the tail from the plain sum, which is negative where q puts more on the top than p (verl#7806)."""
    rng = np.random.default_rng(seed)
    teacher = np.float32(3 * rng.normal(size=(4, CLASSES)))
    student = np.float32(teacher + size * rng.normal(size=(4, CLASSES)))
    log_probs, index = top(teacher, k)
    full = np.float64(oracle.kl(teacher, student))
    bucket = np.asarray(COMPILED(log_probs, index, student, tail=kl.bucket))
    # p's tail is known to 1e-7 only: the bound holds up to the square of that over the tail.
    tail = np.maximum(1 - np.exp(np.float64(log_probs)).sum(-1), 1e-6)
    assert np.all(bucket <= full * (1 + 1e-5) + 3e-7 * np.sqrt(full / tail) + 1e-13 / tail)
    assert np.all(bucket >= 0)
    assert np.all(np.asarray(COMPILED(log_probs, index, student, tail=kl.renormalize)) >= 0)


def test_the_plain_sum_would_be_negative():
    log_probs, index = top(np.float32([[1.0, 0.0, 0.0, 0.0]]), 1)
    student = np.float32([[5.0, 0.0, 0.0, 0.0]])
    plain = (np.exp(log_probs) * (log_probs - jax.nn.log_softmax(student)[:, :1])).sum()
    assert plain < -0.1
    assert COMPILED(log_probs, index, student)[0] > 0.1


def test_the_tail_tells_what_renormalizing_cannot():
    """A student that agrees on the top and puts nearly all of its mass elsewhere."""
    log_probs, index = top(np.float32([[3.0, 2.0, -9.0, -9.0]]), 2)
    student = np.float32([[3.0, 2.0, 12.0, 12.0]])
    assert COMPILED(log_probs, index, student, tail=kl.renormalize)[0] < 1e-6
    assert COMPILED(log_probs, index, student, tail=kl.bucket)[0] > 5


@pytest.mark.parametrize("shift", [-1e3, 1e3])
def test_a_shift_of_the_logits_changes_nothing(shift):
    log_probs, index = top(TEACHER)
    shifted = STUDENT + np.float32(shift)
    for tail in (kl.bucket, kl.renormalize):
        expected = np.float64(exact(log_probs, index, np.float64(shifted) - shift, tail))
        np.testing.assert_allclose(COMPILED(log_probs, index, shifted, tail=tail), expected, rtol=5e-5)


@pytest.mark.parametrize(("size", "bucket_error"), [(1.0, 1e-6), (1e-1, 3e-5), (1e-2, 3e-4), (1e-4, 3e-2)])
def test_nearly_equal_distributions(size, bucket_error):
    """Renormalized log probabilities keep their digits; 1 − Σ p has an error of 1e-7."""
    rng = np.random.default_rng(1)
    teacher = np.float32(2 * rng.normal(size=(8, 1000)))
    student = np.float32(teacher + size * rng.normal(size=teacher.shape))
    log_probs, index = top(teacher, 16)
    for tail, tolerance in ((kl.bucket, bucket_error), (kl.renormalize, 1e-5)):
        expected = np.float64(exact(log_probs, index, student, tail))
        np.testing.assert_allclose(COMPILED(log_probs, index, student, tail=tail), expected, rtol=tolerance)


def test_a_sure_student_keeps_its_tail():
    """1 − Σ q is 0 in float32, log of it −∞; q's tail is e^-40."""
    log_probs, index = top(np.float32([[1.0, 0.0, 0.0]]), 1)
    student = np.float32([[40.0, 0.0, 0.0]])
    expected = np.float64(exact(log_probs, index, student, kl.bucket))
    np.testing.assert_allclose(COMPILED(log_probs, index, student), expected, rtol=1e-6)


@pytest.mark.parametrize("tail", [kl.bucket, kl.renormalize])
def test_classes_that_do_not_exist(tail):
    """They may hold anything; a top class among them is dropped and p normalized again, as in the dense KL."""
    where = np.arange(CLASSES) < 6
    student = np.where(where, STUDENT, np.nan).astype(np.float32)
    log_probs, index = top(TEACHER[:, :6])
    value, pull = jax.vjp(lambda q: COMPILED(log_probs, index, q, tail=tail, where=where), student)
    np.testing.assert_allclose(value, np.float64(exact(log_probs, index, STUDENT[:, :6], tail)), rtol=1e-5)
    (gradient,) = pull(jnp.ones_like(value))
    assert jnp.all(jnp.isfinite(gradient))
    np.testing.assert_array_equal(gradient[:, 6:], 0.0)
    full = COMPILED(*top(TEACHER, CLASSES), student, tail=tail, where=where)
    np.testing.assert_allclose(full, np.float64(oracle.kl(TEACHER[:, :6], STUDENT[:, :6])), rtol=1e-5)


def test_a_student_without_a_tail_is_infinitely_far():
    """Its gradient is finite, as that of the dense KL."""
    log_probs, index = top(np.float32([[1.0, 0.0, 0.0]]), 1)
    value, gradient = jax.value_and_grad(lambda q: COMPILED(log_probs, index, q).sum())(
        np.float32([[0.0, -np.inf, -np.inf]])
    )
    assert value == np.inf
    assert jnp.all(jnp.isfinite(gradient))


def test_rounding_leaves_nothing_for_the_tail():
    """A sum of 1 or a little more: only the top is compared, and no gradient is NaN."""
    log_probs = np.log(np.float32([[0.7, 0.3], [0.7 * 1.0005, 0.3 * 1.0005]]))
    index = np.array([[0, 2], [0, 2]])
    value, pull = jax.vjp(lambda p, q: COMPILED(p, index, q), log_probs, STUDENT[:2])
    p = np.zeros(CLASSES)
    p[[0, 2]] = 0.7, 0.3
    q = special.softmax(np.float64(STUDENT[:2]), axis=-1)
    np.testing.assert_allclose(value, special.rel_entr(p, q).sum(-1), rtol=1e-5)
    to_p, to_q = pull(jnp.ones_like(value))
    np.testing.assert_allclose(to_q, q - p, atol=1e-6)
    assert jnp.all(jnp.isfinite(to_p))


def test_half_precision_log_probs_may_sum_to_more():
    """bfloat16 log probabilities are off by up to a hundredth: that is rounding, the same in float32 is a mistake."""
    log_probs = jnp.asarray(np.log([[0.61, 0.42]]), jnp.bfloat16)
    index, student = np.array([[0, 2]]), jnp.asarray(STUDENT[:1], jnp.bfloat16)
    value, gradient = jax.value_and_grad(lambda q: COMPILED(log_probs, index, q).sum())(student)
    assert (value.dtype, gradient.dtype) == (jnp.float32, jnp.bfloat16)
    assert jnp.isfinite(value)
    with pytest.raises(ValueError, match=r"^p_top_log_probs: expected probabilities whose sum is at most 1"):
        kl.top_k(log_probs.astype(jnp.float32), index, student)


@pytest.mark.parametrize("tail", [kl.bucket, kl.renormalize])
def test_padding(tail):
    """Fewer classes in one row than in another: log probability −∞ with an index out of range."""
    log_probs, index = top(TEACHER)
    expected = [
        exact(p[None, :k], i[None, :k], q[None], tail)[0]
        for p, i, q, k in zip(log_probs, index, STUDENT, (3, 2, 1, 3), strict=True)
    ]
    log_probs[1, 2:], index[1, 2:] = -np.inf, -1
    log_probs[2, 1:], index[2, 1:] = -np.inf, [CLASSES, -1]
    value, pull = jax.vjp(lambda p, q: COMPILED(p, index, q, tail=tail), log_probs, STUDENT)
    np.testing.assert_allclose(value, np.float64(expected), rtol=1e-5, atol=1e-7)
    for gradient in pull(jnp.ones_like(value)):
        assert jnp.all(jnp.isfinite(gradient))
    np.testing.assert_allclose(kl.top_k(log_probs, index, STUDENT, tail=tail), value, rtol=1e-6)


def test_rows_that_do_not_count_may_hold_anything():
    log_probs, index = top(TEACHER)
    mask = np.array([True, False, True, False])
    expected = np.float64(exact(log_probs, index, STUDENT, kl.bucket))
    broken_p, broken_index, broken_q = log_probs.copy(), index.copy(), STUDENT.copy()
    broken_p[1], broken_index[1], broken_q[1] = np.nan, -100, np.nan
    broken_p[3], broken_index[3], broken_q[3] = 3.0, 7, np.inf
    value, pull = jax.vjp(lambda p, q: COMPILED(p, broken_index, q, mask=mask), broken_p, broken_q)
    np.testing.assert_allclose(value, np.where(mask, expected, 0.0), rtol=1e-5)
    for gradient in pull(jnp.ones_like(value)):
        assert jnp.all(jnp.isfinite(gradient))
        np.testing.assert_array_equal(gradient[~mask], 0.0)
    np.testing.assert_allclose(kl.top_k(broken_p, broken_index, broken_q, mask=mask), value, rtol=1e-6)


def test_axes_broadcasting_and_vmap():
    log_probs, index = top(TEACHER)
    expected = np.float64(exact(log_probs, index, STUDENT, kl.bucket))
    np.testing.assert_allclose(COMPILED(log_probs.T, index.T, STUDENT.T, axis=0), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(COMPILED)(log_probs, index, STUDENT), expected, rtol=1e-5)
    np.testing.assert_allclose(COMPILED(log_probs[0], index[0], STUDENT)[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(COMPILED(log_probs, index.astype(np.int8), STUDENT[:1])[0], expected[0], rtol=1e-5)
    assert jax.eval_shape(kl.top_k, log_probs[:0], index[:0], STUDENT[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"index": [[0, 1, 9]]}, ValueError, r"^p_top_indices: expected class indices from 0 to 8"),
        ({"index": [[0, 1, -1]]}, ValueError, r"^p_top_indices: expected class indices from 0 to 8"),
        ({"index": [[0, 1, 1]]}, ValueError, r"^p_top_indices: expected different classes"),
        ({"index": [[0.0, 1.0, 2.0]]}, TypeError, r"^p_top_indices: expected integers"),
        ({"index": [[0, 1]]}, ValueError, r"^p_top_indices: expected 3 along the class axis, got 2"),
        ({"p": np.log([[0.6, 0.5, 0.2]])}, ValueError, r"^p_top_log_probs: expected probabilities whose sum is"),
        ({"p": np.zeros((1, 0)), "index": np.zeros((1, 0), int)}, ValueError, r"^p_top_log_probs: expected 1 to 9 cla"),
        ({"q": STUDENT[:1, :2]}, ValueError, r"^p_top_log_probs: expected 1 to 2 classes"),
        ({"q": np.ones((1, 9), int)}, TypeError, r"^q_logits: expected floating-point"),
        (
            {"p": np.log([[0.6, 0.1, 0.2]] * 2), "q": STUDENT[:3]},
            ValueError,
            r"^p_top_log_probs: expected shapes that broad",
        ),
    ],
)
def test_wrong_arguments(change, error, message):
    arguments = {"p": np.log([[0.5, 0.2, 0.1]]), "index": np.array([[0, 1, 2]]), "q": STUDENT[:1]} | change
    with pytest.raises(error, match=message):
        kl.top_k(np.float32(arguments["p"]), np.asarray(arguments["index"]), arguments["q"])


def test_wrong_masks():
    with pytest.raises(ValueError, match=r"^where: "):
        kl.top_k(*top(TEACHER), STUDENT, where=np.ones(2, bool))
    with pytest.raises(ValueError, match=r"^mask: "):
        kl.top_k(*top(TEACHER), STUDENT, mask=np.ones(3, bool))
    with pytest.raises(TypeError, match=r"^mask: expected booleans"):
        kl.top_k(*top(TEACHER), STUDENT, mask=np.ones(4))


@pytest.mark.parametrize(
    ("p", "index"), [([0.5, 0.2], [0, 9]), ([0.5, 0.2], [-1, 0]), ([0.5, 0.2], [3, 3]), ([0.9, 0.2], [0, 1])]
)
def test_traced_rows_that_are_no_top_k_give_nan(p, index):
    value = COMPILED(np.log(np.float32([p, [0.5, 0.2]])), np.array([index, [0, 1]]), STUDENT[:2], tail=kl.bucket)
    assert jnp.isnan(value[0])
    assert jnp.isfinite(value[1])


@pytest.mark.usefixtures("x64")
def test_double_precision_under_jit():
    log_probs, index = top(TEACHER)
    shape = jax.eval_shape(kl.top_k, jnp.float64(log_probs), jnp.int64(index), jnp.float64(STUDENT))
    assert shape.dtype == jnp.float64
    assert jax.eval_shape(kl.top_k, log_probs, index, STUDENT).dtype == jnp.float32
