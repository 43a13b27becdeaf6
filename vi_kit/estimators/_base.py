"""Base draws: the standard normals that draws of q are made of, independent or more evenly spread."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Float

from vi_kit import _distributions as distributions
from vi_kit._lattice import shifted_lattice
from vi_kit._types import Event, Family, KeyArray, Params, Scalar
from vi_kit.estimators._offers import offers

Base = Callable[[KeyArray, int, int, Any], Float[Array, "n num_base"]]
Estimator = TypeVar("Estimator")


def _pairs(key: KeyArray, num_samples: int, num_base: int, dtype: Any) -> Float[Array, "n num_base"]:
    if num_samples % 2:
        raise ValueError(f"num_samples: antithetic draws come in pairs, expected an even number, got {num_samples}")
    noise = jax.random.normal(key, (num_samples // 2, num_base), dtype)
    return jnp.concatenate([noise, -noise])


def _lattice(key: KeyArray, num_samples: int, num_base: int, dtype: Any) -> Float[Array, "n num_base"]:
    shifts = jax.random.bits(key, (1, 1, num_base), jnp.uint32)
    return ndtri(shifted_lattice(jnp.arange(num_samples, dtype=jnp.uint32), shifts)[0].astype(dtype))


def _with_base(estimator: Estimator, base: Base, name: str) -> Estimator:
    if not hasattr(estimator, "base"):
        raise TypeError(
            f"estimator: {name} draws are for pathwise, sticking_the_landing and closed_form_entropy, not for "
            f"{estimator!r}, which needs independent ones"
        )
    return dataclasses.replace(estimator, base=base)  # type: ignore[type-var]


def antithetic(estimator: Estimator) -> Estimator:
    r"""Return the estimator with draws in pairs, made of ε and of −ε.

    What is odd in ε cancels: the gradient in a Gaussian's mean has no noise at all where the target is quadratic. What
    is even gains nothing, and its variance is that of half as many draws. Every draw alone has the law of q, so means
    stay unbiased; `num_samples` (or `num_particles`) has to be even. For families whose draws are made of standard
    normals, and estimators that do not need independent draws, as `doubly_reparameterized` and `score_function` do.

    Source: J. M. Hammersley and K. W. Morton, "A New Monte Carlo Technique: Antithetic Variates", 1956,
    https://doi.org/10.1017/S0305004100031455

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(lambda x: -0.5 * jnp.sum((x - 3.0) ** 2), 2)
        >>> family = vk.families.MeanField(2)
        >>> objective = vk.objectives.ReverseKL(family, vk.estimators.antithetic(vk.estimators.pathwise), 2)
        >>> jax.grad(objective)(family.init(jax.random.key(0)), target, jax.random.key(1)).mean.tolist()
        [-3.0, -3.0]
    """
    return _with_base(estimator, _pairs, "antithetic")


def quasi_monte_carlo(estimator: Estimator) -> Estimator:
    r"""Return the estimator with evenly spread draws: a randomly shifted lattice, through the normal quantiles.

    For smooth integrands in up to some ten dimensions the error falls nearly as 1/n, against 1/√n for independent
    draws; every draw alone has the law of q, so means stay unbiased. Take a power of 2 for `num_samples` (or
    `num_particles`). For the same families and estimators as `antithetic`.

    Source: A. Buchholz, F. Wenzel and S. Mandt, "Quasi-Monte Carlo Variational Inference", 2018,
    https://arxiv.org/abs/1807.01604

    Example:
        >>> import vi_kit as vk
        >>> vk.estimators.quasi_monte_carlo(vk.estimators.sticking_the_landing)
        quasi_monte_carlo(sticking_the_landing)
    """
    return _with_base(estimator, _lattice, "quasi-Monte Carlo")


def shown(name: str, base: Base | None) -> str:
    """Name an estimator with its base draws, for reports."""
    if base is None:
        return name
    words: dict[Base, str] = {_pairs: "antithetic", _lattice: "quasi_monte_carlo"}
    return f"{words.get(base, getattr(base, '__name__', repr(base)))}({name})"


def makes(base: Base | None, family: Family) -> bool:
    """Tell whether a family's draws can be made of such base draws."""
    return base is None or offers(family).num_base is not None


def draw(base: Base | None, family: Family, params: Params, key: KeyArray, num: int) -> Float[Array, "n dim"]:
    """Draw events of q, as functions of the parameters."""
    if base is None:
        keys = jax.random.split(key, num)
        return jax.vmap(lambda k: distributions.sample(family.dist(params), k))(keys)
    noise = _noise(base, family, params, key, num)
    drawn: Array = jax.vmap(lambda e: family.dist(params).from_base(e))(noise)
    return drawn


def draw_jointly(
    base: Base | None, family: Family, params: Params, key: KeyArray, num: int
) -> tuple[Float[Array, "n dim"], Float[Array, " n"]]:
    """Draw events of q with their log densities, both as functions of the parameters."""
    if base is None:
        keys = jax.random.split(key, num)
        return jax.vmap(lambda k: distributions.sample_and_log_prob(family.dist(params), k))(keys)

    def one(noise: Array) -> tuple[Event, Scalar]:
        z = family.dist(params).from_base(noise)
        return z, distributions.log_prob(family.dist(params), z)

    return jax.vmap(one)(_noise(base, family, params, key, num))


def _noise(base: Base, family: Family, params: Params, key: KeyArray, num: int) -> Float[Array, "n num_base"]:
    num_base = offers(family).num_base
    assert num_base is not None, "the estimator has checked the family"
    return base(key, num, num_base, jnp.result_type(*jax.tree.leaves(params)))
