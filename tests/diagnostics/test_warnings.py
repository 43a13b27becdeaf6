"""What a report says of single coordinates."""

import jax.numpy as jnp
import numpy as np
import pytest

import vi_kit as vk
from vi_kit.diagnostics._warnings import coordinate_warnings, tails

NUM = 4_096


def warnings_of(values, support, weights=None, names=("a", "b")):
    target = vk.make_target(lambda x: -jnp.sum(x), 2, support=support, names=names)
    weights = np.full(NUM, 1 / NUM) if weights is None else weights
    return coordinate_warnings(target, names, values, weights)


def test_mass_at_a_bound_is_named():
    generator = np.random.default_rng(0)
    values = np.stack([generator.exponential(size=NUM), generator.gamma(5.0, size=NUM)], axis=1)
    (found,) = warnings_of(values, vk.support.positive)
    assert "piles up at a bound" in found
    assert "a (" in found
    assert "close to 0" in found
    assert "b (" not in found  # its density vanishes there
    assert warnings_of(values, vk.support.real) == ()


@pytest.mark.parametrize("upper", [False, True])
def test_both_ends_of_an_interval(upper):
    generator = np.random.default_rng(1)
    near = generator.beta(1.0, 4.0, size=NUM)
    values = np.stack([1 - near if upper else near, generator.beta(6.0, 6.0, size=NUM)], axis=1)
    (found,) = warnings_of(values, vk.support.unit_interval)
    assert f"a ({'7' if '7%' in found else '6'}% of it close to {1 if upper else 0})" in found
    assert "b (" not in found


def test_weights_count():
    generator = np.random.default_rng(2)
    values = generator.uniform(size=(NUM, 2))
    weights = np.where(values[:, 0] > 0.1, 1.0, 0.0)
    (found,) = warnings_of(values, vk.support.positive, weights / weights.sum())
    assert "a (" not in found
    assert "b (" in found


def test_a_density_that_vanishes_at_its_bound_does_not_pile_up():
    generator = np.random.default_rng(5)
    values = np.exp(1.3 * generator.normal(size=(NUM, 2)))
    assert np.mean(values < 0.1 * np.median(values)) > 0.03  # although much of it is near
    assert not any("piles up" in line for line in warnings_of(values, vk.support.positive))


def test_heavy_weights_are_not_taken_for_heavy_tails():
    generator = np.random.default_rng(6)
    values = generator.normal(size=(NUM, 2))
    weights = np.exp(2.0 * generator.normal(size=NUM))
    assert warnings_of(values, vk.support.real, weights / weights.sum()) == ()


def test_heavy_tails_are_named():
    generator = np.random.default_rng(3)
    values = np.stack([generator.standard_t(2.0, size=NUM), generator.normal(size=NUM)], axis=1)
    (found,) = warnings_of(values, vk.support.real)
    assert "do not settle the sd" in found
    assert "a (k̂" in found
    assert "b (k̂" not in found


def test_tails_are_those_of_the_squares():
    # t with 8 degrees of freedom: k = 1/8, of its square 1/4; constants have no tail.
    generator = np.random.default_rng(4)
    num = 100_000
    values = np.stack([generator.standard_t(8.0, size=num), np.ones(num)], axis=1)
    found = tails(values)
    assert found[0] == pytest.approx(0.25, abs=0.12)
    assert found[1] == -np.inf


def test_tails_of_weighted_squares():
    # Weights |x| make |x|³ of the squares of a t with 8 degrees of freedom: k = 3/8.
    generator = np.random.default_rng(7)
    values = generator.standard_t(8.0, size=(100_000, 1))
    values[:, 0] -= (np.abs(values[:, 0]) @ values[:, 0]) / np.abs(values[:, 0]).sum()
    weights = np.abs(values[:, 0])
    assert tails(values, weights)[0] == pytest.approx(0.375, abs=0.12)
    np.testing.assert_allclose(tails(values, 7 * weights), tails(values, weights))
    assert tails(values, np.zeros(100_000))[0] == -np.inf
