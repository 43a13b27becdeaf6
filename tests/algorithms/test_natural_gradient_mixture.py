"""Natural gradients of mixtures: one component is the Gaussian's step, unbiased means, modes and their weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from statistical import assert_mean, expect_rejection

import vi_kit as vk
from vi_kit.algorithms._expected_derivatives import ExpectedDerivatives
from vi_kit.algorithms._gaussian import mean_and_scale
from vi_kit.algorithms._natural_gradient import move_full_rank
from vi_kit.algorithms._natural_gradient_mixture import MixtureDerivatives, mixture_derivatives, move_mixture

FULL, MEAN = vk.families.FullRank, vk.families.MeanField
TWO = vk.families.Mixture(2, 2, component=FULL)

MODES = {
    "two": ([[-4.0, 0.0], [3.0, 2.0]], [0.3, 0.7]),
    "three": ([[-5.0, 0.0], [4.0, 4.0], [2.0, -5.0]], [0.2, 0.5, 0.3]),
}


def member(name):
    """A mixture of full-rank Gaussians apart from each other: family and parameters."""
    means, weights = (np.asarray(part) for part in MODES[name])
    family, count = vk.families.Mixture(2, len(means), component=FULL), len(means)
    factors = [np.array([[0.8 + 0.2 * k, 0.0], [0.5 - 0.4 * k, 1.2 - 0.2 * k]]) for k in range(count)]
    own = FULL(2)
    each = [
        own.init(jax.random.key(0), mean=jnp.asarray(m), scale=jnp.asarray(f))
        for m, f in zip(means, factors, strict=True)
    ]
    components = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    return family, vk.families.MixtureParams(components, jnp.log(jnp.asarray(weights)))


def _log_density(x, params):
    count = params.logits.shape[0]
    return vk.families.Mixture(2, count, component=FULL).dist(params).log_prob(x)


def grid(width=12.0, points=121):
    axis = jnp.linspace(-width, width, points)
    cells = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    return cells, (2 * width / (points - 1)) ** 2


@functools.partial(jax.jit, static_argnums=0)
def kl_on_a_grid(family, many, one):
    """KL(q‖p) of stacked parameters to those of p."""
    cells, area = grid()
    log_p = jax.vmap(family.dist(one).log_prob)(cells)

    def kl(params):
        log_q = jax.vmap(family.dist(params).log_prob)(cells)
        return jnp.sum(jnp.exp(log_q) * (log_q - log_p)) * area

    return jax.vmap(kl)(many)


def quartic(x):
    return -0.25 * jnp.sum((x - 0.5) ** 4) + x[0] * x[1] ** 2


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("component", "num_pairs"), [(FULL, 3), (MEAN, 2)])  # bases complete, and not
def test_a_mixture_of_one_takes_the_step_of_its_component(component, num_pairs, key):
    own, family = component(3), vk.families.Mixture(3, 1, component=component)
    target = vk.make_target(quartic, 3)
    single, mixed = (vk.algorithms.NaturalGradient(f, num_pairs=num_pairs) for f in (own, family))
    start = own.init(jax.random.key(0), mean=jnp.array([0.5, -1.0, 2.0]), scale=jnp.array([0.5, 1.0, 2.0]))
    wrapped = vk.families.MixtureParams(jax.tree.map(lambda leaf: leaf[None], start), jnp.zeros(1))
    one, other = single.init(start, target, jax.random.key(1)), mixed.init(wrapped, target, jax.random.key(1))
    steps = [jax.jit(lambda s, k, a=a: a.step(s, target, k)) for a in (single, mixed)]
    for step_key in jax.random.split(key, 4):
        own_key = jax.random.split(jax.random.clone(step_key), 1)[0]
        (one, info), (other, mixed_info) = steps[0](one, own_key), steps[1](other, step_key)
        for a, b in zip(jax.tree.leaves(one.candidate), jax.tree.leaves(other.candidate.components), strict=True):
            np.testing.assert_allclose(b[0], a, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(mixed_info.loss, info.loss, rtol=1e-9)
        np.testing.assert_allclose(mixed_info.gradient_norm, info.gradient_norm, rtol=1e-8)
        np.testing.assert_allclose(other.derivatives.error, one.derivatives.error, rtol=1e-7, atol=1e-9)
    assert not np.allclose(jax.tree.leaves(one.candidate)[-1], start.mean)


def test_means_over_each_component_are_unbiased(key):
    """Of log p − log q, of its gradient and its curvature, where components overlap; the control: log q_k for log q."""
    first = FULL(2).init(jax.random.key(0), scale=jnp.array([[1.0, 0.0], [0.4, 0.7]]))
    second = FULL(2).init(jax.random.key(0), mean=jnp.array([1.0, 0.5]), scale=jnp.array([0.8, 1.2]))
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), first, second)
    params = vk.families.MixtureParams(both, jnp.log(jnp.array([0.4, 0.6])))
    target = vk.make_target(quartic, 2)
    q = TWO.dist(params)

    @jax.jit
    @jax.vmap
    def draws(key):
        found = mixture_derivatives(TWO, params, target, key, 2)[0].components
        return found.log_density, found.gradient, jax.vmap(ExpectedDerivatives.matrix)(found)

    found = draws(jax.random.split(key, 20_000))
    nodes, weights = np.polynomial.hermite_e.hermegauss(32)
    noise = jnp.asarray(np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2), jnp.float32)
    mass = np.outer(weights, weights).reshape(-1) / weights.sum() ** 2

    def oracle(k, log_q):
        mean, lower = mean_and_scale(FULL(2), jax.tree.map(lambda leaf: leaf[k], both))
        whitened = lambda e: quartic(mean + lower @ e) - log_q(mean + lower @ e)  # noqa: E731
        parts = jax.jit(lambda e: [jax.vmap(f(whitened))(e) for f in (lambda g: g, jax.grad, jax.hessian)])(noise)
        value, gradient, hessian = (np.tensordot(mass, np.asarray(part, np.float64), 1) for part in parts)
        return value, gradient, np.eye(2) - hessian

    exact = [np.stack(part) for part in zip(*(oracle(k, q.log_prob) for k in range(2)), strict=True)]
    assert_mean(found, tuple(exact), effect=0.3)
    wrong = [np.stack(part) for part in zip(*(oracle(k, q.component(k).log_prob) for k in range(2)), strict=True)]
    for part, value in zip(found, wrong, strict=True):
        expect_rejection(lambda part=part, value=value: assert_mean(part, value))


def test_weights_multiply_by_their_gain_up_to_a_factor_of_e():
    params = TWO.init(jax.random.key(0))._replace(logits=jnp.log(jnp.array([0.25, 0.75])))
    still = ExpectedDerivatives(  # no gradient, the curvature of q itself
        jnp.array([0.5, -0.3]),
        jnp.zeros(2),
        jnp.zeros((2, 2)),
        jnp.broadcast_to(jnp.eye(2), (2, 2, 2)),
        jnp.broadcast_to(jnp.eye(2), (2, 2, 2)),
    )
    rate = jnp.float32(0.5)
    moved = move_mixture(TWO, params, MixtureDerivatives(still, jnp.zeros(())), rate, move_full_rank)
    expected = np.array([0.25, 0.75]) * np.exp([0.25, -0.15])
    np.testing.assert_allclose(jnp.exp(moved.logits), expected / expected.sum(), rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), moved.components, params.components)
    far = still._replace(log_density=jnp.array([1e6, -1e6]), gradient=jnp.array([[0.0, 0.0], [300.0, 400.0]]))
    moved = move_mixture(TWO, params, MixtureDerivatives(far, jnp.zeros(())), rate, move_full_rank)
    expected = np.array([0.25, 0.75]) * np.exp([1.0, -1.0])
    np.testing.assert_allclose(jnp.exp(moved.logits), expected / expected.sum(), rtol=1e-5)
    mean, lower = mean_and_scale(FULL(2), jax.tree.map(lambda leaf: leaf[1], params.components))
    np.testing.assert_allclose(moved.components.mean[1], mean + lower @ jnp.array([0.6, 0.8]), rtol=1e-5)


@pytest.mark.parametrize(("name", "least"), [("two", 6), pytest.param("three", 1, marks=pytest.mark.slow)])
def test_modes_and_their_weights_are_found(name, least, key):
    """The start of eight wide ones with the lowest loss, in float32, and most of all where there are two modes.

    The check tells the starts, and the right modes with equal weights, from them.
    """
    family, params = member(name)
    target = vk.make_target(_log_density, 2, data=params)
    algorithm = vk.algorithms.NaturalGradient(family)
    start_keys, keys = jax.random.split(jax.random.key(0), 8), jax.random.split(key, 8)
    starts = jax.vmap(lambda k: family.init(k, scale=jnp.full(2, 4.0)))(start_keys)
    fits = jax.vmap(lambda start, k: vk.optimize(k, target, algorithm, start, num_steps=60))(starts, keys)
    found = kl_on_a_grid(family, fits.params, params)
    best = int(jnp.argmin(jnp.mean(fits.history.loss[:, -10:], axis=1)))
    assert found[best] < 0.02
    assert int(jnp.sum(found < 0.02)) >= least
    weights = np.sort(jax.nn.softmax(fits.params.logits[best]))
    np.testing.assert_allclose(weights, np.sort(MODES[name][1]), atol=0.02)
    assert kl_on_a_grid(family, starts, params)[best] > 0.3
    equal = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (8, *leaf.shape)), params._replace(logits=jnp.zeros_like(params.logits))
    )
    assert kl_on_a_grid(family, equal, params)[0] > 0.05


def test_the_target_is_a_fixed_point(key):
    family, params = member("two")
    target = vk.make_target(_log_density, 2, data=params)
    fit = vk.optimize(key, target, vk.algorithms.NaturalGradient(family), params, num_steps=5)
    assert bool(fit.finite)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), fit.params.components, params.components)
    np.testing.assert_allclose(jax.nn.softmax(fit.params.logits), jax.nn.softmax(params.logits), atol=1e-5)


def test_evaluations_and_refusals():
    algorithm = vk.algorithms.NaturalGradient(vk.families.Mixture(4, 3, component=FULL))
    assert algorithm.evaluations(vk.make_target(quartic, 4)) == 3 * 9
    with pytest.raises(TypeError, match=r"or a vk\.families\.Mixture of them, got Mixture"):
        vk.algorithms.NaturalGradient(vk.families.Mixture(2, 2, component=vk.families.LowRank))
    with pytest.raises(ValueError, match="num_pairs: expected at least 2, got 1"):
        vk.algorithms.NaturalGradient(TWO, num_pairs=1)
