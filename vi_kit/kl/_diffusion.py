r"""The terms of a diffusion model's bound, in the variance-preserving convention of variational diffusion models.

The noise level is $\gamma = -\log \mathrm{SNR}$, rising with time: $z_t = \alpha_t x + \sigma_t \epsilon$ with
$\sigma_t^2 = \mathrm{sigmoid}(\gamma_t)$ and $\alpha_t^2 = \mathrm{sigmoid}(-\gamma_t)$. A model that counts in
$\bar\alpha_t$ (DDPM) has $\gamma_t = \log(1 - \bar\alpha_t) - \log \bar\alpha_t$.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from vi_kit.kl._gaussian import elementwise, normal
from vi_kit.kl._inputs import positive

if TYPE_CHECKING:  # jaxtyping would be most of what importing `vi_kit.kl` costs
    from jaxtyping import Array, ArrayLike, Float, Key


def diffusion_posterior(
    x: Float[ArrayLike, "..."],
    z: Float[ArrayLike, "..."],
    gamma_s: Float[ArrayLike, "..."],
    gamma_t: Float[ArrayLike, "..."],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""Mean and log scale of q(z_s | z_t, x) for s < t, the distribution that a denoising step has to match.

    $$ m = \frac{\alpha_s}{\alpha_t} (1 - c)\, z_t + \alpha_s c\, x, \quad \sigma^2 = c\, \sigma_s^2,
       \quad c = 1 - e^{\gamma_s - \gamma_t} $$

    The term of a DDPM at t is `normal` of this and of the model's step: without a loss of digits where steps are small.

    Args:
        x: data; all inputs broadcast.
        z: noised data at time t.
        gamma_s: noise level at the earlier time (−log SNR); −∞ where there is no noise.
        gamma_t: noise level at time t, above gamma_s.

    Returns:
        Mean and log standard deviation, the shape that the inputs broadcast to. NaN where gamma_s is above gamma_t.

    Raises:
        TypeError: for integer arrays.
        ValueError: for shapes that do not broadcast.

    Source: D. P. Kingma, T. Salimans, B. Poole, J. Ho, "Variational diffusion models" (2021), appendix A,
    https://arxiv.org/abs/2107.00630.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> x, predicted_x, z = jnp.array([0.5]), jnp.array([0.4]), jnp.array([0.3])
        >>> p, q = (kl.diffusion_posterior(data, z, -1.0, -0.9) for data in (x, predicted_x))
        >>> print(f"{kl.normal(*p, *q)[0]:.6f}")  # (SNR_s − SNR_t)/2 · 0.1²
        0.001293
    """
    x, z, gamma_s, gamma_t = elementwise(x=x, z=z, gamma_s=gamma_s, gamma_t=gamma_t)
    share = -jnp.expm1(gamma_s - gamma_t)
    alpha_s = jnp.exp(0.5 * jax.nn.log_sigmoid(-gamma_s))
    ratio = jnp.exp(0.5 * (jax.nn.log_sigmoid(-gamma_s) - jax.nn.log_sigmoid(-gamma_t)) + gamma_s - gamma_t)
    return ratio * z + alpha_s * share * x, 0.5 * (jnp.log(share) + jax.nn.log_sigmoid(gamma_s))


def diffusion_prior(x: Float[ArrayLike, "..."], gamma_1: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
    r"""KL(q(z_1 | x)‖N(0, 1)), elementwise: what the noise at the last time leaves to be seen of the data.

    $$ \tfrac12 \left[ (1 - \sigma_1^2) x^2 + \sigma_1^2 - \log \sigma_1^2 - 1 \right],
       \quad \sigma_1^2 = \mathrm{sigmoid}(\gamma_1) $$

    Args:
        x: data; both inputs broadcast.
        gamma_1: noise level at the last time (−log SNR).

    Returns:
        KL in nats, one value an element: sum over pixels and channels.

    Raises:
        TypeError: for integer arrays.
        ValueError: for shapes that do not broadcast.

    Source: D. P. Kingma, T. Salimans, B. Poole, J. Ho, "Variational diffusion models" (2021),
    https://arxiv.org/abs/2107.00630.

    Example:
        >>> import vi_kit.kl as kl
        >>> print(f"{kl.diffusion_prior(1.0, 10.0):.3e}")
        2.270e-05
    """
    x, gamma_1 = elementwise(x=x, gamma_1=gamma_1)
    return normal(x * jnp.exp(0.5 * jax.nn.log_sigmoid(-gamma_1)), 0.5 * jax.nn.log_sigmoid(gamma_1))


def diffusion_loss(
    noise_error: Float[ArrayLike, "..."],
    gamma_s: Float[ArrayLike, "..."],
    gamma_t: Float[ArrayLike, "..."],
    *,
    num_steps: int,
) -> Float[Array, "..."]:
    r"""The diffusion term of the bound with finitely many steps, from the error of the predicted noise.

    $$ \frac{T}{2} \left( e^{\gamma_t - \gamma_s} - 1 \right) \| \epsilon - \hat\epsilon(z_t, t) \|^2 $$

    With t uniform on 1/T, 2/T, …, 1 and s = t − 1/T it is an unbiased estimate of the sum over steps of
    KL(q(z_s | z_t, x)‖p(z_s | z_t)).

    Args:
        noise_error: ‖ε − ε̂‖², summed over pixels and channels; all inputs broadcast.
        gamma_s: noise level at s (−log SNR).
        gamma_t: noise level at t, above gamma_s.
        num_steps: T.

    Returns:
        Nats, the shape that the inputs broadcast to.

    Raises:
        TypeError: for integer arrays.
        ValueError: for shapes that do not broadcast, or a number of steps not above 0.

    Source: D. P. Kingma, T. Salimans, B. Poole, J. Ho, "Variational diffusion models" (2021), equation 14,
    https://arxiv.org/abs/2107.00630.

    Example:
        >>> import vi_kit.kl as kl
        >>> print(f"{kl.diffusion_loss(2.0, -1.0, -0.99, num_steps=100):.4f}")
        1.0050
    """
    error, gamma_s, gamma_t, steps = elementwise(
        noise_error=noise_error, gamma_s=gamma_s, gamma_t=gamma_t, num_steps=positive("num_steps", num_steps)
    )
    return 0.5 * steps * jnp.expm1(gamma_t - gamma_s) * error


def continuous_diffusion_loss(
    noise_error: Float[ArrayLike, "..."], gamma: Callable[[Array], Array], times: Float[ArrayLike, "..."]
) -> Float[Array, "..."]:
    r"""The diffusion term of the bound in continuous time, from the error of the predicted noise.

    $$ \tfrac12 \gamma'(t)\, \| \epsilon - \hat\epsilon(z_t, t) \|^2 $$

    With t uniform on [0, 1] it is an unbiased estimate of the limit of `diffusion_loss` for infinitely many steps.
    The derivative is taken by forward differentiation, so that parameters of γ get their gradient.

    Args:
        noise_error: ‖ε − ε̂‖², summed over pixels and channels, shape as times.
        gamma: noise level (−log SNR) as a function of time, elementwise.
        times: t in [0, 1].

    Returns:
        Nats, the shape of times.

    Raises:
        TypeError: for integer arrays.
        ValueError: for shapes that do not broadcast.

    Source: D. P. Kingma, T. Salimans, B. Poole, J. Ho, "Variational diffusion models" (2021), equation 17,
    https://arxiv.org/abs/2107.00630.

    Example:
        >>> import jax.numpy as jnp, vi_kit.kl as kl
        >>> kl.continuous_diffusion_loss(jnp.array([2.0]), lambda t: -5.0 + 10.0 * t, jnp.array([0.3])).tolist()
        [10.0]
    """
    error, times = elementwise(noise_error=noise_error, times=times)
    slope: Array = jax.jvp(gamma, (times,), (jnp.ones_like(times),))[1]
    return 0.5 * slope * error


def low_discrepancy_times(key: Key[Array, ""], num: int) -> Float[Array, " num"]:
    r"""Draw times in [0, 1), each uniform, all equally spaced: mod(u + i/n, 1) with one uniform u.

    A batch's mean over such times is as unbiased as over independent ones and much less noisy.

    Args:
        key: a typed key.
        num: how many, positive.

    Returns:
        Times, shape (num,).

    Raises:
        ValueError: for a number not above 0.

    Source: D. P. Kingma, T. Salimans, B. Poole, J. Ho, "Variational diffusion models" (2021), appendix I,
    https://arxiv.org/abs/2107.00630.

    Example:
        >>> import jax, vi_kit.kl as kl
        >>> kl.low_discrepancy_times(jax.random.key(0), 4).shape
        (4,)
    """
    if num < 1:
        raise ValueError(f"num: expected a positive number, got {num}")
    times = jax.random.uniform(key) + jnp.arange(num) / num
    return times - jnp.floor(times)
