"""Mixtures of members of another family."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vi_kit._static import configuration
from vi_kit._types import Family, KeyArray, Params, check_count
from vi_kit.families._gaussian import check_dim, read_mean
from vi_kit.families._gaussian_forms import gaussian_of
from vi_kit.families._mean_field import MeanField
from vi_kit.families._mixture_distribution import FamilyMixture

_APART = 0.8  # standard deviation of the components' means in a first mixture, of the mixture's own
_SPLIT = 0.1  # the same where a fitted component is split, as a length in its own coordinates


class MixtureParams(NamedTuple):
    """Parameters of a mixture.

    Attributes:
        components: parameters of the components' family, with a leading axis of num_components.
        logits: logarithms of the weights up to a constant, shape (num_components,).
    """

    components: Params
    logits: Float[Array, " num_components"]


@configuration
class Mixture:
    r"""Mixtures over unconstrained z, for targets with several modes or with tails to one side.

    $$ q(z) = \sum_k w_k \, q_k(z), \quad w = softmax(logits) $$

    Which component a draw comes from has no derivative, so draws are not reparameterized: estimators that
    differentiate draws alone are refused, those that take draws of every component (`sample_components`) or the score
    function serve. A density costs `num_components` densities of a component.

    Args:
        dim: number of unconstrained coordinates.
        num_components: number of components.
        component: how to make the components' family from the dimension: a class of `vk.families`, or a partial one
            such as `functools.partial(vk.families.LowRank, rank=2)`.

    Source: Morningstar, Vikram, Ham, Gallagher and Dillon, "Automatic Differentiation Variational Inference with
    Mixtures", 2020, https://arxiv.org/abs/2003.01687

    Example:
        >>> import jax, vi_kit as vk
        >>> family = vk.families.Mixture(2, 3, component=vk.families.FullRank)
        >>> q = family.dist(family.init(jax.random.key(0)))
        >>> q.sample_components(seed=jax.random.key(1)).shape, q.std().round(3).tolist()
        ((3, 2), [1.0, 1.0])
    """

    dim: int
    num_components: int = 2
    component: Callable[[int], Family] = MeanField

    def __post_init__(self) -> None:
        """Check the sizes and the components' family."""
        check_dim(self.dim)
        check_count("num_components", self.num_components)
        made = self.component(self.dim) if callable(self.component) else None
        if not isinstance(made, Family):
            raise TypeError(f"component: expected a family of vi_kit.families, got {self.component!r}")
        fields = getattr(jax.eval_shape(made.init, jax.random.key(0)), "_fields", ())
        if not {"mean", "log_scale"} <= set(fields):
            raise TypeError(f"component: expected a family with parameters mean and log_scale, got {made!r}")

    @property
    def reparameterized(self) -> bool:
        """Draws are not differentiable in the weights."""
        return False

    @property
    def _family(self) -> Any:
        return self.component(self.dim)

    def init(self, key: KeyArray, *, mean: Array | None = None, scale: Array | None = None) -> MixtureParams:
        """Return a mixture of equal weights with this mean (zero) and these standard deviations (one), exactly.

        Its components lie apart: their means are drawn with the key and have a standard deviation of 0.8 of the
        mixture's in each coordinate, so theirs is 0.6 of it. A factor as the scale, where components take one, gives
        its standard deviations to the mixture and its correlations to the components.
        """
        family, center = self._family, read_mean(mean, self.dim)
        whole = family.init(jax.random.clone(key), mean=mean, scale=scale)  # type: ignore[no-untyped-call]
        deviations = family.dist(whole).std()
        means_key, key = jax.random.split(key)
        apart = _APART if self.num_components > 1 else 0.0
        offsets = _standardized(jax.random.normal(means_key, (self.num_components, self.dim), center.dtype))
        own = jnp.asarray(1.0 if scale is None else scale, center.dtype) * math.sqrt(1 - apart**2)
        components = jax.vmap(lambda k, m: family.init(k, mean=m, scale=own))(
            jax.random.split(key, self.num_components), center[None] + apart * deviations[None] * offsets
        )
        return MixtureParams(components, jnp.zeros((self.num_components,), center.dtype))

    def init_from(self, key: KeyArray, distribution: Any) -> MixtureParams:
        """Return a mixture that starts at another family's distribution, with its mean and standard deviations.

        A mixture of as many components: each component starts from one of them, as its own family documents. A mixture
        of fewer, or one distribution: components are split into equal shares, moved by 0.1 of their own width in
        directions drawn with the key, for equal components would stay equal. A mixture of more: its Gaussian is.
        """
        given = distribution
        if isinstance(given, FamilyMixture) and given.num_components > self.num_components:
            given = given.gaussian()
        whole = isinstance(given, FamilyMixture)
        parents = [given.component(k) for k in range(given.num_components)] if whole else [given]
        log_weights = given.log_weights if whole else jnp.zeros((1,), gaussian_of(given, self.dim).mean().dtype)
        shares = np.bincount(np.arange(self.num_components) % len(parents))
        children = [
            _split(self._family, k, parent, share)
            for k, parent, share in zip(jax.random.split(key, len(parents)), parents, shares.tolist(), strict=True)
        ]
        logits = jnp.repeat(log_weights - jnp.log(jnp.asarray(shares, log_weights.dtype)), shares)
        return MixtureParams(jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *children), logits)

    def dist(self, params: MixtureParams) -> FamilyMixture:
        """Build the distribution."""
        return FamilyMixture(jax.nn.log_softmax(params.logits), self._family, params.components)


def _standardized(draws: Float[Array, "n dim"]) -> Float[Array, "n dim"]:
    """Give draws a mean of zero and a variance of one in each coordinate; zeros of a single draw."""
    if len(draws) == 1:
        return jnp.zeros_like(draws)
    centered = draws - jnp.mean(draws, axis=0, keepdims=True)
    return centered / jnp.sqrt(jnp.mean(jnp.square(centered), axis=0, keepdims=True))


def _split(family: Any, key: KeyArray, parent: Any, share: int) -> Params:
    """Return parameters of equal shares of a distribution, a little apart, that keep its mean and deviations."""
    start_key, key = jax.random.split(key)
    params = family.init_from(start_key, parent)
    if share == 1:
        return jax.tree.map(lambda leaf: leaf[None], params)
    q = family.dist(params)
    draws = jax.vmap(lambda k: family.dist(params).sample(seed=k))(jax.random.split(key, share))
    offsets = _SPLIT / math.sqrt(family.dim) * (draws - jnp.mean(draws, axis=0, keepdims=True))
    narrowed = 0.5 * jnp.log1p(-jnp.mean(jnp.square(offsets), axis=0) / jnp.square(q.std()))
    copies = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (share, *leaf.shape)), params)
    return copies._replace(mean=copies.mean + offsets, log_scale=copies.log_scale + narrowed[None])
