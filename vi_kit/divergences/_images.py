"""Families that are the image of a normal or a logistic distribution: KL does not change under an invertible map."""

from __future__ import annotations

from vi_kit.divergences.distributions import (
    Exp,
    Logistic,
    LogitNormal,
    LogLogistic,
    LogNormal,
    Normal,
    Sigmoid,
    Transformed,
)


def log_normal_as_image(p: LogNormal) -> Transformed:
    """Return a log-normal as the exponential of a normal."""
    return Transformed(Normal(p.loc, p.scale), (Exp(),))


def log_logistic_as_image(p: LogLogistic) -> Transformed:
    """Return a log-logistic as the exponential of a logistic."""
    return Transformed(Logistic(p.loc, p.scale), (Exp(),))


def logit_normal_as_image(p: LogitNormal) -> Transformed:
    """Return a logit-normal as the logistic function of a normal."""
    return Transformed(Normal(p.loc, p.scale), (Sigmoid(),))
