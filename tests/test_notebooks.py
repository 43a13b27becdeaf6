"""Every notebook is in step with its source, has been executed without errors, and holds nothing of a machine."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "notebooks"))
import execute

FOLDER = execute.HERE
SOURCES = execute.sources()
MOST_BYTES = 500_000
MACHINE_PATH = re.compile(
    r"(?<![\w./<>~])/(home|root|Users|tmp|var|opt|usr|mnt|work|private|content)/\w|\b[A-Z]:\\\\?Users"
)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # what reading notebooks imports
by_name = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def cells(path):
    return json.loads(path.with_suffix(".ipynb").read_text())["cells"]


def outputs(path):
    return [output for cell in cells(path) for output in cell.get("outputs", [])]


def joined(text):
    return text if isinstance(text, str) else "".join(text)


def text_of(output):
    kept = [value for kind, value in output.get("data", {}).items() if not kind.startswith("image/png")]
    return joined(output.get("text", "")) + "".join(json.dumps(value) for value in kept)


@by_name
def test_in_step_with_its_source(source):
    expected = [(cell.cell_type, cell.source) for cell in execute.read(source).cells]
    assert [(cell["cell_type"], joined(cell["source"])) for cell in cells(source)] == expected, (
        f"python notebooks/execute.py {source.stem}"
    )


@by_name
def test_executed_in_order_without_errors(source):
    code = [cell for cell in cells(source) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    kinds = [output["output_type"] for output in outputs(source)]
    assert kinds
    assert "error" not in kinds


@by_name
def test_has_a_figure(source):
    assert any("image/png" in output.get("data", {}) for output in outputs(source))


@by_name
def test_nothing_of_a_machine_and_no_warnings(source):
    assert all(output.get("name") != "stderr" for output in outputs(source))
    for text in [source.read_text(), *map(text_of, outputs(source))]:
        assert not MACHINE_PATH.search(text)


@by_name
def test_is_small(source):
    assert source.with_suffix(".ipynb").stat().st_size <= MOST_BYTES


@by_name
def test_source_begins_with_a_title_and_compiles(source):
    first, *_ = notebook = execute.read(source).cells
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    ast.parse("\n".join(cell.source for cell in notebook if cell.cell_type == "code"))


def test_no_notebook_without_a_source():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {path.stem for path in SOURCES}


def test_an_unknown_name_is_one_sentence():
    with pytest.raises(SystemExit, match=r"^no notebook is called 99_nothing: there are .*$"):
        execute.main(["99_nothing"])


def test_a_missing_extra_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "jupytext", None)
    with pytest.raises(SystemExit, match=r"^jupytext is not installed: pip install -e '.\[docs\]' brings it$"):
        execute.main([])


def test_paths_of_this_machine_are_replaced():
    output = {"text": [f"{FOLDER.parent}/vi_kit/x.py and {sys.prefix}/lib/y.py"], "data": {"n": 1}}
    assert execute.without_paths(output) == {"text": ["./vi_kit/x.py and <python>/lib/y.py"], "data": {"n": 1}}
    assert MACHINE_PATH.search("at /home/someone/x.py")
    assert MACHINE_PATH.search("at '/tmp/abc'")
    assert not MACHINE_PATH.search("https://arxiv.org/abs/1505.05770 a/home/b <temporary>/x")


TINY = "# %% [markdown]\n# # Tiny\n\n# %%\nimport sys\nprint({})\nprint('noise', file=sys.stderr)\n"


def run(script, name, folder):
    command = [sys.executable, str(script), name, "--folder", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_executes_in_this_python_and_a_failing_cell_leaves_the_old_notebook(tmp_path):
    script = tmp_path / "execute.py"
    shutil.copy(FOLDER / "execute.py", script)
    source = tmp_path / "00_tiny.py"
    source.write_text(TINY.format("sys.version_info[:2], sys.executable"))
    done = run(script, "00_tiny", tmp_path)
    assert (done.returncode, "noise" in done.stderr) == (0, True)
    (output,) = outputs(source)
    assert str(sys.version_info[:2]) in joined(output["text"])
    assert "<python>/bin/" in joined(output["text"])
    old = source.with_suffix(".ipynb").read_text()
    source.write_text(TINY.format("1 / 0"))
    done = run(script, "00_tiny", tmp_path)
    *_, error, sentence = filter(None, done.stderr.split("\n"))
    assert (done.returncode, "ZeroDivisionError" in error) == (1, True)
    assert sentence == "00_tiny.py: a cell failed (above); 00_tiny.ipynb was left as it was"
    assert source.with_suffix(".ipynb").read_text() == old


@pytest.mark.slow
@by_name
def test_executes_afresh(source, tmp_path):
    done = run(FOLDER / "execute.py", source.stem, tmp_path)
    assert done.returncode == 0, done.stderr[-2_000:]
    found = json.loads((tmp_path / f"{source.stem}.ipynb").read_text())["cells"]
    assert [len(cell.get("outputs", [])) for cell in found] == [len(cell.get("outputs", [])) for cell in cells(source)]
