"""Couplings: maps of some coordinates whose parameters depend on the others, and what they depend on."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vi_kit._distributions import distrax
from vi_kit._static import configuration
from vi_kit._types import Event, KeyArray, Scalar, check_count

_MOST = 3.0  # raw parameters of a spline: neighbors' sizes differ by at most e⁶


class Coupling(Protocol):
    """How a coordinate is mapped, given parameters that are 0 where nothing is to change."""

    @property
    def num_params(self) -> int:
        """Parameters a coordinate."""

    def bijector(self, params: Float[Array, "dim num_params"]) -> Any:
        """Return the increasing map of every coordinate by itself, as a distrax bijector."""


@configuration
class AffineCoupling:
    r"""Shift and scale: $y = x e^{s} + t$ with |s| softly held below a bound.

    Args:
        bound: of the logarithm of the scale in one layer, approached as $b \tanh(s / b)$: no layer can blow up.

    Source: Dinh, Sohl-Dickstein and Bengio, "Density Estimation Using Real NVP", 2016,
    https://arxiv.org/abs/1605.08803; the clamp: Andrade, "Stable Training of Normalizing Flows for High-dimensional
    Variational Inference", 2024, https://arxiv.org/abs/2402.16408
    """

    bound: float = 2.0

    def __post_init__(self) -> None:
        """Check the bound."""
        if not (isinstance(self.bound, int | float) and 0 < self.bound < np.inf):
            raise ValueError(f"bound: expected a positive number, got {self.bound!r}")

    @property
    def num_params(self) -> int:
        """Parameters a coordinate: the shift and the scale."""
        return 2

    def bijector(self, params: Float[Array, "dim num_params"]) -> Any:
        """Return the map of every coordinate by itself."""
        return distrax.ScalarAffine(params[:, 0], log_scale=self.bound * jnp.tanh(params[:, 1] / self.bound))


@configuration
class SplineCoupling:
    """Monotone rational-quadratic splines between −bound and bound, the identity beyond.

    Their raw parameters are softly held below 3, so that no piece is steeper than 3,000 and no gradient overflows.

    Reverse KL takes `pathwise` gradients of them by default. Those of `sticking_the_landing` are unbiased too, but
    splines can cut p off at steep edges: inside, log q − log p is then constant and that gradient zero, and all that
    widens q is in rare, huge draws at the edges. On the banana (float32, 3,000 steps of Adam, 32 draws each) q came
    within 0.05 nats by the one and stopped at 0.5 by the other; at the better fit norms of gradients of one draw were
    7.6 (median), 45 (99 %), 65 (99.9 %), against 1.0, 18 and 180. With raw parameters held below 1 and 1,500 steps,
    sticking the landing left out 26 % of p, with log q − log p = 0.30 = −log 0.74 elsewhere. Affine couplings came
    nearer by sticking the landing: a loss of 0.02 against 0.07 after 1,500 steps. `doubly_reparameterized` stops in the
    same way (a bound of 8 particles 0.32 below log Z, against 0.05 by `pathwise`). All this was from starts
    narrower than p: from standard deviations of 3 instead of 1 neither stopped (experiments/flows).

    Args:
        num_bins: pieces of a spline.
        bound: where the identity begins, in standard deviations of the base or so.

    Source: Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", 2019, https://arxiv.org/abs/1906.04032
    """

    num_bins: int = 8
    bound: float = 5.0
    steep_inverse: ClassVar[bool] = True
    continuous_score: ClassVar[bool] = False  # slopes of log q jump at knots

    def __post_init__(self) -> None:
        """Check the pieces and the bound."""
        check_count("num_bins", self.num_bins, least=2)
        if not (isinstance(self.bound, int | float) and 0 < self.bound < np.inf):
            raise ValueError(f"bound: expected a positive number, got {self.bound!r}")

    @property
    def num_params(self) -> int:
        """Parameters a coordinate: widths, heights and slopes."""
        return 3 * self.num_bins + 1

    def bijector(self, params: Float[Array, "dim num_params"]) -> Any:
        """Return the map of every coordinate by itself."""
        held = _MOST * jnp.tanh(params / _MOST)
        return distrax.RationalQuadraticSpline(
            held, -float(self.bound), float(self.bound), boundary_slopes="identity", min_bin_size=1e-3
        )


class ConditionerParams(NamedTuple):
    """Weights of the networks of all layers: two hidden layers of `width` units; the leading axis is the layers'."""

    first: Float[Array, "layers dim width"]
    first_bias: Float[Array, "layers width"]
    second: Float[Array, "layers width width"]
    second_bias: Float[Array, "layers width"]
    last: Float[Array, "layers width out"]
    last_bias: Float[Array, "layers out"]


def init_conditioners(key: KeyArray, layers: int, dim: int, width: int, out: int, dtype: Any) -> ConditionerParams:
    """Return networks whose output is 0, so that every coupling begins as the identity."""
    first_key, second_key = jax.random.split(key)
    first = jax.random.normal(first_key, (layers, dim, width), dtype) / np.sqrt(dim).astype(dtype)
    second = jax.random.normal(second_key, (layers, width, width), dtype) / np.sqrt(width).astype(dtype)
    bias = jnp.zeros((layers, width), dtype)
    return ConditionerParams(
        first, bias, second, bias, jnp.zeros((layers, width, out), dtype), jnp.zeros((layers, out), dtype)
    )


def masks(layers: int, dim: int) -> np.ndarray:
    """Return which coordinates each layer leaves alone, shape (layers, dim).

    Layers come in pairs that exchange the two halves; pair k splits by bit k of the coordinate's number, so that
    after 2 · log₂(dim) layers every coordinate has been mapped given every other.
    """
    bits = max(1, (dim - 1).bit_length())
    pairs = np.arange(layers) // 2 % bits
    halves = (np.arange(dim)[None, :] >> pairs[:, None]) & 1
    found: np.ndarray = halves == np.arange(layers)[:, None] % 2
    return found


def _standard_promotion() -> AbstractContextManager[None]:
    """Relax strict dtype promotion around distrax's splines, which mix kinds of numbers."""
    return jax.numpy_dtype_promotion("standard")  # type: ignore[no-any-return]


def _layer(coupling: Coupling, params: ConditionerParams, mask: Bool[Array, " dim"]) -> Any:
    def conditioner(x: Event) -> Any:
        hidden = jax.nn.silu(x @ params.first + params.first_bias)
        hidden = jax.nn.silu(hidden @ params.second + params.second_bias)
        return (hidden @ params.last + params.last_bias).reshape(x.shape[0], coupling.num_params)

    return distrax.MaskedCoupling(mask, conditioner, coupling.bijector)


def forward(
    coupling: Coupling, params: ConditionerParams, masks: Bool[np.ndarray, "layers dim"], x: Event
) -> tuple[Event, Scalar]:
    """Apply all layers; return the image and the log determinant of the Jacobian."""

    def step(carry: tuple[Event, Scalar], layer: tuple[ConditionerParams, Array]) -> tuple[tuple[Event, Scalar], None]:
        y, log_determinant = _layer(coupling, *layer).forward_and_log_det(carry[0])
        return (y, carry[1] + log_determinant), None

    with _standard_promotion():
        return jax.lax.scan(step, (x, jnp.zeros((), x.dtype)), (params, jnp.asarray(masks)))[0]


def inverse(
    coupling: Coupling, params: ConditionerParams, masks: Bool[np.ndarray, "layers dim"], y: Event
) -> tuple[Event, Scalar]:
    """Undo all layers; return the preimage and the log determinant of the inverse's Jacobian."""

    def step(carry: tuple[Event, Scalar], layer: tuple[ConditionerParams, Array]) -> tuple[tuple[Event, Scalar], None]:
        x, log_determinant = _layer(coupling, *layer).inverse_and_log_det(carry[0])
        return (x, carry[1] + log_determinant), None

    with _standard_promotion():
        return jax.lax.scan(step, (y, jnp.zeros((), y.dtype)), (params, jnp.asarray(masks)), reverse=True)[0]
