"""Targets of which each step sees a random part of the data."""

from __future__ import annotations

import dataclasses

from vi_kit._rows import num_rows
from vi_kit._types import Target, check_count


def minibatch(target: Target, batch_size: int) -> Target:
    r"""Return a target whose reverse-KL steps each see a random minibatch of the rows of its data.

    $$ \log \tilde p_{step}(x) = \log prior(x) + \tfrac{N}{B} \log likelihood(x; batch) $$

    Each call of `vk.objectives.ReverseKL` draws B of N rows: one from each of B equal parts of the data, so that every
    row is as likely as any other and the gradient is unbiased for that of the ELBO on all the data; its variance is
    at most that of B independent rows, and a draw costs O(B). All draws of q in a call share the minibatch.

    Only such steps see minibatches: `log_density`, `vk.check`, `vk.diagnose`, the ELBO along a fit and its report are
    those of all the data, and so is whatever `vk.fit` tries when given neither an algorithm nor steps. Algorithms that
    would be biased or led astray by minibatches are refused by `vk.optimize` and `vk.fit`. A step counts as so many
    evaluations of all the data as it costs, rounded up.

    The log likelihood has to be a sum over rows, independent given x: that cannot be checked.

    Args:
        target: one made with `prior=`, whose data all have a leading axis of N rows.
        batch_size: B, rows a step.

    Returns:
        The target; other data of the same shapes compile nothing.

    Raises:
        TypeError: for an argument of the wrong kind.
        ValueError: for a target without a prior or without rows, or fewer rows than B.

    Source: Hoffman, Blei, Wang and Paisley, "Stochastic Variational Inference", 2013,
    https://arxiv.org/abs/1206.7051; stratified draws of rows: Zhao and Zhang, "Accelerating Minibatch Stochastic
    Gradient Descent using Stratified Sampling", 2014, https://arxiv.org/abs/1405.3080

    Example:
        >>> import distrax, jax.numpy as jnp, vi_kit as vk
        >>> def log_likelihood(x, y):
        ...     return -0.5 * jnp.sum((y - x["mean"]) ** 2)
        >>> prior = {"mean": distrax.Normal(0.0, 10.0)}
        >>> target = vk.make_target(log_likelihood, {"mean": 0.0}, data=jnp.arange(1_000.0), prior=prior)
        >>> vk.targets.minibatch(target, 50)
        Target(dim=1; mean; with data, prior, minibatches of 50)
    """
    if not isinstance(target, Target):
        raise TypeError(f"target: expected a Target, as from vk.make_target, got {type(target).__name__}")
    check_count("batch_size", batch_size)
    if not target.has_prior:
        raise ValueError(
            "target: minibatches need a target made with prior=, since only the likelihood is to be scaled by N/B"
        )
    num_rows(target.data, int(batch_size))
    return dataclasses.replace(target, batch_size=int(batch_size))
