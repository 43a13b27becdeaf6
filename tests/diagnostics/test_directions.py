"""Both directions of KL against the closed form between Gaussians, with every source of draws."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from statistical import FALSE_ALARM

import vi_kit as vk
from vi_kit.diagnostics._directions import forward_kl, log_normalizer, reverse_kl
from vi_kit.diagnostics._target_draws import exact_draws, reference_draws, weighted_draws
from vi_kit.targets._reference import reference_from_draws

LOG_Z = 2.5
MEAN, SCALE = np.array([0.3, -0.2]), np.array([1.0, 1.4])  # of p; q is N((0, 0), diag(1.3, 1.2)²)
Q_MEAN, Q_SCALE = np.zeros(2), np.array([1.3, 1.2])
NUM_ERRORS = stats.norm.isf(FALSE_ALARM / 2)


def closed_form(mean_1, scale_1, mean_2, scale_2):
    ratio = scale_1 / scale_2
    return float(np.sum(0.5 * (ratio**2 + ((mean_1 - mean_2) / scale_2) ** 2 - 1) - np.log(ratio)))


FORWARD = closed_form(MEAN, SCALE, Q_MEAN, Q_SCALE)
REVERSE = closed_form(Q_MEAN, Q_SCALE, MEAN, SCALE)


def log_density(x, data):
    standard = (x["a"] - data["mean"]) / data["scale"]
    return LOG_Z - 0.5 * jnp.sum(standard**2) - jnp.sum(jnp.log(data["scale"])) - math.log(2 * math.pi)


def sample(key, data):
    return {"a": data["mean"] + data["scale"] * jax.random.normal(key, (2,))}


def target(**known):
    data = {"mean": MEAN.astype(np.float32), "scale": SCALE.astype(np.float32)}
    return vk.make_target(log_density, {"a": jnp.zeros(2)}, data=data, **known)


@pytest.fixture(scope="module")
def q():
    family = vk.families.MeanField(2)
    return family, family.init(jax.random.key(0), mean=jnp.asarray(Q_MEAN), scale=jnp.asarray(Q_SCALE))


def off_by(measurement, truth):
    assert measurement.estimate is not None, measurement.caveat
    return abs(measurement.estimate.value - truth) / measurement.estimate.standard_error


def test_the_two_directions_differ_here():
    assert abs(FORWARD - REVERSE) > 0.02  # so that no check below passes for the wrong one


def test_forward_from_exact_draws(key, q):
    p = target(sample=sample, log_normalizer=LOG_Z)
    found = forward_kl(exact_draws(key, p, 20_000), *q, log_normalizer(p, None, None))
    assert off_by(found, FORWARD) < NUM_ERRORS
    assert off_by(found, REVERSE) > NUM_ERRORS
    assert "20,000 exact draws" in found.source


def test_forward_from_reference_draws(key, q):
    values = np.asarray(MEAN + SCALE * np.random.default_rng(1).standard_normal((20_000, 2)))
    reference = reference_from_draws(
        {"a[0]": values[:, 0], "a[1]": values[:, 1]},
        provenance="test",
        log_normalizer=LOG_Z,
        log_normalizer_standard_error=0.0,
    )
    draws = reference_draws(target(), reference)
    found = forward_kl(draws, *q, log_normalizer(target(), reference, None))
    assert off_by(found, FORWARD) < NUM_ERRORS
    assert off_by(found, REVERSE) > NUM_ERRORS


def test_forward_from_weights_with_log_z_estimated_from_them(key, q):
    draws = weighted_draws(key, target(), [q], 20_000)
    log_z = log_normalizer(target(), None, draws)
    assert off_by(log_z, LOG_Z) < NUM_ERRORS
    assert "estimated" in log_z.source
    found = forward_kl(draws, *q)
    assert off_by(found, FORWARD) < NUM_ERRORS
    assert off_by(found, REVERSE) > NUM_ERRORS


def test_weights_of_several_proposals_are_over_their_mixture(key, q):
    family, _ = q
    other = family.init(key, mean=jnp.array([1.0, 1.0]), scale=jnp.array([2.0, 2.0]))
    draws = weighted_draws(key, target(), [q, (family, other)], 10_000)
    assert len(draws.z) == 20_000
    assert off_by(log_normalizer(target(), None, draws), LOG_Z) < NUM_ERRORS
    assert off_by(forward_kl(draws, *q), FORWARD) < NUM_ERRORS


def test_reverse(key, q):
    p = target(log_normalizer=LOG_Z)
    found = reverse_kl(key, p, *q, log_normalizer(p, None, None), 20_000)
    assert off_by(found, REVERSE) < NUM_ERRORS
    assert off_by(found, FORWARD) > NUM_ERRORS


@pytest.mark.slow
def test_joint_standard_error_is_the_spread_over_repetitions(key, q):
    repetitions = 60
    family, _ = q
    wide = (family, family.init(key, scale=jnp.array([1.7, 2.0])))  # its weights have all moments
    found = [
        forward_kl(weighted_draws(k, target(), [wide], 512), *q).estimate for k in jax.random.split(key, repetitions)
    ]
    spread = np.std([f.value for f in found], ddof=1)
    ratio = (repetitions - 1) * (spread / np.mean([f.standard_error for f in found])) ** 2
    low, high = stats.chi2.interval(1 - FALSE_ALARM, repetitions - 1)
    assert 0.8 * low < ratio < 1.25 * high  # room for the spread of the errors themselves


def test_a_mean_that_does_not_exist_has_no_number(key, q):
    cauchy = vk.make_target(
        lambda x: jnp.sum(jax.scipy.stats.cauchy.logpdf(x["a"])),
        {"a": jnp.zeros(2)},
        sample=lambda key: {"a": jax.random.cauchy(key, (2,))},
        log_normalizer=0.0,
    )
    found = forward_kl(exact_draws(key, cauchy, 4_096), *q, log_normalizer(cauchy, None, None))
    assert found.estimate is None
    assert found.khat > 0.7
    assert "k̂" in found.caveat


@pytest.mark.slow
def test_collapsed_weights_have_no_number(key, q):
    family, _ = q
    far = family.init(key, mean=jnp.array([9.0, 9.0]), scale=jnp.array([0.5, 0.5]))
    draws = weighted_draws(key, target(), [(family, far)], 1_024)
    log_z = log_normalizer(target(), None, draws)
    assert log_z.estimate is None
    assert forward_kl(draws, family, far, log_z).estimate is None
    assert reverse_kl(key, target(), family, far, log_z, 1_024).estimate is None


def test_incomplete_reference_draws_are_not_used(q):
    values = np.random.default_rng(2).standard_normal(1_000)
    assert reference_draws(target(), reference_from_draws({"a[0]": values}, provenance="test")) is None
    assert reference_draws(target(), None) is None


def test_log_z_must_come_from_somewhere(key, q):
    draws = exact_draws(key, target(sample=sample), 1_024)
    with pytest.raises(ValueError, match="log_z"):
        forward_kl(draws, *q)
    assert log_normalizer(target(), None, draws).estimate is None
