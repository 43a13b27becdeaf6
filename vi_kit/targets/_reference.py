"""Reference answers: what is known of a posterior, on the host, to set a fit beside."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

QUANTILE_LEVELS = (0.05, 0.5, 0.95)


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """Known answers for a target, per coordinate of its variables and derived quantities.

    A coordinate's label is the variable's name, with zero-based indices where it has a shape: ``mu``,
    ``theta[0]``, ``beta[0,1]``. All values are in the user's constrained space and the data's own units.

    Attributes:
        mean: Posterior mean of each coordinate.
        sd: Posterior standard deviation of each coordinate.
        quantiles: The 5, 50 and 95 % quantiles of each coordinate.
        log_normalizer: log Z in nats, or None where it is not known.
        log_normalizer_standard_error: Standard error of log Z (0 where exact), or None.
        draws: Thinned posterior draws of each coordinate, shape (draws,), row i of every coordinate from
            one joint draw; or None.
        provenance: Where the numbers come from, in words.
    """

    mean: dict[str, float]
    sd: dict[str, float]
    quantiles: dict[str, tuple[float, float, float]]
    log_normalizer: float | None
    log_normalizer_standard_error: float | None
    draws: dict[str, np.ndarray] | None
    provenance: str

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the coordinates, in order."""
        return tuple(self.mean)


def coordinate_labels(name: str, shape: tuple[int, ...]) -> list[str]:
    """Labels of a variable's coordinates, last index fastest.

    Args:
        name: The variable's name.
        shape: Its shape; () for a scalar.

    Returns:
        One label per coordinate.

    Example:
        >>> coordinate_labels("mu", ()), coordinate_labels("beta", (1, 2))
        (['mu'], ['beta[0,0]', 'beta[0,1]'])
    """
    if not shape:
        return [name]
    return [f"{name}[{','.join(str(i) for i in index)}]" for index in np.ndindex(*shape)]


def zero_based_label(stan_name: str) -> str:
    """Translate Stan's one-based coordinate name to a label.

    Args:
        stan_name: A name as Stan writes it, ``beta[1]`` or ``beta[1,2]``.

    Returns:
        The zero-based label.

    Example:
        >>> zero_based_label("beta[1,2]"), zero_based_label("mu")
        ('beta[0,1]', 'mu')
    """
    match = re.fullmatch(r"(.+)\[([\d,\s]+)\]", stan_name)
    if match is None:
        return stan_name
    indices = ",".join(str(int(index) - 1) for index in match.group(2).split(","))
    return f"{match.group(1)}[{indices}]"


def reference_from_draws(
    draws: Mapping[str, np.ndarray],
    *,
    provenance: str,
    log_normalizer: float | None = None,
    log_normalizer_standard_error: float | None = None,
) -> Reference:
    """Summarize equally weighted posterior draws.

    Args:
        draws: Draws of each coordinate, every array of the same shape (draws,).
        provenance: Where the draws come from.
        log_normalizer: log Z, if known.
        log_normalizer_standard_error: Its standard error.

    Returns:
        The reference with float64 mean, sd (n - 1 in the denominator) and quantiles, and the draws as given.
    """
    columns = {label: np.asarray(values, dtype=np.float64) for label, values in draws.items()}
    levels = {label: np.quantile(values, QUANTILE_LEVELS) for label, values in columns.items()}
    return Reference(
        mean={label: float(values.mean()) for label, values in columns.items()},
        sd={label: float(values.std(ddof=1)) for label, values in columns.items()},
        quantiles={label: (float(q[0]), float(q[1]), float(q[2])) for label, q in levels.items()},
        log_normalizer=log_normalizer,
        log_normalizer_standard_error=log_normalizer_standard_error,
        draws={label: np.asarray(values) for label, values in draws.items()},
        provenance=provenance,
    )


def write_reference(
    reference: Reference, json_path: str | os.PathLike[str], npz_path: str | os.PathLike[str] | None = None
) -> None:
    """Write a reference as JSON and, where a path is given, its draws as compressed npz (no pickle).

    Args:
        reference: What to write.
        json_path: File for the figures and the provenance.
        npz_path: File for the draws, one float32 array a coordinate; None leaves them out.

    Raises:
        ValueError: If npz_path is given and the reference has no draws.
    """
    figures = dataclasses.asdict(dataclasses.replace(reference, draws=None))
    del figures["draws"]
    Path(json_path).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if npz_path is None:
        return
    if reference.draws is None:
        raise ValueError("npz_path was given, but the reference has no draws to write.")
    names = np.array(list(reference.draws))
    columns = np.stack([np.asarray(values, dtype=np.float32) for values in reference.draws.values()], axis=1)
    # One matrix and its labels: brackets and commas are awkward as names of archive members.
    np.savez_compressed(os.fspath(npz_path), labels=names, draws=columns)


def read_reference(json_path: str | os.PathLike[str], npz_path: str | os.PathLike[str] | None = None) -> Reference:
    """Read a reference that `write_reference` wrote.

    Args:
        json_path: File with the figures.
        npz_path: File with the draws; None leaves `Reference.draws` None.

    Returns:
        The reference.

    Raises:
        FileNotFoundError: If a file is missing.
    """
    figures: dict[str, Any] = json.loads(Path(json_path).read_text(encoding="utf-8"))
    draws = None
    if npz_path is not None:
        with np.load(os.fspath(npz_path), allow_pickle=False) as archive:
            columns = archive["draws"]
            draws = {str(label): columns[:, i] for i, label in enumerate(archive["labels"])}
    figures["quantiles"] = {label: tuple(values) for label, values in figures["quantiles"].items()}
    return Reference(draws=draws, **figures)
