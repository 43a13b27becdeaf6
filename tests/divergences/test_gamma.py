"""Gamma, Beta, Dirichlet, Wishart and their like: 50 digits beside float32, where the textbook formulas lose theirs."""

import functools
import itertools

import distrax
import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from divergence_formulas import wishart as wishart_formula

import vi_kit as vk
from vi_kit.divergences import distributions as d
from vi_kit.divergences._rules import wider
from vi_kit.divergences._special import lgamma_remainder, stirling_remainder
from vi_kit.divergences._table import WIDENINGS

MORE = (
    (0, 0),
    (0.1, 0),
    (0, 1e-3),
    (1e-4, -1e-4),
    (1e-5, 2e-5),
    (1e-6, 0),
    (1e-6, 1e-6),
    (1e-3, 1e-3),
    (-0.5, 1),
    (5, 5),
)
CONCENTRATIONS = (1e-3, 0.5, 3, 100, 1e4, 1e6)


def at_50_digits(function):
    """Return a function that is evaluated with 50 digits, each number of its arguments once."""

    @functools.cache
    def evaluate(*args):
        with mp.workdps(50):
            return function(*(mp.mpf(x) for x in args))

    return evaluate


lgamma, digamma = at_50_digits(mp.loggamma), at_50_digits(mp.digamma)
trigamma = at_50_digits(lambda x: mp.polygamma(1, x))


@at_50_digits
def gamma(a, b, c, e):
    """Return KL and its gradient."""
    value = c * mp.log(b / e) + lgamma(c) - lgamma(a) + (a - c) * digamma(a) + a * (e / b - 1)
    to_p = (a - c) * trigamma(a) + e / b - 1, c / b - a * e / b**2
    return value, *to_p, mp.log(b / e) + digamma(c) - digamma(a), a / b - c / e


@at_50_digits
def dirichlet(*concentrations):
    """Return KL and its gradient, of p's concentrations followed by q's."""
    size = len(concentrations) // 2
    p, q = concentrations[:size], concentrations[size:]
    s, t = sum(p), sum(q)
    terms = [lgamma(b) - lgamma(a) + (a - b) * (digamma(a) - digamma(s)) for a, b in zip(p, q, strict=True)]
    to_p = [(a - b) * trigamma(a) - (s - t) * trigamma(s) for a, b in zip(p, q, strict=True)]
    to_q = [digamma(b) - digamma(t) - digamma(a) + digamma(s) for a, b in zip(p, q, strict=True)]
    return sum(terms) + lgamma(s) - lgamma(t), *to_p, *to_q


def worst(function, oracle, rows, dtype):
    """Return the largest relative errors of value and gradient, and the smallest value.

    The gradient is measured in units of the parameters, against its largest entry: where means agree, some entries
    are 0 and have no relative error.
    """
    columns = np.asarray(rows, dtype).T
    value, slopes = jax.jit(lambda *x: (function(*x), jax.grad(lambda *y: function(*y).sum(), range(len(x)))(*x)))(
        *map(jnp.asarray, columns)
    )
    found = np.stack([value, *slopes]).astype(np.float64).T
    with mp.workdps(50):
        exact = [oracle(*map(float, row)) for row in columns.T]
        exact = np.array([[float(x) if abs(x) > 1e-40 else 0.0 for x in row] for row in exact])
    scale = columns.T.astype(np.float64)
    wrong, size = np.abs(found[:, 1:] - exact[:, 1:]) * scale, np.abs(exact[:, 1:]) * scale
    equal = exact[:, 0] == 0
    np.testing.assert_array_equal(found[equal], 0.0)
    errors = np.abs(found[:, 0] - exact[:, 0])[~equal] / exact[~equal, 0]
    return errors.max(), (wrong.max(1)[~equal] / size.max(1)[~equal]).max(), found[:, 0].min()


def changed(base, dtype):
    return [(*base, *(dtype(x) * (1 + dtype(more[i % 2])) for i, x in enumerate(base))) for more in MORE]


def grid(dtype):
    return [row for base in itertools.product(CONCENTRATIONS, CONCENTRATIONS) for row in changed(base, dtype)]


def gamma_kl(a, b, c, e):
    return vk.kl_divergence(d.Gamma(a, b), d.Gamma(c, e))


def beta_kl(a, b, c, e):
    return vk.kl_divergence(d.Beta(a, b), d.Beta(c, e))


def test_gamma_to_the_last_digits():
    value, gradient, least = worst(gamma_kl, gamma, grid(np.float32), np.float32)
    assert value < 3e-6
    assert gradient < 3e-6
    assert least == 0


def test_beta():
    """The textbook formula is off by 100 % and more from concentrations of 1e4 on, and then often negative."""
    value, gradient, least = worst(beta_kl, dirichlet, grid(np.float32), np.float32)
    assert value < 5e-4
    assert gradient < 5e-4
    assert least == 0


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("function", "oracle"), [(gamma_kl, gamma), (beta_kl, dirichlet)])
def test_double_precision(function, oracle):
    value, gradient, least = worst(function, oracle, grid(np.float64), np.float64)
    assert value < 1e-10
    assert gradient < 1e-9
    assert least == 0


@pytest.mark.parametrize(
    ("p", "q"),
    [
        # What peers return for the same float32 parameters (distrax, TensorFlow Probability, NumPyro):
        ((1e3, 1e3), (1001.0, 1e3)),  # 2.5006e-4: 1.0147e-3, 1.602e-4, 3.81e-5
        ((1e4, 1e4), (10001.0, 1e4)),  # 2.5001e-5: 5.67e-3, −1.88e-4, −2.14e-3
        ((20.0,) * 50, (20.5,) * 50),  # 7.658e-3: 6.630e-3, 6.592e-3, 7.317e-3
        ((200.0,) * 50, (200.5,) * 50),  # 7.657e-5: −5.31e-3, −3.91e-3, 7.93e-4
    ],
)
def test_dirichlet_where_peers_lose_every_digit(p, q):
    exact = float(dirichlet(*p, *q)[0])
    found = [vk.kl_divergence(distrax.Dirichlet(jnp.array(p)), distrax.Dirichlet(jnp.array(q)))]
    if len(p) == 2:
        found.append(vk.kl_divergence(distrax.Beta(*p), distrax.Beta(*q)))
    np.testing.assert_allclose(found, exact, rtol=1e-5)


def test_gamma_where_peers_lose_every_digit():
    """distrax gives 9.48e-4 for 5.0008e-4, and −4.21e-3 for 4.9999e-4, where TensorFlow Probability gives 0."""
    p, q = (distrax.Gamma(jnp.array(a), 1.0) for a in ([1e3, 1e5], [1001.0, 100010.0]))
    exact = [float(gamma(*row)[0]) for row in ((1e3, 1, 1001, 1), (1e5, 1, 100010, 1))]
    np.testing.assert_allclose(vk.kl_divergence(p, q), exact, rtol=1e-5)
    np.testing.assert_allclose(exact, [5.0008e-4, 4.9999e-4], rtol=1e-4)


@pytest.mark.parametrize("size", [3, 20])
def test_a_dirichlet_of_parts_is_one_of_all(size, key):
    """A short and a long last axis take different ways; a batch gives what its entries give."""
    p = jnp.exp(3 * jax.random.normal(key, (2, 4, size)))
    q = p * (1 + 1e-3 * jnp.cos(p))
    found = vk.kl_divergence(d.Dirichlet(p), d.Dirichlet(q))
    exact = [float(dirichlet(*map(float, row))[0]) for row in np.concatenate([p, q], -1).reshape(8, -1)]
    np.testing.assert_allclose(found.reshape(-1), exact, rtol=1e-5)


# (p, q), where one concentration is nearly the total: as a difference of remainders, KL would be −3e-7 or worse.
NEARLY_ALL = (
    ((1e-7, 7e5), (1e-7, 1e5)),
    ((1e-7, 7e5), (1.3e-7, 7.2e5)),
    ((2e-9, 0.4), (2e-9, 0.06)),
    ((4e-8, 0.7), (4e-8, 0.65)),
    ((1e-10, 2e-3), (2.6e-10, 2.8e7)),
    ((3.0, 1e-9), (3.00003, 1e-9)),
    ((1e-9, 1e-5), (1e-9, 4e-5)),
    ((1e-3, 1e6), (1.001e-3, 1.001e6)),
    ((1e4, 1e8), (1e4, 1.00001e8)),
    ((1e-7, 1e-7), (1e-7, 1.1e-7)),
    ((1.5e6, 43.0), (1.2e-5, 2e-10)),
    ((7e5, 1e-7), (0.3, 0.2)),
)


@pytest.mark.parametrize("more", [(), (2e-8, 3e-6)], ids=["beta", "dirichlet"])
def test_one_concentration_is_nearly_all(more):
    def kl(*x):
        p, q = (jnp.stack(half, axis=-1) for half in (x[: len(x) // 2], x[len(x) // 2 :]))
        return vk.kl_divergence(d.Dirichlet(p), d.Dirichlet(q))

    rows = [(*p, *more, *q, *more) for p, q in NEARLY_ALL]
    value, gradient, least = worst(kl if more else beta_kl, dirichlet, rows, np.float32)
    assert value < 3e-4
    assert gradient < 1e-3
    assert least > 0


def test_one_concentration_is_nearly_all_and_equal():
    p = jnp.array([[1e-7, 7e5], [1e-9, 1e-5], [3.0, 1e-9]])

    def kl(p, q):
        return vk.kl_divergence(d.Dirichlet(p), d.Dirichlet(q)).sum()

    value, slopes = jax.value_and_grad(kl, (0, 1))(p, p)
    assert value == 0
    np.testing.assert_array_equal(slopes, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_one_concentration_is_nearly_all_in_double_precision():
    value, gradient, least = worst(beta_kl, dirichlet, [(*p, *q) for p, q in NEARLY_ALL], np.float64)
    assert value < 1e-9
    assert gradient < 1e-8
    assert least > 0


def test_remainders_far_from_equality():
    points = np.array(list(itertools.product([1e-6, 1e-3, 0.4, 3.9, 4.1, 50, 1e6, 1e12], repeat=2)), np.float32)
    new, old = points.T
    found = jax.jit(lambda x, y: (lgamma_remainder(x, y, x - y), stirling_remainder(x, y, x - y)))(new, old)
    with mp.workdps(50):
        exact = []
        for x, y in points.astype(float).tolist():
            whole = lgamma(x) - lgamma(y) - (mp.mpf(x) - y) * digamma(y)
            exact.append((whole, whole - x * mp.log(mp.mpf(x) / y) + (mp.mpf(x) - y)))
        exact = np.array([[float(v) if abs(v) > 1e-30 else 0.0 for v in row] for row in exact])
    np.testing.assert_allclose(np.stack(found).T, exact, rtol=2e-5)


# --- powers of Gamma variables ---------------------------------------------------------------------------------------


def stacy(a, s, c, b, t, e):
    """Return KL between generalized Gamma distributions (shape, scale, power) by the textbook, in double precision."""
    if a + e / c <= 0:
        return mp.inf
    log_mean = mp.log(s) + mp.digamma(a) / c
    normalizers = mp.log(abs(c / e)) - a * c * mp.log(s) + b * e * mp.log(t) - mp.loggamma(a) + mp.loggamma(b)
    return normalizers + (a * c - b * e) * log_mean - a + (mp.mpf(s) / t) ** e * mp.gamma(a + e / c) / mp.gamma(a)


ROOT = 2**0.5
POSITIVE = {  # each with its shape, scale and power
    "gamma": (d.Gamma(2.5, 4.0), (2.5, 0.25, 1)),
    "inverse gamma": (d.InverseGamma(0.75, 3.0), (0.75, 3, -1)),
    "exponential": (d.Exponential(0.5), (1, 2, 1)),
    "chi squared": (d.Chi2(5.0), (2.5, 2, 1)),
    "chi": (d.Chi(3.0), (1.5, ROOT, 2)),
    "half-normal": (d.HalfNormal(2.0), (0.5, 2 * ROOT, 2)),
    "rayleigh": (d.Rayleigh(0.5), (1, 0.5 * ROOT, 2)),
    "maxwell": (d.Maxwell(1.5), (1.5, 1.5 * ROOT, 2)),
    "weibull": (d.Weibull(1.25, 2.0), (1, 2, 1.25)),
    "frechet": (d.Frechet(2.0, 0.5), (1, 0.5, -2)),
    "generalized": (d.GeneralizedGamma(3.0, 2.0, -0.5), (3, 2, -0.5)),
}


def as_power(family):
    """Return (shape, scale, power) of what the table sees a family as in the end."""
    *_, (_, found) = wider(jax.tree.map(jnp.float32, family), WIDENINGS)
    assert isinstance(found, d.GeneralizedGamma)
    scale = found.scale * found.rate ** (-1 / found.power)
    return float(found.concentration), float(scale), float(found.power)


@pytest.mark.parametrize("name", POSITIVE)
def test_what_is_a_power_of_a_gamma_variable(name):
    family, expected = POSITIVE[name]
    np.testing.assert_allclose(as_power(family), expected, rtol=1e-6)


def test_every_pair_of_powers_of_gamma_variables():
    """Whatever the two are, there is a closed form, or the mean is infinite."""
    pairs = list(itertools.product([values for _, values in POSITIVE.values()], repeat=2))
    p, q = (d.GeneralizedGamma(*np.float32(x).T) for x in zip(*pairs, strict=True))
    exact = [float(stacy(*p, *q)) for p, q in pairs]
    assert 20 < np.isinf(exact).sum() < 80
    np.testing.assert_allclose(vk.kl_divergence(p, q), exact, rtol=1e-5, atol=1e-12)
    # They are seen so where the two families differ, whichever side is which.
    p, q = POSITIVE["weibull"], POSITIVE["gamma"]
    found = vk.kl_divergence(p[0], q[0]), vk.kl_divergence(q[0], p[0])
    np.testing.assert_allclose(found, [float(stacy(*p[1], *q[1])), float(stacy(*q[1], *p[1]))], rtol=1e-5)


def test_an_infinite_mean_has_a_gradient():
    def kl(concentration):
        return vk.kl_divergence(d.Gamma(concentration, 1.0), d.InverseGamma(2.0, 1.0))

    values, slopes = jax.vmap(jax.value_and_grad(kl))(jnp.array([0.5, 1.0, 1.5]))
    np.testing.assert_array_equal(np.isinf(values), [True, True, False])
    np.testing.assert_array_equal(slopes[:2], -jnp.inf)
    assert np.isfinite(slopes[2])


def test_moyal_is_a_logarithm_of_one():
    """e^{−y} / 2 is a Gamma(½, 1) variable, so e^x is a generalized Gamma one."""
    p, q = (0.3, 1.2), (-0.8, 0.5)
    found = vk.kl_divergence(d.Moyal(*p), d.Moyal(*q))
    first, second = ((0.5, mp.exp(loc) * mp.mpf(2) ** -scale, -1 / mp.mpf(scale)) for loc, scale in (p, q))
    np.testing.assert_allclose(found, float(stacy(*first, *second)), rtol=1e-5)


def test_levy_begins_where_it_begins():
    p = d.Levy(jnp.zeros(2), 1.0)
    inside, outside = vk.kl_divergence(p, d.Levy(jnp.array([0.0, 0.5]), 3.0))
    np.testing.assert_allclose(inside, vk.kl_divergence(d.InverseGamma(0.5, 0.5), d.InverseGamma(0.5, 1.5)), rtol=1e-6)
    assert outside == jnp.inf


# --- matrices --------------------------------------------------------------------------------------------------------


def test_one_by_one_matrices_are_numbers():
    """A mean with a Wishart precision in one dimension is one with a Gamma precision."""
    scale, df = np.array([0.7, 1.3]), np.array([2.5, 4.0])
    tril = jnp.float32(np.sqrt(scale)).reshape(2, 1, 1)
    loc, count = np.float32([0.2, 1.1]), np.float32([2.0, 0.5])

    def kl(family, *parameters):
        return vk.kl_divergence(*(family(*(jnp.float32(x[i]) for x in parameters)) for i in (0, 1)))

    for matrices, numbers, rate in (
        (d.NormalWishart, d.NormalGamma, 1 / (2 * scale)),
        (d.NormalInverseWishart, d.NormalInverseGamma, scale / 2),
    ):
        found = kl(matrices, loc[:, None], count, tril, df)
        np.testing.assert_allclose(found, kl(numbers, loc, count, df / 2, rate), rtol=1e-5)


def test_wishart_nearly_equal(key):
    """Digits survive for many degrees of freedom, also where scale and degrees change with the mean kept."""
    size = 4
    base = np.asarray(jnp.tril(jax.random.normal(key, (size, size))) * 0.3 + jnp.eye(size))
    degrees, changes = (3.5, 30.0, 1e4, 1e6), (1e-1, 1e-3, 1e-5)
    rows = list(itertools.product(degrees, changes, (True, False)))
    p = {"scale_tril": np.float32([base] * len(rows)), "df": np.float32([n for n, _, _ in rows])}
    moved = [base * (1 + c) ** -0.5 if kept else base + c * np.tril(np.cos(base)) for _, c, kept in rows]
    q = {"scale_tril": np.float32(moved), "df": np.float32([n * (1 + c) for n, c, _ in rows])}
    found = vk.kl_divergence(d.Wishart(**p), d.Wishart(**q))
    with mp.workdps(50):
        values = [[{k: v[i].astype(float) for k, v in x.items()} for x in (p, q)] for i in range(len(rows))]
        exact = [float(wishart_formula(*pair)) for pair in values]
    np.testing.assert_allclose(found, exact, rtol=2e-5)
    assert vk.kl_divergence(d.Wishart(base, 7.0), d.Wishart(base, 7.0)) == 0


def test_too_few_degrees_of_freedom_are_refused():
    eye = jnp.eye(3)
    with pytest.raises(ValueError, match=r"p\.df: expected numbers above"):
        vk.kl_divergence(d.Wishart(eye, 1.5), d.Wishart(eye, 3.0))
