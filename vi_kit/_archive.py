"""Reading what was saved as arrays: no pickle, and one error for all the ways in which a file can be damaged."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

# What numpy, json, zipfile and zlib raise for bytes that are not what was written.
_DAMAGES = (
    ValueError, KeyError, OSError, EOFError, TypeError, AttributeError, NotImplementedError, RuntimeError,
    OverflowError, MemoryError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class DamagedError(ValueError):
    """The file is not what was written."""


def read_archive(file: Path, record: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the JSON object that an npz file keeps as `record`, and the other arrays by name.

    Raises:
        DamagedError: when it cannot be read as that.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            meta = json.loads(str(stored[record]))
            arrays = {name: stored[name] for name in stored.files if name != record}
    except _DAMAGES as error:
        raise DamagedError(f"{file} cannot be read") from error
    if not isinstance(meta, dict):
        raise DamagedError(f"{file} has no record")
    return meta, arrays
