"""`Target`: a density over the user's variables, seen as one over flat unconstrained z."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from vi_kit._pytree import pytree
from vi_kit._rows import num_rows, random_rows
from vi_kit._static import Static

KeyArray = Key[Array, ""]
Scalar = Float[Array, ""]
Event = Float[Array, " dim"]


class Support(Protocol):
    """Where a variable lives: the map from unconstrained z to x and its log-Jacobian (see `vi_kit.support`)."""

    def unconstrained_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of z for an x of this shape."""

    def constrain(self, z: Array) -> Array:
        """Map z to x."""

    def unconstrain(self, x: Array) -> Array:
        """Map x to z."""

    def log_jacobian(self, z: Array) -> Scalar:
        """Return log |dx/dz|, summed over all elements."""


@dataclass(frozen=True)
class Layout:
    """How the flat z and the user's pytree x correspond: static, compared by value."""

    treedef: Any
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    unconstrained_shapes: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...] | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Unconstrained elements of each variable."""
        return tuple(_size(shape) for shape in self.unconstrained_shapes)


def _size(shape: tuple[int, ...]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total


@pytree
@dataclass(frozen=True, eq=False, kw_only=True)
class Target:
    """An unnormalized density p̃ over the user's variables, seen as a density of flat unconstrained z.

    Built by `vi_kit.make_target`. Its arrays (data, prior parameters, bounds, given draws) are leaves: `vmap`,
    `device_put` and `dataclasses.replace(target, data=batch)` work on them. Its functions are static and compared
    by value.
    """

    data: PyTree = None
    prior: PyTree = None
    supports: tuple[Support, ...] = ()
    log_normalizer: PyTree = None
    draws: PyTree = None  # exact draws in x, given by the user, leading axis n
    draws_log_weights: PyTree = None
    likelihood_scale: PyTree = None  # what the log likelihood is multiplied by; N/B for data that are a minibatch
    log_density_function: Static = dataclasses.field(metadata={"static": True})
    prior_function: Static | None = dataclasses.field(default=None, metadata={"static": True})
    sample_function: Static | None = dataclasses.field(default=None, metadata={"static": True})
    derived_function: Static | None = dataclasses.field(default=None, metadata={"static": True})
    layout: Layout = dataclasses.field(metadata={"static": True})
    batch_size: int | None = dataclasses.field(default=None, metadata={"static": True})

    def refreshed(self) -> Target:
        """Return the same target with keys of its functions taken now.

        A function reads globals and objects that may have changed since the target was made: every entry point takes
        the keys anew, so that a program compiled for other values is never used.
        """
        functions: dict[str, Any] = {
            f.name: Static(value.value)
            for f in dataclasses.fields(self)
            if isinstance(value := getattr(self, f.name), Static)
        }
        return dataclasses.replace(self, **functions)

    @property
    def dim(self) -> int:
        """Number of unconstrained coordinates."""
        return sum(self.layout.sizes)

    @property
    def has_density(self) -> bool:
        """Whether there is a log density to evaluate (targets made from draws have none)."""
        return self.log_density_function.value is not None

    @property
    def has_sampler(self) -> bool:
        """Whether exact draws can be made."""
        return self.sample_function is not None

    @property
    def has_prior(self) -> bool:
        """Whether the prior was declared apart from the likelihood."""
        return self.prior is not None or self.prior_function is not None

    def _pieces(self, z: Event) -> list[Array]:
        if z.shape != (self.dim,):
            raise ValueError(
                f"z: expected one flat point of shape ({self.dim},), got {z.shape}; use jax.vmap for several"
            )
        if self.layout.unconstrained_shapes == (z.shape,):  # one flat variable: nothing to cut
            return [z]
        pieces, start = [], 0
        for shape, size in zip(self.layout.unconstrained_shapes, self.layout.sizes, strict=True):
            pieces.append(jax.lax.slice(z, (start,), (start + size,)).reshape(shape))
            start += size
        return pieces

    def constrain(self, z: Event) -> PyTree:
        """Map flat unconstrained z to x, a pytree shaped like `like`."""
        leaves = [s.constrain(piece) for s, piece in zip(self.supports, self._pieces(z), strict=True)]
        return self.layout.treedef.unflatten(leaves)

    def unconstrain(self, x: PyTree) -> Event:
        """Map x to flat unconstrained z; NaN or infinite where x lies outside its support."""
        leaves = self.layout.treedef.flatten_up_to(x)
        pieces = []
        for name, shape, support, value in zip(
            self.layout.names, self.layout.shapes, self.supports, leaves, strict=True
        ):
            array = jnp.asarray(value)
            array = array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.result_type(float))
            if array.shape != shape:
                raise ValueError(f"x: {name or 'the point'} should have shape {shape}, got {array.shape}")
            pieces.append(support.unconstrain(array).reshape(-1))
        return jnp.concatenate(pieces)

    def log_jacobian(self, z: Event) -> Scalar:
        """Return log |dx/dz| at z."""
        terms = [s.log_jacobian(piece) for s, piece in zip(self.supports, self._pieces(z), strict=True)]
        return sum(terms, start=jnp.zeros((), z.dtype))

    def log_likelihood(self, z: Event) -> Scalar:
        """Return what the user's `log_density` gives at z: the likelihood where a prior was declared, scaled."""
        function = self.log_density_function.value
        if function is None:
            raise NotImplementedError(
                "this target was made from draws and has no log density; fit it with vk.objectives.ForwardKL"
            )
        x = self.constrain(z)
        value = function(x) if self.data is None else function(x, self.data)
        value = _checked_scalar("log_density", value)
        return value if self.likelihood_scale is None else value * jnp.asarray(self.likelihood_scale, value.dtype)

    def log_prior(self, z: Event) -> Scalar:
        """Return the declared prior's log density at z, log-Jacobian included (zero where none was declared)."""
        x = self.constrain(z)
        total = self.log_jacobian(z)
        if self.prior_function is not None:
            return total + _checked_scalar("prior", self.prior_function.value(x))
        if self.prior is not None:
            parts = self.layout.treedef.flatten_up_to(self.prior)
            for name, distribution, value in zip(self.layout.names, parts, jax.tree.leaves(x), strict=True):
                total = total + _log_prob_of_variable(name or "x", distribution, value)
        return total

    def log_density(self, z: Event) -> Scalar:
        """Return log p̃ at flat unconstrained z: likelihood, prior and log-Jacobian, in nats."""
        return self.log_likelihood(z) + self.log_prior(z)

    def subsample(self, key: KeyArray) -> Target:
        """Return the target of one step: itself, or that of a random minibatch (`vi_kit.targets.minibatch`)."""
        if self.batch_size is None:
            return self
        length = num_rows(self.data, self.batch_size)
        rows = random_rows(key, length, self.batch_size)
        batch = jax.tree.map(lambda array: jnp.asarray(array)[rows], self.data)
        scale = length / self.batch_size * (1.0 if self.likelihood_scale is None else self.likelihood_scale)
        return dataclasses.replace(self, data=batch, likelihood_scale=scale, batch_size=None, log_normalizer=None)

    def evaluations(self, num_points: int) -> int:
        """Return what a step at so many points counts as: evaluations of all the data, rounded up."""
        if self.batch_size is None:
            return num_points
        return -(-num_points * self.batch_size // num_rows(self.data, self.batch_size))

    def sample(self, key: KeyArray) -> PyTree:
        """Draw one exact x from the target.

        Raises:
            NotImplementedError: when the target has no exact sampler.
        """
        if self.sample_function is None:
            raise NotImplementedError("this target has no exact sampler; give one with make_target(sample=...)")
        function = self.sample_function.value
        return function(key) if self.data is None else function(key, self.data)

    def report(self, z: Event) -> PyTree:
        """Return x with the derived quantities merged in: what a user reads off a draw."""
        x = self.constrain(z)
        if self.derived_function is None:
            return x
        function = self.derived_function.value
        derived = function(x) if self.data is None else function(x, self.data)
        if not isinstance(derived, Mapping):
            raise TypeError(f"derived: it must return a dict of named quantities, got {type(derived).__name__}")
        if both := sorted(set(x) & set(derived)):
            raise ValueError(
                f"derived: {', '.join(both)} is a variable already; give the derived quantity another name"
            )
        return {**x, **derived}

    def __repr__(self) -> str:
        variables = ", ".join(
            f"{name or 'x'}{list(shape) if shape else ''}{'' if str(s) == 'real' else ' ' + str(s)}"
            for name, shape, s in zip(self.layout.names, self.layout.shapes, self.supports, strict=True)
        )
        extras = [
            word
            for word, there in [
                ("data", self.data is not None),
                ("prior", self.has_prior),
                ("exact draws", self.has_sampler),
                ("given draws", self.draws is not None),
                ("log normalizer", self.log_normalizer is not None),
                ("derived quantities", self.derived_function is not None),
                (f"minibatches of {self.batch_size}", self.batch_size is not None),
            ]
            if there
        ]
        return f"Target(dim={self.dim}; {variables}{'; with ' + ', '.join(extras) if extras else ''})"


def _log_prob_of_variable(name: str, distribution: Any, value: Array) -> Scalar:
    """Sum a prior over a variable, which holds one event or several independent ones."""
    event = tuple(getattr(distribution, "event_shape", ()))
    outer = value.shape[: value.ndim - len(event)]
    if value.shape[len(outer) :] != event:
        raise ValueError(
            f"prior: the distribution of {name} has events of shape {event}, the variable has {value.shape}"
        )
    log_prob = distribution.log_prob
    for _ in outer if event and not tuple(getattr(distribution, "batch_shape", ())) else ():
        log_prob = jax.vmap(log_prob)
    found = log_prob(value)
    if found.shape != outer:
        raise ValueError(
            f"prior: the distribution of {name} gives log probabilities of shape {found.shape} "
            f"for a variable of shape {value.shape}"
        )
    return jnp.sum(found)


def _checked_scalar(name: str, value: Any) -> Scalar:
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must return one scalar for one point, got {type(value).__name__}") from error
    if array.shape != ():
        raise ValueError(f"{name} must return one scalar for one point, got an array of shape {array.shape}; sum it")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must return a floating-point number, got dtype {array.dtype}")
    return array
