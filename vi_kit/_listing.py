"""The table of everything that TARGET may be."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from vi_kit.targets import _registry
from vi_kit.targets._posteriordb import posteriordb_names
from vi_kit.targets._sampling_targets import sampling_target_names


def listing() -> Table:
    """Lay out the bundled targets, and the names that the prefixes know."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0))
    table.add_column("target", style="bold", no_wrap=True)
    table.add_column("dim", justify="right")
    table.add_column("what it is, where it is from, what is known of it")
    for name in _registry.names():
        row = _registry.info(name)
        about = Text(row.summary)
        for word, value in (("source", row.source), ("license", row.license), ("known", row.known)):
            about.append(f"\n{word}: ", style="dim").append(value)
        if row.requires:
            about.append("\nneeds: ", style="dim").append(f"pip install 'vi_kit[{row.requires}]'", style="yellow")
        table.add_row(name, str(row.dim), about)
    for prefix, names, folder in (
        ("posteriordb:NAME", posteriordb_names(), "a clone of https://github.com/stan-dev/posteriordb"),
        ("sampling:NAME", sampling_target_names(), "the folder of sampling targets"),
    ):
        about = Text(", ".join(names)).append(f"\nread from {folder}, given with --data DIR", style="dim")
        table.add_row(prefix, "", about)
    table.add_row("FILE.py:NAME", "", "a target that your own file builds with vi_kit.make_target")
    return table
