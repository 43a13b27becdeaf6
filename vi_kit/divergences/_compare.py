"""The walk through two distributions: structures are taken apart until a row of the table fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Array

from vi_kit.divergences._rules import NoClosedForm, Rule, apply, pairs
from vi_kit.divergences._structure import STRUCTURES, Structure
from vi_kit.divergences._table import WIDENINGS
from vi_kit.divergences.distributions import Distribution

Fallback = Callable[[Distribution, Distribution], Array | None]


def compare(
    p: Distribution,
    q: Distribution,
    rules: Sequence[Rule],
    fallback: Fallback,
    structures: Mapping[tuple[type[Distribution], type[Distribution]], Structure] = STRUCTURES,
) -> Array:
    """Return the divergence of p from q, one value an entry of the common batch.

    Args:
        p: the distribution the mean is taken over.
        q: the other one.
        rules: closed forms for pairs of families.
        fallback: what is tried on each pair, narrowest first, where no rule fits: a value or None.
        structures: how what is made of parts is taken apart; by default as a divergence that adds up over them.

    Raises:
        NoClosedForm: where nothing fits.
    """
    batch = np.broadcast_shapes(p.batch_shape, q.batch_shape)
    seen = pairs(p.broadcast_to(batch), q.broadcast_to(batch), WIDENINGS)
    reason: NoClosedForm | None = None
    for a, b in seen:
        for rule in rules:
            if (type(a), type(b)) == (rule.p, rule.q):
                return apply(rule, a, b)
        structure = structures.get((type(a), type(b)))
        if structure is not None:
            try:
                return structure(a, b, lambda x, y: compare(x, y, rules, fallback, structures))
            except NoClosedForm as error:
                reason = reason or error
    for a, b in seen:
        value = fallback(a, b)
        if value is not None:
            return value
    raise reason or NoClosedForm(f"{p.label} and {q.label}")
