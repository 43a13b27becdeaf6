"""How right is a KL on arrays? `vi_kit.kl` and every peer on the same float32 inputs, against float64.

Nearly equal categoricals from 10 to 128,256 classes, the edge cases of models (masks, zeros, half precision,
temperature), Jensen–Shannon, Gaussians, and what sampled estimates and their intervals are worth.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edges
import exact
import numpy as np
import peers
import sampled

HERE = Path(__file__).parent
PERTURBATIONS = (8.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


def digits(x: float) -> float | str:
    """Three digits, and a word for what JSON has no number for."""
    return float(f"{x:.3g}") if math.isfinite(x) else str(x)


def relative(got: np.ndarray, want: np.ndarray) -> float:
    """Return the worst relative error of a batch, in norm along the last axis of gradients."""
    if got.ndim == 1:
        error, size = np.abs(got - want), np.abs(want)
    else:
        error, size = np.linalg.norm(got - want, axis=-1), np.linalg.norm(want, axis=-1)
    return float(np.max(error / size))


def nearly_equal(sizes: tuple[int, ...], draws: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Perturb logits of standard deviation 1, 3 and 8 and return the worst errors of every library."""
    rows, disagreement = [], 0.0
    for classes in sizes:
        libraries, _ = peers.categorical()
        table = {peer.name: {"library": peer.name, "classes": classes} for peer in libraries}
        rng = np.random.default_rng(classes)
        for perturbation in PERTURBATIONS:
            scale = np.repeat([1.0, 3.0, 8.0], draws)[:, None]
            p = np.float32(scale * rng.normal(size=(3 * draws, classes)))
            q = np.float32(p + perturbation * rng.normal(size=p.shape))
            wanted = exact.categorical(p, q)
            large = wanted[0] > 1e-12  # below, 80 bits are too few for the definition
            if np.finfo(np.longdouble).nmant > 60 and large.any():
                disagreement = max(disagreement, relative(wanted[0][large], exact.textbook(p, q)[large]))
            for peer in libraries:
                value, *gradients = peer.evaluate(p, q)
                cells: dict[str, float | None] = {
                    "value": relative(value, wanted[0]),
                    "negative": float(np.mean(value < 0)),
                }
                for name, got, want in zip(("gradient_p", "gradient_q"), gradients, wanted[1:], strict=True):
                    cells[name] = None if got is None else relative(got, want)
                for name, cell in cells.items():
                    table[peer.name].setdefault(name, []).append(None if cell is None else digits(cell))
        rows += table.values()
    return rows, {"float64 against the definition in 80 bits, KL > 1e-12": digits(disagreement)}


def show(title: str, header: list[str], rows: list[list[Any]]) -> None:
    """Print a markdown table."""
    print(f"\n{title}\n")
    for row in (header, ["---", *["---:"] * (len(header) - 1)], *rows):
        print("| " + " | ".join(str(cell) for cell in row) + " |")


def show_nearly_equal(rows: list[dict[str, Any]], classes: int) -> None:
    """Print the worst relative errors of one vocabulary; (−) where some answers are negative."""
    header = ["library", *(f"{x:g}" for x in PERTURBATIONS)]
    for name, title in (
        ("value", "KL"),
        ("gradient_p", "gradient to p's logits"),
        ("gradient_q", "gradient to q's logits"),
    ):
        body = []
        for row in rows:
            if row["classes"] == classes and row[name][0] is not None:
                signs = row["negative"] if name == "value" else [0] * len(row[name])
                cells = (f"{float(x):.0e}" + (" (−)" if sign else "") for x, sign in zip(row[name], signs, strict=True))
                body.append([row["library"], *cells])
        show(f"{title}, {classes:,} classes", header, body)


def write(results: dict[str, Any]) -> None:
    """Write one row a line, so that a new run reads as a diff."""
    parts = []
    for name, value in results.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = "[\n  " + ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in value) + "\n ]"
        else:
            value = json.dumps(value, ensure_ascii=False)
        parts.append(f' "{name}": {value}')
    (HERE / "results.json").write_text("{\n" + ",\n".join(parts) + "\n}\n")


def main() -> None:
    """Compare, print and write results.json and the figure beside this file."""
    sections = ("nearly_equal", "edges", "jensen_shannon", "gaussian", "sampled")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few and small, nothing written")
    parser.add_argument("--only", choices=sections, help="one section, nothing written")
    arguments = parser.parse_args()
    smoke = arguments.smoke
    sizes, draws = ((10,), 1) if smoke else ((10, 1_000, 32_000, 128_256), 5)
    missing = sorted({*peers.categorical()[1], *peers.gaussian()[1]})
    results: dict[str, Any] = {
        "question": __doc__.splitlines()[0],
        "setting": {"perturbations": PERTURBATIONS, "logit_sd": [1, 3, 8], "draws_each": draws, "dtype": "float32"},
        "machine": {"device": peers.jax.devices()[0].device_kind, "processor": platform.machine()},
        "versions": {"python": platform.python_version(), **peers.versions()},
        "not_installed": missing,
    }
    if missing:
        print("not installed, so not compared:", ", ".join(missing))

    def edge_cases() -> None:
        results["edges"] = edges.categorical(smoke)
        show("Edge cases of KL(p‖q)", *edges.table(results["edges"]))

    def jensen_shannon() -> None:
        results["jensen_shannon"] = edges.jensen_shannon(smoke)
        show("Jensen–Shannon", *edges.table(results["jensen_shannon"]))

    def gaussian() -> None:
        results["gaussian"] = edges.gaussian()
        show("KL(N(mean, e^ℓ) ‖ N(0, 1))", *edges.table(results["gaussian"]))

    def near() -> None:
        results["nearly_equal"], results["oracle"] = nearly_equal(sizes, draws)
        show_nearly_equal(results["nearly_equal"], sizes[-1])

    def estimates() -> None:
        results["sequences"] = sampled.run(smoke)
        show("Sequence KL, 2,000 estimates of 1,000 sequences each", *sampled.table(results["sequences"]))

    steps: tuple[Callable[[], None], ...] = (near, edge_cases, jensen_shannon, gaussian, estimates)
    for name, step in zip(sections, steps, strict=True):
        if arguments.only in (None, name):
            step()
    if not smoke and not arguments.only:
        write(results)
        from figure import draw

        draw(results["nearly_equal"], sizes[-1], PERTURBATIONS, HERE / "accuracy.png")


if __name__ == "__main__":
    main()
