"""KL between distributions of numbers by quadrature or summation: deterministic, with an estimate of its error."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit._estimate import Estimate
from vi_kit.divergences._door import prepare, refuse_bad_parameters
from vi_kit.divergences._integral import integrate
from vi_kit.divergences._summation import add_up
from vi_kit.divergences._views import can_shift, is_known, shift, view
from vi_kit.divergences.distributions import Distribution, Independent


def quadrature_kl(p: Any, q: Any) -> Estimate:
    r"""KL(p‖q) between distributions of numbers by quadrature, where there is no closed form.

    $$ KL(p \| q) = \int p \log\frac{p}{q} - p + q \; dx $$

    The integrand is never negative, so neither is the result, and nearly equal distributions keep their digits. Panels
    are graded toward every component's center and toward the ends of the supports, then the worst are halved (Gauss
    and Kronrod, 7 and 15 points). Whole numbers are summed: all of them, up to 4096, else every n-th.

    Mixtures are taken apart, so that narrow components are seen. The families of `vk.divergences.distributions`, and
    objects of distrax, TensorFlow Probability and NumPyro that are read as such, have densities that are right in
    float32 and at the ends of the support; of other objects `log_prob` is taken, with icdf, mean and stddev to find
    their mass and `support` its ends (the whole line where an object does not tell).

    Differentiable in the parameters of both, also where those move the ends of a support or of a component. One program
    serves all calls with a pair of families and a shape (about 2 s to compile); objects that are no pytree, as
    libraries' are, are compiled each time.

    Args:
        p: the distribution the mean is taken over; its events are numbers.
        q: the other one; batch shapes broadcast.

    Returns:
        `value`: KL in nats, one value an entry of the batch; +inf where p has mass that q has not, or where the
        integral diverges. `standard_error`: an estimate of the absolute error, no statistical one: difference of two
        rules, rounding, what was left out of the tails, and the mass of p and q that was not found; inf where that
        mass is more than 1%, for then the value means nothing, and where divergence is judged from a tail. Mass of p
        below e⁻⁶⁰ in float32, e⁻³⁰⁰ in double precision, counts as none: a tail that diverges beyond it is not seen.
        `num_effective`: the number of nodes.

    Raises:
        TypeError: where p or q is no distribution.
        ValueError: where batch shapes do not broadcast, parameters are out of range, or one is discrete and the other
            is not.
        NotImplementedError: where events are not numbers.

    Source:
        R. Piessens, E. de Doncker-Kapenga, C. W. Überhuber and D. K. Kahaner, QUADPACK (1983),
        https://doi.org/10.1007/978-3-642-61786-7

    Example:
        >>> import vi_kit as vk
        >>> from vi_kit.divergences.distributions import Normal, StudentT
        >>> found = vk.quadrature_kl(Normal(0.0, 1.0), StudentT(3.0, 0.0, 1.0))
        >>> print(f"{found.value:.5f}, error below 1e-5: {found.standard_error < 1e-5}")
        0.06915, error below 1e-5: True
    """
    first, second = prepare("quadrature_kl", p, q)
    sources = _source("p", p, first), _source("q", q, second)
    batch = np.broadcast_shapes(first.batch_shape, second.batch_shape)
    dtype = _dtype(*sources)
    if all(isinstance(x, jax.Array | np.ndarray | float | int) for x in jax.tree.leaves(sources)):
        found: Estimate = _jitted(*sources, batch, dtype)
    else:  # what is no pytree of arrays cannot be an argument of a program
        found = jax.jit(lambda: _evaluate(*sources, batch, dtype))()
    refuse_bad_parameters("quadrature_kl", first, second, jnp.asarray(found.value))
    return found


def _source(name: str, given: Any, family: Distribution) -> Any:
    """Return what densities are taken from: the family where they are known, else the object itself."""
    if family.event_shape != ():
        raise NotImplementedError(
            f"quadrature_kl: expected distributions of numbers, got events of shape {family.event_shape} of {name}; "
            "vk.estimate_kl(key, p, q, num_samples=10_000) estimates their KL"
        )
    while isinstance(family, Independent):  # of no axes
        family = family.base
    if is_known(family):
        return family
    if isinstance(given, Distribution):
        raise NotImplementedError(f"{name}: no density is known for a {type(family).__name__}; give a library's object")
    return given


def _dtype(*sources: Any) -> Any:
    kinds = [jnp.asarray(x).dtype for x in jax.tree.leaves(sources) if hasattr(x, "dtype") or isinstance(x, float)]
    floating = [kind for kind in kinds if jnp.issubdtype(kind, jnp.floating)]
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*floating, jnp.float32)


def _evaluate(p: Any, q: Any, batch: tuple[int, ...], dtype: Any) -> Estimate:
    """Return the estimate for two families or objects: what `quadrature_kl` compiles."""
    families = all(isinstance(d, Distribution) for d in (p, q))
    if families:
        p, q = p.broadcast_to(batch), q.broadcast_to(batch)
        if can_shift(p) and can_shift(q):
            center = jax.lax.stop_gradient(view(p, batch, dtype).narrowest()[0])
            p, q = shift(p, center), shift(q, center)
    views = [view(d, batch, dtype) for d in (p, q)]
    if views[0].discrete != views[1].discrete:
        kinds = ["whole numbers" if v.discrete else "real numbers" for v in views]
        raise ValueError(f"q: expected a distribution of {kinds[0]} as p is, got one of {kinds[1]}")
    held = [view(jax.tree.map(_held, d), batch, dtype) for d in (p, q)]
    found = add_up(*views) if views[0].discrete else integrate(*views, *held)
    if not families:
        return found
    valid = jnp.broadcast_to(p.is_valid() & q.is_valid(), batch)
    value = jnp.where(valid, found.value, jnp.nan)
    return Estimate(value, jnp.where(valid, found.standard_error, jnp.nan), found.num_effective)


def _held(leaf: Any) -> Any:
    return jax.lax.stop_gradient(leaf) if isinstance(leaf, jax.Array) else leaf


_jitted = jax.jit(_evaluate, static_argnums=(2, 3))
