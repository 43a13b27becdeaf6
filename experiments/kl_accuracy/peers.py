"""Every library behind one signature: logits in, value and both gradients out, as NumPy arrays.

A library that is not installed is left out and named in `missing`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import numpy as np
import scipy.spatial
import scipy.special
import scipy.stats

from vi_kit import kl

# (p_logits, q_logits, dtype, where, temperature) -> value, gradient to p's logits, gradient to q's logits
Evaluate = Callable[..., tuple[np.ndarray, np.ndarray | None, np.ndarray | None]]


@dataclass(frozen=True)
class Peer:
    """One way to compute a divergence of two batches of logits."""

    name: str
    evaluate: Evaluate


def _numpy(array: Any) -> np.ndarray:
    return np.asarray(array).astype(np.float64)


def with_jax(function: Callable[..., jax.Array]) -> Evaluate:
    """Compile value and gradients of a function of two arrays."""

    @jax.jit
    def run(p: jax.Array, q: jax.Array, where: Any, temperature: Any) -> Any:
        value, pullback = jax.vjp(lambda p, q: function(p, q, where, temperature), p, q)
        return value, *pullback(jnp.ones_like(value))

    def evaluate(
        p: np.ndarray, q: np.ndarray, dtype: str = "float32", where: Any = None, temperature: float | None = None
    ) -> Any:
        return tuple(_numpy(x) for x in run(jnp.asarray(p, dtype), jnp.asarray(q, dtype), where, temperature))

    return evaluate


def with_logits(function: Callable[..., jax.Array]) -> Evaluate:
    """Of a function that knows no temperature and no classes that do not exist: the user divides and puts −inf."""

    def of_logits(p: jax.Array, q: jax.Array, where: Any, temperature: Any) -> jax.Array:
        if temperature is not None:
            p, q = p / temperature, q / temperature
        if where is not None:
            p, q = jnp.where(where, p, -jnp.inf), jnp.where(where, q, -jnp.inf)
        return function(p, q)

    return with_jax(of_logits)


def with_torch(function: Callable[..., Any]) -> Evaluate:
    """Value and gradients by torch.autograd."""
    import torch

    def evaluate(
        p: np.ndarray, q: np.ndarray, dtype: str = "float32", where: Any = None, temperature: float | None = None
    ) -> Any:
        leaves = [torch.tensor(x).to(getattr(torch, dtype)).requires_grad_() for x in (p, q)]
        inputs = leaves if temperature is None else [x / temperature for x in leaves]
        if where is not None:
            inputs = [torch.where(torch.tensor(where), x, -torch.inf) for x in inputs]
        value = function(*inputs)
        value.sum().backward()
        return tuple(_numpy(x.detach().float()) for x in (value, *(leaf.grad for leaf in leaves)))

    return evaluate


def with_numpy(function: Callable[..., np.ndarray]) -> Evaluate:
    """Value only."""

    def evaluate(
        p: np.ndarray, q: np.ndarray, dtype: str = "float32", where: Any = None, temperature: float | None = None
    ) -> Any:
        if dtype != "float32":
            raise TypeError("half precision is not a type of NumPy's")
        if temperature is not None:
            p, q = (np.asarray(x, np.float32) / np.float32(temperature) for x in (p, q))
        if where is not None:
            p, q = (np.where(where, x, np.float32(-np.inf)) for x in (p, q))
        with np.errstate(all="ignore"):
            return _numpy(function(np.asarray(p, np.float32), np.asarray(q, np.float32))), None, None

    return evaluate


def _optional(loaders: dict[str, Callable[[], list[Peer]]]) -> tuple[list[Peer], list[str]]:
    found, missing = [], []
    for package, load in loaders.items():
        try:
            found += load()
        except ImportError:
            missing.append(package)
    return found, missing


@functools.cache
def categorical() -> tuple[list[Peer], list[str]]:
    """Return KL(p‖q) from logits by every library, and the names of those not installed."""
    from jax.nn import log_softmax, softmax
    from jax.scipy.special import rel_entr

    def vi_kit() -> list[Peer]:
        def function(p: Any, q: Any, where: Any, temperature: Any) -> Any:
            return kl.categorical(p, q, where=where, temperature=1.0 if temperature is None else temperature)

        return [Peer("vi_kit", with_jax(function))]

    def optax() -> list[Peer]:
        from optax import losses

        def log_targets(p: Any, q: Any, where: Any, temperature: Any) -> Any:
            p, q = (x if temperature is None else x / temperature for x in (p, q))
            log_p, log_q = log_softmax(p, where=where), log_softmax(q, where=where)
            return losses.kl_divergence_with_log_targets(log_q, log_p, where=where)

        def targets(p: Any, q: Any, where: Any, temperature: Any) -> Any:
            p, q = (x if temperature is None else x / temperature for x in (p, q))
            return losses.kl_divergence(log_softmax(q, where=where), softmax(p, where=where), where=where)

        return [Peer("optax, log targets", with_jax(log_targets)), Peer("optax, probabilities", with_jax(targets))]

    def distrax() -> list[Peer]:
        from distrax import Categorical

        return [Peer("distrax", with_logits(lambda p, q: Categorical(logits=p).kl_divergence(Categorical(logits=q))))]

    def tfp() -> list[Peer]:
        from tensorflow_probability.substrates.jax import distributions as tfd

        function = with_logits(lambda p, q: tfd.kl_divergence(tfd.Categorical(logits=p), tfd.Categorical(logits=q)))
        return [Peer("TFP on JAX", function)]

    def rlax() -> list[Peer]:
        from rlax import categorical_kl_divergence

        return [Peer("rlax", with_logits(categorical_kl_divergence))]

    def numpyro() -> list[Peer]:
        from numpyro.distributions import Categorical, kl_divergence

        def function(p: Any, q: Any) -> Any:  # of two CategoricalLogits it has no KL
            return kl_divergence(Categorical(probs=softmax(p)), Categorical(probs=softmax(q)))

        return [Peer("NumPyro", with_logits(function))]

    def jax_scipy() -> list[Peer]:
        return [Peer("jax.scipy rel_entr", with_logits(lambda p, q: jnp.sum(rel_entr(softmax(p), softmax(q)), -1)))]

    def keras() -> list[Peer]:
        from keras import losses

        return [Peer("Keras", with_logits(lambda p, q: losses.kl_divergence(softmax(p), softmax(q))))]

    def torch() -> list[Peer]:
        import torch
        from torch.nn import functional

        def probabilities(p: Any, q: Any) -> Any:
            return functional.kl_div(q.log_softmax(-1), p.softmax(-1), reduction="none").sum(-1)

        def log_targets(p: Any, q: Any) -> Any:
            return functional.kl_div(q.log_softmax(-1), p.log_softmax(-1), reduction="none", log_target=True).sum(-1)

        def distributions(p: Any, q: Any) -> Any:
            family = torch.distributions.Categorical
            return torch.distributions.kl_divergence(
                family(logits=p, validate_args=False), family(logits=q, validate_args=False)
            )

        return [
            Peer("PyTorch kl_div, log targets", with_torch(log_targets)),
            Peer("PyTorch kl_div, probabilities", with_torch(probabilities)),
            Peer("torch.distributions", with_torch(distributions)),
        ]

    def scipy_() -> list[Peer]:
        special = scipy.special

        def rel_entr_(p: Any, q: Any) -> Any:
            return special.rel_entr(special.softmax(p, -1), special.softmax(q, -1)).sum(-1)

        return [Peer("scipy rel_entr", with_numpy(rel_entr_))]

    return _optional(
        {
            "vi_kit": vi_kit,
            "optax": optax,
            "distrax": distrax,
            "tfp-nightly": tfp,
            "rlax": rlax,
            "numpyro": numpyro,
            "jax": jax_scipy,
            "keras": keras,
            "torch": torch,
            "scipy": scipy_,
        }
    )


@functools.cache
def jensen_shannon(beta: float, normalize: bool) -> list[Peer]:
    """Return β·KL(p‖m) + (1−β)·KL(q‖m), m = βp + (1−β)q: no JAX library has one, so beside what users write."""

    def probabilities(p: Any, q: Any) -> Any:
        p, q = jax.nn.softmax(p), jax.nn.softmax(q)
        m = beta * p + (1 - beta) * q
        rel_entr = jax.scipy.special.rel_entr
        return jnp.sum(beta * rel_entr(p, m) + (1 - beta) * rel_entr(q, m), -1)

    def log_probabilities(p: Any, q: Any) -> Any:
        log_p, log_q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
        log_m = jnp.logaddexp(log_p + np.log(beta), log_q + np.log1p(-beta))
        first = jnp.sum(jnp.exp(log_p) * (log_p - log_m), -1)
        return beta * first + (1 - beta) * jnp.sum(jnp.exp(log_q) * (log_q - log_m), -1)

    def scipy_(p: Any, q: Any) -> Any:
        p, q = scipy.special.softmax(p, -1), scipy.special.softmax(q, -1)
        return np.square(scipy.spatial.distance.jensenshannon(p, q, axis=-1))

    own = with_jax(lambda p, q, where, temperature: kl.jensen_shannon(p, q, beta=beta, normalize=normalize))
    peers = [Peer("vi_kit", own)]
    if not normalize and 0 < beta < 1:
        peers.append(Peer("by hand, rel_entr", with_logits(probabilities)))
        peers.append(Peer("by hand, logaddexp", with_logits(log_probabilities)))
    if not normalize and beta == 0.5:
        peers.append(Peer("scipy jensenshannon²", with_numpy(scipy_)))
    return peers


@functools.cache
def gaussian() -> tuple[list[Peer], list[str]]:
    """Return KL(N(mean, e^ℓ) ‖ N(0, 1)) from (mean, ℓ) by every library, and the names of those not installed."""

    def vi_kit() -> list[Peer]:
        return [Peer("vi_kit", with_logits(lambda mean, log_variance: kl.normal(mean, 0.5 * log_variance)))]

    def textbook() -> list[Peer]:
        def function(mean: Any, log_variance: Any) -> Any:
            return 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance)

        return [Peer("textbook formula", with_logits(function))]

    def distrax() -> list[Peer]:
        from distrax import Normal

        return [Peer("distrax", with_logits(lambda m, v: Normal(m, jnp.exp(v / 2)).kl_divergence(Normal(0.0, 1.0))))]

    def tfp() -> list[Peer]:
        from tensorflow_probability.substrates.jax import distributions as tfd

        standard = (jnp.float32(0), jnp.float32(1))
        function = with_logits(lambda m, v: tfd.kl_divergence(tfd.Normal(m, jnp.exp(v / 2)), tfd.Normal(*standard)))
        return [Peer("TFP on JAX", function)]

    def numpyro() -> list[Peer]:
        from numpyro.distributions import Normal, kl_divergence

        return [Peer("NumPyro", with_logits(lambda m, v: kl_divergence(Normal(m, jnp.exp(v / 2)), Normal(0.0, 1.0))))]

    def torch() -> list[Peer]:
        import torch

        def function(mean: Any, log_variance: Any) -> Any:
            normal = torch.distributions.Normal
            p = normal(mean, torch.exp(log_variance / 2), validate_args=False)
            return torch.distributions.kl_divergence(p, normal(torch.tensor(0.0), torch.tensor(1.0)))

        return [Peer("torch.distributions", with_torch(function))]

    loaders = {"vi_kit": vi_kit, "": textbook, "distrax": distrax, "tfp-nightly": tfp}
    return _optional({**loaders, "numpyro": numpyro, "torch": torch})


def versions() -> dict[str, str]:
    """Return what is compared, as installed."""
    found = {}
    for name in ("vi_kit", "jax", "optax", "distrax", "tfp-nightly", "rlax", "numpyro", "keras", "torch", "scipy"):
        try:
            found[name] = version(name)
        except ImportError:
            found[name] = "not installed"
    return found
