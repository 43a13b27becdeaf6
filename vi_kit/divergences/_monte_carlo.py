"""Divergences estimated from draws, with standard errors and unbiased gradients, in memory that does not grow."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit import kl
from vi_kit._estimate import Estimate
from vi_kit._types import KeyArray, check_count, check_key
from vi_kit.divergences import _kinds as kinds
from vi_kit.divergences._arguments import Skeleton, pack, unpack
from vi_kit.divergences._blocks import Problem, average, set_up, surrogate
from vi_kit.divergences._common_support import has_jumps, is_excluded, moves, share_a_fixed_support
from vi_kit.divergences._door import name_of, prepare, refuse_bad_parameters
from vi_kit.divergences._draws import Draws, Importance
from vi_kit.divergences._sampling import (
    as_the_libraries_expect,
    batch_shape_of,
    carries_gradient,
    family_of,
    obstacles,
)
from vi_kit.divergences._support import infinite, without_gradient
from vi_kit.divergences.distributions import Opaque

_NO_GRADIENT = (
    "{name}: expected a density whose ends no parameter moves, to differentiate by its parameters, got a {kind}: draws "
    "do not see what its ends add where they move; gradient=kl.none, or jax.lax.stop_gradient of its parameters, "
    "leaves them out"
)
_GRADIENTS = (None, kl.pathwise, kl.score, kl.none)


def estimate_kl(
    key: KeyArray,
    p: Any,
    q: Any,
    *,
    num_samples: int,
    gradient: Any = None,
    draws: Draws | None = None,
    block_size: int | None = None,
) -> Estimate:
    r"""KL(p‖q) from draws of p, with its standard error: for where there is no closed form.

    $$ KL(p \| q) = E_p[r + c\,(e^{-r} - 1)], \quad r = \log p(x) - \log q(x) $$

    The control variate has mean 0 where p > 0 wherever q > 0, and is used only where the families say so; then nearly
    equal p and q keep their digits. c is fitted on one half of the draws and used on the other, and 0 unless q/p is
    well-behaved there: no bias. Both densities must be normalized.

    Gradients to the parameters of p and q are unbiased. Those of p are pathwise where draws are differentiable, by
    score function with a baseline from the other half elsewhere (Bernoulli, the choice of a mixture's component), part
    by part in joint distributions. First derivatives only. Where a density jumps inside the other's support (a mixture
    of components that end at different places) there is no such estimate: the gradient is NaN.

    Draws are made in blocks: memory depends on the block, not on num_samples, with a gradient too. Other parameters
    of the same kind of objects compile nothing new.

    Args:
        key: a typed key, `jax.random.key(seed)`.
        p: a distribution of distrax, TensorFlow Probability or NumPyro, or any object with `sample` and `log_prob`.
        q: any such object, of the same or another library; `log_prob` is enough. Batch shapes broadcast.
        num_samples: number of draws from p, at least 2, for each entry of the batch; rounded up to whole pairs,
            rounds or replicates by some `draws`.
        gradient: None (as each part allows), `kl.pathwise` (refused where it would be biased), `kl.score`, or
            `kl.none`.
        draws: `vk.divergences.Plain()`, `Antithetic()`, `Stratified()`, `QuasiMonteCarlo()` or
            `Importance(proposal)`; None: stratified over the components of a mixture, else plain.
        block_size: draws of a block; None: up to 4096, fewer for large events.

    Returns:
        value in nats, +inf where q is 0 at a draw (or always is somewhere in p's support); its standard error, for a
        finite variance; num_effective, how many plain draws would do as well, or (Σw)²/Σw² of importance weights.
        One value an entry of the batch.

    Raises:
        TypeError: for a raw `PRNGKey` array, what is no distribution, or an object without a sampler.
        ValueError: for events that differ, fewer than 2 draws, or a pathwise gradient that would be biased.
        NotImplementedError: where `draws` cannot be made of this distribution.

    Source:
        J. Schulman, Approximating KL Divergence (2020), http://joschu.net/blog/kl-approx.html
        G. Roeder, Y. Wu and D. Duvenaud, Sticking the Landing (2017), https://arxiv.org/abs/1703.09194

    Example:
        >>> import distrax, jax, vi_kit as vk
        >>> p, q = distrax.Normal(0.0, 1.0), distrax.Laplace(0.0, 1.0)
        >>> estimate = vk.estimate_kl(jax.random.key(0), p, q, num_samples=10_000)
        >>> print(f"{estimate.value:.3f} ± {estimate.standard_error:.3f}")  # exactly 0.072
        0.073 ± 0.003
    """
    return _estimate(key, p, q, None, num_samples, gradient, draws, block_size)


def estimate_divergence(
    key: KeyArray,
    p: Any,
    q: Any,
    kind: kinds.Kind,
    *,
    num_samples: int,
    gradient: Any = None,
    draws: Draws | None = None,
    block_size: int | None = None,
) -> Estimate:
    r"""A divergence of p from q from draws of both, with its standard error.

    $$ E_q[f(p/q)] = E_m\left[\frac{q}{m} f(p/q)\right], \quad m = \tfrac12 (p + q) $$

    Half of the draws come from p and half from q, so that no weight is above 2. Where nearly all of a divergence is in
    tails that neither draws from (χ², orders far above 1), its variance is infinite all the same. `KullbackLeibler()`
    and its reverse are `estimate_kl`.

    Args:
        key: a typed key, `jax.random.key(seed)`.
        p: a distribution as `estimate_kl` takes it.
        q: the other one, to be drawn from as well.
        kind: `vk.divergences.Renyi(0.5)`, `Hellinger()`, `JensenShannon()`, …, or an `FDivergence`.
        num_samples: number of draws, of both together.
        gradient: as in `estimate_kl`, for draws of p and of q; where p and q have not the same support, None takes the
            score function, and a gradient by parameters that move one (a Uniform's) is refused.
        draws: as in `estimate_kl`.
        block_size: as in `estimate_kl`.

    Returns:
        value, in nats where it is logarithmic; its standard error, through a monotone function (Rényi) by the delta
        method, where the value has a bias of order 1/num_samples; num_effective. One value an entry of the batch.

    Raises:
        TypeError: as `estimate_kl`, and where kind is no divergence.
        ValueError: as `estimate_kl`.
        NotImplementedError: as `estimate_kl`.

    Example:
        >>> import distrax, jax, vi_kit as vk
        >>> p, q = distrax.Normal(0.0, 1.0), distrax.Laplace(0.0, 1.0)
        >>> estimate = vk.estimate_divergence(
        ...     jax.random.key(0), p, q, vk.divergences.JensenShannon(), num_samples=10_000
        ... )
        >>> print(f"{estimate.value:.4f} ± {estimate.standard_error:.4f}")
        0.0210 ± 0.0008
    """
    if isinstance(kind, type) or not isinstance(kind, kinds.Kind):
        hint = f"; write {kind.__name__}(…)" if isinstance(kind, type) else ""
        raise TypeError(f"kind: expected a divergence such as vk.divergences.Renyi(0.5), got {kind!r}{hint}")
    if isinstance(kind, kinds.KullbackLeibler) or getattr(kind, "alpha", None) == 1:
        return _estimate(key, p, q, None, num_samples, gradient, draws, block_size)
    if isinstance(kind, kinds.ReverseKullbackLeibler):
        return _estimate(key, q, p, None, num_samples, gradient, draws, block_size)
    return _estimate(key, p, q, kind, num_samples, gradient, draws, block_size)


def _estimate(
    key: Any, p: Any, q: Any, kind: Any, num_samples: Any, gradient: Any, draws: Any, block_size: Any
) -> Estimate:
    check_key(key)
    check_count("num_samples", num_samples, least=2)
    if block_size is not None:
        check_count("block_size", block_size)
    _check_distributions(p, q)
    _check_draws(draws)
    drawn_from = {"p": p} | ({} if kind is None else {"q": q})
    if isinstance(draws, Importance):
        drawn_from = {"draws.proposal": draws.proposal}
        wanted, got = (getattr(x, "event_shape", None) for x in (p, draws.proposal))
        if None not in (wanted, got) and str(wanted) != str(got):
            raise ValueError(f"draws.proposal: expected events of shape {wanted} as p has, got {got}")
    for name, x in {"p": p, "q": q, **drawn_from}.items():
        if not hasattr(x, "log_prob") or (name in drawn_from and not hasattr(x, "sample")):
            raise TypeError(
                f"{name}: expected a distribution object with sample and log_prob, got a {name_of(x)}; "
                "those of distrax, TensorFlow Probability and NumPyro have both"
            )
    _check_gradient(gradient, {} if isinstance(draws, Importance) else drawn_from, draws)
    plan, objects = draws, [p, q]
    if isinstance(draws, Importance):
        plan, objects = Importance(None), [p, q, draws.proposal]
    arrays, skeleton = pack(objects)
    with as_the_libraries_expect():  # here too: a derivative of the program is taken as it is called
        result: Estimate = _compiled(arrays, key, skeleton, plan, kind, gradient, int(num_samples), block_size)
    refuse_bad_parameters("estimate_kl", family_of(p), family_of(q), jnp.asarray(result.value))
    return result


def _has_edges(p: Any, q: Any, kind: Any) -> bool:
    """Tell whether a density ends or jumps where draws of the other, or of itself, go on."""
    unlike = kind is not None and not share_a_fixed_support(p, q)
    return unlike or has_jumps(p) or has_jumps(q)


def _check_distributions(p: Any, q: Any) -> None:
    objects = [x for x in (p, q) if hasattr(x, "log_prob") and not isinstance(x, type)]
    if len(objects) < 2 or not any(isinstance(family_of(x), Opaque) for x in objects):
        prepare("estimate_kl", p, q)
        return
    shapes = [getattr(x, "event_shape", None) for x in objects]
    shapes = [s if s is None or isinstance(s, dict) else tuple(s) for s in shapes]
    if None not in shapes and str(shapes[0]) != str(shapes[1]) and not any(map(_has_parts, shapes)):
        raise ValueError(f"q: expected events of shape {shapes[0]} as p has, got {shapes[1]}")
    batches = [batch_shape_of(x, family_of(x)) for x in objects]
    try:
        np.broadcast_shapes(*batches)
    except ValueError:
        raise ValueError(
            f"q: expected a batch shape that broadcasts with {batches[0]} of p, got {batches[1]}"
        ) from None


def _has_parts(shape: Any) -> bool:
    return isinstance(shape, dict) or not all(isinstance(n, int) for n in shape)


def _check_draws(draws: Any) -> None:
    if draws is not None and (isinstance(draws, type) or not isinstance(draws, Draws)):
        hint = f"; write {draws.__name__}(…)" if isinstance(draws, type) else ""
        raise TypeError(f"draws: expected a way to draw such as vk.divergences.Antithetic(), got {draws!r}{hint}")


def _check_gradient(gradient: Any, drawn_from: dict[str, Any], draws: Any) -> None:
    if gradient not in _GRADIENTS:
        raise TypeError(f"gradient: expected None, kl.pathwise, kl.score or kl.none, got {gradient!r}")
    if gradient is not kl.pathwise:
        return
    if isinstance(draws, Importance):
        raise ValueError(
            "gradient: kl.pathwise differentiates draws, but those of draws.proposal are constants; gradient=kl.score "
            "is unbiased for them"
        )
    found = [why for name, x in drawn_from.items() for why in obstacles(x, name)]
    if found:
        raise ValueError(
            f"gradient: kl.pathwise would be biased: {'; '.join(found)}; gradient=None takes the score function "
            "there, gradient=kl.score everywhere"
        )


@partial(jax.jit, static_argnums=(2, 3, 4, 5, 6, 7))
def _compiled(
    arrays: list[Any],
    key: KeyArray,
    skeleton: Skeleton,
    plan: Draws | None,
    kind: kinds.Kind | None,
    gradient: Any,
    num_samples: int,
    block_size: int | None,
) -> Estimate:
    floating = [x.dtype for x in arrays if jnp.issubdtype(x.dtype, jnp.floating)]
    dtype = jnp.result_type(*floating, jnp.float32) if floating else jnp.result_type(float)

    objects = unpack(skeleton, arrays)
    edges = _has_edges(objects[0], objects[1], kind)
    if gradient is kl.pathwise and edges:
        raise ValueError(
            "gradient: kl.pathwise would be biased: a density ends or jumps where draws go on, which they do not see; "
            "gradient=None takes the score function there"
        )

    def problem(arrays: list[Any]) -> Problem:
        how = kl.score if edges and gradient is None else gradient
        return set_up(unpack(skeleton, arrays), dtype, plan, kind, how, num_samples, block_size)

    @jax.custom_jvp
    def estimated(arrays: list[Any], key: KeyArray) -> tuple[Any, ...]:
        return average(problem(arrays), key)

    @estimated.defjvp
    def _(primals: Any, tangents: Any) -> Any:  # traced only where a derivative is taken
        out = estimated(*primals)
        fixed = problem(primals[0])
        _, slope = jax.jvp(lambda a: surrogate(problem(a), fixed, primals[1], out[3]), primals[:1], tangents[:1])
        return out, (slope, *jax.tree.map(jnp.zeros_like, out[1:]))

    with as_the_libraries_expect():
        given = jax.lax.stop_gradient(arrays) if gradient is kl.none else arrays
        value, error, effective, _ = estimated(given, key)
        families = [family_of(x) for x in objects[:2]]
        inexact = [jnp.sum(x) for x in arrays if jnp.issubdtype(x.dtype, jnp.floating)]
        # Constant draws, and any where a density jumps, do not see the ends of a density move.
        constant = gradient is kl.score or isinstance(plan, Importance) or not carries_gradient(objects[0])
        unseen = {"p": edges or (kind is None and constant), "q": edges}
        for index, (name, refused) in enumerate(unseen.items()):
            if refused and gradient is not kl.none and moves(objects[index]):
                own = [x for x in skeleton.of(index, arrays) if jnp.issubdtype(x.dtype, jnp.floating)]
                value = without_gradient(_NO_GRADIENT.format(name=name, kind=name_of(objects[index])), own, value)
        if kind is None and is_excluded(*families):  # wherever the draws are
            return Estimate(infinite(inexact, value), jnp.full_like(error, jnp.inf), effective)
        if kind is not None:
            fixed = jax.lax.stop_gradient(value)
            _, slope = jax.jvp(kind.outer, (fixed,), (jnp.ones_like(fixed),))
            value, error = kind.outer(value), error * jnp.abs(slope)
    return Estimate(value, error, effective)
