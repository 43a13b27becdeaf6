"""quadrature_kl: against double precision, closed forms and enumeration, with errors that cover the truth."""

import distrax
import divergence_oracles as oracles
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as nd
import pytest
from divergence_densities import DENSITIES
from divergence_examples import EXAMPLES
from scipy import stats

import vi_kit as vk
from vi_kit.divergences import distributions as d

SINGLE, DOUBLE = 3e-6, 1e-9


def made(name, rows, dtype=jnp.float32):
    """Return one batch of a family."""
    return getattr(d, name)(**{k: jnp.asarray(np.array([row[k] for row in rows]), dtype) for k in rows[0]})


def moved(values):
    """Return the neighbor whose first parameter is 1% larger, as a float32; None where that has to be whole."""
    name = next(iter(values))
    larger = np.float64(np.float32(values[name] * 1.01))
    return None if name in {"total_count", "probs", "low"} else {**values, name: larger}


def crossed(p, q):
    """Return parameters of both: ordinary ones, each with each, or neighbors of ordinary and extreme ones."""
    first, second = EXAMPLES[p][0], EXAMPLES[q][0]
    pairs = [(a, b) for a in first.ordinary for b in second.ordinary if a is not b]
    if p == q:
        pairs += [(a, moved(a)) for a in first.ordinary + first.extreme if moved(a)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def compare(p, q, *, digits, dtype=jnp.float32, tiny=1e-4):
    first, second = crossed(p, q)
    found = vk.quadrature_kl(made(p, first, dtype), made(q, second, dtype))
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        exact = oracles.kl(DENSITIES[p], a, DENSITIES[q], b)
        value, error = float(found.value[i]), float(found.standard_error[i])
        case = f"{p} {a} ‖ {q} {b}: {value} ± {error}, exact {exact}"
        if np.isinf(exact) or exact > 1e30:
            assert value == np.inf or error == np.inf, case
            continue
        # The oracle itself has about 9 digits where p is a Poisson distribution of a million.
        assert abs(value - exact) <= error + 1e-9 * abs(exact), case
        if error < 1e-3 * exact and exact > tiny:
            assert abs(value - exact) <= digits * exact, case


@pytest.mark.parametrize("pair", [("Beta", "Normal"), ("Poisson", "NegativeBinomial")], ids="-".join)
def test_right_within_the_error_it_states(pair):
    compare(*pair, digits=SINGLE)


def test_double_precision(x64):
    compare("Geometric", "Poisson", digits=DOUBLE, dtype=jnp.float64)


@pytest.mark.slow
@pytest.mark.parametrize("p", [name for name in DENSITIES if name in EXAMPLES])
def test_every_family(p):
    kind = (DENSITIES[p].discrete, DENSITIES[p].circle)
    others = [q for q in DENSITIES if q in EXAMPLES and (DENSITIES[q].discrete, DENSITIES[q].circle) == kind]
    for q in (p, others[(others.index(p) * 7 + 3) % len(others)]):
        compare(p, q, digits=2e-5, tiny=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("p", [name for name in DENSITIES if name in EXAMPLES])
def test_every_family_in_double_precision(p, x64):
    compare(p, p, digits=1e-9, dtype=jnp.float64)


def spiked():
    """Return a mixture with a component that is narrow and far away, by three libraries' names, and its log density."""
    weights, loc, scale = np.array([0.3, 0.7]), np.array([-40.0, 2.0]), np.array([0.5, 1e-3])

    def log_density(x):
        return np.logaddexp.reduce(
            [np.log(w) + stats.norm.logpdf(x, m, s) for w, m, s in zip(weights, loc, scale, strict=True)]
        )

    parts = [jnp.asarray(v, jnp.float32) for v in (loc, scale)]
    return distrax.MixtureSameFamily(
        distrax.Categorical(probs=jnp.asarray(weights)), distrax.Normal(*parts)
    ), log_density


def test_narrow_components_are_seen():
    p, log_density = spiked()
    nodes, weights = np.polynomial.legendre.leggauss(60)
    exact = 0.0
    for center, scale in ((-40.0, 0.5), (2.0, 1e-3)):
        for k in range(-12, 12):  # the other component is 0 there
            x = center + scale * (k + (nodes + 1) / 2)
            difference = log_density(x) - stats.logistic.logpdf(x, 0.0, 2.0)
            exact += np.sum(scale / 2 * weights * np.exp(log_density(x)) * difference)
    found = vk.quadrature_kl(p, d.Logistic(0.0, 2.0))
    np.testing.assert_allclose(found.value, exact, rtol=SINGLE)
    assert abs(found.value - exact) < found.standard_error < 1e-3


@pytest.mark.slow
def test_far_from_zero_nothing_is_lost():
    """At 1e4 neighboring float32 numbers are 1e-3 apart, half the width: parameters are shifted first."""
    near = vk.quadrature_kl(d.Normal(0.0, 1.0), d.Logistic(0.5, 0.5))
    far = vk.quadrature_kl(d.Normal(1e4, 2.0**-9), d.Logistic(1e4 + 2.0**-10, 2.0**-10))
    np.testing.assert_allclose(far.value, near.value, rtol=1e-6)


def test_gradients_also_where_supports_move():
    def kl(low, high, loc, scale):
        return vk.quadrature_kl(d.Uniform(low, high), d.Normal(loc, scale)).value

    def exact(low, high, loc, scale):
        width, a, b = high - low, low - loc, high - loc
        second = (b**3 - a**3) / (3 * width)
        return -jnp.log(width) + 0.5 * jnp.log(2 * jnp.pi * scale**2) + 0.5 * second / scale**2

    at = [jnp.float32(v) for v in (0.2, 1.0, 0.3, 1.5)]
    found = jax.value_and_grad(kl, argnums=(0, 1, 2, 3))(*at)
    expected = jax.value_and_grad(exact, argnums=(0, 1, 2, 3))(*at)
    np.testing.assert_allclose(np.hstack(found), np.hstack(expected), rtol=1e-5)


def test_one_program_for_many_calls_and_under_vmap(compiles):
    def kl(rate):
        found = vk.quadrature_kl(d.Poisson(rate), d.Poisson(jnp.float32(4.0)))
        return found.value, found.standard_error

    rates = [jnp.float32(rate) for rate in (4.0, 0.5, 300.0)]
    mapped, errors = jax.jit(jax.vmap(kl))(jnp.stack(rates))
    singles = [kl(rates[0])[0]]
    before = compiles()
    singles += [kl(rate)[0] for rate in rates[1:]]
    assert compiles() == before
    np.testing.assert_allclose(mapped, singles, rtol=1e-6)
    exact = [r * np.log(r / 4.0) - r + 4.0 for r in np.array(rates, float)]
    np.testing.assert_allclose(mapped, exact, rtol=SINGLE)
    assert mapped[0] == 0
    assert np.all(errors < 1e-5 * (1 + mapped))


@pytest.mark.slow
def test_zero_at_equality():
    def kl(p, q):
        return vk.quadrature_kl(d.Cauchy(p, 1.0), d.Cauchy(q, 1.0)).value

    value, slopes = jax.value_and_grad(kl, argnums=(0, 1))(jnp.float32(0.3), jnp.float32(0.3))
    assert value == 0
    np.testing.assert_allclose(slopes, [0.0, 0.0], atol=1e-7)


def test_infinite_where_it_diverges():
    found = vk.quadrature_kl(d.Cauchy(0.0, 1.0), d.Laplace(0.0, 1.0))  # like ∫ dx / x
    assert found.value == np.inf
    assert found.standard_error == np.inf  # judged from the tail, not known


@pytest.mark.slow
def test_infinite_where_q_has_no_mass():
    def kl(probs, count):
        return vk.quadrature_kl(d.Binomial(jnp.float32(5.0), probs), d.Binomial(count, jnp.float32(0.5))).value

    value, slope = jax.value_and_grad(kl)(jnp.float32(0.5), jnp.float32(3.0))
    assert value == np.inf
    assert np.isnan(slope)  # not silently 0
    assert np.isfinite(jax.value_and_grad(kl)(jnp.float32(0.5), jnp.float32(7.0))).all()


@pytest.mark.slow
def test_infinite_where_an_interval_leaves_another():
    def kl(low):
        return vk.quadrature_kl(d.Uniform(0.0, 1.0), d.Uniform(low, 2.0)).value

    assert kl(jnp.float32(0.5)) == np.inf
    np.testing.assert_allclose(kl(jnp.float32(-1.0)), np.log(3.0), rtol=1e-6)


class Told:
    """A normal that no library knows; its density is not normalized where mass is not 1."""

    batch_shape, event_shape = (), ()

    def __init__(self, mass):
        self.mass = mass

    def log_prob(self, x):
        return -0.5 * ((x - 3.0) / 0.5) ** 2 - 0.5 * np.log(2 * np.pi) + np.log(2 * self.mass)

    def mean(self):
        return 3.0

    def stddev(self):
        return 0.5


@pytest.mark.parametrize("mass", [pytest.param(1.0, marks=pytest.mark.slow), 0.98])
def test_objects_of_no_library_are_taken_at_their_density(mass):
    found = vk.quadrature_kl(Told(mass), d.Normal(3.0, 1.0))
    if mass == 1:
        np.testing.assert_allclose(found.value, np.log(2) + 0.125 - 0.5, rtol=SINGLE)
        assert found.standard_error < 1e-5
    else:
        assert found.standard_error == np.inf


def test_what_it_does_not_do_is_said():
    vector = distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))
    with pytest.raises(NotImplementedError, match=r"events of shape \(2,\) of p; vk.estimate_kl"):
        vk.quadrature_kl(vector, vector)
    with pytest.raises(ValueError, match="q: expected a distribution of real numbers as p is, got one of whole"):
        vk.quadrature_kl(d.Normal(0.0, 1.0), d.Poisson(1.0))
    with pytest.raises(ValueError, match=r"p\.rate: expected numbers of at least 0, got -1"):
        vk.quadrature_kl(d.Poisson(jnp.float32(-1.0)), d.Poisson(jnp.float32(4.0)))


@pytest.mark.usefixtures("x64")
def test_gradients_where_the_jumps_of_a_mixture_move():
    """Uniforms that end inside each other, at the middle of the support too, where panels meet."""
    weights = jnp.log(jnp.array([0.4, 0.6]))

    def value(ends):
        p = d.Mixture(weights, d.Uniform(jnp.stack([ends[0], ends[1]]), jnp.stack([ends[2], ends[3]])))
        return vk.quadrature_kl(p, d.Normal(0.3, 1.0)).value

    compiled = jax.jit(jax.value_and_grad(value))
    for ends in ([0.0, 0.5, 1.3, 2.0], [0.0, 0.0, 1.0, 2.0], [0.2, 0.1, 1.5, 1.1]):
        at = jnp.array(ends, jnp.float64)
        slopes = compiled(at)[1]
        steps = 1e-5 * np.eye(4)
        differences = [(compiled(at + h)[0] - compiled(at - h)[0]) / 2e-5 for h in steps]
        apart = np.abs(np.subtract.outer(ends, ends)) + np.eye(4) > 0
        smooth = apart.all(axis=1)  # where two ends meet the value has a kink
        np.testing.assert_allclose(slopes[smooth], np.array(differences)[smooth], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_gradients_of_mixtures_of_unlike_components_of_a_library():
    half = nd.Categorical(jnp.array([0.4, 0.6]))

    def value(rate, loc, high):
        parts = [nd.Exponential(rate), nd.Normal(loc, 1.0)], [nd.Uniform(0.0, high), nd.Normal(0.1, 2.0)]
        return vk.quadrature_kl(*(nd.MixtureGeneral(half, part, support=nd.constraints.real) for part in parts)).value

    at = 1.3, 0.2, 1.5
    slopes = jax.grad(value, (0, 1, 2))(*at)
    steps = 1e-5 * np.eye(3)
    np.testing.assert_allclose(slopes, [(value(*(at + h)) - value(*(at - h))) / 2e-5 for h in steps], rtol=1e-6)


@pytest.mark.slow
def test_tails_that_fall_slowly():
    """KL of a StudentT from a normal: most of it lies where p is hardly anything, and goes on as a power."""

    def exact(df):
        return -stats.t(df).entropy() + 0.5 * np.log(2 * np.pi) + 0.5 * df / (df - 2)

    for df in (2.1, 2.3, 2.5, 3.0):
        found = vk.quadrature_kl(d.StudentT(jnp.float32(df), 0.0, 1.0), d.Normal(0.0, 1.0))
        assert abs(found.value - exact(np.float32(df))) <= found.standard_error
        assert found.standard_error <= 0.1 * found.value
    assert vk.quadrature_kl(d.StudentT(2.0, 0.0, 1.0), d.Normal(0.0, 1.0)).standard_error == np.inf
