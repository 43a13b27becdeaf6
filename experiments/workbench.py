"""What the experiments that train models share: data, minibatches, runs that resume, numbers with errors.

None of it is about KL divergence; that part each experiment imports from `vi_kit`.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Split(NamedTuple):
    """Rows to train on, to choose with, and to report on."""

    train: Any
    validation: Any
    test: Any


def stop(sentence: str) -> None:
    """End the program with one sentence and no traceback."""
    raise SystemExit(sentence)


def require(*packages: str) -> None:
    """Say which extra is missing, before anything has been computed."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError:
            stop(f"{package} is not installed: pip install -e '.[models]' brings it")


def split(rows: Any, *, seed: int = 0, validation: float = 0.1, test: float = 0.2) -> Split:
    """Deal rows (a tree of arrays with one leading axis) to three parts, the same with the same seed."""
    import jax

    size = len(jax.tree.leaves(rows)[0])
    order = np.random.default_rng(seed).permutation(size)
    first, second = round(size * test), round(size * (test + validation))
    parts = order[second:], order[first:second], order[:first]
    return Split(*(jax.tree.map(lambda leaf: np.asarray(leaf)[part], rows) for part in parts))  # noqa: B023


def digits(*, seed: int = 0) -> Split:
    """Load scikit-learn's 1,797 handwritten digits: images (n, 8, 8) in [0, 1] and labels (n,)."""
    require("sklearn")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    rows = {"image": (bunch.images / 16.0).astype(np.float32), "label": bunch.target.astype(np.int32)}
    return split(rows, seed=seed)


def minibatches(rows: Any, size: int, *, seed: int, epochs: int | None = None) -> Iterator[Any]:
    """Yield shuffled batches of one size, epoch after epoch; the rows that do not fill a batch wait for another epoch.

    Which batch comes at which step depends on the seed alone, so a resumed run can skip to where it was.
    """
    import jax

    total = len(jax.tree.leaves(rows)[0])
    if not 0 < size <= total:
        stop(f"batch size: expected 1 to {total}, the number of rows, got {size}")
    epoch = 0
    while epochs is None or epoch < epochs:
        order = np.random.default_rng((seed, epoch)).permutation(total)
        for start in range(0, total - size + 1, size):
            chosen = order[start : start + size]
            yield jax.tree.map(lambda leaf: leaf[chosen], rows)  # noqa: B023
        epoch += 1


class Run:
    """A folder that a run writes to and goes on from: its settings, finished rows and checkpoints.

    A folder that was begun with other settings is refused and left as it is. Files are replaced whole, so that a
    run that is killed while it writes leaves the last good ones.
    """

    def __init__(self, folder: Path, settings: Any) -> None:
        """Begin, or go on if the settings (a dataclass) are those that the folder was begun with."""
        self.folder = folder
        stated = json.loads(json.dumps(dataclasses.asdict(settings)))
        path = folder / "settings.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            stop(f"{folder}: expected a folder to keep the run in, got a file, or a place below one")
        if path.exists():
            there, here = dotted(_settings(path)), dotted(stated)
            if there != here:
                names = sorted(k for k in there.keys() | here.keys() if there.get(k) != here.get(k))
                differ = ", ".join(f"{k} = {there.get(k)} there and {here.get(k)} here" for k in names)
                stop(f"{folder} holds a run with other settings ({differ}): name another folder or remove that one")
        write(path, json.dumps(stated, indent=1))

    def row(self, name: str) -> dict[str, Any] | None:
        """Return a row that was finished before, if there is one."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def finish(self, name: str, row: dict[str, Any]) -> None:
        """Keep a finished row."""
        write(self.folder / f"{name}.json", json.dumps(row, indent=1))

    def save(self, name: str, tree: Any) -> None:
        """Keep a tree of arrays (and typed keys), such as parameters, optimizer state and step."""
        import jax

        leaves = [jax.random.key_data(leaf) if is_key(leaf) else leaf for leaf in jax.tree.leaves(tree)]
        path = self.folder / f"{name}.npz"
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, *map(np.asarray, leaves))
        os.replace(partial, path)

    def restore(self, name: str, like: Any) -> Any:
        """Return the tree that was saved under a name, shaped like `like`, or None."""
        import jax

        path = self.folder / f"{name}.npz"
        if not path.exists():
            return None
        old, structure = jax.tree.flatten(like)
        with np.load(path, allow_pickle=False) as found:
            new = [found[f"arr_{i}"] for i in range(len(found.files))]
        if [np.shape(jax.random.key_data(leaf) if is_key(leaf) else leaf) for leaf in old] != [
            leaf.shape for leaf in new
        ]:
            stop(f"{path} was not written by this program: its arrays have other shapes")
        pairs = zip(old, new, strict=True)
        return structure.unflatten(
            [jax.random.wrap_key_data(leaf) if is_key(model) else jax.numpy.asarray(leaf) for model, leaf in pairs]
        )


def dotted(settings: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Flatten nested settings: {"long": {"rate": 1}} becomes {"long.rate": 1}."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, dict) and value
        flat |= dotted(value, f"{above}{name}.") if nested else {f"{above}{name}": value}
    return flat


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (ValueError, OSError):  # ValueError: neither UTF-8 nor JSON
        found = None
    if not isinstance(found, dict):
        stop(f"{path}: expected the settings of a run, got something damaged: name another folder or remove that one")
    return found


def is_key(leaf: Any) -> bool:
    """Tell whether a leaf is an array of typed random keys."""
    import jax

    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def write(path: Path, text: str) -> None:
    """Replace a text file whole."""
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(text + "\n")
    os.replace(partial, path)


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Return mean and standard error over seeds, with the values themselves."""
    array = np.asarray(values, float)
    error = float(array.std(ddof=1) / np.sqrt(len(array))) if len(array) > 1 else None
    return {"mean": float(array.mean()), "standard_error": error, "values": [float(v) for v in array]}


def machine() -> dict[str, Any]:
    """Say what the numbers were measured with."""
    import jax

    return {"device": jax.devices()[0].device_kind, "cores": os.cpu_count(), "jax": jax.__version__} | {
        "python": platform.python_version()
    }


def update_readme(readme: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- end of name -->`."""
    before, rest = readme.read_text().split(f"<!-- {name} -->\n", 1)
    _, after = rest.split(f"<!-- end of {name} -->", 1)
    write(readme, f"{before}<!-- {name} -->\n\n{text.strip()}\n\n<!-- end of {name} -->{after}".rstrip("\n"))
