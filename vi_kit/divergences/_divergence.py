"""Divergences other than KL between distributions, in closed form."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vi_kit import kl
from vi_kit.divergences import _kinds as kinds
from vi_kit.divergences import _renyi as renyi
from vi_kit.divergences import distributions as d
from vi_kit.divergences._compare import compare
from vi_kit.divergences._door import prepare, refuse_bad_parameters, refuse_no_closed_form
from vi_kit.divergences._kl import kl_divergence, kl_of_families
from vi_kit.divergences._rules import NoClosedForm, Rule
from vi_kit.divergences._structure import STRUCTURES, Structure
from vi_kit.divergences._support import nan_unless_valid


def divergence(p: Any, q: Any, kind: kinds.Kind) -> Float[Array, "..."]:
    r"""A divergence of p from q in closed form.

    Rényi's $\frac{1}{\alpha - 1} \log \int p^\alpha q^{1-\alpha}$ is known within exponential families; α-divergences,
    χ², Hellinger and Bhattacharyya follow from it. Jeffreys is known where KL is, both ways; Jensen–Shannon and total
    variation between classes, total variation also between normals of equal scale and between uniforms.

    Args:
        p: a distribution of distrax, TensorFlow Probability or NumPyro, or a family with parameters.
        q: the other one; batch shapes broadcast, event shapes are equal.
        kind: `vk.divergences.Renyi(0.5)`, `Hellinger()`, `ChiSquare()`, `JensenShannon()` or another.

    Returns:
        the divergence, one value an entry of the batch; in nats where it is logarithmic. +inf where an integral
        diverges (χ² and orders above 1 where q's tails are too light).

    Raises:
        TypeError: where p or q is no distribution, or kind no divergence.
        ValueError: where event shapes differ or parameters are out of range.
        NotImplementedError: when the pair has no closed form; nothing is estimated instead.

    Source:
        M. Gil, F. Alajaji and T. Linder, Rényi divergence measures for commonly used univariate continuous
        distributions (2013), https://doi.org/10.1016/j.ins.2013.06.018

    Example:
        >>> import vi_kit as vk
        >>> from vi_kit.divergences.distributions import Normal
        >>> p, q = Normal(0.0, 1.0), Normal(1.0, 1.0)
        >>> float(vk.divergence(p, q, vk.divergences.Renyi(0.5)))
        0.25
    """
    if isinstance(kind, type) or not isinstance(kind, kinds.Kind):
        hint = f"; write {kind.__name__}(…)" if isinstance(kind, type) else ""
        raise TypeError(f"kind: expected a divergence such as vk.divergences.Renyi(0.5), got {kind!r}{hint}")
    if isinstance(kind, kinds.KullbackLeibler) or getattr(kind, "alpha", None) == 1:
        return kl_divergence(p, q)
    if isinstance(kind, kinds.ReverseKullbackLeibler):
        return kl_divergence(q, p)
    if isinstance(kind, kinds.Jeffreys):
        return kl_divergence(p, q) + kl_divergence(q, p)
    first, second = prepare("divergence", p, q)
    try:
        value: Array = _jitted(first, second, kind)
        refuse_bad_parameters("divergence", first, second, value, lambda a, b: divergence_of_families(a, b, kind))
    except NoClosedForm as error:
        raise refuse_no_closed_form("divergence", p, q, error, kind) from None
    return value


@partial(jax.jit, static_argnames="kind")
def _jitted(p: d.Distribution, q: d.Distribution, kind: kinds.Kind) -> Array:
    return divergence_of_families(p, q, kind)


def divergence_of_families(p: d.Distribution, q: d.Distribution, kind: kinds.Kind) -> Array:
    """Return a divergence between two families with parameters: what `divergence` compiles."""
    function = CLOSED_FORMS.get(type(kind))
    if function is None:
        raise NoClosedForm(f"a {type(kind).__name__} is only estimated")
    return nan_unless_valid(function(p, q, kind), p, q)


def renyi_of_families(p: d.Distribution, q: d.Distribution, alpha: float) -> Array:
    """Return the Rényi divergence between two families with parameters."""
    if alpha == 1:
        return kl_of_families(p, q)
    return compare(p, q, renyi.rules(alpha), lambda a, b: None)


def _chi_square(p: d.Distribution, q: d.Distribution, _: Any) -> Array:
    return jnp.expm1(renyi_of_families(p, q, 2.0))


def _hellinger(p: d.Distribution, q: d.Distribution, _: Any) -> Array:
    return -jnp.expm1(-0.5 * renyi_of_families(p, q, 0.5))


def _bhattacharyya(p: d.Distribution, q: d.Distribution, _: Any) -> Array:
    return 0.5 * renyi_of_families(p, q, 0.5)


def _alpha(p: d.Distribution, q: d.Distribution, kind: kinds.Alpha) -> Array:
    excess = kind.alpha - 1
    return jnp.expm1(excess * renyi_of_families(p, q, kind.alpha)) / (kind.alpha * excess)


# Not sums over independent parts: only what leaves the events as they are is taken off.
_NOT_ADDITIVE: dict[tuple[type[d.Distribution], type[d.Distribution]], Structure] = {
    (d.Transformed, d.Transformed): STRUCTURES[d.Transformed, d.Transformed]
}


def _by_rows(rules: tuple[Rule, ...]) -> Callable[[d.Distribution, d.Distribution, Any], Array]:
    return lambda p, q, _: compare(p, q, rules, lambda a, b: None, structures=_NOT_ADDITIVE)


def _classes_jensen_shannon(p: Any, q: Any) -> Array:
    return kl.jensen_shannon(renyi.class_logits(p), renyi.class_logits(q))


def _binary_jensen_shannon(p: d.Bernoulli, q: d.Bernoulli) -> Array:
    return kl.jensen_shannon(renyi.binary_logits(p), renyi.binary_logits(q))


def _classes_total_variation(p: Any, q: Any) -> Array:
    return kl.total_variation(renyi.class_logits(p), renyi.class_logits(q))


def _binary_total_variation(p: d.Bernoulli, q: d.Bernoulli) -> Array:
    return kl.total_variation(renyi.binary_logits(p), renyi.binary_logits(q))


def _normal_total_variation(p: d.Normal, q: d.Normal) -> Array:
    return jax.scipy.special.erf(jnp.abs(p.loc - q.loc) / (q.scale * 8**0.5))


def _laplace_total_variation(p: d.Laplace, q: d.Laplace) -> Array:
    return -jnp.expm1(-jnp.abs(p.loc - q.loc) / (2 * q.scale))


def _uniform_total_variation(p: d.Uniform, q: d.Uniform) -> Array:
    common = jnp.maximum(jnp.minimum(p.high, q.high) - jnp.maximum(p.low, q.low), 0)
    return 1 - common / jnp.maximum(p.high - p.low, q.high - q.low)


JENSEN_SHANNON: tuple[Rule, ...] = (
    Rule(d.Categorical, d.Categorical, _classes_jensen_shannon, "½ KL(p‖m) + ½ KL(q‖m), m = (p + q) / 2"),
    Rule(d.OneHotCategorical, d.OneHotCategorical, _classes_jensen_shannon, "as Categorical"),
    Rule(d.Bernoulli, d.Bernoulli, _binary_jensen_shannon, "as Categorical with two classes"),
)
TOTAL_VARIATION: tuple[Rule, ...] = (
    Rule(d.Categorical, d.Categorical, _classes_total_variation, "½ Σ |p − q|"),
    Rule(d.OneHotCategorical, d.OneHotCategorical, _classes_total_variation, "½ Σ |p − q|"),
    Rule(d.Bernoulli, d.Bernoulli, _binary_total_variation, "|p − q|"),
    Rule(d.Normal, d.Normal, _normal_total_variation, "erf(|Δm| / (√8 s))", ("scale",)),
    Rule(d.Laplace, d.Laplace, _laplace_total_variation, "1 − e^{−|Δm| / 2s}", ("scale",)),
    Rule(d.Uniform, d.Uniform, _uniform_total_variation, "1 − common length / larger length"),
)

CLOSED_FORMS: dict[type, Callable[[d.Distribution, d.Distribution, Any], Array]] = {
    kinds.Renyi: lambda p, q, kind: renyi_of_families(p, q, kind.alpha),
    kinds.ChiSquare: _chi_square,
    kinds.Hellinger: _hellinger,
    kinds.Bhattacharyya: _bhattacharyya,
    kinds.Alpha: _alpha,
    kinds.JensenShannon: _by_rows(JENSEN_SHANNON),
    kinds.TotalVariation: _by_rows(TOTAL_VARIATION),
}
