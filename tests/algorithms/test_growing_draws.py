"""Growing draws: fits are those of fixed draws of every size, and stop where doubling gains nothing; costs add up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_targets import gaussian
from statistical import assert_mean, expect_rejection

import vi_kit as vk
from vi_kit.algorithms._fixed_draws import loss_of_draws, losses_of_draws
from vi_kit.algorithms._gaussian import mean_and_scale
from vi_kit.algorithms._growing_draws import _divided

DIM = 4
FULL, MEAN = vk.families.FullRank(DIM), vk.families.MeanField(DIM)


def _log_density(x, rows):
    return -2.5 * jnp.sum(jnp.log1p(jnp.square(rows @ x - 1.0) / 4.0))


def heavy_tailed():
    """Student-t of 4 degrees of freedom along rotated axes of unlike width: few draws overfit it."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(DIM, DIM)))[0]
    return vk.make_target(_log_density, DIM, data=jnp.asarray(rotation * np.geomspace(0.3, 3, DIM)))


def run(algorithm, target, key, num_steps):
    start = algorithm.family.init(jax.random.key(0))
    fit = vk.optimize(key, target, algorithm, start, num_steps=num_steps)
    return fit, fit.state.algorithm_state


def blocks(algorithm, state, first, last):
    dtype = state.value.dtype
    return [algorithm._block_of(state.key, jnp.asarray(b), dtype) for b in range(first, last)]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "algorithm",
    [
        pytest.param(
            vk.algorithms.GrowingDraws(FULL, 2 * DIM, 8 * DIM, tolerance=1e-9), id="full_rank", marks=pytest.mark.slow
        ),
        pytest.param(vk.algorithms.GrowingDraws(MEAN, 4, 16, tolerance=1e-9), id="mean_field"),
    ],
)
def test_a_fit_is_that_of_fixed_draws_with_as_many(algorithm, key):
    """Moments matched over all draws, not block by block; the gradient is zero; nothing moves at the maximum."""
    target, family = heavy_tailed(), algorithm.family
    fit, state = run(algorithm, target, key, 1_500)
    assert bool(state.converged)
    assert int(state.num_samples) == algorithm.max_samples
    assert fit.history.loss[-1] == fit.history.loss[-2]
    own = np.concatenate(blocks(algorithm, state, 0, 4))
    noise = jnp.concatenate([_divided(block, state.factor) for block in blocks(algorithm, state, 0, 4)])
    if family == FULL:
        basis, upper = np.linalg.qr(own)  # as `FixedDraws` matches them
        np.testing.assert_allclose(noise, np.sqrt(len(own)) * basis * np.sign(np.diag(upper)), atol=1e-10)
    else:
        np.testing.assert_allclose(noise, own / np.sqrt(np.mean(np.square(own), axis=0)), rtol=1e-10)

    def loss(params):
        return loss_of_draws(target, *mean_and_scale(family, params), noise)

    for leaf in jax.tree.leaves(jax.grad(loss)(fit.params)):
        np.testing.assert_allclose(leaf, 0, atol=1e-4)

    def fresh(params):  # what the last comparison saw
        draws = jnp.concatenate(blocks(algorithm, state, 4, 8))
        return losses_of_draws(target, *mean_and_scale(family, params), draws)

    half = vk.algorithms.GrowingDraws(family, algorithm.num_samples, algorithm.max_samples // 2, tolerance=1e-9)
    before, _ = run(half, target, jax.random.clone(key), 1_500)
    differences = np.asarray(fresh(before.params) - fresh(fit.params))
    np.testing.assert_allclose(state.gain, differences.mean(), atol=1e-6)
    np.testing.assert_allclose(state.gain_error, differences.std(ddof=1) / np.sqrt(len(differences)), rtol=1e-4)


@pytest.mark.parametrize("family", [FULL, MEAN], ids=repr)
def test_gaussians_need_one_doubling(family, key):
    """The second size tells that the first was enough; what a diagonal cannot fit is no matter of draws."""
    problem = gaussian(DIM, 100.0)
    algorithm = vk.algorithms.GrowingDraws(family, 4 * DIM)
    fit, state = run(algorithm, problem.target, key, 200)
    assert bool(state.converged)
    assert int(state.num_samples) == 8 * DIM
    assert abs(float(state.gain)) < 1e-3
    if family == FULL:
        assert problem.kl(family, fit.params) < 1e-3
    else:
        precision = np.linalg.inv(problem.covariance)
        np.testing.assert_allclose(jnp.exp(fit.params.log_scale), np.diag(precision) ** -0.5, rtol=0.02)


@pytest.mark.parametrize("family", [pytest.param(FULL, marks=pytest.mark.slow), MEAN], ids=repr)
def test_overfitted_draws_grow_until_they_are_enough(family, key):
    """Within 0.02 nats of a long fit, on fresh draws; the fit of as few as it began with is not."""
    target, start = heavy_tailed(), family.init(jax.random.key(0))
    few = 2 * DIM if family == FULL else 4
    key, few_key, long_key, judge_key = jax.random.split(key, 4)
    fit, state = run(vk.algorithms.GrowingDraws(family, few, 4_096), target, key, 8_000)
    assert bool(state.converged)
    assert abs(float(state.gain)) + float(state.gain_error) <= 0.01
    assert few < int(state.num_samples) < 4_096

    def fixed(key, num_samples):
        return vk.optimize(key, target, vk.algorithms.FixedDraws(family, num_samples), start, num_steps=60).params

    @jax.jit
    def differences(one, other, key):
        members = [mean_and_scale(family, params) for params in (one, other)]

        def some(key):
            noise = jax.random.normal(key, (1_000, DIM))
            return losses_of_draws(target, *members[0], noise) - losses_of_draws(target, *members[1], noise)

        return jax.lax.map(some, jax.random.split(key, 100)).reshape(-1)

    best = fixed(long_key, 8_192)
    off = np.asarray(differences(fit.params, best, jax.random.clone(judge_key)), np.float64)
    assert off.mean() + 5 * off.std() / np.sqrt(off.size) < 0.02
    off = np.asarray(differences(fixed(few_key, few), best, judge_key), np.float64)
    assert off.mean() - 5 * off.std() / np.sqrt(off.size) > 0.03


def test_evaluations_are_those_that_a_step_says(key):
    """Counted one by one; a look at n draws and a comparison on n fresh ones take n and 2 n."""
    seen = []

    def counted(x):
        jax.debug.callback(lambda _: seen.append(1), x[0])
        return -0.5 * jnp.sum((x - 1.0) ** 2)

    target = vk.make_target(counted, 2)
    algorithm = vk.algorithms.GrowingDraws(vk.families.MeanField(2), 4)
    assert algorithm.evaluations(target) == 4
    seen.clear()
    _, state = run(algorithm, target, key, 11)
    jax.effects_barrier()
    assert len(seen) == 11 * 4
    assert int(state.num_blocks) >= 2


def test_fresh_draws_are_standard_normal(key):
    """Those of a comparison are taken as they come: matched block by block they would have lighter tails."""
    algorithm = vk.algorithms.GrowingDraws(MEAN, 4)
    keys = jax.random.split(key, 20_000)
    noise = np.asarray(jax.vmap(lambda k: algorithm._block_of(k, jnp.asarray(3), jnp.dtype("float32")))(keys))
    fourth = noise.reshape(len(noise), -1) ** 4
    assert_mean(fourth, np.full(2 * DIM, 3.0), effect=0.5)
    matched = noise / np.sqrt(np.mean(np.square(noise), axis=1, keepdims=True))
    expect_rejection(lambda: assert_mean(matched.reshape(len(noise), -1) ** 4, np.full(2 * DIM, 3.0)))


def test_another_tolerance_compiles_nothing(key, compiles):
    problem = gaussian(DIM, 2.0)
    keys = jax.random.split(key)
    run(vk.algorithms.GrowingDraws(MEAN, tolerance=0.1), problem.target, keys[0], 2)
    before = compiles()
    run(vk.algorithms.GrowingDraws(vk.families.MeanField(DIM), tolerance=0.2), problem.target, keys[1], 2)
    assert compiles() == before


def test_refusals():
    with pytest.raises(TypeError, match=r"family: expected vk\.families\.FullRank or vk\.families\.MeanField"):
        vk.algorithms.GrowingDraws(vk.families.LowRank(2, 1))
    with pytest.raises(ValueError, match="num_samples: expected at least 8, got 2"):
        vk.algorithms.GrowingDraws(FULL, 2)
    with pytest.raises(ValueError, match="num_samples: expected an even number, for mirrored pairs, got 9"):
        vk.algorithms.GrowingDraws(FULL, 9)
    with pytest.raises(ValueError, match="max_samples: expected at least 16, got 10"):
        vk.algorithms.GrowingDraws(FULL, 8, 10)
