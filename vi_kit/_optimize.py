"""The loop: `optimize`, a pure scan over an algorithm's steps, and `advance`, the same in chunks for the driver."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from vi_kit._static import combine, partition
from vi_kit._static import strong as strong
from vi_kit._types import Algorithm, Fit, KeyArray, Params, StepInfo, Target, check_count, check_key


class LoopState(NamedTuple):
    """The algorithm's state, the number of steps taken, and the key that all steps draw from."""

    algorithm_state: PyTree
    step: Int[Array, ""]
    key: KeyArray


def _init(algorithm: Algorithm, params: Params, target: Target, key: KeyArray) -> LoopState:
    _check_params(algorithm, params, key)
    _check_minibatches(algorithm, target)
    init_key, step_key = jax.random.split(key)
    return LoopState(algorithm.init(params, target, init_key), jnp.zeros((), jnp.int32), step_key)


def _check_params(algorithm: Algorithm, params: Params, key: KeyArray) -> None:
    """Refuse parameters of another family or dimension, which could spread silently; costs nothing once compiled."""
    expected = jax.eval_shape(algorithm.family.init, key)
    same_structure = jax.tree.structure(params) == jax.tree.structure(expected)  # type: ignore[operator]
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(params)]
    if not same_structure or shapes != [leaf.shape for leaf in jax.tree.leaves(expected)]:
        raise ValueError(
            f"params: expected those of {algorithm.family!r}, got {type(params).__name__} of shapes {shapes}"
        )


def _check_minibatches(algorithm: Algorithm, target: Target) -> None:
    if target.batch_size is not None and not getattr(getattr(algorithm, "objective", None), "takes_minibatches", False):
        raise ValueError(
            "target: minibatches are for algorithms that follow the gradient of vk.objectives.ReverseKL, which stays "
            f"unbiased, not for {algorithm!r}; give it the target of all the data"
        )


def step(algorithm: Algorithm, target: Target, state: LoopState) -> tuple[LoopState, StepInfo]:
    """Take one step."""
    # The key of a step depends on its number alone, so a resumed run is the same run.
    key = jax.random.fold_in(state.key, state.step)
    algorithm_state, info = algorithm.step(state.algorithm_state, target, key)
    return LoopState(algorithm_state, state.step + 1, state.key), info


def optimize(
    key: KeyArray,
    target: Target,
    algorithm: Algorithm,
    params: Params,
    *,
    num_steps: int,
    state: LoopState | None = None,
) -> Fit:
    """Take `num_steps` steps of an algorithm: one `lax.scan`, pure, for use inside `jit`, `vmap` or alone.

    Equal algorithms and targets share one compiled program, whatever their key, data or learning rate.

    Args:
        key: a typed key.
        target: what to fit.
        algorithm: how (`vi_kit.algorithms`).
        params: where to start, from `algorithm.family.init`; not read when `state` is given.
        num_steps: how many steps.
        state: `Fit.state` of an earlier call, to go on exactly as one longer run would have (the key is then not
            read either: the state holds it).

    Returns:
        Parameters, state, history and whether every step was finite.

    Raises:
        TypeError: for a key that is not typed, or an argument of the wrong kind.
        ValueError: for a negative number of steps.

    Example:
        >>> import jax, jax.numpy as jnp, optax, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum(x**2), 2)
        >>> objective = vk.objectives.ReverseKL(vk.families.FullRank(2))
        >>> algorithm = vk.algorithms.GradientDescent(objective, optax.adam)
        >>> keys = jax.random.split(jax.random.key(0), 3)
        >>> start = algorithm.family.init(jax.random.key(1))
        >>> fits = jax.vmap(lambda k: vk.optimize(k, target, algorithm, start, num_steps=5))(keys)
        >>> fits.params.mean.shape
        (3, 2)
    """
    check_key(key)
    if not isinstance(target, Target):
        raise TypeError(f"target: expected a Target, as from vk.make_target, got {type(target).__name__}")
    if not callable(getattr(algorithm, "step", None)):
        raise TypeError(f"algorithm: expected one of vi_kit.algorithms, got {algorithm!r}")
    if state is None and not jax.tree.leaves(params):
        raise TypeError(f"params: expected parameters, as from algorithm.family.init, got {params!r}")
    if state is not None and not isinstance(state, LoopState):
        raise TypeError(f"state: expected Fit.state of an earlier call, got {type(state).__name__}")
    check_count("num_steps", num_steps, least=0)
    static, leaves = partition(algorithm)
    return _optimize(key, target.refreshed(), params, state, leaves, static, num_steps)  # type: ignore[no-any-return]


@partial(jax.jit, static_argnums=(5, 6))
def _optimize(
    key: KeyArray,
    target: Target,
    params: Params,
    state: LoopState | None,
    leaves: dict[str, Any],
    static: Algorithm,
    num_steps: int,
) -> Fit:
    algorithm = combine(static, leaves)
    first = _init(algorithm, params, target, key) if state is None else state

    def body(carry: LoopState, _: None) -> tuple[LoopState, StepInfo]:
        return step(algorithm, target, carry)

    last, history = jax.lax.scan(body, first, length=num_steps)
    return Fit(algorithm.params(last.algorithm_state), last, history, jnp.all(history.finite))


CAPACITY = 1_000
"""Most steps of one chunk: the length of the history that `advance` fills."""


@partial(jax.jit, static_argnums=(4,))
def begin(key: KeyArray, target: Target, params: Params, leaves: dict[str, Any], static: Algorithm) -> LoopState:
    """Return the state before the first step."""
    state = _init(combine(static, leaves), params, target, key)
    # Weak types would make the second chunk another program than the first.
    return jax.tree.map(strong, state)  # type: ignore[no-any-return]


@partial(jax.jit, static_argnums=(4,))
def advance(
    target: Target, state: LoopState, leaves: dict[str, Any], count: Int[Array, ""], static: Algorithm
) -> tuple[LoopState, Params, StepInfo]:
    """Take `count` ≤ CAPACITY steps; the count is traced, so chunks of any length are one program.

    Returns:
        The state, its parameters, and the steps' infos in arrays of length CAPACITY, filled up to `count`.
    """
    algorithm = combine(static, leaves)
    info = jax.eval_shape(lambda s: step(algorithm, target, s)[1], state)
    empty = jax.tree.map(lambda leaf: jnp.zeros((CAPACITY, *leaf.shape), leaf.dtype), info)

    def body(i: Int[Array, ""], carry: tuple[LoopState, StepInfo]) -> tuple[LoopState, StepInfo]:
        current, infos = carry
        current, info = step(algorithm, target, current)
        return current, jax.tree.map(lambda all_, one: all_.at[i].set(one), infos, info)

    last, infos = jax.lax.fori_loop(0, count, body, (state, empty))
    return last, algorithm.params(last.algorithm_state), infos
