"""Batch and match: score matching with a proximal step, in closed form for Gaussians."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from vi_kit import _distributions as distributions
from vi_kit._static import configuration, leaf
from vi_kit._types import KeyArray, StepInfo, Target, check_count
from vi_kit.families import FullRank, FullRankParams


class BatchAndMatchState(NamedTuple):
    """What batch and match remembers; the regularization is here, so another one compiles nothing."""

    params: FullRankParams
    regularization: Array
    step: Int[Array, ""]


@configuration
class BatchAndMatch:
    r"""Match the scores of p and q on draws of q, staying near the last q: a closed form, with no step size to tune.

    $$ q' = \arg\min_q \; \widehat D(q; p) + \tfrac{2}{\lambda_t} KL(q_t\|q), \quad
       \widehat D = \tfrac1B \sum_b (\nabla \log q(z_b) - \nabla \log p(z_b))^T \Sigma
       (\nabla \log q(z_b) - \nabla \log p(z_b)) $$

    The covariance is carried by a factor, so it stays positive definite. On a Gaussian target the scores have no noise
    and q converges to it; elsewhere λ_t falls as 1/t, and q to where the scores match on average.

    Args:
        family: `vk.families.FullRank`.
        batch_size: draws a step, at least 2.
        regularization: λ₀ in λ_t = λ₀ / (t + 1); None: batch_size · dim.

    A step costs `batch_size` evaluations, and O(dim³). One whose result is not finite leaves the parameters as they
    were. Minimizes no KL: of two misfits, narrow and wide, it takes the one whose scores differ less.

    Raises:
        TypeError: for another family.
        ValueError: for fewer than 2 draws.

    Source: Cai, Modi, Pillaud-Vivien, Margossian, Gower, Blei and Saul, "Batch and Match: Black-Box Variational
    Inference with a Score-Based Divergence", 2024, https://arxiv.org/abs/2402.14758

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum((x - 3.0) ** 2 / jnp.array([1.0, 4.0])), 2)
        >>> algorithm = vk.algorithms.BatchAndMatch(vk.families.FullRank(2))
        >>> start = algorithm.family.init(jax.random.key(0))
        >>> fit = vk.optimize(jax.random.key(1), target, algorithm, start, num_steps=30)
        >>> algorithm.family.dist(fit.params).std().round(2).tolist()
        [1.0, 2.0]
    """

    family: FullRank
    batch_size: int = 8
    regularization: float | Array | None = leaf(default=None)

    def __post_init__(self) -> None:
        """Check the family and the batch."""
        if not isinstance(self.family, FullRank):
            raise TypeError(f"family: expected vk.families.FullRank, got {self.family!r}")
        check_count("batch_size", self.batch_size, least=2)

    def evaluations(self, target: Target) -> int:
        """Target evaluations a step costs."""
        del target
        return self.batch_size

    def init(self, params: FullRankParams, target: Target, key: KeyArray) -> BatchAndMatchState:
        """Return the first state."""
        del target, key
        value = self.batch_size * self.family.dim if self.regularization is None else self.regularization
        return BatchAndMatchState(params, jnp.asarray(value, params.mean.dtype), jnp.zeros((), jnp.int32))

    def step(self, state: BatchAndMatchState, target: Target, key: KeyArray) -> tuple[BatchAndMatchState, StepInfo]:
        """Take one step."""
        q = self.family.dist(state.params)
        keys = jax.random.split(key, self.batch_size)
        z, log_q = jax.vmap(lambda k: distributions.sample_and_log_prob(q, k))(keys)
        log_p, scores = jax.vmap(jax.value_and_grad(target.log_density))(z)
        strength = state.regularization / (state.step + 1).astype(state.regularization.dtype)
        mean, factor = _matched(q.loc, q.scale_tri, z, scores, strength)
        params = self.family.init(key, mean=mean, scale=factor)
        loss, norm = jnp.mean(log_q - log_p), jnp.linalg.norm(jnp.mean(scores, axis=0))
        leaves = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(params)]
        finite = jnp.isfinite(loss) & jnp.isfinite(norm) & jnp.all(jnp.stack(leaves))
        params = jax.tree.map(lambda new, old: jnp.where(finite, new, old), params, state.params)
        return BatchAndMatchState(params, state.regularization, state.step + 1), StepInfo(loss, norm, finite)

    def params(self, state: BatchAndMatchState) -> FullRankParams:
        """Read the parameters off a state."""
        return state.params


def _matched(mean: Array, lower: Array, z: Array, scores: Array, strength: Array) -> tuple[Array, Array]:
    """Return mean and lower factor of the Gaussian that matches the scores at the draws.

    With Σ′ U Σ′ + Σ′ = V, U and V made of sums of squares, in the coordinates of a factor of V: there Σ′ has the
    eigenvalues 2 / (1 + √(1 + 4 e)) of those e of U.
    """
    size = z.shape[0]
    share = strength / (1 + strength)
    center, slope = jnp.mean(z, axis=0), jnp.mean(scores, axis=0)
    spread, slopes = (jnp.sqrt(strength / size) * (x - m[None]) for x, m in ((z, center), (scores, slope)))
    shift = jnp.sqrt(share) * (mean - center)
    # Factors of V and U with one row a term.
    rows = jnp.concatenate([lower.T, spread, shift[None]])
    root = jnp.linalg.qr(rows, mode="r").T  # V = root rootᵀ
    terms = jnp.concatenate([slopes, jnp.sqrt(share) * slope[None]])
    inner = jnp.matmul(terms, root, precision=jax.lax.Precision.HIGHEST)
    values, vectors = jnp.linalg.eigh(jnp.matmul(inner.T, inner, precision=jax.lax.Precision.HIGHEST))
    shrunk = jnp.sqrt(2 / (1 + jnp.sqrt(1 + 4 * jnp.maximum(values, 0))))
    half = jnp.matmul(root, vectors * shrunk[None], precision=jax.lax.Precision.HIGHEST)  # Σ′ = half halfᵀ
    upper = jnp.linalg.qr(half.T, mode="r")
    upper = upper * jnp.sign(jnp.diagonal(upper))[:, None]
    covariance_slope = jnp.matmul(half, jnp.matmul(half.T, slope, precision=jax.lax.Precision.HIGHEST))
    moved = mean / (1 + strength) + share * (covariance_slope + center)
    return moved, jnp.tril(upper.T)
