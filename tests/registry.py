"""What the contract tests run over. One row admits a family, estimator, objective or algorithm to all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

import vi_kit as vk

DIM = 2


class FamilyRow(NamedTuple):
    """A family of dimension DIM; `gaussian` where its members are normal, so that scipy is its oracle."""

    family: Any
    gaussian: bool = True
    matrix_scale: bool = False  # whether `init(scale=)` takes a lower factor
    couples: float = 0.0  # correlations that `init` begins with, at most
    normal_base: bool = True  # whether a draw is a function of standard normals


FAMILIES = {
    "mean_field": FamilyRow(vk.families.MeanField(DIM)),
    "full_rank": FamilyRow(vk.families.FullRank(DIM), matrix_scale=True),
    "low_rank": FamilyRow(vk.families.LowRank(DIM), couples=1e-3),
}

# Those whose draws are an invertible function of as many standard normals, and that `init` covers.
LOCATION_SCALE = [name for name, row in FAMILIES.items() if not row.couples]

ESTIMATORS = {
    "pathwise": vk.estimators.pathwise,
    "sticking_the_landing": vk.estimators.sticking_the_landing,
    "closed_form_entropy": vk.estimators.closed_form_entropy,
    "doubly_reparameterized": vk.estimators.doubly_reparameterized,
    "score_function": vk.estimators.score_function,
}

# Cells that are valid: (family, estimator) whose gradient is claimed unbiased.
UNBIASED = [(family, estimator) for family in FAMILIES for estimator in ESTIMATORS]

OBJECTIVES: dict[str, Callable[[Any], Any]] = {
    "reverse_kl": lambda family: vk.objectives.ReverseKL(family, num_samples=8),
    "forward_kl_exact": lambda family: vk.objectives.ForwardKL(family, vk.objectives.exact, num_samples=8),
    "forward_kl_self_normalized": lambda family: vk.objectives.ForwardKL(
        family, vk.objectives.self_normalized, num_samples=8
    ),
    "forward_kl_given": lambda family: vk.objectives.ForwardKL(
        family, vk.objectives.given(jnp.array([[0.5, -1.0], [1.5, 0.0], [1.0, -2.0]]))
    ),
}

ALGORITHMS: dict[str, Callable[[Any], Any]] = {
    "gradient_descent": lambda objective: vk.algorithms.GradientDescent(objective, optax.adam, learning_rate=0.05),
}

# Supports: an x inside, and the length of the last axis where it matters.
SUPPORTS: dict[str, tuple[Callable[[], Any], bool]] = {  # (build, whether it acts on a last axis)
    "real": (lambda: vk.support.real, False),
    "positive": (lambda: vk.support.positive, False),
    "unit_interval": (lambda: vk.support.unit_interval, False),
    "interval": (lambda: vk.support.interval(-2.0, 5.0), False),
    "greater_than": (lambda: vk.support.greater_than(-1.5), False),
    "less_than": (lambda: vk.support.less_than(2.5), False),
    "simplex": (lambda: vk.support.simplex, True),
    "ordered": (lambda: vk.support.ordered, True),
}
