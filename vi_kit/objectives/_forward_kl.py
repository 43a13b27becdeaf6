"""Forward KL: the cross-entropy of q under draws of p."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from vi_kit import _distributions as distributions
from vi_kit._static import configuration, display, leaf
from vi_kit._types import Family, KeyArray, Params, Scalar, Target, check_count
from vi_kit.objectives._checks import check_log_weights

Draws = tuple[Float[Array, "n dim"], Float[Array, " n"]]
DrawsSource = Callable[[Family, Params, Target, KeyArray, int | None], Draws]
DEFAULT_NUM_SAMPLES = 128


def exact(family: Family, params: Params, target: Target, key: KeyArray, num_samples: int | None) -> Draws:
    """Draw from the target's own exact sampler: unweighted, unbiased, no evaluation of the density."""
    del family, params
    keys = jax.random.split(key, num_samples or DEFAULT_NUM_SAMPLES)
    z = jax.vmap(lambda k: target.unconstrain(target.sample(k)))(keys)
    return z, jnp.zeros(z.shape[:1], z.dtype)


def self_normalized(family: Family, params: Params, target: Target, key: KeyArray, num_samples: int | None) -> Draws:
    """Draw from q itself and weight by p̃/q, normalized over the draws.

    The bias falls as 1/n; where the weights collapse on few draws the report says so and the fit is not reliable.
    """

    def one(key: KeyArray) -> tuple[Array, Array]:
        z, log_q = distributions.sample_and_log_prob(family.dist(params), key)
        return z, target.log_density(z) - log_q

    return jax.vmap(one)(jax.random.split(key, num_samples or DEFAULT_NUM_SAMPLES))


def _weighted(target: Target, draws: PyTree, log_weights: Array | None, key: KeyArray, num: int | None) -> Draws:
    leaves = [jnp.asarray(variable) for variable in target.layout.treedef.flatten_up_to(draws)]
    lengths = {variable.shape[:1] for variable in leaves}
    if len(lengths) != 1 or () in lengths:
        shapes = [variable.shape for variable in leaves]
        raise ValueError(f"draws: every variable needs the same leading axis of n draws, got shapes {shapes}")
    z = jax.vmap(target.unconstrain)(target.layout.treedef.unflatten(leaves))
    weights = jnp.zeros(z.shape[:1], z.dtype) if log_weights is None else log_weights.astype(z.dtype)
    if weights.shape != z.shape[:1]:
        raise ValueError(f"log_weights: expected one a draw, shape {z.shape[:1]}, got {weights.shape}")
    if num is None or num >= z.shape[0]:
        return z, weights
    chosen = jax.random.categorical(key, weights, shape=(num,))
    return z[chosen], jnp.zeros((num,), z.dtype)


def _target_draws(family: Family, params: Params, target: Target, key: KeyArray, num_samples: int | None) -> Draws:
    """Use the draws that the target was made from."""
    del family, params
    return _weighted(target, target.draws, target.draws_log_weights, key, num_samples)


@configuration
class given:
    """Draws of p from elsewhere, in the user's own space, weighted or not.

    Args:
        draws: a pytree shaped like the target's `like`, with a leading axis of n draws.
        log_weights: log importance weights, shape (n,), up to a constant.

    Raises:
        ValueError: for weights that are NaN, infinite or all zero.
    """

    draws: PyTree = leaf()
    log_weights: Array | None = leaf(default=None)

    def __post_init__(self) -> None:
        """Check the weights, where they are known."""
        check_log_weights(self.log_weights)

    def __call__(self, family: Family, params: Params, target: Target, key: KeyArray, num_samples: int | None) -> Draws:
        """Return all draws with their weights, or `num_samples` of them resampled by weight."""
        del family, params
        return _weighted(target, self.draws, self.log_weights, key, num_samples)

    def __repr__(self) -> str:
        return "given"


@configuration
class ForwardKL:
    r"""KL(p‖q) up to the entropy of p: the cross-entropy, minimized. Mass-covering: q is wide where p is.

    $$ H(p, q) = -E_p[\log q(z)] = KL(p\|q) + H(p) \approx -\sum_i \bar w_i \log q(z_i) $$

    Args:
        family: the family of q.
        draws: where draws of p come from: `exact`, `given(draws, log_weights)`, `self_normalized`, `pareto_smoothed`,
            `tempered(fraction)` or `annealed(num_temperatures)`; None takes the first of the first three that the
            target offers, and the report says which.
        num_samples: draws a call; None takes all given draws, else 128.

    The gradient is unbiased with exact draws, unbiased for the weighted sample with given ones, and biased by O(1/n)
    with self-normalized weights. A call costs no evaluation of the density with exact or given draws, else
    `num_samples`.

    Source: Naesseth, Lindsten and Blei, "Markovian Score Climbing", 2020, https://arxiv.org/abs/2003.10374
    """

    family: Family
    draws: DrawsSource | None = None
    num_samples: int | None = None

    def __post_init__(self) -> None:
        """Check the number of draws and the kinds of the arguments."""
        if self.num_samples is not None:
            check_count("num_samples", self.num_samples)
        if not isinstance(self.family, Family):
            raise TypeError(f"family: expected one of vi_kit.families, got {self.family!r}")
        if self.draws is not None and not callable(self.draws):
            raise TypeError(
                "draws: expected vk.objectives.exact, vk.objectives.self_normalized or vk.objectives.given(draws), "
                f"got {type(self.draws).__name__}"
            )

    def source(self, target: Target) -> DrawsSource:
        """Return where the draws come from for this target."""
        if self.draws is not None:
            return self.draws
        if target.has_sampler:
            return exact
        return _target_draws if target.draws is not None else self_normalized

    def evaluations(self, target: Target) -> int:
        """Target evaluations a call costs."""
        source = self.source(target)
        num = self.num_samples or DEFAULT_NUM_SAMPLES
        if source in (exact, _target_draws) or isinstance(source, given):
            return 0
        own = getattr(source, "evaluations", None)
        return num if own is None else int(own(num))

    def describe(self, target: Target) -> str:
        """Say in words what is minimized, for reports."""
        source = self.source(target)
        words: dict[DrawsSource, str] = {exact: "exact draws", self_normalized: "self-normalized importance weights"}
        kind = "given draws" if source is _target_draws or isinstance(source, given) else words.get(source)
        return f"forward KL(p‖q), {kind or display(source)}"

    def __call__(self, params: Params, target: Target, key: KeyArray, *, step: int | Int[Array, ""] = 0) -> Scalar:
        """Return the cross-entropy −E_p[log q], in nats."""
        del step
        z, log_weights = self.source(target)(self.family, params, target, key, self.num_samples)
        if z.shape[1] != self.family.dim:
            raise ValueError(f"family: its dim is {self.family.dim}, but the target's is {z.shape[1]}")
        weights = jax.nn.softmax(log_weights)
        # A draw of zero weight may lie outside the support, where z is NaN: it must not spoil value or gradient.
        z = jnp.where((weights > 0)[:, None], z, jnp.zeros_like(z))

        # Draws and weights are held fixed by this rule and not by stop_gradient, which would cut second derivatives.
        @jax.custom_jvp
        def cross_entropy(params: Params, z: Array, weights: Array) -> Scalar:
            log_q = jax.vmap(lambda event: distributions.log_prob(self.family.dist(params), event))(z)
            return -jnp.sum(jnp.where(weights > 0, weights * log_q, jnp.zeros_like(log_q)))

        @cross_entropy.defjvp
        def _(primals: tuple[Params, Array, Array], tangents: tuple[Params, Array, Array]) -> tuple[Scalar, Scalar]:
            _, z, weights = primals
            return jax.jvp(lambda p: cross_entropy.fun(p, z, weights), primals[:1], tangents[:1])

        return cross_entropy(params, z, weights)
