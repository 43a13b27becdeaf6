"""Families of counts and classes. Where both probabilities and logits are fields, one of them is given."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Array, Bool

from vi_kit.divergences.distributions._declare import (
    Distribution,
    count,
    family,
    log_odds,
    logits_vector,
    non_negative,
    parameter,
    positive,
    probabilities,
    probability,
    static,
    whole,
    whole_end,
)


class _Odds(Distribution):
    """What has a probability of success, given as such or as its log odds."""


@family
class Bernoulli(_Odds):
    """0 or 1; `probs` is the probability of 1."""

    support: ClassVar[str] = "binary"
    probs: Array | None = parameter(probability, default=None)
    logits: Array | None = parameter(log_odds, default=None)


@family
class Binomial(_Odds):
    """Number of successes in `total_count` trials."""

    support: ClassVar[str] = "count"
    total_count: Array = parameter(count)
    probs: Array | None = parameter(probability, default=None)
    logits: Array | None = parameter(log_odds, default=None)


@family
class Geometric(_Odds):
    """Number of failures before the first success."""

    support: ClassVar[str] = "natural"
    probs: Array | None = parameter(probability, default=None)
    logits: Array | None = parameter(log_odds, default=None)


@family
class NegativeBinomial(_Odds):
    """Number of successes (probability `probs`) before the `total_count`-th failure, as in TensorFlow Probability."""

    support: ClassVar[str] = "natural"
    total_count: Array = parameter(positive)
    probs: Array | None = parameter(probability, default=None)
    logits: Array | None = parameter(log_odds, default=None)


@family
class Poisson(Distribution):
    """Poisson with mean `rate`."""

    support: ClassVar[str] = "natural"
    rate: Array = parameter(non_negative)


@family
class DiscreteUniform(Distribution):
    """Every whole number from `low` to `high`, both included."""

    support: ClassVar[str] = "whole_interval"
    low: Array = parameter(whole)
    high: Array = parameter(whole_end)

    def relations(self) -> dict[str, tuple[Bool[Array, "..."], str]]:
        """Tell whether the ends are in order."""
        return {"high": (self.low <= self.high, "numbers of at least `low`")}


@family
class Categorical(Distribution):
    """A class; the last axis of the parameter holds the classes. `normalized`: the logits are log probabilities."""

    support: ClassVar[str] = "classes"
    probs: Array | None = parameter(probabilities, default=None)
    logits: Array | None = parameter(logits_vector, default=None)
    normalized: bool = static(default=False)


@family
class OneHotCategorical(Distribution):
    """A class as a one-hot vector. `normalized`: the logits are log probabilities."""

    support: ClassVar[str] = "one_hot"
    event_ndims: ClassVar[int] = 1
    probs: Array | None = parameter(probabilities, default=None)
    logits: Array | None = parameter(logits_vector, default=None)
    normalized: bool = static(default=False)


@family
class Multinomial(Distribution):
    """How often each class comes up in `total_count` draws."""

    support: ClassVar[str] = "counts"
    event_ndims: ClassVar[int] = 1
    total_count: Array = parameter(count)
    probs: Array | None = parameter(probabilities, default=None)
    logits: Array | None = parameter(logits_vector, default=None)
