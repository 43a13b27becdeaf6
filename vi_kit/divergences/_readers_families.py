"""Readers of the distributions that vi_kit's own families build, where distrax has none."""

from __future__ import annotations

from typing import Any

from vi_kit.divergences import distributions as d
from vi_kit.divergences._reading import Read, Reader, from_root, leaf, mixture


def _block_diagonal(x: Any, read: Read) -> d.Distribution:
    return from_root(x.loc, x.root)


def _independent_student_t(x: Any, read: Read) -> d.Distribution:
    return d.Independent(d.StudentT(x.df, x.loc, x.scale), 1)


def _mixture(x: Any, read: Read) -> d.Distribution | None:
    return mixture(x.log_weights, [read(x.component(k)) for k in range(x.num_components)])


READERS: dict[str, Reader] = {
    "BlockDiagonalNormal": _block_diagonal,
    "FamilyMixture": _mixture,
    "IndependentStudentT": _independent_student_t,
    "LowRankNormal": leaf(d.MultivariateNormalLowRank, "loc", "factor", "scale_diag"),
}
