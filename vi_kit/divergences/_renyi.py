"""Rényi divergences in closed form, from which χ², Hellinger, Bhattacharyya and α-divergences follow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vi_kit import kl
from vi_kit.divergences import distributions as d
from vi_kit.divergences._geometric import PATHS, Between
from vi_kit.divergences._rules import Rule
from vi_kit.divergences._table import RULES
from vi_kit.kl._compensated import expm1_minus, log_ratio
from vi_kit.kl._low_rank import excess


def rules(alpha: float) -> tuple[Rule, ...]:
    """Return the table of Rényi divergences of order α ≠ 1."""
    known = {(rule.p, rule.q): rule.function for rule in RULES}
    between = [
        Rule(family, family, _exponential_family(path, known[family, family], alpha), _FORMULA, shared)
        for family, (path, shared) in PATHS.items()
        if (family, family) in known
    ]
    direct = [
        Rule(family, family, partial(function, alpha=alpha), formula, shared)
        for family, (function, formula, shared) in DIRECT.items()
    ]
    return (*direct, *between)


_FORMULA = "[α KL(m‖p) + (1 − α) KL(m‖q)] / (1 − α), m ∝ p^α q^{1−α} in the same family"


def _exponential_family(path: Between, rule: Callable[[Any, Any], Array], alpha: float) -> Callable[[Any, Any], Array]:
    """Return the Rényi divergence within an exponential family, from the KL to the member between."""

    def combine(m: Any, p: Any, q: Any) -> Array:
        return rule(m, q) + alpha / (1 - alpha) * rule(m, p)

    def value(p: Any, q: Any) -> Array:
        m, exists = path(p, q, alpha)
        # m minimizes α KL(m‖p) + (1 − α) KL(m‖q): its own derivative is 0, and computing it would only add rounding.
        found = _at_minimum(combine, m, p, q)
        return jnp.where(exists, found, jnp.full_like(found, jnp.inf))

    return value


def _at_minimum(combine: Callable[[Any, Any, Any], Array], m: Any, p: Any, q: Any) -> Array:
    """Return combine(m, p, q), whose first derivative by m is known to be 0."""

    @jax.custom_jvp
    def evaluate(m: Any, p: Any, q: Any) -> Array:
        return combine(m, p, q)

    @evaluate.defjvp
    def _jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
        m, p, q = primals
        # m is a constant here and an input of the enclosing function: second derivatives see it move.
        return jax.jvp(lambda p, q: combine(m, p, q), (p, q), tuple(tangents[1:]))

    return evaluate(m, p, q)


def normal(p: d.Normal, q: d.Normal, alpha: float) -> Array:
    """Return ½[α (Δm/s)² + log(s² / (s_p^{2(1−α)} s_q^{2α})) / (1 − α)] with s² = α s_q² + (1 − α) s_p²."""
    log_scales, weight = 2 * log_ratio(p.scale, q.scale), 1 - alpha
    moved = weight * jnp.expm1(log_scales)
    exists = moved > -1
    safe = jnp.where(exists, moved, jnp.zeros_like(moved))
    shift = (p.loc - q.loc) / q.scale
    gap = expm1_minus(log_scales) - _minus_log1p(safe) / weight
    value = 0.5 * (alpha * shift * shift / (1 + safe) + gap)
    return jnp.where(exists, value, jnp.full_like(value, jnp.inf))


def _minus_log1p(x: Array) -> Array:
    """Return x − log(1 + x) ≥ 0 without cancellation."""
    return expm1_minus(jnp.log1p(x))


def multivariate_normal(p: d.MultivariateNormal, q: d.MultivariateNormal, alpha: float) -> Array:
    """Return the same in q's units: covariances I + E of p and I + (1 − α) E between."""
    weight = 1 - alpha
    p_lower, q_lower = jnp.tril(p.scale_tril), jnp.tril(q.scale_tril)
    right = jnp.concatenate([p_lower - q_lower, (p.loc - q.loc)[..., None]], axis=-1)
    solved = jax.lax.linalg.triangular_solve(q_lower, right, left_side=True, lower=True)
    shifted, shift = solved[..., :-1], solved[..., -1:]
    turned = jnp.swapaxes(shifted, -1, -2)
    gap = shifted + turned + jnp.matmul(shifted, turned, precision=jax.lax.Precision.HIGHEST)
    eye = jnp.broadcast_to(jnp.eye(gap.shape[-1], dtype=gap.dtype), gap.shape)
    exists = jnp.all(jnp.isfinite(jnp.linalg.cholesky(eye + weight * gap)), axis=(-2, -1))
    safe = jnp.where(exists[..., None, None] | jnp.zeros(gap.shape, bool), gap, jnp.zeros_like(gap))
    lower = jnp.linalg.cholesky(eye + weight * safe)
    whitened = jax.lax.linalg.triangular_solve(lower, shift, left_side=True, lower=True)
    quadratic = alpha * jnp.sum(whitened * whitened, axis=(-2, -1))
    value = 0.5 * (quadratic + excess(safe) - excess(weight * safe) / weight)
    return jnp.where(exists, value, jnp.full_like(value, jnp.inf))


def uniform(p: d.Uniform, q: d.Uniform, alpha: float) -> Array:
    """Return the logarithms of the lengths of both and of what they have in common."""
    low, high = jnp.maximum(p.low, q.low), jnp.minimum(p.high, q.high)
    common = high - low
    overlap = common > 0
    common = jnp.where(overlap, common, jnp.ones_like(common))
    p_width, q_width = p.high - p.low, q.high - q.low
    value = log_ratio(q_width, p_width) + log_ratio(common, p_width) / (alpha - 1)
    inside = (p.low >= q.low) & (p.high <= q.high)
    finite = inside if alpha > 1 else overlap
    return jnp.where(finite, value, jnp.full_like(value, jnp.inf))


def class_logits(x: Any) -> Array:
    if x.logits is not None:
        return x.logits  # type: ignore[no-any-return]
    some = x.probs > 0
    return jnp.where(some, jnp.log(jnp.where(some, x.probs, jnp.ones_like(x.probs))), -jnp.inf)


def binary_logits(x: Any) -> Array:
    """Return the logits of failure and success in a last axis."""
    if x.logits is not None:
        return jnp.stack([jnp.zeros_like(x.logits), x.logits], axis=-1)
    return class_logits(d.Categorical(probs=jnp.stack([1 - x.probs, x.probs], axis=-1)))


def categorical(p: Any, q: Any, alpha: float) -> Array:
    """Return the Rényi divergence between classes."""
    return kl.renyi(class_logits(p), class_logits(q), alpha=alpha)


def multinomial(p: d.Multinomial, q: d.Multinomial, alpha: float) -> Array:
    """Return that of one draw, as often as there are draws."""
    return q.total_count * categorical(p, q, alpha)


def bernoulli(p: Any, q: Any, alpha: float) -> Array:
    """Return that of two classes."""
    return kl.renyi(binary_logits(p), binary_logits(q), alpha=alpha)


def binomial(p: d.Binomial, q: d.Binomial, alpha: float) -> Array:
    """Return that of one trial, as often as there are trials."""
    return q.total_count * bernoulli(p, q, alpha)


_DIRECT = Callable[..., Array]
_CLASSES = "log(Σ p^α q^{1−α}) / (α − 1)"
DIRECT: dict[type[d.Distribution], tuple[_DIRECT, str, tuple[str, ...]]] = {
    d.Normal: (normal, "½[α (Δm/s)² + log(s²/(s_p^{2(1−α)} s_q^{2α}))/(1−α)], s² = α s_q² + (1−α) s_p²", ()),
    d.MultivariateNormal: (multivariate_normal, "as for normals, s² a covariance", ()),
    d.Uniform: (uniform, "from the lengths of both and of what they have in common", ()),
    d.Categorical: (categorical, _CLASSES, ()),
    d.OneHotCategorical: (categorical, _CLASSES, ()),
    d.Bernoulli: (bernoulli, _CLASSES, ()),
    d.Binomial: (binomial, "n times that of one trial", ("total_count",)),
    d.Multinomial: (multinomial, "n times that of one draw", ("total_count",)),
}
