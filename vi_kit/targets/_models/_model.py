"""What a bundled log density consists of, and the reading and checking of its raw data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from vi_kit._types import Target
from vi_kit.targets._make import make_target

Variables = Mapping[str, Any]


class Model(NamedTuple):
    """The parts of a target: what `make_target` takes, before it is called.

    Attributes:
        like: Variables with example values of the right shape.
        support: Support of each constrained variable.
        data: Arrays that the likelihood reads, float64 on the host.
        log_likelihood: Function (x, data) to a scalar, in nats.
        log_prior: Function x to a scalar, in nats; None where every prior is flat.
        derived: Function (x, data) to a dict of further reported quantities, or None.
    """

    like: dict[str, Any]
    support: dict[str, Any]
    data: dict[str, np.ndarray]
    log_likelihood: Callable[..., Any]
    log_prior: Callable[..., Any] | None = None
    derived: Callable[..., Any] | None = None

    def target(self) -> Target:
        """Build the target."""
        return make_target(
            self.log_likelihood,
            self.like,
            support=self.support,
            data=self.data,
            prior=self.log_prior,
            derived=self.derived,
        )


class RawData:
    """Data as a file has them, read key by key with checks.

    Args:
        name: The model's name, for messages.
        values: Key to number or nested list.
    """

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self.name = name
        self.values = values

    def array(self, key: str, ndim: int = 1, *, positive: bool = False) -> np.ndarray:
        """Read one entry as float64.

        Args:
            key: Its key.
            ndim: How many axes it must have.
            positive: Whether every value must be above zero.

        Returns:
            The array.

        Raises:
            ValueError: If the key is missing, or its shape or values are not as said.
        """
        if key not in self.values:
            raise ValueError(f"data: {self.name} needs the key {key!r}, got the keys {sorted(self.values)}.")
        try:
            array = np.asarray(self.values[key], dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"data: {self.name} needs numbers in {key!r}, got {self.values[key]!r:.80}.") from None
        if array.ndim != ndim:
            raise ValueError(f"data: {self.name} needs {key!r} with {ndim} axes, got shape {array.shape}.")
        if not np.all(np.isfinite(array)):
            raise ValueError(f"data: {self.name} needs finite numbers in {key!r}, got NaN or infinity.")
        if positive and not np.all(array > 0):
            raise ValueError(f"data: {self.name} needs {key!r} above zero, got {array.min():g}.")
        return array

    def columns(self, *keys: str, positive: bool = False) -> list[np.ndarray]:
        """Read several vectors of one length.

        Args:
            *keys: Their keys.
            positive: Whether every value must be above zero.

        Returns:
            The vectors.

        Raises:
            ValueError: As `array`, or if their lengths differ.
        """
        found = [self.array(key, positive=positive) for key in keys]
        if len({column.shape for column in found}) > 1:
            sizes = ", ".join(f"{key}: {column.size}" for key, column in zip(keys, found, strict=True))
            raise ValueError(f"data: {self.name} needs columns of one length, got {sizes}.")
        return found
