"""The progress bar, and what a callback is told between chunks of steps."""

from __future__ import annotations

from types import TracebackType
from typing import NamedTuple, Self

from vi_kit._types import Estimate, Params


class Progress(NamedTuple):
    """Where a fit stands: what `callback` is called with between chunks of steps.

    Attributes:
        step: steps taken.
        num_steps: steps asked for.
        loss: the last step's loss.
        elbo: the last ELBO estimated, None before the first or without a density.
        seconds: wall time since the fit began.
        evaluations: target evaluations so far.
        params: the current parameters.
    """

    step: int
    num_steps: int
    loss: float
    elbo: Estimate | None
    seconds: float
    evaluations: int
    params: Params


class ProgressBar:
    """A bar on standard error with the current ELBO, a line for each thing fitted; silent where it is switched off."""

    def __init__(self, num_steps: int, *, enabled: bool) -> None:
        self._bar = None
        self._untouched = True
        if enabled:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=32),
                MofNCompleteColumn(),
                TextColumn("{task.fields[elbo]}"),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), auto_refresh=False)
            self._task = self._bar.add_task("fitting", total=num_steps, elbo="compiling")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._bar.refresh()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.refresh()
            self._bar.stop()

    def begin(self, what: str, num_steps: int | None) -> None:
        """Go on with a line for what is fitted now; None for a number of steps that is not known."""
        if self._bar is None:
            return
        if self._untouched:
            self._bar.remove_task(self._task)
        else:
            self._bar.stop_task(self._task)
        self._task = self._bar.add_task(f"fitting {what}", total=num_steps, elbo="")
        self._untouched = False
        self._bar.refresh()

    def update(self, progress: Progress) -> None:
        """Show where the fit stands."""
        if self._bar is None:
            return
        if progress.elbo is None:
            text = f"loss {progress.loss:.3f}"
        else:
            text = f"ELBO {float(progress.elbo.value):.3f} ± {float(progress.elbo.standard_error):.3f}"
        self._untouched = False
        self._bar.update(self._task, completed=progress.step, elbo=text)
        self._bar.refresh()
