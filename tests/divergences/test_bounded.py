"""KL on intervals: mpmath and double-precision quadrature, nearly equal and extreme, and supports that move."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy import special, stats

import vi_kit as vk
from vi_kit.divergences import distributions as d

INF = np.inf


def both(function, *arguments, dtype=np.float32):
    """Value an entry and its gradients."""
    arrays = [jnp.asarray(a, dtype) for a in arguments]

    @jax.jit
    def run(*arrays):
        value, pull = jax.vjp(function, *arrays)
        return value, *pull(jnp.ones_like(value))

    return [np.asarray(x, np.float64) for x in run(*arrays)]


def assert_agrees(make, oracle, cases, dtype, rounding=3e2, cut=1e-6):
    """Compare value and gradients with an oracle and its central differences, entry by entry.

    Args:
        make: takes the parameters and returns p and q.
        oracle: takes the parameters as mpmath numbers.
        cases: rows of parameters; those that are infinite are not moved.
        dtype: what is tested.
        rounding: how many units of the last digit may be lost.
        cut: below which part of the largest gradient an entry counts as 0.
    """
    cases = np.array(cases, dtype)
    found = both(lambda *x: vk.kl_divergence(*make(*x)), *cases.T, dtype=dtype)
    tolerance = rounding * float(np.finfo(dtype).eps)
    with mp.workdps(60):
        for i, row in enumerate(cases):
            x = [mp.mpf(float(v)) for v in row]
            value, slopes = oracle(*x), []
            for k, v in enumerate(x):
                if mp.isinf(v):
                    slopes.append(0.0)
                    continue
                step = mp.mpf(10) ** -20 * max(abs(v), mp.mpf(10) ** -3)
                ends = [oracle(*x[:k], v + s * step, *x[k + 1 :]) for s in (1, -1)]
                slopes.append(float((ends[0] - ends[1]) / (2 * step)))
            assert found[0][i] == pytest.approx(float(value), rel=tolerance), (row, found[0][i], value)
            got = np.array([g[i] for g in found[1:]])
            # In units of each parameter: they are of different sizes.
            unit = np.array([max(abs(float(v)), 1e-3) if not mp.isinf(v) else 0.0 for v in x])
            size = np.abs(slopes * unit).max()
            got = np.where(np.isinf(row), 0.0, got)
            np.testing.assert_allclose(
                got * unit, slopes * unit, rtol=tolerance, atol=cut * tolerance * size, err_msg=f"{row}"
            )
        assert (found[0] >= 0).all()


# --- linear log densities ---------------------------------------------------------------------------------------------


def log_normalizer(eta):
    return mp.log(mp.expm1(eta) / eta) if abs(eta) > 1e-18 else eta / 2 + eta * eta / 24


def lines(low, high, slope, q_low, q_high, q_slope):
    """KL between densities ∝ e^{slope · x} on intervals."""
    eta = slope * (high - low)
    at = 1 / (1 - mp.exp(-eta)) - 1 / eta if abs(eta) > 1e-18 else mp.mpf(1) / 2 + eta / 12
    mean = low + (high - low) * at

    def log_density(x, low, high, slope):
        return slope * (x - low) - log_normalizer(slope * (high - low)) - mp.log(high - low)

    return log_density(mean, low, high, slope) - log_density(mean, q_low, q_high, q_slope)


def logit(p):
    return mp.log(p / (1 - p))


CHANGES = [1e-1, -1e-2, 1e-3, -1e-4, 1e-6]
SLOPES = [1e-4, 0.1, -2.4, 2.6, -7.0, 20.0, -1e3, 1e4]
NEAR = [(t, t + e * max(abs(t), 1)) for t in SLOPES for e in (*CHANGES, 0.4, 0.6)]
FAR = [(a, b) for a in (0.0, *SLOPES) for b in (0.0, *SLOPES) if a != b]
PROBS = [0.5, 0.5001, 0.3, 1e-3, 1e-9, 1 - 1e-6]
NEAR_PROBS = [(p, p + e * min(p, 1 - p)) for p in PROBS[:-1] for e in CHANGES]
FAR_PROBS = [(a, b) for a in PROBS for b in PROBS if a != b]
INTERVALS = [(0.0, 1.0), (0.25, 0.75), (1e-3, 1.0), (0.4, 0.41), (0.0, 0.99)]
TRUNCATED = [
    (r, h, r * (1 + e), h * (1 + more))
    for r, h in [(1e-4, 1.0), (0.3, 3.0), (5.0, 1.0), (40.0, 100.0), (1e4, 1e-3)]
    for e in (*CHANGES, 1.5, -0.9)
    for more in (0, 1e-4, 2.0)
]
CB, U, TE = d.ContinuousBernoulli, d.Uniform, d.TruncatedExponential
SLOW = pytest.mark.slow
LINES = [
    pytest.param(
        lambda a, b: (CB(logits=a), CB(logits=b)), lambda a, b: lines(0, 1, a, 0, 1, b), NEAR + FAR, id="logits"
    ),
    pytest.param(
        lambda a, b: (CB(probs=a), CB(probs=b)), lambda a, b: lines(0, 1, logit(a), 0, 1, logit(b)),
        NEAR_PROBS + FAR_PROBS, id="probs", marks=SLOW,
    ),
    pytest.param(
        lambda a, b: (CB(probs=a), CB(logits=b)), lambda a, b: lines(0, 1, logit(a), 0, 1, b),
        [(p, t) for p in PROBS for t in SLOPES], id="mixed", marks=SLOW,
    ),
    pytest.param(
        lambda r, h, q, e: (TE(r, h), TE(q, e)), lambda r, h, q, e: lines(0, h, -r, 0, e, -q), TRUNCATED,
        id="truncated_exponential", marks=SLOW,
    ),
    pytest.param(
        lambda r, h, q: (TE(r, h), d.Exponential(q)),
        lambda r, h, q: lines(0, h, -r, 0, h, -q) - mp.log(-mp.expm1(-q * h)),
        [(r, h, r * (1 + e)) for r, h in ((0.3, 3.0), (5.0, 1.0), (1e4, 1e-3)) for e in (*CHANGES, 2, -0.9)],
        id="truncated_exponential_exponential", marks=SLOW,
    ),
    pytest.param(
        lambda a, b, t: (U(a, b), CB(logits=t)), lambda a, b, t: lines(a, b, 0, 0, 1, t),
        [(a, b, t) for a, b in INTERVALS for t in (*SLOPES, *([0.0] if (a, b) != (0, 1) else []))],
        id="uniform_continuous_bernoulli",
    ),
    pytest.param(
        lambda t, a, b: (CB(logits=t), U(a, b)), lambda t, a, b: lines(0, 1, t, a, b, 0),
        [(t, -a, 1 + b) for t in SLOPES for a in (0, 1e-5, 3) for b in (0, 1e-4, 5)],
        id="continuous_bernoulli_uniform", marks=SLOW,
    ),
    pytest.param(
        lambda a, b, r: (U(a, b), d.Exponential(r)), lambda a, b, r: -mp.log(b - a) - mp.log(r) + r * (a + b) / 2,
        [(a, a + w, r) for a in (0.0, 1e-3, 10.0) for w in (1e-3, 1.0) for r in (1e-3, 0.3, 10.0)],
        id="uniform_exponential", marks=SLOW,
    ),
    pytest.param(
        lambda a, b, c, e: (U(a, b), U(c, e)), lambda a, b, c, e: mp.log((e - c) / (b - a)),
        [(a, b, a - x, b + y) for a, b in ((0, 1), (100, 101)) for x in (0, 1e-3, 2) for y in (1e-4, 7)],
        id="uniform",
    ),
    pytest.param(
        lambda a, b, k, m: (U(a, b), d.Pareto(k, m)),
        lambda a, b, k, m: -mp.log(b - a) - mp.log(k) - k * mp.log(m)
        + (k + 1) * ((b * mp.log(b) - a * mp.log(a)) / (b - a) - 1),
        [(a, a + w, k, m) for a, m in ((1.0, 1.0), (3.0, 0.5)) for w in (1e-3, 1.0, 50.0) for k in (0.3, 2.0)],
        id="uniform_pareto", marks=SLOW,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("make", "oracle", "cases"), LINES)
def test_linear_log_densities(make, oracle, cases):
    assert_agrees(make, oracle, cases, np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "oracle", "cases"), LINES)
def test_linear_log_densities_in_double_precision(make, oracle, cases, x64):
    assert_agrees(make, oracle, cases, np.float64, 1e4)


# --- beside beta distributions ----------------------------------------------------------------------------------------


def uniform_beta(a, b, first, second):
    def primitive(x):  # of log x
        return x * mp.log(x) - x if x > 0 else mp.mpf(0)

    log_x, log_rest = primitive(b) - primitive(a), primitive(1 - a) - primitive(1 - b)
    mean = ((first - 1) * log_x + (second - 1) * log_rest) / (b - a)
    return -mp.log(b - a) + mp.log(mp.beta(first, second)) - mean


@pytest.mark.slow
def test_uniform_beta():
    cases = [
        (a, b, x, y) for a, b in ((0.25, 0.75), (1e-3, 0.999), (0.4, 0.401)) for x, y in ((2, 3), (0.5, 1), (9, 7))
    ]
    assert_agrees(lambda a, b, x, y: (U(a, b), d.Beta(x, y)), uniform_beta, cases, np.float32)


def test_uniform_beta_on_the_whole_interval():
    """There the ends have infinite slopes, and Beta(1, 1) is the uniform distribution itself."""
    first, second = [1.0, 1 + 1e-3, 2.0], [1.0, 1.0, 0.5]
    value, *gradients = both(lambda a, x, y: vk.kl_divergence(U(a, a + 1), d.Beta(x, y)), [0.0] * 3, first, second)
    assert np.isfinite(gradients).all()
    with mp.workdps(40):
        exact = [
            float(uniform_beta(0, 1, *(mp.mpf(float(np.float32(v))) for v in xy)))
            for xy in zip(first, second, strict=True)
        ]
    np.testing.assert_allclose(value, exact, rtol=1e-5)
    assert value[0] == 0


@pytest.mark.slow
def test_beta_beside_lines():
    a, b, t = np.array([2.5, 1.0, 1.0, 30.0]), np.array([0.7, 1.0, 1.001, 40.0]), np.array([-3.0, 1e-3, 1e-3, 2.0])
    entropy = stats.beta.entropy(a, b)
    expected = -entropy - (t * (a / (a + b) - 0.5) - np.log(np.sinh(t / 2) / (t / 2)))
    exact_near = t[1] ** 2 / 24
    found = both(lambda a, b, t: vk.kl_divergence(d.Beta(a, b), CB(logits=t)), a, b, t)[0]
    np.testing.assert_allclose(found[[0, 3]], expected[[0, 3]], rtol=1e-5)
    np.testing.assert_allclose(found[1], exact_near, rtol=1e-5)
    assert found[2] > 0
    value, to_a, to_low = both(
        lambda a, low: vk.kl_divergence(d.Beta(a, a), U(low, jnp.full_like(a, 2.0))), [2.0, 2.0], [-1.0, 0.5]
    )
    np.testing.assert_allclose(value, [np.log(3) - stats.beta.entropy(2, 2), INF], rtol=1e-5)
    assert to_low[1] == INF
    assert np.isfinite(to_a[0])


# --- truncated normals ------------------------------------------------------------------------------------------------


def mass(low, high):
    """Integral of e^{−z²/2}, not lost in the upper tail."""
    if low > 0:
        low, high = -high, -low
    return mp.sqrt(mp.pi / 2) * (mp.erfc(-high / mp.sqrt(2)) - mp.erfc(-low / mp.sqrt(2)))


def truncated(loc, scale, low, high, q_loc, q_scale, q_low, q_high):
    a, b = (low - loc) / scale, (high - loc) / scale
    at = [(mp.exp(-z * z / 2), z * mp.exp(-z * z / 2)) if not mp.isinf(z) else (mp.mpf(0), mp.mpf(0)) for z in (a, b)]
    total = mass(a, b)
    first, second = (at[0][0] - at[1][0]) / total, 1 + (at[0][1] - at[1][1]) / total
    shift = loc - q_loc
    square = (scale * scale * second + 2 * scale * first * shift + shift * shift) / (q_scale * q_scale)
    q_total = mass((q_low - q_loc) / q_scale, (q_high - q_loc) / q_scale)
    return (square - second) / 2 + mp.log(q_scale / scale) + mp.log(q_total / total)


def truncated_cases():
    cases = []
    for m, s, a, b in [
        (0.0, 1.0, -1.0, 1.0), (0.5, 1.25, -2.0, 5.0), (0.0, 1.0, 8.0, 12.0), (0.0, 1.0, -12.0, -8.0),
        (3.0, 0.125, 0.0, 1.0), (0.0, 1e-3, -1.0, 1.0), (0.0, 100.0, -1.0, 1.0),
        (1000.0, 0.0625, 999.9375, 1000.125), (0.0, 1.0, 0.5, INF), (0.0, 1.0, -INF, INF),
    ]:  # fmt: skip
        for e in (1e-1, 1e-3, 1e-6):
            cases += [(m, s, a, b, m + e * s, s * (1 + e / 3), a, b), (m, s, a, b, m, s * (1 - e), a, b)]
        cases += [(m, s, a, b, m + s, s * 2, a, b), (m, s, a, b, m - s / 2, s * 0.75, a - s, b + s / 8)]
        cases += [(m, s, a, b, m + s / 8, s, -INF, INF)]
    return cases


TN = d.TruncatedNormal


def test_truncated_normals():
    cases = truncated_cases()
    # In the units of a step far below the width: a gradient that is 1e-2 of the largest may have lost two digits.
    make = lambda m, s, a, b, *q: (TN(m, s, a, b), TN(*q))  # noqa: E731
    assert_agrees(make, truncated, cases, np.float32, 1e3, cut=1e-1)


@pytest.mark.slow
def test_truncated_normals_in_double_precision(x64):
    make = lambda m, s, a, b, *q: (TN(m, s, a, b), TN(*q))  # noqa: E731
    assert_agrees(make, truncated, truncated_cases(), np.float64, 1e4, cut=1e-1)


@pytest.mark.slow
def test_truncated_normals_beside_others():
    """Against quadrature in double precision."""
    low, high, loc, scale = -0.5, 1.5, 0.25, 0.75
    p = stats.truncnorm((low - loc) / scale, (high - loc) / scale, loc, scale)
    for first, second, p_log, q_log, ends in [
        (TN(loc, scale, low, high), d.Normal(0.0, 2.0), p.logpdf, stats.norm(0, 2).logpdf, (low, high)),
        (TN(loc, scale, low, high), U(-1.0, 2.0), p.logpdf, lambda x: -np.log(3) + 0 * x, (low, high)),
        (U(low, high), TN(loc, scale, low, high), lambda x: -np.log(2) + 0 * x, p.logpdf, (low, high)),
        (
            TE(0.75, 1.5), TN(loc, scale, low, high),
            lambda x: np.log(0.75) - 0.75 * x - np.log(-np.expm1(-1.125)), p.logpdf, (0, 1.5),
        ),
    ]:  # fmt: skip
        x, weight = np.polynomial.legendre.leggauss(80)
        x = (ends[0] + ends[1]) / 2 + x * (ends[1] - ends[0]) / 2
        inner = np.clip(x, ends[0] + 1e-12, ends[1] - 1e-12)
        expected = np.sum(weight * (ends[1] - ends[0]) / 2 * np.exp(p_log(inner)) * (p_log(inner) - q_log(inner)))
        np.testing.assert_allclose(vk.kl_divergence(first, second), expected, rtol=1e-5)
    assert vk.kl_divergence(TN(0.0, 1.0, -1.0, 1.0), d.Exponential(1.0)) == INF


# --- Kumaraswamy ------------------------------------------------------------------------------------------------------


def kumaraswamy(a, b, first, c, second, log_constant):
    """Mean of log p − log q for q ∝ x^{first − 1} (1 − x^c)^{second − 1}, over y = −b log(1 − x^a), exponential."""
    sigma = np.arange(-4.3, 4.9, 0.004, dtype=np.longdouble)
    y = np.exp(sigma - np.exp(-sigma))
    weight = y * np.exp(-y) * (1 + np.exp(-sigma))
    weight /= weight.sum()
    t = y / b
    with np.errstate(divide="ignore"):
        depth = np.where(t < 0.5, -np.log(-np.expm1(-t)), np.where(t < 43, -np.log1p(-np.exp(-t)), np.exp(-t)))
        inner = c / a * depth
        log_rest = np.where(inner < 0.5, np.log(-np.expm1(-inner)), np.log1p(-np.exp(-inner)))
    log_rest = np.where(inner < 1e-30, np.log(c / a) - t, log_rest)
    log_p = np.log(a * b) - (a - 1) / a * depth - (b - 1) * t
    return (weight * (log_p - log_constant + (first - 1) / a * depth - (second - 1) * log_rest)).sum()


def differences(function, x):
    steps = np.longdouble(1e-6) * x
    return [
        (function(*(x + np.eye(len(x))[k] * steps)) - function(*(x - np.eye(len(x))[k] * steps))) / (2 * steps[k])
        for k in range(len(x))
    ]


SHAPES = [(2.5, 0.75), (0.75, 2.0), (50, 30), (0.25, 0.3), (1, 1), (1000, 2), (3, 1000), (0.05, 5)]


@pytest.mark.parametrize("kind", ["kumaraswamy", pytest.param("beta", marks=SLOW)])
def test_kumaraswamy(kind):
    if kind == "beta":
        pairs = [(*x, *y) for x in SHAPES[:4] for y in ((2, 3), (0.5, 0.5), (10, 1))]
        pairs += [(1, 3, 1 + 2**-12, 3), (2, 1, 2 + 2**-10, 1)]  # x^{a − 1} is a beta density, (1 − x)^{b − 1} too

        def oracle(a, b, first, second):
            return kumaraswamy(a, b, first, 1.0, second, -np.longdouble(special.betaln(*np.float64([first, second]))))

    else:
        pairs = [(a, b, a * (1 + e), b * (1 - e / 2)) for a, b in SHAPES for e in (1e-1, 1e-3, 1e-5)]
        pairs += [(*x, *y) for x in SHAPES[:5] for y in SHAPES[:5] if x != y]

        def oracle(a, b, first, second):
            return kumaraswamy(a, b, first, first, second, np.log(first * second))

    family = d.Beta if kind == "beta" else d.Kumaraswamy
    pairs = np.array(pairs, np.float32)
    found = both(lambda a, b, c, e: vk.kl_divergence(d.Kumaraswamy(a, b), family(c, e)), *pairs.T)
    for i, row in enumerate(pairs):
        x = np.longdouble(row)
        value, slopes = oracle(*x), np.array(differences(oracle, x), np.float64)
        assert found[0][i] == pytest.approx(float(value), rel=1e-5), row
        got = np.array([g[i] for g in found[1:]])
        np.testing.assert_allclose(got * row, slopes * row, rtol=1e-4, atol=1e-4 * np.abs(slopes * row).max())


# --- equality, supports, images ---------------------------------------------------------------------------------------

SAME = [
    (U, (0.3, 1.7)), (d.Kumaraswamy, (2.5, 0.7)), pytest.param(TE, (0.7, 1.3), marks=SLOW),
    pytest.param(TN, (0.3, 1.2, -0.5, 2.0), marks=SLOW),
    (lambda t: CB(logits=t), (0.3,)), (lambda t: CB(probs=t), (0.3,)), (lambda t: CB(probs=t), (0.0,)),
]  # fmt: skip


@pytest.mark.parametrize(("family", "values"), SAME)
def test_zero_at_equality(family, values):
    """Exactly, as is the gradient to what does not move the support; the others' is that to one side."""
    arguments = [np.array([v]) for v in values]
    value, *gradients = both(
        lambda *x: vk.kl_divergence(family(*x[: len(values)]), family(*x[len(values) :])), *arguments, *arguments
    )
    assert value == 0
    assert np.isfinite(gradients).all()
    moving = {"Uniform": 2, "TruncatedExponential": 1, "TruncatedNormal": 2}.get(getattr(family, "__name__", ""), 0)
    fixed = len(values) - moving
    for k in range(fixed):
        assert gradients[k] == 0
        assert gradients[len(values) + k] == 0


def test_supports_that_move():
    """+inf outside, with gradients that lead back."""
    for make, pairs, expected in [
        (U, [(0, 1, 0.5, 2), (0, 1, -1, 0.5)], [(-INF, 0, INF, 0), (0, INF, 0, -INF)]),
        (lambda a, b: TN(0 * a, 0 * a + 1, a, b), [(0, 1, 0.5, 2)], [(-INF, 0, INF, 0)]),
        (TE, [(1, 2, 1, 1)], [(0, INF, 0, -INF)]),
    ]:
        value, *gradients = both(lambda a, b, c, e, f=make: vk.kl_divergence(f(a, b), f(c, e)), *np.transpose(pairs))
        assert (value == INF).all()
        np.testing.assert_array_equal(np.transpose(gradients), expected)


def test_point_masses():
    """A continuous Bernoulli of probs 0 or 1 has no density."""
    pairs = [(0, 0), (0, 1), (0.5, 0), (0.5, 1), (1, 0.5), (1, 1)]
    value, to_p, to_q = both(lambda p, q: vk.kl_divergence(CB(probs=p), CB(probs=q)), *np.transpose(pairs))
    np.testing.assert_array_equal(value, [0, INF, INF, INF, INF, 0])
    assert not np.isnan([to_p, to_q]).any()
    np.testing.assert_array_equal(to_q[1:4], [INF, -INF, INF])


def test_images_of_normals():
    normal = vk.kl_divergence(d.Normal(0.3, 1.2), d.Normal(-0.5, 0.8))
    for family in (d.LogNormal, d.LogitNormal):
        np.testing.assert_array_equal(vk.kl_divergence(family(0.3, 1.2), family(-0.5, 0.8)), normal)


def test_curvature_of_a_continuous_bernoulli():
    """The variance, also at ½ where its formula is 0/0."""
    found = jax.jit(jax.grad(jax.grad(lambda t: vk.kl_divergence(CB(logits=0.0), CB(logits=t)))))(0.0)
    np.testing.assert_allclose(found, 1 / 12, rtol=1e-6)
