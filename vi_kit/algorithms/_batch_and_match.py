"""Batch and match: score matching with a proximal step, in closed form for Gaussians."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from vi_kit import _distributions as distributions
from vi_kit._static import configuration, leaf
from vi_kit._types import KeyArray, StepInfo, Target, check_count, check_positive
from vi_kit.algorithms._batch_and_match_low_rank import patch, reduce
from vi_kit.algorithms._gaussian import matmul
from vi_kit.families import FullRank, FullRankParams, LowRank, LowRankParams

_MOST_REACH = 10  # of batches of few draws; 10 to 100 were as good at dim 100 to 1,000, 10 the best at 10,000


class BatchAndMatchState(NamedTuple):
    """What batch and match remembers; the regularization is here, so another one compiles nothing."""

    params: FullRankParams | LowRankParams
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

    A low-rank family takes the same step in the rank + 2 · batch_size directions that it happens in, and is then
    "patched": ten steps of expectation maximization towards the member of least KL(q'‖member), from the best one with
    scales in proportion to the last. Nothing of dim × dim is formed. It takes the more steps the more dimensions there
    are for a draw: KL 1e-3 on a target of the family's rank after 10 batches of 8 at dim 10, 60 of 16 at dim 100 and
    200 of 16 at dim 300.

    Args:
        family: `vk.families.FullRank` or `vk.families.LowRank`.
        batch_size: draws a step, at least 2.
        regularization: λ₀ in λ_t = λ₀ / (t + 1); None: batch_size · dim, with a low-rank family at most
            batch_size · 10 (batches of far fewer draws than dimensions extrapolate: at dim 1,000 the first took KL from
            5e4 to 1e8 with batch_size · dim).

    A step costs `batch_size` evaluations and O(dim³), with a low-rank family O(dim (rank + 2 batch_size)²) and memory
    linear in dim. One whose result is not finite leaves the parameters as they were. Minimizes no KL: of two misfits,
    narrow and wide, it takes the one whose scores differ less.

    Raises:
        TypeError: for another family.
        ValueError: for fewer than 2 draws.

    Source: Cai, Modi, Pillaud-Vivien, Margossian, Gower, Blei and Saul, "Batch and Match: Black-Box Variational
    Inference with a Score-Based Divergence", 2024, https://arxiv.org/abs/2402.14758; for low rank Modi, Cai and Saul,
    "Batch, match, and patch: low-rank approximations for score-based variational inference", 2025,
    https://arxiv.org/abs/2410.22292

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum((x - 3.0) ** 2 / jnp.array([1.0, 4.0])), 2)
        >>> algorithm = vk.algorithms.BatchAndMatch(vk.families.FullRank(2))
        >>> start = algorithm.family.init(jax.random.key(0))
        >>> fit = vk.optimize(jax.random.key(1), target, algorithm, start, num_steps=30)
        >>> algorithm.family.dist(fit.params).std().round(2).tolist()
        [1.0, 2.0]
    """

    family: FullRank | LowRank
    batch_size: int = 8
    regularization: float | Array | None = leaf(default=None)

    def __post_init__(self) -> None:
        """Check the family and the batch."""
        if not isinstance(self.family, FullRank | LowRank):
            raise TypeError(f"family: expected vk.families.FullRank or vk.families.LowRank, got {self.family!r}")
        check_positive("regularization", self.regularization)
        check_count("batch_size", self.batch_size, least=2)

    def evaluations(self, target: Target) -> int:
        """Target evaluations a step costs."""
        del target
        return self.batch_size

    def init(self, params: FullRankParams | LowRankParams, target: Target, key: KeyArray) -> BatchAndMatchState:
        """Return the first state."""
        del target, key
        reach = self.family.dim if isinstance(self.family, FullRank) else min(self.family.dim, _MOST_REACH)
        value = self.batch_size * reach if self.regularization is None else self.regularization
        return BatchAndMatchState(params, jnp.asarray(value, params.mean.dtype), jnp.zeros((), jnp.int32))

    def step(self, state: BatchAndMatchState, target: Target, key: KeyArray) -> tuple[BatchAndMatchState, StepInfo]:
        """Take one step."""
        family: Any = self.family
        q = family.dist(state.params)
        keys = jax.random.split(key, self.batch_size)
        z, log_q = jax.vmap(lambda k: distributions.sample_and_log_prob(q, k))(keys)
        log_p, scores = jax.vmap(jax.value_and_grad(target.log_density))(z)
        strength = state.regularization / (state.step + 1).astype(state.regularization.dtype)
        params: FullRankParams | LowRankParams
        if isinstance(self.family, FullRank):
            mean, factor = _matched(q.loc, q.scale_tri, z, scores, strength)
            params = family.init(key, mean=mean, scale=factor)
        else:
            batch = reduce(q, z, scores)
            shift, factor = _matched(jnp.zeros_like(batch.y[0]), batch.lower, batch.y, batch.scores, strength)
            diagonal, loadings = patch(batch.basis, factor, self.family.rank)
            deviations = jnp.sqrt(diagonal)  # in units of the scales of q
            params = LowRankParams(
                coupling=loadings / deviations[:, None],
                log_scale=jnp.log(q.scale_diag * deviations),
                mean=q.loc + q.scale_diag * matmul(batch.basis, shift),
            )
        loss, norm = jnp.mean(log_q - log_p), jnp.linalg.norm(jnp.mean(scores, axis=0))
        leaves = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(params)]
        finite = jnp.isfinite(loss) & jnp.isfinite(norm) & jnp.all(jnp.stack(leaves))
        params = jax.tree.map(lambda new, old: jnp.where(finite, new, old), params, state.params)
        return BatchAndMatchState(params, state.regularization, state.step + 1), StepInfo(loss, norm, finite)

    def params(self, state: BatchAndMatchState) -> FullRankParams | LowRankParams:
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
