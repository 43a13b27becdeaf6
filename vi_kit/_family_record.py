"""Families as plain JSON, and back."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from vi_kit import families


def describe(family: Any) -> dict[str, Any]:
    """Return a family's name and settings as plain numbers, strings, lists and dicts.

    Raises:
        TypeError: when a setting is a function of the user's own, which no file can hold.
    """
    settings = {field.name: _plain(field.name, getattr(family, field.name)) for field in dataclasses.fields(family)}
    return {"name": type(family).__name__, **settings}


def restore(record: dict[str, Any]) -> Any:
    """Return the family that `describe` recorded.

    Raises:
        KeyError: for the name of a family, or of a setting of one, that there is not.
    """
    settings = {name: _setting(value) for name, value in record.items() if name != "name"}
    return _named(record["name"])(**settings)


def _plain(name: str, value: Any) -> Any:
    if value in _classes():
        return {"class": value.__name__}
    if isinstance(value, partial) and not value.args:
        return {**_plain(name, value.func), "settings": {key: _plain(key, v) for key, v in value.keywords.items()}}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return describe(value)
    if isinstance(value, tuple):
        return [_plain(name, item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name}: expected a class of vi_kit.families or a partial one, to save it, got {value!r}")


def _setting(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_setting(item) for item in value)
    if not isinstance(value, dict):
        return value
    if "class" not in value:
        return restore(value)
    if "settings" not in value:
        return _named(value["class"])
    return partial(_named(value["class"]), **{name: _setting(inner) for name, inner in value["settings"].items()})


def _named(name: str) -> Any:
    return {made.__name__: made for made in _classes()}[name]


def _classes() -> list[type]:
    return [made for made in vars(families).values() if isinstance(made, type)]
