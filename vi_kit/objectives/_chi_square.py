"""The χ² upper bound on log Z."""

from __future__ import annotations

import jax
from jaxtyping import Array, Int

from vi_kit import _distributions as distributions
from vi_kit._static import configuration
from vi_kit._types import Family, KeyArray, Params, Scalar, Target, check_count
from vi_kit.estimators._hold import hold, weigh, with_gradient
from vi_kit.estimators._power_mean import power_mean, tilted
from vi_kit.objectives._checks import check_family


@configuration
class ChiSquare:
    r"""The χ² divergence of p from q, through the upper bound on log Z that it gives. Mass-covering: q is wide.

    $$ \tfrac12 \log E_q[w^2] = \log Z + \tfrac12 \log(1 + \chi^2(p\|q)) \ge \log Z, \quad w = \tilde p / q $$

    The gradient is that of the bound itself, by self-normalized squared weights less equal ones; it is exactly 0 in
    every draw where q = p, and needs no derivative of the target or of draws, so that it takes every family:

    $$ -\tfrac12 \sum_k (\bar w_k - \tfrac1n) \nabla \log q(z_k), \quad \bar w_k = w_k^2 / \sum_j w_j^2 $$

    Its bias falls as 1/n. So does that of the value, which is too small: n draws show an upper bound only where n is
    large for the weights, and that takes a q with tails at least as wide as those of p (see `Report.khat`).

    Args:
        family: the family of q.
        num_samples: draws a call, at least 2.

    A call costs `num_samples` evaluations.

    Source: Dieng, Tran, Ranganath, Paisley and Blei, "Variational Inference via χ Upper Bound Minimization", 2017,
    https://arxiv.org/abs/1611.00328

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum(x**2) - jnp.log(2 * jnp.pi), 2)  # log Z is 0
        >>> objective = vk.objectives.ChiSquare(vk.families.MeanField(2), num_samples=1_000)
        >>> params = objective.family.init(jax.random.key(0), scale=2.0)
        >>> bool(jnp.isclose(objective(params, target, jax.random.key(1)), jnp.log(4 / 7**0.5), atol=0.05))
        True
    """

    family: Family
    num_samples: int = 128

    def __post_init__(self) -> None:
        """Check the number of draws and the family."""
        check_count("num_samples", self.num_samples, least=2)
        check_family(self.family)

    def evaluations(self, target: Target) -> int:
        """Target evaluations a call costs."""
        del target
        return self.num_samples

    def describe(self, target: Target) -> str:
        """Say in words what is minimized, for reports."""
        del target
        return f"χ²(p‖q) upper bound, {self.num_samples} self-normalized draws a step"

    def __call__(self, params: Params, target: Target, key: KeyArray, *, step: int | Int[Array, ""] = 0) -> Scalar:
        """Return the upper bound on log Z, in nats."""
        del step

        def one(key: KeyArray) -> tuple[Array, Scalar]:
            z = distributions.sample(self.family.dist(params), key)
            return z, target.log_density(z)

        z, log_p = hold(jax.vmap(one)(jax.random.split(key, self.num_samples)), params)
        log_q = jax.vmap(lambda z: distributions.log_prob(self.family.dist(params), z))(z)
        log_weights = log_p - log_q
        share = tilted(log_weights, 2.0) - 1 / self.num_samples
        return with_gradient(power_mean(log_weights, 2.0), weigh(-0.5 * share, log_q, params), params)
