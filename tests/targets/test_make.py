"""make_target: the density in unconstrained space is the right one, and every misfit is said in one sentence."""

import collections
import dataclasses
from typing import NamedTuple

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import vi_kit as vk
from vi_kit.targets import make_target

LIKE = {"mu": 0.0, "tau": 1.0, "theta": jnp.zeros(3)}
POSITIVE_TAU = {"tau": vk.support.positive}
DATA = {"y": jnp.array([1.0, -2.0, 0.5]), "sd": 2.0}


def log_density(x, data):
    return (
        -0.5 * x["mu"] ** 2
        - x["tau"]
        - 0.5 * jnp.sum((x["theta"] - x["mu"]) ** 2) / x["tau"] ** 2
        - 3 * jnp.log(x["tau"])
        - 0.5 * jnp.sum((data["y"] - x["theta"]) ** 2) / data["sd"] ** 2
    )


def hierarchical(**changes):
    return make_target(log_density, **{"like": LIKE, "support": POSITIVE_TAU, "data": DATA, **changes})


def test_density_in_z_is_the_density_in_x_with_the_jacobian():
    target = hierarchical()
    z = np.array([0.3, -0.7, 1.0, -1.0, 0.2])  # mu, log tau, theta: alphabetical, as JAX orders a dict
    tau = np.exp(-0.7)
    expected = (
        stats.norm.logpdf(0.3)
        + stats.expon.logpdf(tau)
        + stats.norm.logpdf(z[2:], 0.3, tau).sum()
        + stats.norm.logpdf([1.0, -2.0, 0.5], z[2:], 2.0).sum()
        - stats.norm.logpdf(0.0, scale=1.0) * 7
        + 3 * np.log(2.0)
        + np.log(tau)  # the Jacobian
    )
    np.testing.assert_allclose(target.log_density(jnp.asarray(z, jnp.float32)), expected, rtol=1e-5)
    assert target.dim == 5


def test_jacobian_keeps_the_mass(x64):
    """The integral of the density over z is that over x: exp(log_normalizer)."""
    target = make_target(
        lambda x: -3.0 * x["rate"] + jnp.log(x["p"]),
        {"rate": 1.0, "p": 0.5},
        support={"rate": vk.support.positive, "p": vk.support.interval(0.0, 2.0)},
    )
    density = jax.jit(lambda a, b: jnp.exp(target.log_density(jnp.array([a, b]))))
    mass, _ = integrate.dblquad(density, -15, 5, -15, 15, epsabs=1e-8)  # p first: alphabetical
    np.testing.assert_allclose(mass, 2.0 / 3.0, rtol=1e-5)


def test_constrain_and_unconstrain_are_inverse(key):
    target = hierarchical()
    z = jax.random.normal(key, (5,))
    x = target.constrain(z)
    assert {name: leaf.shape for name, leaf in x.items()} == {"mu": (), "tau": (), "theta": (3,)}
    np.testing.assert_allclose(target.unconstrain(x), z, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(x["tau"], np.exp(z[1]), rtol=1e-6)


def test_integer_leaves_become_the_default_float():
    target = make_target(lambda x: -jnp.sum(x["a"] ** 2) - x["b"] ** 2, {"a": np.arange(3), "b": 1})
    x = target.constrain(jnp.zeros(4))
    assert {leaf.dtype for leaf in jax.tree.leaves(x)} == {jnp.dtype("float32")}
    assert target.unconstrain({"a": np.arange(3), "b": 1}).dtype == jnp.float32


def test_double_precision_stays_double(x64):
    target = hierarchical(data=jax.tree.map(float, {"y": [1.0, -2.0, 0.5], "sd": 2.0}))
    assert target.log_density(jnp.zeros(5)).dtype == jnp.float64
    assert target.constrain(jnp.zeros(5))["tau"].dtype == jnp.float64


class Point(NamedTuple):
    a: float
    b: float


class TestSupport:
    def x_at(self, like, support, z):
        return make_target(lambda x: sum(map(jnp.sum, jax.tree.leaves(x))), like, support=support).constrain(z)

    def test_one_support_for_all(self):
        x = self.x_at({"a": 0.0, "b": jnp.zeros(2)}, vk.support.positive, jnp.zeros(3))
        np.testing.assert_allclose(np.concatenate([x["a"][None], x["b"]]), 1.0)

    def test_prefix_of_nested_trees(self):
        like = {"u": {"a": 0.0, "b": 0.0}, "v": [0.0, 0.0]}
        x = self.x_at(like, {"u": vk.support.positive, "v": [None, vk.support.unit_interval]}, jnp.zeros(4))
        assert jax.tree.map(float, x) == {"u": {"a": 1.0, "b": 1.0}, "v": [0.0, 0.5]}

    @pytest.mark.parametrize("names", [("b", "a"), ("a", "b")])
    def test_belongs_to_the_variable_of_its_name_whatever_the_order(self, names):
        """JAX sorts a dict's leaves and keeps the order of an OrderedDict."""
        for kind in (dict, collections.OrderedDict):
            x = self.x_at(kind((name, 0.0) for name in names), {"a": vk.support.positive}, jnp.zeros(2))
            assert (float(x["a"]), float(x["b"])) == (1.0, 0.0)

    def test_named_tuples(self):
        x = self.x_at(Point(0.0, 0.0), Point(None, vk.support.positive), jnp.zeros(2))
        assert x == Point(0.0, 1.0)

    def test_simplex_takes_one_coordinate_less(self):
        target = make_target(lambda x: jnp.sum(jnp.log(x["p"])), {"p": jnp.ones(3)}, support={"p": vk.support.simplex})
        assert target.dim == 2
        np.testing.assert_allclose(target.constrain(jnp.zeros(2))["p"], np.full(3, 1 / 3), rtol=1e-6)

    @pytest.mark.parametrize(
        ("support", "message"),
        [
            ({"tua": vk.support.positive}, "'tua' is not in `like`; did you mean 'tau'"),
            ({"zzz": vk.support.positive}, "'zzz' is not in `like`; `like` has 'mu', 'tau', 'theta'"),
            ({"tau": "positive"}, "expected one of vi_kit.support .* for tau, got 'positive'"),
            ({"tau": {"a": vk.support.positive}}, "got a dict for tau, which is not a dict in `like`"),
            ({"mu": vk.support.simplex}, "simplex needs a last axis"),
            ({"tau": vk.support.greater_than(jnp.zeros(2))}, r"lower has shape \(2,\)"),
            ([vk.support.positive], "expected one of vi_kit.support"),
        ],
    )
    def test_misfits_are_named(self, support, message):
        with pytest.raises(ValueError, match=message):
            hierarchical(support=support)


class TestMessages:
    @pytest.mark.parametrize(
        ("build", "error", "message"),
        [
            (lambda: make_target("no", 2), TypeError, r"log_density: expected a function log_density\(x\), got str"),
            (
                lambda: make_target(lambda x, data: 0.0, 2),
                TypeError,
                "no data were given, so it is called as log_density",
            ),
            (lambda: make_target(lambda x: 0.0, 2, data=1.0), TypeError, r"data were given, .* log_density\(x, data\)"),
            (lambda: make_target(lambda x: 0.0, 2, sample=lambda: 0), TypeError, r"sample: .*called as sample\(key\)"),
            (
                lambda: make_target(lambda x: 0.0, 2, derived=lambda x: {}),
                TypeError,
                "derived: needs `like` to be a dict",
            ),
            (lambda: make_target(lambda x: 0.0, 0), ValueError, "like: the dimension must be at least 1, got 0"),
            (lambda: make_target(lambda x: 0.0, None), TypeError, "like: expected an int or an example"),
            (lambda: make_target(lambda x: 0.0, True), TypeError, "like: expected an int"),
            (lambda: make_target(lambda x: 0.0, {}), ValueError, "like: expected at least one variable"),
            (lambda: make_target(lambda x: 0.0, {"a": "text"}), TypeError, "like: a must hold numbers, got 'text'"),
            (lambda: make_target(lambda x: 0.0, 2, names=["a"]), ValueError, "names: expected 2 labels.*got 1"),
            (
                lambda: make_target(lambda x, d: 0.0, 2, data={"y": "text"}),
                TypeError,
                "data: expected arrays or numbers",
            ),
            (
                lambda: make_target(lambda x, d: 0.0, 2, data=[[1, 2], [3]]),
                TypeError,
                "data: expected arrays or numbers",
            ),
            (
                lambda: make_target(lambda x, d: 0.0, 2, data=np.array([2**40])),
                ValueError,
                "data: integers beyond the range",
            ),
        ],
    )
    def test_at_construction(self, build, error, message):
        with pytest.raises(error, match=message):
            build()

    @pytest.mark.parametrize(
        ("function", "error", "message"),
        [
            (lambda x: -(x**2), ValueError, r"log_density must return one scalar .*shape \(3,\); sum it"),
            (
                lambda x: jnp.sum(x).astype(int),
                TypeError,
                "log_density must return a floating-point number, got dtype int32",
            ),
            (lambda x: 3, TypeError, "floating-point"),
        ],
    )
    def test_at_evaluation(self, function, error, message):
        with pytest.raises(error, match=message):
            make_target(function, 3).log_density(jnp.zeros(3))

    def test_points_of_another_shape(self):
        target = hierarchical()
        with pytest.raises(ValueError, match=r"expected one flat point of shape \(5,\), got \(2, 5\)"):
            target.log_density(jnp.zeros((2, 5)))
        with pytest.raises(ValueError, match=r"theta should have shape \(3,\), got \(2,\)"):
            target.unconstrain({"mu": 0.0, "tau": 1.0, "theta": jnp.zeros(2)})

    def test_no_sampler(self, key):
        with pytest.raises(NotImplementedError, match="no exact sampler"):
            hierarchical().sample(key)


def normal_prior(mean=1.0, sd=2.0):
    return {"mu": distrax.Normal(mean, sd), "tau": distrax.Gamma(2.0, 3.0), "theta": distrax.Normal(0.0, 1.0)}


class TestPrior:
    likelihood = staticmethod(lambda x, data: -0.5 * jnp.sum((data["y"] - x["theta"]) ** 2))

    def target(self, prior):
        return make_target(self.likelihood, LIKE, support=POSITIVE_TAU, data=DATA, prior=prior)

    def test_is_added_with_the_jacobian_and_spread_over_a_variable(self):
        target = self.target(normal_prior())
        z = np.array([0.3, -0.7, 1.0, -1.0, 0.2])
        expected = (
            stats.norm.logpdf(0.3, 1.0, 2.0)
            + stats.gamma.logpdf(np.exp(-0.7), 2.0, scale=1 / 3.0)
            - 0.7
            + stats.norm.logpdf(z[2:]).sum()
        )
        z = jnp.asarray(z, jnp.float32)
        np.testing.assert_allclose(target.log_prior(z), expected, rtol=1e-5)
        np.testing.assert_allclose(target.log_density(z), expected + target.log_likelihood(z), rtol=1e-5)

    def test_as_a_function_is_the_same(self, key):
        def log_prior(x):
            prior = normal_prior()
            return sum(jnp.sum(prior[name].log_prob(value)) for name, value in x.items())

        z = jax.random.normal(key, (5,))
        np.testing.assert_allclose(
            self.target(log_prior).log_density(z), self.target(normal_prior()).log_density(z), rtol=1e-5
        )

    @pytest.mark.parametrize("shape", [(3,), (2, 3)])
    def test_events_of_a_joint_distribution(self, shape):
        loc, factor = jnp.array([0.0, 1.0, -1.0]), jnp.array([[1.0, 0, 0], [0.5, 2.0, 0], [0, -1.0, 0.5]])
        for prior, covariance in [
            (distrax.MultivariateNormalTri(loc, factor), np.asarray(factor @ factor.T)),
            (distrax.MultivariateNormalDiag(loc, jnp.array([1.0, 2.0, 3.0])), np.diag([1.0, 4.0, 9.0])),
        ]:
            target = make_target(lambda x: 0.0 * jnp.sum(x["a"]), {"a": jnp.zeros(shape)}, prior={"a": prior})
            z = np.linspace(-1, 1, int(np.prod(shape)))
            expected = stats.multivariate_normal.logpdf(z.reshape(shape), loc, covariance).sum()
            np.testing.assert_allclose(target.log_density(jnp.asarray(z, jnp.float32)), expected, rtol=1e-5)

    @pytest.mark.parametrize(
        ("prior", "error", "message"),
        [
            ({"mu": distrax.Normal(0.0, 1.0)}, ValueError, "prior: no distribution was given for tau, theta"),
            ({**normal_prior(), "x": distrax.Normal(0.0, 1.0)}, ValueError, "prior: 'x' is not in `like`"),
            ({**normal_prior(), "mu": 3.0}, TypeError, "prior: expected a distribution for mu, got float"),
            (distrax.Normal(0.0, 1.0), ValueError, "prior: it must have the structure of `like`"),
        ],
    )
    def test_misfits_are_named(self, prior, error, message):
        with pytest.raises(error, match=message):
            self.target(prior)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"mu": distrax.Normal(jnp.zeros(3), 1.0)}, r"of mu gives log probabilities of shape \(3,\)"),
            (
                {"theta": distrax.MultivariateNormalDiag(jnp.zeros(1), jnp.ones(1))},
                r"of theta has events of shape \(1,\)",
            ),
            ({"mu": distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))}, r"of mu has events of shape \(2,\)"),
        ],
    )
    def test_shapes_are_checked(self, wrong, message):
        with pytest.raises(ValueError, match=message):
            self.target({**normal_prior(), **wrong}).log_density(jnp.zeros(5))

    def test_function_must_return_a_scalar(self):
        with pytest.raises(ValueError, match="prior must return one scalar"):
            self.target(lambda x: x["theta"]).log_density(jnp.zeros(5))

    @pytest.mark.parametrize("joint", [False, True], ids=["Normal", "MultivariateNormalDiag"])
    def test_parameters_are_leaves(self, joint):
        """Prior parameters can be mapped over: many priors, one program."""

        def one(loc):
            part = distrax.MultivariateNormalDiag(loc, jnp.ones(2)) if joint else distrax.Normal(loc, jnp.ones(2))
            return make_target(lambda x: 0.0 * jnp.sum(x["a"]), {"a": jnp.zeros(2)}, prior={"a": part})

        locs = jnp.array([[0.0, 1.0], [2.0, -1.0]])
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), one(locs[0]), one(locs[1]))
        values = jax.vmap(lambda target: target.log_density(jnp.zeros(2)))(stacked)
        expected = [stats.norm.logpdf(0.0, loc, 1.0).sum() for loc in np.asarray(locs)]
        np.testing.assert_allclose(values, expected, rtol=1e-6)


class TestData:
    mean = staticmethod(lambda x, data: -0.5 * jnp.sum((data["y"] - x[0]) ** 2))

    @pytest.mark.parametrize(
        "y", [[1.0, 2.0], [1, 2], [np.int64(1), np.float64(2.0)], np.array([1.0, 2.0]), (1.0, 2.0)], ids=type
    )
    def test_lists_and_arrays(self, y):
        def total(data):
            return jnp.sum(jnp.array(data["y"], jnp.float32))

        target = make_target(lambda x, data: x[0] - total(data), 1, data={"y": y})
        np.testing.assert_allclose(target.log_density(jnp.zeros(1)), -3.0)
        assert not any(leaf.weak_type for leaf in jax.tree.leaves(target.data))

    def test_default_float(self):
        assert make_target(self.mean, 1, data={"y": np.arange(3.0)}).data["y"].dtype == jnp.float32

    def test_keys_pass(self, key):
        target = make_target(lambda x, data: -x[0] * jax.random.uniform(data), 1, data=key)
        assert jax.dtypes.issubdtype(target.data.dtype, jax.dtypes.prng_key)

    def test_replace_is_a_minibatch(self):
        target = make_target(self.mean, 1, data={"y": jnp.arange(4.0)})
        batch = dataclasses.replace(target, data={"y": jnp.array([3.0])})
        np.testing.assert_allclose(batch.log_density(jnp.zeros(1)), -4.5)
        np.testing.assert_allclose(target.log_density(jnp.zeros(1)), -7.0)

    def test_vmap_over_data_is_the_loop(self):
        target = make_target(self.mean, 1, data={"y": jnp.zeros(2)})
        many = jnp.array([[1.0, 2.0], [0.0, 3.0]])

        def evaluate(y):
            return dataclasses.replace(target, data={"y": y}).log_density(jnp.zeros(1))

        np.testing.assert_allclose(jax.vmap(evaluate)(many), [-2.5, -4.5])
        axes = dataclasses.replace(jax.tree.map(lambda _: None, target), data={"y": 0})
        mapped = jax.vmap(lambda t: t.log_density(jnp.zeros(1)), in_axes=(axes,))
        np.testing.assert_allclose(mapped(dataclasses.replace(target, data={"y": many})), [-2.5, -4.5])


def test_derived_quantities_are_reported_beside_x():
    target = hierarchical(derived=lambda x, data: {"ratio": x["mu"] / data["sd"], "both": x["theta"] + x["mu"]})
    report = target.report(jnp.array([3.0, 0.0, 1.0, 2.0, 3.0]))
    assert list(report) == ["mu", "tau", "theta", "ratio", "both"]
    np.testing.assert_allclose(report["ratio"], 1.5)
    np.testing.assert_allclose(report["both"], [4.0, 5.0, 6.0])
    assert hierarchical().report(jnp.zeros(5)).keys() == LIKE.keys()


def test_sampler_gets_the_data(key):
    target = make_target(lambda x, d: -jnp.sum((x - d) ** 2), 2, data=jnp.array([5.0, 6.0]), sample=lambda k, d: d)
    np.testing.assert_allclose(target.sample(key), [5.0, 6.0])
    assert target.has_sampler


def test_equal_targets_share_one_tree_structure():
    """So a freshly built one, with other numbers, hits the same compiled program."""

    def build(bound, sd, rate):
        return make_target(
            lambda x, data: -rate * jnp.sum(x["b"]) - x["a"] ** 2 + data,
            {"a": 0.0, "b": jnp.ones(2)},
            support={"b": vk.support.greater_than(bound)},
            data=sd,
            prior={"a": distrax.Normal(0.0, sd), "b": distrax.MultivariateNormalDiag(jnp.zeros(2), sd * jnp.ones(2))},
            log_normalizer=sd,
            derived=lambda x, data: {"c": x["a"] + 1},
        )

    def kinds(target):
        return [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(target)]

    first = build(0, 1.0, 2.0)
    for other in (build(0.5, 3.0, 2.0), build(jnp.float32(1.0), jnp.float32(3.0), 2.0)):
        assert jax.tree.structure(first) == jax.tree.structure(other)
        assert hash(jax.tree.structure(first)) == hash(jax.tree.structure(other))
        assert kinds(first) == kinds(other)
    assert jax.tree.structure(first) != jax.tree.structure(build(0, 1.0, 3.0))


def test_repr_says_what_is_there():
    target = hierarchical(derived=lambda x, data: {}, log_normalizer=1.0)
    assert repr(target) == ("Target(dim=5; mu, tau > 0, theta[3]; with data, log normalizer, derived quantities)")


def test_derived_quantities_keep_out_of_the_variables_way():
    target = vk.make_target(lambda x: -(x["a"] ** 2), {"a": 0.0}, derived=lambda x: {"a": 2 * x["a"]})
    with pytest.raises(ValueError, match="derived: a is a variable already"):
        target.report(jnp.zeros(1))
    wrong = vk.make_target(lambda x: -(x["a"] ** 2), {"a": 0.0}, derived=lambda x: x["a"])
    with pytest.raises(TypeError, match="derived: it must return a dict"):
        wrong.report(jnp.zeros(1))


@pytest.mark.parametrize(
    ("log_density", "words"),
    [
        (lambda x: None, "must return one scalar for one point, got NoneType"),
        (lambda x: np.log(x), "must be a JAX function"),
        (lambda x: -float(jnp.sum(x)), "must be a JAX function"),
        (lambda x: 1.0 if x[0] > 0 else 2.0, "must be a JAX function"),
    ],
)
def test_what_jax_cannot_trace_is_said_in_a_sentence(log_density, words):
    check = vk.check(jax.random.key(0), vk.make_target(log_density, 2))
    assert not check.ok
    assert words in check.problems[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Line:
    """A model of its own kind that can be called, as modules of equinox are; a tree of priors is one too."""

    slope: object

    def __call__(self, x):
        return self.slope * x


def test_a_tree_of_priors_may_be_of_a_kind_that_can_be_called():
    target = make_target(
        lambda line, data: -jnp.sum((data["y"] - line(data["x"])) ** 2),
        Line(jnp.zeros(2)),
        data={"x": jnp.array([1.0, 2.0]), "y": jnp.array([0.5, -1.0])},
        prior=Line(distrax.Normal(1.0, 2.0)),
    )
    assert target.prior_function is None
    np.testing.assert_allclose(
        target.log_prior(jnp.array([0.5, 3.0])), stats.norm.logpdf([0.5, 3.0], 1.0, 2.0).sum(), rtol=1e-6
    )
