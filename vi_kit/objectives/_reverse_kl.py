"""Reverse KL: the negative ELBO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from vi_kit._distributions import DiagonalNormal, distrax
from vi_kit._static import configuration, display, leaf
from vi_kit._types import Event, Family, GradientEstimator, KeyArray, Params, Scalar, Target, check_count
from vi_kit.divergences import kl_divergence
from vi_kit.estimators import Form, choose, evaluations
from vi_kit.objectives._checks import check_estimator, check_family, check_number

KLTerm = Callable[[Any, Target, Event, Scalar], Scalar]


def monte_carlo_kl(q: Any, target: Target, z: Event, log_q: Scalar) -> Scalar:
    """Return log q(z) − log prior(z), whose mean over q is KL(q‖prior); no prior declared is a flat one."""
    del q
    return log_q - target.log_prior(z)


def closed_form_kl(q: Any, target: Target, z: Event, log_q: Scalar) -> Scalar:
    """Return KL(q‖prior) in closed form, for real variables with normal priors.

    Raises:
        ValueError: when the target declares no prior as distributions.
        NotImplementedError: when a variable's prior has no closed form against a Gaussian, naming the variable.
    """
    del z, log_q
    return kl_divergence(q, _gaussian_prior(target))


def _gaussian_prior(target: Target) -> Any:
    if target.prior is None:
        raise ValueError("kl_term: closed_form_kl needs a target made with prior= given as distributions")
    parts = target.layout.treedef.flatten_up_to(target.prior)
    means, scales = [], []
    for name, shape, support, part in zip(
        target.layout.names, target.layout.shapes, target.supports, parts, strict=True
    ):
        if len(parts) == 1 and str(support) == "real" and part.event_shape == (target.dim,):
            return part
        inner = part.distribution if isinstance(part, distrax.Independent) else part
        is_normal = isinstance(inner, distrax.Normal | distrax.MultivariateNormalDiag)
        if not is_normal or str(support) != "real":
            raise NotImplementedError(
                f"kl_term: no closed form for KL(q‖prior) because of {name or 'x'} ({type(inner).__name__} prior, "
                f"{type(support).__name__} support); use kl_term=vk.objectives.monte_carlo_kl"
            )
        scale = inner.scale if isinstance(inner, distrax.Normal) else inner.scale_diag
        means.append(jnp.broadcast_to(inner.loc, shape).reshape(-1))
        scales.append(jnp.broadcast_to(scale, shape).reshape(-1))
    return DiagonalNormal(jnp.concatenate(means), jnp.concatenate(scales))


@configuration
class ReverseKL:
    r"""KL(q‖p) up to log Z: the negative ELBO, minimized. Mode-seeking: q avoids where p is small.

    $$ -ELBO = E_q[\log q(z) - \log \tilde p(z)] = KL(q\|prior) - E_q[\log likelihood] $$

    Args:
        family: the family of q.
        estimator: how the mean over q is differentiated (`vi_kit.estimators`); None takes the best one that is valid
            for the family: sticking the landing, stratified draws of a mixture, the score function.
        num_samples: draws a call.
        kl_term: `monte_carlo_kl`, or `closed_form_kl` where the target declares normal priors on real variables.
        beta: a factor of the KL term, or a schedule of it over steps (`vi_kit.kl.schedules`; another number compiles
            nothing). Without a declared prior that term is log q less the log-Jacobian of the supports. Unless it is
            1 in the end, the fit is one of another target; the loss is that of the step's β.

    The gradient is unbiased with every estimator of `vi_kit.estimators` that is not refused; a call costs
    `num_samples` evaluations (with stratified draws, in whole rounds), of a minibatch each where the target has them
    (`vi_kit.targets.minibatch`), which leaves the gradient unbiased.

    Source: Blei, Kucukelbir and McAuliffe, "Variational Inference: A Review for Statisticians", 2017,
    https://arxiv.org/abs/1601.00670; for β, Higgins et al., "β-VAE", 2017,
    https://openreview.net/forum?id=Sy2fzU9gl
    """

    family: Family
    estimator: GradientEstimator | None = None
    num_samples: int = 16
    kl_term: KLTerm = monte_carlo_kl
    beta: float | Array | Callable[[Any], Any] | None = leaf(default=None)

    form: ClassVar[Form] = Form.LOG_RATIO
    takes_minibatches: ClassVar[bool] = True  # the loss is linear in the log likelihood

    def __post_init__(self) -> None:
        """Check the number of draws and the kinds of the arguments."""
        check_count("num_samples", self.num_samples)
        check_family(self.family)
        check_estimator(self.estimator)
        if self.beta is not None and not callable(self.beta):
            check_number("beta", self.beta, least=0.0)
        if not callable(self.kl_term):
            raise TypeError(
                f"kl_term: expected vk.objectives.monte_carlo_kl or vk.objectives.closed_form_kl, got {self.kl_term!r}"
            )

    def evaluations(self, target: Target) -> int:
        """Target evaluations a call costs."""
        return target.evaluations(evaluations(self._estimator(), self.family, self.num_samples))

    def _estimator(self) -> Any:
        return choose(self.estimator, self.family, self.form)

    def describe(self, target: Target) -> str:
        """Say in words what is minimized, for reports."""
        prior = ", KL(q‖prior) in closed form" if self.kl_term is closed_form_kl else ""
        beta = ""
        if self.beta is not None:
            beta = ", KL term annealed" if callable(self.beta) else f", KL term times {float(self.beta):g}"
        batches = "" if target.batch_size is None else f", minibatches of {target.batch_size} rows"
        return f"reverse KL(q‖p), {display(self._estimator())}, {self.num_samples} draws a step{prior}{beta}{batches}"

    def __call__(self, params: Params, target: Target, key: KeyArray, *, step: int | Int[Array, ""] = 0) -> Scalar:
        """Return the negative ELBO, in nats."""
        beta = self.beta(step) if callable(self.beta) else self.beta
        if target.batch_size is not None:
            key, batch_key = jax.random.split(key)
            target = target.subsample(batch_key)

        def integrand(params: Params, z: Event, log_q: Scalar) -> Scalar:
            kl = self.kl_term(self.family.dist(params), target, z, log_q)
            return (kl if beta is None else jnp.asarray(beta, kl.dtype) * kl) - target.log_likelihood(z)

        loss: Scalar = self._estimator()(integrand, self.family, params, key, self.num_samples)
        return loss
