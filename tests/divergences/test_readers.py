"""Readers: the family that an object is read as has the object's own density, class by class."""

import contextlib
import functools
import inspect
import warnings

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
import tensorflow_probability.substrates.jax as tfp
from divergence_structures import log_density

import vi_kit as vk
from vi_kit.divergences import distributions as d
from vi_kit.divergences._readers import read, reader_of

tfd, tfb = tfp.distributions, tfp.bijectors
FACTOR = np.array([[1.1, 0.0, 0.0], [0.4, -0.8, 0.0], [-0.3, 0.2, 1.5]], np.float32)
COVARIANCE = (FACTOR @ FACTOR.T).astype(np.float32)
A, B = np.array([0.7, 2.5], np.float32), np.array([1.9, 0.6], np.float32)  # positive
L = np.array([0.3, -0.8], np.float32)  # real
P = np.array([0.2, 0.7], np.float32)  # probabilities
W = np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]], np.float32)  # probabilities of classes
X, Y, U = np.array([0.4, -1.3]), np.array([0.8, 2.2]), np.array([0.35, 0.8])  # real, positive, unit points
V = np.array([[0.5, -0.2, 1.0], [0.1, 0.7, -0.4]])
LOC3 = np.array([[0.1, 0.2, -0.5], [1.0, 0.0, 0.3]], np.float32)
SPD = np.stack([np.eye(3) + 0.3, 2 * np.eye(3) + 0.1])
UNIT = np.array([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]], np.float32)
SIMPLEX = np.array([[0.2, 0.5, 0.3], [0.25, 0.25, 0.5]])
ONE_HOT = np.eye(3)[[2, 0]]
COUNTS, TALLY = np.array([3, 1]), np.array([[1, 2, 1], [0, 3, 1]])
U3, V3 = np.array([[0.3], [0.1], [-0.4]], np.float32), np.array([[0.2], [0.5], [0.1]], np.float32)


def operator(matrix):
    return tfp.tf2jax.linalg.LinearOperatorFullMatrix(jnp.asarray(matrix))


def triangular(matrix):
    return tfp.tf2jax.linalg.LinearOperatorLowerTriangular(jnp.asarray(matrix))


# Class -> (object, one event an entry of its batch), or a list of them.
DISTRAX = {
    "Bernoulli": lambda: [
        (distrax.Bernoulli(probs=P), np.array([1, 0])),
        (distrax.Bernoulli(logits=L), np.array([1, 0])),
    ],
    "Beta": lambda: (distrax.Beta(A, B), U),
    "Categorical": lambda: [
        (distrax.Categorical(probs=W), np.array([2, 0])),
        (distrax.Categorical(logits=LOC3), np.array([2, 0])),
    ],
    "CategoricalUniform": lambda: (distrax.CategoricalUniform(low=L, high=L + 2, logits=LOC3), L + 0.5),
    "Deterministic": lambda: (distrax.Deterministic(L), np.array([L[0], 5.0])),
    "Dirichlet": lambda: (distrax.Dirichlet(5 * W), SIMPLEX),
    "EpsilonGreedy": lambda: (distrax.EpsilonGreedy(jnp.asarray(LOC3), 0.2), np.array([1, 0])),
    "Gamma": lambda: (distrax.Gamma(A, B), Y),
    "Greedy": lambda: (distrax.Greedy(jnp.asarray(LOC3)), np.array([1, 0])),
    "Gumbel": lambda: (distrax.Gumbel(L, A), X),
    "Independent": lambda: (
        distrax.Independent(distrax.Gamma(A[:, None] * np.ones((1, 3), np.float32), 1.0), 1),
        np.abs(V),
    ),
    "Joint": lambda: (
        distrax.Joint({"a": distrax.Normal(L, A), "b": distrax.MultivariateNormalTri(LOC3, FACTOR)}),
        {"a": X, "b": V},
    ),
    "Laplace": lambda: (distrax.Laplace(L, A), X),
    "LogStddevNormal": lambda: [(distrax.LogStddevNormal(L, L, max_scale=2.0), X), (distrax.LogStddevNormal(L, L), X)],
    "Logistic": lambda: (distrax.Logistic(L, A), X),
    "MixtureOfTwo": lambda: (distrax.MixtureOfTwo(0.3, distrax.Normal(L, A), distrax.Normal(L + 1, B)), X),
    "MixtureSameFamily": lambda: (
        distrax.MixtureSameFamily(distrax.Categorical(probs=W), distrax.Normal(LOC3, 0.7)),
        X,
    ),
    "Multinomial": lambda: [(distrax.Multinomial(4, probs=W), TALLY), (distrax.Multinomial(4, logits=LOC3), TALLY)],
    "MultivariateNormalDiag": lambda: (distrax.MultivariateNormalDiag(LOC3, W), V),
    "MultivariateNormalDiagPlusLowRank": lambda: [
        (distrax.MultivariateNormalDiagPlusLowRank(LOC3, W[0], U3, V3), V),
        (distrax.MultivariateNormalDiagPlusLowRank(LOC3, W[0]), V),
    ],
    "MultivariateNormalFromBijector": lambda: [
        (distrax.MultivariateNormalFromBijector(jnp.asarray(LOC3), distrax.TriangularLinear(jnp.asarray(FACTOR))), V),
        (distrax.MultivariateNormalFromBijector(jnp.asarray(LOC3), distrax.DiagLinear(jnp.asarray(-W))), V),
    ],
    "MultivariateNormalFullCovariance": lambda: (distrax.MultivariateNormalFullCovariance(LOC3, COVARIANCE), V),
    "MultivariateNormalTri": lambda: [
        (distrax.MultivariateNormalTri(LOC3, FACTOR), V),
        (distrax.MultivariateNormalTri(LOC3, FACTOR.T, is_lower=False), V),
        (distrax.MultivariateNormalTri(LOC3), V),
    ],
    "Normal": lambda: (distrax.Normal(L, A), X),
    "OneHotCategorical": lambda: [
        (distrax.OneHotCategorical(probs=W), ONE_HOT),
        (distrax.OneHotCategorical(logits=LOC3), ONE_HOT),
    ],
    "Softmax": lambda: (distrax.Softmax(jnp.asarray(LOC3), temperature=0.5), np.array([2, 0])),
    "Transformed": lambda: [
        (distrax.Transformed(distrax.Normal(L, A), distrax.ScalarAffine(A, -B)), X),
        (distrax.Transformed(distrax.Gamma(A, B), distrax.ScalarAffine(0.0, B)), Y),
        (distrax.Transformed(distrax.Normal(L, A), jnp.exp), Y),
        (distrax.Transformed(distrax.Normal(L, A), jax.nn.sigmoid), U),
        (distrax.Transformed(distrax.Normal(L, A), distrax.Tanh()), U),
        (
            distrax.Transformed(
                distrax.Normal(L, A), distrax.Chain([distrax.Lambda(jnp.exp), distrax.ScalarAffine(1.0, 2.0)])
            ),
            Y,
        ),
        (distrax.Transformed(distrax.Beta(A, B), distrax.Inverse(distrax.Sigmoid())), X),
        (
            distrax.Transformed(distrax.MultivariateNormalTri(LOC3, FACTOR), distrax.Block(distrax.Lambda(jnp.exp), 1)),
            np.abs(V),
        ),
        (
            distrax.Transformed(
                distrax.MultivariateNormalTri(LOC3, FACTOR), distrax.Block(distrax.ScalarAffine(W, -W), 1)
            ),
            V,
        ),
        (
            distrax.Transformed(distrax.MultivariateNormalDiag(LOC3, W), distrax.TriangularLinear(jnp.asarray(FACTOR))),
            V,
        ),
        (distrax.Transformed(distrax.MultivariateNormalDiag(LOC3, W), distrax.Block(tfb.Softplus(), 1)), np.abs(V)),
        (
            distrax.Transformed(
                distrax.MultivariateNormalTri(LOC3, FACTOR),
                distrax.UnconstrainedAffine(jnp.asarray(FACTOR + 0.5), jnp.asarray(LOC3[0])),
            ),
            V,
        ),
        (distrax.Transformed(tfd.Gamma(A, B), tfb.Reciprocal()), Y),
        (distrax.Transformed(distrax.Uniform(L, L + 2), distrax.ScalarAffine(0.0, -1.0)), -L - 0.5),
    ],
    "Uniform": lambda: (distrax.Uniform(L, L + 2), L + 1),
    "VonMises": lambda: (distrax.VonMises(L, A), X),
}
TFP = {
    "BatchBroadcast": lambda: [
        (tfd.BatchBroadcast(tfd.Normal(L[0], A), [2, 2]), np.stack([X, X + 1])),
        (tfd.BatchBroadcast(tfd.MultivariateNormalTriL(LOC3[0], FACTOR), to_shape=[2]), V),
    ],
    "BatchConcat": lambda: (tfd.BatchConcat([tfd.Normal(L, A), tfd.Normal(L[:1], B[:1])], 0), np.append(X, 0.3)),
    "BatchReshape": lambda: [
        (tfd.BatchReshape(tfd.Normal(L, A), [2, 1]), X[:, None]),
        (tfd.BatchReshape(tfd.Independent(tfd.Gamma(5 * W, 1.0), 1), [1, -1]), np.abs(V)[None]),
    ],
    "Bernoulli": lambda: [(tfd.Bernoulli(probs=P), np.array([1, 0])), (tfd.Bernoulli(logits=L), np.array([1, 0]))],
    "Beta": lambda: (tfd.Beta(A, B), U),
    "Binomial": lambda: [(tfd.Binomial(5.0, probs=P), COUNTS), (tfd.Binomial(5.0, logits=L), COUNTS)],
    "Blockwise": lambda: (tfd.Blockwise([tfd.Normal(L, A), tfd.MultivariateNormalDiag(LOC3[:, :2], W[:, :2])]), V),
    "Categorical": lambda: [
        (tfd.Categorical(probs=W), np.array([2, 0])),
        (tfd.Categorical(logits=LOC3), np.array([2, 0])),
    ],
    "Cauchy": lambda: (tfd.Cauchy(L, A), X),
    "Chi": lambda: (tfd.Chi(A), Y),
    "Chi2": lambda: (tfd.Chi2(A), Y),
    "ContinuousBernoulli": lambda: [(tfd.ContinuousBernoulli(probs=P), U), (tfd.ContinuousBernoulli(logits=L), U)],
    "Deterministic": lambda: (tfd.Deterministic(L), np.array([L[0], 5.0])),
    "Dirichlet": lambda: (tfd.Dirichlet(5 * W), SIMPLEX),
    "ExpGamma": lambda: [(tfd.ExpGamma(A, B), X), (tfd.ExpGamma(A, log_rate=L), X)],
    "ExpInverseGamma": lambda: [(tfd.ExpInverseGamma(A, B), X), (tfd.ExpInverseGamma(A, log_scale=L), X)],
    "Exponential": lambda: (tfd.Exponential(A), Y),
    "FiniteDiscrete": lambda: (
        tfd.FiniteDiscrete(np.array([1.0, 2.0, 4.0], np.float32), probs=W),
        np.array([4.0, 1.0]),
    ),
    "FlatDirichlet": lambda: (tfd.BatchBroadcast(tfd.FlatDirichlet([3]), [2]), SIMPLEX),
    "Gamma": lambda: [(tfd.Gamma(A, B), Y), (tfd.Gamma(A, log_rate=L, force_probs_to_zero_outside_support=True), Y)],
    "GaussianProcess": lambda: (
        tfd.GaussianProcess(
            tfp.math.psd_kernels.ExponentiatedQuadratic(A, B),
            index_points=np.array([[0.0], [1.0], [2.5]], np.float32),
            observation_noise_variance=0.1,
        ),
        V,
    ),
    "GeneralizedExtremeValue": lambda: (tfd.GeneralizedExtremeValue(L, A, np.float32([0.2, -0.1])), L + 0.3),
    "GeneralizedNormal": lambda: (tfd.GeneralizedNormal(L, A, B), X),
    "Geometric": lambda: [(tfd.Geometric(probs=P), COUNTS), (tfd.Geometric(logits=L), COUNTS)],
    "Gumbel": lambda: (tfd.Gumbel(L, A), X),
    "HalfCauchy": lambda: [(tfd.HalfCauchy(0.0, A), Y), (tfd.HalfCauchy(L, A), Y + L)],
    "HalfNormal": lambda: (tfd.HalfNormal(A), Y),
    "Independent": lambda: [
        (tfd.Independent(tfd.Gamma(5 * W, 1.0), 1), np.abs(V)),
        (tfd.Independent(tfd.Independent(tfd.Gamma(5 * W, 1.0), 1), 1), np.abs(V)),
    ],
    "InverseGamma": lambda: (tfd.InverseGamma(A, B), Y),
    "InverseGaussian": lambda: (tfd.InverseGaussian(A, B), Y),
    "JointDistributionNamed": lambda: (
        tfd.JointDistributionNamed({"a": tfd.Normal(L, A), "b": tfd.Gamma(A, B)}),
        {"a": X, "b": Y},
    ),
    "JointDistributionNamedAutoBatched": lambda: (
        tfd.JointDistributionNamedAutoBatched({"a": tfd.Normal(L, A), "b": tfd.Gamma(A[0], B[0])}),
        {"a": X, "b": Y[0]},
    ),
    "JointDistributionSequential": lambda: (
        tfd.JointDistributionSequential([tfd.Normal(L, A), tfd.Gamma(A, B)]),
        [X, Y],
    ),
    "JointDistributionSequentialAutoBatched": lambda: (
        tfd.JointDistributionSequentialAutoBatched([tfd.Normal(L, A), tfd.Gamma(5 * W, 1.0)], batch_ndims=1),
        [X, np.abs(V)],
    ),
    "Kumaraswamy": lambda: (tfd.Kumaraswamy(A, B), U),
    "Laplace": lambda: (tfd.Laplace(L, A), X),
    "LogLogistic": lambda: (tfd.LogLogistic(L, A), Y),
    "LogNormal": lambda: (tfd.LogNormal(L, A), Y),
    "Logistic": lambda: (tfd.Logistic(L, A), X),
    "LogitNormal": lambda: (tfd.LogitNormal(L, A), U),
    "Masked": lambda: (tfd.Masked(tfd.Normal(L, A), np.array([True, False])), X),
    "MatrixNormalLinearOperator": lambda: (
        tfd.MatrixNormalLinearOperator(np.stack([LOC3, LOC3 + 1]), triangular(FACTOR[:2, :2]), triangular(FACTOR)),
        np.stack([V, -V]),
    ),
    "Mixture": lambda: (
        tfd.Mixture(
            tfd.Categorical(probs=W[:, :2] / W[:, :2].sum(1, keepdims=True)), [tfd.Normal(L, A), tfd.Normal(L + 1, B)]
        ),
        X,
    ),
    "MixtureSameFamily": lambda: (tfd.MixtureSameFamily(tfd.Categorical(logits=LOC3), tfd.Gamma(5 * W, 1.0)), Y),
    "Moyal": lambda: (tfd.Moyal(L, A), X),
    "Multinomial": lambda: [(tfd.Multinomial(4.0, probs=W), TALLY), (tfd.Multinomial(4.0, logits=LOC3), TALLY)],
    "MultivariateNormalDiag": lambda: [
        (tfd.MultivariateNormalDiag(LOC3, W), V),
        (tfd.MultivariateNormalDiag(scale_diag=W), V),
    ],
    "MultivariateNormalDiagPlusLowRank": lambda: (tfd.MultivariateNormalDiagPlusLowRank(LOC3, W[0], U3), V),
    "MultivariateNormalDiagPlusLowRankCovariance": lambda: (
        tfd.MultivariateNormalDiagPlusLowRankCovariance(LOC3, W[0], U3),
        V,
    ),
    "MultivariateNormalFullCovariance": lambda: (tfd.MultivariateNormalFullCovariance(LOC3, COVARIANCE), V),
    "MultivariateNormalLinearOperator": lambda: (tfd.MultivariateNormalLinearOperator(LOC3, operator(FACTOR + 0.3)), V),
    "MultivariateNormalTriL": lambda: [
        (tfd.MultivariateNormalTriL(LOC3, FACTOR), V),
        (tfd.MultivariateNormalTriL(scale_tril=np.stack([FACTOR, 2 * FACTOR])), V),
    ],
    "NegativeBinomial": lambda: [
        (tfd.NegativeBinomial(A, probs=P), COUNTS),
        (tfd.NegativeBinomial(A, logits=L), COUNTS),
    ],
    "Normal": lambda: (tfd.Normal(L, A), X),
    "OneHotCategorical": lambda: [
        (tfd.OneHotCategorical(probs=W), ONE_HOT),
        (tfd.OneHotCategorical(logits=LOC3), ONE_HOT),
    ],
    "OrderedLogistic": lambda: (tfd.OrderedLogistic(np.array([-0.5, 1.0], np.float32), L), np.array([2, 0])),
    "PERT": lambda: (tfd.PERT(L, L + 0.5, L + 2), L + 1),
    "Pareto": lambda: (tfd.Pareto(A, B), B + 1),
    "Poisson": lambda: [(tfd.Poisson(A), COUNTS), (tfd.Poisson(log_rate=L), COUNTS)],
    "PowerSpherical": lambda: (tfd.PowerSpherical(UNIT, A), UNIT[::-1]),
    "ProbitBernoulli": lambda: [
        (tfd.ProbitBernoulli(probits=L), np.array([1, 0])),
        (tfd.ProbitBernoulli(probs=P), np.array([1, 0])),
    ],
    "RelaxedBernoulli": lambda: [(tfd.RelaxedBernoulli(A, logits=L), U), (tfd.RelaxedBernoulli(A, probs=P), U)],
    "Sample": lambda: [
        (tfd.Sample(tfd.Gamma(A, B), [2, 3]), np.stack([np.abs([V[0], V[1]]), np.abs([V[1], V[0]])])),
        (tfd.Sample(tfd.MultivariateNormalTriL(LOC3, FACTOR), 2), np.stack([V, -V], axis=1)),
    ],
    "SigmoidBeta": lambda: (tfd.SigmoidBeta(A, B), X),
    "SphericalUniform": lambda: (tfd.SphericalUniform(3, [2]), UNIT),
    "StoppingRatioLogistic": lambda: (
        tfd.StoppingRatioLogistic(np.array([-0.5, 1.0], np.float32), L),
        np.array([2, 0]),
    ),
    "StudentT": lambda: (tfd.StudentT(A, L, B), X),
    "TransformedDistribution": lambda: [
        (tfd.TransformedDistribution(tfd.Normal(L, A), tfb.Chain([tfb.Exp(), tfb.Shift(A), tfb.Scale(B)])), Y),
        (tfd.TransformedDistribution(tfd.Normal(L, A), tfb.Invert(tfb.Softplus())), X),
        (tfd.TransformedDistribution(tfd.Normal(L, A), tfb.Sigmoid(-1.0, 2.0)), U),
        (tfd.TransformedDistribution(tfd.Gamma(A, B), tfb.Power(-0.5)), Y),
        (
            tfd.TransformedDistribution(tfd.MultivariateNormalDiag(LOC3, W), tfb.ScaleMatvecTriL(FACTOR, adjoint=True)),
            V,
        ),
        (tfd.TransformedDistribution(tfd.MultivariateNormalDiag(LOC3, W), tfb.ScaleMatvecDiag(-W)), V),
    ],
    "TruncatedNormal": lambda: (tfd.TruncatedNormal(L, A, -1.5, np.float32([2.0, 1.0])), X),
    "Uniform": lambda: (tfd.Uniform(L, L + 2), L + 1),
    "VectorDeterministic": lambda: (tfd.VectorDeterministic(LOC3), np.stack([LOC3[0], V[1]])),
    "VonMises": lambda: (tfd.VonMises(L, A), X),
    "VonMisesFisher": lambda: (tfd.VonMisesFisher(UNIT, A), UNIT[::-1]),
    "Weibull": lambda: (tfd.Weibull(A, B), Y),
    "WishartLinearOperator": lambda: (tfd.WishartLinearOperator(np.float32([4.5, 6.0]), triangular(FACTOR)), SPD),
    "WishartTriL": lambda: (tfd.WishartTriL(np.float32([4.5, 6.0]), FACTOR), SPD),
}
NUMPYRO = {
    "BernoulliLogits": lambda: (npd.BernoulliLogits(L), np.array([1, 0])),
    "BernoulliProbs": lambda: (npd.BernoulliProbs(P), np.array([1, 0])),
    "Beta": lambda: (npd.Beta(A, B), U),
    "BetaProportion": lambda: (npd.BetaProportion(P, A), U),
    "BinomialLogits": lambda: (npd.BinomialLogits(L, 5), COUNTS),
    "BinomialProbs": lambda: (npd.BinomialProbs(P, 5), COUNTS),
    "CAR": lambda: (npd.CAR(LOC3, np.float32([0.3, 0.5]), A, np.float32([[0, 1, 0], [1, 0, 1], [0, 1, 0]])), V),
    "CategoricalLogits": lambda: (npd.CategoricalLogits(LOC3), np.array([2, 0])),
    "CategoricalProbs": lambda: (npd.CategoricalProbs(W), np.array([2, 0])),
    "Cauchy": lambda: (npd.Cauchy(L, A), X),
    "Chi2": lambda: (npd.Chi2(A), Y),
    "CirculantNormal": lambda: (npd.CirculantNormal(LOC3, covariance_row=np.float32([2.0, 0.5, 0.5])), V),
    "Delta": lambda: [
        (npd.Delta(L), np.array([L[0], 5.0])),
        (npd.Delta(LOC3, event_dim=1), np.stack([LOC3[0], V[1]])),
        (npd.Delta(L, log_density=A), np.array([L[0], 5.0])),
    ],
    "Dirichlet": lambda: (npd.Dirichlet(5 * W), SIMPLEX),
    "DiscreteUniform": lambda: (npd.DiscreteUniform(np.array([0, 1]), 5), COUNTS),
    "ExpandedDistribution": lambda: [
        (npd.Normal(L[:, None], 1.0).expand([2, 2]), np.stack([X, X])),
        (npd.Gamma(A, B).expand([3, 2]), np.stack([Y, Y, Y])),
    ],
    "Exponential": lambda: (npd.Exponential(A), Y),
    "Gamma": lambda: (npd.Gamma(A, B), Y),
    "GammaPoisson": lambda: (npd.GammaPoisson(A, B), COUNTS),
    "GaussianRandomWalk": lambda: (npd.GaussianRandomWalk(A, 3), V),
    "GeometricLogits": lambda: (npd.GeometricLogits(L), COUNTS),
    "GeometricProbs": lambda: (npd.GeometricProbs(P), COUNTS),
    "Gumbel": lambda: (npd.Gumbel(L, A), X),
    "HalfCauchy": lambda: (npd.HalfCauchy(A), Y),
    "HalfNormal": lambda: (npd.HalfNormal(A), Y),
    "Independent": lambda: (npd.Gamma(5 * W, 1.0).to_event(1), np.abs(V)),
    "InverseGamma": lambda: (npd.InverseGamma(A, B), Y),
    "InverseWishart": lambda: (npd.InverseWishart(np.float32([4.5, 6.0]), scale_tril=np.abs(FACTOR)), SPD),
    "Kumaraswamy": lambda: (npd.Kumaraswamy(A, B), U),
    "Laplace": lambda: (npd.Laplace(L, A), X),
    "LeftTruncatedDistribution": lambda: (npd.TruncatedNormal(L, A, low=-1.5), X),
    "Levy": lambda: (npd.Levy(L, A), L + 1),
    "LogNormal": lambda: (npd.LogNormal(L, A), Y),
    "LogUniform": lambda: (npd.LogUniform(A, A + 3), A + 1),
    "Logistic": lambda: (npd.Logistic(L, A), X),
    "LowRankMultivariateNormal": lambda: (npd.LowRankMultivariateNormal(LOC3, U3, W[0]), V),
    "MaskedDistribution": lambda: [
        (npd.Normal(L, A).mask(np.array([True, False])), X),
        (npd.Normal(L, A).mask(False), X),
    ],
    "MatrixNormal": lambda: (
        npd.MatrixNormal(np.stack([LOC3, LOC3 + 1]), np.abs(FACTOR[:2, :2]), np.abs(FACTOR)),
        np.stack([V, -V]),
    ),
    "MixtureGeneral": lambda: (
        npd.MixtureGeneral(npd.Categorical(probs=W[0]), [npd.Normal(L, A), npd.Normal(L + 1, B), npd.Normal(L - 1, B)]),
        X,
    ),
    "MixtureSameFamily": lambda: (npd.MixtureSameFamily(npd.Categorical(logits=LOC3), npd.Gamma(5 * W, 1.0)), Y),
    "MultinomialLogits": lambda: (npd.MultinomialLogits(LOC3, 4), TALLY),
    "MultinomialProbs": lambda: (npd.MultinomialProbs(W, 4), TALLY),
    "MultivariateNormal": lambda: [
        (npd.MultivariateNormal(LOC3, COVARIANCE), V),
        (npd.MultivariateNormal(LOC3, precision_matrix=COVARIANCE), V),
        (npd.MultivariateNormal(LOC3, scale_tril=np.abs(FACTOR)), V),
    ],
    "NegativeBinomial2": lambda: (npd.NegativeBinomial2(A, B), COUNTS),
    "NegativeBinomialLogits": lambda: (npd.NegativeBinomialLogits(A, L), COUNTS),
    "NegativeBinomialProbs": lambda: (npd.NegativeBinomialProbs(A, P), COUNTS),
    "Normal": lambda: (npd.Normal(L, A), X),
    "OrderedLogistic": lambda: (npd.OrderedLogistic(L, np.float32([-0.5, 1.0])), np.array([2, 0])),
    "Pareto": lambda: (npd.Pareto(B, A), B + 1),
    "Poisson": lambda: (npd.Poisson(A), COUNTS),
    "RelaxedBernoulliLogits": lambda: (npd.RelaxedBernoulliLogits(A, L), U),
    "RightTruncatedDistribution": lambda: (npd.TruncatedNormal(L, A, high=np.float32([2.0, 1.0])), X),
    "StudentT": lambda: (npd.StudentT(A, L, B), X),
    "TransformedDistribution": lambda: [
        (
            npd.TransformedDistribution(
                npd.Normal(L, A), [npd.transforms.AffineTransform(L, -B), npd.transforms.ExpTransform()]
            ),
            Y,
        ),
        (npd.TransformedDistribution(npd.Gamma(A, B), npd.transforms.PowerTransform(-0.5)), Y),
        (
            npd.TransformedDistribution(
                npd.Normal(LOC3, W).to_event(1),
                npd.transforms.LowerCholeskyAffine(LOC3[0], jnp.asarray(np.abs(FACTOR))),
            ),
            V,
        ),
        (
            npd.TransformedDistribution(
                npd.Normal(LOC3, W).to_event(1),
                npd.transforms.IndependentTransform(npd.transforms.SoftplusTransform(), 1),
            ),
            np.abs(V),
        ),
        (npd.TransformedDistribution(npd.Beta(A, B), npd.transforms.SigmoidTransform().inv), X),
    ],
    "TwoSidedTruncatedDistribution": lambda: (npd.TruncatedNormal(L, A, low=-1.5, high=3.0), X),
    "Uniform": lambda: (npd.Uniform(L, L + 2), L + 1),
    "VonMises": lambda: (npd.VonMises(L, A), X),
    "Weibull": lambda: (npd.Weibull(B, A), Y),
    "Wishart": lambda: (npd.Wishart(np.float32([4.5, 6.0]), scale_tril=np.abs(FACTOR)), SPD),
}
LIBRARIES = {"distrax": (distrax, DISTRAX), "tfd": (tfd, TFP), "numpyro": (npd, NUMPYRO)}
CASES = [(library, name) for library, (_, cases) in LIBRARIES.items() for name in cases]


def lenient():
    """Undo strict settings, for which the libraries themselves are not written."""
    stack = contextlib.ExitStack()
    stack.enter_context(warnings.catch_warnings(action="ignore"))
    stack.enter_context(jax.numpy_rank_promotion("allow"))
    stack.enter_context(jax.numpy_dtype_promotion("standard"))
    return stack


def points_of(found):
    points = [pair[1] for pair in (found if isinstance(found, list) else [found])]
    return jax.tree.map(
        lambda v: np.asarray(v, np.float32) if np.asarray(v).dtype == np.float64 else np.asarray(v), points
    )


@functools.cache
def read_all(library):
    """Build every object, read it and evaluate its own density, in one program."""
    cases = LIBRARIES[library][1]
    points = {}

    def evaluate():
        found = {}
        for name, case in cases.items():
            built = case()
            points[name] = points_of(built)
            objects = [pair[0] for pair in (built if isinstance(built, list) else [built])]
            found[name] = [(read(x), x.log_prob(v)) for x, v in zip(objects, points[name], strict=True)]
        return found

    with lenient():
        found = jax.jit(evaluate, compiler_options={"xla_backend_optimization_level": 0})()
    return {name: [(*pair, v) for pair, v in zip(found[name], points[name], strict=True)] for name in cases}


@pytest.mark.parametrize(("library", "name"), CASES)
def test_family_has_the_density_of_the_object(library, name):
    for family, own, points in read_all(library)[name]:
        found = log_density(family, points)
        assert found.shape == own.shape == tuple(family.batch_shape)
        np.testing.assert_allclose(found, own, rtol=3e-4, atol=3e-4)


# No family, or no density that could be written down.
NOT_READ = {
    "distrax": {"Clipped", "ClippedLogistic", "ClippedNormal", "Distribution", "Quantized"},
    "tfd": {
        "AutoCompositeTensorDistribution",
        "Autoregressive",
        "Bates",
        "BetaBinomial",
        "BetaQuotient",
        "CholeskyLKJ",
        "DeterminantalPointProcess",
        "DirichletMultinomial",
        "Distribution",
        "DoublesidedMaxwell",
        "Empirical",
        "ExpRelaxedOneHotCategorical",
        "ExponentiallyModifiedGaussian",
        "GammaGamma",
        "GeneralizedPareto",
        "HalfStudentT",
        "HiddenMarkovModel",
        "Horseshoe",
        "Inflated",
        "JointDistribution",
        "JointDistributionCoroutine",
        "JointDistributionCoroutineAutoBatched",
        "LKJ",
        "LinearGaussianStateSpaceModel",
        "MarkovChain",
        "MatrixTLinearOperator",
        "MultivariateStudentTLinearOperator",
        "NoncentralChi2",
        "NormalInverseGaussian",
        "PlackettLuce",
        "PoissonLogNormalQuadratureCompound",
        "QuantizedDistribution",
        "Skellam",
        "StudentTProcess",
        "StudentTProcessRegressionModel",
        "Triangular",
        "TruncatedCauchy",
        "TwoPieceNormal",
        "TwoPieceStudentT",
        "ZeroInflatedNegativeBinomial",
        "Zipf",
    },
    "numpyro": {
        "AsymmetricLaplace",
        "AsymmetricLaplaceQuantile",
        "BetaBinomial",
        "BetaNegativeBinomial",
        "Dagum",
        "DirichletMultinomial",
        "Distribution",
        "DoublyTruncatedPowerLaw",
        "EulerMaruyama",
        "FoldedDistribution",
        "GaussianCopula",
        "GaussianCopulaBeta",
        "Gompertz",
        "HurdleGamma",
        "HurdleLogNormal",
        "HurdleLogits",
        "HurdlePoisson",
        "HurdleProbs",
        "ImproperUniform",
        "IntervalCensoredDistribution",
        "LKJCholesky",
        "LeftCensoredDistribution",
        "LeftTruncatedGamma",
        "LowerTruncatedPowerLaw",
        "MultivariateStudentT",
        "ProjectedNormal",
        "RightCensoredDistribution",
        "RightTruncatedGamma",
        "SineBivariateVonMises",
        "SineSkewed",
        "SoftLaplace",
        "TruncatedPolyaGamma",
        "TwoSidedTruncatedGamma",
        "Unit",
        "ZeroInflatedLogits",
        "ZeroInflatedPoisson",
        "ZeroInflatedProbs",
    },
}
# Read as the image of a base that is known, or not, under a bijector: no density is written out here for them.
IMAGES = {
    "distrax": set(),
    "tfd": {
        "GaussianProcessRegressionModel",
        "JohnsonSU",
        "LambertWDistribution",
        "LambertWNormal",
        "RelaxedOneHotCategorical",
        "SinhArcsinh",
        "VariationalGaussianProcess",
    },
    "numpyro": {"GaussianStateSpace", "InverseWishartCholesky", "LKJ", "WishartCholesky", "ZeroSumNormal"},
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_class_is_read_or_known_not_to_be(library):
    module, cases = LIBRARIES[library]
    classes = {
        name: kind
        for name, kind in vars(module).items()
        if inspect.isclass(kind) and issubclass(kind, module.Distribution)
    }
    assert set(classes) == set(cases) | NOT_READ[library] | IMAGES[library]
    assert {name for name, kind in classes.items() if reader_of(kind) is None} == NOT_READ[library]


def test_a_subclass_is_what_its_density_says():
    class Renamed(distrax.Normal):
        pass

    class Another(distrax.Normal):
        def log_prob(self, value):
            return -jnp.abs(value)

    assert isinstance(read(Renamed(0.0, 1.0)), d.Normal)
    assert isinstance(read(Another(0.0, 1.0)), d.Opaque)


def test_objects_that_a_vmap_has_made_are_read_by_their_parameters():
    """distrax keeps the shapes from inside the vmap (distrax#239)."""
    made = jax.vmap(lambda m: distrax.MultivariateNormalTri(m * jnp.ones(3), jnp.eye(3)))(jnp.arange(4.0))
    assert made.batch_shape == ()
    assert read(made).batch_shape == (4,)
    made = jax.vmap(lambda m: npd.Normal(m, 1.0 + m).to_event(0))(jnp.arange(4.0))
    assert read(made).batch_shape == (4,)


@pytest.mark.parametrize(
    "pair",
    [
        lambda m: (distrax.Normal(m, 2.0), npd.Normal(jnp.zeros(4), 1.0)),
        lambda m: (tfd.Gamma(m + 1, m + 2), npd.Gamma(jnp.ones(4), 3.0 * jnp.ones(4))),
        lambda m: (npd.BernoulliLogits(m), distrax.Bernoulli(probs=jnp.full(4, 0.3))),
    ],
)
def test_vmap_over_objects_is_the_batch(pair):
    p, q = pair(jnp.arange(4.0))
    p = jax.tree.map(lambda x: jnp.broadcast_to(x, (4,)), p)
    q = jax.tree.map(lambda x: jnp.broadcast_to(x, (4,)), q)
    np.testing.assert_allclose(jax.vmap(vk.kl_divergence)(p, q), vk.kl_divergence(p, q), rtol=1e-6)


def test_gradients_reach_the_parameters_that_were_given():
    def of(probs, logits):
        q = tfd.Bernoulli(probs=0.5)
        return vk.kl_divergence(tfd.Bernoulli(probs=probs), q) + vk.kl_divergence(distrax.Bernoulli(logits=logits), q)

    expected = np.log(0.3 / 0.7), 0.5 * np.exp(-0.5) / (1 + np.exp(-0.5)) ** 2
    np.testing.assert_allclose(jax.jit(jax.grad(of, (0, 1)))(0.3, 0.5), expected, rtol=1e-5)
