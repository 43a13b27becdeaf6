"""Markovian score climbing: forward KL by the draws of a chain that leaves p invariant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from vi_kit import _distributions as distributions
from vi_kit._static import configuration, leaf
from vi_kit._types import Event, Family, KeyArray, Params, Scalar, StepInfo, Target, check_count
from vi_kit.algorithms._gaussian import all_finite, choose
from vi_kit.algorithms._gradient_descent import GradientDescent, GradientDescentState
from vi_kit.algorithms._hamiltonian import HamiltonianMonteCarlo
from vi_kit.objectives import ForwardKL


class ScoreClimbingState(NamedTuple):
    """What score climbing remembers.

    Attributes:
        descent: parameters, optimizer and learning rate.
        z: the last state of the chain, a draw of p once the chain has forgotten its start; with a kernel those of
            num_samples chains, in a leading axis.
        log_p: the target's log density there.
    """

    descent: GradientDescentState
    z: Float[Array, "*chains dim"]
    log_p: Float[Array, "*chains"]


@configuration
class ScoreClimbing:
    r"""Forward KL(p‖q), climbing log q at the states of a Markov chain that leaves p invariant and proposes from q.

    $$ \nabla KL(p\|q) = -E_p[\nabla \log q(z)] \approx -\sum_i \bar w_i \nabla \log q(z_i), \quad
       z_1 \text{ the last state}, \; z_{2 \dots S} \sim q, \; \bar w_i \propto p(z_i) / q(z_i) $$

    Without a kernel it is conditional importance sampling: the next state is z_i with probability w̄_i, and the
    gradient is the mean over that choice. Unlike self-normalized weights it has no bias that stays: as the chain mixes
    and steps get smaller, q goes to a minimum of KL(p‖q) for any number of draws. It mixes slowly where q is far from p
    or narrower, or the dimension is high. Hamiltonian Monte Carlo need not: num_samples chains then start at draws of q
    and each take one step of it, and the gradient is the plain mean of −∇ log q over their states.

    Args:
        family: the family of q.
        optimizer: an optax factory such as `optax.adam`, or a ready transformation.
        learning_rate: a number (another value compiles nothing) or an optax schedule; 0.01 where none is given.
        num_samples: S, the last state among them, at least 2; with a kernel the number of chains, at least 1.
        kernel: None, or `vk.algorithms.HamiltonianMonteCarlo(...)`.

    A step costs num_samples − 1 evaluations of the density without gradient, with a kernel num_samples times those of
    the kernel; the first states cost one more each. A step
    that is not finite leaves parameters, optimizer and chain as they were.

    Raises:
        TypeError: for another kind of family, optimizer or rate.
        ValueError: for fewer draws than that.

    Source: Naesseth, Lindsten and Blei, "Markovian Score Climbing: Variational Inference with KL(p||q)", 2020,
    https://arxiv.org/abs/2003.10374

    Example:
        >>> import jax, jax.numpy as jnp, optax, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum((x - 1.0) ** 2), 1)
        >>> schedule = optax.cosine_decay_schedule(0.1, 500)
        >>> algorithm = vk.algorithms.ScoreClimbing(vk.families.MeanField(1), optax.adam, schedule, num_samples=32)
        >>> start = algorithm.family.init(jax.random.key(0))
        >>> fit = vk.optimize(jax.random.key(1), target, algorithm, start, num_steps=500)
        >>> bool(abs(fit.params.mean[0] - 1) < 0.1)
        True
    """

    family: Family
    optimizer: Callable[..., optax.GradientTransformation] | optax.GradientTransformation
    learning_rate: float | Callable[[Any], Any] | Array | None = leaf(default=None)
    num_samples: int = 16
    kernel: HamiltonianMonteCarlo | None = None

    def __post_init__(self) -> None:
        """Check the number of draws, and the optimizer with its rate."""
        if not isinstance(self.family, Family):
            raise TypeError(f"family: expected one of vi_kit.families, got {self.family!r}")
        if self.kernel is not None and not isinstance(self.kernel, HamiltonianMonteCarlo):
            raise TypeError(f"kernel: expected vk.algorithms.HamiltonianMonteCarlo or None, got {self.kernel!r}")
        check_count("num_samples", self.num_samples, least=2 if self.kernel is None else 1)
        self._descent(None)

    def _descent(self, draws: tuple[Array, Array] | None) -> GradientDescent:
        """Return the descent on the cross-entropy at given draws."""

        def source(*_: Any) -> tuple[Array, Array]:
            if draws is None:
                raise ValueError("draws: none yet")
            return draws

        return GradientDescent(ForwardKL(self.family, source), self.optimizer, self.learning_rate)

    def evaluations(self, target: Target) -> int:
        """Target evaluations a step costs."""
        del target
        return self.num_samples - 1 if self.kernel is None else self.num_samples * self.kernel.evaluations()

    def init(self, params: Params, target: Target, key: KeyArray) -> ScoreClimbingState:
        """Return the first state: chains start at draws of q."""
        draw_key, key = jax.random.split(key)
        q = self.family.dist(params)

        def one(key: KeyArray) -> tuple[Event, Scalar]:
            z = distributions.sample(q, key)
            return z, target.log_density(z)

        z, log_p = one(draw_key) if self.kernel is None else jax.vmap(one)(jax.random.split(draw_key, self.num_samples))
        return ScoreClimbingState(self._descent(None).init(params, target, key), z, log_p)

    def step(self, state: ScoreClimbingState, target: Target, key: KeyArray) -> tuple[ScoreClimbingState, StepInfo]:
        """Propose, climb, and choose the next state; with a kernel, step and climb."""
        if self.kernel is not None:
            return self._step_by(self.kernel, state, target, key)
        propose_key, choose_key, descent_key = jax.random.split(key, 3)
        z, log_p, log_weights = self._propose(state, target, propose_key)
        descent, info = self._descent((z, log_weights)).step(state.descent, target, descent_key)
        chosen = jax.random.categorical(choose_key, log_weights)
        new = ScoreClimbingState(descent, z[chosen], log_p[chosen])
        finite = info.finite & all_finite((log_p[chosen], jnp.max(log_weights)))
        return choose(finite, new, state), info._replace(finite=finite)

    def _step_by(
        self, kernel: HamiltonianMonteCarlo, state: ScoreClimbingState, target: Target, key: KeyArray
    ) -> tuple[ScoreClimbingState, StepInfo]:
        """Step all chains, and climb at their states."""
        step_key, descent_key = jax.random.split(key)
        widths = self.family.dist(state.descent.params).std()
        keys = jax.random.split(step_key, self.num_samples)
        z, log_p = jax.vmap(lambda key, z: kernel.step(key, z, target, widths))(keys, state.z)
        descent, info = self._descent((z, jnp.zeros_like(log_p))).step(state.descent, target, descent_key)
        finite = info.finite & all_finite((z, log_p))
        return choose(finite, ScoreClimbingState(descent, z, log_p), state), info._replace(finite=finite)

    def _propose(
        self, state: ScoreClimbingState, target: Target, key: KeyArray
    ) -> tuple[Float[Array, "n dim"], Float[Array, " n"], Float[Array, " n"]]:
        """Return the last state and the proposals with log p̃ and log p̃ − log q."""
        q = self.family.dist(state.descent.params)

        def one(key: KeyArray) -> tuple[Event, Scalar, Scalar]:
            z, log_q = distributions.sample_and_log_prob(q, key)
            return z, target.log_density(z), log_q

        z, log_p, log_q = jax.vmap(one)(jax.random.split(key, self.num_samples - 1))
        z, log_p = jnp.concatenate([state.z[None], z]), jnp.concatenate([state.log_p[None], log_p])
        log_q = jnp.concatenate([distributions.log_prob(q, state.z)[None], log_q])
        return z, log_p, log_p - log_q

    def params(self, state: ScoreClimbingState) -> Params:
        """Read the parameters off a state."""
        return state.descent.params
