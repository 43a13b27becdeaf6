"""Sample-average approximation with as many draws as it takes: they are doubled until that does not help."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vi_kit._static import configuration, leaf
from vi_kit._types import KeyArray, Params, Scalar, StepInfo, Target, check_count, check_positive
from vi_kit.algorithms._fixed_draws import FixedDraws, losses_of_draws, moved
from vi_kit.algorithms._gaussian import Scale, all_finite, choose, matmul, mean_and_scale, with_mean_and_scale
from vi_kit.algorithms._quasi_newton import Descent, advance, begin
from vi_kit.families import FullRank, MeanField

_MEMORY = 10
_DEFAULT_TOLERANCE = 1e-2
_SHARE = 1e-2  # of the tolerance: how near to the minimum of its draws a fit goes before it is compared
_MOST_BLOCKS = 64


class GrowingDrawsState(NamedTuple):
    """What growing draws remember. Draws come in blocks of `num_samples`, and a step looks at one of them.

    Attributes:
        key: of the draws; those of a block depend on it and on the block's number alone.
        params: the last member taken.
        previous: the fit of half the draws, at first the start.
        num_blocks: blocks that are fitted.
        moments: sum of the second moments of the draws so far, those of a comparison included.
        factor: of the second moments of the draws that are fitted, by which they are divided.
        descent: the state of the optimizer, in coordinates whitened by q itself.
        comparing: whether the fit is being compared with the previous one, on draws that neither has seen.
        block: steps taken of this look, or of this comparison.
        value: sum of the losses of the blocks looked at.
        gradient: sum of their gradients.
        losses: of the previous fit on the block that this fit is to be compared on, one for each mirrored pair.
        total: sum of the differences, pair by pair.
        squares: sum of their squares.
        gain: nats of negative ELBO by which the last fit was better than the one before, on fresh draws of both;
            infinite before there is one.
        gain_error: its standard error.
        converged: whether doubling has stopped to help, or may not go on; from then on nothing moves.
        tolerance: nats that doubling must gain.
    """

    key: KeyArray
    params: Params
    previous: Params
    num_blocks: Int[Array, ""]
    moments: Scale
    factor: Scale
    descent: Descent
    comparing: Bool[Array, ""]
    block: Int[Array, ""]
    value: Scalar
    gradient: Float[Array, " n"]
    losses: Float[Array, " pairs"]
    total: Scalar
    squares: Scalar
    gain: Scalar
    gain_error: Scalar
    converged: Bool[Array, ""]
    tolerance: Scalar

    @property
    def num_samples(self) -> Int[Array, ""]:
        """Draws that are fitted."""
        return self.num_blocks * (2 * self.losses.shape[-1])


@configuration
class GrowingDraws:
    r"""Fixed draws, doubled from where the last fit ended until a doubling gains less than a tolerance.

    $$ gain = \mathrm{ELBO}(q_{2n}) - \mathrm{ELBO}(q_n) \quad \text{on } 2n \text{ draws that neither has seen} $$

    A fit over n fixed draws is off by about c/n nats, so what is left after a doubling is about what it gained. Draws
    are those of `vk.algorithms.FixedDraws`, mirrored pairs with the second moments of a standard normal; a doubling
    keeps those that there are, and the fresh ones of a comparison are the next to be fitted. Both fits are compared
    draw by draw, and it ends where |gain| and its standard error together are at most the tolerance, or before there
    would be more than `max_samples`; `state.gain` and `state.gain_error` say which.

    Args:
        family: `vk.families.FullRank` or `vk.families.MeanField`.
        num_samples: draws to begin with, an even number; None: as for `vk.algorithms.FixedDraws`.
        max_samples: most draws to fit; None: 64 times as many as to begin with. A comparison takes as many again.
        tolerance: nats; None: 0.01. The minimum over the draws is met within a hundredth of it.

    A step looks at one block of `num_samples` draws, whatever their number, so steps cost the same, and no memory grows
    with the draws: a look at n draws is n / num_samples steps, and a comparison twice as many. `state.converged` says
    when to stop. What is not finite leaves the parameters as they were, and the next look is nearer.
    `vk.algorithms.linear_response_covariance` is for `FixedDraws`, which may start where this ends.

    Raises:
        TypeError: for another family.
        ValueError: for fewer draws than `FixedDraws` takes, an odd number, or a maximum below two times as many.

    Source: Burroni, Domke and Sheldon, "Sample Average Approximation for Black-Box VI", 2023,
    https://arxiv.org/abs/2304.06803 (draws are doubled there until the ELBO of fresh ones levels off)

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum((x - 3.0) ** 2 / jnp.array([1.0, 4.0])), 2)
        >>> algorithm = vk.algorithms.GrowingDraws(vk.families.FullRank(2))
        >>> start = algorithm.family.init(jax.random.key(0))
        >>> fit = vk.optimize(jax.random.key(1), target, algorithm, start, num_steps=80)
        >>> state = fit.state.algorithm_state
        >>> bool(state.converged), int(state.num_samples)  # one doubling, which told that it gains nothing
        (True, 64)
    """

    family: FullRank | MeanField
    num_samples: int | None = None
    max_samples: int | None = None
    tolerance: float | Array | None = leaf(default=None)

    def __post_init__(self) -> None:
        """Check the family and the numbers of draws."""
        check_positive("tolerance", self.tolerance)
        if self.max_samples is not None:
            check_count("max_samples", self.max_samples, least=2 * self._block)
        else:
            FixedDraws(self.family, self.num_samples)

    @property
    def _block(self) -> int:
        return FixedDraws(self.family, self.num_samples).num_draws

    @property
    def _most_blocks(self) -> int:
        return _MOST_BLOCKS if self.max_samples is None else self.max_samples // self._block

    def evaluations(self, target: Target) -> int:
        """Target evaluations a step costs."""
        del target
        return self._block

    def init(self, params: Params, target: Target, key: KeyArray) -> GrowingDrawsState:
        """Return the first state, which is to look at the start."""
        del target
        mean, scale = mean_and_scale(self.family, params)
        noise = self._block_of(key, jnp.zeros((), jnp.int32), mean.dtype)
        zero, count = jnp.zeros((), mean.dtype), jnp.zeros((), jnp.int32)
        still, no = jnp.zeros((_width(scale),), mean.dtype), jnp.zeros((), bool)
        return GrowingDrawsState(
            key=key,
            params=params,
            previous=params,
            num_blocks=count + 1,
            moments=_moments(noise),
            factor=_first_factor(noise),
            descent=begin(still, _MEMORY),
            comparing=no,
            block=count,
            value=zero,
            gradient=still,
            losses=jnp.zeros((self._block // 2,), mean.dtype),
            total=zero,
            squares=zero,
            gain=zero + math.inf,
            gain_error=zero + math.inf,
            converged=no,
            tolerance=jnp.asarray(_DEFAULT_TOLERANCE if self.tolerance is None else self.tolerance, mean.dtype),
        )

    def step(self, state: GrowingDrawsState, target: Target, key: KeyArray) -> tuple[GrowingDrawsState, StepInfo]:
        """Look at one block of draws; they are those of the state's key, and this one is not used."""
        pair, second = jnp.divmod(state.block, 2)
        block = jnp.where(state.comparing, state.num_blocks + pair, state.block)
        noise = self._block_of(state.key, block, state.value.dtype)
        matched = jnp.where(state.comparing, noise, _divided(noise, state.factor))  # fresh draws as they come
        params = choose(state.comparing & (second == 0), state.previous, state.params)
        trial = jnp.where(state.comparing, 0, state.descent.trial)
        mean, scale = moved(*mean_and_scale(self.family, params), trial)

        def losses_about(shift: Array) -> tuple[Scalar, Array]:
            losses = losses_of_draws(target, *moved(mean, scale, shift), matched)
            return jnp.mean(losses), losses

        (loss, losses), gradient = jax.value_and_grad(losses_about, has_aux=True)(jnp.zeros_like(state.gradient))
        candidate = with_mean_and_scale(self.family, mean, scale, key)
        looked, info = self._look(state, candidate, loss, gradient)
        compared = self._compare(state, losses, _moments(noise), second == 1)
        new = choose(state.converged, state[1:], choose(state.comparing, compared[1:], looked[1:]))
        return GrowingDrawsState(state.key, *new), info

    def _look(
        self, state: GrowingDrawsState, candidate: Params, loss: Scalar, gradient: Array
    ) -> tuple[GrowingDrawsState, StepInfo]:
        """Add a block to a look; after the last, take the member that was looked at, or not."""
        done = jnp.where(state.comparing, 0, state.block) + 1
        value, total = state.value + loss, state.gradient + gradient
        count = done.astype(value.dtype)
        mean_loss, mean_gradient = value / count, total / count
        norm = jnp.linalg.norm(mean_gradient)
        finite = all_finite((mean_loss, mean_gradient, candidate))
        complete = (done == state.num_blocks) | ~finite  # nothing finite can follow
        descent, taken = advance(state.descent, mean_loss, mean_gradient, _MEMORY)
        taken &= complete & finite
        near = taken & (0.5 * jnp.square(norm) <= _SHARE * state.tolerance)
        looked = state._replace(
            params=choose(taken, candidate, state.params),
            descent=choose(complete, descent, state.descent),
            comparing=near,
            block=jnp.where(complete, 0, done),
            value=jnp.where(complete, 0, value),
            gradient=jnp.where(complete, 0, total),
        )
        return looked, StepInfo(mean_loss, norm, finite)

    def _compare(
        self, state: GrowingDrawsState, losses: Array, moments: Array, both: Bool[Array, ""]
    ) -> GrowingDrawsState:
        """Add a member to a comparison; after the last, double the draws or stop."""
        moments = state.moments + jnp.where(both, moments, 0)
        differences = jnp.where(both, state.losses - losses, 0)
        total, squares = state.total + jnp.sum(differences), state.squares + jnp.sum(jnp.square(differences))
        num = (state.num_blocks * losses.shape[0]).astype(losses.dtype)
        gain = total / num
        variance = jnp.maximum(squares - total * gain, 0) / (num - 1)  # rounding may take it below zero
        error = jnp.sqrt(variance / num)
        block = state.block + 1
        complete = block == 2 * state.num_blocks
        compared = state._replace(block=block, losses=losses, total=total, squares=squares, moments=moments)
        stop = (jnp.abs(gain) + error <= state.tolerance) | (2 * state.num_blocks > self._most_blocks)
        finished = state._replace(
            previous=state.params,
            num_blocks=jnp.where(stop, state.num_blocks, 2 * state.num_blocks),
            moments=moments,
            factor=jnp.where(stop, state.factor, _root(moments / (2 * num))),
            descent=begin(jnp.zeros_like(state.gradient), _MEMORY),
            comparing=jnp.zeros_like(state.comparing),
            block=jnp.zeros_like(block),
            total=jnp.zeros_like(total),
            squares=jnp.zeros_like(squares),
            gain=gain,
            gain_error=error,
            converged=stop,
        )
        chosen = choose(complete, finished[1:], compared[1:])
        return GrowingDrawsState(state.key, *chosen)

    def _block_of(self, key: KeyArray, block: Int[Array, ""], dtype: Any) -> Float[Array, "pairs dim"]:
        """Return the draws of a block, before they are matched; the others are their mirror images."""
        return jax.random.normal(jax.random.fold_in(key, block), (self._block // 2, self.family.dim), dtype)

    def params(self, state: GrowingDrawsState) -> Params:
        """Read the parameters off a state."""
        return state.params


def _width(scale: Scale) -> int:
    """Return how many coordinates a member has."""
    dim = scale.shape[0]
    return 2 * dim if scale.ndim == 1 else dim + dim * (dim + 1) // 2


def _moments(noise: Float[Array, "pairs dim"]) -> Scale:
    """Return the sum of the second moments, of each coordinate alone where there are fewer pairs than coordinates."""
    return jnp.sum(jnp.square(noise), axis=0) if noise.shape[0] < noise.shape[1] else matmul(noise.T, noise)


def _root(moments: Scale) -> Scale:
    """Return the lower factor of second moments."""
    return jnp.sqrt(moments) if moments.ndim == 1 else jnp.linalg.cholesky(moments)


def _first_factor(noise: Float[Array, "pairs dim"]) -> Scale:
    """Return the factor of the mean moments of a block, which as many pairs as coordinates make ill-conditioned."""
    if noise.shape[0] < noise.shape[1]:
        return _root(_moments(noise) / noise.shape[0])
    upper = jnp.linalg.qr(noise, mode="r")
    factor: Array = (upper * jnp.sign(jnp.diagonal(upper))[:, None]).T / math.sqrt(noise.shape[0])
    return factor


def _divided(noise: Float[Array, "pairs dim"], factor: Scale) -> Float[Array, "pairs dim"]:
    """Return draws whose second moments are one, if the factor is that of theirs."""
    if factor.ndim == 1:
        return noise / factor[None]
    divided: Array = jax.scipy.linalg.solve_triangular(factor, noise.T, lower=True).T
    return divided
