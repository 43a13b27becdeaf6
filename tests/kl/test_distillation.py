"""Distillation: directions by name, T² that holds the gradient, labels mixed in, rows that do not count."""

import functools

import dense_oracles as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

import vi_kit.kl as kl

RNG = np.random.default_rng(0)
STUDENT, TEACHER = (np.float32(3 * RNG.normal(size=(4, 6))) for _ in range(2))
LABELS = np.array([1, 0, 5, 3])
COMPILED = jax.jit(kl.distillation_loss, static_argnames=("divergence", "reduction"))
MASK = np.array([True, False, True, True])


def skew_reverse(teacher, student, **how):
    return kl.skew(student, teacher, **how)


DIVERGENCES = {
    "forward": (kl.forward, oracle.kl),
    "reverse": (kl.reverse, lambda p, q: oracle.kl(q, p)),
    "jensen_shannon": (kl.jensen_shannon, oracle.jensen_shannon),
    "beta": (functools.partial(kl.jensen_shannon, beta=0.1), functools.partial(oracle.jensen_shannon, beta=0.1)),
    "skew": (kl.skew, oracle.skew),
    "skew_reverse": (skew_reverse, lambda p, q: oracle.skew(q, p)),
    "jeffreys": (kl.jeffreys, oracle.jeffreys),
}


def cross_entropy(logits, weights):
    logits = np.float64(logits)
    return -(weights * (logits - special.logsumexp(logits, axis=-1, keepdims=True))).sum(-1)


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_each_divergence_with_the_teacher_as_target(name, temperature):
    divergence, exact = DIVERGENCES[name]
    loss = kl.distillation_loss(STUDENT, TEACHER, divergence=divergence, temperature=temperature, reduction="none")
    expected = temperature**2 * exact(np.float64(TEACHER) / temperature, np.float64(STUDENT) / temperature)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_directions_are_told_apart():
    """A student on one of the teacher's two modes: mode-seeking hardly minds, mass-covering does (DiGress#14)."""
    teacher, student = np.float32([4.0, 4.0, -4.0]), np.float32([4.0, -4.0, -4.0])
    covering, seeking = (kl.distillation_loss(student, teacher, divergence=d) for d in (kl.forward, kl.reverse))
    assert covering > 3 > 1 > seeking
    np.testing.assert_allclose(covering, oracle.kl(teacher, student), rtol=1e-5)
    np.testing.assert_allclose(kl.distillation_loss(student, teacher), covering)  # the default


@pytest.mark.parametrize("beta", [0.0, 1e-3, 0.1, 0.5, 0.999, 1.0])
def test_beta_as_in_generalized_knowledge_distillation(beta):
    """β weighs the teacher, as in the paper, TRL and Liger; EasyDeL exchanges the ends, DistiLLM the weights."""
    beta = float(np.float32(beta))
    p, q = (special.softmax(np.float64(z[0])) for z in (TEACHER, STUDENT))
    mixture = beta * p + (1 - beta) * q
    ends = {0.0: (p * np.log(p / q)).sum(), 1.0: (q * np.log(q / p)).sum()}
    inside = beta * (p * np.log(p / mixture)).sum() + (1 - beta) * (q * np.log(q / mixture)).sum()
    loss = COMPILED(STUDENT[:1], TEACHER[:1], divergence=functools.partial(kl.jensen_shannon, beta=beta))
    np.testing.assert_allclose(loss, ends.get(beta, inside), rtol=1e-5)


def test_temperature_squared_keeps_the_gradient():
    """As T grows the gradient tends to (z_student − z_teacher, centered) / classes; without T² it vanishes."""
    centered = STUDENT - TEACHER - (STUDENT - TEACHER).mean(-1, keepdims=True)
    limit = centered / 6 / 4
    gradient = jax.jit(jax.grad(kl.distillation_loss), static_argnames="scale_by_temperature_squared")
    for temperature, tolerance in ((100.0, 0.1), (1e3, 1e-2), (1e4, 2e-3)):
        scaled = gradient(STUDENT, TEACHER, temperature=temperature)
        np.testing.assert_allclose(scaled, limit, atol=tolerance * np.abs(limit).max())
        plain = gradient(STUDENT, TEACHER, temperature=temperature, scale_by_temperature_squared=False)
        np.testing.assert_allclose(plain * temperature**2, scaled, rtol=1e-5)


@pytest.mark.parametrize("divergence", [kl.forward, kl.reverse, kl.jensen_shannon, kl.skew])
def test_cold_temperature_is_finite(divergence):
    """Finite logits at T = 0.05 gave NaN gradients of the reverse KL and Jensen–Shannon (Soup#719)."""
    student, teacher = np.float32([[30.0, -30.0, 0.0]]), np.float32([[-30.0, 30.0, 0.0]])
    loss = functools.partial(kl.distillation_loss, divergence=divergence, temperature=0.05)
    value, gradient = jax.jit(jax.value_and_grad(loss))(student, teacher)
    assert jnp.isfinite(value)
    assert value > 0
    assert jnp.all(jnp.isfinite(gradient))


@pytest.mark.parametrize("weight", [None, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("smooth", [False, True])
def test_labels_are_mixed_in_at_temperature_one(weight, smooth):
    one_hot = np.eye(6)[LABELS]
    probabilities = 0.9 * one_hot + 0.1 / 6
    labels = np.float32(probabilities) if smooth else LABELS
    how = {} if weight is None else {"label_weight": weight}
    loss = kl.distillation_loss(STUDENT, TEACHER, labels=labels, temperature=2.0, reduction="none", **how)
    w = 0.5 if weight is None else weight
    soft = 4 * oracle.kl(TEACHER / 2, STUDENT / 2)
    hard = cross_entropy(STUDENT, probabilities if smooth else one_hot)
    np.testing.assert_allclose(loss, np.float64((1 - w) * soft + w * hard), rtol=1e-5)


def test_the_gradient_of_the_mix():
    def exact(student):
        soft = oracle.kl(np.float64(TEACHER) / 2, student / 2)
        shifted = student - student.max(-1, keepdims=True)
        log_probs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        return (0.7 * 4 * soft - 0.3 * log_probs[np.arange(4), LABELS]) / 4

    gradient = jax.grad(kl.distillation_loss)(STUDENT, TEACHER, labels=LABELS, temperature=2.0, label_weight=0.3)
    np.testing.assert_allclose(gradient, np.float64(oracle.numerical_gradient(exact, STUDENT)), atol=1e-6)


def test_the_teacher_is_a_constant():
    gradient = jax.grad(kl.distillation_loss, argnums=1)(STUDENT, TEACHER)
    np.testing.assert_array_equal(gradient, 0.0)
    assert jnp.any(jax.grad(lambda t: kl.forward(t, STUDENT).sum())(TEACHER) != 0)


@pytest.mark.parametrize("labels", [None, "indices", "probabilities"])
def test_rows_that_do_not_count_may_hold_anything(labels):
    student, teacher = STUDENT.copy(), TEACHER.copy()
    student[1], teacher[1] = np.nan, np.inf
    indices = np.where(MASK, LABELS, -100)
    weights = np.where(MASK[:, None], np.eye(6)[LABELS], np.nan).astype(np.float32)
    labels = {None: None, "indices": indices, "probabilities": weights}[labels]
    temperature = np.where(MASK, 2.0, np.nan).astype(np.float32)

    def loss(student, labels, mask, temperature):
        return kl.distillation_loss(student, teacher, labels=labels, mask=mask, temperature=temperature)

    rows = [None if labels is None else labels[MASK], np.ones(3, bool), 2.0]
    expected, part = jax.value_and_grad(
        lambda s: kl.distillation_loss(s, TEACHER[MASK], labels=rows[0], mask=rows[1], temperature=rows[2])
    )(STUDENT[MASK])
    traced = jax.jit(jax.value_and_grad(loss))
    for evaluate, heat in ((traced, temperature), (jax.value_and_grad(loss), 2.0)):
        value, gradient = evaluate(student, labels, MASK, heat)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        np.testing.assert_allclose(gradient[MASK], part, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(gradient[~MASK], 0.0)


def test_padding_counts_neither_in_the_mean_nor_alone():
    """tunix and MaxText take the mean over all positions, padding included."""
    per_row = np.float64(oracle.kl(TEACHER, STUDENT))
    loss = functools.partial(kl.distillation_loss, STUDENT, TEACHER, mask=MASK)
    np.testing.assert_allclose(loss(), per_row[MASK].mean(), rtol=1e-5)
    np.testing.assert_allclose(loss(reduction="sum"), per_row[MASK].sum(), rtol=1e-5)
    np.testing.assert_allclose(loss(reduction="none"), per_row * MASK, rtol=1e-5)
    np.testing.assert_allclose(loss(normalizer=12), per_row[MASK].sum() / 12, rtol=1e-5)
    weights = np.float32([0.1, 9.0, 0.0, 0.1])
    np.testing.assert_allclose(loss(weights=weights), (per_row[0] + per_row[3]) / 2, rtol=1e-5)
    value, gradient = jax.value_and_grad(kl.distillation_loss)(STUDENT, TEACHER, mask=np.zeros(4, bool))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0.0)


def test_a_smaller_vocabulary_is_masked_not_padded_with_zeros():
    """Liger pads the student with logits of 0: each phantom class gets mass."""
    where = np.arange(6) < 4
    padded = np.where(where, STUDENT, np.nan).astype(np.float32)
    loss = kl.distillation_loss(padded, TEACHER, where=where, labels=np.array([1, 0, 2, 3]))
    cut = kl.distillation_loss(STUDENT[:, :4], TEACHER[:, :4], labels=np.array([1, 0, 2, 3]))
    np.testing.assert_allclose(loss, cut, rtol=1e-6)
    gradient = jax.grad(kl.distillation_loss)(padded, TEACHER, where=where, labels=np.array([1, 0, 2, 3]))
    np.testing.assert_array_equal(gradient[:, 4:], 0.0)
    assert jnp.all(jnp.isfinite(gradient))


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_part_of_weight_zero_adds_nothing_though_it_is_infinite(weight):
    """The student lacks class 0: its KL is infinite, and so is the cross-entropy of label 0."""
    student, teacher = np.float32([-np.inf, 0.0, 1.0]), np.float32([0.0, 0.0, 0.0])
    if weight == 0.0:
        teacher[0] = -np.inf
    labels = np.array(1 if weight else 0)
    value, gradient = jax.value_and_grad(kl.distillation_loss)(student, teacher, labels=labels, label_weight=weight)
    assert jnp.isfinite(value)
    assert jnp.all(jnp.isfinite(gradient))


def test_axes_and_broadcasting():
    student = STUDENT.reshape(4, 2, 3)
    loss = functools.partial(kl.distillation_loss, labels=LABELS)
    expected = loss(STUDENT, TEACHER[:1])
    np.testing.assert_allclose(loss(student, TEACHER[:1].reshape(1, 2, 3), axis=(1, 2)), expected, rtol=1e-6)
    np.testing.assert_allclose(loss(STUDENT.T, TEACHER[:1].T, axis=0), expected, rtol=1e-6)
    np.testing.assert_allclose(loss(STUDENT, TEACHER[0]), expected, rtol=1e-6)
    np.testing.assert_allclose(
        loss(STUDENT[0], TEACHER), kl.distillation_loss(np.tile(STUDENT[0], (4, 1)), TEACHER, labels=LABELS)
    )
    assert loss(STUDENT[:0], TEACHER[:0], labels=LABELS[:0]) == 0


def test_half_precision_is_computed_in_single():
    student, teacher = jnp.asarray(STUDENT, jnp.bfloat16), jnp.asarray(TEACHER, jnp.bfloat16)
    value, gradient = jax.value_and_grad(kl.distillation_loss)(student, teacher, labels=LABELS, temperature=2.0)
    assert (value.dtype, gradient.dtype) == (jnp.float32, jnp.bfloat16)
    single = kl.distillation_loss(student.astype("f4"), teacher.astype("f4"), labels=LABELS, temperature=2.0)
    np.testing.assert_allclose(value, single, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_dtype_follows_the_logits():
    loss = functools.partial(
        kl.distillation_loss, labels=LABELS, label_weight=0.3, temperature=2.0, weights=np.ones(4), normalizer=3.0
    )
    assert jax.eval_shape(loss, STUDENT, TEACHER).dtype == jnp.float32
    assert jax.eval_shape(loss, np.float64(STUDENT), np.float64(TEACHER)).dtype == jnp.float64


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(DIVERGENCES)), st.floats(1e-5, 5.0))
def test_nonnegative_and_zero_at_equality(seed, name, size):
    rng = np.random.default_rng(seed)
    teacher = np.float32(3 * rng.normal(size=(3, 5)))
    student = np.float32(teacher + size * rng.normal(size=(3, 5)))
    loss = functools.partial(COMPILED, divergence=DIVERGENCES[name][0], reduction="none")
    assert np.all(loss(student, teacher) >= 0)
    np.testing.assert_array_equal(loss(teacher, teacher), 0.0)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"divergence": "forward"}, TypeError, r"^divergence: expected a function such as kl\.forward"),
        ({"divergence": lambda p, q, **_: jnp.sum(p - q)}, ValueError, r"^divergence: expected one value a row"),
        ({"label_weight": 0.3}, ValueError, r"^labels: expected with label_weight"),
        ({"labels": LABELS, "label_weight": 1.3}, ValueError, r"^label_weight: expected a number from 0 to 1"),
        ({"labels": LABELS - 1}, ValueError, r"^labels: expected class indices from 0 to 5 in rows that count, got -1"),
        ({"labels": LABELS + 1}, ValueError, r"^labels: expected class indices from 0 to 5"),
        ({"labels": LABELS[:3]}, ValueError, r"^labels: "),
        ({"labels": np.eye(6, dtype=int)[LABELS]}, ValueError, r"^labels: expected one class index a row"),
        ({"labels": np.ones((2, 4, 6), np.float32) / 6}, ValueError, r"^labels: expected one probability a class"),
        ({"temperature": -1.0}, ValueError, r"^temperature: expected a positive number"),
        ({"mask": np.ones(3, bool)}, ValueError, r"^mask: "),
        ({"reduction": "batchmean"}, ValueError, r"^reduction: expected"),
    ],
)
def test_wrong_arguments(how, error, message):
    with pytest.raises(error, match=message):
        kl.distillation_loss(STUDENT, TEACHER, **how)


def test_wrong_logits():
    with pytest.raises(TypeError, match=r"^student_logits: expected floating-point"):
        kl.distillation_loss(np.ones((2, 3), int), TEACHER)
    with pytest.raises(ValueError, match=r"^student_logits: expected 6 classes along axis -1"):
        kl.distillation_loss(STUDENT[:, :5], TEACHER)


def test_traced_numbers_out_of_range_give_nan():
    loss = jax.jit(kl.distillation_loss)
    assert jnp.isnan(loss(STUDENT, TEACHER, labels=LABELS - 100))
    assert jnp.isnan(loss(STUDENT, TEACHER, labels=LABELS, label_weight=-0.1))
    assert jnp.isnan(loss(STUDENT, TEACHER, temperature=-1.0))
