"""Log densities the bundled models share, written to keep their digits in float32; every constant is kept."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LOG_2PI = math.log(2 * math.pi)

Scalar = Float[Array, ""]
Vector = Float[Array, " n"]
Values = Float[Array, "..."]


def predict(design: Float[Array, "rows columns"], coefficients: Float[Array, " columns"]) -> Float[Array, " rows"]:
    """Linear predictor, in full precision.

    On a GPU a float32 product is otherwise rounded to ten bits, which raw-scale predictors do not survive.

    Args:
        design: Design matrix.
        coefficients: One coefficient per column.

    Returns:
        design · coefficients.
    """
    return jnp.matmul(design, coefficients, precision=jax.lax.Precision.HIGHEST)


def normal(residual: Values, scale: Scalar | float) -> Scalar:
    """Sum of log N(residual; 0, scale²) with one scale for all.

    The constant and log scale are added once, not once a row, which loses fewer digits.

    Args:
        residual: Values less their means, in units of the data.
        scale: Standard deviation, a scalar.

    Returns:
        −½ Σ (residual / scale)² − n log scale − (n/2) log 2π, in nats.
    """
    log_scale = math.log(scale) if isinstance(scale, float) else jnp.log(scale)
    return -0.5 * jnp.sum(jnp.square(residual / scale)) - residual.size * (log_scale + 0.5 * LOG_2PI)


def cauchy(value: Scalar, scale: float) -> Scalar:
    """Log density of Cauchy(0, scale), not truncated.

    Args:
        value: Where.
        scale: Scale.

    Returns:
        −log π scale − log(1 + (value / scale)²), in nats.
    """
    return -math.log(math.pi * scale) - jnp.log1p(jnp.square(value / scale))


def gamma(value: Scalar, shape: float, rate: float) -> Scalar:
    """Log density of Gamma(shape, rate).

    Args:
        value: Where, above zero.
        shape: Shape.
        rate: Inverse scale.

    Returns:
        The log density, in nats.
    """
    constant = shape * math.log(rate) - math.lgamma(shape)
    return constant + (shape - 1) * jnp.log(value) - rate * value


def bernoulli_logits(
    successes: Float[Array, " rows"], trials: Float[Array, " rows"] | float, logits: Float[Array, " rows"]
) -> Scalar:
    """Log likelihood of binomial counts given logits, without the binomial coefficient.

    Args:
        successes: Counts.
        trials: Numbers of trials.
        logits: Log odds of success.

    Returns:
        Σ successes log σ(logits) + (trials − successes) log σ(−logits), in nats.
    """
    hits = successes * jax.nn.log_sigmoid(logits)
    return jnp.sum(hits + (trials - successes) * jax.nn.log_sigmoid(-logits))
