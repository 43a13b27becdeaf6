"""The Fisher divergence: scores that match."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from vi_kit import _distributions as distributions
from vi_kit._static import configuration, display
from vi_kit._types import Event, Family, GradientEstimator, KeyArray, Params, Scalar, Target, check_count
from vi_kit.estimators import Form, choose, evaluations
from vi_kit.objectives._checks import check_estimator, check_family


@configuration
class Fisher:
    r"""The Fisher divergence, the mean squared distance of scores: no normalizing constant, 0 at q = p.

    $$ E_q\left[\|\nabla_z \log q(z) - \nabla_z \log \tilde p(z)\|^2\right] $$

    In units of one over z squared, not nats: coordinates of small scale count most. It sees shapes and not masses, so
    that modes far apart are neither found nor weighed. For Gaussians `vi_kit.algorithms.BatchAndMatch` minimizes a
    relative of it in closed form.

    Args:
        family: the family of q.
        estimator: `pathwise`, `stratified` or `score_function`; None takes the best one that is valid for the family.
        num_samples: draws a call.

    The gradient is unbiased; for families whose score jumps, as that of splines at their knots, no estimator would see
    how the jumps move, so they are refused. A call costs `num_samples` gradients of the target, and with `pathwise`
    or `stratified` their derivatives, about as much again.

    Raises:
        ValueError: for a family whose score is not continuous.

    Source: Hyvärinen, "Estimation of Non-Normalized Statistical Models by Score Matching", 2005,
    https://jmlr.org/papers/v6/hyvarinen05a.html

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum(x**2), 2)
        >>> objective = vk.objectives.Fisher(vk.families.MeanField(2))
        >>> float(objective(objective.family.init(jax.random.key(0)), target, jax.random.key(1)))
        0.0
    """

    family: Family
    estimator: GradientEstimator | None = None
    num_samples: int = 16

    form: ClassVar[Form] = Form.MEAN

    def __post_init__(self) -> None:
        """Check the number of draws and the kinds of the arguments."""
        check_count("num_samples", self.num_samples)
        check_family(self.family)
        if not getattr(self.family, "continuous_score", True):
            raise ValueError(
                f"family: expected one whose score is continuous, got {self.family!r}, whose gradient here would be "
                "biased; use vk.families.AffineCoupling()"
            )
        check_estimator(self.estimator)

    def evaluations(self, target: Target) -> int:
        """Target evaluations a call costs."""
        del target
        return evaluations(self._estimator(), self.family, self.num_samples)

    def _estimator(self) -> Any:
        return choose(self.estimator, self.family, self.form)

    def describe(self, target: Target) -> str:
        """Say in words what is minimized, for reports."""
        del target
        return f"Fisher divergence, {display(self._estimator())}, {self.num_samples} draws a step"

    def __call__(self, params: Params, target: Target, key: KeyArray, *, step: int | Int[Array, ""] = 0) -> Scalar:
        """Return the divergence."""
        del step

        def integrand(params: Params, z: Event, log_q: Scalar) -> Scalar:
            del log_q
            q = self.family.dist(params)
            # One gradient of the difference: what the two scores have in common is not lost to rounding twice.
            score = jax.grad(lambda z: distributions.log_prob(q, z) - target.log_density(z))(z)
            return jnp.sum(jnp.square(score))

        divergence: Scalar = self._estimator()(integrand, self.family, params, key, self.num_samples)
        return divergence
