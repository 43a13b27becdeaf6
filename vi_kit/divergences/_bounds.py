"""Bounds of KL between mixtures, from the divergences between their components."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vi_kit.divergences._compare import compare
from vi_kit.divergences._divergence import renyi_of_families
from vi_kit.divergences._door import holds_opaque, prepare, refuse_bad_parameters, refuse_no_closed_form
from vi_kit.divergences._kl import kl_of_families
from vi_kit.divergences._quadrature_terms import infinite_where
from vi_kit.divergences._rules import NoClosedForm, Rule
from vi_kit.divergences._structure import independent
from vi_kit.divergences.distributions import Distribution, Independent, Mixture, MultivariateNormal, Normal
from vi_kit.kl._compensated import expm1_minus

ITERATIONS = 30
ORDERS = (0.5,)  # others are seldom better


class Bounds(NamedTuple):
    """Two numbers that a divergence lies between.

    Attributes:
        lower: it is at least this, in nats.
        upper: it is at most this, in nats.
    """

    lower: Float[Array, "..."]
    upper: Float[Array, "..."]


def kl_bounds(p: Any, q: Any) -> Bounds:
    r"""Bounds of KL(p‖q) between mixtures $p = \sum_a \pi_a p_a$ and $q = \sum_b \omega_b q_b$ in closed form.

    The upper bound is the least of

    $$ \sum_{ab} \pi_a \omega_b KL(p_a \| q_b), \qquad
       \min_{\varphi, \psi} \sum_{ab} \varphi_{ab} \Bigl[\log\frac{\varphi_{ab}}{\psi_{ab}} + KL(p_a \| q_b)\Bigr] $$

    over $\sum_b \varphi_{ab} = \pi_a$, $\sum_a \psi_{ab} = \omega_b$ (30 alternating steps; a bound after any), and,
    for as many components on both sides, the same with $p_a$ matched to $q_a$, which is 0 for equal mixtures, but not
    for equal ones whose components are in another order, unless these are far apart. The lower bound is the
    largest of 0, of $-2 \log \sum_{ab} \sqrt{\pi_a \omega_b} \int \sqrt{p_a q_b}$ and of

    $$ \sum_a \pi_a \Bigl[ \ell_a + \log \sum_\alpha \pi_\alpha e^{-KL(p_a \| p_\alpha)} \Bigr],
       \qquad \ell_a \le KL(p_a \| q), $$

    with $\ell_a$ the largest of 0, $-2 \log \sum_b \sqrt{\omega_b} \int \sqrt{p_a q_b}$, for normal components
    $\int p_a \log p_a - \log \sum_b \omega_b \int p_a q_b$, and the KL itself where q is no mixture. Where neither
    integral has a closed form and q is a mixture, 0 is all there is.

    The components' KL must be known (`vk.divergences.table()`); what is no mixture counts as one of one component,
    and two of those have both bounds equal to their KL. Differentiable; each bound's gradient is that of a bound, and
    NaN to parameters of components whose KL is infinite.

    Args:
        p: the distribution the mean is taken over, as `vk.kl_divergence` takes them.
        q: the other one; batch shapes broadcast, event shapes are equal.

    Returns:
        lower ≤ KL(p‖q) ≤ upper in nats up to rounding, one pair an entry of the batch. NaN where traced parameters
        are out of range.

    Raises:
        TypeError: where p or q is no distribution.
        ValueError: where event shapes differ or parameters are out of range.
        NotImplementedError: where the KL between components has no closed form.

    Source:
        John R. Hershey and Peder A. Olsen, Approximating the Kullback Leibler divergence between Gaussian mixture
        models (2007), https://doi.org/10.1109/ICASSP.2007.366913; J.-L. Durrieu, J.-Ph. Thiran and F. Kelly, Lower
        and upper bounds for approximation of the Kullback-Leibler divergence between Gaussian mixture models (2012),
        https://doi.org/10.1109/ICASSP.2012.6289001

    Example:
        >>> import jax.numpy as jnp, vi_kit as vk
        >>> from vi_kit.divergences.distributions import Mixture, Normal
        >>> p = Mixture(jnp.zeros(2), Normal(jnp.array([-2.0, 2.0]), jnp.ones(2)))
        >>> lower, upper = vk.kl_bounds(p, Normal(0.0, 2.0))
        >>> print(f"{lower:.3f} <= {vk.quadrature_kl(p, Normal(0.0, 2.0)).value:.3f} <= {upper:.3f}")
        0.125 <= 0.185 <= 0.818
    """
    first, second = prepare("kl_bounds", p, q)
    try:
        found: Bounds = (_bounds if holds_opaque(first, second) else _jitted)(first, second)
    except NoClosedForm as error:
        raise refuse_no_closed_form("kl_bounds", p, q, error) from None
    refuse_bad_parameters("kl_bounds", first, second, found.upper)
    return found


def _bounds(p: Distribution, q: Distribution) -> Bounds:
    """Return the bounds for two families with parameters: what `kl_bounds` compiles."""
    batch = np.broadcast_shapes(p.batch_shape, q.batch_shape)
    (log_p, p_parts), (log_q, q_parts) = _as_mixture(p, batch), _as_mixture(q, batch)
    rows, columns = _with_axis(p_parts, len(batch) + 1), _with_axis(q_parts, len(batch))
    divergence = kl_of_families(rows, columns)
    # Known only for parameters in common: +inf is a bound all the same.
    known = ~jnp.isnan(divergence)
    upper = _upper(log_p, log_q, jnp.where(known, divergence, jnp.inf))
    exact = jnp.where(known, divergence, jnp.zeros_like(divergence))[..., 0] if divergence.shape[-1] == 1 else None
    lower = jnp.minimum(_lower(log_p, log_q, p_parts, rows, columns, exact), upper)
    valid = jnp.broadcast_to(p.is_valid(), batch) & jnp.broadcast_to(q.is_valid(), batch)
    lower, upper = (infinite_where(jnp.isinf(bound), bound) for bound in (lower, upper))
    return Bounds(jnp.where(valid, lower, jnp.nan), jnp.where(valid, upper, jnp.nan))


_jitted = jax.jit(_bounds)


def _as_mixture(value: Distribution, batch: tuple[int, ...]) -> tuple[Array, Distribution]:
    """Return log weights, components in the last axis, and the components."""
    value = value.broadcast_to(batch)
    if isinstance(value, Mixture):
        return jax.nn.log_softmax(value.logits, axis=-1), value.base
    dtype = jnp.result_type(*jax.tree.leaves(value))
    return jnp.zeros((*batch, 1), dtype), _with_axis(value, len(batch))


def _with_axis(value: Distribution, position: int) -> Distribution:
    """Insert an axis of length 1 in the batch, where every parameter has the whole batch."""
    whole = value.broadcast_to(value.batch_shape)
    found: Distribution = jax.tree.map(lambda leaf: jnp.expand_dims(leaf, position), whole)
    return found


def _weighted(log_weights: Array, values: Array) -> Array:
    """Return the sum of the values, infinite ones too, with weights that may be 0."""
    finite = values < jnp.inf
    lost = jnp.any((log_weights > -jnp.inf) & ~finite, axis=-1)
    total = jnp.sum(jnp.exp(log_weights) * jnp.where(finite, values, jnp.zeros_like(values)), axis=-1)
    return jnp.where(lost, jnp.inf, total)


def _log_mean(log_weights: Array, values: Array) -> Array:
    """Return log Σ w e^v over the last axis; −∞ where there is nothing."""
    total = log_weights + values
    some = jnp.any(total > -jnp.inf, axis=-1, keepdims=True)
    found = jax.nn.logsumexp(jnp.where(some, total, jnp.zeros_like(total)), axis=-1)
    return jnp.where(some[..., 0], found, -jnp.inf)


# --- above -----------------------------------------------------------------------------------------------------------


def _upper(log_p: Array, log_q: Array, divergence: Array) -> Array:
    convex = _weighted(log_p, _weighted(jnp.broadcast_to(log_q[..., None, :], divergence.shape), divergence))
    bounds = [convex, _variational(log_p, log_q, divergence)]
    if divergence.shape[-2] == divergence.shape[-1]:
        matched = jnp.diagonal(divergence, axis1=-2, axis2=-1)
        bounds.append(_joint(log_p, log_q, matched))
    return jnp.min(jnp.stack(bounds), axis=0)


def _joint(log_p: Array, log_q: Array, divergence: Array) -> Array:
    """Return Σ p [log(p/q) + KL] for two joint weights, each term at least 0."""
    some = (log_p > -jnp.inf) & (log_q > -jnp.inf)
    none = jnp.zeros_like(log_p)
    ratio = jnp.where(some, log_q, none) - jnp.where(some, log_p, none)
    far = ratio > 1
    terms = jnp.where(
        far, jnp.exp(jnp.where(far, log_q, none)) - jnp.exp(jnp.where(far, log_p, none)) * (1 + ratio), none
    )
    near = jnp.exp(jnp.where(some, log_p, none)) * expm1_minus(jnp.where(far, none, ratio))
    weights = jnp.where(some, jnp.where(far, terms, near), jnp.exp(log_q))
    lost = (log_p > -jnp.inf) & (log_q == -jnp.inf)
    return jnp.sum(jnp.where(lost, jnp.inf, weights), axis=-1) + _weighted(log_p, divergence)


def _variational(log_p: Array, log_q: Array, divergence: Array) -> Array:
    shape = divergence.shape
    log_rows = jnp.broadcast_to(log_p[..., :, None], shape)
    log_columns = jnp.broadcast_to(log_q[..., None, :], shape)
    # Finite, so that a row with nothing but infinities is no NaN: its weights do not matter.
    cost = jax.lax.stop_gradient(jnp.minimum(divergence, 1e30))
    held_rows, held_columns = jax.lax.stop_gradient((log_rows, log_columns))

    def split(logs: Array, axis: int) -> Array:
        """Return conditional weights along an axis."""
        safe = jnp.maximum(logs, -1e35)
        return safe - jax.nn.logsumexp(safe, axis=axis, keepdims=True)

    def step(_: Any, within_column: Array) -> Array:
        within_row = split(held_columns + within_column - cost, -1)
        return split(held_rows + within_row, -2)

    start = split(held_rows, -2)
    within_column = jax.lax.stop_gradient(jax.lax.fori_loop(0, ITERATIONS, step, start))
    within_row = split(held_columns + within_column - cost, -1)

    def joint(logs: Array, within: Array) -> Array:
        total = logs + within
        return jnp.where(total > -1e4, total, -jnp.inf).reshape((*shape[:-2], -1))

    first, second = joint(log_rows, within_row), joint(log_columns, within_column)
    # A weight is left out on both sides or, where only the second one is 0, moved to where it is not.
    return _joint(
        first, jnp.where(first == -jnp.inf, second, jnp.maximum(second, -1e4)), divergence.reshape(first.shape)
    )


# --- below -----------------------------------------------------------------------------------------------------------


def _lower(
    log_p: Array, log_q: Array, p_parts: Distribution, rows: Distribution, columns: Distribution, exact: Array | None
) -> Array:
    shape = (*log_p.shape, log_q.shape[-1])
    log_columns = jnp.broadcast_to(log_q[..., None, :], shape)
    parts = jnp.zeros_like(log_p) if exact is None else exact  # at most KL(p_a‖q)
    whole = jnp.zeros_like(log_p[..., 0])
    for order in ORDERS:
        weight = 1 - order
        try:
            found = -weight * renyi_of_families(rows, columns, order)  # log ∫ p^order q^weight
        except NoClosedForm:
            break
        found = jnp.where(jnp.isnan(found), jnp.zeros_like(found), found)  # not known: it is at most 0
        for_parts = _log_mean(weight * log_columns, found)
        if exact is None:
            parts = jnp.maximum(parts, -for_parts / weight)
        whole = jnp.maximum(whole, -_log_mean(order * log_p, for_parts) / weight)
    if exact is None:
        try:
            overlap = compare(rows, columns, OVERLAP, lambda a, b: None, {(Independent, Independent): independent})
        except NoClosedForm:
            pass
        else:
            parts = jnp.maximum(parts, -_log_mean(log_columns, -overlap))
    position = log_p.ndim - 1
    itself = jnp.broadcast_to(jnp.eye(log_p.shape[-1], dtype=bool), (*log_p.shape, log_p.shape[-1]))
    try:
        within = kl_of_families(_with_axis(p_parts, position + 1), _with_axis(p_parts, position))
    except NoClosedForm:
        within = jnp.full(itself.shape, jnp.inf, log_p.dtype)
    # Where one is not known it is left out of the sum, which can only make that smaller.
    within = jnp.where(itself, jnp.zeros_like(within), jnp.where(jnp.isnan(within), jnp.inf, within))
    spread = _log_mean(jnp.broadcast_to(log_p[..., None, :], within.shape), -within)
    return jnp.maximum(whole, _weighted(log_p, parts + spread))


def _normal_overlap(p: Normal, q: Normal) -> Array:
    """Return ∫ p log p − log ∫ p q."""
    variance = p.scale * p.scale + q.scale * q.scale
    shift = p.loc - q.loc
    return 0.5 * (jnp.log1p(jnp.square(q.scale / p.scale)) - 1 + shift * shift / variance)


def _multivariate_overlap(p: MultivariateNormal, q: MultivariateNormal) -> Array:
    """Return ∫ p log p − log ∫ p q, from the Cholesky factor of the sum of both covariances in units of p."""
    lower = jnp.tril(p.scale_tril)
    right = jnp.concatenate([jnp.tril(q.scale_tril), (p.loc - q.loc)[..., None]], axis=-1)
    solved = jax.lax.linalg.triangular_solve(lower, right, left_side=True, lower=True)
    factor, shift = solved[..., :-1], solved[..., -1:]
    size = factor.shape[-1]
    outer = jnp.matmul(factor, jnp.swapaxes(factor, -1, -2), precision=jax.lax.Precision.HIGHEST)
    total = jnp.linalg.cholesky(outer + jnp.broadcast_to(jnp.eye(size, dtype=outer.dtype), outer.shape))
    whitened = jax.lax.linalg.triangular_solve(total, shift, left_side=True, lower=True)
    log_determinant = 2 * jnp.sum(jnp.log(jnp.diagonal(total, axis1=-2, axis2=-1)), axis=-1)
    return 0.5 * (log_determinant - size + jnp.sum(whitened * whitened, axis=(-2, -1)))


OVERLAP: tuple[Rule, ...] = (
    Rule(Normal, Normal, _normal_overlap, "∫ p log p − log ∫ p q"),
    Rule(MultivariateNormal, MultivariateNormal, _multivariate_overlap, "∫ p log p − log ∫ p q"),
)
