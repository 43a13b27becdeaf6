"""Every row of the table: value and derivatives against quadrature, enumeration or 40 digits; zero at equality.

A row without examples or without an oracle fails. One compiled program a row holds all its cases: ordinary
parameters, equal ones, neighbors 1e-1 to 1e-5 apart at every concentration, edges. The default suite takes every
function of the table once and differentiates forward in single precision; the slow one takes every pair, and backward
in both precisions.
"""

import functools

import divergence_formulas as formulas
import divergence_oracles as oracles
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from divergence_densities import DENSITIES
from divergence_examples import EXAMPLES, neighbor, scale_of

import vi_kit as vk
from vi_kit.divergences import distributions as d
from vi_kit.divergences._cross_moments import QUESTIONS, moment_pairs
from vi_kit.divergences._table import RULES

CHANGES = (1e-1, 1e-3, 1e-5)
SINGLE = {"ordinary": 2e-5, "edge": 2e-5, "near": 1e-3, "equal": 0.0}
DOUBLE = {"ordinary": 1e-8, "edge": 1e-8, "near": 1e-5, "equal": 0.0}
GAUSSIAN = ("MultivariateNormal", "MultivariateNormalLowRank", "Diagonal")
FORMULAS = {**formulas.FORMULAS, **{(p, q): formulas.normal for p in GAUSSIAN for q in GAUSSIAN}}
SHARED = {(rule.p.__name__, rule.q.__name__): rule.shared for rule in RULES}
# What is made of others has tests of its own, and SphericalUniform‖SphericalUniform has no parameter.
OTHERS = {"Distribution", "Deterministic", "Independent", "Joint", "Masked", "Mixture", "Opaque", "Sample",
          "SphericalUniform", "Transformed"}  # fmt: skip
OWN = [n for n, x in vars(d).items() if isinstance(x, type) and issubclass(x, d.Distribution) and n not in OTHERS]
CLOSED = [(r.p.__name__, r.q.__name__) for r in RULES] + [(n, n) for n in OWN]
CLOSED += [(p, q) for p in GAUSSIAN for q in GAUSSIAN]
MOMENTS = [(p.__name__, q.__name__) for p, q, _ in moment_pairs()]


def rows(pairs, quick):
    """Return the rows of pairs; those that are not among the quick ones are slow."""
    return [
        pytest.param(
            *(p, q, v),
            id=f"{p}-{q}" + ("-logits" if v else ""),
            marks=[] if (p, q) in quick and (v == 0 or p == q) else [pytest.mark.slow],
        )
        for p, q in dict.fromkeys(pairs)
        for v in range(max(len(EXAMPLES.get(x, ())) for x in (p, q)) or 1)
        if (p, q) != ("SphericalUniform", "SphericalUniform")
    ]


# Every function once and every family with itself, as far as it compiles in a second or two.
FIRST = [(r.p.__name__, r.q.__name__) for r in {rule.function: rule for rule in reversed(RULES)}.values()]
LIGHT = ("Exponential", "Uniform", "Laplace", "Normal", "LogNormal", "Gumbel", "Gamma", "Pareto")
ASKED = {question.value: q.__name__ for q, question in reversed(QUESTIONS.items())}.values()
ONE = [min(((p, q) for p, q in MOMENTS if q == asked), key=lambda x: (*LIGHT, x[0]).index(x[0])) for asked in ASKED]
HEAVY = {("StudentT", "StudentT"), ("Kumaraswamy", "ContinuousBernoulli"), ("VonMisesFisher", "SphericalUniform"),
         ("SphericalUniform", "VonMisesFisher"), ("NormalInverseWishart", "NormalInverseWishart"),
         ("InverseWishart", "InverseWishart"), ("PowerSpherical", "SphericalUniform")}  # fmt: skip
QUICK = {*FIRST, *((n, n) for n in OWN), *ONE, ("Diagonal", GAUSSIAN[0])} - HEAVY
ROWS = rows(CLOSED + MOMENTS, QUICK)


# --- cases and what is true of them ----------------------------------------------------------------------------------


def cases(p_family, q_family, variant):
    """Return (kind, parameters of p, parameters of q)."""
    variants = EXAMPLES[p_family], EXAMPLES[q_family]
    first, second = (v[min(variant, len(v) - 1)] for v in variants)
    shared = SHARED.get((p_family, q_family), ())
    same = p_family == q_family

    def pair(kind, a, b):
        return kind, a, {**b, **{name: a[name] for name in shared}}

    found = [pair("ordinary", a, b) for a in first.ordinary for b in second.ordinary if a is not b]
    if same:
        every = first.ordinary + first.extreme
        found += [pair("edge", a, b) for a in first.edge for b in first.ordinary]
        found += [pair("equal", a, a) for a in every]
        found += [pair(f"near {c:g}", a, neighbor(p_family, a, c)) for a in every for c in CHANGES]
    return found


def directions(family, values, shared, rng):
    """Return two ways to move all parameters at once, in units of what changes the distribution."""
    for _ in range(2 if values else 0):
        towards = {n: rng.normal(size=np.shape(v)) * scale_of(family, values, n) for n, v in values.items()}
        for name, v in values.items():
            if name == "total_count" or name in shared:  # not to be moved, or not on one side alone
                towards[name] = np.zeros_like(v)
            elif name == "probs" and np.ndim(v):  # the sum stays 1
                towards[name] = towards[name] - np.mean(towards[name])
            elif name == "mean_direction":  # along the sphere
                towards[name] = towards[name] - towards[name] @ v * v / (v @ v)
            elif name.endswith("scale_tril"):
                towards[name] = np.tril(towards[name])
        yield towards


@functools.cache
def expected(p_family, q_family, variant):
    """Return for every case the value and, for p and for q, pairs of a direction and the derivative along it."""
    rng = np.random.default_rng(0)
    formula = FORMULAS.get((p_family, q_family))
    shared = SHARED.get((p_family, q_family), ())
    found = []
    for kind, a, b in cases(p_family, q_family, variant):
        both = ((p_family, a), (q_family, b))
        if formula is None and kind != "equal":
            assert {p_family, q_family} <= set(DENSITIES), f"no oracle for {p_family} and {q_family}"
            value, *slopes = oracles.kl_and_gradients(DENSITIES[p_family], a, DENSITIES[q_family], b)
            scales = [{n: scale_of(family, v, n) for n in v} for family, v in both]
            sides = [
                [({n: s[n]}, g * s[n]) for n, g in x.items() if not np.isnan(g) and n not in shared]
                for x, s in zip(slopes, scales, strict=True)
            ]
        else:
            value = 0.0 if kind == "equal" else float(formula(a, b))
            ways = [list(directions(family, v, shared, rng)) for family, v in both]
            sides = [[(t, 0.0) for t in way] for way in ways]
            if kind != "equal" and np.isfinite(value):
                sides = [
                    [(t, formulas.directional(formula, a, b, *((t, {}) if i == 0 else ({}, t)))) for t in way]
                    for i, way in enumerate(ways)
                ]
        found.append((value, sides))
    return found


# --- what the library says -------------------------------------------------------------------------------------------


def make(family, rows, dtype):
    """Return a family with the parameters of all rows, stacked."""
    if family == "SphericalUniform":
        return d.SphericalUniform(3)
    values = {name: jnp.asarray(np.stack([row[name] for row in rows]), dtype) for name in rows[0]}
    return d.Independent(d.Normal(**values), 1) if family == "Diagonal" else getattr(d, family)(**values)


def along(p, q, p_change, q_change):
    return jax.jvp(vk.kl_divergence, (p, q), (p_change, q_change))


# Compiled without optimizing: the suite compiles a hundred of these and runs each once.
forward = jax.jit(jax.vmap(along), compiler_options={"xla_backend_optimization_level": 0})


@jax.jit
@jax.vmap
def backward(p, q):
    value, pullback = jax.vjp(vk.kl_divergence, p, q)
    return value, pullback(jnp.ones_like(value))


def by_jvp(families, asked, wanted, dtype):
    """Return values and, for every case and side, the derivatives along the directions that are wanted."""
    lines = [
        (i, side, towards)
        for i, (_, sides) in enumerate(wanted)
        for side in (0, 1)
        for towards in ([t for t, _ in sides[side]] or [{}])
    ]
    zeros = [[{n: np.zeros_like(v) for n, v in row[1 + side].items()} for row in asked] for side in (0, 1)]
    arguments = [make(f, [asked[i][1 + side] for i, _, _ in lines], dtype) for side, f in enumerate(families)]
    for side, f in enumerate(families):
        arguments.append(make(f, [zeros[side][i] | (t if s == side else {}) for i, s, t in lines], dtype))
    found, slopes = (np.asarray(x, np.float64) for x in forward(*arguments))
    first = {i: j for j, (i, _, _) in reversed(list(enumerate(lines)))}
    values = np.array([found[first[i]] for i in range(len(asked))])
    return values, [
        [[slopes[j] for j, (k, s, t) in enumerate(lines) if (k, s) == (i, side) and t] for side in (0, 1)]
        for i in range(len(asked))
    ]


def by_vjp(families, asked, wanted, dtype):
    """Return the same from gradients."""
    p, q = (make(f, [row[1 + side] for row in asked], dtype) for side, f in enumerate(families))
    values, gradients = backward(p, q)
    inner = [g.base if f == "Diagonal" else g for f, g in zip(families, gradients, strict=True)]
    named = [{n: np.asarray(v, np.float64) for n, (v, _) in g.parameters.items()} for g in inner]

    def product(gradient, towards):  # at an edge a gradient may be infinite, but no NaN
        still = (towards == 0) & ~np.isnan(gradient)
        return np.sum(np.where(still, 0.0, np.where(still, 1.0, gradient) * towards))

    return np.asarray(values, np.float64), [
        [[sum(product(named[side][n][i], x) for n, x in t.items()) for t, _ in sides[side]] for side in (0, 1)]
        for i, (_, sides) in enumerate(wanted)
    ]


# --- the comparison --------------------------------------------------------------------------------------------------


def problems(p_family, q_family, variant, evaluate, dtype, tolerances):
    """Return every way in which a row is wrong."""
    assert p_family in EXAMPLES, f"{p_family} has no examples"
    assert q_family in EXAMPLES, f"{q_family} has no examples"
    asked, wanted = cases(p_family, q_family, variant), expected(p_family, q_family, variant)
    values, slopes = evaluate((p_family, q_family), asked, wanted, dtype)
    # Where the support moves with the parameters, KL has a slope at equality, on the side where it is finite.
    moving = p_family in DENSITIES and DENSITIES[p_family].moving
    # What is put together of moments has rounding of numbers near 1.
    digits = 2e-6 if (p_family, q_family) in MOMENTS and dtype == "float32" else 0.0
    found = []
    for (kind, a, b), value, slope, (truth, sides) in zip(asked, values, slopes, wanted, strict=True):
        tolerance = tolerances[kind.partition(" ")[0]]
        if "mean_direction" in a and kind == "ordinary":
            tolerance = max(tolerance, 1e-7)  # of length 1 as far as single precision goes
        if moving and kind.startswith("near"):
            tolerance = SINGLE["near"]  # the oracle, a difference of quadratures there, has no more digits
        bad = []
        if kind == "equal":
            flat = [s for side in slope for s in side]
            if value != 0 or not np.isfinite(flat).all() or (any(flat) and not moving):
                bad.append(f"{value:g}, slopes {flat}, expected 0")
        elif np.isinf(truth):
            if value != np.inf or (any(slope) and not any(s != 0 for side in slope for s in side)):
                bad.append(f"{value:g}, slopes {slope}, expected inf and slopes that are not 0")
        elif not 0 <= value < np.inf or not abs(value - truth) <= tolerance * truth + digits:
            bad.append(f"{value:.9g}, expected {truth:.9g}, error {abs(value - truth) / max(truth, 1e-300):.1e}")
        else:
            size = max((abs(s) for side in sides for _, s in side), default=0.0)
            noise = 1e-11 * max(1.0, truth) if kind == "ordinary" else 0.0  # of the oracle, where it is 0
            for side, got, side_wanted in zip("pq", slope, sides, strict=True):
                for s, (towards, true) in zip(got, side_wanted, strict=True):
                    if kind == "edge":  # the derivative to the parameter at its edge may be infinite, forward ∞ · 0
                        bad += [f"slope along {side}'s {', '.join(towards)} {s}"] * bool(
                            evaluate is by_vjp and np.isnan(s)
                        )
                        continue
                    if not abs(s - true) <= tolerance * (abs(true) + 0.1 * size) + noise:
                        names = ", ".join(towards)
                        bad.append(f"slope along {side}'s {names} {s:g}, expected {true:g}, of {size:g}")
        found += [f"{kind}: {_show(a)} ‖ {_show(b)}: {words}" for words in bad]
    return found


def _show(values):
    return ", ".join(f"{n} {np.array2string(np.asarray(v), precision=8)}" for n, v in values.items()).replace("\n", "")


@pytest.mark.parametrize(("p", "q", "variant"), ROWS)
def test_row(p, q, variant):
    found = problems(p, q, variant, by_jvp, "float32", SINGLE)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize(("p", "q", "variant"), ROWS)
def test_row_backward(p, q, variant):
    found = problems(p, q, variant, by_vjp, "float32", SINGLE)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("p", "q", "variant"), ROWS)
def test_row_in_double_precision(p, q, variant):
    found = problems(p, q, variant, by_vjp, "float64", DOUBLE)
    assert not found, "\n" + "\n".join(found)


def test_a_wrong_answer_is_found():
    """Negative control: 0.2 % too much of value or slope, or 1e-12 at equality, does not pass."""

    def problems_with(change):
        def evaluate(*arguments):
            values, slopes = by_jvp(*arguments)
            return change(values, slopes)

        return len(problems("Exponential", "Exponential", 0, evaluate, "float32", SINGLE))

    def scaled(slopes):
        return [[[1.002 * s for s in side] for side in case] for case in slopes]

    asked = cases("Exponential", "Exponential", 0)
    equal = sum(kind == "equal" for kind, _, _ in asked)
    assert problems_with(lambda values, slopes: (values, slopes)) == 0
    assert problems_with(lambda values, slopes: (1.002 * values, slopes)) == len(asked) - equal
    assert problems_with(lambda values, slopes: (values, scaled(slopes))) == 2 * (len(asked) - equal)
    assert problems_with(lambda values, slopes: (values + 1e-12, slopes)) >= equal
