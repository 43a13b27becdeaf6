"""What an objective takes of q, and which gradient estimators are unbiased for that."""

from __future__ import annotations

import enum
from typing import Any, ClassVar, Protocol

from vi_kit._types import Family


class Form(enum.Enum):
    """What an objective takes of q; the value completes "an objective that is …"."""

    LOG_RATIO = "a mean of log q − f(z)"
    MEAN = "a mean of a function of the parameters and z"
    LOG_MEAN = "the logarithm of a mean of weights"


class Declared(Protocol):
    """What every estimator of `vi_kit.estimators` says of itself.

    Attributes:
        forms: what it is unbiased for.
        needs: what a family must give, in words.
    """

    forms: ClassVar[frozenset[Form]]
    needs: ClassVar[str]

    def accepts(self, family: Family) -> bool:
        """Tell whether it is valid for a family."""


REPARAMETERIZED = "draws that are differentiable in the parameters"


def check_family(estimator: Declared, family: Family) -> None:
    """Refuse a family that the estimator is not valid for.

    Raises:
        ValueError: saying what the estimator needs.
    """
    if not estimator.accepts(family):
        raise ValueError(f"estimator: {needs(estimator, family)}")


def needs(estimator: Declared, family: Family) -> str:
    """Say what a family lacks for an estimator."""
    if getattr(estimator, "base", None) is not None and family.reparameterized:
        return f"{estimator!r} needs draws that are made of standard normals, which {family!r} does not give"
    return f"{estimator!r} needs {estimator.needs}, which {family!r} does not give"


def is_invertible(family: Any) -> bool:
    """Tell whether log q of a given point takes one pass, not one a coordinate."""
    return not getattr(family, "sequential_inverse", False)


def is_steep(family: Any) -> bool:
    """Tell whether q can end so steeply that d log q / dz at draws, valid as it is, has heavy tails."""
    return bool(getattr(family, "steep_inverse", False))
