"""Which estimator serves a family and an objective: the best valid one, or a refusal that names those that work."""

from __future__ import annotations

from typing import Any

from vi_kit._types import Family, GradientEstimator
from vi_kit.estimators._closed_form_entropy import closed_form_entropy
from vi_kit.estimators._doubly_reparameterized import doubly_reparameterized
from vi_kit.estimators._forms import Form, is_steep, needs
from vi_kit.estimators._pathwise import pathwise
from vi_kit.estimators._score_function import score_function
from vi_kit.estimators._sticking_the_landing import sticking_the_landing
from vi_kit.estimators._stratified import stratified

BEST_FIRST: tuple[Any, ...] = (
    sticking_the_landing,
    doubly_reparameterized,
    stratified,
    pathwise,
    closed_form_entropy,
    score_function,
)


def valid(family: Family, form: Form) -> tuple[Any, ...]:
    """Return the estimators that are unbiased for this form and valid for this family, the best one first.

    Of a mean of log q − f that is the pathwise one where the family says that its inverse is steep.
    """
    found = tuple(e for e in BEST_FIRST if form in e.forms and e.accepts(family))
    if form is Form.LOG_RATIO and is_steep(family) and pathwise in found:
        return (pathwise, *(e for e in found if e is not pathwise))
    return found


def choose(estimator: GradientEstimator | None, family: Family, form: Form) -> Any:
    """Return the estimator, checked, or the best valid one where none is given; a user's own is taken as it is.

    Raises:
        ValueError: when it is not valid for the family or biased for this form, naming those that work.
        TypeError: when the objective takes a logarithm of a mean and a user's own estimator has no `log_mean`.
    """
    if estimator is None:
        return valid(family, form)[0]  # the score function is always there
    declared: Any = estimator
    others = " or ".join(f"vk.estimators.{e!r}" for e in valid(family, form)[:3])
    if not hasattr(declared, "forms"):
        if form is Form.LOG_MEAN and not hasattr(declared, "log_mean"):
            raise TypeError(
                f"estimator: the objective is {form.value}, for which {declared!r} has no log_mean; use {others}"
            )
        return declared
    if form not in declared.forms:
        raise ValueError(f"estimator: {declared!r} is biased where the objective is {form.value}; use {others}")
    if not declared.accepts(family):
        raise ValueError(f"estimator: {needs(declared, family)}; use {others}")
    return declared


def evaluations(estimator: Any, family: Family, num_samples: int) -> int:
    """Target evaluations of `num_samples` draws."""
    count = getattr(estimator, "evaluations", None)
    return num_samples if count is None else int(count(family, num_samples))
