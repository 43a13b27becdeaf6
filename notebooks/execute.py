"""Execute notebooks: NN_name.py (the source, jupytext's percent form) becomes NN_name.ipynb with its outputs.

python notebooks/execute.py [NN_name ...] — all of them without a name. What depends on the machine or the hour
(paths, timings, warnings on stderr) is left out, so that executing again changes little.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"},
}


def sources(names: list[str] | tuple[str, ...] = ()) -> list[Path]:
    """Return the sources with these names, or all of them."""
    found = {path.stem: path for path in sorted(HERE.glob("[0-9][0-9]_*.py"))}
    wanted = [Path(name).stem for name in names]
    if unknown := sorted(set(wanted) - set(found)):
        raise SystemExit(f"no notebook is called {', '.join(unknown)}: there are {', '.join(found) or 'none'}")
    return [found[name] for name in wanted] if wanted else list(found.values())


def read(source: Path) -> Any:
    """Return the notebook of a source, with cell names that stay the same and no outputs."""
    import jupytext

    notebook = jupytext.read(source)
    notebook.metadata = type(notebook.metadata)(METADATA)
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number:02d}", type(cell.metadata)()
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def run(notebook: Any, *, timeout: int) -> Any:
    """Run all cells in a kernel of this Python, in the folder of the notebooks."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    # Without folders to look in there is one kernel: that of the running Python, whatever else is installed.
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    client = NotebookClient(
        notebook,
        km=manager,
        timeout=timeout,
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],
        coalesce_streams=True,
        resources={"metadata": {"path": str(HERE)}},
    )
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    backend = "module://matplotlib_inline.backend_inline"
    client.execute(env=os.environ | {"MPLBACKEND": backend, "PYTHONPATH": os.pathsep.join(paths)})
    return notebook


def clean(notebook: Any) -> Any:
    """Leave out what depends on the machine or the hour; what was written to stderr is printed here instead."""
    notebook.metadata = type(notebook.metadata)(METADATA)
    for cell in notebook.cells:
        cell.metadata = type(cell.metadata)()
        if cell.cell_type != "code":
            continue
        noise = [o for o in cell.outputs if o.get("name") == "stderr"]
        print("".join(o.text for o in noise), end="", file=sys.stderr)
        cell.outputs = [without_paths(o) for o in cell.outputs if o not in noise]
    return notebook


def without_paths(value: Any) -> Any:
    """Replace this machine's folders by words, anywhere in an output."""
    if isinstance(value, dict):
        return type(value)({key: without_paths(inner) for key, inner in value.items()})
    if isinstance(value, list):
        return [without_paths(inner) for inner in value]
    if not isinstance(value, str):
        return value
    folders = {
        str(HERE.parent): ".",
        sys.prefix: "<python>",
        sys.base_prefix: "<python>",
        str(Path.home()): "~",
        tempfile.gettempdir(): "<temporary>",
    }
    for folder in sorted(folders, key=len, reverse=True):
        if len(Path(folder).parts) > 1:
            value = value.replace(folder + os.sep, folders[folder] + "/")
    return value


def write(notebook: Any, path: Path) -> None:
    """Replace a notebook whole, or not at all."""
    import nbformat

    nbformat.validate(notebook)
    partial = path.with_suffix(".partial")
    partial.write_text(nbformat.writes(notebook).rstrip("\n") + "\n")
    os.replace(partial, path)


def main(arguments: list[str] | None = None) -> None:
    """Execute what is named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NN_name", help="which notebooks; all without a name")
    parser.add_argument("--folder", type=Path, default=HERE, help="where to write; beside the sources by default")
    parser.add_argument("--timeout", type=int, default=600, help="seconds that a cell may take")
    options = parser.parse_args(arguments)
    chosen = sources(options.names)
    try:
        import ipykernel  # noqa: F401
        import jupytext  # noqa: F401
        from nbclient.exceptions import CellExecutionError, CellTimeoutError
    except ImportError as error:
        raise SystemExit(f"{error.name} is not installed: pip install -e '.[docs]' brings it") from None
    for source in chosen:
        target = options.folder / f"{source.stem}.ipynb"
        try:
            notebook = clean(run(read(source), timeout=options.timeout))
        except (CellExecutionError, CellTimeoutError) as error:
            print(error, file=sys.stderr)
            raise SystemExit(f"{source.name}: a cell failed (above); {target.name} was left as it was") from None
        write(notebook, target)
        print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
