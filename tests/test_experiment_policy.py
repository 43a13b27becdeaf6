"""The policy experiment: mechanics of its environments, advantages by definition, which gradients are right."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "experiments"
pytest.importorskip("equinox")


@pytest.fixture(scope="module")
def modules():
    """Import the experiment's modules, and take their names away again: other experiments use the same ones."""
    before = set(sys.modules)
    sys.path[:0] = [str(FOLDER / "policy"), str(FOLDER)]
    import actors
    import environments
    import gradients

    yield environments, actors, gradients
    del sys.path[:2]
    for name in ("actors", "environments", "gradients"):
        if name not in before:
            del sys.modules[name]


@pytest.mark.parametrize("name", ["CartPole", "Pendulum"])
def test_energy_changes_by_what_is_put_in(modules, name):
    system = getattr(modules[0], name)()
    states = np.random.default_rng(0).normal(size=(20, 4 if name == "CartPole" else 2)) * 2
    with jax.enable_x64(True):
        for row in states:
            state, force = jnp.asarray(row), jnp.asarray(1.7)
            _, change = jax.jvp(system.energy, (state,), (system.derivative(state, force),))
            np.testing.assert_allclose(change, system.power(state, force), rtol=1e-9, atol=1e-9)


def test_mirrored_actions_mirror_the_motion(modules):
    environments = modules[0]
    state = jnp.array([0.3, -0.7, 0.1, 0.9])
    right, _, _ = environments.CartPole().step(state, jnp.asarray(1))
    left, _, _ = environments.CartPole().step(-state, jnp.asarray(0))
    np.testing.assert_allclose(left, -right, rtol=1e-6)
    swing = jnp.array([0.4, -1.2])
    one, first, _ = environments.Pendulum().step(swing, jnp.array([0.3]))
    other, second, _ = environments.Pendulum().step(-swing, jnp.array([-0.3]))
    np.testing.assert_allclose(other, -one, rtol=1e-6)
    np.testing.assert_allclose(first, second, rtol=1e-6)


def test_limits(modules):
    cart, pendulum = modules[0].CartPole(), modules[0].Pendulum()
    for state, fails in (([2.39, 0, 0, 0], False), ([2.41, 0, 0, 0], True), ([0, 0, 0.20, 0], False)):
        assert bool(cart.step(jnp.array(state, jnp.float32), jnp.asarray(1))[2]) is fails
    assert bool(cart.step(jnp.array([0.0, 0, 0.215, 0]), jnp.asarray(1))[2])
    resting, reward, _ = pendulum.step(jnp.zeros(2), jnp.zeros(1))
    np.testing.assert_array_equal(np.append(resting, reward), np.zeros(3))
    _, reward, _ = pendulum.step(jnp.array([jnp.pi, 0.0]), jnp.zeros(1))
    np.testing.assert_allclose(reward, -(np.pi**2), rtol=1e-6)
    strong, too_strong = (pendulum.step(jnp.array([1.0, 0.0]), jnp.array([u]))[0] for u in (1.0, 7.0))
    np.testing.assert_array_equal(strong, too_strong)


def test_advantages_are_discounted_sums_up_to_the_end_of_the_episode(modules):
    generator = np.random.default_rng(1)
    rewards, values, following = generator.normal(size=(3, 6, 1)).astype(np.float32)
    over = np.array([0, 0, 1, 0, 0, 0], bool)[:, None]
    found = modules[1].advantages(*map(jnp.asarray, (rewards, values, following, over)), 0.9, 0.8)
    differences = rewards + 0.9 * following - values
    for t in range(6):
        end = 3 if t < 3 else 6
        expected = sum(0.72 ** (s - t) * differences[s] for s in range(t, end))
        np.testing.assert_allclose(found[t], expected, rtol=1e-5)
    # With decay 1 and a perfect chain of values they are returns less values.
    chain = jnp.asarray(values).at[3:].set(0.0)
    linked = modules[1].advantages(jnp.asarray(rewards[:3]), chain[:3], chain[1:4], jnp.asarray(over[:3]), 0.9, 1.0)
    np.testing.assert_allclose(linked[0], (rewards[0] + 0.9 * rewards[1] + 0.81 * rewards[2]) - values[0], rtol=1e-4)


def test_ways_marked_right_have_the_gradient_of_the_kl_and_the_others_do_not(modules):
    gradients = modules[2]
    size, length = 4, 2
    first, second = jax.random.split(jax.random.key(0))
    # A tabular model: logits of the first token, and of the second given the first.
    theta = jax.random.normal(first, (size + 1, size))
    reference = jax.random.normal(second, (size + 1, size))
    tokens = jnp.asarray(np.stack(np.meshgrid(range(size), range(size), indexing="ij"), -1).reshape(-1, length))
    uniform = jnp.full(tokens.shape, -np.log(size), jnp.float32)

    def logits(table):
        return jnp.stack([jnp.broadcast_to(table[0], (len(tokens), size)), table[1 + tokens[:, 0]]], axis=1)

    def log_prob(table):
        log_probs = jax.nn.log_softmax(logits(table))
        return jnp.sum(jnp.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0], axis=1)

    def divergence(table):
        return jnp.sum(jnp.exp(log_prob(table)) * (log_prob(table) - log_prob(reference)))

    true = np.asarray(jax.grad(divergence)(theta))
    for name, (penalty, right) in gradients.WAYS.items():
        if name.startswith("score"):
            continue  # its baseline is that of independent draws, which a list of all texts is not; `estimate` tests it

        def listed(table, penalty=penalty):
            return penalty(gradients.Draws(tokens, logits(table), logits(reference), uniform))

        error = np.max(np.abs(np.asarray(jax.grad(listed)(theta)) - true)) / np.max(np.abs(true))
        assert (error < 1e-4) if right else (error > 0.05), (name, error)
