"""The report against exact answers, and its verdicts."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import vi_kit as vk
from vi_kit.diagnostics._draws import coordinates
from vi_kit.diagnostics._report import Coordinate, wants_more_draws
from vi_kit.diagnostics._verdict import Evidence, verdict


def gaussian_target(mean=1.0, scale=2.0, **extra):
    return vk.make_target(lambda x: jnp.sum(norm.logpdf(x, mean, scale)), 2, **extra)


def report_of(key, target, mean=1.0, scale=2.0, num_samples=4_096):
    family = vk.families.MeanField(2)
    params = family.init(key, mean=jnp.full(2, mean), scale=scale)
    return vk.diagnose(key, target, family, params, num_samples=num_samples)


def test_exact_fit(key):
    report = report_of(key, gaussian_target(log_normalizer=0.0))
    assert report.reliable
    assert abs(float(report.elbo.value)) < 1e-5
    assert abs(float(report.reverse_kl.value)) < 1e-5
    assert report.ess == pytest.approx(report.num_samples, rel=1e-3)
    for row in report.coordinates.values():
        assert abs(row.mean - 1.0) < 5.3 * row.standard_error
        assert abs(row.sd - 2.0) < 5.3 * row.sd_standard_error
        assert row.standard_error == pytest.approx(2.0 / np.sqrt(report.num_samples), rel=0.05)
        assert row.sd_standard_error == pytest.approx(2.0 / np.sqrt(2 * report.num_samples), rel=0.1)


def test_elbo_and_log_normalizer_of_a_known_gap(key):
    # q = N(1, 1.6²) twice against p = N(1, 2²) twice: KL(q‖p) in closed form, log Z = 0.
    report = report_of(key, gaussian_target(log_normalizer=0.0), scale=1.6)
    ratio = (1.6 / 2.0) ** 2
    exact = 2 * 0.5 * (ratio - 1 - np.log(ratio))
    assert abs(float(report.reverse_kl.value) - exact) < 4.9 * float(report.elbo.standard_error)
    assert float(report.elbo.standard_error) < 0.2 * exact  # the test could see a wrong formula
    assert abs(float(report.log_normalizer.value)) < 4.9 * float(report.log_normalizer.standard_error)
    assert report.khat == pytest.approx(1 - ratio, abs=0.25)  # theory: k = 1 − σ_q²/σ_p²


def test_weights_correct_the_moments(key):
    report = report_of(key, gaussian_target(), mean=1.5, scale=2.0, num_samples=20_000)
    for row in report.coordinates.values():
        assert abs(row.mean - 1.5) < 0.08
        assert abs(row.corrected_mean - 1.0) < 0.08
        assert abs(row.corrected_sd - 2.0) < 0.08


def test_a_narrow_q_is_not_believed(key):
    report = report_of(key, gaussian_target(), scale=0.4)
    assert not report.reliable
    assert "Do not believe" in report.reason


def test_a_shifted_q_is_sent_to_resample(key):
    report = report_of(key, gaussian_target(), mean=2.0, scale=2.0)
    assert not report.reliable
    assert "resample" in report.reason


@pytest.mark.parametrize("width", [1.0, 0.75])
def test_a_skewed_coordinate_whose_sd_weights_cannot_correct(key, width):
    # log x ~ N(0, 0.7²): with q too narrow, few draws hold most of E[w x²]; the weights alone look good (k = 0.44).
    target = vk.make_target(
        lambda x: jnp.sum(norm.logpdf(jnp.log(x), 0.0, 0.7) - jnp.log(x)), 1, support=vk.support.positive
    )
    family = vk.families.MeanField(1)
    params = family.init(jax.random.clone(key), scale=0.7 * width)
    report = vk.diagnose(key, target, family, params, num_samples=20_000)
    assert report.khat < 0.6
    assert report.reliable is (width == 1.0)
    if width < 1:
        assert "for the sd of x[0]" in report.reason


def test_outside_the_support_is_not_believed(key):
    target = vk.make_target(lambda x: jnp.where(jnp.all(x < 1.5), jnp.sum(norm.logpdf(x)), -jnp.inf), 2)
    report = report_of(key, target, mean=0.0, scale=1.0)
    assert not report.reliable
    assert "not finite at" in report.reason


def test_prints_and_serializes(key):
    report = report_of(key, gaussian_target())
    text = str(report)
    for part in ("x[0]", "ELBO", "Pareto k̂", "effective draws", report.reason[:30]):
        assert part in text
    stored = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert stored["elbo"]["standard_error"] == float(report.elbo.standard_error)
    assert stored["reliable"] is True


def test_bad_input(key):
    family = vk.families.MeanField(2)
    with pytest.raises(TypeError, match=r"key: expected a typed key"):
        vk.diagnose(jax.random.PRNGKey(0), gaussian_target(), family, family.init(key))
    with pytest.raises(ValueError, match="num_samples: expected at least 100"):
        vk.diagnose(key, gaussian_target(), family, family.init(key), num_samples=10)


@pytest.mark.slow
def test_block_size_does_not_change_the_number_of_draws(key):
    report = report_of(key, gaussian_target(), num_samples=300)
    assert report.num_samples == 300


def evidence(**changes):
    base = {
        "khat_threshold": 0.7,
        "finite": True,
        "khat": 0.2,
        "ess": 3_000.0,
        "num_samples": 4_000,
        "labels": ("mu", "tau"),
        "means": np.zeros(2),
        "sds": np.ones(2),
        "corrected_means": np.zeros(2),
        "corrected_sds": np.ones(2),
    }
    return Evidence(**{**base, **changes})


@pytest.mark.parametrize(
    ("changes", "reliable", "words"),
    [
        ({}, True, "Believe it"),
        ({"finite": False}, False, "not finite"),
        ({"khat": 0.7}, False, "Pareto k̂ = 0.70"),
        ({"khat": np.inf}, False, "Pareto k̂"),
        ({"ess": 50.0}, False, "worth only 50 of 4000"),
        ({"num_samples": 39, "ess": 39.0, "khat": 0.3}, False, "only 39 draws to judge it by"),
        ({"nonfinite_draws": 3}, False, "3 of 4000 draws"),
        ({"corrected_means": np.array([0.0, 0.31])}, False, "tau by 0.31"),
        ({"corrected_sds": np.array([1.5, 1.0])}, False, "mu by 0.33"),
        ({"khat": 0.6, "corrected_means": np.array([0.0, 0.2])}, False, "tau by 0.20"),
        ({"khat": 0.55, "gap": 0.4}, False, "0.40 nats of KL(q‖p)"),
        ({"khat": 0.3, "gap": 0.4}, True, "Believe it"),
        ({"resolution": 0.12}, False, "rounding hides differences below 0.12 nats"),
        ({"excess": 10.0}, False, "log_normalizer"),
        ({"unsettled": "tau"}, False, "the sd of tau"),
        (
            {"sd_khats": np.array([0.1, 0.8]), "corrected_sds": np.array([1.0, 1.15])},
            False,
            "k̂ = 0.80 for the sd of tau",
        ),
        ({"sd_khats": np.array([0.8, 0.1]), "corrected_sds": np.array([1.0, 1.15])}, True, "tau the most"),
        ({"sd_khats": np.array([0.1, 0.8]), "corrected_means": np.array([0.0, 0.15])}, True, "tau the most"),
        ({"sd_khats": np.array([0.1, 0.6]), "corrected_sds": np.array([1.0, 1.15])}, True, "tau the most"),
        ({"sd_khats": np.array([0.1, 0.6]), "corrected_sds": np.array([1.0, 1.25])}, False, "more than 0.15"),
        ({"khat": 0.6999}, True, "0.6999 is below 0.70"),
        ({"khat": 0.3, "corrected_means": np.array([0.0, 0.2])}, True, "tau the most"),
    ],
)
def test_verdict(changes, reliable, words):
    found, reason = verdict(evidence(**changes))
    assert found is reliable
    assert words in reason


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_named(bad):
    found, reason = verdict(evidence(means=np.array([0.0, bad]), corrected_means=np.array([0.0, bad])))
    assert not found
    assert "tau is not finite at draws of q" in reason


def test_constants_are_never_off():
    # Weights add up to one but for rounding, so that the corrected sd of a constant is not quite zero.
    found, _ = verdict(
        evidence(
            means=np.array([0.0, 1.0]),
            sds=np.array([1.0, 0.0]),
            corrected_means=np.array([0.0, 1.0 + 2e-16]),
            corrected_sds=np.array([1.0, 2e-16]),
        )
    )
    assert found


def test_belief_names_the_largest_change_and_not_the_one_nearest_its_limit():
    found, reason = verdict(
        evidence(means=np.array([0.25, 0.0]), sds=np.array([1.0, 0.905]), khat=0.3, sd_khats=np.array([0.3, 0.75]))
    )
    assert found
    assert "by more than 0.25 sd (mu the most)" in reason


@pytest.mark.parametrize(
    ("sd_khat", "sd", "wanted"), [(0.6, 0.9, True), (0.6, 0.97, False), (0.4, 0.9, False), (None, 0.9, False)]
)
def test_more_draws_are_wanted_where_a_heavy_tail_moves_an_sd(key, sd_khat, sd, wanted):
    report = dataclasses.replace(report_of(key, gaussian_target()), khat=0.2)
    row = Coordinate(0.0, 0.01, sd, 0.01, 0.0, 1.0, sd_khat=sd_khat)
    report = dataclasses.replace(report, coordinates={**report.coordinates, "tau": row})
    assert wants_more_draws(report) is wanted
    assert not wants_more_draws(dataclasses.replace(report, reliable=False))


def test_verdict_without_density():
    near = evidence(khat=None, ess=None, given=(np.zeros(2), np.ones(2)))
    far = evidence(khat=None, ess=None, given=(np.array([1.0, 0.0]), np.ones(2)))
    assert verdict(near)[0]
    assert not verdict(far)[0]
    assert not verdict(evidence(khat=None, ess=None))[0]


def test_coordinates():
    tree = {"mu": np.arange(3.0), "beta": np.arange(12.0).reshape(3, 2, 2)}
    labels, values = coordinates(tree)
    assert labels == ("beta[0,0]", "beta[0,1]", "beta[1,0]", "beta[1,1]", "mu")
    np.testing.assert_array_equal(values[1], [4, 5, 6, 7, 1])
    named = vk.make_target(
        lambda x: -(x["mu"] ** 2) - x["tau"] ** 2,
        {"mu": 0.0, "tau": 1.0},
        derived=lambda x: {"a": 100 * x["mu"]},
        names=["MU", "TAU"],
    )
    draws = {"a": np.full(3, 100.0), "mu": np.full(3, 1.0), "tau": np.full(3, 2.0)}
    labels, values = coordinates(draws, named.layout)  # the derived quantity sorts first and keeps its own name
    assert dict(zip(labels, values[0], strict=True)) == {"a": 100.0, "MU": 1.0, "TAU": 2.0}


@pytest.mark.parametrize("constant", [-1e6, -1e9, 1e7])
@pytest.mark.parametrize("mean", [0.0, 0.9])
def test_rounding_is_never_taken_for_agreement(key, constant, mean):
    # In float32 a constant of a million hides tenths of a nat: whatever q is, it cannot be vouched for.
    target = vk.make_target(lambda x: -0.5 * jnp.sum(x**2) + constant, 2)
    report = report_of(key, target, mean=mean, scale=1.0)
    assert not report.reliable
    assert "rounding" in report.reason


def test_a_moderate_constant_changes_nothing(key):
    target = vk.make_target(lambda x: -0.5 * jnp.sum(x**2) - 1e4, 2)
    assert report_of(key, target, mean=0.0, scale=1.0).reliable
    assert not report_of(key, target, mean=0.9, scale=1.0).reliable


def test_an_impossible_log_normalizer_is_not_believed(key):
    report = report_of(key, vk.make_target(lambda x: -0.5 * jnp.sum(x**2), 2, log_normalizer=0.0), mean=0.0, scale=1.0)
    assert not report.reliable
    assert "log_normalizer" in report.reason


def test_an_unsettled_sd_is_not_believed(key):
    target = vk.make_target(
        lambda x: jnp.sum(norm.logpdf(jnp.log(x), 0.0, 3.0) - jnp.log(x)), 2, support=vk.support.positive
    )
    family = vk.families.MeanField(2)
    report = vk.diagnose(key, target, family, family.init(key, scale=3.0))
    assert not report.reliable
    assert "heavy a tail" in report.reason


def test_collapsed_weights_of_given_draws_are_not_believed(key):
    draws = jax.random.normal(key, (500, 2))
    log_weights = jnp.where(jnp.arange(500) < 3, 0.0, -jnp.inf)
    target = vk.targets.from_draws(draws, log_weights=log_weights)
    family = vk.families.MeanField(2)
    report = vk.diagnose(jax.random.key(1), target, family, family.init(jax.random.key(2)))
    assert report.ess == pytest.approx(3.0)
    assert not report.reliable
    assert "worth only 3 draws" in report.reason


def test_narrow_mean_field_on_a_correlated_target_is_never_believed(key):
    # The best mean-field fit of ρ = 0.9 in d = 10: sds a third of the true ones, k̂ near its threshold.
    dim, rho = 10, 0.9
    precision = np.linalg.inv(np.full((dim, dim), rho) + (1 - rho) * np.eye(dim)).astype(np.float32)
    target = vk.make_target(lambda x, data: -0.5 * x @ data @ x, dim, data=precision)
    family = vk.families.MeanField(dim)
    params = family.init(jax.random.key(0), scale=jnp.asarray(1 / np.sqrt(np.diag(precision))))
    assert not any(vk.diagnose(k, target, family, params).reliable for k in jax.random.split(key, 12))


def test_upper_bound_is_the_chi_square_one(key):
    """For normals E_q[(p/q)²] is r/√(2r − 1) for each of two coordinates, r = σ_q²/σ_p²; log Z is 0 here."""
    report = report_of(key, gaussian_target(log_normalizer=0.0), scale=1.8, num_samples=20_000)
    ratio = (1.8 / 2.0) ** 2
    exact = np.log(ratio / np.sqrt(2 * ratio - 1))
    assert abs(float(report.upper_bound.value) - exact) < 6 * float(report.upper_bound.standard_error)
    assert float(report.upper_bound.standard_error) < 0.2 * exact  # the test could see a wrong formula
    assert float(report.elbo.value) < float(report.log_normalizer.value) < float(report.upper_bound.value)


def test_no_upper_bound_where_weights_do_not_allow_one(key):
    assert report_of(key, gaussian_target(), scale=1.0).upper_bound is None


def test_upper_bound_from_exact_draws_needs_no_light_weights(key):
    # The weights of the same q give none; KL(p‖q) is in closed form.
    def sample(key):
        return 1.0 + 2.0 * jax.random.normal(key, (2,))

    report = report_of(key, gaussian_target(sample=sample), scale=1.0)
    exact = 2 * (0.5 * (4 - 1) - np.log(2))
    assert abs(float(report.upper_bound.value) - exact) < 5 * float(report.upper_bound.standard_error)
    assert float(report.upper_bound.standard_error) < 0.1 * exact


def test_forward_kl_and_error_bounds(key):
    # q = N(1.2, 2²) twice against p = N(1, 2²) twice: KL(p‖q) = 2·0.005, χ² = exp(0.02) − 1.
    report = report_of(key, gaussian_target(), mean=1.2)
    assert abs(float(report.forward_kl.value) - 0.01) < 5 * float(report.forward_kl.standard_error)
    assert float(report.forward_kl.standard_error) < 0.2 * 0.01
    assert np.expm1(0.02) < report.chi_square < 2 * np.expm1(0.02)
    for row in report.coordinates.values():
        assert 0.2 < row.mean_error_bound < 0.5
        assert 0 < row.sd_error_bound < 1.0
    assert report.wasserstein.first == pytest.approx(
        np.hypot(*(row.mean_error_bound for row in report.coordinates.values())), rel=1e-3
    )


def test_no_error_bounds_where_weights_do_not_allow_them(key):
    report = report_of(key, gaussian_target(), scale=1.0)
    assert (report.chi_square, report.wasserstein) == (None, None)
    assert all(row.mean_error_bound is None for row in report.coordinates.values())
    assert report.forward_kl is None
