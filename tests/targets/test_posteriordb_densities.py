"""posteriordb densities against check points, independent oracles and reference draws."""

import json
import os
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from posteriordb_oracles import ORACLES, kidiq, sigmoid
from scipy import stats

from vi_kit.targets._models._log_densities import predict
from vi_kit.targets._posteriordb import posteriordb, posteriordb_names, posteriordb_reference
from vi_kit.targets._reference import coordinate_labels

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "posteriordb"
DIRECTORY = Path(os.environ.get("VI_KIT_POSTERIORDB", BESIDE))
needs_folder = pytest.mark.skipif(
    not DIRECTORY.is_dir(),
    reason="the data folder of posteriordb is not there; set VI_KIT_POSTERIORDB to one",
)
# Two-sided, 1e-6 for all 80 coordinates of the thirteen models and the two identities of each together.
STEIN_BOUND = stats.norm.isf(1e-6 / 2 / (2 * 80))


class Evaluated(NamedTuple):
    """A model's density and gradient at check points, one random point and reference draws, in float64."""

    name: str
    answers: dict
    random_point: np.ndarray  # in the described order
    z: np.ndarray  # all points, in the target's order
    values: np.ndarray
    gradients: np.ndarray

    @property
    def draws(self) -> slice:
        return slice(len(self.answers["check"]) + 1, None)


@pytest.fixture(scope="module", params=sorted(ORACLES))
def evaluated(request):
    name = request.param
    oracle = ORACLES[name]
    answers = json.loads((DIRECTORY / name / "reference.json").read_text())
    draws = np.load(DIRECTORY / "draws.npz")[name].astype(float)
    seen = answers["unconstrained"]
    random_point = np.random.default_rng(1).normal(seen["mean"], seen["sd"])
    described = [np.array(point["z"]) for point in answers["check"]] + [random_point]
    with jax.enable_x64(True):
        target = posteriordb(name, DIRECTORY)
        free = [np.array(oracle.to_free(z)) for z in described] + [oracle.from_draw(draw) for draw in draws]
        points = [oracle.to_variables(v) for v in free]
        stacked = {variable: np.stack([point[variable] for point in points]) for variable in points[0]}
        z = np.array(jax.vmap(target.unconstrain)(jax.tree.map(jnp.asarray, stacked)))
        # Draws at float32 points, so that float32 is judged there on its arithmetic alone.
        z[len(described) :] = z[len(described) :].astype(np.float32)
        values, gradients = jax.jit(jax.vmap(jax.value_and_grad(target.log_density)))(jnp.asarray(z))
    return Evaluated(name, answers, random_point, z, np.asarray(values), np.asarray(gradients))


def test_every_model_has_an_oracle():
    assert sorted(ORACLES) == list(posteriordb_names())


@needs_folder
def test_check_points(evaluated):
    expected = [point["log_prob"] for point in evaluated.answers["check"]]
    relative = 1e-6 if evaluated.name.startswith("gp") else 1e-9
    np.testing.assert_allclose(evaluated.values[: len(expected)], expected, rtol=relative)


@needs_folder
def test_density_equals_scipy_and_a_numerical_jacobian(evaluated):
    oracle = ORACLES[evaluated.name]
    data = json.loads((DIRECTORY / evaluated.name / "data.json").read_text())
    z = evaluated.random_point
    steps = z + 1e-30j * np.eye(len(z))
    jacobian = np.array([np.imag(oracle.to_free(step)) for step in steps]) / 1e-30
    x = oracle.to_variables(np.array(oracle.to_free(z)))
    expected = oracle.log_density(x, data) + np.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(evaluated.values[len(evaluated.answers["check"])], expected, rtol=1e-10)


def stein_scores(z, gradients, effective, weight, weight_gradient):
    """z-scores per coordinate of two of Stein's identities, g the gradient of the log density, w a weight.

    E[w g + ∇w] = 0 and E[(z − m)(w g + ∇w) + w] = 0.
    """
    first = weight[:, None] * gradients + weight_gradient
    terms = np.concatenate([first, (z - z.mean(0)) * first + weight[:, None]], axis=1)
    return terms.mean(0) / (terms.std(0, ddof=1) / np.sqrt(effective))


def stein_weight(name, z):
    """1; for the centered eight schools, where E[1 / tau²] is infinite, tau² / (1 + tau²)."""
    weight, gradient = np.ones(len(z)), np.zeros_like(z)
    if name.endswith("eight_schools_centered"):
        weight = sigmoid(2 * z[:, 1])  # the order is mu, log tau, theta
        gradient[:, 1] = 2 * weight * (1 - weight)
    return weight, gradient


def worst_score(evaluated, gradients):
    z = evaluated.z[evaluated.draws]
    effective = min(len(z), evaluated.answers["min_bulk_ess"])
    return np.abs(stein_scores(z, gradients, effective, *stein_weight(evaluated.name, z))).max()


@needs_folder
def test_reference_draws_agree_with_the_density(evaluated):
    gradients = evaluated.gradients[evaluated.draws]
    assert worst_score(evaluated, gradients) < STEIN_BOUND
    # Negative control: the same density to the power 1.25 is told apart, in every model.
    assert worst_score(evaluated, 1.25 * gradients) > STEIN_BOUND


@needs_folder
@pytest.mark.parametrize("evaluated", ["eight_schools-eight_schools_noncentered"], indirect=True)
def test_stein_check_sees_a_missing_jacobian(evaluated):
    # The order is mu, log tau, theta_trans, and the log-Jacobian is log tau.
    assert worst_score(evaluated, evaluated.gradients[evaluated.draws] - np.eye(10)[1]) > STEIN_BOUND


@needs_folder
def test_float32_keeps_value_and_gradient(evaluated):
    points = evaluated.z[evaluated.draws]
    target = posteriordb(evaluated.name, DIRECTORY)
    z = jnp.asarray(points[:64], dtype=jnp.float32)
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(target.log_density)))(z)
    assert values.dtype == gradients.dtype == jnp.float32
    exact_values, exact_gradients = evaluated.values[evaluated.draws], evaluated.gradients[evaluated.draws]
    np.testing.assert_allclose(values, exact_values[:64], rtol=5e-7, atol=1e-3)
    # In whitened coordinates, where a gradient is of order one however stiff the posterior.
    factor = np.linalg.cholesky(np.cov(points.T))
    error = (np.asarray(gradients, float) - exact_gradients[:64]) @ factor
    assert np.abs(error).max() < 1e-3


def test_predictors_are_computed_in_full_precision_on_every_device():
    # On a GPU a float32 product may be rounded to ten bits; what is asked for is visible without one.
    assert "HIGHEST" in str(jax.make_jaxpr(predict)(jnp.ones((3, 2)), jnp.ones(2)))


@needs_folder
def test_float32_bound_refuses_expanded_squares():
    data = json.loads((DIRECTORY / "kidiq-kidscore_interaction" / "data.json").read_text())
    beta = np.array(json.loads((DIRECTORY / "kidiq-kidscore_interaction" / "reference.json").read_text())["mean"])
    response, columns = kidiq(data)
    design, sigma = np.stack(columns, axis=1), beta[-1]
    exact = -0.5 * np.sum((response - design @ beta[:-1]) ** 2) / sigma**2
    x, y, b = (array.astype(np.float32) for array in (design, response, beta[:-1]))
    expanded = -0.5 * (y @ y - 2 * (x.T @ y) @ b + b @ (x.T @ x) @ b) / np.float32(sigma) ** 2
    assert abs(float(expanded) - exact) > 1e-3 + 5e-7 * abs(exact)


@needs_folder
def test_reported_quantities_are_those_of_the_reference(evaluated):
    reference = posteriordb_reference(evaluated.name, DIRECTORY)
    with jax.enable_x64(True):
        target = posteriordb(evaluated.name, DIRECTORY)
        reported = target.report(jnp.asarray(evaluated.z[evaluated.draws][0]))
    found = {}
    for variable, value in reported.items():
        found |= dict(zip(coordinate_labels(variable, value.shape), np.ravel(value), strict=True))
    assert set(reference.labels) <= set(found)
    for label in reference.labels:
        column = reference.draws[label]
        np.testing.assert_allclose(found[label], column[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(column.mean(dtype=float), reference.mean[label], rtol=1e-5, atol=1e-7)
        assert reference.quantiles[label] == pytest.approx(np.quantile(column, [0.05, 0.5, 0.95]), rel=1e-4, abs=1e-5)
    assert reference.log_normalizer == evaluated.answers["computed_here"]["log_Z"]
    assert reference.log_normalizer_standard_error == evaluated.answers["computed_here"]["log_Z_se"]
