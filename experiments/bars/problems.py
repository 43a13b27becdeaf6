"""The targets, and what is known of them: log Z, the best Gaussians, moments of the unconstrained coordinates."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vi_kit as vk

# Bars of the richer families and of the best Gaussians in some thirty dimensions: KL(q‖p), or the least ELBO, nats.
RICHER = {
    "funnel10": (0.3, 0.1),
    "eight_schools-eight_schools_centered": (0.5, 0.2),
    "garch-garch11": (0.08, 0.03),
    "brownian": (0.5, 0.15),
    "seeds": (0.4, 0.1),
}
LEAST_ELBO = {"credit_noprior": -504.55, "credit_sd10": -585.15, "ionosphere": -112.17}
# Order of the variables in the files' unconstrained coordinates, where it is not the target's own.
ORDERS = {
    "eight_schools-eight_schools_centered": ("theta", "mu", "tau"),
    "eight_schools-eight_schools_noncentered": ("theta_trans", "mu", "tau"),
    "garch-garch11": ("mu", "alpha0", "alpha1", "beta1_fraction"),
    "gp_pois_regr-gp_regr": ("rho", "alpha", "sigma"),
    "hmm_example-hmm_example": ("theta1", "theta2", "mu"),
}


class Problem(NamedTuple):
    """A target and its answers.

    Attributes:
        name: of the target.
        target: the target.
        log_normalizer: log Z.
        floors: by family ("full-rank", "mean-field"), what the best Gaussian by reverse KL reaches: its `rev_kl`,
            `khat`, worst `mean` error and least and largest `ratio` of sds, as far as known.
        forward: KL(p‖q) of the Gaussian with p's moments.
        moments: mean and covariance of z.
        reference: moments and draws of the constrained coordinates.
    """

    name: str
    target: Any
    log_normalizer: float
    floors: Mapping[str, dict[str, Any]] = MappingProxyType({})
    forward: float | None = None
    moments: tuple[np.ndarray, np.ndarray] | None = None
    reference: Any = None


def _order(name: str, target: Any, check: list[dict[str, Any]]) -> np.ndarray:
    """Return where in the file each coordinate of the target is; its log densities tell whether that is right."""
    sizes = dict(
        zip(target.layout.names, (math.prod(shape) for shape in target.layout.unconstrained_shapes), strict=True)
    )
    ends = np.cumsum([0, *(sizes[variable] for variable in ORDERS.get(name, target.layout.names))])
    starts = dict(zip(ORDERS.get(name, target.layout.names), ends, strict=False))
    order = np.concatenate([starts[variable] + np.arange(sizes[variable]) for variable in target.layout.names])
    for point in check:
        found = float(target.log_density(jnp.asarray(np.array(point["z"])[order], jnp.result_type(float))))
        if not np.isclose(found, point["log_prob"], rtol=1e-3, atol=1e-2):
            raise ValueError(f"{name}: expected a log density of {point['log_prob']} at {point['z']}, got {found}")
    return order


def _posteriordb(name: str, directory: Path) -> Problem:
    answers = json.loads((directory / name / "reference.json").read_text())
    known, moments = answers["computed_here"], answers["unconstrained"]
    floors = {
        title: {
            "rev_kl": known[short]["rev_kl"],
            "khat": known[short]["khat"],
            "mean": known[short]["max_mean_err_sd_x"],
            "ratio": (known[short]["sd_ratio_min_x"], known[short]["sd_ratio_max_x"]),
        }
        for title, short in (("full-rank", "fr"), ("mean-field", "mf"))
    }
    target = vk.targets.posteriordb(name, directory)
    order = _order(name, target, answers["check"])
    return Problem(
        name,
        target,
        known["log_Z"],
        floors,
        known["fwd_kl_of_moment_matched"]["full_rank"],
        (np.array(moments["mean"])[order], np.array(moments["cov"])[np.ix_(order, order)]),
        vk.targets.posteriordb_reference(name, directory),
    )


def _sampling_target(name: str, directory: Path) -> Problem:
    answers = json.loads((directory / f"{name}.reference.json").read_text())
    floors = {"full-rank": {"rev_kl": answers["full_rank"]["rev_kl"]}}
    return Problem(name, vk.targets.sampling_target(name, directory), answers["log_Z"], floors)


def posteriordb(directory: Path | None) -> dict[str, Callable[[], Problem]]:
    """Return what reads each posterior; nothing without its folder."""
    if directory is None:
        return {}
    names = (name for name in vk.targets.posteriordb_names() if (directory / name / "reference.json").is_file())
    return {name: lambda name=name: _posteriordb(name, directory) for name in names}


def sampling_targets(directory: Path | None) -> dict[str, Callable[[], Problem]]:
    """Return what reads each sampling target; nothing without their folder."""
    if directory is None:
        return {}
    names = (name for name in (*RICHER, *LEAST_ELBO) if (directory / f"{name}.reference.json").is_file())
    return {name: lambda name=name: _sampling_target(name, directory) for name in names}


def eight_schools() -> Problem:
    """Return the eight schools that come with vi_kit, non-centered."""
    reference = vk.targets.reference("eight_schools")
    floors = {"full-rank": {"rev_kl": 0.225}, "mean-field": {"rev_kl": 0.280}}
    return Problem(
        "eight_schools", vk.targets.load("eight_schools"), float(reference.log_normalizer), floors, reference=reference
    )


def _log_density(x: jax.Array, data: tuple[jax.Array, jax.Array]) -> jax.Array:
    mean, root = data
    return -0.5 * jnp.sum(jnp.square(root @ (x - mean)))


class Gaussian(NamedTuple):
    """A Gaussian target with its answer."""

    target: Any
    mean: np.ndarray
    covariance: np.ndarray


def gaussian(dim: int, condition: float = 100.0) -> Gaussian:
    """Rotate variances from 1 to the condition number about a standard normal mean."""
    generator = np.random.default_rng(dim)
    rotation = np.linalg.qr(generator.normal(size=(dim, dim)))[0]
    variances, mean = np.geomspace(1, condition, dim), generator.normal(size=dim)
    data = (jnp.asarray(mean), jnp.asarray((rotation / np.sqrt(variances)).T))
    return Gaussian(vk.make_target(_log_density, dim, data=data), mean, rotation * variances @ rotation.T)


def gaussian_kl(p: tuple[np.ndarray, np.ndarray], q: tuple[np.ndarray, np.ndarray]) -> float:
    """Return KL(p‖q) of Gaussians by mean and covariance, in double precision."""
    (p_mean, p_covariance), (q_mean, q_covariance) = p, q
    root = np.linalg.cholesky(q_covariance)
    inner = np.linalg.solve(root, np.linalg.cholesky(p_covariance))
    shift = np.linalg.solve(root, p_mean - q_mean)
    logs = np.sum(np.log(np.abs(np.linalg.svd(inner, compute_uv=False))))
    return float(0.5 * (np.sum(inner**2) + shift @ shift - len(shift)) - logs)
