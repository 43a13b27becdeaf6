"""Structural rules: what is made of parts against the sum that it has to be, and the same thing said in two ways."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
import tensorflow_probability.substrates.jax as tfp
from scipy import stats

import vi_kit as vk
from vi_kit.divergences import distributions as d

tfd, tfb, transforms = tfp.distributions, tfp.bijectors, npd.transforms
kl = vk.kl_divergence
ZEROS, ONES, EYE = np.zeros(3, np.float32), np.ones(3, np.float32), np.eye(3, dtype=np.float32)
WIDE = np.array([[1.2, 0.0, 0.0], [0.5, 0.7, 0.0], [0.1, -0.4, 0.9]], np.float32)
DISTANCE = np.array([0.0, 1.0, 3.0])[:, None] - np.array([0.0, 1.0, 3.0])
KERNEL = np.exp(-0.5 * DISTANCE**2) + 0.5 * np.eye(3)


@pytest.fixture(autouse=True)
def _lenient():
    """TensorFlow Probability and NumPyro are not written for strict settings."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def normal(loc=0.0, scale=1.0):
    return distrax.Normal(loc, scale)


def gaussian(p_loc, p_factor, q_loc, q_factor):
    """Return KL between multivariate normals in double precision."""
    p, q = (np.asarray(f, float) @ np.asarray(f, float).T for f in (p_factor, q_factor))
    shift, precision = np.asarray(q_loc, float) - p_loc, np.linalg.inv(q)
    logs = np.linalg.slogdet(q)[1] - np.linalg.slogdet(p)[1]
    return 0.5 * (np.trace(precision @ p) + shift @ precision @ shift - len(p) + logs)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


SAME = {
    # ½ everywhere but in the joint ones: one coordinate, or one of three, moved by 1.
    "joint: dict, across libraries": lambda: (
        distrax.Joint({"a": normal(), "b": distrax.MultivariateNormalDiag(ZEROS, ONES)}),
        tfd.JointDistributionNamed({"a": tfd.Normal(1.0, 1.0), "b": tfd.MultivariateNormalTriL(ONES, EYE)}),
        2.0,
    ),
    "joint: tuple and list": lambda: (
        distrax.Joint((normal(), normal(0.0, 2.0))),
        tfd.JointDistributionSequential([tfd.Normal(1.0, 1.0), tfd.Normal(0.0, 2.0)]),
        0.5,
    ),
    "joint: batch axes as events": lambda: (
        tfd.JointDistributionSequentialAutoBatched([tfd.Normal(ZEROS, 1.0)]),
        tfd.JointDistributionSequential([tfd.MultivariateNormalTriL(ONES, EYE)]),
        1.5,
    ),
    "sample": lambda: (tfd.Sample(tfd.Normal(0.0, 1.0), 3), tfd.Sample(tfd.Normal(1.0, 1.0), 3), 1.5),
    "sample and vector": lambda: (
        tfd.Sample(tfd.Normal([0.0, 1.0], 1.0), 3),
        tfd.MultivariateNormalTriL(ONES, EYE),
        [1.5, 0.0],
    ),
    "vector and sample": lambda: (tfd.MultivariateNormalTriL(ONES, EYE), tfd.Sample(tfd.Normal(0.0, 1.0), 3), 1.5),
    "independent, unequal axes": lambda: (
        npd.Normal(np.zeros((2, 3), np.float32), 1.0).to_event(2),
        tfd.Independent(tfd.Independent(tfd.Normal(np.ones((2, 3), np.float32), 1.0), 1), 1),
        3.0,
    ),
    "independent of vectors": lambda: (
        distrax.Independent(distrax.MultivariateNormalTri(np.zeros((2, 3), np.float32), EYE), 1),
        npd.Normal(np.ones((2, 3), np.float32), 1.0).to_event(2),
        3.0,
    ),
    "blocks": lambda: (
        tfd.Blockwise([tfd.Normal(0.0, 1.0), tfd.MultivariateNormalDiag(ZEROS)]),
        tfd.Blockwise([tfd.Normal(1.0, 1.0), tfd.MultivariateNormalTriL(ONES, EYE)]),
        2.0,
    ),
    "expanded": lambda: (npd.Normal(0.0, 1.0).expand([3]), npd.Normal(1.0, 1.0), [0.5] * 3),
    "broadcast": lambda: (tfd.BatchBroadcast(tfd.Normal(0.0, 1.0), [3]), npd.Normal(1.0, 1.0), [0.5] * 3),
    "a mixture of one": lambda: (
        distrax.MixtureSameFamily(distrax.Categorical(logits=np.zeros(1, np.float32)), normal(ONES[:1])),
        normal(),
        0.5,
    ),
    "affine": lambda: (distrax.Transformed(normal(), distrax.ScalarAffine(1.0, -2.0)), normal(1.0, 2.0), 0.0),
    "affine of a vector": lambda: (
        distrax.Transformed(distrax.MultivariateNormalDiag(ZEROS, ONES), distrax.TriangularLinear(jnp.asarray(WIDE))),
        tfd.MultivariateNormalTriL(ONES, EYE),
        gaussian(ZEROS, WIDE, ONES, EYE),
    ),
    "e to a normal": lambda: (
        distrax.Transformed(distrax.MultivariateNormalTri(ZEROS, WIDE), distrax.Block(tfb.Exp(), 1)),
        npd.LogNormal(ONES, 1.0).to_event(1),
        gaussian(ZEROS, WIDE, ONES, EYE),
    ),
    "tanh": lambda: (
        distrax.Transformed(normal(), distrax.Tanh()),
        tfd.TransformedDistribution(tfd.Normal(1.0, 1.0), tfb.Tanh()),
        0.5,
    ),
    "softplus, its inverse undone": lambda: (
        tfd.TransformedDistribution(tfd.Normal(0.0, 1.0), tfb.Chain([tfb.Invert(tfb.Softplus()), tfb.Softplus()])),
        normal(1.0),
        0.5,
    ),
    "the same function, written twice": lambda: (
        distrax.Transformed(normal(), lambda x: x + x**3),
        distrax.Transformed(normal(1.0), lambda x: x + x**3),
        0.5,
    ),
    "sticks": lambda: (
        npd.TransformedDistribution(npd.Normal(ZEROS, 1.0).to_event(1), transforms.StickBreakingTransform()),
        npd.TransformedDistribution(npd.Normal(ONES, 1.0).to_event(1), transforms.StickBreakingTransform()),
        1.5,
    ),
    "splines": lambda: (spline(0.0, 1.0), spline(1.0, 1.0), 0.5),
    "coupling": lambda: (coupling(ZEROS), coupling(ONES), 1.5),
    "a Cholesky factor": lambda: (
        npd.WishartCholesky(5.0, scale_tril=WIDE),
        tfd.WishartTriL(5.0, WIDE, input_output_cholesky=True),
        0.0,
    ),
    "Gaussian process": lambda: (
        tfd.GaussianProcess(
            tfp.math.psd_kernels.ExponentiatedQuadratic(),
            index_points=np.float32([[0], [1], [3]]),
            observation_noise_variance=0.5,
            jitter=0.0,
        ),
        tfd.MultivariateNormalDiag(ONES),
        gaussian(ZEROS, np.linalg.cholesky(KERNEL), ONES, EYE),
    ),
    "a Beta is a Dirichlet of two": lambda: (tfd.Beta(2.0, 3.0), distrax.Dirichlet(np.float32([2.0, 3.0])), 0.0),
    "a class and its one-hot vector": lambda: (
        tfd.OneHotCategorical(logits=ZEROS[:2]),
        distrax.Categorical(probs=np.float32([0.25, 0.75])),
        np.log(4 / 3) / 2,
    ),
}


def spline(loc, last):
    parameters = jnp.linspace(0.0, last, 13)
    return distrax.Transformed(normal(loc), distrax.RationalQuadraticSpline(parameters, -3.0, 3.0))


def coupling(loc):
    return distrax.Transformed(
        distrax.MultivariateNormalDiag(loc, ONES),
        distrax.MaskedCoupling(
            jnp.array([True, False, True]),
            lambda x: jnp.zeros((3, 2)),
            lambda v: distrax.ScalarAffine(v[..., 0], v[..., 1] + 1.0),
        ),
    )


@pytest.mark.parametrize("name", SAME)
def test_parts_add_up(name):
    p, q, expected = SAME[name]()
    found = kl(p, q)
    assert found.shape == np.shape(expected)
    close(found, expected)


@pytest.mark.parametrize(
    ("p", "q", "why"),
    [
        (lambda: spline(0.0, 1.0), lambda: spline(1.0, 2.0), "their transforms have different parameters"),
        (
            lambda: tfd.PERT(0.0, 1.0, 3.0),
            lambda: tfd.PERT(0.0, 1.0, 4.0),
            "their transforms have different parameters",
        ),
        (
            lambda: tfd.Masked(tfd.Normal(ZEROS, 1.0), np.array([True, True, False])),
            lambda: tfd.Masked(tfd.Normal(ZEROS, 1.0), np.array([True, False, False])),
            "their masks differ",
        ),
        (
            lambda: npd.Wishart(5.0, scale_tril=EYE),
            lambda: npd.WishartCholesky(5.0, scale_tril=EYE),
            "Wishart and Transformed",
        ),
        (
            lambda: tfd.PowerSpherical(EYE[0], 2.0),
            lambda: tfd.PowerSpherical(EYE[1], 2.0),
            "`mean_direction` has to be the same on both sides",
        ),
        (lambda: distrax.Quantized(normal()), lambda: normal(), "Quantized, known by its density alone, and Normal"),
    ],
)
def test_what_has_no_closed_form_says_why(p, q, why):
    with pytest.raises(NotImplementedError, match=why):
        kl(p(), q())


def test_a_traced_parameter_that_has_to_be_shared_gives_nan_where_it_is_not():
    found = jax.vmap(lambda high: kl(tfd.PERT(0.0, 1.0, 3.0), tfd.PERT(0.0, 1.0, high)))(np.float32([3.0, 4.0]))
    np.testing.assert_array_equal(np.isnan(found), [False, True])


def test_masked_entries_count_for_nothing_nor_do_their_gradients():
    mask = np.array([True, False, True])

    def of(loc, scale):
        p = tfd.Masked(tfd.Uniform(loc, loc + scale), mask)
        return kl(p, npd.MaskedDistribution(npd.Uniform(-5.0 * ONES, 5.0 * ONES), jnp.asarray(mask)))

    loc, scale = np.float32([0.0, np.nan, 1.0]), np.float32([1.0, -1.0, 2.0])
    close(of(loc, scale), [np.log(10), 0.0, np.log(5)])
    gradients = jax.jacobian(lambda *x: of(*x).sum(), (0, 1))(loc, scale)
    close(gradients[0], [0.0, 0.0, 0.0])
    close(gradients[1], [-1.0, 0.0, -0.5])


def test_a_point_takes_minus_the_log_density():
    close(kl(npd.Delta(1.0), normal()), 0.5 + 0.5 * np.log(2 * np.pi))
    close(kl(npd.Delta(1.0, log_density=0.25), normal()), 0.75 + 0.5 * np.log(2 * np.pi))
    vector = kl(tfd.Independent(tfd.Deterministic(ONES), 1), npd.MultivariateNormal(ZEROS, scale_tril=WIDE))
    close(vector, -stats.multivariate_normal.logpdf(ONES, ZEROS, np.asarray(WIDE, float) @ WIDE.T))
    mixture = distrax.MixtureSameFamily(distrax.Categorical(probs=[0.25, 0.75]), normal(np.float32([0.0, 2.0])))
    close(kl(distrax.Deterministic(0.7), mixture), -np.log(0.25 * stats.norm.pdf(0.7) + 0.75 * stats.norm.pdf(1.3)))
    close(kl(npd.Delta(0.7), tfd.LogNormal(0.3, 1.5)), -stats.lognorm.logpdf(0.7, 1.5, scale=np.exp(0.3)))
    close(kl(npd.Delta(3.0), npd.Poisson(2.0)), -stats.poisson.logpmf(3, 2.0))
    assert kl(npd.Delta(np.float32([0.5, 3.0])), distrax.Uniform(0.0, 1.0)).tolist() == [0.0, np.inf]
    assert kl(npd.Delta(np.float32([3.0, 2.0])), distrax.Deterministic(3.0)).tolist() == [0.0, np.inf]
    assert kl(normal(), npd.Delta(0.0)) == np.inf
    # A step down that gradient brings the point back into the support.
    assert jax.grad(lambda high: kl(d.Deterministic(3.0), d.Uniform(0.0, high)))(1.0) == -np.inf


def test_affine_maps_are_right_where_they_are_traced():
    def of(loc, scale):
        return kl(distrax.Transformed(normal(), distrax.ScalarAffine(loc, scale)), normal(0.0, 2.0))

    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(of, (0, 1))))(
        np.float32([1.0, 0.0]), np.float32([-1.0, 2.0])
    )
    close(values, [np.log(2) + 0.25 - 0.5, 0.0])
    close(gradients, [[0.25, 0.0], [1 - 0.25, 0.0]])
