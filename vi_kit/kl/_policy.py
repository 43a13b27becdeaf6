r"""The best policy under a KL penalty or constraint, in closed form.

With rewards A for the actions and a reference policy ρ, E_π[A] − β KL(π‖ρ) is largest at π ∝ ρ exp(A/β), where it is
β log E_ρ[exp(A/β)]. Everything here comes from that one logarithm.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from vi_kit.kl._core import Axes, Rows, compare, log_normalizer, maximum, rows
from vi_kit.kl._inputs import broadcast_shapes, floats, positive

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Bool, Float

    from vi_kit.kl._inputs import Axis


class _Tilted(NamedTuple):
    """A reference tilted by exp(A/β), class axes kept."""

    log_reference: Float[Array, "..."]  # normalized
    tilt: Float[Array, "..."]  # (A − max A)/β, 0 for actions that cannot be taken
    log_weights: Float[Array, "..."]  # the sum of the two, −∞ for actions that cannot be taken
    log_mean: Float[Array, "..."]  # log E_ρ exp(tilt)
    largest: Float[Array, "..."]  # max A


def _tilt(axes: Axes, reference: Array, advantages: Array, heat: Array) -> _Tilted:
    # Comparisons that NaN passes: it must not look like an action that cannot be taken.
    forbidden = (reference == -jnp.inf) | (advantages == -jnp.inf)
    nothing = jnp.full_like(advantages, -jnp.inf)
    largest = maximum(jnp.where(forbidden, nothing, advantages), axes)
    tilt = jnp.where(forbidden, jnp.zeros_like(advantages), advantages - largest) / heat
    one = jnp.ones_like(largest)
    largest_logit, log_total = log_normalizer(reference, one, axes)
    log_reference = jnp.where(reference == -jnp.inf, nothing, reference - largest_logit - log_total)
    log_weights = jnp.where(forbidden, nothing, log_reference + tilt)
    offset, log_sum = log_normalizer(log_weights, one, axes)
    log_mean = offset + log_sum
    # Where π is close to ρ the mean of exp(A/β) is close to 1: its logarithm keeps its digits only through log1p.
    near = (log_mean > -math.log(2)) & jnp.any(~forbidden, axis=axes, keepdims=True)
    lost = jnp.exp(log_reference) * jnp.where(forbidden, jnp.full_like(tilt, -1), jnp.expm1(tilt))
    mean = jnp.where(near, jnp.sum(lost, axis=axes, keepdims=True), jnp.zeros_like(largest))
    return _Tilted(log_reference, tilt, log_weights, jnp.where(near, jnp.log1p(mean), log_mean), largest)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _soft_maximum(axes: Axes, reference: Array, advantages: Array, heat: Array) -> Array:
    tilted = _tilt(axes, reference, advantages, heat)
    value = tilted.largest + heat * tilted.log_mean
    # Nothing to choose from but actions of value −∞. (A row without actions gives 0, as everywhere.)
    exists, allowed = (jnp.max(x, axis=axes, keepdims=True) != -jnp.inf for x in (reference, tilted.log_weights))
    return jnp.where(exists & ~allowed, jnp.full_like(value, -jnp.inf), value)


@_soft_maximum.defjvp
def _soft_maximum_jvp(axes: Axes, primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    """Use the analytic gradients: π, β(π − ρ) and −KL, which differences of logarithms would lose at a large β."""
    tilted, heat = _tilt(axes, *primals), primals[2]
    parts = compare(tilted.log_weights, tilted.log_reference, tilted.tilt, jnp.ones_like(heat), axes)
    moved = parts.p * tangents[1] - heat * parts.difference * tangents[0]
    return _soft_maximum(axes, *primals), jnp.sum(moved, axis=axes, keepdims=True) - parts.kl * tangents[2]


def _spread(name: str, value: ArrayLike, inputs: Rows) -> Float[Array, "..."]:
    """Put a positive number, or one a row, beside the logits."""
    logits, axes = inputs.p_logits, inputs.axes
    batch = tuple(n for i, n in enumerate(logits.shape) if i not in axes)
    array = positive(name, value).astype(logits.dtype)
    if broadcast_shapes(**{name: array.shape, "rows": batch}) != batch:
        raise ValueError(f"{name}: expected a shape that broadcasts to the rows {batch}, got {array.shape}")
    return jnp.expand_dims(jnp.broadcast_to(array, batch), axes)


def regularized_policy(
    reference_logits: Float[ArrayLike, "..."],
    advantages: Float[ArrayLike, "..."],
    temperature: Float[ArrayLike, "..."],
    *,
    axis: Axis = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    mask: Bool[ArrayLike, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""Log probabilities of the policy that maximizes E_π[A] − temperature · KL(π‖reference).

    $$ \pi(a) \propto \rho(a)\, e^{A(a) / \beta} $$

    The policy of REPS, the E-step of MPO, the weights of advantage-weighted regression, and the optimum that DPO
    assumes. With draws from the reference in place of all actions, `reference_logits` of zeros gives MPO's weights
    softmax(Q/β), and logarithms of importance weights give those for draws from another policy.

    Args:
        reference_logits: logits of ρ, any shape; an action at −∞ stays at −∞.
        advantages: A (or Q values, or rewards: a constant in a row changes nothing), same number of actions, the
            other axes broadcast; an action at −∞ is never taken.
        temperature: β, what multiplies the KL (`AdaptiveCoefficient.coefficient`); above 0, a scalar or one a row, in
            the unit of the advantages a nat. Small: greedy. Large: the reference.
        axis: the action axis, or several.
        where: which actions exist; the others may hold anything and get −∞.
        mask: which rows count; the others give 0 (uniform, as logits) and gradient 0, even if they hold NaN.

    Returns:
        log π, normalized, in the shape of the logits: `jnp.exp` of it are probabilities, and it can be used as logits.

    Raises:
        TypeError: for logits of integers, a mask of floats.
        ValueError: for different numbers of actions or none, shapes that do not broadcast, a temperature not above 0
            (a traced one gives NaN).

    Source: Peters, Mülling, Altün, Relative Entropy Policy Search, AAAI 2010; Abdolmaleki et al., Maximum a Posteriori
    Policy Optimisation, 2018, https://arxiv.org/abs/1806.06920

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> jnp.exp(kl.regularized_policy(jnp.zeros(2), jnp.array([0.0, jnp.log(3.0)]), temperature=1.0)).round(4)
        Array([0.25, 0.75], dtype=float32)
    """
    inputs = rows(axis, where, mask, reference_logits=reference_logits, advantages=advantages)
    tilted = _tilt(inputs.axes, inputs.p_logits, inputs.q_logits, _spread("temperature", temperature, inputs))
    log_policy = tilted.log_weights - tilted.log_mean
    if inputs.mask is None:
        return log_policy
    return jnp.where(jnp.expand_dims(inputs.mask, inputs.axes), log_policy, jnp.zeros_like(log_policy))


def regularized_value(
    reference_logits: Float[ArrayLike, "..."],
    advantages: Float[ArrayLike, "..."],
    temperature: Float[ArrayLike, "..."],
    *,
    axis: Axis = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    mask: Bool[ArrayLike, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""The largest value of E_π[A] − temperature · KL(π‖reference), the soft maximum of the advantages.

    $$ \beta \log \mathbb{E}_\rho\, e^{A / \beta} $$

    Right in float32 at every temperature: the largest advantage as it goes to 0, their mean under the reference as it
    grows. The gradient to the advantages is π, the one to the temperature −KL(π‖ρ).

    Args:
        reference_logits: logits of ρ, as `regularized_policy` takes them, like all that follows.
        advantages: A.
        temperature: β.
        axis: the action axis, or several.
        where: which actions exist. A row with none gives 0.
        mask: which rows count; the others give 0 and gradient 0.

    Returns:
        The value in the unit of the advantages, one a row.

    Raises:
        TypeError: as `regularized_policy`.
        ValueError: as `regularized_policy`.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> round(float(kl.regularized_value(jnp.zeros(2), jnp.array([0.0, 1.0]), temperature=1e6)), 4)
        0.5
    """
    inputs = rows(axis, where, mask, reference_logits=reference_logits, advantages=advantages)
    heat = _spread("temperature", temperature, inputs)
    return inputs.finish(_soft_maximum(inputs.axes, inputs.p_logits, inputs.q_logits, heat))


def temperature_dual(
    q_values: Float[ArrayLike, "..."],
    temperature: Float[ArrayLike, "..."],
    max_kl: Float[ArrayLike, "..."],
    *,
    reference_logits: Float[ArrayLike, "..."] | None = None,
    axis: Axis = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    mask: Bool[ArrayLike, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""The dual whose minimum over the temperature holds the mean KL(π‖reference) at max_kl: MPO's and REPS's.

    $$ g(\eta) = \eta\, \epsilon + \eta \log \mathbb{E}_\rho\, e^{Q / \eta} $$

    Minimize its mean over the states (`kl.reduce`), it is convex in η, usually by a few gradient steps on log η beside
    the policy's own. Its gradient in η is ε − KL(π‖ρ), so at the minimum the weights
    `jnp.exp(kl.regularized_policy(reference_logits, q_values, temperature))` are ε nats from the reference. Where even
    the greedy policy is nearer than that, the minimum is at η = 0.

    Args:
        q_values: Q of all actions, or of actions drawn from the reference: then an estimate that is too low, by about
            Var(e^{Q/η}) / (2 n (E e^{Q/η})²) · η for n draws.
        temperature: η, above 0; a scalar or one a row.
        max_kl: ε in nats, above 0; a scalar or one a row.
        reference_logits: logits of ρ where q_values holds all actions; None where it holds draws from ρ (all alike).
            For draws from another policy b: log ρ − log b.
        axis: the axis of actions or draws, or several.
        where: which of them exist.
        mask: which rows (states) count; the others give 0 and gradient 0, even if they hold NaN.

    Returns:
        The dual in the unit of the Q values, one a row.

    Raises:
        TypeError: as `regularized_policy`.
        ValueError: as `regularized_policy`, and for a max_kl not above 0 (a traced one gives NaN).

    Source: Abdolmaleki et al., Maximum a Posteriori Policy Optimisation, 2018, https://arxiv.org/abs/1806.06920

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit.kl as kl
        >>> q_values, temperature = jnp.array([[0.0, 1.0], [2.0, 0.0]]), jnp.array(1.0)
        >>> loss = lambda t: kl.reduce(kl.temperature_dual(q_values, t, max_kl=0.1))
        >>> bool(jax.grad(loss)(temperature) < 0)  # the policy is farther than max_kl: the temperature must rise
        True
    """
    if reference_logits is None:
        reference_logits = jnp.zeros_like(floats(q_values=q_values)[0])
    inputs = rows(axis, where, mask, reference_logits=reference_logits, q_values=q_values)
    heat, bound = _spread("temperature", temperature, inputs), _spread("max_kl", max_kl, inputs)
    return inputs.finish(heat * bound + _soft_maximum(inputs.axes, inputs.p_logits, inputs.q_logits, heat))
