"""A file that an interrupted fit goes on from: evaluations that were made, and the state of every run of steps."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_kit._archive import DamagedError, read_archive
from vi_kit._optimize import begin, step
from vi_kit._static import combine, partition
from vi_kit._types import KeyArray, Target

_LEAST_SECONDS = 5.0  # between two writes
_SHARE = 0.02  # of the time, for writing
_PROBES = 2
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Checkpoint:
    """What is kept of a fit; nothing is written over what another fit has left."""

    def __init__(self, path: str | PathLike[str], facts: Mapping[str, str]) -> None:
        """Read the file if there is one.

        Args:
            path: a file; `.npz` is added where it is missing.
            facts: what makes a fit this fit, by name.

        Raises:
            ValueError: when the file is no checkpoint, or that of another fit.
        """
        file = Path(path)
        self.file = file if file.suffix == ".npz" else file.with_name(file.name + ".npz")
        self.facts = dict(facts)
        self.arrays: dict[str, np.ndarray] = {}
        self._written, self._took = time.perf_counter(), 0.0
        self._failed = False
        if self.file.is_dir():
            raise ValueError(f"checkpoint: expected a file, and {self.file} is a folder")
        if self.file.exists():
            self._read()

    def _read(self) -> None:
        try:
            found, arrays = read_archive(self.file, "facts")
        except DamagedError as error:
            raise ValueError(
                f"checkpoint: {self.file} is damaged or was not written by vk.fit; name another file"
            ) from error
        differ = [name for name, fact in self.facts.items() if found.get(name) != fact]
        if differ:
            raise ValueError(
                f"checkpoint: {self.file} belongs to another fit, with another {' and '.join(differ)}; name another "
                "file, or remove it"
            )
        self.arrays = arrays

    # --- evaluations --------------------------------------------------------------------------------------------------

    def recall(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Return values and gradients at these very points, if they were evaluated before."""
        name = f"points/{_digest(points)}"
        found = self.arrays.get(f"{name}/values")
        return None if found is None else (found, self.arrays[f"{name}/gradients"])

    def remember(self, points: np.ndarray, values: np.ndarray, gradients: np.ndarray) -> None:
        """Keep an evaluation."""
        name = f"points/{_digest(points)}"
        self.arrays |= {f"{name}/values": values, f"{name}/gradients": gradients}
        self.write()

    # --- runs of steps ------------------------------------------------------------------------------------------------

    def section(self, name: str) -> dict[str, np.ndarray]:
        """Return what was kept under a name; empty if nothing was."""
        start = f"{name}/"
        return {key.removeprefix(start): array for key, array in self.arrays.items() if key.startswith(start)}

    def keep(self, name: str, arrays: Mapping[str, Any]) -> None:
        """Keep arrays under a name, instead of those that were there."""
        self.arrays = {key: array for key, array in self.arrays.items() if not key.startswith(f"{name}/")}
        self.arrays |= {f"{name}/{key}": np.asarray(array) for key, array in arrays.items()}

    # --- the file -----------------------------------------------------------------------------------------------------

    def is_due(self) -> bool:
        """Tell whether enough time has gone by since the last write."""
        return time.perf_counter() - self._written > max(_LEAST_SECONDS, self._took / _SHARE)

    def write(self, *, now: bool = False) -> None:
        """Replace the file whole, if that is due."""
        if not (now or self.is_due()):
            return
        began = time.perf_counter()
        partial = self.file.with_name(self.file.name + ".partial")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as stream:
                np.savez(stream, **{"facts": np.array(json.dumps(self.facts)), **self.arrays})  # type: ignore[arg-type]
            os.replace(partial, self.file)
        except OSError as error:  # the fit is worth more than its checkpoint
            if not self._failed:
                warnings.warn(f"checkpoint: {self.file} cannot be written ({error}); the fit goes on", stacklevel=2)
            self._failed = True
            with contextlib.suppress(OSError):
                partial.unlink()
        self._written = time.perf_counter()
        self._took = self._written - began


def pack(tree: Any) -> dict[str, np.ndarray]:
    """Return the leaves of a state as arrays by number; typed keys as their data."""
    return {f"leaf{i}": np.asarray(_data(leaf)) for i, leaf in enumerate(jax.tree.leaves(tree))}


def unpack(arrays: Mapping[str, np.ndarray], like: Any) -> Any:
    """Return a state of this structure from packed leaves.

    Raises:
        ValueError: when they are of another one.
    """
    structure: Any
    leaves, structure = jax.tree.flatten(like)
    found = [arrays.get(f"leaf{i}") for i in range(len(leaves))]
    for old, new in zip(leaves, found, strict=True):
        if new is None or new.shape != jnp.shape(_data(old)):
            raise ValueError("checkpoint: its state is that of another algorithm; name another file, or remove it")
    return structure.unflatten([_leaf(old, new) for old, new in zip(leaves, found, strict=True)])


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _leaf(old: Any, new: Any) -> Any:
    if _is_key(old):
        return jax.random.wrap_key_data(jnp.asarray(new), impl=jax.random.key_impl(old))
    return jnp.asarray(new, jnp.asarray(old).dtype)


def _digest(*arrays: Any) -> str:
    sums = hashlib.blake2b(digest_size=16)
    for array in arrays:
        plain = np.ascontiguousarray(_data(array))
        sums.update(f"{plain.dtype}{plain.shape}".encode())
        sums.update(plain.tobytes())
    return sums.hexdigest()


def facts_of(key: KeyArray, target: Target, algorithm: Any, start: Any) -> dict[str, str]:
    """Return what makes a fit this fit: key, target, algorithm and start, by the programs that they are traced to."""
    facts = {
        "key": f"{key.dtype} {_digest(key)}",
        "precision": str(jnp.result_type(float)),
        "target": f"{target!r}, arrays {_digest(*jax.tree.leaves(target))}",
        "start": _digest(*jax.tree.leaves(start)),
    }
    if algorithm is not None:
        static, leaves = partition(algorithm)
        facts["algorithm"] = f"{algorithm!r}".split("(")[0] + f" {_digest(*jax.tree.leaves(leaves))}"
        state = jax.eval_shape(lambda k: begin(k, target, start, leaves, static), key)
        facts["algorithm"] += program(lambda s, t, v: step(combine(static, v), t, s), state, target, leaves)
    if target.has_density:
        points = jnp.asarray(np.random.default_rng(0).normal(size=(_PROBES, target.dim)), jnp.result_type(float))
        values = ", ".join(f"{float(value):.4g}" for value in _probe(target, points))  # what a callback computes
        facts["log density"] = f"{values}, {program(lambda t, z: t.log_density(z), target, points[0])}"
    return facts


def program(function: Any, *arguments: Any) -> str:
    """Return a digest of what a function is traced to, the arrays that it holds included: the same in every process."""
    closed = jax.make_jaxpr(function)(*arguments)
    sums = hashlib.blake2b(_ADDRESS.sub("", str(closed)).encode(), digest_size=16)
    for constant in _constants(closed):
        sums.update(_digest(constant).encode())
    return sums.hexdigest()


def _constants(value: Any) -> Iterator[Any]:
    """Yield the arrays that a traced program holds, those of programs inside it too."""
    if isinstance(value, list | tuple):
        for part in value:
            yield from _constants(part)
    elif hasattr(value, "eqns"):
        yield from getattr(value, "consts", ())
        for equation in value.eqns:
            yield from _constants(tuple(equation.params.values()))


@jax.jit
def _probe(target: Target, points: Any) -> Any:
    return jax.vmap(target.log_density)(points)
