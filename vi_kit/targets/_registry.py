"""The table of bundled targets: one row a target, and the stored answers beside it."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

from vi_kit._types import Target
from vi_kit.targets._banana import banana
from vi_kit.targets._breast_cancer import breast_cancer
from vi_kit.targets._correlated_gaussian import correlated_gaussian
from vi_kit.targets._diabetes import diabetes
from vi_kit.targets._doctor_visits import doctor_visits
from vi_kit.targets._eight_schools import eight_schools, eight_schools_centered
from vi_kit.targets._funnel import funnel
from vi_kit.targets._mixture import mixture
from vi_kit.targets._nile import nile
from vi_kit.targets._reference import Reference, read_reference
from vi_kit.targets._seeds import seeds

_EXACT = "exact draws and moments, log Z = 0"
_NUTS = "NUTS reference, log Z by bridge sampling"
_OWN = "Apache-2.0 (vi_kit)"


@dataclass(frozen=True)
class Info:
    """What is known of a bundled target without loading it.

    Attributes:
        name: The name that `load` takes.
        dim: Dimension of the flat unconstrained vector.
        summary: One line: the model and its size.
        source: Where data and model come from, and the package that brings the data.
        license: The license of the data.
        requires: The extra that brings the data, or None.
        known: What is known of the answer, in a few words.
    """

    name: str
    dim: int
    summary: str
    source: str
    license: str
    requires: str | None
    known: str


_ROWS: tuple[tuple[Callable[[], Target], Info], ...] = (
    (
        eight_schools,
        Info(
            name="eight_schools",
            dim=10,
            summary="hierarchical model of eight coaching effects, non-centered",
            source="Rubin 1981; model of Gelman et al.; numbers in vi_kit",
            license="published figures, no restriction known",
            requires=None,
            known=_NUTS,
        ),
    ),
    (
        eight_schools_centered,
        Info(
            name="eight_schools_centered",
            dim=10,
            summary="the same posterior, centered: a funnel",
            source="Rubin 1981; model of Gelman et al.; numbers in vi_kit",
            license="published figures, no restriction known",
            requires=None,
            known="NUTS reference (from the non-centered form), log Z by bridge sampling",
        ),
    ),
    (
        seeds,
        Info(
            name="seeds",
            dim=26,
            summary="binomial regression with 21 random effects, non-centered",
            source="Crowder 1978, table 3; BUGS example with a proper prior; numbers in vi_kit",
            license="published figures, no restriction known",
            requires=None,
            known=_NUTS,
        ),
    ),
    (
        breast_cancer,
        Info(
            name="breast_cancer",
            dim=31,
            summary="logistic regression, 569 rows, 30 standardized columns",
            source="Street, Wolberg and Mangasarian 1993 (UCI); bundled by scikit-learn",
            license="CC BY 4.0 (UCI Machine Learning Repository)",
            requires="data",
            known=_NUTS,
        ),
    ),
    (
        diabetes,
        Info(
            name="diabetes",
            dim=23,
            summary="linear regression with a horseshoe-like prior, 442 rows, 10 columns",
            source="Efron, Hastie, Johnstone and Tibshirani 2004; bundled by scikit-learn",
            license="BSD-3-Clause as bundled by scikit-learn; the authors state none",
            requires="data",
            known=_NUTS,
        ),
    ),
    (
        nile,
        Info(
            name="nile",
            dim=3,
            summary="local-level state-space model of 100 yearly flows, levels integrated out",
            source="Cobb 1978; bundled by statsmodels",
            license="public domain (statsmodels' notice)",
            requires="data",
            known=_NUTS,
        ),
    ),
    (
        doctor_visits,
        Info(
            name="doctor_visits",
            dim=10,
            summary="Poisson regression, 20,190 rows, 9 standardized columns",
            source="RAND Health Insurance Experiment; bundled by statsmodels (randhie)",
            license="public domain (statsmodels' notice)",
            requires="data",
            known=_NUTS,
        ),
    ),
    (
        correlated_gaussian,
        Info(
            name="correlated_gaussian",
            dim=10,
            summary="Gaussian with condition number 100, no axis along a coordinate",
            source="vi_kit",
            license=_OWN,
            requires=None,
            known=_EXACT,
        ),
    ),
    (
        funnel,
        Info(
            name="funnel",
            dim=10,
            summary="a log variance with sd 3 and nine variables that share it",
            source="Neal 2003",
            license=_OWN,
            requires=None,
            known=_EXACT,
        ),
    ),
    (
        banana,
        Info(
            name="banana",
            dim=2,
            summary="a Gaussian bent along a parabola",
            source="Haario, Saksman and Tamminen 1999",
            license=_OWN,
            requires=None,
            known=_EXACT,
        ),
    ),
    (
        mixture,
        Info(
            name="mixture",
            dim=2,
            summary="two Gaussian bumps six sd apart, unequal weights and shapes",
            source="vi_kit",
            license=_OWN,
            requires=None,
            known=_EXACT,
        ),
    ),
)


def names() -> tuple[str, ...]:
    """Names of the bundled targets, in the order of the table.

    Example:
        >>> from vi_kit import targets
        >>> targets.names()[0]
        'eight_schools'
    """
    return tuple(row_info.name for _, row_info in _ROWS)


def _row(name: str) -> tuple[Callable[[], Target], Info]:
    for row in _ROWS:
        if row[1].name == name:
            return row
    nearest = difflib.get_close_matches(str(name), names(), n=3, cutoff=0.5) or names()
    raise ValueError(f"name: expected a bundled target such as {', '.join(nearest)}, got {name!r}")


def info(name: str) -> Info:
    """Describe a bundled target without loading its data.

    Args:
        name: One of `names()`.

    Returns:
        Its row of the table.

    Raises:
        ValueError: If there is no such target; the nearest names are suggested.

    Example:
        >>> from vi_kit import targets
        >>> targets.info("seeds").dim
        26
    """
    return _row(name)[1]


def load(name: str) -> Target:
    """Build a bundled target.

    Args:
        name: One of `names()`.

    Returns:
        The target, its data in the default floating-point type.

    Raises:
        ValueError: If there is no such target; the nearest names are suggested.
        ImportError: If its data come with an extra that is not installed.

    Example:
        >>> from vi_kit import targets
        >>> targets.load("banana").dim
        2
    """
    return _row(name)[0]()


def reference(name: str) -> Reference | None:
    """Read the stored answer of a bundled target: moments, quantiles, log Z and some draws.

    Args:
        name: One of `names()`.

    Returns:
        The reference in the user's constrained space, derived quantities included; None where none is stored.

    Raises:
        ValueError: If there is no such target; the nearest names are suggested.
    """
    stored = resources.files("vi_kit.targets") / "reference"
    name = info(name).name
    with resources.as_file(stored) as folder:
        figures, draws = folder / f"{name}.json", folder / f"{name}.npz"
        if not figures.exists():
            return None
        return read_reference(figures, draws if draws.exists() else None)
