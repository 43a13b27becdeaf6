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
    "hidden_in_one",
    "hidden_in_all",
    "hidden_alone",
}


class Problem(NamedTuple):
    """A target, and what is known of it."""

    name: str
    kind: str  # posteriordb, bundled, real, one parameter, synthetic or hidden
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


def one_parameter() -> dict[str, Any]:
    """Build everyday posteriors of one parameter, skewed as few data make them."""
    unit, positive, gammaln = vk.support.unit_interval, vk.support.positive, jax.scipy.special.gammaln
    normal, waits = jax.scipy.stats.norm.logpdf, np.array([0.3, 1.9, 0.2, 4.1, 0.8])
    counts, pairs = (
        np.array([0.0, 7.0, 1.0, 0.0, 12.0, 3.0]),
        np.array([[0.9, 1.1], [-0.2, 0.4], [1.8, 1.2], [-1, -1.3]]),
    )
    doses, dead = np.array([-2.0, -1.0, 0.0, 1.0, 2.0]), np.array([0.0, 0.0, 1.0, 3.0, 5.0])

    def weibull(p: Any, y: Any) -> Any:
        k = p["shape"]
        return -k + jnp.sum(jnp.log(k) + (k - 1) * jnp.log(y) - y**k)

    def negative_binomial(p: Any, y: Any) -> Any:
        r, mean = p["dispersion"], 4.0
        terms = gammaln(y + r) - gammaln(r) + r * jnp.log(r / (r + mean)) + y * jnp.log(mean / (r + mean))
        return -0.5 * r + jnp.sum(terms)

    def correlation(p: Any, xy: Any) -> Any:
        rest = 1 - p["rho"] ** 2
        squares = jnp.sum(xy**2) - 2 * p["rho"] * jnp.sum(xy[:, 0] * xy[:, 1])
        return -0.5 * len(pairs) * jnp.log(rest) - 0.5 * squares / rest

    def slope(p: Any, y: Any) -> Any:
        eta = p["slope"] * doses
        return normal(p["slope"], 0.0, 5.0) + jnp.sum(y * eta - 5 * jax.nn.softplus(eta))

    return {
        "share_2_of_3": vk.make_target(
            lambda p, y: y * jnp.log(p["share"]) + (3 - y) * jnp.log1p(-p["share"]), {"share": 0.5},
            support={"share": unit}, data=2.0,
        ),
        "weibull_shape": vk.make_target(weibull, {"shape": 1.0}, support={"shape": positive}, data=waits),
        "dispersion": vk.make_target(
            negative_binomial, {"dispersion": 1.0}, support={"dispersion": positive}, data=counts
        ),
        "correlation": vk.make_target(
            correlation, {"rho": 0.0}, support={"rho": vk.support.interval(-1.0, 1.0)}, data=pairs
        ),
        "slope_of_doses": vk.make_target(slope, {"slope": 0.0}, data=dead),
        "sd_of_four": vk.make_target(
            lambda p, y: -jnp.log(p["sd"]) + jnp.sum(normal(y, 0.0, p["sd"])), {"sd": 1.0},
            support={"sd": positive}, data=pairs[:, 0],
        ),
        "upper_end": vk.make_target(  # of a uniform distribution: cut off at the largest of the data
            lambda p, y: -6 * jnp.log(p["end"]), {"end": 5.0}, support={"end": vk.support.greater_than(4.1)}, data=waits
        ),
        "location_of_four": vk.make_target(
            lambda p, y: jnp.sum(-2.5 * jnp.log1p((y - p["location"]) ** 2 / 4)), {"location": 0.0}, data=pairs[:, 1]
        ),
    }  # fmt: skip


def by_quadrature(target: Any) -> Moments:
    """Integrate over one unconstrained coordinate."""
    grid = jnp.linspace(-40.0, 40.0, 80_001)[:, None]
    logs = np.asarray(jax.vmap(target.log_density)(grid), np.float64)
    weights = np.where(np.isfinite(logs), np.exp(logs - np.nanmax(np.where(np.isfinite(logs), logs, -np.inf))), 0.0)
    weights /= weights.sum()
    (label,) = target.layout.names
    x = np.asarray(jax.vmap(lambda z: target.constrain(z)[label])(grid), np.float64)
    x = np.where(weights > 0, x, 0.0)
    mean = float(weights @ x)
    return Moments({label: mean}, {label: float(np.sqrt(weights @ (x - mean) ** 2))})


def hidden(dim: int, share: float, width: float, *, alone: bool) -> tuple[Any, Moments]:
    """Build a standard normal with a share of its mass far wider, in all coordinates or in the first alone."""
    widths = np.full(dim, width)
    widths[1:] = 1.0 if alone else width
    normal = jax.scipy.stats.norm.logpdf

    def log_density(x: Any, s: Any) -> Any:
        wide = jnp.log(share) + jnp.sum(normal(x / s) - jnp.log(s))
        return jnp.logaddexp(jnp.log1p(-share) + jnp.sum(normal(x)), wide)

    labels = [f"x[{i}]" for i in range(dim)]
    sds = np.sqrt(1 - share + share * widths**2)
    target = vk.make_target(log_density, dim, data=widths, log_normalizer=0.0)
    return target, Moments(dict.fromkeys(labels, 0.0), dict(zip(labels, sds.tolist(), strict=True)))


HIDDEN = {
    "hidden_in_one": (1, 0.01, 30.0, False),
    "hidden_in_all": (10, 0.03, 10.0, False),
    "hidden_alone": (10, 0.01, 30.0, True),
}


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
        Problem(
            name, "one parameter", lambda name=name: one_parameter()[name],
            lambda name=name: by_quadrature(one_parameter()[name]),
        )
        for name in one_parameter()
    ]  # fmt: skip
    found += [
        Problem(
            name, "hidden",
            lambda dim=dim, share=share, width=width, alone=alone: hidden(dim, share, width, alone=alone)[0],
            lambda dim=dim, share=share, width=width, alone=alone: hidden(dim, share, width, alone=alone)[1],
        )
        for name, (dim, share, width, alone) in HIDDEN.items()
    ]  # fmt: skip
    found += [
        Problem("funnel", "synthetic", lambda: vk.targets.load("funnel")),
        Problem("banana", "synthetic", lambda: vk.targets.load("banana")),
        Problem("correlated_gaussian", "synthetic", correlated_gaussian),
        Problem("four_modes", "synthetic", four_modes),
        Problem("heavy_tails", "synthetic", heavy_tails),
        Problem("forty_modes", "synthetic", forty_modes),
    ]
    return found
