"""Which KLs between distributions does each library know, how right are they in float32, and what do they cost?

Every library is called on every pair of one list of families and parameters: what it registers does not count, only
what it answers, and only where the answer is right. Oracles: quadrature and enumeration in float64, 40 digits for
vectors and matrices (`tests/divergence_*.py`).
"""

from __future__ import annotations

import argparse
import json
import platform
from typing import Any

import accuracy
import cost
import coverage
import libraries
from exact import TOLERANCE
from report import HERE, show, update_readme, write


def main() -> None:
    """Compare, print and write results.json, the tables and the figure beside this file."""
    sections = ("coverage", "published", "accuracy", "cost")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few and small, nothing written")
    parser.add_argument("--only", choices=sections, help="measure one section again, and keep the others")
    arguments = parser.parse_args()
    found, missing = libraries.load()
    wanted = [arguments.only] if arguments.only else sections
    results: dict[str, Any] = {
        "question": __doc__.splitlines()[0],
        "setting": {"dtype": "float32", "right": TOLERANCE, "relative changes": accuracy.CHANGES},
        "machine": {"device": libraries.jax.devices()[0].device_kind, "processor": platform.machine()},
        "versions": {"python": platform.python_version(), **libraries.versions()},
        "not_installed": missing,
    }
    if missing:
        print("not installed, so not compared:", ", ".join(missing))
    if "coverage" in wanted:
        results["coverage"], results["pairs"] = coverage.coverage(found, arguments.smoke)
        show("Pairs answered right", results["coverage"])
    if "published" in wanted:
        results["published"] = accuracy.published(found, arguments.smoke)
        show("Published cases, float32", results["published"])
    if "accuracy" in wanted:
        results["accuracy"], results["families"] = accuracy.accuracy(found, arguments.smoke)
        show("Neighbors, equal pairs and edges, each family against itself", results["accuracy"])
        if arguments.only:
            show("By family", results["families"])
    if "cost" in wanted:
        results["cost"] = cost.compiled(arguments.smoke)
        show("Compiled, against distrax", results["cost"])
        results["calls"] = cost.calls(arguments.smoke)
        show("Called on objects built anew each time", results["calls"])
    if not arguments.smoke:
        if arguments.only:
            results = json.loads((HERE / "results.json").read_text()) | results
        write(results)
        update_readme(results)
        from figure import draw

        draw(results["families"], HERE / "coverage.png")


if __name__ == "__main__":
    main()
