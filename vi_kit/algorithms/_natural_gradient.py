"""Natural gradients for Gaussians and their mixtures, by factors, so that covariances stay positive definite."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vi_kit._arrays import namespace
from vi_kit._static import configuration, leaf
from vi_kit._types import Event, KeyArray, Params, Scalar, StepInfo, Target, check_count, check_positive
from vi_kit.algorithms._expected_derivatives import ExpectedDerivatives, expected_derivatives
from vi_kit.algorithms._gaussian import (
    Scale,
    all_finite,
    choose,
    log_determinant,
    matmul,
    mean_and_scale,
    with_mean_and_scale,
)
from vi_kit.algorithms._natural_gradient_mixture import MixtureDerivatives, mixture_derivatives, move_mixture
from vi_kit.families import FullRank, MeanField, Mixture
from vi_kit.families._gaussian_forms import lower_factor

_MEAN_FIELD_PAIRS = 16
_DEFAULT_DECAY = 10.0
_TOLERANCE = 2.0  # standard errors by which the loss may rise, beside one nat
_SHORTER, _LONGER = 0.25, 2.0


class NaturalGradientState(NamedTuple):
    """What natural gradient remembers.

    Attributes:
        params: the last member that was no step back.
        loss: its negative ELBO, infinite before the first.
        derivatives: the means over it.
        candidate: the member to try next.
        length: what a step's length is multiplied with after steps back, at most 1.
        settled: steps that lowered the loss by no more than its noise.
        decay: settled steps after which lengths have fallen to half.
    """

    params: Params
    loss: Scalar
    derivatives: ExpectedDerivatives | MixtureDerivatives
    candidate: Params
    length: Scalar
    settled: Int[Array, ""]
    decay: Float[Array, ""]


@configuration
class NaturalGradient:
    r"""Reverse KL by natural gradients: Newton's method with means over q, for Gaussians and mixtures of them.

    $$ \Lambda' = (1 - \rho) \Lambda - \rho E_q[\nabla^2 \log p], \quad
       m' = m + \rho \Lambda'^{-1} E_q[\nabla \log p], \quad \rho = \lambda / (1 + settled / decay) $$

    In whitened coordinates, by eigenvalues: where the precision is to fall, the variance rises to first order in its
    stead, at most to twice itself, so every step is positive definite. The second derivatives come from gradients
    along random orthogonal pairs of draws (unbiased; exact on Gaussian targets), so densities need no second
    derivative. Nothing to tune: a member that is not finite, or whose negative ELBO is higher by more than a nat and
    two standard errors, is given up for a step of a quarter of the length λ, which then grows back to 1.

    Every component of a mixture takes this step with its own draws, the rest of q taken off p, and weights theirs:

    $$ \Lambda_k' = \Lambda_k - \rho E_{q_k}[\nabla^2 (\log p - \log q)], \quad
       m_k' = m_k + \rho \Lambda_k'^{-1} E_{q_k}[\nabla (\log p - \log q)], \quad
       w_k' \propto w_k e^{\rho E_{q_k}[\log p - \log q]} $$

    where no weight changes by more than a nat and no mean moves farther than one width of its component. A mixture ends
    in the modes it starts near, and two components in one mode do not part: start wide, several times, and keep the
    lowest loss. Of 24 starts of 4 to 5 times the width of the modes in two dimensions all found both of two and half
    all of three (without the bound on means half and a quarter), in ten dimensions one of eight all of three.

    Args:
        family: `vk.families.FullRank`, `vk.families.MeanField`, or a `vk.families.Mixture` of either.
        num_pairs: pairs of draws a step, for every component; None: dim, for mean-field at most 16. Full-rank needs
            dim at least.
        decay: settled steps (those that lowered the loss by no more than its noise) after which the length has halved;
            `jnp.inf` for no decay. None: 10.

    A step costs 2 · num_pairs + 1 evaluations a component, and O(dim³) for full-rank. A Gaussian target no wider than q
    is fitted in one step; a wider one after log₂ of the ratio of variances and a few. A step looks at its member before
    taking it: `params` are one step behind what was drawn from last. One that is not finite leaves them as they were.

    Raises:
        TypeError: for another family.
        ValueError: for fewer pairs than that.

    Source: Khan and Rue, "The Bayesian Learning Rule", 2023, https://arxiv.org/abs/2107.04562; for steps that stay
    positive definite Lin, Schmidt and Khan, "Handling the Positive-Definite Constraint in the Bayesian Learning Rule",
    2020, https://arxiv.org/abs/2002.10060; for mixtures Lin, Khan and Schmidt, "Fast and Simple Natural-Gradient
    Variational Inference with Mixture of Exponential-family Approximations", 2019, https://arxiv.org/abs/1906.02914,
    and Arenz, Dahlinger, Ye, Volpp and Neumann, "A Unified Perspective on Natural Gradient Variational Inference with
    Gaussian Mixture Models", 2023, https://arxiv.org/abs/2209.11533

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum((x - 3.0) ** 2 / jnp.array([1.0, 0.25])), 2)
        >>> algorithm = vk.algorithms.NaturalGradient(vk.families.FullRank(2))
        >>> start = algorithm.family.init(jax.random.key(0))
        >>> fit = vk.optimize(jax.random.key(1), target, algorithm, start, num_steps=2)
        >>> algorithm.family.dist(fit.params).std().round(3).tolist()
        [1.0, 0.5]
    """

    family: FullRank | MeanField | Mixture
    num_pairs: int | None = None
    decay: float | Array | None = leaf(default=None)

    def __post_init__(self) -> None:
        """Check the family and the number of pairs."""
        if not isinstance(self._gaussian, FullRank | MeanField):
            raise TypeError(
                "family: expected vk.families.FullRank or vk.families.MeanField, or a vk.families.Mixture of them, "
                f"got {self.family!r}"
            )
        check_positive("decay", self.decay)
        if self.num_pairs is not None:
            check_count("num_pairs", self.num_pairs, least=self.family.dim if self._full_rank else 1)

    @property
    def _gaussian(self) -> Any:
        return self.family.component(self.family.dim) if isinstance(self.family, Mixture) else self.family

    @property
    def _full_rank(self) -> bool:
        return isinstance(self._gaussian, FullRank)

    @property
    def _pairs(self) -> int:
        if self.num_pairs is not None:
            return self.num_pairs
        return self.family.dim if self._full_rank else min(self.family.dim, _MEAN_FIELD_PAIRS)

    def evaluations(self, target: Target) -> int:
        """Target evaluations a step costs."""
        del target
        return (2 * self._pairs + 1) * (self.family.num_components if isinstance(self.family, Mixture) else 1)

    def init(self, params: Params, target: Target, key: KeyArray) -> NaturalGradientState:
        """Return the first state, whose candidate is the start."""
        del target, key
        zero = jnp.zeros((), jax.tree.leaves(params)[0].dtype)
        pairs = jnp.zeros((self._pairs, self.family.dim), zero.dtype)
        nothing: Any = ExpectedDerivatives(zero, zero, jnp.zeros((self.family.dim,), zero.dtype), pairs, pairs)
        if isinstance(self.family, Mixture):
            count = self.family.num_components
            each = jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), nothing)
            nothing = MixtureDerivatives(each, zero)
        return NaturalGradientState(
            params=params,
            loss=zero + math.inf,
            derivatives=nothing,
            candidate=params,
            length=zero + 1,
            settled=jnp.zeros((), jnp.int32),
            decay=jnp.asarray(_DEFAULT_DECAY if self.decay is None else self.decay, zero.dtype),
        )

    def step(self, state: NaturalGradientState, target: Target, key: KeyArray) -> tuple[NaturalGradientState, StepInfo]:
        """Look at the candidate; go on from it, or back and less far."""
        found, loss, norm = self._look(state.candidate, target, key)
        finite = all_finite((found, loss, norm, state.candidate))
        noise = _TOLERANCE * (found.error + state.derivatives.error)
        taken = finite & (loss <= state.loss + 1 + noise)
        params, best, derivatives = choose(
            taken, (state.candidate, loss, found), (state.params, state.loss, state.derivatives)
        )
        length = jnp.where(taken, jnp.minimum(state.length * _LONGER, 1), state.length * _SHORTER)
        settled = state.settled + (taken & (loss >= state.loss - noise)).astype(jnp.int32)
        rate = length / (1 + settled.astype(length.dtype) / state.decay)
        candidate = self._move(params, derivatives, rate, key)
        candidate = choose(jnp.isfinite(best), candidate, state.candidate)  # nothing is known before the first
        new = NaturalGradientState(params, best, derivatives, candidate, length, settled, state.decay)
        return new, StepInfo(loss, norm, finite)

    def _look(self, params: Params, target: Target, key: KeyArray) -> tuple[Any, Scalar, Scalar]:
        """Return the means over a member, its negative ELBO and the norm of the gradient in its mean."""
        if isinstance(self.family, Mixture):
            return mixture_derivatives(self.family, params, target, key, self._pairs)
        mean, scale = mean_and_scale(self.family, params)
        found = expected_derivatives(target.log_density, mean, scale, key, self._pairs)
        entropy = log_determinant(scale) + 0.5 * self.family.dim * (1 + math.log(2 * math.pi))
        return found, -found.log_density - entropy, jnp.linalg.norm(found.gradient)

    def _move(self, params: Params, found: Any, rate: Scalar, key: KeyArray) -> Params:
        """Return the member after a step of this length; the key is not used."""
        move = move_full_rank if self._full_rank else move_mean_field
        if isinstance(self.family, Mixture):
            return move_mixture(self.family, params, found, rate, move)
        mean, scale = mean_and_scale(self.family, params)
        return with_mean_and_scale(self.family, *move(mean, scale, found, rate), key)

    def params(self, state: NaturalGradientState) -> Params:
        """Read the parameters off a state."""
        return state.params


def _growth(curvature: Array, rate: Scalar | float) -> Array:
    """Return the factor of the precision: 1 + x where it rises, 1 / (1 − x), at least 1/2, where it falls."""
    xp = namespace(curvature)
    change = rate * (curvature - 1)
    factor: Array = xp.where(change >= 0, 1 + change, 1 / (1 + xp.minimum(xp.maximum(-change, 0), 1)))
    return factor


def move_full_rank(mean: Event, lower: Scale, found: ExpectedDerivatives, rate: Scalar | float) -> tuple[Event, Scale]:
    """Return mean and factor after a step of this length; for numpy and jax alike."""
    xp = namespace(mean)
    values, vectors = xp.linalg.eigh(found.matrix())
    growth = _growth(values, rate)
    shift = matmul(vectors, matmul(vectors.T, found.gradient) / growth)
    half = matmul(lower, vectors / xp.sqrt(growth)[None])
    return mean + rate * matmul(lower, shift), lower_factor(half)


def move_mean_field(mean: Event, scale: Scale, found: ExpectedDerivatives, rate: Scalar | float) -> tuple[Event, Scale]:
    """Return mean and standard deviations after a step of this length; for numpy and jax alike."""
    xp = namespace(mean)
    growth = _growth(found.diagonal(), rate)
    shift = found.gradient / growth
    # With correlations in p the full step may overshoot without end: no farther than the curvature along it says.
    bend, slope = found.along(shift), xp.sum(shift * found.gradient)
    reach = xp.where(bend > slope, slope / xp.where(bend > slope, bend, 1), 1)
    return mean + rate * reach * scale * shift, scale / xp.sqrt(growth)
