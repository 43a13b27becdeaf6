"""What `vk.fit(key, target)` is tried on: posteriors with reference answers, synthetic targets with known log Z."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

import vi_kit as vk

# KL(q‖p) of the best full-rank Gaussian, in nats: long runs in double precision, to two or three digits.
FLOORS = {
    "eight_schools-eight_schools_noncentered": 0.225,
    "eight_schools-eight_schools_centered": 1.254,
    "arK-arK": 0.019,
    "garch-garch11": 0.201,
    "kidiq-kidscore_interaction": 0.006,
    "mesquite-logmesquite": 0.089,
    "nes1980-nes": 0.006,
    "sblrc-blr": 0.028,
    "low_dim_gauss_mix-low_dim_gauss_mix": 0.005,
    "gp_pois_regr-gp_regr": 0.009,
    "hmm_example-hmm_example": 0.031,
    "earnings-logearn_interaction": 0.002,
    "kilpisjarvi_mod-kilpisjarvi": 0.015,
}
REAL = ("eight_schools", "eight_schools_centered", "seeds", "breast_cancer", "diabetes", "nile", "doctor_visits")
# Constants of the ladder (rates, steps, radii of starts) were chosen with these in view; with no other.
TUNED_ON = {
    "eight_schools-eight_schools_noncentered",
    "eight_schools-eight_schools_centered",
    "garch-garch11",
    "mesquite-logmesquite",
    "hmm_example-hmm_example",
    "kilpisjarvi_mod-kilpisjarvi",
    "eight_schools",
    "eight_schools_centered",
    "seeds",
    "diabetes",
    "seven_points",
    "funnel",
    "banana",
}


class Problem(NamedTuple):
    """A target, and what is known of it."""

    name: str
    kind: str  # posteriordb, bundled or synthetic
    make: Callable[[], Any]
    reference: Callable[[], Any] = lambda: None
    floor: float | None = None


def _mixture(means: np.ndarray) -> Any:
    dim = means.shape[1]

    def log_density(x: Any, means: Any) -> Any:
        squares = jnp.sum(jnp.square(x[None] - means), axis=1)
        return jax.nn.logsumexp(-0.5 * squares) - jnp.log(means.shape[0]) - 0.5 * dim * jnp.log(2 * jnp.pi)

    return vk.make_target(log_density, dim, data=jnp.asarray(means, jnp.float32), log_normalizer=0.0)


def four_modes() -> Any:
    """Build four normals on a cross, ten standard deviations from its center."""
    return _mixture(10.0 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]]))


def forty_modes() -> Any:
    """Build forty normals with means uniform in a square of side 80."""
    return _mixture(np.random.default_rng(2024).uniform(-40, 40, size=(40, 2)))


def heavy_tails() -> Any:
    """Build an elliptical Student-t with 4 degrees of freedom in 10 dimensions, of log Z = 0."""
    dim, degrees = 10, 4.0
    log_z = gammaln(0.5 * degrees) - gammaln(0.5 * (degrees + dim)) + 0.5 * dim * jnp.log(degrees * jnp.pi)

    def log_density(x: Any) -> Any:
        return -0.5 * (degrees + dim) * jnp.log1p(jnp.sum(jnp.square(x)) / degrees)

    return vk.make_target(log_density, dim, log_normalizer=float(log_z))


def correlated_gaussian() -> Any:
    """Build a rotated Gaussian of 100 dimensions with variances from 1 to 1e4."""
    dim = 100
    rotation = np.linalg.qr(np.random.default_rng(100).normal(size=(dim, dim)))[0]
    deviations = np.sqrt(np.geomspace(1, 1e4, dim))
    data = jnp.asarray((rotation / deviations).T, jnp.float32)
    log_z = float(0.5 * dim * np.log(2 * np.pi) + np.sum(np.log(deviations)))
    return vk.make_target(lambda x, w: -0.5 * jnp.sum(jnp.square(w @ x)), dim, data=data, log_normalizer=log_z)


def seven_points() -> Any:
    """Build the regression of pymc issue 2162, where mean-field ADVI ends at a slope of the wrong sign."""
    data = {
        "x": np.array([1.17, 2.97, 3.26, 4.69, 5.83, 6.00, 6.41]),
        "y": np.array([78.93, 58.20, 67.47, 37.47, 45.65, 32.92, 29.97]),
    }

    def log_density(p: Any, data: Any) -> Any:
        normal = jax.scipy.stats.norm.logpdf
        prior = normal(p["intercept"], 0.0, 100.0) + normal(p["slope"], 0.0, 100.0)
        prior += jnp.log(2.0) + jax.scipy.stats.cauchy.logpdf(p["sigma"], 0.0, 5.0)
        return prior + jnp.sum(normal(data["y"], p["intercept"] + p["slope"] * data["x"], p["sigma"]))

    like = {"intercept": 0.0, "slope": 0.0, "sigma": 1.0}
    return vk.make_target(log_density, like, support={"sigma": vk.support.positive}, data=data)


class Moments(NamedTuple):
    """Means and standard deviations by quadrature, in the place of a reference."""

    mean: dict[str, float]
    sd: dict[str, float]
    log_normalizer: float | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return tuple(self.mean)


def seven_points_reference() -> Moments:
    """Integrate: given sigma the coefficients are normal, and sigma is one dimension."""
    x = np.array([1.17, 2.97, 3.26, 4.69, 5.83, 6.00, 6.41])
    y = np.array([78.93, 58.20, 67.47, 37.47, 45.65, 32.92, 29.97])
    design = np.stack([np.ones(7), x], axis=1)
    sigmas = np.exp(np.linspace(np.log(0.3), np.log(300), 20_001))
    logs, means, squares = [], [], []
    for sigma in sigmas:
        precision = design.T @ design / sigma**2 + np.eye(2) / 100.0**2
        mean = np.linalg.solve(precision, design.T @ y / sigma**2)
        residual = y @ y / sigma**2 - mean @ precision @ mean
        logs.append(
            -0.5 * residual - 0.5 * np.linalg.slogdet(precision)[1] - 7 * np.log(sigma) - np.log1p((sigma / 5) ** 2)
        )
        means.append([*mean, sigma])
        squares.append([*(mean**2 + np.diag(np.linalg.inv(precision))), sigma**2])
    weights = np.exp(np.array(logs) - max(logs)) * sigmas  # the grid is even in log sigma
    weights /= weights.sum()
    mean = weights @ np.array(means)
    sd = np.sqrt(weights @ np.array(squares) - mean**2)
    names = ("intercept", "slope", "sigma")
    return Moments(dict(zip(names, mean, strict=True)), dict(zip(names, sd, strict=True)))


def problems(posteriordb: Path | None) -> list[Problem]:
    """Return all there are; those of posteriordb where its folder was given."""
    found = []
    if posteriordb is not None:
        found += [
            Problem(
                name, "posteriordb",
                lambda name=name: vk.targets.posteriordb(name, posteriordb),
                lambda name=name: vk.targets.posteriordb_reference(name, posteriordb),
                floor,
            )
            for name, floor in FLOORS.items()
        ]  # fmt: skip
    found += [
        Problem(
            name, "bundled", lambda name=name: vk.targets.load(name), lambda name=name: vk.targets.reference(name)
        )
        for name in REAL
    ]  # fmt: skip
    found.append(Problem("seven_points", "real", seven_points, seven_points_reference))
    found += [
        Problem("funnel", "synthetic", lambda: vk.targets.load("funnel")),
        Problem("banana", "synthetic", lambda: vk.targets.load("banana")),
        Problem("correlated_gaussian", "synthetic", correlated_gaussian),
        Problem("four_modes", "synthetic", four_modes),
        Problem("heavy_tails", "synthetic", heavy_tails),
        Problem("forty_modes", "synthetic", forty_modes),
    ]
    return found
