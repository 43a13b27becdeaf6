"""Distributions as a divergence sees them: a family and its parameters, no density, no sampling.

Objects of distrax, TensorFlow Probability and NumPyro are read into these. They can be given directly too: they are
pytrees of arrays, safe under jit and vmap, and some families exist nowhere else.

    >>> import vi_kit as vk
    >>> from vi_kit.divergences.distributions import InverseGamma
    >>> print(f"{vk.kl_divergence(InverseGamma(3.0, 2.0), InverseGamma(2.0, 2.0)):.4f}")
    0.2296
"""

from vi_kit.divergences.distributions._declare import Distribution as Distribution
from vi_kit.divergences.distributions._discrete import Bernoulli as Bernoulli
from vi_kit.divergences.distributions._discrete import Binomial as Binomial
from vi_kit.divergences.distributions._discrete import Categorical as Categorical
from vi_kit.divergences.distributions._discrete import DiscreteUniform as DiscreteUniform
from vi_kit.divergences.distributions._discrete import Geometric as Geometric
from vi_kit.divergences.distributions._discrete import Multinomial as Multinomial
from vi_kit.divergences.distributions._discrete import NegativeBinomial as NegativeBinomial
from vi_kit.divergences.distributions._discrete import OneHotCategorical as OneHotCategorical
from vi_kit.divergences.distributions._discrete import Poisson as Poisson
from vi_kit.divergences.distributions._scalar import Beta as Beta
from vi_kit.divergences.distributions._scalar import Cauchy as Cauchy
from vi_kit.divergences.distributions._scalar import Chi as Chi
from vi_kit.divergences.distributions._scalar import Chi2 as Chi2
from vi_kit.divergences.distributions._scalar import ContinuousBernoulli as ContinuousBernoulli
from vi_kit.divergences.distributions._scalar import ExpGamma as ExpGamma
from vi_kit.divergences.distributions._scalar import ExpInverseGamma as ExpInverseGamma
from vi_kit.divergences.distributions._scalar import Exponential as Exponential
from vi_kit.divergences.distributions._scalar import Frechet as Frechet
from vi_kit.divergences.distributions._scalar import Gamma as Gamma
from vi_kit.divergences.distributions._scalar import GeneralizedExtremeValue as GeneralizedExtremeValue
from vi_kit.divergences.distributions._scalar import GeneralizedGamma as GeneralizedGamma
from vi_kit.divergences.distributions._scalar import GeneralizedNormal as GeneralizedNormal
from vi_kit.divergences.distributions._scalar import Gumbel as Gumbel
from vi_kit.divergences.distributions._scalar import HalfCauchy as HalfCauchy
from vi_kit.divergences.distributions._scalar import HalfNormal as HalfNormal
from vi_kit.divergences.distributions._scalar import InverseGamma as InverseGamma
from vi_kit.divergences.distributions._scalar import InverseGaussian as InverseGaussian
from vi_kit.divergences.distributions._scalar import Kumaraswamy as Kumaraswamy
from vi_kit.divergences.distributions._scalar import Laplace as Laplace
from vi_kit.divergences.distributions._scalar import Levy as Levy
from vi_kit.divergences.distributions._scalar import Logistic as Logistic
from vi_kit.divergences.distributions._scalar import LogitNormal as LogitNormal
from vi_kit.divergences.distributions._scalar import LogLogistic as LogLogistic
from vi_kit.divergences.distributions._scalar import LogNormal as LogNormal
from vi_kit.divergences.distributions._scalar import Maxwell as Maxwell
from vi_kit.divergences.distributions._scalar import Moyal as Moyal
from vi_kit.divergences.distributions._scalar import Normal as Normal
from vi_kit.divergences.distributions._scalar import Pareto as Pareto
from vi_kit.divergences.distributions._scalar import Rayleigh as Rayleigh
from vi_kit.divergences.distributions._scalar import StudentT as StudentT
from vi_kit.divergences.distributions._scalar import TruncatedExponential as TruncatedExponential
from vi_kit.divergences.distributions._scalar import TruncatedNormal as TruncatedNormal
from vi_kit.divergences.distributions._scalar import Uniform as Uniform
from vi_kit.divergences.distributions._scalar import VonMises as VonMises
from vi_kit.divergences.distributions._scalar import Weibull as Weibull
from vi_kit.divergences.distributions._structure import Deterministic as Deterministic
from vi_kit.divergences.distributions._structure import Independent as Independent
from vi_kit.divergences.distributions._structure import Joint as Joint
from vi_kit.divergences.distributions._structure import Masked as Masked
from vi_kit.divergences.distributions._structure import Mixture as Mixture
from vi_kit.divergences.distributions._structure import Opaque as Opaque
from vi_kit.divergences.distributions._structure import Sample as Sample
from vi_kit.divergences.distributions._structure import Transformed as Transformed
from vi_kit.divergences.distributions._transforms import Affine as Affine
from vi_kit.divergences.distributions._transforms import Bijector as Bijector
from vi_kit.divergences.distributions._transforms import Exp as Exp
from vi_kit.divergences.distributions._transforms import Linear as Linear
from vi_kit.divergences.distributions._transforms import Power as Power
from vi_kit.divergences.distributions._transforms import Sigmoid as Sigmoid
from vi_kit.divergences.distributions._transforms import Transform as Transform
from vi_kit.divergences.distributions._transforms import inverse as inverse
from vi_kit.divergences.distributions._vector import Dirichlet as Dirichlet
from vi_kit.divergences.distributions._vector import InverseWishart as InverseWishart
from vi_kit.divergences.distributions._vector import MatrixNormal as MatrixNormal
from vi_kit.divergences.distributions._vector import MultivariateNormal as MultivariateNormal
from vi_kit.divergences.distributions._vector import MultivariateNormalLowRank as MultivariateNormalLowRank
from vi_kit.divergences.distributions._vector import NormalGamma as NormalGamma
from vi_kit.divergences.distributions._vector import NormalInverseGamma as NormalInverseGamma
from vi_kit.divergences.distributions._vector import NormalInverseWishart as NormalInverseWishart
from vi_kit.divergences.distributions._vector import NormalWishart as NormalWishart
from vi_kit.divergences.distributions._vector import PowerSpherical as PowerSpherical
from vi_kit.divergences.distributions._vector import SphericalUniform as SphericalUniform
from vi_kit.divergences.distributions._vector import VonMisesFisher as VonMisesFisher
from vi_kit.divergences.distributions._vector import Wishart as Wishart
