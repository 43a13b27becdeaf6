"""Where starts ended, and the mass of regions: against closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

import vi_kit as vk
from vi_kit._agreement import mass_of, separate, together


def test_modes_are_told_apart_by_their_widths():
    places = np.array([[103.0, 1e-9, 2e-4], [97.0, -1e-9, -3e-4]])
    target = vk.make_target(lambda x: -jnp.sum(x**2), 3)
    assert separate(target, places, [np.ones(3)] * 2) == ("several modes, apart in x[0] (97 to 103)",)
    assert separate(target, places, [np.array([10.0, 1e-10, 1.0])] * 2) == (
        "several modes, apart in x[1] (-1e-09 to 1e-09)",
    )
    assert separate(target, places[:1], [np.ones(3)]) == ()


def test_masses_of_two_regions_add_up():
    """p = 3·N(0, I), drawn from q = N(0, 1.5² I) in the plane: half of p lies within √(2 log 2)."""
    x = 1.5 * np.random.default_rng(7).normal(size=(100_000, 2))
    squares = np.sum(x**2, axis=1)
    log_weights = np.log(3.0) - 0.5 * squares + 0.5 * squares / 1.5**2 + 2 * np.log(1.5)
    inside = squares < 2 * np.log(2.0)
    near, far = mass_of(log_weights, inside), mass_of(log_weights, ~inside)
    for found in (near, far):
        assert abs(found.log_mass - np.log(1.5)) < 4.9 * found.error < 0.1
    both = together(near, far)
    assert both.log_mass == pytest.approx(np.log(3.0), abs=4.9 * both.error)
    assert mass_of(log_weights, squares < 0).log_mass == -np.inf
