"""What a NumPyro model has inside: its latent sites with their shapes and supports, its deterministic sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from vi_kit import support as supports
from vi_kit._types import KeyArray, Support
from vi_kit.targets._extras import import_from_extra


class Sites(NamedTuple):
    """Shapes and supports of the latent sites by name, and the names of the deterministic ones."""

    shapes: dict[str, tuple[int, ...]]
    supports: dict[str, Support]
    deterministic: tuple[str, ...]


def numpyro_module(name: str) -> Any:
    """Import a module of NumPyro.

    Raises:
        ImportError: where it is not installed.
    """
    return import_from_extra(name, package="NumPyro", extra="numpyro", what="vk.targets.from_numpyro")


@contextmanager
def numpyro_promotion() -> Iterator[None]:
    """Relax strict promotion around a model: NumPyro's distributions mix ranks and dtypes; users may have it on."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def find_sites(run: Callable[[Callable[..., Any], PyTree], Any], model: Callable[..., Any], data: PyTree) -> Sites:
    """Run a model at a point that suits its supports and return its sites.

    Args:
        run: calls a model with its arguments, the arrays among them taken from the data.
        model: the model.
        data: those arrays.

    Raises:
        ValueError: for sites that a target over real variables cannot have, by name.
    """
    key = jax.random.key(0)  # for shapes alone: no value of this run is kept
    found = _run(run, model, data, key)
    if not found.shapes:
        raise ValueError("model: expected at least one latent site, a numpyro.sample without obs=; it has none")
    names = [name for name, support in found.supports.items() for _ in jax.tree.leaves(support)]

    def bounds(key: KeyArray, data: PyTree) -> list[Any]:
        return jax.tree.leaves(_run(run, model, data, key).supports)

    traced = jax.make_jaxpr(bounds)(jax.random.key(0), data).jaxpr
    key_inputs, data_inputs = traced.invars[:1], traced.invars[1:]
    for inputs, what in [(key_inputs, "another latent site"), (data_inputs, "an array argument of the model")]:
        for name, moves in zip(names, _depending(traced, inputs), strict=True):
            if moves:
                raise ValueError(
                    f"model: the bounds of site {name!r} depend on {what}, but the space of a target is fixed; scale a "
                    "variable of fixed bounds inside the model, or give the bounds as Python numbers"
                )
    return found


def _run(run: Callable[..., Any], model: Callable[..., Any], data: PyTree, key: KeyArray) -> Sites:
    handlers, infer = numpyro_module("numpyro.handlers"), numpyro_module("numpyro.infer")

    def start(site: dict[str, Any]) -> Any:
        _check_site(site)
        if site["type"] != "sample" or site["is_observed"]:
            return None
        _support_of(site["name"], site["fn"])  # refused here by name, before NumPyro finds no start
        return infer.init_to_uniform(site)

    seeded = handlers.trace(handlers.substitute(handlers.seed(model, key), substitute_fn=start))
    with numpyro_promotion():
        trace = run(seeded.get_trace, data)
    latent = {name: site for name, site in trace.items() if site["type"] == "sample" and not site["is_observed"]}
    return Sites(
        {name: tuple(site["value"].shape) for name, site in latent.items()},
        {name: _support_of(name, site["fn"]) for name, site in latent.items()},
        tuple(name for name, site in trace.items() if site["type"] == "deterministic"),
    )


def _check_site(site: dict[str, Any]) -> None:
    name = site["name"]
    if site["type"] in ("param", "mutable"):
        raise ValueError(
            f"model: {name!r} is a numpyro.{site['type']}, which has no distribution; make it a latent site or a number"
        )
    if site["type"] == "plate" and site["args"][1] not in (None, site["args"][0]):
        raise ValueError(
            f"model: the plate {name!r} draws a subsample of its rows, but a log density has no randomness; leave out "
            "subsample_size"
        )


def _support_of(name: str, distribution: Any) -> Support:
    """Return the support with NumPyro's constraint."""
    constraints = numpyro_module("numpyro.distributions.constraints")
    constraint = distribution.support
    if constraint.is_discrete:
        raise ValueError(
            f"model: site {name!r} ({type(distribution).__name__}) is discrete; sum it out of the model, a target has "
            "continuous variables only"
        )
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    if isinstance(constraint, constraints.interval):
        return supports.interval(constraint.lower_bound, constraint.upper_bound)
    if isinstance(constraint, constraints.greater_than):
        return supports.greater_than(constraint.lower_bound)
    if isinstance(constraint, constraints.less_than):
        return supports.less_than(constraint.upper_bound)
    if isinstance(constraint, type(constraints.real)):
        return supports.real
    if isinstance(constraint, type(constraints.simplex)):
        return supports.simplex
    if isinstance(constraint, type(constraints.ordered_vector)):
        return supports.ordered
    raise ValueError(
        f"model: site {name!r} ({type(distribution).__name__}) lives in {constraint}, which has no counterpart in "
        "vi_kit.support; write the site as a transformation of real ones (numpyro.handlers.reparam)"
    )


def _depending(jaxpr: Any, inputs: list[Any]) -> list[bool]:
    """Tell which outputs are computed from these inputs."""
    reached = set(inputs)
    for equation in jaxpr.eqns:
        if any(not hasattr(v, "val") and v in reached for v in equation.invars):
            reached.update(equation.outvars)
    return [not hasattr(v, "val") and v in reached for v in jaxpr.outvars]
