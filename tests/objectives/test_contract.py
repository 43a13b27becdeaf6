"""Every cell of family × estimator × objective that is claimed valid: unbiased for its own finite-sample objective.

The truth is a sum over all draws, on nodes of quadrature, in float64. The default suite takes each family, and
each pair of estimator and objective, once; the full product is slow.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quadrature_problem import (
    COMPILES_LONG,
    EVERY_FAMILY,
    GRID_ERROR,
    bound_of_two,
    exact_mean,
    log_density,
    log_weights_at,
    nodes,
    start,
    stratified_bound,
    target,
)
from statistical import assert_mean, expect_rejection

import vi_kit as vk
from vi_kit import estimators, objectives
from vi_kit.estimators import Form, valid

NUM = 20_000
TARGET = target()


def elbo(family, params):
    return exact_mean(lambda p, z: log_density(z) - family.dist(p).log_prob(z), family, params, 24)


def fisher(family, params):
    def squared(params, z):
        return jnp.sum(jnp.square(jax.grad(lambda z: family.dist(params).log_prob(z) - log_density(z))(z)))

    return exact_mean(squared, family, params, 24)


def bound(power, family, params, estimator):
    if estimator is estimators.stratified:
        return -stratified_bound(family, params, power)
    return -bound_of_two(family, params, power)


# Each: the form it takes, how it is made of two draws, and its exact expectation.
OBJECTIVES = {
    "reverse_kl": (
        Form.LOG_RATIO,
        lambda family, e: objectives.ReverseKL(family, e, 2),
        lambda family, params, e: -elbo(family, params),
    ),
    "importance_weighted": (
        Form.LOG_MEAN,
        lambda family, e: objectives.ImportanceWeighted(family, e, 2, 1),
        functools.partial(bound, 1.0),
    ),
    "renyi": (Form.LOG_MEAN, lambda family, e: objectives.Renyi(family, 0.6, e, 2, 1), functools.partial(bound, 0.4)),
    "fisher": (
        Form.MEAN,
        lambda family, e: objectives.Fisher(family, e, 2),
        lambda family, params, e: fisher(family, params),
    ),
}


def is_offered(estimator, family):
    """Mixtures and flows have no entropy in closed form: what the family itself refuses is not claimed."""
    if estimator is not estimators.closed_form_entropy:
        return True
    return not isinstance(family, vk.families.Flow) and hasattr(family.dist(start(family)), "entropy")


CELLS = [
    (family, repr(estimator), objective)
    for family, member in EVERY_FAMILY.items()
    for objective, (form, *_) in OBJECTIVES.items()
    for estimator in valid(member, form)
    if is_offered(estimator, member)
    # Splines have kinks, so that two draws' bounds want a finer grid than can be summed over: see below.
    if family not in GRID_ERROR or objective == "reverse_kl"
]


def covering(cells):
    """Cells that show every pair of estimator and objective, each with the family seen least so far."""
    seen = dict.fromkeys(EVERY_FAMILY, 0)
    chosen = []
    cells = [cell for cell in cells if cell[0] not in COMPILES_LONG]
    for _, group in itertools.groupby(sorted(cells, key=lambda c: c[1:]), key=lambda c: c[1:]):
        cell = min(group, key=lambda c: seen[c[0]])
        seen[cell[0]] += 1
        chosen.append(cell)
    return chosen


DEFAULT = covering(CELLS)
MARKED = [pytest.param(*cell, marks=() if cell in DEFAULT else pytest.mark.slow, id="-".join(cell)) for cell in CELLS]


def draws_of(objective, params, key, num=NUM):
    evaluate = jax.vmap(jax.value_and_grad(objective), (None, None, 0))
    return jax.jit(evaluate)(params, TARGET, jax.random.split(key, num))


@functools.cache
def exact_answer(name, objective, is_stratified):
    family = EVERY_FAMILY[name]
    estimator = estimators.stratified if is_stratified else None
    exact = OBJECTIVES[objective][2]
    return jax.jit(jax.value_and_grad(lambda p: exact(family, p, estimator)))(start(family))


@pytest.mark.parametrize(("name", "estimator", "objective"), MARKED)
def test_unbiased_for_its_own_objective(name, estimator, objective, x64, key):
    family = EVERY_FAMILY[name]
    made = OBJECTIVES[objective][1](family, getattr(estimators, estimator))
    exact, gradient = exact_answer(name, objective, estimator == "stratified")
    num = 4 * NUM if (estimator, objective) == ("score_function", "importance_weighted") else NUM  # the noisiest
    values, gradients = draws_of(made, start(family), key, num)
    length = float(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient))))
    error = GRID_ERROR.get(name, 0.0)
    assert_mean(values, exact, slack=error * abs(float(exact)))
    assert_mean(gradients, gradient, slack=error * length)
    # It would see a bias of a third of the gradient's length, or the standard error is small against it.
    wrong = jax.tree.map(lambda leaf: leaf + 0.3 * length, gradient)
    expect_rejection(lambda: assert_mean(gradients, wrong, slack=error * length))


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["importance_weighted", "renyi"])
def test_estimators_agree_where_no_grid_is_fine_enough(objective, x64, key):
    family = EVERY_FAMILY["spline_flow"]
    form, make, _ = OBJECTIVES[objective]
    names = [repr(estimator) for estimator in valid(family, form)]
    assert len(names) > 1
    found = [
        draws_of(make(family, getattr(estimators, name)), start(family), key)[1]
        for name, key in zip(names, jax.random.split(key, len(names)), strict=True)
    ]
    size = max(float(np.abs(np.mean(leaf, axis=0)).max(initial=0)) for leaf in jax.tree.leaves(found[0]))
    for other in found[1:]:
        assert_agree(found[0], other, 0.0)
        expect_rejection(functools.partial(assert_agree, found[0], other, size))


def assert_agree(one, other, by):
    difference = jax.tree.map(lambda a, b: a - b, one, other)
    assert_mean(difference, jax.tree.map(lambda leaf: np.full(leaf.shape[1:], by), difference))


def test_a_score_that_jumps_is_refused():
    with pytest.raises(ValueError, match=r"family: expected one whose score is continuous, got Flow\(.*AffineCoupling"):
        objectives.Fisher(EVERY_FAMILY["spline_flow"])


def test_the_default_suite_shows_every_pair_and_family():
    assert {cell[1:] for cell in DEFAULT} == {cell[1:] for cell in CELLS}
    assert {cell[0] for cell in DEFAULT} == set(EVERY_FAMILY) - COMPILES_LONG
    assert len(DEFAULT) < len(CELLS)


REFUSED = [
    (family, repr(estimator), objective)
    for (family, member), estimator, (objective, (form, *_)) in itertools.product(
        EVERY_FAMILY.items(), estimators.valid(EVERY_FAMILY["mean_field"], Form.LOG_RATIO), OBJECTIVES.items()
    )
    if estimator not in valid(member, form) and (family, objective) != ("spline_flow", "fisher")
]


def test_every_other_cell_is_refused_with_what_works():
    assert len(REFUSED) > 5
    for name, estimator, objective in REFUSED:
        family = EVERY_FAMILY[name]
        made = OBJECTIVES[objective][1](family, getattr(estimators, estimator))
        with pytest.raises(ValueError, match=rf"estimator: {estimator} .*; use vk.estimators\.\w+"):
            jax.eval_shape(made, family.init(jax.random.key(0)), TARGET, jax.random.key(1))


@pytest.mark.parametrize("name", ["full_rank", "pair"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_estimator_is_the_best_valid_one(name, objective):
    family = EVERY_FAMILY[name]
    form, make, _ = OBJECTIVES[objective]
    assert repr(valid(family, form)[0]) in make(family, None).describe(TARGET)


def test_the_chi_square_gradient_is_off_by_less_the_more_draws(x64, key):
    """Self-normalized: the bias falls as 1/n, to the gradient of the bound itself."""
    family = EVERY_FAMILY["mean_field"]
    params = family.init(jax.random.key(0), mean=jnp.array([0.3, 0.2]), scale=1.5)  # tails that cover those of p

    def upper(params):
        z, probabilities = nodes(family, params, 60)
        return 0.5 * jnp.log(jnp.sum(probabilities * jnp.exp(2 * log_weights_at(family, params, z))))

    exact = jax.jit(jax.grad(upper))(params)

    def bias(num, repeats):
        objective = objectives.ChiSquare(family, num)
        _, gradients = draws_of(objective, params, jax.random.fold_in(jax.random.clone(key), num), repeats)
        off = [np.mean(g, axis=0) - e for g, e in zip(*map(jax.tree.leaves, (gradients, exact)), strict=True)]
        errors = [np.std(g, axis=0) / np.sqrt(len(g)) for g in jax.tree.leaves(gradients)]
        return np.concatenate(off), np.concatenate(errors)

    (few, few_error), (many, many_error) = bias(16, 40_000), bias(128, 10_000)
    assert np.linalg.norm(few) > 6 * np.linalg.norm(few_error)  # it is there to be seen
    assert np.linalg.norm(many) < np.linalg.norm(few) / 8 * 2 + 5 * np.linalg.norm(many_error)


def test_the_bounds_are_in_order(x64, key):
    """χ² bound ≥ log Z ≥ importance-weighted ≥ Rényi ≥ ELBO."""
    family = EVERY_FAMILY["mean_field"]
    params = family.init(jax.random.key(0), mean=jnp.array([0.3, 0.2]), scale=1.6)
    grid = np.stack(np.meshgrid(*[np.linspace(-9, 9, 400)] * 2, indexing="ij"), -1).reshape(-1, 2)
    log_z = jax.nn.logsumexp(jax.vmap(log_density)(jnp.asarray(grid))) + 2 * np.log(18 / 399)
    keys = jax.random.split(key, 4)
    made = [
        objectives.ReverseKL(family, num_samples=40_000),
        objectives.Renyi(family, 0.5, num_particles=8, num_samples=5_000),
        objectives.ImportanceWeighted(family, num_particles=8, num_samples=5_000),
    ]
    values = [-float(objective(params, TARGET, k)) for objective, k in zip(made, keys[:3], strict=True)]
    upper = float(objectives.ChiSquare(family, 40_000)(params, TARGET, keys[3]))
    ordered = [*values, float(log_z), upper]
    assert np.all(np.diff(ordered) > 0.02), ordered


def test_one_particle_and_order_one_are_the_elbo(key):
    """Draw by draw, value and gradient."""
    family = vk.families.FullRank(2)
    params = family.init(jax.random.key(0), mean=jnp.array([0.3, 0.2]))
    elbo = jax.jit(jax.value_and_grad(objectives.ReverseKL(family, num_samples=6)))
    expected = elbo(params, TARGET, jax.random.clone(key))
    for objective in (
        objectives.ImportanceWeighted(family, num_particles=1, num_samples=6),
        objectives.Renyi(family, 0.3, num_particles=1, num_samples=6),
        objectives.Renyi(family, 1.0, num_particles=6, num_samples=1),
        objectives.Renyi(family, 1.0, num_particles=3, num_samples=2),
        objectives.TailAdaptive(family, 6, power=0.0),
    ):
        found = jax.jit(jax.value_and_grad(objective))(params, TARGET, jax.random.clone(key))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    apart = objectives.ImportanceWeighted(family, num_particles=6, num_samples=1)
    assert abs(apart(params, TARGET, jax.random.clone(key)) - expected[0]) > 1e-3  # negative control


def test_the_importance_weighted_value_is_that_of_vi_kit_kl(key):
    family = vk.families.MeanField(2)
    params = family.init(jax.random.key(0))

    def one(key):
        z, log_q = family.dist(params).sample_and_log_prob(seed=key)
        return TARGET.log_density(z) - log_q

    rows = jax.vmap(one)(jax.random.split(jax.random.clone(key), 12)).reshape(3, 4)
    expected = -jnp.mean(vk.kl.importance_weighted_bound(rows, axis=1))
    found = objectives.ImportanceWeighted(family, num_particles=4, num_samples=3)(params, TARGET, key)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
