"""Which term, coordinate or parameter is not finite, in words."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vi_kit import _distributions as distributions
from vi_kit._types import Algorithm, Family, KeyArray, Params, Target
from vi_kit.diagnostics._draws import element_labels

_NUM_DRAWS = 64


def explain_nonfinite(target: Target, z: Float[Array, " dim"]) -> str:
    """Say where the log density is not finite and what in the data may be the reason."""
    value = float(target.log_density(z))
    likelihood, prior = float(target.log_likelihood(z)), float(target.log_prior(z))
    term = "log_density"
    if target.has_prior:
        term = "the log prior" if not np.isfinite(prior) else "the log likelihood"
        value = prior if not np.isfinite(prior) else likelihood
    word = "NaN" if np.isnan(value) else "−∞" if value < 0 else "+∞"
    names_and_values = zip(target.layout.names, jax.tree.leaves(target.constrain(z)), strict=True)
    x = ", ".join(f"{name or 'x'} = {_short(leaf)}" for name, leaf in list(names_and_values)[:6])
    bad = [
        "data" + jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(target.data)
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(np.asarray(leaf)).all()
    ]
    because = f"; {', '.join(bad)} holds values that are not finite" if bad else ""
    return f"{term} is {word} at the start ({x}){because}"


def explain_start(target: Target, z: Float[Array, " dim"]) -> str:
    """Say why no fit can start around a point."""
    value, gradient = jax.value_and_grad(target.log_density)(z)
    if not np.isfinite(value):
        return explain_nonfinite(target, z)
    flags = ~np.isfinite(np.asarray(gradient))
    if flags.any():
        return f"the gradient of log_density is not finite at the start, for {named(target, flags)}"
    return "log_density is finite at the start but not around it, so there is nowhere to go from there"


def _short(value: Array) -> str:
    numbers = [f"{number:.4g}" for number in np.asarray(value).reshape(-1)]
    if np.ndim(value) == 0:
        return numbers[0]
    return f"[{', '.join(numbers[:3])}{', …' if len(numbers) > 3 else ''}]"


def explain_steps(key: KeyArray, target: Target, algorithm: Algorithm, params: Params) -> str:
    """Say why steps from these parameters are not finite, by looking at draws of q."""
    family = algorithm.family
    bad = [name for name, leaf in _leaves(params) if not np.isfinite(np.asarray(leaf)).all()]
    if bad:
        return f"the parameters {', '.join(bad)} are not finite"
    found = jax.device_get(_evaluate(key, target, family, params)) if target.has_density else {}
    counts = {term: int((~np.isfinite(values)).sum()) for term, values in found.items() if values.ndim == 1}
    for term, count in counts.items():
        if count:
            return f"{term} is not finite at {count} of {_NUM_DRAWS} draws of q"
    for term, values in found.items():
        rows = ~np.isfinite(values)
        if values.ndim == 2 and rows.any():
            names = named(target, rows.any(axis=0))
            return f"{term} is not finite for {names} at {int(rows.any(axis=1).sum())} of {_NUM_DRAWS} draws of q"
    objective = getattr(algorithm, "objective", None)
    if objective is not None:
        loss, gradient = jax.value_and_grad(lambda p: objective(p, target, jax.random.fold_in(key, 1)))(params)
        bad = [name for name, leaf in _leaves(gradient) if not np.isfinite(np.asarray(leaf)).all()]
        if bad:
            return f"the gradient of the loss is not finite for the parameters {', '.join(bad)}"
        if not np.isfinite(loss):
            return f"the loss is {float(loss)}"
    return f"log_density and its gradient are finite at {_NUM_DRAWS} draws of q, so it is the step itself"


def _evaluate(key: KeyArray, target: Target, family: Family, params: Params) -> dict[str, Array]:
    def terms(key: KeyArray) -> dict[str, Array]:
        z, log_q = distributions.sample_and_log_prob(family.dist(params), key)
        return {
            "a draw": jnp.sum(z),
            "log q": log_q,
            "the log prior": target.log_prior(z) if target.has_prior else jnp.zeros_like(log_q),
            "the log likelihood" if target.has_prior else "log_density": target.log_likelihood(z),
            "the gradient of log_density": jax.grad(target.log_density)(z),
        }

    found: dict[str, Array] = jax.vmap(terms)(jax.random.split(jax.random.fold_in(key, 0), _NUM_DRAWS))
    return found


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    found = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path).strip(".") or "params", leaf) for path, leaf in found]


def named(target: Target, flags: np.ndarray) -> str:
    """Return the names of the coordinates that are flagged, five at most."""
    labels = [
        label
        for name, shape in zip(target.layout.names, target.layout.unconstrained_shapes, strict=True)
        for label in element_labels(name or "x", shape)
    ]
    names = [label for label, flag in zip(labels, flags, strict=True) if flag]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
