"""Every library behind one signature: a family's name and parameters in, its distribution object out.

A builder takes a dict of arrays and returns an object, so that value and gradients are taken the same way everywhere.
A library that is not installed is left out and named in `missing`.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Values = dict[str, Any]
Build = Callable[[Values], Any]
VECTORS = (([0.3, -1.0], [0.5, 1.2]), ([0.0, 0.5], [0.9, 0.4]))  # mean and scale of p and of q


@dataclasses.dataclass(frozen=True)
class Library:
    """One library.

    Attributes:
        name: how it is called in the tables.
        families: builders by the name of the family.
        kl: its KL of two of its objects.
        structures: pairs made of other distributions, (p, q) by name.
    """

    name: str
    families: dict[str, Build]
    kl: Callable[[Any, Any], Any]
    structures: dict[str, Callable[[], tuple[Any, Any]]]

    def value(self, p: Any, q: Any) -> float:
        """Return KL of two objects as a number; raise where the library has none."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(np.asarray(self.kl(p, q)))

    def array(self, x: Any) -> Any:
        """Return float32 numbers as the library takes them."""
        return jnp.asarray(x, jnp.float32)

    def values_and_gradients(self, p: str, q: str, cases: list[tuple[Values, Values]]) -> list[Any]:
        """Return value and gradients to the parameters of p and q for each case."""

        @jax.jit
        def run(a: Values, b: Values) -> Any:
            return jax.value_and_grad(lambda a, b: self.kl(self.families[p](a), self.families[q](b)), (0, 1))(a, b)

        found = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for a, b in cases:
                value, gradients = run(*({k: self.array(v) for k, v in side.items()} for side in (a, b)))
                found.append((float(value), [{k: np.asarray(g) for k, g in side.items()} for side in gradients]))
        return found


class Torch(Library):
    """The one whose arrays are not JAX's."""

    def array(self, x: Any) -> Any:
        """Return float32 numbers as the library takes them."""
        import torch

        return torch.tensor(np.asarray(x), dtype=torch.float32)

    def value(self, p: Any, q: Any) -> float:
        """Return KL of two objects as a number; raise where the library has none."""
        return float(self.kl(p, q).detach())

    def values_and_gradients(self, p: str, q: str, cases: list[tuple[Values, Values]]) -> list[Any]:
        """Return value and gradients to the parameters of p and q for each case."""
        import torch

        found = []
        for case in cases:
            sides = [{k: self.array(v).requires_grad_() for k, v in side.items()} for side in case]
            value = self.kl(self.families[p](sides[0]), self.families[q](sides[1]))
            leaves = [x for side in sides for x in side.values()]
            slopes = (
                torch.autograd.grad(value, leaves, allow_unused=True) if value.requires_grad else [None] * len(leaves)
            )
            slopes = [np.zeros(x.shape) if g is None else g.numpy() for x, g in zip(leaves, slopes, strict=True)]
            cut = len(sides[0])
            named = [dict(zip(s, g, strict=True)) for s, g in zip(sides, (slopes[:cut], slopes[cut:]), strict=True)]
            found.append((float(value.detach()), named))
        return found


def _call(kind: Any, **renamed: str) -> Build:
    """Build with the parameters under the library's own names: `_call(Gamma, rate="beta")`."""
    return lambda v: kind(**{renamed.get(name, name): value for name, value in v.items()})


def _vi_kit() -> Library:
    import vi_kit as vk
    from vi_kit.divergences import distributions as d

    families = {
        name: _call(kind)
        for name, kind in vars(d).items()
        if isinstance(kind, type) and issubclass(kind, d.Distribution) and kind is not d.Distribution
    }
    for name in ("Deterministic", "Independent", "Joint", "Masked", "Mixture", "Opaque", "Sample", "Transformed"):
        families.pop(name, None)
    families["Diagonal"] = lambda v: d.Independent(d.Normal(v["loc"], v["scale"]), 1)
    families["SphericalUniform"] = lambda v: d.SphericalUniform(3)
    a, b = (d.Normal(*map(jnp.array, v)) for v in VECTORS)
    x, y = d.Normal(0.3, 1.2), d.Normal(-0.8, 0.5)
    tril = jnp.array([[1.1, 0.0], [0.4, 0.8]])
    full = d.MultivariateNormal(jnp.zeros(2), tril)
    structures = {
        "Independent ‖ Independent": lambda: (d.Independent(a, 1), d.Independent(b, 1)),
        "Independent ‖ multivariate normal": lambda: (d.Independent(a, 1), full),
        "multivariate normal ‖ Independent": lambda: (full, d.Independent(b, 1)),
        "Transformed, the same bijector": lambda: (d.Transformed(x, (d.Exp(),)), d.Transformed(y, (d.Exp(),))),
        "LogNormal ‖ Transformed(Normal, Exp)": lambda: (d.LogNormal(0.3, 1.2), d.Transformed(y, (d.Exp(),))),
        "Joint ‖ Joint": lambda: (d.Joint((x, x)), d.Joint((y, y))),
        "Sample ‖ Sample": lambda: (d.Sample(x, (4,)), d.Sample(y, (4,))),
        "Masked ‖ Masked": lambda: (d.Masked(x, jnp.array(True)), d.Masked(y, jnp.array(True))),
        "Deterministic ‖ Normal": lambda: (d.Deterministic(jnp.array(0.3)), y),
        "Deterministic ‖ Deterministic": lambda: (d.Deterministic(jnp.array(0.3)), d.Deterministic(jnp.array(0.3))),
        "mixture ‖ mixture": lambda: (d.Mixture(jnp.zeros(2), a), d.Mixture(jnp.zeros(2), b)),
    }
    return Library("vi_kit", families, vk.kl_divergence, structures)


def _distrax() -> Library:
    import distrax as d

    families = {
        **{
            n: _call(getattr(d, n))
            for n in ("Normal", "Laplace", "Logistic", "Gumbel", "Gamma", "Uniform", "Dirichlet")
        },
        "Beta": _call(d.Beta, concentration1="alpha", concentration0="beta"),
        "VonMises": _call(d.VonMises),
        **{n: _call(getattr(d, n)) for n in ("Bernoulli", "Categorical", "OneHotCategorical", "Multinomial")},
        "MultivariateNormal": lambda v: d.MultivariateNormalTri(v["loc"], v["scale_tril"]),
        "Diagonal": lambda v: d.MultivariateNormalDiag(v["loc"], v["scale"]),
    }
    # Its low-rank normal is of another kind: a factor of the scale, not of the covariance.
    a, b = (d.Normal(*map(jnp.array, v)) for v in VECTORS)
    x, y = d.Normal(0.3, 1.2), d.Normal(-0.8, 0.5)
    full = d.MultivariateNormalTri(jnp.zeros(2), jnp.array([[1.1, 0.0], [0.4, 0.8]]))
    exp = d.Lambda(jnp.exp, jnp.log, is_constant_jacobian=False) if hasattr(d, "Lambda") else None

    def mixture(c):
        return d.MixtureSameFamily(d.Categorical(logits=jnp.zeros(2)), c)

    structures = {
        "Independent ‖ Independent": lambda: (d.Independent(a, 1), d.Independent(b, 1)),
        "Independent ‖ multivariate normal": lambda: (d.Independent(a, 1), full),
        "multivariate normal ‖ Independent": lambda: (full, d.Independent(b, 1)),
        "Transformed, the same bijector": lambda: (d.Transformed(x, exp), d.Transformed(y, exp)),
        "Joint ‖ Joint": lambda: (d.Joint((x, x)), d.Joint((y, y))),
        "Deterministic ‖ Normal": lambda: (d.Deterministic(jnp.array(0.3)), y),
        "Deterministic ‖ Deterministic": lambda: (d.Deterministic(jnp.array(0.3)), d.Deterministic(jnp.array(0.3))),
        "mixture ‖ mixture": lambda: (mixture(a), mixture(b)),
    }
    return Library("distrax", families, lambda p, q: p.kl_divergence(q), structures)


def _tfp() -> Library:
    from tensorflow_probability.substrates.jax import bijectors as tfb
    from tensorflow_probability.substrates.jax import distributions as d
    from tensorflow_probability.substrates.jax import tf2jax as tf

    linear = tf.linalg.LinearOperatorLowerTriangular
    plain = (
        "Normal Laplace Logistic Gumbel Cauchy StudentT Moyal ExpGamma ExpInverseGamma GeneralizedNormal "
        "GeneralizedExtremeValue Gamma Exponential Chi2 Chi InverseGamma HalfNormal Weibull InverseGaussian LogNormal "
        "LogLogistic Pareto Beta Kumaraswamy ContinuousBernoulli LogitNormal Uniform TruncatedNormal VonMises "
        "Bernoulli Binomial Geometric NegativeBinomial Poisson Categorical OneHotCategorical Multinomial Dirichlet "
        "VonMisesFisher PowerSpherical"
    )
    families = {
        **{name: _call(getattr(d, name)) for name in plain.split()},
        "HalfCauchy": lambda v: d.HalfCauchy(jnp.float32(0), v["scale"]),
        "SphericalUniform": lambda v: d.SphericalUniform(3),
        "MultivariateNormal": _call(d.MultivariateNormalTriL),
        "MultivariateNormalLowRank": lambda v: d.MultivariateNormalDiagPlusLowRankCovariance(
            v["loc"], v["scale_diag"] ** 2, v["factor"]
        ),
        "Diagonal": lambda v: d.MultivariateNormalDiag(v["loc"], v["scale"]),
        "MatrixNormal": lambda v: d.MatrixNormalLinearOperator(
            v["loc"], linear(v["row_scale_tril"]), linear(v["column_scale_tril"])
        ),
        "Wishart": lambda v: d.WishartTriL(v["df"], v["scale_tril"]),
    }
    a, b = (d.Normal(*map(jnp.array, v)) for v in VECTORS)
    x, y = d.Normal(0.3, 1.2), d.Normal(-0.8, 0.5)
    full = d.MultivariateNormalTriL(jnp.zeros(2), jnp.array([[1.1, 0.0], [0.4, 0.8]]))

    def mixture(c):
        return d.MixtureSameFamily(d.Categorical(logits=jnp.zeros(2)), c)

    structures = {
        "Independent ‖ Independent": lambda: (d.Independent(a, 1), d.Independent(b, 1)),
        "Independent ‖ multivariate normal": lambda: (d.Independent(a, 1), full),
        "multivariate normal ‖ Independent": lambda: (full, d.Independent(b, 1)),
        "Transformed, the same bijector": lambda: tuple(d.TransformedDistribution(z, tfb.Exp()) for z in (x, y)),
        "LogNormal ‖ Transformed(Normal, Exp)": lambda: (
            d.LogNormal(0.3, 1.2), d.TransformedDistribution(y, tfb.Exp())
        ),
        "Joint ‖ Joint": lambda: (
            d.JointDistributionSequential([x, x]), d.JointDistributionSequential([y, y])
        ),
        "Sample ‖ Sample": lambda: (d.Sample(x, (4,)), d.Sample(y, (4,))),
        "Masked ‖ Masked": lambda: (d.Masked(x, True), d.Masked(y, True)),
        "Deterministic ‖ Normal": lambda: (d.Deterministic(0.3), y),
        "Deterministic ‖ Deterministic": lambda: (d.Deterministic(0.3), d.Deterministic(0.3)),
        "mixture ‖ mixture": lambda: (mixture(a), mixture(b)),
    }  # fmt: skip
    return Library("TFP on JAX", families, d.kl_divergence, structures)


def _numpyro() -> Library:
    from numpyro import distributions as d

    plain = (
        "Normal Laplace Logistic Gumbel Cauchy StudentT Gamma Exponential Chi2 HalfNormal HalfCauchy LogNormal Levy "
        "Beta Kumaraswamy Uniform VonMises Dirichlet MatrixNormal Wishart"
    )
    families = {
        **{name: _call(getattr(d, name)) for name in plain.split() if hasattr(d, name)},
        "InverseGamma": _call(d.InverseGamma, scale="rate"),
        "Weibull": lambda v: d.Weibull(v["scale"], v["concentration"]),
        "Pareto": lambda v: d.Pareto(v["scale"], v["concentration"]),
        "TruncatedNormal": lambda v: d.TruncatedNormal(v["loc"], v["scale"], low=v["low"], high=v["high"]),
        "Poisson": _call(d.Poisson),
        "Geometric": _call(d.Geometric),
        "DiscreteUniform": _call(d.DiscreteUniform),
        **{n: _call(getattr(d, n)) for n in ("Bernoulli", "Binomial", "Categorical")},
        "Multinomial": lambda v: d.Multinomial(total_count=5, **{k: x for k, x in v.items() if k != "total_count"}),
        "NegativeBinomial": lambda v: (
            d.NegativeBinomialProbs(v["total_count"], v["probs"])
            if "probs" in v
            else d.NegativeBinomialLogits(v["total_count"], v["logits"])
        ),
        "MultivariateNormal": lambda v: d.MultivariateNormal(v["loc"], scale_tril=v["scale_tril"]),
        "MultivariateNormalLowRank": lambda v: d.LowRankMultivariateNormal(v["loc"], v["factor"], v["scale_diag"] ** 2),
        "Diagonal": lambda v: d.Normal(v["loc"], v["scale"]).to_event(1),
        "MatrixNormal": lambda v: d.MatrixNormal(v["loc"], v["row_scale_tril"], v["column_scale_tril"]),
        "Wishart": lambda v: d.Wishart(v["df"], scale_tril=v["scale_tril"]),
    }
    a, b = (d.Normal(*map(jnp.array, v)) for v in VECTORS)
    x, y = d.Normal(0.3, 1.2), d.Normal(-0.8, 0.5)
    full = d.MultivariateNormal(jnp.zeros(2), scale_tril=jnp.array([[1.1, 0.0], [0.4, 0.8]]))
    exp = d.transforms.ExpTransform()

    def mixture(c):
        return d.MixtureSameFamily(d.Categorical(logits=jnp.zeros(2)), c)

    structures = {
        "Independent ‖ Independent": lambda: (a.to_event(1), b.to_event(1)),
        "Independent ‖ multivariate normal": lambda: (a.to_event(1), full),
        "multivariate normal ‖ Independent": lambda: (full, b.to_event(1)),
        "Transformed, the same bijector": lambda: tuple(d.TransformedDistribution(z, exp) for z in (x, y)),
        "LogNormal ‖ Transformed(Normal, Exp)": lambda: (d.LogNormal(0.3, 1.2), d.TransformedDistribution(y, exp)),
        "Sample ‖ Sample": lambda: (x.expand((4,)).to_event(1), y.expand((4,)).to_event(1)),
        "Masked ‖ Masked": lambda: (x.mask(True), y.mask(True)),
        "Deterministic ‖ Normal": lambda: (d.Delta(0.3), y),
        "Deterministic ‖ Deterministic": lambda: (d.Delta(0.3), d.Delta(0.3)),
        "mixture ‖ mixture": lambda: (mixture(a), mixture(b)),
    }
    return Library("NumPyro", families, d.kl_divergence, structures)


def _torch() -> Library:
    import torch
    from torch import distributions as d

    d.Distribution.set_default_validate_args(False)
    plain = (
        "Normal Laplace Gumbel Cauchy StudentT Gamma Exponential Chi2 HalfNormal HalfCauchy LogNormal Beta Kumaraswamy "
        "ContinuousBernoulli Uniform VonMises Dirichlet"
    )
    families = {
        **{name: _call(getattr(d, name)) for name in plain.split() if hasattr(d, name)},
        "InverseGamma": lambda v: d.InverseGamma(v["concentration"], v["scale"]),
        "Weibull": lambda v: d.Weibull(v["scale"], v["concentration"]),
        "Pareto": lambda v: d.Pareto(v["scale"], v["concentration"]),
        **{n: _call(getattr(d, n)) for n in ("Bernoulli", "Binomial", "Geometric", "NegativeBinomial", "Poisson")},
        **{n: _call(getattr(d, n)) for n in ("Categorical", "OneHotCategorical")},
        "Multinomial": lambda v: d.Multinomial(
            int(v["total_count"]), **{k: x for k, x in v.items() if k != "total_count"}
        ),
        "MultivariateNormal": lambda v: d.MultivariateNormal(v["loc"], scale_tril=v["scale_tril"]),
        "MultivariateNormalLowRank": lambda v: d.LowRankMultivariateNormal(v["loc"], v["factor"], v["scale_diag"] ** 2),
        "Diagonal": lambda v: d.Independent(d.Normal(v["loc"], v["scale"]), 1),
        "Wishart": lambda v: d.Wishart(v["df"], scale_tril=v["scale_tril"]),
    }
    t = torch.tensor
    a, b = d.Normal(t([0.3, -1.0]), t([0.5, 1.2])), d.Normal(t([0.0, 0.5]), t([0.9, 0.4]))
    x, y = d.Normal(0.3, 1.2), d.Normal(-0.8, 0.5)
    full = d.MultivariateNormal(torch.zeros(2), scale_tril=t([[1.1, 0.0], [0.4, 0.8]]))
    exp = d.transforms.ExpTransform()

    def mixture(c):
        return d.MixtureSameFamily(d.Categorical(logits=torch.zeros(2)), c)

    structures = {
        "Independent ‖ Independent": lambda: (d.Independent(a, 1), d.Independent(b, 1)),
        "Independent ‖ multivariate normal": lambda: (d.Independent(a, 1), full),
        "multivariate normal ‖ Independent": lambda: (full, d.Independent(b, 1)),
        "Transformed, the same bijector": lambda: tuple(d.TransformedDistribution(z, exp) for z in (x, y)),
        "LogNormal ‖ Transformed(Normal, Exp)": lambda: (d.LogNormal(0.3, 1.2), d.TransformedDistribution(y, exp)),
        "Sample ‖ Sample": lambda: (d.Independent(x.expand((4,)), 1), d.Independent(y.expand((4,)), 1)),
        "mixture ‖ mixture": lambda: (mixture(a), mixture(b)),
    }
    return Torch("torch", families, d.kl_divergence, structures)


LOADERS = {"vi_kit": _vi_kit, "distrax": _distrax, "tfp-nightly": _tfp, "numpyro": _numpyro, "torch": _torch}


def load() -> tuple[list[Library], list[str]]:
    """Return the libraries that are installed, and the names of the others."""
    found, missing = [], []
    for name, loader in LOADERS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.append(loader())
        except ImportError:
            missing.append(name)
    return found, missing


def versions() -> dict[str, str]:
    """Return what is compared, as installed."""
    found = {}
    for name in ("vi_kit", "jax", *list(LOADERS)[1:], "scipy", "mpmath"):
        try:
            found[name] = version(name)
        except ImportError:
            found[name] = "not installed"
    return found
