"""Images to train on: scikit-learn's digits, or a local file in the usual npz layouts of MNIST."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import workbench

_LAYOUTS = ("x_train", "x_test"), ("train", "valid", "test")


class Images(NamedTuple):
    """Images as rows of pixels in [0, 1], and what the test images show (None where the file does not say)."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray | None


def digits() -> Images:
    """Return the 8×8 digits, dealt once: 1,258 to train on, 180 to choose with, 359 to report on."""
    parts = workbench.digits()
    return Images(*(part["image"].reshape(-1, 64) for part in parts), parts.test["label"])


def from_file(path: Path) -> Images:
    """Read x_train and x_test (the last sixth of x_train is for validation), or train, valid and test.

    Images are (n, 28, 28) or (n, 784), from 0 to 255 or from 0 to 1. Another file is refused by one sentence.
    """
    found = _read(path)
    labels = found.pop("y_test", None)
    parts = {name: _rows(path, name, array) for name, array in found.items()}
    if max(float(rows.max()) for rows in parts.values()) > 1:
        parts = {name: rows / np.float32(255) for name, rows in parts.items()}
    if "valid" in parts:
        train, validation, test = parts["train"], parts["valid"], parts["test"]
    else:
        kept = len(parts["x_train"]) - max(1, len(parts["x_train"]) // 6)
        train, validation, test = parts["x_train"][:kept], parts["x_train"][kept:], parts["x_test"]
        if not kept:
            workbench.stop(f"{path}: x_train: expected at least two images, got one")
    if labels is not None and labels.shape != (len(test),):
        workbench.stop(f"{path}: y_test: expected one label for each of {len(test)} images, got shape {labels.shape}")
    return Images(train, validation, test, labels)


def digest(images: Images) -> str:
    """Return twelve hex digits that follow from the images alone: files of one name may hold others."""
    found = hashlib.sha256()
    for rows in images[:3]:
        found.update(f"{rows.dtype} {rows.shape}".encode())
        found.update(np.ascontiguousarray(rows).tobytes())
    return found.hexdigest()[:12]


def binarized(images: np.ndarray, seed: int) -> np.ndarray:
    """Draw every pixel once, so that all models are judged on the same rows."""
    noise = np.random.default_rng(seed).random(images.shape, np.float32)
    return (noise < images).astype(np.float32)


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        workbench.stop(f"{path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as file:
            names = [layout for layout in _LAYOUTS if set(layout) <= set(getattr(file, "files", ()))]
            if names:
                wanted = {*names[0]} | ({"y_test"} & set(file.files) if names[0] == _LAYOUTS[0] else set())
                return {name: file[name] for name in sorted(wanted)}
            held = ", ".join(getattr(file, "files", ())) or "no named arrays"
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile):
        held = "something that is no npz file of numbers"
    workbench.stop(f"{path}: expected an npz file with x_train and x_test, or train, valid and test, got {held}")
    return {}


def _rows(path: Path, name: str, array: Any) -> np.ndarray:
    numeric = array.dtype.kind in "buif"
    fits = array.ndim >= 2 and len(array) > 0 and array.shape[1:] in ((28, 28), (784,), (28, 28, 1))
    if not (numeric and fits):
        found = f"{array.dtype} of shape {array.shape}"
        workbench.stop(f"{path}: {name}: expected numbers of shape (n, 28, 28) or (n, 784), got {found}")
    rows = array.reshape(len(array), -1).astype(np.float32)
    if not (rows.min() >= 0 and rows.max() <= 255):
        workbench.stop(
            f"{path}: {name}: expected pixels from 0 to 255 or from 0 to 1, got {rows.min()} to {rows.max()}"
        )
    return rows
