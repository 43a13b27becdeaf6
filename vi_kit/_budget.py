"""What a fit may spend, and what it has spent."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from vi_kit.diagnostics._draws import BLOCK

_LEAST_DRAWS = 25
_NUM_DRAWS = 4_096
_MORE = 3  # times as many again, where the first draws leave the verdict open
_MORE_SHARE = 0.1  # of the seconds left, that these may take
_MOST_VALUES = 2**24  # numbers that they may be
_LONG = 0.1  # seconds of an evaluation, from which on they are worth saying
_DRAW_SHARE = 0.2  # of the seconds, that the draws of the diagnosis may take


class OutOfBudgetError(Exception):
    """The next evaluations would cost more than is left."""


@dataclass
class Budget:
    """Seconds and evaluations of one fit.

    Attributes:
        began: when it began, by `time.perf_counter`.
        max_seconds: wall time it may take, compilation included.
        max_evaluations: target evaluations it may take, None for any number.
        evaluations: those taken so far.
        evaluation_seconds: what one takes, 0 where that is not known.
        diagnosis_seconds: what the longest diagnosis so far took, compilation included; one more is kept back.
    """

    began: float
    max_seconds: float
    max_evaluations: int | None = None
    evaluations: int = 0
    evaluation_seconds: float = 0.0
    diagnosis_seconds: float = 0.0
    _block: int = 0

    def seconds(self) -> float:
        """Return the wall time since the fit began."""
        return time.perf_counter() - self.began

    def seconds_left(self) -> float:
        """Return the wall time left, less what the diagnosis needs (at most half of it all)."""
        diagnosis = max(self.diagnosis_evaluations() * self.evaluation_seconds, self.diagnosis_seconds)
        return self.max_seconds - min(diagnosis, 0.5 * self.max_seconds) - self.seconds()

    def evaluations_left(self) -> float:
        """Return the evaluations left, less those of the diagnosis."""
        if self.max_evaluations is None:
            return math.inf
        return self.max_evaluations - self.evaluations - self.diagnosis_evaluations()

    def spent(self, evaluations: int = 1) -> str:
        """Say which budget has not so many evaluations left."""
        if self.evaluations_left() < evaluations:
            return f"the budget of {self.max_evaluations} evaluations was spent"
        each = self.evaluation_seconds
        long = f" ({each:.2g} s an evaluation)" if each > _LONG else ""
        return f"the budget of {self.max_seconds:g} seconds{long} was spent"

    def num_draws(self) -> int:
        """Return how many draws the diagnosis takes: fewer where an evaluation takes long or few are allowed."""
        seconds = self.evaluation_seconds
        affordable = _DRAW_SHARE * self.max_seconds / seconds if seconds > 0 else math.inf
        if self.max_evaluations is not None:
            affordable = min(affordable, self.max_evaluations / 4)
        return int(max(_LEAST_DRAWS, min(_NUM_DRAWS, affordable)))

    def more_draws(self, dim: int) -> int:
        """Return how many further draws the diagnosis may take where the first leave it open: all of them or none."""
        num = _MORE * _NUM_DRAWS
        dear = num * self.evaluation_seconds > _MORE_SHARE * self.seconds_left() or num > self.evaluations_left()
        return 0 if dear or num * dim > _MOST_VALUES or self.num_draws() < _NUM_DRAWS else num

    def block(self) -> int:
        """Return how many draws to evaluate at once: fewer where one evaluation takes long."""
        if self._block == 0:  # chosen once, when draws are first needed: another size is another program
            self._block = self._fitting_block()
        return self._block

    def _fitting_block(self) -> int:
        seconds, most = self.evaluation_seconds, self.num_draws()
        return next((size for size in (BLOCK, 32, 4) if size * seconds < 1.0 and size <= most), 1)

    def diagnosis_evaluations(self) -> int:
        """Return the evaluations that the draws of the diagnosis take, in whole blocks."""
        num, block = self.num_draws(), self._block or self._fitting_block()
        return -(-num // block) * block
