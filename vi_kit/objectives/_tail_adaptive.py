"""The tail-adaptive f-divergence."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vi_kit._static import configuration, leaf
from vi_kit._types import Event, Family, KeyArray, Params, Scalar, Target, check_count
from vi_kit.estimators import sticking_the_landing
from vi_kit.estimators._doubly_reparameterized import path_rows
from vi_kit.estimators._hold import weigh
from vi_kit.objectives._checks import check_family, check_number


def rank_weights(log_weights: Float[Array, " n"], power: float | Array) -> Float[Array, " n"]:
    """Return weights that depend on the ranks alone: the share of draws that weigh at least as much, to a power."""
    shares = jnp.mean((log_weights[None, :] >= log_weights[:, None]).astype(log_weights.dtype), axis=1)
    # NaN weighs at least as much as nothing, not even itself: share 0, weight NaN or infinite, a loss not finite.
    raised = shares ** jnp.asarray(power, log_weights.dtype)
    return raised / jnp.sum(raised)


@configuration
class TailAdaptive:
    r"""An f-divergence that adapts to the tail of the weights: mass-covering, with weights that cannot collapse.

    $$ \nabla \approx -\sum_k \lambda_k \nabla_z \log w(z_k) \, \partial z_k / \partial \theta, \quad
       \lambda_k \propto \bar F(w_k)^{\beta}, \quad \bar F(w) = \tfrac1n \#\{j : w_j \ge w\} $$

    Each gradient is one of an f-divergence of p from q whose f'' is set by the ranks of the weights w = p̃ / q, so that
    its variance is finite however heavy their tail is. β = 0 is sticking the landing for reverse KL; β = −1 takes draws
    by the inverse of their rank. At q = p it is exactly 0. No fixed divergence is minimized, so the value is not one
    whose derivative the gradient is: it is the mean of log q − log p̃ under λ, in nats, between the negative ELBO and
    the largest weight's.

    Args:
        family: the family of q, with reparameterized draws.
        num_samples: draws a call.
        power: β, from −1 to 0; another number compiles nothing.

    A call costs `num_samples` evaluations, with gradients.

    Raises:
        ValueError: while tracing, for a family whose draws are not reparameterized.

    Source: Wang, Liu and Liu, "Variational Inference with Tail-adaptive f-Divergence", 2018,
    https://arxiv.org/abs/1810.11943

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum(x**2) - jnp.log(2 * jnp.pi), 2)
        >>> objective = vk.objectives.TailAdaptive(vk.families.MeanField(2))
        >>> gradient = jax.grad(objective)(objective.family.init(jax.random.key(0)), target, jax.random.key(1))
        >>> bool(jnp.all(jnp.abs(gradient.mean) < 1e-5))
        True
    """

    family: Family
    num_samples: int = 64
    power: float | Array = leaf(default=-1.0)

    def __post_init__(self) -> None:
        """Check the number of draws, the power and the family."""
        check_count("num_samples", self.num_samples)
        check_number("power", self.power, least=-1.0, most=0.0)
        check_family(self.family)

    def evaluations(self, target: Target) -> int:
        """Target evaluations a call costs."""
        del target
        return self.num_samples

    def describe(self, target: Target) -> str:
        """Say in words what is minimized, for reports."""
        del target
        return f"tail-adaptive f-divergence, {self.num_samples} draws a step"

    def __call__(self, params: Params, target: Target, key: KeyArray, *, step: int | Int[Array, ""] = 0) -> Scalar:
        """Return the mean of log q − log p̃ under the rank weights, in nats."""
        del step
        if not sticking_the_landing.accepts(self.family):
            needs = sticking_the_landing.needs
            raise ValueError(f"family: TailAdaptive needs {needs}, which {self.family!r} does not give")

        def log_weight(params: Params, z: Event, log_q: Scalar) -> Scalar:
            del params
            return target.log_density(z) - log_q

        (row,) = path_rows(log_weight, self.family, params, key, (1, self.num_samples))
        return -weigh(rank_weights(row, self.power), row, params)
