"""The figures of the README: eight schools fitted, and the mixture in both directions of KL.

Runs the command line as a user would and collects what it wrote.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def run(*arguments: str, out: Path) -> dict[str, Any]:
    """Run `vi-kit` and return its report."""
    subprocess.run([sys.executable, "-m", "vi_kit.cli", *arguments, "--out", str(out), "--quiet"], check=True)
    return json.loads((out / "report.json").read_text())


def main() -> None:
    """Make the figures and results.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few steps, nothing written")
    smoke = parser.parse_args().smoke
    steps = ["--steps", "50"] if smoke else []
    with tempfile.TemporaryDirectory() as folder:
        fit, compare = Path(folder) / "fit", Path(folder) / "compare"
        results = {
            "vi-kit fit eight_schools": run("fit", "eight_schools", *steps, out=fit),
            "vi-kit compare mixture": run("compare", "mixture", *steps, out=compare),
        }
        if not smoke:
            for figure in (fit / "elbo.png", fit / "marginals.png", compare / "compare.png"):
                shutil.copy(figure, HERE / figure.name)
            (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
