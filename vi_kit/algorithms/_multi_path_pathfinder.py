"""Several paths of Pathfinder from dispersed starts; q is the mixture of what they find."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vi_kit._static import configuration, leaf
from vi_kit._types import KeyArray, StepInfo, Target
from vi_kit.algorithms._pathfinder import Pathfinder, PathfinderState
from vi_kit.families import FullRank, Mixture, MixtureParams

_DEFAULT_RADIUS = 2.0
_LEFT_OUT = -1e4  # a logit whose weight is zero in any precision, and finite


class MultiPathPathfinderState(NamedTuple):
    """What several paths remember.

    Attributes:
        paths: their states, with a leading axis of paths; `paths.elbo` is −infinity where a path found no Gaussian.
        logits: of the start, for while no path has found one.
    """

    paths: PathfinderState
    logits: Float[Array, " paths"]

    @property
    def found(self) -> Bool[Array, " paths"]:
        """Whether a path has found a Gaussian with a finite ELBO; one that has not is left out of q."""
        return jnp.isfinite(self.paths.elbo)


@configuration
class MultiPathPathfinder:
    r"""Pathfinder from several dispersed starts; q is the mixture, in equal shares, of the paths' best Gaussians.

    $$ q(z) = \frac1M \sum_m q_m(z), \quad w(z) = \tilde p(z) / q(z) $$

    As draws of the paths are pooled in equal shares, so are those of q, and `vk.fit(...).resample(key, n)` draws them
    again by their Pareto-smoothed weights; `report.khat` says whether to trust that. The weights have the mixture
    below (the balance heuristic), not, as in the paper, the Gaussian of a draw's own path: then every path that ends at
    a mode adds that mode's mass once more, and modes get the shares of their basins. Weights of the mixture are right
    however many paths end at a mode, and vary less.

    Args:
        family: `vk.families.Mixture(dim, num_paths, component=vk.families.FullRank)`, a component for each path.
        num_samples: draws for an ELBO, as for `vk.algorithms.Pathfinder`.
        memory_size: moves that L-BFGS remembers, likewise.
        radius: how far a path begins from its component's mean in each coordinate, at most (uniformly); None: 2, as
            Stan's chains begin. 0 begins at the means.

    All paths go together, in one program: a step looks at one point of each, at a cost of num_paths (1 + num_samples)
    evaluations, and tells of the path that is highest there. A path that finds no Gaussian with a finite ELBO has
    weight zero in q and is False in `state.found`; while there is none at all, parameters are those of the start.

    Raises:
        TypeError: for another family.
        ValueError: for no draws or no memory.

    Source: Zhang, Carpenter, Gelman and Vehtari, "Pathfinder: Parallel Quasi-Newton Variational Inference", 2022,
    https://arxiv.org/abs/2108.03782; Veach and Guibas, "Optimally Combining Sampling Techniques for Monte Carlo
    Rendering", 1995, https://doi.org/10.1145/218380.218498

    Example:
        >>> import jax, jax.numpy as jnp, vi_kit as vk
        >>> target = vk.make_target(lambda x: jnp.logaddexp(*(-0.5 * jnp.sum((x - m) ** 2) for m in (-4, 4))), 2)
        >>> family = vk.families.Mixture(2, 8, component=vk.families.FullRank)
        >>> algorithm = vk.algorithms.MultiPathPathfinder(family)
        >>> posterior = vk.fit(jax.random.key(0), target, algorithm, num_steps=20, progress=False)
        >>> draws = posterior.resample(jax.random.key(1), 1_000)
        >>> bool(0.4 < jnp.mean(draws[:, 0] > 0) < 0.6), posterior.report.reliable
        (True, True)
    """

    family: Mixture
    num_samples: int = 10
    memory_size: int = 10
    radius: float | Array | None = leaf(default=None)

    def __post_init__(self) -> None:
        """Check the family and the counts."""
        if not isinstance(self.family, Mixture) or not isinstance(self.family.component(self.family.dim), FullRank):
            raise TypeError(
                "family: expected vk.families.Mixture(dim, num_paths, component=vk.families.FullRank), got "
                f"{self.family!r}"
            )
        self._path.evaluations(None)  # type: ignore[arg-type]

    @property
    def _path(self) -> Pathfinder:
        return Pathfinder(FullRank(self.family.dim), self.num_samples, self.memory_size)

    def evaluations(self, target: Target) -> int:
        """Target evaluations a step costs."""
        return self.family.num_components * self._path.evaluations(target)

    def init(self, params: MixtureParams, target: Target, key: KeyArray) -> MultiPathPathfinderState:
        """Return the first state, which is to look at the dispersed starts."""
        start_key, key = jax.random.split(key)
        starts = params.components.mean
        radius = jnp.asarray(_DEFAULT_RADIUS if self.radius is None else self.radius, starts.dtype)
        away = radius * jax.random.uniform(start_key, starts.shape, starts.dtype, -1, 1)
        keys = jax.random.split(key, self.family.num_components)

        def begin(components: object, start: Array, key: KeyArray) -> PathfinderState:
            path = self._path.init(components._replace(mean=start), target, key)  # type: ignore[attr-defined]
            return path._replace(params=components)  # type: ignore[arg-type]

        return MultiPathPathfinderState(jax.vmap(begin)(params.components, starts + away, keys), params.logits)

    def step(
        self, state: MultiPathPathfinderState, target: Target, key: KeyArray
    ) -> tuple[MultiPathPathfinderState, StepInfo]:
        """Look at one point of every path."""
        keys = jax.random.split(key, self.family.num_components)
        paths, info = jax.vmap(lambda path, key: self._path.step(path, target, key))(state.paths, keys)
        lowest = jnp.argmin(jnp.where(info.finite, info.loss, jnp.inf))
        return state._replace(paths=paths), jax.tree.map(lambda leaf: leaf[lowest], info)

    def params(self, state: MultiPathPathfinderState) -> MixtureParams:
        """Read the parameters off a state."""
        shares = jnp.where(state.found, 0, jnp.full_like(state.logits, _LEFT_OUT))
        return MixtureParams(state.paths.params, jnp.where(jnp.any(state.found), shares, state.logits))
