"""Where starts ended."""

import jax.numpy as jnp
import numpy as np

import vi_kit as vk
from vi_kit._agreement import separate


def test_modes_are_told_apart_by_their_widths():
    places = np.array([[103.0, 1e-9, 2e-4], [97.0, -1e-9, -3e-4]])
    target = vk.make_target(lambda x: -jnp.sum(x**2), 3)
    assert separate(target, places, [np.ones(3)] * 2) == ("several modes, apart in x[0] (97 to 103)",)
    assert separate(target, places, [np.array([10.0, 1e-10, 1.0])] * 2) == (
        "several modes, apart in x[1] (-1e-09 to 1e-09)",
    )
    assert separate(target, places[:1], [np.ones(3)]) == ()
