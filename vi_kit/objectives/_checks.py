"""What every objective checks of its arguments."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from vi_kit._types import Family


def check_family(family: Any) -> None:
    """Refuse what is no family."""
    if not isinstance(family, Family):
        raise TypeError(f"family: expected one of vi_kit.families, got {family!r}")


def check_estimator(estimator: Any) -> None:
    """Refuse what is no estimator; None takes the best valid one."""
    if estimator is not None and not callable(estimator):
        raise TypeError(f"estimator: expected one of vi_kit.estimators, got {estimator!r}")


def check_number(name: str, value: Any, *, least: float, most: float = np.inf) -> None:
    """Refuse anything but one number within bounds; a traced one is let through."""
    if isinstance(value, jax.core.Tracer):
        return
    if np.shape(value) != () or isinstance(value, bool) or not isinstance(value, float | int | np.number | jax.Array):
        raise TypeError(f"{name}: expected one number, got {value!r}")
    if not least <= float(value) <= most:
        bounds = f"at least {least:g}" if most == np.inf else f"from {least:g} to {most:g}"
        raise ValueError(f"{name}: expected a number {bounds}, got {float(value):g}")


def check_log_weights(log_weights: Any) -> None:
    """Refuse log weights that no draw can have, or that leave none; traced ones are let through."""
    if log_weights is None or isinstance(log_weights, jax.core.Tracer):
        return
    largest = np.max(np.asarray(log_weights, float), initial=-np.inf)  # NaN where any is
    if not np.isfinite(largest):
        got = "NaN" if np.isnan(largest) else "all of them −∞" if largest < 0 else "+∞"
        raise ValueError(f"log_weights: expected numbers or −∞, not all of them −∞, got {got}")
