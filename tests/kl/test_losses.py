"""The aliases beside optax: the same on ordinary inputs, right where optax is NaN."""

import inspect

import dense_oracles as oracle
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

import vi_kit.kl as kl

RNG = np.random.default_rng(0)
LOGITS, TARGET_LOGITS = (np.float32(2 * RNG.normal(size=(3, 5))) for _ in range(2))
TARGETS = special.softmax(np.float64(TARGET_LOGITS), axis=-1).astype(np.float32)
LABELS = np.array([4, 0, 2])
NAMES = (
    "kl_divergence",
    "kl_divergence_with_log_targets",
    "generalized_kl_divergence",
    "softmax_cross_entropy",
    "safe_softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
)
SECOND = {
    "kl_divergence_with_log_targets": np.log(TARGETS),
    "softmax_cross_entropy_with_integer_labels": LABELS,
}


def through_logits(function, name):
    """Put log_softmax in front where the loss takes log probabilities, and sum with uneven weights."""
    takes_logits = "cross_entropy" in name

    def loss(logits, second, **how):
        first = logits if takes_logits else jax.nn.log_softmax(logits)
        return jnp.dot(jnp.arange(1.0, 4.0), function(first, second, **how))

    return loss


@pytest.mark.parametrize("name", NAMES)
def test_as_optax_on_ordinary_inputs(name):
    ours, theirs = getattr(kl.losses, name), getattr(optax.losses, name)
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    second = SECOND.get(name, TARGETS)
    value, gradient = jax.jit(jax.value_and_grad(through_logits(ours, name)))(LOGITS, second)
    expected, slope = jax.jit(jax.value_and_grad(through_logits(theirs, name)))(LOGITS, second)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("safe")])
@pytest.mark.parametrize("axis", [0, (0, 1), None])
def test_axes_as_optax(name, axis):
    ours, theirs = getattr(kl.losses, name), getattr(optax.losses, name)
    if "integer" in name and axis is None:
        with pytest.raises(TypeError, match=r"^axis: expected"):
            ours(LOGITS, LABELS, axis=axis)
        return
    log_predictions = jax.nn.log_softmax(LOGITS, axis)
    second = jax.nn.softmax(TARGET_LOGITS, axis)
    if "log_targets" in name:
        second = jnp.log(second)
    if "integer" in name:
        second = {0: np.array([2, 0, 1, 1, 2]), (0, 1): np.array(13)}[axis]
    np.testing.assert_allclose(
        ours(log_predictions, second, axis=axis), theirs(log_predictions, second, axis=axis), rtol=1e-5
    )


def test_a_flat_index_counts_the_axes_in_their_order():
    logits, labels = np.float32(RNG.normal(size=(2, 3, 4))), np.array([5, 11])
    function = kl.losses.softmax_cross_entropy_with_integer_labels
    for axis, order in (((1, 2), (0, 1, 2)), ((-1, -2), (0, 2, 1))):
        flat = special.log_softmax(np.float64(logits).transpose(order).reshape(2, 12), axis=-1)
        np.testing.assert_allclose(function(logits, labels, axis=axis), -flat[[0, 1], labels], rtol=1e-5)


@pytest.mark.parametrize("name", NAMES[:4])
def test_zero_targets(name):
    """One-hot rows: optax's gradient is NaN in the targets, and its value with log targets."""
    one_hot = np.eye(5, dtype=np.float32)[LABELS]
    with np.errstate(divide="ignore"):
        second = np.log(one_hot) if "log_targets" in name else one_hot
    loss = through_logits(getattr(kl.losses, name), name)
    value, (to_logits, to_second) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(LOGITS, second)
    probabilities = special.softmax(np.float64(LOGITS), axis=-1)
    np.testing.assert_allclose(value, -np.arange(1, 4) @ np.log(probabilities[np.arange(3), LABELS]), rtol=1e-5)
    np.testing.assert_allclose(to_logits, np.arange(1, 4)[:, None] * (probabilities - one_hot), atol=1e-6)
    assert jnp.all(jnp.isfinite(to_second))
    if name != "softmax_cross_entropy":
        peer = jax.grad(through_logits(getattr(optax.losses, name), name), argnums=1)(LOGITS, second)
        assert not jnp.all(jnp.isfinite(peer))


@pytest.mark.parametrize("name", NAMES)
def test_a_masked_vocabulary(name):
    """The last class is absent from both: optax gives NaN in value or gradient, but for the integer labels."""
    logits, targets = LOGITS.copy(), TARGETS.copy()
    logits[:, 4], targets[:, 4] = -np.inf, 0.0
    targets /= targets.sum(-1, keepdims=True)
    labels = np.array([3, 0, 2])
    with np.errstate(divide="ignore"):
        second = {"log_targets": np.log(targets), "integer_labels": labels}.get(name.split("with_")[-1], targets)
    loss = through_logits(getattr(kl.losses, name), name)
    value, gradient = jax.jit(jax.value_and_grad(loss))(logits, second)
    cut = second if "integer" in name else second[:, :4]
    expected, slope = jax.jit(jax.value_and_grad(loss))(LOGITS[:, :4], cut)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient[:, :4], slope, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(gradient[:, 4], 0.0)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("safe")])
def test_where(name):
    """Classes that do not exist may hold anything; a row without any is 0 with gradient 0."""
    where = np.array([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 0, 0]], bool)
    targets = np.where(where, TARGETS, 0)
    targets /= np.where(where.any(-1), targets.sum(-1), 1)[:, None]
    log_predictions = np.where(where, LOGITS, np.nan).astype(np.float32)
    second = np.where(where, np.log(TARGETS) if "log_targets" in name else targets, np.nan).astype(np.float32)
    if "integer" in name:
        second = np.array([2, -100, 0]) % 3
    function = getattr(kl.losses, name)
    value, pull = jax.vjp(lambda z: function(z, second, where=where), log_predictions)
    expected = function(LOGITS[::2, :3], second[::2] if "integer" in name else second[::2, :3])
    np.testing.assert_allclose(value, [expected[0], 0, expected[1]], rtol=1e-5)
    (gradient,) = pull(jnp.ones_like(value))
    assert jnp.all(jnp.isfinite(gradient))
    np.testing.assert_array_equal(gradient[~where], 0.0)


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "softmax_cross_entropy_with_integer_labels"])
def test_where_over_rows_as_optax(name):
    where = np.array([True, False, True])
    logits = np.where(where[:, None], LOGITS, np.nan).astype(np.float32)
    second = np.where(where, LABELS, -100) if "integer" in name else np.eye(5, dtype=np.float32)[LABELS]
    ours, theirs = (getattr(module, name) for module in (kl.losses, optax.losses))
    value, pull = jax.vjp(lambda z: ours(z, second, where=where), logits)
    peer = theirs(LOGITS, LABELS if "integer" in name else second, where=where)
    np.testing.assert_allclose(value, peer, rtol=1e-5)
    np.testing.assert_array_equal(pull(jnp.ones_like(value))[0][1], 0.0)


def test_digits_near_equality():
    """optax is off by a factor of 100 at a logit perturbation of 1e-4; the rounding of probabilities costs 1e-3."""
    rng = np.random.default_rng(2)
    target = np.float32(2 * rng.normal(size=1000))
    log_targets, log_predictions = (
        np.float32(jax.nn.log_softmax(z)) for z in (target, np.float32(target + 1e-4 * rng.normal(size=1000)))
    )
    expected = float(oracle.kl(log_targets, log_predictions))
    np.testing.assert_allclose(
        kl.losses.kl_divergence_with_log_targets(log_predictions, log_targets), expected, rtol=1e-5
    )
    peer = float(optax.losses.kl_divergence_with_log_targets(log_predictions, log_targets))
    assert abs(peer / expected - 1) > 1
    targets = np.exp(np.float64(log_targets)).astype(np.float32)
    expected = float(oracle.kl(np.log(targets.astype(np.longdouble)), log_predictions))
    np.testing.assert_allclose(kl.losses.kl_divergence(log_predictions, targets), expected, rtol=1e-2)


@pytest.mark.parametrize("size", [3.0, 0.3, 1e-2, 1e-4])
def test_generalized_against_extended_precision(size):
    """Measures, not distributions: nothing is normalized."""
    rng = np.random.default_rng(3)
    targets = np.float32(np.exp(rng.normal(size=(4, 50))))
    log_predictions = np.float32(np.log(targets) + size * rng.normal(size=targets.shape))

    exact_targets = targets.astype(np.longdouble)
    difference = np.log(exact_targets) - log_predictions.astype(np.longdouble)
    function = jax.jit(kl.losses.generalized_kl_divergence)
    value, pull = jax.vjp(function, log_predictions, targets)
    tolerance = 1e-5 + 1e-6 / size
    expected = (exact_targets * oracle._phi(-difference)).sum(-1)
    np.testing.assert_allclose(value, np.float64(expected), rtol=tolerance)
    expected = exact_targets * np.expm1(-difference), difference
    for got, right in zip(pull(jnp.ones_like(value)), map(np.float64, expected), strict=True):
        assert np.linalg.norm(got - right) <= tolerance * np.linalg.norm(right)


def test_generalized_at_its_edges():
    log_predictions, targets = np.float32([-np.inf, -np.inf, 0.0, -200.0, 80.0]), np.float32([0.0, 1.0, 0.0, 1.0, 1.0])
    function = jax.jit(kl.losses.generalized_kl_divergence)
    values = function(log_predictions[:, None], targets[:, None])
    np.testing.assert_allclose(values, [0.0, np.inf, 1.0, 199.0, np.exp(80.0) - 81.0], rtol=1e-5)
    gradients = jax.grad(lambda *a: function(*a).sum(), argnums=(0, 1))(
        log_predictions[[0, 2, 3, 4], None], targets[[0, 2, 3, 4], None]
    )
    assert all(jnp.all(jnp.isfinite(g)) for g in gradients)


def test_labels_that_need_not_sum_to_one():
    """Padding by rows of zeros, positive weights of several classes, one-hot integers: as optax."""
    for labels in (np.zeros((3, 5)), 3 * TARGETS, np.eye(5)[LABELS]):
        labels = np.float32(labels)
        expected = optax.losses.softmax_cross_entropy(LOGITS, labels)
        np.testing.assert_allclose(kl.losses.softmax_cross_entropy(LOGITS, labels), expected, rtol=1e-5)
    np.testing.assert_allclose(kl.losses.softmax_cross_entropy(LOGITS, labels.astype(int)), expected, rtol=1e-5)
    to_labels = jax.grad(lambda y: kl.losses.softmax_cross_entropy(LOGITS, y).sum())(labels)
    np.testing.assert_allclose(to_labels, -jax.nn.log_softmax(LOGITS), rtol=1e-5)


def test_a_label_that_the_prediction_lacks_is_infinite_with_a_finite_gradient():
    logits = np.float32([-np.inf, 0.0, 0.0])
    for name, label in (("softmax_cross_entropy", np.float32([1.0, 0.0, 0.0])), (NAMES[-1], np.array(0))):
        value, gradient = jax.value_and_grad(getattr(kl.losses, name))(logits, label)
        assert value == np.inf
        np.testing.assert_allclose(gradient, [-1.0, 0.5, 0.5], rtol=1e-6)


def test_half_precision_is_computed_in_single():
    for name in NAMES:
        second = SECOND.get(name, TARGETS)
        second = second if "integer" in name else jnp.asarray(second, jnp.bfloat16)
        shape = jax.eval_shape(getattr(kl.losses, name), jnp.asarray(LOGITS, jnp.bfloat16), second)
        assert shape.dtype == jnp.float32


def test_wrong_arguments():
    losses = kl.losses
    with pytest.raises(ValueError, match=r"^targets: expected probabilities of at least 0 that sum to 1"):
        losses.kl_divergence(LOGITS, 2 * TARGETS)
    with pytest.raises(ValueError, match=r"^targets: expected numbers from 0 up"):
        losses.generalized_kl_divergence(LOGITS, -TARGETS)
    with pytest.raises(ValueError, match=r"^labels: expected class indices from 0 to 4"):
        losses.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS - 1)
    with pytest.raises(TypeError, match=r"^labels: expected integers"):
        losses.softmax_cross_entropy_with_integer_labels(LOGITS, TARGETS)
    with pytest.raises(TypeError, match=r"^log_predictions: expected floating-point"):
        losses.kl_divergence(np.ones((3, 5), int), TARGETS)
    with pytest.raises(ValueError, match=r"classes along axis"):
        losses.kl_divergence(LOGITS[:, :4], TARGETS)


def test_traced_numbers_out_of_range_give_nan():
    assert jnp.all(jnp.isnan(jax.jit(kl.losses.kl_divergence)(LOGITS, 2 * TARGETS)))
    assert jnp.all(jnp.isnan(jax.jit(kl.losses.generalized_kl_divergence)(LOGITS, -TARGETS)))
    labels = np.array([4, -1, 5])  # optax takes −1 for the last class
    value = jax.jit(kl.losses.softmax_cross_entropy_with_integer_labels)(LOGITS, labels)
    np.testing.assert_array_equal(jnp.isnan(value), [False, True, True])
