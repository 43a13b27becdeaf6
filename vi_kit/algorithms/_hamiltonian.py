"""Hamiltonian Monte Carlo by blackjax, as the kernel of an algorithm's chains."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vi_kit._static import configuration, leaf
from vi_kit._types import Event, KeyArray, Scalar, Target, check_count, check_positive

_STEP_SIZE = 0.5


@configuration
class HamiltonianMonteCarlo:
    """One step of Hamiltonian Monte Carlo in units of q's standard deviations: a kernel that leaves p invariant.

    Args:
        step_size: of the leapfrog integrator, in standard deviations of q; None: 0.5 / dim^(1/4). Where q is wider than
            p in some direction, steps have to be as much smaller.
        num_integration_steps: leapfrog steps.

    A step of the kernel costs num_integration_steps + 1 evaluations of the gradient. Needs the extra `mcmc`.

    Raises:
        ImportError: when blackjax is missing, as soon as it steps.
        ValueError: for no integration steps.

    Source: Neal, "MCMC Using Hamiltonian Dynamics", 2011, https://arxiv.org/abs/1206.1901

    Example:
        >>> import vi_kit as vk
        >>> vk.algorithms.HamiltonianMonteCarlo(num_integration_steps=4).evaluations()
        5
    """

    step_size: float | Array | None = leaf(default=None)
    num_integration_steps: int = 8

    def __post_init__(self) -> None:
        """Check the number of steps."""
        check_positive("step_size", self.step_size)
        check_count("num_integration_steps", self.num_integration_steps)

    def evaluations(self) -> int:
        """Evaluations of the gradient for one step."""
        return self.num_integration_steps + 1

    def step(
        self, key: KeyArray, z: Event, target: Target, standard_deviations: Float[Array, " dim"]
    ) -> tuple[Event, Scalar]:
        """Return the next state and its log density; one that cannot be reached leaves the chain where it is."""
        try:
            import blackjax
        except ImportError as error:
            raise ImportError(
                "HamiltonianMonteCarlo needs blackjax, which comes with the extra `mcmc`: pip install 'vi_kit[mcmc]'"
            ) from error
        dim = z.shape[0]
        size = _STEP_SIZE / math.sqrt(math.sqrt(dim)) if self.step_size is None else self.step_size
        masses = jnp.square(standard_deviations).astype(z.dtype)  # inverse ones
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # blackjax needs both
            state: Any = blackjax.hmc.init(z, target.log_density)
            state, _ = blackjax.hmc.build_kernel()(
                key, state, target.log_density, jnp.asarray(size, z.dtype), masses, self.num_integration_steps
            )
        return state.position, state.logdensity
