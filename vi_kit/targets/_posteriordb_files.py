"""Where a folder keeps a posterior's data and reference draws: a flat folder, or a clone of posteriordb.

The two layouts:

    DIR/NAME/data.json, DIR/NAME/reference.json, DIR/draws.npz
    DIR[/posterior_database]/posteriors/NAME.json, data/data/*.json.zip,
        reference_posteriors/draws/draws/*.json.zip
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vi_kit.targets._reference import Reference, reference_from_draws, zero_based_label

HOW_TO_GET_IT = "clone https://github.com/stan-dev/posteriordb and give the clone's folder"


class FlatFolder:
    """A folder with one subfolder a posterior: plain JSON, and the draws of all of them in one npz."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def has(self, name: str) -> bool:
        """Whether the folder holds this posterior."""
        return (self.root / name / "data.json").is_file()

    def data(self, name: str) -> dict[str, Any]:
        """Read the data."""
        return _load_object(self.root / name / "data.json", f"the data of {name}")

    def reference(self, name: str) -> Reference | None:
        """Read the reference answers, or None where there are none."""
        path = self.root / name / "reference.json"
        if not path.is_file():
            return None
        answers = _load_object(path, f"the reference answers of {name}")
        labels = [zero_based_label(quantity) for quantity in answers["quantities"]]
        levels = np.asarray(answers["quantiles_5_50_95"], dtype=np.float64).T
        computed = answers.get("computed_here", {})
        provenance = str(answers.get("source", "posteriordb reference draws"))
        if "log_Z" in computed:
            provenance += "; log Z by bridge sampling"
        return Reference(
            mean=dict(zip(labels, answers["mean"], strict=True)),
            sd=dict(zip(labels, answers["sd"], strict=True)),
            quantiles={
                label: (float(low), float(median), float(high))
                for label, (low, median, high) in zip(labels, levels, strict=True)
            },
            log_normalizer=computed.get("log_Z"),
            log_normalizer_standard_error=computed.get("log_Z_se"),
            draws=self._draws(name, labels),
            provenance=provenance,
        )

    def _draws(self, name: str, labels: list[str]) -> dict[str, np.ndarray] | None:
        path = self.root / "draws.npz"
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as archive:
            if name not in archive:
                return None
            columns = archive[name]
        return {label: columns[:, i] for i, label in enumerate(labels)}


class Clone:
    """A clone of posteriordb: zipped JSON, found through the posterior's own entry."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def has(self, name: str) -> bool:
        """Whether the clone holds this posterior."""
        return (self.root / "posteriors" / f"{name}.json").is_file()

    def _entry(self, name: str) -> dict[str, Any]:
        path = self.root / "posteriors" / f"{name}.json"
        return _load_object(path, f"the posteriordb entry of {name}")

    def data(self, name: str) -> dict[str, Any]:
        """Read the data."""
        path = self.root / "data" / "data" / f"{self._entry(name)['data_name']}.json"
        return _object(_load_zipped_json(path, f"the data of {name}"), path)

    def reference(self, name: str) -> Reference | None:
        """Summarize the reference draws, or None where posteriordb has none."""
        draws_name = self._entry(name).get("reference_posterior_name")
        if not draws_name:
            return None
        path = self.root / "reference_posteriors" / "draws" / "draws" / f"{draws_name}.json"
        chains: list[Mapping[str, list[float]]] = _load_zipped_json(path, f"the reference draws of {name}")
        draws = {
            zero_based_label(quantity): np.concatenate([np.asarray(chain[quantity]) for chain in chains])
            for quantity in chains[0]
        }
        provenance = f"posteriordb reference draws {draws_name} ({len(chains)} chains)"
        return reference_from_draws(draws, provenance=provenance)


def open_directory(directory: str | os.PathLike[str]) -> FlatFolder | Clone:
    """Find out which of the two layouts a folder has.

    Args:
        directory: The folder; for a clone its root or the posterior_database folder in it.

    Returns:
        Something with `has`, `data` and `reference`.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    root = Path(directory).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"directory: there is no folder {os.fspath(directory)!r}; {HOW_TO_GET_IT}.")
    for candidate in (root / "posterior_database", root):
        if (candidate / "posteriors").is_dir():
            return Clone(candidate)
    return FlatFolder(root)


def _load_json(path: Path, what: str) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"directory: looked for {what} in {path}, which is not there; {HOW_TO_GET_IT}.")
    return _parse(path.read_text(encoding="utf-8"), path)


def _load_object(path: Path, what: str) -> dict[str, Any]:
    return _object(_load_json(path, what), path)


def _object(values: Any, path: Path) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ValueError(f"directory: {path} should hold a JSON object, got {type(values).__name__}.")
    return values


def _load_zipped_json(path: Path, what: str) -> Any:
    zipped = path.with_name(path.name + ".zip")
    if not zipped.is_file():  # unpacked, or not there
        return _load_json(path if path.is_file() else zipped, what)
    if not zipfile.is_zipfile(zipped):
        raise ValueError(f"directory: {zipped} should be a zip archive, which it is not; {HOW_TO_GET_IT}.")
    with zipfile.ZipFile(zipped) as archive:
        members = [member for member in archive.namelist() if Path(member).name == path.name]
        if len(members) != 1:
            raise ValueError(f"directory: {zipped} should hold one {path.name}, got {archive.namelist()}.")
        return _parse(archive.read(members[0]), zipped)


def _parse(text: str | bytes, path: Path) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"directory: {path} should hold JSON, which it does not ({error}).") from None
