"""What the files of a run hold: the report, the draws and the figures."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vi_kit import plots
from vi_kit._comparison import Comparison, as_dict
from vi_kit._comparison_figure import comparison_figure
from vi_kit._posterior import Posterior
from vi_kit._resolve import Resolved
from vi_kit._runs import REPORT, as_json, plain
from vi_kit.diagnostics._table import against_reference, reverse_kl


def fit_files(resolved: Resolved, posterior: Posterior, options: Mapping[str, Any]) -> dict[str, bytes]:
    """Make the files of a fit: report.json, draws.npz, elbo.png and marginals.png.

    Args:
        resolved: the target and its reference.
        posterior: the fit.
        options: what the command line asked for.
    """
    reference = resolved.reference
    report = posterior.report.to_dict()
    for label, row in report["coordinates"].items():
        if reference is not None and label in reference.mean:
            mean, sd = reference.mean[label], reference.sd[label]
            error = (row["mean"] - mean) / sd if sd > 0 and row["mean"] is not None else None
            row |= {"reference_mean": mean, "reference_sd": sd, "error_in_reference_sd": error}
    gap, how = reverse_kl(posterior.report, reference)
    history = posterior.history
    content = {
        **_heading("fit", resolved, options),
        **report,
        "reverse_kl": None if gap is None else plain(gap._asdict()),
        "reverse_kl_by": how,
        "against_reference": against_reference(posterior.report, reference),
        "reference": _reference_facts(resolved),
        "history": {
            "elbo_step": history.elbo_step.tolist(),
            "elbo": history.elbo.tolist(),
            "elbo_standard_error": history.elbo_standard_error.tolist(),
        },
    }
    files = {
        "draws.npz": _archive(posterior.draws),
        "elbo.png": _picture(
            lambda stream: plots.elbo(
                posterior, stream, reference=reference, title=f"{resolved.name}: {posterior.report.objective}"
            )
        ),
        "marginals.png": _picture(
            lambda stream: plots.marginals(posterior, stream, reference=reference, title=resolved.name)
        ),
    }
    return _with_report(content, files)


def comparison_files(resolved: Resolved, comparison: Comparison, options: Mapping[str, Any]) -> dict[str, bytes]:
    """Make the files of a comparison: report.json and compare.png.

    Args:
        resolved: the target and its reference.
        comparison: the fits and their divergences.
        options: what the command line asked for.
    """
    reports = [posterior.report for posterior in comparison.fits.values()]
    content = {
        **_heading("compare", resolved, options),
        "device": reports[0].device,
        "versions": reports[0].versions,
        "seconds": sum(report.seconds for report in reports),
        "evaluations": sum(report.evaluations for report in reports),
        **as_dict(comparison),
        "reference": _reference_facts(resolved),
    }
    picture = _picture(lambda stream: comparison_figure(comparison, resolved, stream))
    return _with_report(content, {"compare.png": picture})


def _with_report(content: Mapping[str, Any], files: dict[str, bytes]) -> dict[str, bytes]:
    return {**files, REPORT: as_json({**content, "files": [REPORT, *files]})}


def _picture(draw: Any) -> bytes:
    stream = io.BytesIO()
    draw(stream)
    return stream.getvalue()


def _archive(draws: Any) -> bytes:
    """Pack one array a variable; nested names are joined by dots, a lone array is called x."""
    leaves = jax.tree_util.tree_leaves_with_path(draws)
    arrays = {jax.tree_util.keystr(p, simple=True, separator=".") or "x": np.asarray(leaf) for p, leaf in leaves}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():  # numpy.savez takes no variable called `file`
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return stream.getvalue()


def _heading(command: str, resolved: Resolved, options: Mapping[str, Any]) -> dict[str, Any]:
    asked = {
        name: value if value is None or isinstance(value, int | float) else str(value)
        for name, value in options.items()
    }
    return {
        "command": command,
        "target": {
            "name": resolved.name,
            "text": resolved.text,
            "dim": resolved.target.dim,
            **resolved.facts,
        },
        "options": asked,
        "seed": options["seed"],
    }


def _reference_facts(resolved: Resolved) -> dict[str, Any] | None:
    reference = resolved.reference
    if reference is None:
        return None
    return {
        "provenance": reference.provenance,
        "log_normalizer": reference.log_normalizer,
        "log_normalizer_standard_error": reference.log_normalizer_standard_error,
    }
