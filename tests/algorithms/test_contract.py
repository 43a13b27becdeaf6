"""Every algorithm: a resumed run is the run, restarts by vmap are the loop, a bad step changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gaussian_targets import gaussian

import vi_kit as vk

FULL, MEAN = vk.families.FullRank(3), vk.families.MeanField(3)

# One row admits an algorithm of its own step (gradient descent has the whole of tests/test_optimize.py).
ROWS = {
    "batch_and_match": vk.algorithms.BatchAndMatch(FULL),
    "batch_and_match-low_rank": vk.algorithms.BatchAndMatch(vk.families.LowRank(3, 2)),
    "fixed_draws-full_rank": vk.algorithms.FixedDraws(FULL),
    "fixed_draws-mean_field": vk.algorithms.FixedDraws(MEAN),
    "gaussian_score_matching": vk.algorithms.GaussianScoreMatching(FULL),
    "growing_draws-full_rank": vk.algorithms.GrowingDraws(FULL),
    "growing_draws-mean_field": vk.algorithms.GrowingDraws(MEAN),
    "iterate_averaging": vk.algorithms.IterateAveraging(
        vk.algorithms.GradientDescent(vk.objectives.ReverseKL(FULL), optax.adam, 0.05)
    ),
    "laplace-full_rank": vk.algorithms.Laplace(FULL),
    "laplace-mean_field": vk.algorithms.Laplace(MEAN),
    "moment_matching-full_rank": vk.algorithms.MomentMatching(
        vk.objectives.ForwardKL(FULL, vk.objectives.self_normalized, 64)
    ),
    "moment_matching-mean_field": vk.algorithms.MomentMatching(
        vk.objectives.ForwardKL(MEAN, vk.objectives.self_normalized, 64)
    ),
    "multi_path_pathfinder": vk.algorithms.MultiPathPathfinder(
        vk.families.Mixture(3, 2, component=vk.families.FullRank)
    ),
    "natural_gradient-full_rank": vk.algorithms.NaturalGradient(FULL),
    "natural_gradient-mean_field": vk.algorithms.NaturalGradient(MEAN),
    "natural_gradient-mixture": vk.algorithms.NaturalGradient(vk.families.Mixture(3, 2)),
    "pathfinder": vk.algorithms.Pathfinder(FULL),
    "score_climbing": vk.algorithms.ScoreClimbing(FULL, optax.adam, 0.05),
    "score_climbing-hamiltonian": vk.algorithms.ScoreClimbing(
        FULL, optax.adam, 0.05, num_samples=4, kernel=vk.algorithms.HamiltonianMonteCarlo(num_integration_steps=2)
    ),
}


def same(one, other, **tolerance):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_allclose(a, b, **({"rtol": 0} | tolerance))


@pytest.mark.parametrize("name", ROWS)
def test_runs(name, key):
    """Bitwise resumed; restarts; nearer to the target; dtypes of the start."""
    algorithm, problem = ROWS[name], gaussian(3, 4.0)
    start = algorithm.family.init(jax.random.key(0), scale=0.5)
    first, keys = jax.random.split(key)[0], jax.random.split(jax.random.clone(key))

    def run(key, num_steps, state=None):
        return vk.optimize(jax.random.clone(key), problem.target, algorithm, start, num_steps=num_steps, state=state)

    whole, half = run(first, 6), run(first, 3)
    resumed = run(first, 3, half.state)
    same(resumed.params, whole.params)
    same(resumed.state, whole.state)
    same(jax.tree.map(lambda a, b: jnp.concatenate([a, b]), half.history, resumed.history), whole.history)
    assert bool(whole.finite)
    assert whole.history.loss.shape == (6,)
    assert jax.tree.map(lambda x: x.dtype, whole.params) == jax.tree.map(lambda x: x.dtype, start)
    together = jax.vmap(lambda k: run(k, 3).params)(keys)
    same(jax.tree.map(lambda x: x[0], together), half.params, rtol=1e-3, atol=1e-4)
    assert problem.kl(algorithm.family, whole.params) < problem.kl(algorithm.family, start)


@pytest.mark.parametrize("name", ROWS)
def test_a_step_that_is_not_finite_changes_nothing(name, key):
    algorithm = ROWS[name]
    target = vk.make_target(lambda x: jnp.where(x[0] > 1e9, 0.0, jnp.nan) * jnp.sum(x), 3)
    start = algorithm.family.init(jax.random.key(0))
    fit = vk.optimize(key, target, algorithm, start, num_steps=2)
    assert not np.any(fit.history.finite)
    same(fit.params, start)


@pytest.mark.parametrize("name", ROWS)
def test_double_precision_stays_double(name, x64, key):
    algorithm = ROWS[name]
    target = vk.make_target(lambda x: -0.5 * jnp.sum(x**2), 3)
    start = algorithm.family.init(jax.random.key(0))
    state = jax.eval_shape(lambda k: algorithm.init(start, target, k), key)
    after, info = jax.eval_shape(lambda s, k: algorithm.step(s, target, k), state, key)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((after, info.loss, info.gradient_norm))}
    assert not any(dtype == np.float32 for dtype in dtypes)
    assert algorithm.evaluations(target) >= 1


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), np.ones(2), True, "1"])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("regularization", lambda x: vk.algorithms.BatchAndMatch(FULL, regularization=x)),
        ("decay", lambda x: vk.algorithms.NaturalGradient(FULL, decay=x)),
        ("tolerance", lambda x: vk.algorithms.FixedDraws(FULL, tolerance=x)),
        ("tolerance", lambda x: vk.algorithms.GrowingDraws(FULL, tolerance=x)),
        ("step_size", lambda x: vk.algorithms.HamiltonianMonteCarlo(step_size=x)),
    ],
)
def test_settings_that_are_not_positive_are_refused(name, make, wrong):
    with pytest.raises((TypeError, ValueError), match=f"{name}: expected (one|a) positive number, got"):
        make(wrong)
    make(np.float32(2.0))
    make(float("inf"))
