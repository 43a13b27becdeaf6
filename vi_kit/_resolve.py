"""What TARGET on the command line means: a bundled name, a folder's posterior, or a name in a file."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # jax takes a second to import; --help and mistyped names should not wait for it
    from vi_kit._types import Target
    from vi_kit.targets._reference import Reference

_FOLDERS = ("posteriordb", "sampling")
_EXACT_DRAWS = 4_096


class UnusableTarget(Exception):
    """TARGET cannot be turned into a target; the message is one sentence for the user."""


@dataclass(frozen=True)
class Resolved:
    """A target with what is known of it.

    Attributes:
        name: short name, for folders and titles.
        text: what the user typed.
        target: the target.
        reference: the known answer, or None.
        facts: source, license and the like, for the report.
    """

    name: str
    text: str
    target: Target
    reference: Reference | None
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def from_user(self) -> bool:
        """Whether the user's own file built it."""
        return "file" in self.facts


def resolve(text: str, data: Path | None = None) -> Resolved:
    """Turn TARGET into a target and its reference.

    Args:
        text: a bundled name, `posteriordb:NAME`, `sampling:NAME` or `FILE.py:NAME`.
        data: the folder that the two in the middle read from.

    Raises:
        UnusableTarget: when there is no such target, or the file that should build it does not.
        ImportError: when its data come with an extra that is not installed.
    """
    prefix, colon, name = text.rpartition(":")
    if colon and prefix in _FOLDERS:
        return _from_folder(text, prefix, name, data)
    if data is not None:
        raise UnusableTarget(f"--data goes with posteriordb:NAME and sampling:NAME, not with {text!r}")
    if colon and prefix.endswith(".py"):
        return _from_file(text, Path(prefix), name)
    if text.endswith(".py"):
        raise UnusableTarget(f"TARGET: expected FILE.py:NAME with the name of a target in that file, got {text!r}")
    return _bundled(text)


def _nearest(name: str, known: Iterable[str]) -> str:
    """Say which known names are near, as the end of a sentence; nothing where none is."""
    names = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    near += [other for other in names if len(name) > 2 and name.lower() in other.lower() and other not in near]
    return f"; did you mean {' or '.join(near[:3])}?" if near else ""


def _bundled(text: str) -> Resolved:
    from vi_kit.targets import _registry
    from vi_kit.targets._posteriordb import posteriordb_names
    from vi_kit.targets._sampling_targets import sampling_target_names

    if text not in _registry.names():
        known = [*_registry.names(), *(f"posteriordb:{n}" for n in posteriordb_names())]
        known += [f"sampling:{n}" for n in sampling_target_names()]
        near = _nearest(text, known) or "; `vi-kit list` shows all there are"
        raise UnusableTarget(f"TARGET: there is no target {text!r}{near}")
    row = _registry.info(text)
    facts = {"summary": row.summary, "source": row.source, "license": row.license, "known": row.known}
    return Resolved(text, text, _registry.load(text), _registry.reference(text), facts)


def _from_folder(text: str, kind: str, name: str, data: Path | None) -> Resolved:
    from vi_kit.targets._posteriordb import posteriordb, posteriordb_names, posteriordb_reference
    from vi_kit.targets._sampling_targets import (
        sampling_target,
        sampling_target_names,
        sampling_target_reference,
    )

    if kind == "posteriordb":
        known, load, read, folder = (
            posteriordb_names(),
            posteriordb,
            posteriordb_reference,
            "a clone of posteriordb",
        )
    else:
        known, load, read, folder = (
            sampling_target_names(),
            sampling_target,
            sampling_target_reference,
            "their folder",
        )
    short = {part for full in known for part in full.split("-", 1)}
    if name not in {*known, *short}:
        near = _nearest(name, known) or f"; there are {', '.join(known)}"
        raise UnusableTarget(f"TARGET: vi_kit carries no {kind} target {name!r}{near}")
    if data is None:
        raise UnusableTarget(f"--data: {text} reads its data from {folder}; say where that is with --data DIR")
    if not data.is_dir():
        raise UnusableTarget(f"--data: there is no folder {str(data)!r}")
    try:
        return Resolved(name, text, load(name, data), read(name, data), {"source": f"{kind} folder"})
    except (OSError, ValueError, KeyError) as error:
        raise UnusableTarget(first_line(error)) from error


def _from_file(text: str, path: Path, name: str) -> Resolved:
    if not path.is_file():
        beside = path.parent.glob("*.py") if path.parent.is_dir() else ()
        raise UnusableTarget(f"TARGET: there is no file {str(path)!r}{_nearest(str(path), map(str, beside))}")
    from vi_kit._types import Target

    module = _execute(path)
    if not hasattr(module, name):
        public = {key: value for key, value in vars(module).items() if not key.startswith("_")}
        made_here = [
            key
            for key, value in public.items()
            if isinstance(value, Target) or getattr(value, "__module__", None) == module.__name__
        ]
        near = _nearest(name, made_here) or (f"; it has {', '.join(made_here)}" if made_here else "")
        raise UnusableTarget(f"TARGET: {path} defines no {name!r}{near}")
    value = getattr(module, name)
    if callable(value):
        value = _call(value, path, name)
        what = f"{name}() in {path} should return a Target from vi_kit.make_target, it returned"
    else:
        what = f"{name} in {path} should be a Target from vi_kit.make_target or a function returning one, it is"
    if not isinstance(value, Target):
        raise UnusableTarget(f"TARGET: {what} {_kind(value)}")
    return Resolved(name, text, value, None, {"file": str(path)})


def _kind(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


def _execute(path: Path) -> ModuleType:
    """Run the user's file as a module of its own name, its folder first on the path for what it imports."""
    folder = str(path.parent.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = path.stem if path.stem not in sys.modules else f"_vi_kit_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "a path that ends in .py has a loader"
    assert spec.loader is not None, "a path that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class up by its module
    cached, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # leave no __pycache__ beside the user's file
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UnusableTarget(f"TARGET: {path} failed{_line(error, path)}: {named(error)}") from error
    finally:
        sys.dont_write_bytecode = cached
    return module


def _call(function: Any, path: Path, name: str) -> Any:
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise UnusableTarget(f"TARGET: {name} in {path} should take no arguments, but {error}") from error
    except ValueError:
        pass  # a builtin without a signature: calling it tells
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise UnusableTarget(f"TARGET: {name}() in {path} failed{_line(error, path)}: {named(error)}") from error


def _line(error: BaseException, path: Path) -> str:
    """Say on which line of the user's file it happened."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name == path.name]
    return f" on line {frames[-1].lineno}" if frames else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, its kind where it has none."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return text.strip().splitlines()[0].strip() if text.strip() else type(error).__name__


def named(error: BaseException) -> str:
    """Return the kind of an error and the first line of its message."""
    line = first_line(error)
    return line if line == type(error).__name__ else f"{type(error).__name__}: {line}"


def exact_reference(resolved: Resolved, seed: int) -> Reference | None:
    """Make a reference from exact draws, where the target can draw and no answer is stored."""
    if resolved.reference is not None or not resolved.target.has_sampler:
        return resolved.reference
    import jax
    import numpy as np

    from vi_kit.diagnostics._draws import coordinates
    from vi_kit.diagnostics._target_draws import exact_draws
    from vi_kit.targets._reference import reference_from_draws

    target = resolved.target
    key = jax.random.fold_in(jax.random.key(seed), 1)
    z = exact_draws(key, target, _EXACT_DRAWS).z
    labels, values = coordinates(jax.device_get(jax.jit(jax.vmap(target.report))(z)), target.layout)
    if not np.isfinite(values).all():
        return None
    columns = dict(zip(labels, values.T, strict=True))
    log_z = None if target.log_normalizer is None else float(target.log_normalizer)
    return reference_from_draws(
        columns,
        provenance=f"{_EXACT_DRAWS:,} exact draws",
        log_normalizer=log_z,
        log_normalizer_standard_error=None if log_z is None else 0.0,
    )
