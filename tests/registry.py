"""What the contract tests run over. One row admits a family, estimator, objective or algorithm to all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import family_oracles
import jax.numpy as jnp
import numpy as np
import optax

import vi_kit as vk

DIM = 2


class FamilyRow(NamedTuple):
    """How to make a family of a dimension; `gaussian` where its members are normal, so that scipy is its oracle."""

    make: Callable[[int], Any]
    gaussian: bool = True
    matrix_scale: bool = False  # whether `init(scale=)` takes a lower factor
    couples: float = 0.0  # correlations that `init` begins with, at most
    normal_base: bool = True  # whether a draw is a function of standard normals
    oracle: Callable[[Any, np.ndarray], np.ndarray] | None = None  # log densities of points, where not Gaussian
    entropy: bool = True  # whether it is known in closed form
    moved: float = 0.3  # how far parameters are moved off `init`, where not Gaussian
    grid_error: float = 1e-5  # of integrals over the tests' grid: more where the density has kinks or heavy tails
    moment_error: float = 1e-4  # of mean and deviations, relative: more where they are those of fixed draws
    joint_error: float = 1e-5  # of a draw's log density against that of the same point: more where it is inverted

    @property
    def family(self) -> Any:
        """The family of dimension DIM."""
        return self.make(DIM)


FAMILIES = {
    "mean_field": FamilyRow(vk.families.MeanField),
    "full_rank": FamilyRow(vk.families.FullRank, matrix_scale=True),
    "low_rank": FamilyRow(vk.families.LowRank, couples=1e-3),
    "block_diagonal": FamilyRow(lambda dim: vk.families.BlockDiagonal(dim, [range(int(dim))[::-1]])),
    "student_t": FamilyRow(
        vk.families.StudentT, gaussian=False, normal_base=False, oracle=family_oracles.independent_student_t
    ),
    "full_student_t": FamilyRow(
        lambda dim: vk.families.StudentT(dim, gaussian=vk.families.FullRank),
        gaussian=False,
        matrix_scale=True,
        normal_base=False,
        oracle=family_oracles.multivariate_student_t,
    ),
    "mixture": FamilyRow(
        vk.families.Mixture,
        gaussian=False,
        couples=0.65,
        normal_base=False,
        oracle=family_oracles.mixture_of_diagonal_normals,
        entropy=False,
    ),
    "full_mixture": FamilyRow(
        lambda dim: vk.families.Mixture(dim, 3, component=vk.families.FullRank),
        gaussian=False,
        matrix_scale=True,
        couples=1.0,
        normal_base=False,
        oracle=family_oracles.mixture_of_full_normals,
        entropy=False,
    ),
    "spline_flow": FamilyRow(
        lambda dim: vk.families.Flow(dim, coupling=vk.families.SplineCoupling(), width=8),
        gaussian=False,
        matrix_scale=True,
        entropy=False,
        moved=0.1,
        grid_error=1e-3,
        moment_error=0.05,
        joint_error=2e-3,
    ),
    "student_t_flow": FamilyRow(
        lambda dim: vk.families.Flow(dim, width=8, base=vk.families.StudentT),
        gaussian=False,
        matrix_scale=True,
        normal_base=False,
        entropy=False,
        moved=0.1,
        grid_error=1e-3,
        moment_error=0.05,
        joint_error=1e-3,
    ),
}

# Those with members that are normal: their KL to a normal is known in closed form.
GAUSSIANS = [name for name, row in FAMILIES.items() if row.gaussian]

# Those whose draws are an invertible function of as many standard normals, and that `init` covers.
LOCATION_SCALE = [name for name in GAUSSIANS if not FAMILIES[name].couples]

ESTIMATORS = {
    "pathwise": vk.estimators.pathwise,
    "sticking_the_landing": vk.estimators.sticking_the_landing,
    "closed_form_entropy": vk.estimators.closed_form_entropy,
    "doubly_reparameterized": vk.estimators.doubly_reparameterized,
    "score_function": vk.estimators.score_function,
}

# Cells that are valid: (family, estimator) whose gradient is claimed unbiased.
UNBIASED = [(family, estimator) for family in GAUSSIANS for estimator in ESTIMATORS]

OBJECTIVES: dict[str, Callable[[Any], Any]] = {
    "reverse_kl": lambda family: vk.objectives.ReverseKL(family, num_samples=8),
    "forward_kl_exact": lambda family: vk.objectives.ForwardKL(family, vk.objectives.exact, num_samples=8),
    "forward_kl_self_normalized": lambda family: vk.objectives.ForwardKL(
        family, vk.objectives.self_normalized, num_samples=8
    ),
    "forward_kl_given": lambda family: vk.objectives.ForwardKL(
        family, vk.objectives.given(jnp.array([[0.5, -1.0], [1.5, 0.0], [1.0, -2.0]]))
    ),
    "importance_weighted": lambda family: vk.objectives.ImportanceWeighted(family, num_particles=4),
    "renyi": lambda family: vk.objectives.Renyi(family, num_particles=4),
    "chi_square": lambda family: vk.objectives.ChiSquare(family, num_samples=16),
    "fisher": lambda family: vk.objectives.Fisher(family, num_samples=8),
    "tail_adaptive": lambda family: vk.objectives.TailAdaptive(family, num_samples=8),
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
