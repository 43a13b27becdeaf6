"""Looking a target up by name, with the nearest names where there is none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown_name(name: str, known: Iterable[str], what: str) -> ValueError:
    """Make the error for a name that nothing answers to.

    Args:
        name: What was asked for.
        known: The names that exist.
        what: What kind of thing is named, as in "posteriordb model".

    Returns:
        The error, with the nearest names, or all of them where none is near.

    Example:
        >>> str(unknown_name("seds", ["seeds", "funnel10"], "sampling target"))
        "name: no sampling target is called 'seds'; the nearest: seeds."
    """
    names = sorted(known)
    # A short form may sit inside a long name, where edit distance alone does not see it.
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    near += [other for other in names if name and name.lower() in other.lower() and other not in near]
    found = f"the nearest: {', '.join(near)}" if near else f"there are: {', '.join(names)}"
    return ValueError(f"name: no {what} is called {name!r}; {found}.")
