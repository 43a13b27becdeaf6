"""`Posterior`: the result of a fit, on the host, in the user's own space."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from vi_kit import _distributions as distributions
from vi_kit._archive import DamagedError, read_archive
from vi_kit._family_record import describe, restore
from vi_kit._types import Estimate, Family, KeyArray, Params, Scalar, Target, check_key
from vi_kit._weights import effective_sample_size, khat_threshold, pareto_smooth
from vi_kit.diagnostics._draws import Draws, coordinates, draw, summarize
from vi_kit.diagnostics._error_bounds import WassersteinBounds
from vi_kit.diagnostics._report import Coordinate, Report

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_FORMAT = 1
_EVEN = 0.9  # of the draws, that weights are worth where a few of them cannot decide


@dataclass(frozen=True)
class History:
    """How a fit went.

    Attributes:
        loss: the objective at every step, nats.
        elbo_step: steps after which the ELBO was estimated.
        elbo: the estimates, with `elbo_standard_error`; all from the same noise, so their differences are q's.
    """

    loss: np.ndarray
    elbo_step: np.ndarray
    elbo: np.ndarray
    elbo_standard_error: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Posterior:
    """What `vi_kit.fit` returns: draws, moments, density and the report that says how far to believe them.

    Attributes:
        report: the verdict and the numbers behind it; print it.
        history: losses and ELBO estimates along the fit.
        family: the family of q.
        params: its fitted parameters.
        draws: the draws that were judged, shaped like the target's `like` with derived quantities, leading axis n.
        mean: means in the user's space (standard errors are in the report).
        std: standard deviations.
        quantiles: 5, 25, 50, 75 and 95 % quantiles, a leading axis of five.
        covariance: covariance matrix over `labels`.
        labels: names of the coordinates, as in the report.
    """

    report: Report
    history: History
    family: Family
    params: Params
    draws: PyTree
    mean: PyTree
    std: PyTree
    quantiles: PyTree
    covariance: np.ndarray
    labels: tuple[str, ...]
    target: Target | None

    def _target(self, what: str) -> Target:
        if self.target is None:
            raise ValueError(f"{what} needs the target, which a saved fit does not hold: vk.load(path, target=target)")
        return self.target

    def sample(self, key: KeyArray, n: int) -> PyTree:
        """Draw n points of q in the user's space, with derived quantities, leading axis n."""
        check_key(key)
        _check_count(n)
        return draw(key, self._target("sample"), self.family, self.params, n, with_density=False).x

    def resample(self, key: KeyArray, n: int) -> PyTree:
        """Draw n points corrected by Pareto-smoothed importance resampling.

        Fresh draws of q, at least four times as many, are drawn again with probability proportional to their
        smoothed weights p̃/q: at large n the target itself wherever `report.khat` is below its threshold. Costs that
        many evaluations of the density.
        """
        check_key(key)
        _check_count(n)
        target = self._target("resample")
        if not target.has_density:
            raise ValueError("resample needs a log density, and this target was made from draws")
        draw_key, choice_key = jax.random.split(key)
        pool = draw(draw_key, target, self.family, self.params, max(4 * n, 4_096))
        assert pool.log_p is not None, "draws with density were asked for"
        log_weights = np.asarray(pool.log_p, np.float64) - np.asarray(pool.log_q, np.float64)
        usable = np.where(np.isnan(log_weights), -np.inf, log_weights)
        if not (usable > -np.inf).any():
            raise ValueError(
                "resample: the log density is not finite at any draw of q, so there is nothing to draw from"
            )
        smoothed = pareto_smooth(usable - usable.max())
        uneven = float(effective_sample_size(smoothed.log_weights)) < _EVEN * len(usable)
        if uneven and not float(smoothed.khat) < khat_threshold(len(usable)):
            warnings.warn(
                f"resample: Pareto k̂ = {float(smoothed.khat):.2f} is not below {khat_threshold(len(usable)):.2f}; the "
                "corrected draws hang on a few draws of q and are not to be trusted",
                stacklevel=2,
            )
        chosen = np.asarray(
            jax.random.categorical(choice_key, jnp.asarray(smoothed.log_weights, jnp.result_type(float)), shape=(n,))
        )
        return jax.tree.map(lambda leaf: leaf[chosen], pool.x)

    def log_prob(self, x: PyTree) -> Scalar:
        """Return log q at one point of the user's space, in nats, Jacobian included (derived quantities are ignored).

        Use `jax.vmap` for several points.
        """
        target = self._target("log_prob")
        if isinstance(x, dict):
            own = target.constrain(jnp.zeros(target.dim))
            x = type(own)((name, x[name]) for name in own if name in x)
        return _log_prob(target, self.params, x, self.family)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        verdict = "reliable" if self.report.reliable else "not reliable"
        shown = ", ".join(self.labels[:8]) + ", …" * (len(self.labels) > 8)
        return f"Posterior({verdict}, {self.family!r}, variables {shown})"

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> Path:
        """Save draws, parameters, history and report as one compressed npz file, without pickle.

        Raises:
            FileExistsError: when the file exists and `overwrite` is not set.
        """
        file = Path(path)
        file = file if file.suffix == ".npz" else file.with_name(file.name + ".npz")
        if file.exists() and not overwrite:
            raise FileExistsError(f"path: {file} exists; pass overwrite=True to replace it")
        file.parent.mkdir(parents=True, exist_ok=True)
        names = [_leaf_name(p) for p, _ in jax.tree_util.tree_leaves_with_path(self.draws)]
        arrays = {
            f"draws/{name}": np.asarray(leaf) for name, leaf in zip(names, jax.tree.leaves(self.draws), strict=True)
        }
        arrays |= {f"params/{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(self.params))}
        arrays |= {f"history/{f.name}": getattr(self.history, f.name) for f in dataclasses.fields(History)}
        meta = {
            "format": _FORMAT,
            "family": describe(self.family),
            "labels": list(self.labels),
            "names": names,
            "report": self.report.to_dict(),
        }
        with file.open("wb") as stream:
            np.savez_compressed(stream, **{"meta": np.array(json.dumps(meta)), **arrays})  # type: ignore[arg-type]
        return file

    def plot(self, path: str | PathLike[str] | None = None, *, reference: Any = None) -> Any:
        """Draw the marginals and the ELBO over steps; save them where a path is given.

        Returns:
            The matplotlib figure.
        """
        from vi_kit import plots

        return plots.overview(self, path, reference=reference)

    def to_arviz(self) -> Any:
        """Return the draws as arviz inference data (one chain).

        Raises:
            ImportError: when arviz is missing; it comes with the extra `arviz`.
        """
        try:
            import arviz
        except ImportError as error:
            raise ImportError(
                "to_arviz needs arviz, which comes with the extra `arviz`: pip install 'vi_kit[arviz]'"
            ) from error
        leaves = jax.tree_util.tree_leaves_with_path(self.draws)
        draws = {_leaf_name(path): np.asarray(leaf)[None] for path, leaf in leaves}
        if int(arviz.__version__.split(".")[0]) >= 1:
            return arviz.from_dict({"posterior": draws})
        return arviz.from_dict(posterior=draws)


def _leaf_name(path: Any) -> str:
    return ".".join(str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p)))) for p in path) or "x"


def _check_count(n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"n: expected an int of at least 1, got {n!r}")


@partial(jax.jit, static_argnums=(3,))
def _log_prob(target: Target, params: Params, x: PyTree, family: Family) -> Scalar:
    z = target.unconstrain(x)
    inside = jnp.all(jnp.isfinite(z))
    safe = jnp.where(inside, z, jnp.zeros_like(z))
    log_density = distributions.log_prob(family.dist(params), safe) - target.log_jacobian(safe)
    return jnp.where(inside, log_density, -jnp.inf)


@np.errstate(over="ignore", invalid="ignore")  # of quantities that are not finite, which the report names
def make_posterior(
    target: Target | None, family: Family, params: Params, report: Report, history: History, draws: PyTree
) -> Posterior:
    """Compute the moments and pack the result."""
    labels, values = coordinates(draws, target.layout if target is not None else None)
    covariance = np.atleast_2d(np.cov(values.astype(np.float64), rowvar=False))
    return Posterior(
        report=report,
        history=history,
        family=family,
        params=params,
        draws=draws,
        mean=summarize(draws, partial(np.mean, axis=0)),
        std=summarize(draws, partial(np.std, axis=0, ddof=1)),
        quantiles=summarize(draws, lambda leaf: np.quantile(leaf, QUANTILES, axis=0)),
        covariance=covariance,
        labels=labels,
        target=target,
    )


def load(path: str | PathLike[str], target: Target | None = None) -> Posterior:
    """Load a saved fit. Draws, moments and report need no target; sampling and densities do.

    Args:
        path: what `Posterior.save` wrote.
        target: the target it was fitted to.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is not a saved fit, or the target has another dimension.
    """
    file = Path(path)
    if not file.exists():
        file = file.with_name(file.name + ".npz")
    if not file.exists():
        raise FileNotFoundError(f"path: there is no file {path}")
    try:
        meta, arrays = read_archive(file, "meta")
    except DamagedError as error:
        raise ValueError(f"path: {file} is damaged or not a fit saved by Posterior.save") from error
    try:
        family = restore(meta["family"])
    except KeyError as error:
        raise ValueError(f"path: {file} holds a family {error} that this version of vi_kit does not have") from error
    if target is not None and target.dim != family.dim:
        raise ValueError(f"target: the saved fit has dim {family.dim}, the target has {target.dim}")
    structure: Any = jax.tree.structure(jax.eval_shape(family.init, jax.random.key(0)))
    try:
        params = structure.unflatten([jnp.asarray(arrays[f"params/{i}"]) for i in range(structure.num_leaves)])
        leaves = [arrays[f"draws/{n}"] for n in meta["names"]]
        history = History(**{f.name: arrays[f"history/{f.name}"] for f in dataclasses.fields(History)})
    except KeyError as error:
        raise ValueError(f"path: {file} is damaged: it has no {error}") from error
    draws = _shaped(leaves, meta["names"], target)
    posterior = make_posterior(target, family, params, _read_report(meta["report"]), history, draws)
    return posterior if target is not None else dataclasses.replace(posterior, labels=tuple(meta["labels"]))


def _shaped(leaves: list[np.ndarray], names: list[str], target: Target | None) -> PyTree:
    """Put stored draws back into the target's shape; without a target into a dict in the stored order, or an array."""
    if target is not None:
        structure: Any = jax.tree.structure(jax.eval_shape(target.report, jnp.zeros(target.dim)))
        if structure.num_leaves == len(leaves):
            return structure.unflatten(leaves)
    # An ordered dict keeps the stored order in every tree operation, which a dict would sort.
    return leaves[0] if names == ["x"] else OrderedDict(zip(names, leaves, strict=True))


def _read_report(stored: dict[str, Any]) -> Report:
    values = {name: _number(value) for name, value in stored.items()}
    for name in ("elbo", "log_normalizer", "reverse_kl", "upper_bound", "forward_kl"):
        if values.get(name) is not None:
            values[name] = Estimate(*(float(v) for v in values[name].values()))
    if values.get("wasserstein") is not None:
        values["wasserstein"] = WassersteinBounds(*map(float, values["wasserstein"]))
    for name in ("story", "warnings"):
        values[name] = tuple(values.get(name, ()))
    values["coordinates"] = {
        label: Coordinate(**{name: _number(value) for name, value in row.items()})
        for label, row in values["coordinates"].items()
    }
    return Report(**values)


def _number(value: Any) -> Any:
    """Read back the numbers that JSON has no word for."""
    return float(value) if isinstance(value, str) and value in {"inf", "-inf", "nan"} else value


__all__ = ["Draws", "History", "Posterior", "load", "make_posterior"]
