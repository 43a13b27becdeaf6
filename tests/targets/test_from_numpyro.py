"""from_numpyro: the joint density in unconstrained space, data as arguments, and every misfit named."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer.reparam import LocScaleReparam
from scipy import integrate, stats

from vi_kit import support
from vi_kit.targets import from_numpyro

X = np.array([[1.0, 0.5], [-0.5, 2.0], [0.3, -1.0]])
COUNTS, GROUP = np.array([2, 0, 4]), np.array([0, 1, 1])
Z = np.array([0.2, -0.4, 0.7, -0.1, 0.5])  # effect (2), slope (2), log tau


def poisson_model(features, counts=None, *, num_groups, group, scale=2.0, kind="plain"):
    slope = numpyro.sample("slope", dist.Normal(0.0, scale).expand([features.shape[1]]).to_event(1))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    with numpyro.plate("groups", num_groups):
        effect = numpyro.sample("effect", dist.Normal(0.0, tau))
    numpyro.deterministic("ratio", jnp.exp(slope[0]))
    if kind == "penalized":
        numpyro.factor("penalty", -3.0 * tau**2)
    with numpyro.plate("rows", len(features)):
        numpyro.sample("counts", dist.Poisson(jnp.exp(features @ slope + effect[group])), obs=counts)


def poisson_target(counts=COUNTS, **changes):
    return from_numpyro(poisson_model, X, counts, **{"num_groups": 2, "group": GROUP, **changes})


def exact(z, *, counts=COUNTS, scale=2.0):
    effect, slope, tau = z[:2], z[2:4], np.exp(z[4])
    return (
        stats.norm.logpdf(slope, 0, scale).sum()
        + stats.halfnorm.logpdf(tau)
        + stats.norm.logpdf(effect, 0, tau).sum()
        + stats.poisson.logpmf(counts, np.exp(X @ slope + effect[GROUP])).sum()
        + z[4]  # the Jacobian
    )


def test_density_is_the_joint_one_with_the_jacobian():
    target = poisson_target()
    assert repr(target) == "Target(dim=5; effect[2], slope[2], tau > 0; with data, derived quantities)"
    value = jax.jit(target.log_density)(jnp.asarray(Z, jnp.float32))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, exact(Z), rtol=1e-6)


def test_double_precision_and_gradient(x64):
    target = poisson_target()
    value, gradient = jax.jit(jax.value_and_grad(target.log_density))(jnp.asarray(Z))
    np.testing.assert_allclose(value, exact(Z), rtol=1e-12)
    steps = 1e-5 * np.eye(5)
    np.testing.assert_allclose(gradient, [(exact(Z + h) - exact(Z - h)) / 2e-5 for h in steps], rtol=1e-7)


def test_static_arguments_and_factors_count():
    z = jnp.asarray(Z, jnp.float32)
    np.testing.assert_allclose(poisson_target(scale=0.5).log_density(z), exact(Z, scale=0.5), rtol=1e-6)
    penalized = poisson_target(kind="penalized").log_density(z)
    np.testing.assert_allclose(penalized, exact(Z) - 3 * np.exp(2 * Z[4]), rtol=1e-6)


def test_deterministic_sites_are_reported(key):
    x = jax.vmap(poisson_target().report)(jax.random.normal(key, (3, 5)))
    assert set(x) == {"effect", "slope", "tau", "ratio"}
    np.testing.assert_allclose(x["ratio"], np.exp(x["slope"][:, 0]), rtol=1e-6)


def test_the_mass_is_the_evidence(x64):
    """A normal mean under a normal prior: y ~ N(0, 1 + 4)."""

    def model(y):
        mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    target = from_numpyro(model, np.array(1.5))
    density = jax.jit(lambda z: jnp.exp(target.log_density(z[None])))
    mass, _ = integrate.quad(density, -20, 20)
    np.testing.assert_allclose(mass, stats.norm.pdf(1.5, 0, np.sqrt(5.0)), rtol=1e-8)


class TestData:
    def test_arrays_are_arguments_by_name(self):
        target = poisson_target()
        assert jax.tree.map(jnp.shape, target.data) == {"features": (3, 2), "counts": (3,), "group": (3,)}
        other = np.array([1, 5, 0])
        replaced = dataclasses.replace(target, data={**target.data, "counts": other})
        value = replaced.log_density(jnp.asarray(Z, jnp.float32))
        np.testing.assert_allclose(value, exact(Z, counts=other), rtol=1e-6)

    def test_many_data_sets_at_once(self):
        target = poisson_target()
        many = np.stack([COUNTS, COUNTS[::-1]])

        def one(counts):
            with_these = dataclasses.replace(target, data={**target.data, "counts": counts})
            return with_these.log_density(jnp.asarray(Z, jnp.float32))

        np.testing.assert_allclose(jax.vmap(one)(many), [exact(Z, counts=c) for c in many], rtol=1e-6)

    def test_other_data_compile_nothing_and_other_static_arguments_do(self, compiles):
        evaluate = jax.jit(lambda target, z: target.log_density(z))
        z = jnp.asarray(Z, jnp.float32)
        evaluate(poisson_target(), z)
        fresh = [poisson_target(counts=np.array([9, 9, 1])), poisson_target(scale=float("2.0"))]
        other = poisson_target(scale=1.0)
        before = compiles()
        values = [evaluate(target, z) for target in fresh]
        assert compiles() == before
        np.testing.assert_allclose(values[0], exact(Z, counts=np.array([9, 9, 1])), rtol=1e-6)
        np.testing.assert_allclose(evaluate(other, z), exact(Z, scale=1.0), rtol=1e-6)
        assert compiles() == before + 1

    def test_arrays_inside_containers(self):
        def model(data, *more, **options):
            mean = numpyro.sample("mean", dist.Normal(0.0, data["scale"]))
            y = data["y"] + more[0] + options["shift"]
            numpyro.sample("y", dist.Normal(mean, data["noise"][1]).expand([2]).to_event(1), obs=y)

        data = {"y": np.array([1.0, 2.0]), "scale": 3.0, "noise": ("unused", 0.5)}
        target = from_numpyro(model, data, np.array(0.1), shift=np.array([0.2, 0.3]))
        assert target.data["data"]["scale"] is None
        expected = stats.norm.logpdf(0.4, 0, 3) + stats.norm.logpdf([1.3, 2.4], 0.4, 0.5).sum()
        np.testing.assert_allclose(target.log_density(jnp.array([0.4])), expected, rtol=1e-6)

    @pytest.mark.parametrize("data", [{}, {"counts": COUNTS}, [COUNTS]])
    def test_data_of_another_structure_are_refused(self, data):
        with pytest.raises(ValueError, match=r"data: expected a dict of the model's arrays \['counts', 'features'"):
            dataclasses.replace(poisson_target(), data=data).log_density(jnp.zeros(5))

    def test_a_model_without_arrays(self):
        target = from_numpyro(lambda: numpyro.sample("x", dist.Normal(1.0, 2.0)))
        assert target.data is None
        np.testing.assert_allclose(target.log_density(jnp.array([0.3])), stats.norm.logpdf(0.3, 1, 2), rtol=1e-6)

    def test_an_observed_argument_left_out_is_refused_as_the_discrete_site_it_is(self):
        with pytest.raises(ValueError, match=r"site 'counts' \(.*\) is discrete"):
            poisson_target(counts=None)


@pytest.mark.parametrize(
    ("distribution", "expected", "dim"),
    [
        (dist.Normal(0.0, 1.0), support.real, 1),
        (dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)), support.real, 2),
        (dist.LogNormal(0.0, 1.0), support.positive, 1),
        (dist.Gamma(jnp.full(3, 2.0), 1.0).to_event(1), support.positive, 3),
        (dist.Pareto(2.0, 3.0), support.greater_than(2.0), 1),
        (dist.TruncatedNormal(0.0, 1.0, high=1.0), support.less_than(1.0), 1),
        (dist.TruncatedNormal(0.0, 1.0, low=-1.0, high=2.0), support.interval(-1.0, 2.0), 1),
        (dist.Uniform(jnp.array([0.0, 1.0]), 4.0), support.interval(np.array([0.0, 1.0]), 4.0), 2),
        (dist.Beta(2.0, 3.0), support.unit_interval, 1),
        (dist.Dirichlet(jnp.ones(4)), support.simplex, 3),
        (dist.ImproperUniform(dist.constraints.ordered_vector, (), (3,)), support.ordered, 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_supports(distribution, expected, dim):
    target = from_numpyro(lambda: numpyro.sample("x", distribution))
    (found,) = target.supports
    assert type(found) is type(expected)
    assert target.dim == dim
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.broadcast_to(ours, np.shape(theirs)), theirs)
    x = target.constrain(jnp.full(dim, 0.3))["x"]
    assert bool(jnp.all(distribution.support(x)))
    value = target.log_likelihood(jnp.full(dim, 0.3))
    np.testing.assert_allclose(value, jnp.sum(distribution.log_prob(x)), rtol=1e-6)


def test_reparameterized_models_have_the_sites_of_the_reparameterization():
    centered = handlers.reparam(poisson_model, config={"effect": LocScaleReparam(centered=0)})
    target = from_numpyro(centered, X, COUNTS, num_groups=2, group=GROUP)
    assert target.layout.names == ("effect_decentered", "slope", "tau")
    x = target.report(jnp.asarray(Z, jnp.float32))
    np.testing.assert_allclose(x["effect"], np.exp(Z[4]) * Z[:2], rtol=1e-6)
    whole = exact(np.concatenate([x["effect"], Z[2:]]))  # d effect / d effect_decentered = tau, twice
    np.testing.assert_allclose(target.log_density(jnp.asarray(Z, jnp.float32)), whole + 2 * Z[4], rtol=1e-6)


def test_a_scan_over_time():
    def model(y):
        rate = numpyro.sample("rate", dist.Uniform(0.0, 1.0))

        def step(level, seen):
            level = numpyro.sample("level", dist.Normal(rate * level, 1.0))
            numpyro.sample("y", dist.Normal(level, 0.5), obs=seen)
            return level, None

        scan(step, 0.0, y)

    y, z = np.array([0.5, -1.0, 2.0], np.float32), np.array([0.2, -0.3, 1.0, 0.4], np.float32)
    target = from_numpyro(model, y)
    assert repr(target) == "Target(dim=4; level[3], rate in (0, 1); with data)"
    level, rate = z[:3], 1 / (1 + np.exp(-z[3]))
    expected = stats.norm.logpdf(level, rate * np.array([0.0, *level[:2]]), 1.0).sum()
    expected += stats.norm.logpdf(y, level, 0.5).sum() + np.log(rate * (1 - rate))
    np.testing.assert_allclose(jax.jit(target.log_density)(jnp.asarray(z)), expected, rtol=1e-6)


def bounded_by_a_latent():
    low = numpyro.sample("low", dist.HalfNormal(1.0))
    numpyro.sample("x", dist.Uniform(low, low + 1.0))


def bounded_by_data(y):
    numpyro.sample("x", dist.Uniform(0.0, y.max()))


def subsampled(y):
    mean = numpyro.sample("mean", dist.Normal())
    with numpyro.plate("rows", 3, subsample_size=2) as rows:
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y[rows])


def sized_by_data(n):
    with numpyro.plate("rows", int(n)):
        numpyro.sample("x", dist.Normal())


def with_a_parameter():
    numpyro.sample("x", dist.Normal(numpyro.param("center", 1.0), 1.0))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: from_numpyro("model"), TypeError, "model: expected a NumPyro model, a function, got str"),
        (lambda: from_numpyro(subsampled), TypeError, "model: its arguments do not fit: missing .* 'y'"),
        (lambda: from_numpyro(lambda: None), ValueError, "at least one latent site"),
        (
            lambda: from_numpyro(lambda: numpyro.sample("k", dist.Bernoulli(0.3))),
            ValueError,
            r"site 'k' \(BernoulliProbs\) is discrete",
        ),
        (
            lambda: from_numpyro(lambda: numpyro.sample("corr", dist.LKJCholesky(3))),
            ValueError,
            r"site 'corr' \(LKJCholesky\) lives in CorrCholesky\(\), which has no counterpart",
        ),
        (
            lambda: from_numpyro(lambda: numpyro.sample("s", dist.ProjectedNormal(jnp.ones(3)))),
            ValueError,
            "site 's' .* lives in Sphere",
        ),
        (lambda: from_numpyro(bounded_by_a_latent), ValueError, "bounds of site 'x' depend on another latent site"),
        (lambda: from_numpyro(bounded_by_data, X), ValueError, "bounds of site 'x' depend on an array argument"),
        (lambda: from_numpyro(subsampled, X[:, 0]), ValueError, "plate 'rows' draws a subsample"),
        (lambda: from_numpyro(sized_by_data, jnp.array(3)), TypeError, "value of an array argument while tracing"),
        (lambda: from_numpyro(with_a_parameter), ValueError, r"'center' is a numpyro.param"),
    ],
)
def test_misfits_are_named(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_without_numpyro_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpyro", None)
    with pytest.raises(ImportError, match=r"from_numpyro needs NumPyro, .*pip install 'vi_kit\[numpyro\]'"):
        from_numpyro(lambda: None)
