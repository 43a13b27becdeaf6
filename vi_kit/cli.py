"""The command `vi-kit`: fit a target, compare both directions of KL, list what there is.

Heavy imports are inside the functions, so that `--help` and a mistyped option answer at once.
"""

from __future__ import annotations

import contextlib
import io
import sys
import traceback
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from vi_kit._runs import OutputRefused, plan

if TYPE_CHECKING:
    from vi_kit._types import Family, Target

WRONG_INPUT, FAILED, INTERRUPTED = 2, 1, 130
_DEFAULT_STEPS = 5_000

app = typer.Typer(
    name="vi-kit",
    help="Fit an approximate posterior q to a target p by KL divergence, and hear whether to believe it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class FamilyName(StrEnum):
    """Families by name."""

    mean_field = "mean-field"
    full_rank = "full-rank"


class ObjectiveName(StrEnum):
    """Objectives by name."""

    reverse_kl = "reverse-kl"
    forward_kl = "forward-kl"


TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="A bundled target (see `vi-kit list`), FILE.py:NAME for one that your own file builds, or "
        "posteriordb:NAME or sampling:NAME with --data.",
        show_default=False,
    ),
]
FamilyOption = Annotated[
    FamilyName | None,
    typer.Option("--family", help="Family of q; full-rank up to 100 coordinates, else mean-field.", show_default=False),
]
ObjectiveOption = Annotated[
    ObjectiveName | None,
    typer.Option("--objective", help="Direction; reverse-kl wherever there is a density.", show_default=False),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of all randomness.")]
StepsOption = Annotated[int, typer.Option("--steps", min=1, help="Steps of the optimizer.")]
AnyStepsOption = Annotated[
    int | None,
    typer.Option(
        "--steps", min=1, show_default=False,
        help="Steps of Adam; 5000 with --family or --objective. With none of the three, fit finds out what it takes.",
    ),
]  # fmt: skip
SecondsOption = Annotated[float, typer.Option("--max-seconds", help="Stop stepping after this wall time.")]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Folder to write to; runs/NAME, or runs/NAME-2 … if there is one.", show_default=False),
]
OverwriteOption = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace the run that the folder holds; nothing else in it is touched."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="Folder with the data of posteriordb: or sampling:.", show_default=False),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def _print_version(asked: bool) -> None:  # noqa: FBT001 - typer calls it with the value
    if asked:
        from vi_kit import __version__

        typer.echo(f"vi-kit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    del version


@app.command()
def fit(
    target: TargetArgument,
    *,
    family: FamilyOption = None,
    objective: ObjectiveOption = None,
    seed: SeedOption = 0,
    steps: AnyStepsOption = None,
    max_seconds: SecondsOption = 120.0,
    out: OutOption = None,
    overwrite: OverwriteOption = False,
    data: DataOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Fit q to TARGET, print how far to believe it, and write the run to a folder."""
    with _in_one_sentence(debug=debug) as trouble:
        _check_seconds(max_seconds)
        from vi_kit._resolve import exact_reference, resolve

        resolved = resolve(target, data)
        destination = plan(resolved.name, out, overwrite=overwrite)
        import jax

        import vi_kit
        from vi_kit._comparison import algorithm_for
        from vi_kit._run_files import fit_files
        from vi_kit.diagnostics._table import report_table

        trouble.users_model = resolved.from_user
        forward = objective is ObjectiveName.forward_kl or (objective is None and not resolved.target.has_density)
        if family is None and objective is None and steps is None:
            algorithm, num_steps = None, None
        else:
            num_steps = _DEFAULT_STEPS if steps is None else steps
            chosen = _family(family, resolved.target)
            algorithm = algorithm_for(resolved.target, num_steps, family=chosen, forward=forward)
        posterior = vi_kit.fit(
            jax.random.key(seed),
            resolved.target,
            algorithm,
            num_steps=num_steps,
            max_seconds=max_seconds,
            progress=not quiet,
        )
        interrupted = posterior.report.stopped.startswith("interrupted")
        if interrupted and not posterior.report.steps:
            raise KeyboardInterrupt
        resolved = replace(resolved, reference=exact_reference(resolved, seed))
        trouble.users_model = False
        options = {
            "family": family, "objective": objective, "seed": seed, "steps": steps,
            "max_seconds": max_seconds, "data": data,
        }  # fmt: skip
        folder = destination.write(fit_files(resolved, posterior, options))
        if not quiet:
            console = _console()
            console.print(report_table(posterior.report, resolved.reference))
            console.print(f"\nWritten to {folder}", soft_wrap=True)
        if interrupted:
            of = "" if num_steps is None else f" of {num_steps}"
            what = f"after {posterior.report.steps}{of} steps; the best so far was saved to {folder}"
            typer.echo(f"Interrupted {what}.", err=True)
            raise typer.Exit(INTERRUPTED)


@app.command()
def compare(
    target: TargetArgument,
    *,
    family: FamilyOption = None,
    seed: SeedOption = 0,
    steps: StepsOption = _DEFAULT_STEPS,
    max_seconds: SecondsOption = 120.0,
    out: OutOption = None,
    overwrite: OverwriteOption = False,
    data: DataOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Fit TARGET by reverse and by forward KL, draw both over it, and measure both divergences of both."""
    with _in_one_sentence(debug=debug) as trouble:
        _check_seconds(max_seconds)
        from vi_kit._resolve import exact_reference, resolve

        resolved = resolve(target, data)
        destination = plan(f"{resolved.name}-compare", out, overwrite=overwrite)
        from vi_kit._comparison import compare as compare_directions
        from vi_kit._comparison import comparison_table
        from vi_kit._run_files import comparison_files

        trouble.users_model = resolved.from_user
        resolved = replace(resolved, reference=exact_reference(resolved, seed))
        comparison = compare_directions(
            resolved, seed=seed, num_steps=steps, max_seconds=max_seconds,
            family=_family(family, resolved.target), progress=not quiet,
        )  # fmt: skip
        trouble.users_model = False
        options = {"family": family, "seed": seed, "steps": steps, "max_seconds": max_seconds, "data": data}
        folder = destination.write(comparison_files(resolved, comparison, options))
        if not quiet:
            console = _console()
            console.print(comparison_table(comparison, resolved.reference))
            console.print(f"\nWritten to {folder}", soft_wrap=True)
        if comparison.interrupted:
            typer.echo(f"Interrupted; the best so far was saved to {folder}.", err=True)
            raise typer.Exit(INTERRUPTED)


@app.command(name="list")
def list_targets() -> None:
    """Show every bundled target, and the names that posteriordb: and sampling: know."""
    from vi_kit._listing import listing

    _console().print(listing())


class _Trouble:
    """Whose code runs at the moment: what an unknown error is blamed on."""

    users_model = False


@contextlib.contextmanager
def _in_one_sentence(*, debug: bool) -> Iterator[_Trouble]:
    """Turn errors into one sentence on standard error and an exit code."""
    trouble = _Trouble()
    try:
        yield trouble
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        typer.echo("Interrupted before there was anything to save; nothing was written.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        from vi_kit._resolve import UnusableTarget, first_line, named

        ours = isinstance(error, UnusableTarget | OutputRefused | ImportError) or type(error) in (
            ValueError,
            TypeError,
        )
        sentence = first_line(error) if ours or isinstance(error, OSError) else named(error)
        wrong_input = ours or trouble.users_model or isinstance(error, NotImplementedError)
        if trouble.users_model and not ours:
            sentence = f"the model failed: {sentence}"
        hint = "" if debug or wrong_input else " (--debug shows where)"
        typer.echo(f"Error: {sentence}{hint}", err=True)
        raise typer.Exit(WRONG_INPUT if wrong_input else FAILED) from None


def _check_seconds(max_seconds: float) -> None:
    if not max_seconds > 0:
        raise ValueError(f"--max-seconds: expected a positive number, got {max_seconds:g}")


def _console() -> Console:
    return Console(highlight=False)


def _family(name: FamilyName | None, target: Target) -> Family | None:
    from vi_kit.families import FullRank, MeanField

    if name is None:
        return None
    return MeanField(target.dim) if name is FamilyName.mean_field else FullRank(target.dim)


def main() -> None:
    """Run the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Greek letters is no reason to fail
    app()


if __name__ == "__main__":
    main()
