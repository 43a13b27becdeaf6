"""Linear response: the covariance that a fit over fixed draws implies, correlations of a mean-field fit included."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from vi_kit._types import Scalar, Target
from vi_kit.algorithms._fixed_draws import FixedDraws, FixedDrawsState, loss_of_draws
from vi_kit.algorithms._gaussian import mean_and_scale


def linear_response_covariance(
    algorithm: FixedDraws, state: FixedDrawsState, target: Target
) -> Float[Array, "dim dim"]:
    r"""Return the covariance of z by linear response: how the mean of the best q moves as log p is tilted by tᵀ z.

    $$ \widehat{Cov}(z) = \frac{d m^*}{d t^T} = (H^{-1})_{mm}, \quad H = \nabla^2 loss \text{ at the minimum} $$

    A mean-field fit knows no correlations and its variances are too small; these are right for a Gaussian target, and
    to first order elsewhere. Only for a converged fit: the minimum is differentiated implicitly.

    Args:
        algorithm: the `vk.algorithms.FixedDraws` that made the state.
        state: `fit.state.algorithm_state`.
        target: what was fitted.

    Costs as many products of the Hessian with a vector as the family has parameters (each a few times `num_samples`
    evaluations), and a solve. NaN in a direction where the Hessian is singular.

    Raises:
        TypeError: for another algorithm or state.

    Source: Giordano, Broderick and Jordan, "Covariances, Robustness, and Variational Bayes", 2018,
    https://arxiv.org/abs/1709.02536

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> precision = jnp.linalg.inv(jnp.array([[1.0, 0.5], [0.5, 1.0]]))
        >>> target = vk.make_target(lambda x: -0.5 * x @ precision @ x, 2)
        >>> algorithm = vk.algorithms.FixedDraws(vk.families.MeanField(2))
        >>> start = algorithm.family.init(jax.random.key(0))
        >>> fit = vk.optimize(jax.random.key(1), target, algorithm, start, num_steps=40)
        >>> state = fit.state.algorithm_state
        >>> vk.algorithms.linear_response_covariance(algorithm, state, target)[0].round(2).tolist()
        [1.0, 0.5]
    """
    if not isinstance(algorithm, FixedDraws):
        raise TypeError(f"algorithm: expected vk.algorithms.FixedDraws, got {algorithm!r}")
    if not isinstance(state, FixedDrawsState):
        raise TypeError(f"state: expected fit.state.algorithm_state of a fit by FixedDraws, got {type(state).__name__}")
    family = algorithm.family
    # The mean in front, so that its block is the first.
    start, unravel = ravel_pytree((state.params.mean, state.params._replace(mean=jnp.zeros((0,), state.noise.dtype))))

    def loss(flat: Array) -> Scalar:
        mean, rest = unravel(flat)
        return loss_of_draws(target, *mean_and_scale(family, rest._replace(mean=mean)), state.noise)

    hessian = jax.hessian(loss)(start)
    selected = jnp.eye(start.shape[0], family.dim, dtype=start.dtype)
    covariance: Array = jnp.linalg.solve(hessian, selected)[: family.dim]
    return (covariance + covariance.T) / 2
