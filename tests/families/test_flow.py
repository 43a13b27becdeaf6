"""Flows: the density of a draw is that of its noise over the Jacobian, both ways; they begin as Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vi_kit as vk
from vi_kit.estimators import Form, valid
from vi_kit.estimators._sticking_the_landing import log_q_of_draw
from vi_kit.families import _couplings

FLOWS = {
    "spline": vk.families.Flow(3, coupling=vk.families.SplineCoupling(), width=8),
    "affine": vk.families.Flow(3, width=8),
    "student_t": vk.families.Flow(3, num_layers=2, width=8, base=vk.families.StudentT),
    "one_dimension": vk.families.Flow(1, coupling=vk.families.SplineCoupling(), width=8),
}
flows = pytest.mark.parametrize(
    "family",
    [pytest.param(flow, marks=[pytest.mark.slow] * (name == "one_dimension"), id=name) for name, flow in FLOWS.items()],
)


def member(family, key, size=0.2):
    """Every parameter moved, couplings included."""
    leaves, structure = jax.tree.flatten(family.init(jax.random.key(0)))
    keys = [*jax.random.split(key, len(leaves))]
    return structure.unflatten([x + size * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)])


@flows
def test_density_is_that_of_the_noise_over_the_jacobian(family, key):
    """log q(z) + log|det dz/dε| is the base's log density at ε, the determinant by automatic differentiation."""
    member_key, key = jax.random.split(key)
    q = family.dist(member(family, member_key))
    noise = jax.vmap(lambda k: q.base.sample(seed=k))(jax.random.split(key, 20))

    @jax.jit
    @jax.vmap
    def both(noise):
        z = q._forward(noise)[0]
        log_determinant = jnp.linalg.slogdet(jax.jacfwd(lambda e: q._forward(e)[0])(noise))[1]
        return q.log_prob(z) + log_determinant, q.base.log_prob(noise)

    found, expected = both(noise)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    plain = jax.vmap(q.affine.log_prob)(jax.vmap(lambda e: q._forward(e)[0])(noise))
    assert np.abs(plain - found).max() > 0.1  # the couplings do something


@pytest.mark.usefixtures("x64")
def test_a_draw_has_the_log_density_of_its_place(key):
    """Without an inverse and with one, to rounding."""
    family = FLOWS["spline"]
    member_key, key = jax.random.split(key)
    q = family.dist(member(family, member_key))
    z, log_q = jax.vmap(lambda k: q.sample_and_log_prob(seed=k))(jax.random.split(key, 50))
    np.testing.assert_allclose(jax.vmap(q.log_prob)(z), log_q, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_the_score_at_a_draw_is_the_one_of_the_forward_pass(key):
    """d log q / dz through the inverse of splines, against J⁻ᵀ d/dε [log b − log|det J|], in every piece and beyond."""
    family = vk.families.Flow(2, vk.families.SplineCoupling(3, bound=2.0), 2, width=4)
    member_key, key = jax.random.split(key)
    params = jax.tree.map(lambda leaf: leaf.astype(float), member(family, member_key))
    q = family.dist(params)

    @jax.jit
    @jax.vmap
    def both(noise):
        z, jacobian = q._forward(noise)[0], jax.jacfwd(lambda e: q._forward(e)[0])(noise)
        along = jax.grad(lambda e: q.base.log_prob(e) - q._forward(e)[1])(noise)
        return jax.grad(lambda z: log_q_of_draw(family, params, z))(z), jnp.linalg.solve(jacobian.T, along)

    noise = 1.5 * jax.random.normal(key, (500, 2))
    assert np.abs(noise).max() > 2 > np.abs(noise).min()
    found, expected = both(noise)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


@flows
def test_begins_as_the_gaussian_of_its_affine_map(family, key):
    """Exactly, couplings being the identity, whatever their networks' first layers are."""
    scale = 0.5 * jnp.eye(family.dim) + 0.3 * jnp.tril(jnp.ones((family.dim, family.dim)), -1)
    params = family.init(jax.random.key(0), mean=jnp.arange(1.0, family.dim + 1), scale=scale)
    assert np.all(np.asarray(params.conditioners.last) == 0)
    assert np.any(np.asarray(params.conditioners.first) != 0)
    q = family.dist(params)
    np.testing.assert_allclose(q.mean(), jnp.arange(1.0, family.dim + 1), rtol=1e-5)
    np.testing.assert_allclose(q.covariance(), scale @ scale.T, rtol=1e-4)
    if params.log_excess.size == 0:
        full = vk.families.FullRank(family.dim)
        p = full.dist(full.init(jax.random.key(0), mean=q.affine.loc, scale=scale))
        z = 2 * jax.random.normal(key, (20, family.dim))
        np.testing.assert_allclose(jax.vmap(q.log_prob)(z), jax.vmap(p.log_prob)(z), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dim", [1, 2, 3, 10])
def test_every_coordinate_comes_to_depend_on_every_other(dim, key):
    """The pattern of the Jacobian has no zeros after the default number of layers; fewer leave some."""

    def pattern(layers):
        family = vk.families.Flow(dim, num_layers=layers, width=8)
        q = family.dist(member(family, jax.random.clone(key), 0.7))
        x = 0.3 * jnp.arange(1.0, dim + 1) / dim
        return jax.jacfwd(lambda e: _couplings.forward(q.coupling, q.conditioners, q._masks, e)[0])(x)

    assert np.all(np.abs(pattern(None)) > 0)
    if dim > 1:
        assert np.any(np.abs(pattern(1)) == 0)


def test_masks_pair_every_two_coordinates():
    masks = _couplings.masks(8, 10)
    for one in range(10):
        for other in set(range(10)) - {one}:
            assert np.any(masks[:, one] & ~masks[:, other]), "one is read where other is mapped"
    assert not np.any(np.all(masks, axis=1))


def test_affine_scales_are_softly_clamped():
    coupling = vk.families.AffineCoupling(bound=1.5)
    raw = jnp.array([-1e6, -1e-4, 0.0, 1e-4, 1e6])
    made = coupling.bijector(jnp.stack([jnp.zeros(5), raw], axis=1))
    logs = made.forward_and_log_det(jnp.ones(5))[1]
    np.testing.assert_allclose(logs, [-1.5, -1e-4, 0.0, 1e-4, 1.5], rtol=1e-5)


def test_tails_are_the_bases(key):
    """Beyond the bound splines are the identity: a Student-t base keeps its power tail, a normal one its own."""
    coupling = vk.families.SplineCoupling(num_bins=4, bound=3.0)
    x = jnp.array([-100.0, -3.5, 3.5, 100.0])
    params = jax.random.normal(key, (4, coupling.num_params))
    with _couplings._standard_promotion():
        y, log_determinant = coupling.bijector(params).forward_and_log_det(x)
    np.testing.assert_allclose(y, x, rtol=1e-6)
    np.testing.assert_allclose(log_determinant, 0.0, atol=1e-6)


def test_many_coordinates_have_a_diagonal_affine_map(key):
    family = vk.families.Flow(100, num_layers=2, width=4)
    params = family.init(key, scale=jnp.linspace(1.0, 2.0, 100))
    assert isinstance(params.affine, vk.families.MeanFieldParams)
    q = family.dist(params)
    np.testing.assert_allclose(q.std(), np.linspace(1.0, 2.0, 100), rtol=1e-5)
    np.testing.assert_allclose(q.gaussian().std(), np.linspace(1.0, 2.0, 100), rtol=1e-5)


def test_arguments_are_checked():
    with pytest.raises(TypeError, match="coupling: expected a SplineCoupling or AffineCoupling"):
        vk.families.Flow(2, coupling="spline")
    with pytest.raises(TypeError, match=r"base: expected vk\.families\.MeanField or StudentT"):
        vk.families.Flow(2, base=vk.families.FullRank)
    with pytest.raises(ValueError, match="num_bins: expected at least 2, got 1"):
        vk.families.SplineCoupling(num_bins=1)
    with pytest.raises(ValueError, match="bound: expected a positive number, got 0"):
        vk.families.AffineCoupling(bound=0)


def test_splines_take_the_pathwise_gradient_first():
    """Of reverse KL, where sticking the landing is as valid and has heavy tails."""
    spline, affine = FLOWS["spline"], FLOWS["affine"]
    assert valid(affine, Form.LOG_RATIO)[0] is vk.estimators.sticking_the_landing
    assert valid(affine, Form.LOG_MEAN)[0] is vk.estimators.doubly_reparameterized
    assert valid(spline, Form.LOG_RATIO)[0] is vk.estimators.pathwise
    assert valid(spline, Form.LOG_MEAN)[0] is vk.estimators.doubly_reparameterized
    for form in Form:
        assert set(valid(spline, form)) == set(valid(affine, form))


@pytest.mark.slow
@pytest.mark.parametrize("coupling", [vk.families.AffineCoupling(), vk.families.SplineCoupling()], ids=repr)
def test_follows_a_banana_to_a_tenth_of_a_nat(coupling, key):
    """KL(q‖p) = log Z − ELBO by the default estimator, where the best Gaussian stays a nat away."""
    target = vk.targets.load("banana")
    family = vk.families.Flow(target.dim, coupling)
    algorithm = vk.algorithms.GradientDescent(
        vk.objectives.ReverseKL(family, num_samples=32),
        optax.adam,
        learning_rate=optax.cosine_decay_schedule(5e-3, 3000),
    )
    fitted = vk.optimize(key, target, algorithm, family.init(jax.random.key(0)), num_steps=3000)
    report = vk.diagnose(jax.random.key(1), target, family, fitted.params, num_samples=20_000)
    assert float(target.log_normalizer) - float(report.elbo.value) < 0.1
