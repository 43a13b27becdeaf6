"""posteriordb's posteriors: their log densities in JAX, with data and reference answers read from a folder.

Source: Magnusson, Torgander, Bürkner, Zhang, Carpenter, Vehtari, "posteriordb: Testing, Benchmarking and
Developing Bayesian Inference Algorithms", 2024, arXiv 2407.04967; https://github.com/stan-dev/posteriordb
(BSD 3-clause). Neither its model code nor its data are part of vi_kit.
"""

from __future__ import annotations

import os

from vi_kit._types import Target
from vi_kit.targets._models import MODELS, RawData
from vi_kit.targets._names import unknown_name
from vi_kit.targets._posteriordb_files import HOW_TO_GET_IT, Clone, FlatFolder, open_directory
from vi_kit.targets._reference import Reference


def posteriordb_names() -> tuple[str, ...]:
    """List the posteriordb posteriors whose log density vi_kit carries.

    Returns:
        Full names, sorted.

    Example:
        >>> posteriordb_names()[:2]
        ('arK-arK', 'earnings-logearn_interaction')
    """
    return tuple(sorted(MODELS))


def posteriordb(name: str, directory: str | os.PathLike[str]) -> Target:
    """Build a posteriordb posterior from its data in a folder.

    The density is that of the Stan model with every constant kept: a prior on a positive quantity is not
    renormalized, and a flat prior adds 0. The variables are Stan's, but for `garch-garch11`, which has
    beta1_fraction = beta1 / (1 − alpha1) with fixed bounds, and beta1 derived.

    Args:
        name: The posterior's name, as "arK-arK", or the part before or after its dash where only one
            has it, as "arK".
        directory: A clone of posteriordb (its root or posterior_database), or a folder with NAME/data.json.

    Returns:
        The target, over the model's own variables.

    Raises:
        ValueError: If vi_kit carries no such model, or the data do not fit it.
        FileNotFoundError: If the folder or the data are not there.
    """
    full, files = _find(name, directory)
    return MODELS[full](RawData(full, files.data(full))).target()


def posteriordb_reference(name: str, directory: str | os.PathLike[str]) -> Reference | None:
    """Read the reference answers of a posteriordb posterior.

    Args:
        name: As in `posteriordb`.
        directory: As in `posteriordb`.

    Returns:
        Means, sds, quantiles and draws under zero-based labels of variables and derived quantities, and log Z
        where the folder has it (a clone has none). None where there are no reference draws.

    Raises:
        ValueError: If vi_kit carries no such model.
        FileNotFoundError: If the folder or a file in it is not there.
    """
    full, files = _find(name, directory)
    return files.reference(full)


def _find(name: str, directory: str | os.PathLike[str]) -> tuple[str, FlatFolder | Clone]:
    files = open_directory(directory)
    full = _resolve(name, files)
    if not files.has(full):
        raise FileNotFoundError(
            f"directory: looked for posterior {full!r} in {os.fspath(directory)!r}, which does not hold it; "
            f"{HOW_TO_GET_IT}."
        )
    return full, files


def _resolve(name: str, files: FlatFolder | Clone) -> str:
    if name in MODELS:
        return name
    if files.has(name):
        raise ValueError(
            f"name: the folder holds posterior {name!r}, but vi_kit carries no log density for it; "
            f"it carries {', '.join(posteriordb_names())}."
        )
    fits = [full for full in posteriordb_names() if name in full.split("-", 1)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise ValueError(f"name: {name!r} may mean any of {', '.join(fits)}; give one of them in full.")
    raise unknown_name(name, posteriordb_names(), "posteriordb model")
