"""The variational Rényi bound."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Int

from vi_kit._static import configuration, display, leaf
from vi_kit._types import Event, Family, GradientEstimator, KeyArray, Params, Scalar, Target, check_count
from vi_kit.estimators import Form, choose, evaluations
from vi_kit.objectives._checks import check_estimator, check_family, check_number


@configuration
class Renyi:
    r"""Rényi divergence D_α(q‖p) up to log Z: between covering p (small α) and staying inside it (large α).

    $$ D_\alpha(q\|p) - \log Z = -\tfrac{1}{1-\alpha} \log E_q[w^{1-\alpha}]
       \approx -\tfrac{1}{1-\alpha} \log \tfrac1K \sum_k w_k^{1-\alpha}, \quad w = \tilde p / q $$

    α = 1 is `ReverseKL` and α = 0 `ImportanceWeighted`. What is minimized is the expectation of the right-hand side,
    the bound of K particles: never below −log Z, and the nearer to the divergence the more particles; value and
    gradient are unbiased for that bound, not for the divergence.

    Args:
        family: the family of q.
        alpha: order, at least 0; another number compiles nothing.
        estimator: `pathwise`, `doubly_reparameterized`, `stratified` or `score_function`; None takes the best one that
            is valid for the family.
        num_particles: K, draws of a bound (with stratified draws, in whole rounds).
        num_samples: bounds that are averaged.

    Raises:
        ValueError: for α below 0, whose divergence bounds log Z from above: take `ChiSquare`. A traced one gives NaN.

    A call costs num_particles · num_samples evaluations.

    Source: Li and Turner, "Rényi Divergence Variational Inference", 2016, https://arxiv.org/abs/1602.02311

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum(x**2), 2)
        >>> family = vk.families.MeanField(2)
        >>> one, other = vk.objectives.Renyi(family, 1.0, num_samples=2), vk.objectives.ReverseKL(family)
        >>> params = family.init(jax.random.key(0), scale=2.0)
        >>> a, b = (objective(params, target, jax.random.key(1)) for objective in (one, other))
        >>> bool(jnp.isclose(a, b))
        True
    """

    family: Family
    alpha: float | Array = leaf(default=0.5)
    estimator: GradientEstimator | None = None
    num_particles: int = 8
    num_samples: int = 2

    form: ClassVar[Form] = Form.LOG_MEAN

    def __post_init__(self) -> None:
        """Check the order, the numbers of draws and the kinds of the arguments."""
        check_number("alpha", self.alpha, least=0.0)
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
        return f"Rényi bound of order {float(self.alpha):g}, {how}"

    def __call__(self, params: Params, target: Target, key: KeyArray, *, step: int | Int[Array, ""] = 0) -> Scalar:
        """Return the negative bound, in nats."""
        del step

        def log_weight(params: Params, z: Event, log_q: Scalar) -> Scalar:
            del params
            return target.log_density(z) - log_q

        alpha = jnp.asarray(self.alpha)
        power = jnp.where(alpha >= 0, 1 - alpha, jnp.full_like(alpha, jnp.nan))
        shape = (self.num_samples, self.num_particles)
        bound: Scalar = self._estimator().log_mean(log_weight, self.family, params, key, shape, power)
        return -bound
