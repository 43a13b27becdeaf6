"""Pathfinder: its inverse Hessian is that of L-BFGS, its Gaussians are centered downhill, and it keeps the best."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_targets import gaussian

import vi_kit as vk
from vi_kit.algorithms._pathfinder import inverse_hessian_half

FAMILY = vk.families.FullRank(3)


@pytest.mark.usefixtures("x64")
def test_the_path_on_a_gaussian(key):
    """Secants, the direction of L-BFGS, centers nearer to the mode than their points, and the best ELBO kept."""
    problem = gaussian(3, 20.0)
    algorithm = vk.algorithms.Pathfinder(FAMILY)
    start = FAMILY.init(jax.random.key(0), mean=jnp.array([4.0, -3.0, 6.0]))
    state = algorithm.init(start, problem.target, key)
    step = jax.jit(lambda s, k: algorithm.step(s, problem.target, k)[0])
    precision, elbos = np.linalg.inv(problem.covariance), []
    for k in jax.random.split(key, 12):
        state = step(state, k)
        elbos.append(float(state.elbo))
        descent = state.descent
        if int(descent.trials) == 0:  # the point was taken
            half = np.asarray(inverse_hessian_half(descent))
            np.testing.assert_allclose(-half @ half.T @ descent.gradient, descent.direction, rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(descent.gradient, precision @ (descent.position - problem.mean), atol=1e-9)
            before, after = (x - problem.mean for x in (descent.position, descent.position + descent.direction))
            assert after @ precision @ after <= before @ precision @ before + 1e-12
            if int(descent.memory.count) > 1:
                last = (int(descent.memory.count) - 2) % 10
                move, turn = (
                    np.asarray(x[last]) for x in (descent.memory.diff_params_memory, descent.memory.diff_updates_memory)
                )
                np.testing.assert_allclose(half @ half.T @ turn, move, rtol=1e-8, atol=1e-10)
    assert elbos == sorted(elbos)
    assert problem.kl(FAMILY, state.params) < 0.05
    log_normalizer = 0.5 * (3 * np.log(2 * np.pi) + np.linalg.slogdet(problem.covariance)[1])
    assert abs(elbos[-1] - log_normalizer) < 0.5


def test_refusals():
    with pytest.raises(TypeError, match=r"family: expected vk\.families\.FullRank"):
        vk.algorithms.Pathfinder(vk.families.MeanField(2))
    with pytest.raises(ValueError, match="num_samples: expected at least 1, got 0"):
        vk.algorithms.Pathfinder(FAMILY, 0)
