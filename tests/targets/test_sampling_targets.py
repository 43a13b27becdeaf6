"""Sampling targets against check points, scipy oracles from their definitions, and reference draws."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vi_kit.targets._sampling_targets import (
    sampling_target,
    sampling_target_names,
    sampling_target_reference,
)

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "sampling_targets"
DIRECTORY = Path(os.environ.get("VI_KIT_SAMPLING_TARGETS", BESIDE))
needs_folder = pytest.mark.skipif(
    not DIRECTORY.is_dir(),
    reason="the data folder of sampling targets is not there; set VI_KIT_SAMPLING_TARGETS",
)
DIMENSIONS = {
    "funnel10": 10,
    "credit_sd10": 25,
    "credit_noprior": 25,
    "seeds": 26,
    "ionosphere": 35,
    "brownian": 32,
}
# Two-sided, 1e-6 for all 153 coordinates and the two identities of each together.
STEIN_BOUND = stats.norm.isf(1e-6 / 2 / (2 * sum(DIMENSIONS.values())))


def funnel(z):
    return stats.norm.logpdf(z[0], 0, 3) + stats.norm.logpdf(z[1:], 0, np.exp(z[0] / 2)).sum()


def logistic(file, *, center, prior_sd=None):
    def log_density(z):
        data = np.load(DIRECTORY / file)
        x, y = data["X"].astype(float), data["y"]
        scale = np.sqrt(np.mean((x - x.mean(0)) ** 2, axis=0))
        x = (x - x.mean(0) if center else x) / np.where(scale == 0, 1, scale)
        success = 1 / (1 + np.exp(-(z[0] + x @ z[1:])))
        prior = 0 if prior_sd is None else stats.norm.logpdf(z, 0, prior_sd).sum()
        return prior + stats.bernoulli.logpmf(y, success).sum()

    return log_density


def seeds(z):
    data = {key: np.array(value) for key, value in json.loads((DIRECTORY / "seeds.json").read_text()).items()}
    (a0, a1, a12, a2), b, tau = z[:4], z[4:25], np.exp(z[25])
    linear = a0 + a1 * data["X1"] + a2 * data["X2"] + a12 * data["X1"] * data["X2"] + b
    total = stats.binom.logpmf(data["R"], data["N"], 1 / (1 + np.exp(-linear))).sum()
    total += stats.norm.logpdf(z[:4], 0, 10).sum() + stats.norm.logpdf(b, 0, 1 / np.sqrt(tau)).sum()
    return total + stats.gamma.logpdf(tau, 0.01, scale=100) + z[25]


def brownian(z):
    observed = json.loads((DIRECTORY / "brownian.json").read_text())["observed_locs"]
    a, b = np.log1p(np.exp(z[:2]))
    total = stats.lognorm.logpdf([a, b], s=2).sum() - np.log1p(np.exp(-z[:2])).sum()
    total += stats.norm.logpdf(z[2:], np.concatenate([[0], z[2:-1]]), a).sum()
    return total + sum(stats.norm.logpdf(y, x, b) for y, x in zip(observed, z[2:], strict=True) if y is not None)


ORACLES = {
    "funnel10": funnel,
    "credit_sd10": logistic("german_credit.npz", center=False, prior_sd=10),
    "credit_noprior": logistic("german_credit.npz", center=False),
    "seeds": seeds,
    "ionosphere": logistic("ionosphere.npz", center=True, prior_sd=1),
    "brownian": brownian,
}


@pytest.fixture(scope="module", params=sorted(ORACLES))
def evaluated(request):
    """Name, answers, points z (two check points, a random one, reference draws), values and gradients."""
    name = request.param
    answers = json.loads((DIRECTORY / f"{name}.reference.json").read_text())
    random_point = np.random.default_rng(2).normal(answers["z_mean"], np.array(answers["z_sd"]) / 2)
    draws = np.load(DIRECTORY / "draws_2000.npz")[name]
    z = np.concatenate([[point["z"] for point in answers["check"]], random_point[None], draws])
    with jax.enable_x64(True):
        target = sampling_target(name, DIRECTORY)
        assert target.dim == DIMENSIONS[name]
        values, gradients = jax.jit(jax.vmap(jax.value_and_grad(target.log_density)))(jnp.asarray(z))
    return name, answers, z, np.asarray(values), np.asarray(gradients)


def test_every_target_has_an_oracle():
    assert sorted(ORACLES) == list(sampling_target_names())


@needs_folder
def test_check_points_and_oracle_in_the_published_coordinates(evaluated):
    name, answers, z, values, _ = evaluated
    np.testing.assert_allclose(values[:2], [point["log_prob"] for point in answers["check"]], rtol=1e-9)
    np.testing.assert_allclose(values[:3], [ORACLES[name](point) for point in z[:3]], rtol=1e-10)


def worst_score(z, mean, gradients):
    """Largest z-score of E[g] = 0 and E[(z − m) g] + 1 = 0 (Stein), g the gradient of the log density."""
    terms = np.concatenate([gradients, (z - mean) * gradients + 1], axis=1)
    effective = 0.85 * len(z)  # neighboring draws correlate by up to 0.07
    return np.abs(terms.mean(0) / (terms.std(0, ddof=1) / np.sqrt(effective))).max()


@needs_folder
def test_reference_draws_agree_with_the_density(evaluated):
    _, answers, z, _, gradients = evaluated
    assert worst_score(z[3:], answers["z_mean"], gradients[3:]) < STEIN_BOUND
    # Negative control: the same density to the power 1.5 is told apart.
    assert worst_score(z[3:], answers["z_mean"], 1.5 * gradients[3:]) > STEIN_BOUND


@needs_folder
def test_float32_keeps_value_and_gradient(evaluated):
    name, _, points, exact_values, exact_gradients = evaluated
    target = sampling_target(name, DIRECTORY)
    z = jnp.asarray(points[3:67], dtype=jnp.float32)
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(target.log_density)))(z)
    assert values.dtype == gradients.dtype == jnp.float32
    np.testing.assert_allclose(values, exact_values[3:67], rtol=1e-6, atol=1e-4)
    scale = exact_gradients[3:].std(0)
    assert np.max(np.abs(np.asarray(gradients, float) - exact_gradients[3:67]) / scale) < 1e-4


def test_funnel_needs_no_folder_and_has_exact_draws(tmp_path, key):
    target = sampling_target("funnel10", tmp_path)
    assert float(target.log_normalizer) == 0.0
    x = jax.vmap(target.sample)(jax.random.split(key, 4_000))
    v, rest = np.asarray(x["v"], float), np.asarray(x["x"], float)
    standardized = (rest / np.exp(v / 2)[:, None]).ravel()
    assert stats.kstest(v / 3, "norm").pvalue > 1e-6
    assert stats.kstest(standardized, "norm").pvalue > 1e-6
    size = np.log(np.abs(standardized))
    assert stats.pearsonr(v.repeat(9), size).pvalue > 1e-6
    # Negative control: a scale of exp(0.45 v) for exp(0.5 v) is told apart.
    assert stats.pearsonr(v.repeat(9), size - 0.05 * v.repeat(9)).pvalue < 1e-6


@needs_folder
@pytest.mark.parametrize("name", sorted(ORACLES))
def test_reference_holds_together(name):
    answers = json.loads((DIRECTORY / f"{name}.reference.json").read_text())
    reference = sampling_target_reference(name, DIRECTORY)
    assert reference.log_normalizer == answers["log_Z"]
    assert len(reference.labels) == DIMENSIONS[name]
    for label in reference.labels:
        draws, sd = reference.draws[label].astype(float), reference.sd[label]
        assert draws.shape == (2_000,)
        # The kept draws are some of the long run's: within six of their standard errors.
        assert abs(draws.mean() - reference.mean[label]) < 6 * max(sd, draws.std()) / np.sqrt(2_000)
        assert reference.quantiles[label] == pytest.approx(np.quantile(draws, [0.05, 0.5, 0.95]), rel=1e-5, abs=1e-6)


@needs_folder
def test_constrained_variables_are_reported_in_their_own_space():
    seeds_reference = sampling_target_reference("seeds", DIRECTORY)
    brownian_reference = sampling_target_reference("brownian", DIRECTORY)
    log_tau = np.load(DIRECTORY / "draws_2000.npz")["seeds"][:, -1].astype(float)
    assert seeds_reference.quantiles["tau"][1] == pytest.approx(np.exp(np.median(log_tau)), rel=1e-3)
    exact = json.loads((DIRECTORY / "brownian.reference.json").read_text())["exact_by_quadrature"]
    for name, moments in exact.items():
        assert (brownian_reference.mean[name], brownian_reference.sd[name]) == (
            moments["mean"],
            moments["sd"],
        )
        assert brownian_reference.draws[name].mean(dtype=float) == pytest.approx(
            moments["mean"], abs=0.1 * moments["sd"]
        )


def test_unknown_name_suggests_the_nearest(tmp_path):
    with pytest.raises(ValueError, match=r"no sampling target is called 'funnel'; the nearest: funnel10"):
        sampling_target("funnel", tmp_path)


@pytest.mark.parametrize("reader", [sampling_target, sampling_target_reference])
def test_missing_file_is_named(reader, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"looked for german_credit\.npz of credit_sd10 in "):
        reader("credit_sd10", tmp_path)


def test_data_that_do_not_fit_are_refused(tmp_path):
    np.savez(tmp_path / "ionosphere.npz", X=np.ones((3, 2)), y=np.array([0, 1, 2]))
    with pytest.raises(ValueError, match=r"data: ionosphere needs 'y' of zeros and ones, got \[0.0, 1.0, 2.0\]"):
        sampling_target("ionosphere", tmp_path)
    np.savez(tmp_path / "ionosphere.npz", X=np.ones((3, 2)), y=np.array([0, 1]))
    with pytest.raises(ValueError, match=r"data: ionosphere needs one row of 'X' per 'y', got 3 and 2"):
        sampling_target("ionosphere", tmp_path)
    (tmp_path / "seeds.json").write_text(json.dumps({"R": [3], "N": [2], "X1": [0], "X2": [1]}))
    with pytest.raises(ValueError, match=r"data: seeds needs counts 'R' from 0 to 'N'"):
        sampling_target("seeds", tmp_path)
    (tmp_path / "brownian.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match=r"data: brownian needs the list 'observed_locs'"):
        sampling_target("brownian", tmp_path)
