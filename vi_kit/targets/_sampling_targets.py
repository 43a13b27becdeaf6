"""Targets that papers on sampling compare on, with log Z known or measured; data read from a folder.

Source: Blessing, Jia, Esslinger, Vargas, Neumann, "Beyond ELBOs: A Large-Scale Evaluation of Variational
Methods for Sampling", ICML 2024, arXiv 2406.07423.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit import support
from vi_kit._types import Target
from vi_kit.targets._models import RawData
from vi_kit.targets._models._sampling import SAMPLING_MODELS, funnel10
from vi_kit.targets._names import unknown_name
from vi_kit.targets._reference import QUANTILE_LEVELS, Reference, coordinate_labels

_PROVENANCE = {
    "funnel10": "exact means, sds and log Z; quantiles from 2,000 exact draws",
    "brownian": "10,000 draws of NUTS, scales and log Z by quadrature; quantiles from 2,000 draws",
}


def sampling_target_names() -> tuple[str, ...]:
    """List the sampling targets.

    Returns:
        Names, sorted.

    Example:
        >>> sampling_target_names()
        ('brownian', 'credit_noprior', 'credit_sd10', 'funnel10', 'ionosphere', 'seeds')
    """
    return tuple(sorted([*SAMPLING_MODELS, "funnel10"]))


def sampling_target(name: str, directory: str | os.PathLike[str]) -> Target:
    """Build a sampling target from its data in a folder.

    The flat unconstrained coordinates are those of the published figures, in their order:

    - funnel10 (10): v ~ normal(0, 3), x[i] ~ normal(0, exp(v / 2)); log Z = 0, exact draws; reads no file.
    - credit_sd10, credit_noprior (25): logistic regression on columns divided by their sds, and
      w ~ normal(0, 10) or flat.
    - ionosphere (35): logistic regression on standardized columns, w ~ normal(0, 1).
    - seeds (26): a0, a1, a12, a2, b[21], tau: binomial regression, effects b ~ normal(0, 1 / sqrt tau).
    - brownian (32): innovation_scale, observation_scale (softplus of z), x[30]: a random walk
      observed with noise in its first and last ten steps.

    Args:
        name: One of `sampling_target_names()`.
        directory: Folder with the data files.

    Returns:
        The target.

    Raises:
        ValueError: If there is no such target, or the data do not fit it.
        FileNotFoundError: If the folder or the data are not there.
    """
    if name == "funnel10":
        return funnel10()
    if name not in SAMPLING_MODELS:
        raise unknown_name(name, sampling_target_names(), "sampling target")
    file, build = SAMPLING_MODELS[name]
    return build(RawData(name, _load(_existing(directory, file, name)))).target()


def sampling_target_reference(name: str, directory: str | os.PathLike[str]) -> Reference | None:
    """Read the reference answers of a sampling target.

    Means and sds are those of the long run where the variable is unconstrained; those of constrained ones and
    all quantiles are from the 2,000 kept draws (for brownian's scales, mean and sd by quadrature).

    Args:
        name: One of `sampling_target_names()`.
        directory: Folder with NAME.reference.json and draws_2000.npz.

    Returns:
        The reference, or None where the folder has no draws of it.

    Raises:
        ValueError: If there is no such target.
        FileNotFoundError: If the folder or the data are not there.
    """
    target = sampling_target(name, directory)
    answers = _load(_existing(directory, f"{name}.reference.json", name))
    path = Path(directory) / "draws_2000.npz"
    unconstrained = _load(path).get(name) if path.is_file() else None
    if unconstrained is None:
        return None
    z = jnp.asarray(unconstrained, dtype=jnp.result_type(float))
    x = jax.vmap(target.constrain)(z)
    draws: dict[str, np.ndarray] = {}
    for variable, values in x.items():
        flat = np.asarray(values).reshape(len(z), -1)
        draws.update(zip(coordinate_labels(variable, values.shape[1:]), flat.T, strict=True))
    mean = {label: float(np.mean(values, dtype=np.float64)) for label, values in draws.items()}
    sd = {label: float(np.std(values, ddof=1, dtype=np.float64)) for label, values in draws.items()}
    # Constrained coordinates keep the draws' own moments: those of z say nothing of them.
    constrained = {
        variable for variable, where in zip(target.layout.names, target.supports, strict=True) if where != support.real
    }
    for label, z_mean, z_sd in zip(draws, answers["z_mean"], answers["z_sd"], strict=True):
        if label not in constrained:
            mean[label], sd[label] = z_mean, z_sd
    for label, moments in answers.get("exact_by_quadrature", {}).items():
        mean[label], sd[label] = moments["mean"], moments["sd"]
    levels = {label: np.quantile(values, QUANTILE_LEVELS) for label, values in draws.items()}
    return Reference(
        mean=mean,
        sd=sd,
        quantiles={label: (float(q[0]), float(q[1]), float(q[2])) for label, q in levels.items()},
        log_normalizer=float(answers["log_Z"]),
        log_normalizer_standard_error=float(answers["log_Z_se"]),
        draws=draws,
        provenance=_PROVENANCE.get(name, "10,000 draws of NUTS, log Z by bridge sampling; quantiles from 2,000 draws"),
    )


def _existing(directory: str | os.PathLike[str], file: str, name: str) -> Path:
    path = Path(directory).expanduser() / file
    if not path.is_file():
        raise FileNotFoundError(
            f"directory: looked for {file} of {name} in {os.fspath(directory)!r}, which does not hold it; "
            "give the folder of sampling targets with that file."
        )
    return path


def _load(path: Path) -> dict[str, Any]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values
