"""Fits that do not look at the clock: what a loaded machine would change is another program."""

import pytest


def unhurried(patch: pytest.MonkeyPatch) -> None:
    """Take as many draws at once as on a machine with nothing else to do."""
    patch.setattr("vi_kit._budget.Budget._fitting_block", lambda self: 256)
    patch.setattr("vi_kit._budget.Budget.num_draws", lambda self: 4_096)
    patch.setattr("vi_kit._budget.Budget.more_draws", lambda self, dim: 12_288)
