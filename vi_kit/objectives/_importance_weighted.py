"""The importance-weighted bound."""

from __future__ import annotations

from typing import Any, ClassVar

from jaxtyping import Array, Int

from vi_kit._static import configuration, display
from vi_kit._types import Event, Family, GradientEstimator, KeyArray, Params, Scalar, Target, check_count
from vi_kit.estimators import Form, choose, evaluations
from vi_kit.objectives._checks import check_estimator, check_family


@configuration
class ImportanceWeighted:
    r"""The negative importance-weighted bound on log Z: tighter than the ELBO, the tighter the more particles.

    $$ -E\left[\log \tfrac1K \sum_k w_k\right] \ge -\log Z, \quad w_k = \tilde p(z_k) / q(z_k), \quad z_k \sim q $$

    With one particle it is `ReverseKL`, draw by draw. With more, q is fitted as a proposal, wide where p is: its
    moments are those of p only after its draws are weighted (`Posterior.resample`).

    Args:
        family: the family of q.
        estimator: `pathwise`, `doubly_reparameterized`, `stratified` or `score_function`; None takes the best one that
            is valid for the family.
        num_particles: K, draws of a bound (with stratified draws, in whole rounds).
        num_samples: bounds that are averaged.

    The value and the gradient are unbiased for the bound of K particles, in nats. A call costs num_particles ·
    num_samples evaluations.

    Source: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2016, https://arxiv.org/abs/1509.00519

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum(x**2) - jnp.log(2 * jnp.pi), 2)
        >>> objective = vk.objectives.ImportanceWeighted(vk.families.MeanField(2), num_particles=64, num_samples=4)
        >>> params = objective.family.init(jax.random.key(0), scale=2.0)
        >>> bool(abs(objective(params, target, jax.random.key(1))) < 0.2)  # log Z is 0, the ELBO −1.6
        True
    """

    family: Family
    estimator: GradientEstimator | None = None
    num_particles: int = 8
    num_samples: int = 2

    form: ClassVar[Form] = Form.LOG_MEAN

    def __post_init__(self) -> None:
        """Check the numbers of draws and the kinds of the arguments."""
        check_count("num_particles", self.num_particles)
        check_count("num_samples", self.num_samples)
        check_family(self.family)
        check_estimator(self.estimator)

    def evaluations(self, target: Target) -> int:
        """Target evaluations a call costs."""
        del target
        return self.num_samples * evaluations(self._estimator(), self.family, self.num_particles)

    def _estimator(self) -> Any:
        return choose(self.estimator, self.family, self.form)

    def describe(self, target: Target) -> str:
        """Say in words what is minimized, for reports."""
        del target
        how = f"{display(self._estimator())}, {self.num_samples} x {self.num_particles} draws a step"
        return f"importance-weighted bound, {how}"

    def __call__(self, params: Params, target: Target, key: KeyArray, *, step: int | Int[Array, ""] = 0) -> Scalar:
        """Return the negative bound, in nats."""
        del step

        def log_weight(params: Params, z: Event, log_q: Scalar) -> Scalar:
            del params
            return target.log_density(z) - log_q

        shape = (self.num_samples, self.num_particles)
        bound: Scalar = self._estimator().log_mean(log_weight, self.family, params, key, shape, 1.0)
        return -bound
