"""Classes whose logits distrax has normalized go without the search for the largest: nothing is lost by that."""

import distrax
import jax.numpy as jnp
import numpy as np
import pytest

import vi_kit as vk


@pytest.mark.parametrize("spread", [1.0, 8.0])
@pytest.mark.parametrize("apart", [1.0, 1e-2, 1e-4])
def test_near_and_far_are_right_in_float32(spread, apart):
    """Against double precision on the very logits that distrax holds, normalized again."""
    generator = np.random.default_rng(0)
    given = spread * generator.normal(size=1_000)
    moved = given + apart * generator.normal(size=1_000)
    p, q = (distrax.Categorical(jnp.asarray(x, jnp.float32)) for x in (given, moved))
    log_p, log_q = (np.asarray(x._logits, np.float64) for x in (p, q))
    log_p, log_q = log_p - np.logaddexp.reduce(log_p), log_q - np.logaddexp.reduce(log_q)
    exact = np.sum(np.exp(log_p) * (log_p - log_q))
    assert float(vk.kl_divergence(p, q)) == pytest.approx(exact, rel=1e-5)
    assert float(vk.kl_divergence(p, p)) == 0


def test_a_class_that_is_missing_and_a_row_that_is_not_finite():
    whole = distrax.Categorical(jnp.zeros(3))
    part = distrax.Categorical(jnp.array([0.0, 0.0, -jnp.inf]))
    assert float(vk.kl_divergence(whole, part)) == np.inf
    assert float(vk.kl_divergence(part, whole)) == pytest.approx(np.log(1.5), rel=1e-6)
