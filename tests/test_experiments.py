"""Every experiment runs in its smoke mode, and keeps what it is for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDERS = sorted(path.parent for path in (Path(__file__).parent.parent / "experiments").glob("*/run.py"))
QUICK = {"defaults"}  # the others run in a step of their own of `.ci/run`

SMOKE = [
    pytest.param(folder, marks=[] if folder.name in QUICK else [pytest.mark.slow], id=folder.name) for folder in FOLDERS
]


@pytest.mark.parametrize("folder", SMOKE)
def test_smoke(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "__pycache__" not in path.parts}
    # Its own process: an experiment may choose double precision or another default for itself.
    done = subprocess.run(
        [sys.executable, "run.py", "--smoke"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "__pycache__" not in path.parts}
    assert after == before  # a smoke run leaves no results behind


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_has_a_question_and_results(folder):
    assert (folder / "README.md").read_text().startswith("# ")
    assert json.loads((folder / "results.json").read_text())
