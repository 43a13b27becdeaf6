"""The folder of a run: where it goes, what it may replace, and files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUNS = Path("runs")
REPORT = "report.json"
OWN_FILES = (REPORT, "draws.npz", "elbo.png", "marginals.png", "compare.png")


class OutputRefused(Exception):
    """The run cannot go where it was asked to; the message is one sentence for the user."""


@dataclass(frozen=True)
class Destination:
    """Where a run will be written, decided before the fit and made only when there is something to write.

    Attributes:
        folder: the folder; with `numbered`, the first of folder, folder-2, folder-3 … that is free.
        numbered: whether to step aside for an earlier run.
    """

    folder: Path
    numbered: bool

    def write(self, files: Mapping[str, bytes]) -> Path:
        """Write the files, `report.json` last, and return the folder.

        Each file appears whole or not at all; files of an earlier run that this one does not have are
        removed, and nothing else in the folder is touched.

        Raises:
            OSError: when it cannot be written; what this call made is then removed again.
        """
        folder, made = self._claim()
        earlier = _earlier_files(folder)
        staged: dict[str, Path] = {}
        try:
            # A full disk shows here, before anything of an earlier run is replaced.
            for name in sorted(files, key=lambda name: name == REPORT):
                staged[name] = _stage(folder / name, files[name])
            for name, path in staged.items():
                path.replace(folder / name)
        except BaseException:
            for path in staged.values():
                path.unlink(missing_ok=True)
            if made:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise
        for name in earlier - set(files):
            (folder / name).unlink(missing_ok=True)
        return folder

    def _claim(self) -> tuple[Path, bool]:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        if not self.numbered:
            made = not self.folder.is_dir()
            self.folder.mkdir(exist_ok=True)
            return self.folder, made
        for number in itertools.count(1):
            folder = self.folder if number == 1 else self.folder.with_name(f"{self.folder.name}-{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder, True
        raise AssertionError("count() does not end")


def plan(name: str, out: Path | None, *, overwrite: bool) -> Destination:
    """Decide where a run goes, and refuse before the fit what would be refused after it.

    Args:
        name: the run's short name, used where `out` is None.
        out: the folder asked for.
        overwrite: whether an earlier run there may be replaced.

    Raises:
        OutputRefused: when `out` holds a run and `overwrite` is not set, is no folder or is not writable.
    """
    folder = RUNS / name if out is None else out
    if folder.exists() and not folder.is_dir() and (out is not None or overwrite):
        raise OutputRefused(f"--out: {folder} is a file, not a folder")
    held = [own for own in OWN_FILES if (folder / own).exists()]
    if out is not None and held and not overwrite:
        raise OutputRefused(
            f"--out: {folder} already holds a run ({', '.join(held)}); give another folder, or --overwrite "
            "to replace it"
        )
    numbered = out is None and not overwrite
    candidates = (*(() if numbered else (folder,)), *folder.absolute().parents)
    above = next(path for path in candidates if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise OutputRefused(f"--out: {folder} cannot be written, for {above} is not a folder that you may write to")
    return Destination(folder, numbered=numbered)


def _earlier_files(folder: Path) -> set[str]:
    """Names of the files that an earlier run left, as its own report lists them."""
    try:
        listed = json.loads((folder / REPORT).read_text(encoding="utf-8"))["files"]
        return set(OWN_FILES) & set(listed)
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _stage(path: Path, content: bytes) -> Path:
    """Write beside the final name, ready to be renamed to it."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp makes files private
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def plain(value: Any) -> Any:
    """Return plain dicts, lists, strings and numbers; what is not finite becomes None, as JSON demands."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def as_json(report: Mapping[str, Any]) -> bytes:
    """Return a report as indented JSON."""
    return (json.dumps(plain(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
