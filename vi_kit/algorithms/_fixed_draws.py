"""Sample-average approximation: the same draws in every step, so that a deterministic optimizer can finish."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vi_kit._static import configuration, leaf
from vi_kit._types import Event, KeyArray, Params, Scalar, StepInfo, Target, check_count, check_positive
from vi_kit.algorithms._gaussian import (
    Scale,
    all_finite,
    check_gaussian,
    choose,
    log_determinant,
    matmul,
    mean_and_scale,
    spread,
    with_mean_and_scale,
)
from vi_kit.algorithms._quasi_newton import Descent, advance, begin
from vi_kit.families import FullRank, MeanField

_LEAST_DRAWS = 32
_MEMORY = 10
_DEFAULT_TOLERANCE = 1e-3


class FixedDrawsState(NamedTuple):
    """What fixed draws remember.

    Attributes:
        params: the last member taken.
        noise: the draws in whitened coordinates, one half of them; the others are their mirror images.
        descent: the state of the optimizer, in coordinates whitened by q itself.
        converged: whether the gradient is below the tolerance; from then on nothing moves.
        tolerance: of the gradient.
    """

    params: Params
    noise: Float[Array, "pairs dim"]
    descent: Descent
    converged: Bool[Array, ""]
    tolerance: Float[Array, ""]


@configuration
class FixedDraws:
    r"""Reverse KL over draws that are chosen once, minimized by L-BFGS in coordinates whitened by q.

    $$ \min_{m, L} \; -\frac1n \sum_i \log \tilde p(m + L \epsilon_i) - \log |L| - \text{const} $$

    Draws come in mirrored pairs whose second moments are those of a standard normal (for mean-field with fewer than
    dim pairs, coordinate by coordinate), so on Gaussian targets nothing is lost by drawing once. Elsewhere the minimum
    is that of these draws: its loss is lower than that of fresh ones, by more the more parameters there are for a draw,
    and a full-rank q that fits too few of them can be far off. Judge a fit by fresh draws, as `vk.fit` does;
    `vk.algorithms.GrowingDraws` doubles them until that does not help.

    Args:
        family: `vk.families.FullRank` or `vk.families.MeanField`.
        num_samples: draws, an even number; None: 32, for full-rank at least 4 · dim. Full-rank needs 2 · dim.
        tolerance: length of the whitened gradient below which nothing moves any more (1e-3 is less than 1e-6 nats from
            the minimum); None: 1e-3. In single precision a large log density may be too coarse to get there.

    A step looks at one member, at a cost of `num_samples` evaluations; `state.converged` says when to stop. One that
    is not finite leaves the parameters as they were, and the next one is nearer.

    Raises:
        TypeError: for another family.
        ValueError: for fewer draws than that, or an odd number.

    Source: Giordano, Ingram and Broderick, "Black Box Variational Inference with a Deterministic Objective", 2024,
    https://arxiv.org/abs/2304.05527

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum((x - 3.0) ** 2 / jnp.array([1.0, 4.0])), 2)
        >>> algorithm = vk.algorithms.FixedDraws(vk.families.FullRank(2))
        >>> start = algorithm.family.init(jax.random.key(0))
        >>> fit = vk.optimize(jax.random.key(1), target, algorithm, start, num_steps=40)
        >>> bool(fit.state.algorithm_state.converged), algorithm.family.dist(fit.params).std().round(2).tolist()
        (True, [1.0, 2.0])
    """

    family: FullRank | MeanField
    num_samples: int | None = None
    tolerance: float | Array | None = leaf(default=None)

    def __post_init__(self) -> None:
        """Check the family and the number of draws."""
        check_positive("tolerance", self.tolerance)
        check_gaussian(self.family)
        if self.num_samples is not None:
            check_count("num_samples", self.num_samples, least=2 * self.family.dim if self._full_rank else 2)
            if self.num_samples % 2:
                raise ValueError(f"num_samples: expected an even number, for mirrored pairs, got {self.num_samples}")

    @property
    def _full_rank(self) -> bool:
        return isinstance(self.family, FullRank)

    @property
    def num_draws(self) -> int:
        """Draws, also where none were asked for."""
        if self.num_samples is not None:
            return self.num_samples
        return max(_LEAST_DRAWS, 4 * self.family.dim) if self._full_rank else _LEAST_DRAWS

    def evaluations(self, target: Target) -> int:
        """Target evaluations a step costs."""
        del target
        return self.num_draws

    def init(self, params: Params, target: Target, key: KeyArray) -> FixedDrawsState:
        """Choose the draws and return the first state."""
        mean, scale = mean_and_scale(self.family, params)
        noise = moment_matched_noise(key, self.evaluations(target) // 2, self.family.dim, mean.dtype)
        width = mean.shape[0] + (scale.shape[0] if scale.ndim == 1 else len(np.tril_indices(scale.shape[0])[0]))
        tolerance = jnp.asarray(_DEFAULT_TOLERANCE if self.tolerance is None else self.tolerance, mean.dtype)
        descent = begin(jnp.zeros((width,), mean.dtype), _MEMORY)
        return FixedDrawsState(params, noise, descent, jnp.zeros((), bool), tolerance)

    def step(self, state: FixedDrawsState, target: Target, key: KeyArray) -> tuple[FixedDrawsState, StepInfo]:
        """Look at one member; the draws are those of the state, and the key is not used."""
        mean, scale = moved(*mean_and_scale(self.family, state.params), state.descent.trial)

        def loss_about(shift: Array) -> Scalar:
            return loss_of_draws(target, *moved(mean, scale, shift), state.noise)

        loss, gradient = jax.value_and_grad(loss_about)(jnp.zeros_like(state.descent.position))
        norm = jnp.linalg.norm(gradient)
        descent, taken = advance(state.descent, loss, gradient, _MEMORY)
        candidate = with_mean_and_scale(self.family, mean, scale, key)
        finite = all_finite((loss, gradient, candidate))
        taken &= finite
        new = FixedDrawsState(
            choose(taken, candidate, state.params),
            state.noise,
            descent,
            taken & (norm <= state.tolerance),
            state.tolerance,
        )
        return choose(state.converged, state, new), StepInfo(loss, norm, finite)

    def params(self, state: FixedDrawsState) -> Params:
        """Read the parameters off a state."""
        return state.params


def moment_matched_noise(key: KeyArray, pairs: int, dim: int, dtype: jnp.dtype) -> Float[Array, "pairs dim"]:
    """Return draws which, with their mirror images, have the first two moments of a standard normal.

    With fewer pairs than coordinates only the second moment of each coordinate is one.
    """
    noise = jax.random.normal(key, (pairs, dim), dtype)
    if pairs < dim:
        return noise / jnp.sqrt(jnp.mean(jnp.square(noise), axis=0, keepdims=True))
    basis, upper = jnp.linalg.qr(noise)
    return math.sqrt(pairs) * basis * jnp.sign(jnp.diagonal(upper))[None]


def loss_of_draws(target: Target, mean: Event, scale: Scale, noise: Float[Array, "pairs dim"]) -> Scalar:
    """Return the negative ELBO of these draws and their mirror images, in nats."""
    return jnp.mean(losses_of_draws(target, mean, scale, noise))


def losses_of_draws(
    target: Target, mean: Event, scale: Scale, noise: Float[Array, "pairs dim"]
) -> Float[Array, " pairs"]:
    """Return the same pair by pair, of which the negative ELBO is the mean."""
    steps = spread(scale, noise)
    values = jax.vmap(target.log_density)(jnp.concatenate([mean[None] + steps, mean[None] - steps]))
    entropy = log_determinant(scale) + 0.5 * mean.shape[0] * (1 + math.log(2 * math.pi))
    return -jnp.mean(values.reshape(2, -1), axis=0) - entropy


def moved(mean: Event, scale: Scale, shift: Float[Array, " n"]) -> tuple[Event, Scale]:
    """Return the Gaussian at coordinates `shift` about this one: m + L μ and L C, to second order of unit metric.

    In these coordinates KL between neighbors is half the squared distance, so a gradient in them is a natural one.
    """
    dim = mean.shape[0]
    rest = shift[dim:]
    if scale.ndim == 1:
        return mean + scale * shift[:dim], scale * jnp.exp(rest / math.sqrt(2))
    rows, columns = np.tril_indices(dim)
    square = jnp.zeros((dim, dim), mean.dtype).at[rows, columns].set(rest)
    diagonal = jnp.diagonal(square)
    change = square - jnp.diag(diagonal) + jnp.diag(jnp.exp(diagonal / math.sqrt(2)))
    return mean + matmul(scale, shift[:dim]), jnp.tril(matmul(scale, change))
