"""The table of what has a closed form, for people to read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from vi_kit.divergences._cross_moments import moment_pairs
from vi_kit.divergences._structure import STRUCTURES
from vi_kit.divergences._support import EXCLUDED
from vi_kit.divergences._table import RULES, WIDENINGS


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the table.

    Attributes:
        p: what p may be.
        q: what q may be.
        method: how KL(p‖q) is found.
        formula: the formula, in one line.
    """

    p: str
    q: str
    method: str
    formula: str


@dataclasses.dataclass(frozen=True)
class Table:
    """The pairs of which `vk.kl_divergence` knows a closed form; prints as text, and as a table in a notebook.

    Attributes:
        entries: the lines.
    """

    entries: tuple[Entry, ...]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __repr__(self) -> str:
        widths = [max(len(getattr(e, name)) for e in self.entries) for name in ("p", "q", "method")]
        lines = [("p", "q", "method", "formula"), *((e.p, e.q, e.method, e.formula) for e in self.entries)]
        padded = [[f"{c:{w}}" for c, w in zip(line[:3], widths, strict=True)] + [line[3]] for line in lines]
        return "\n".join("  ".join(line) for line in padded)

    def markdown(self) -> str:
        """Return the table in Markdown."""
        lines = ["| p | q | method | formula |", "|---|---|---|---|"]
        for e in self.entries:
            formula = e.formula.replace("|", "\\|")
            lines.append(f"| {e.p} | {e.q} | {e.method} | {formula} |")
        return "\n".join(lines) + "\n"

    def _repr_markdown_(self) -> str:
        return self.markdown()


def table() -> Table:
    """List the pairs of which `vk.kl_divergence` knows a closed form, from the table that drives it.

    Returns:
        lines with p, q, the method and the formula; prints as text.

    Example:
        >>> import vi_kit as vk
        >>> entry = next(iter(vk.divergences.table()))
        >>> entry.p, entry.q, entry.method
        ('Normal', 'Normal', 'closed form')
    """
    entries = []
    for rule in RULES:
        shared = f" (same {', '.join(rule.shared)})" if rule.shared else ""
        entries.append(Entry(rule.p.__name__, rule.q.__name__ + shared, rule.method, rule.formula))
    entries += [Entry(w.source.__name__, "as what it is", "widening", w.words) for w in WIDENINGS]
    for (p, q), function in STRUCTURES.items():
        entries.append(Entry(p.__name__, q.__name__, "structure", (function.__doc__ or "").partition(".")[0]))
    entries += [Entry(p.__name__, q.__name__, "moments", formula) for p, q, formula in moment_pairs()]
    for support, others in EXCLUDED.items():
        entries.append(Entry(f"on: {support}", f"on: {', '.join(sorted(others))}", "support", "+inf"))
    return Table(tuple(entries))
