"""The vocabulary: Target, Family, GradientEstimator, Objective, Algorithm, Estimate, Fit.

z is a flat vector in unconstrained space, x the same point in the user's own space, q the approximation, p the
target. Everything is in nats, every objective is a loss and is minimized.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from vi_kit._estimate import Estimate as Estimate
from vi_kit._target import Event as Event
from vi_kit._target import KeyArray as KeyArray
from vi_kit._target import Layout as Layout
from vi_kit._target import Scalar as Scalar
from vi_kit._target import Support as Support
from vi_kit._target import Target as Target

Params: TypeAlias = Any  # a pytree of arrays


class Distribution(Protocol):
    """What a family builds: an event-level distribution over z (a distrax distribution where one serves)."""

    def sample(self, *, seed: KeyArray) -> Event:
        """Draw one event."""

    def log_prob(self, value: Event, /) -> Scalar:
        """Log density of one event."""

    def sample_and_log_prob(self, *, seed: KeyArray) -> tuple[Event, Scalar]:
        """Draw one event with its log density, without inverting anything."""

    def mean(self) -> Event:
        """Mean."""

    def std(self) -> Event:
        """Marginal standard deviations."""


@runtime_checkable
class NormalBase(Protocol):
    """What a distribution offers besides where a draw is a function of standard normals, for other base draws."""

    @property
    def num_base(self) -> int:
        """Standard normals that a draw is made of."""

    def from_base(self, noise: Float[Array, " num_base"], /) -> Event:
        """Return the draw that these standard normals make; `sample` is this of independent ones."""


@runtime_checkable
class Family(Protocol):
    """A set of distributions over R^dim, indexed by unconstrained parameters.

    Any real value of any parameter is legal; constraints live in `dist`.
    """

    @property
    def dim(self) -> int:
        """Number of unconstrained coordinates."""

    @property
    def reparameterized(self) -> bool:
        """Whether a draw is a differentiable function of the parameters."""

    def init(self, key: KeyArray, *, mean: Array | None = None, scale: Array | None = None) -> Params:
        """Return parameters of the member with this mean and scale (standard deviations or a lower factor)."""

    def dist(self, params: Params) -> Any:
        """Build the distribution; call it inside the traced function, never return it from `vmap`."""


@runtime_checkable
class StartsFromFit(Protocol):
    """What a family offers besides where it can start from what another family has fitted."""

    def init_from(self, key: KeyArray, distribution: Any) -> Params:
        """Return parameters of the member nearest to a distribution over the same coordinates."""


Integrand = Callable[[Params, Event, Scalar], Scalar]


class GradientEstimator(Protocol):
    """The mean of `integrand(params, z, log_q)` over z ~ q, as a value with a gradient.

    The primal is the Monte Carlo mean, the tangent in params is this estimator's gradient. log_q is the log density
    of the draw with whatever gradient the estimator gives it.
    """

    def __call__(self, integrand: Integrand, family: Family, params: Params, key: KeyArray, num_samples: int) -> Scalar:
        """Return the mean over `num_samples` draws."""


class Objective(Protocol):
    """A loss, always minimized: the primal is the estimate, the tangent the gradient estimator."""

    @property
    def family(self) -> Family:
        """The family whose parameters it takes."""

    def evaluations(self, target: Target) -> int:
        """Target evaluations a call costs."""

    def describe(self, target: Target) -> str:
        """Say in words what is minimized, for reports."""

    def __call__(self, params: Params, target: Target, key: KeyArray, *, step: int | Int[Array, ""] = 0) -> Scalar:
        """Return the loss."""


class StepInfo(NamedTuple):
    """What one step tells: the loss before it, the gradient's norm, and whether both were finite."""

    loss: Scalar
    gradient_norm: Scalar
    finite: Bool[Array, ""]


class Algorithm(Protocol):
    """A way to fit: `init`, `step`, `params`; everything it remembers is in the state."""

    @property
    def family(self) -> Family:
        """The family it fits."""

    def evaluations(self, target: Target) -> int:
        """Target evaluations a step costs."""

    def init(self, params: Params, target: Target, key: KeyArray) -> PyTree:
        """Return the first state."""

    def step(self, state: PyTree, target: Target, key: KeyArray) -> tuple[PyTree, StepInfo]:
        """Take one step."""

    def params(self, state: PyTree) -> Params:
        """Read the parameters off a state."""


class Fit(NamedTuple):
    """What `vi_kit.optimize` returns: arrays only, so it passes through `jit` and `vmap`.

    Attributes:
        params: the last parameters.
        state: pass it back as `state=` to go on exactly where this stopped.
        history: one `StepInfo` with a leading axis of `num_steps`.
        finite: whether every step was finite (a step that is not leaves the parameters as they were).
    """

    params: Params
    state: PyTree
    history: StepInfo
    finite: Bool[Array, ""]


def check_key(key: Any) -> None:
    """Refuse anything but one typed key.

    Raises:
        TypeError: for a raw `PRNGKey` array, an int or no key at all.
        ValueError: for an array of several keys.
    """
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        got = repr(key) if key is None or isinstance(key, int | float | str) else f"a {type(key).__name__}"
        if isinstance(key, jax.Array):
            got = f"an array of {key.dtype}{list(key.shape)}"
        raise TypeError(f"key: expected a typed key from jax.random.key(seed), got {got}")
    if key.shape != ():
        raise ValueError(f"key: expected one key, got an array of {key.shape}; use jax.vmap over keys")


def check_positive(name: str, value: Any) -> None:
    """Raise unless a setting is None or one positive number, infinity included; a traced one is let through."""
    if value is None or isinstance(value, jax.core.Tracer):
        return
    number = isinstance(value, int | float | np.number | np.ndarray | jax.Array) and not isinstance(value, bool)
    if not number or np.shape(value) != ():
        raise TypeError(f"{name}: expected one positive number, got {value!r}")
    if not float(value) > 0:
        raise ValueError(f"{name}: expected a positive number, got {float(value):g}")


def check_count(name: str, value: Any, *, least: int = 1) -> None:
    """Refuse anything but an int of at least `least`.

    Raises:
        TypeError: for another type.
        ValueError: for a smaller number.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an int, got {value!r}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")


def num_positional(function: Callable[..., Any]) -> tuple[int, int] | None:
    """Return the least and the largest number of positional arguments, or None where Python cannot tell."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p for p in parameters if p.kind in kinds]
    needed = sum(p.default is inspect.Parameter.empty for p in positional)
    most = 1_000 if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters) else len(positional)
    return needed, most
