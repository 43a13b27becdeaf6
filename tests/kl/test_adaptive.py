"""Adaptive coefficients: the published rules to the digit, their loops closed, and nothing hidden."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vi_kit.kl as kl

RULES = {
    "proportional": lambda: kl.ProportionalRule(num_steps=2000),
    "threshold": lambda: kl.ThresholdRule(),
    "lagrangian": lambda: kl.LagrangianRule(learning_rate=0.2),
    "function": lambda: tenth,
}


def tenth(coefficient, kl, target):
    """A rule of the user's own."""
    return coefficient * (kl / target) ** 0.1


@pytest.fixture(params=RULES)
def adaptive(request):
    return kl.AdaptiveCoefficient(RULES[request.param]())


def ziegler(value, current, n_steps, target=6.0, horizon=10_000):
    """As lm-human-preferences has it."""
    return value * (1 + np.clip(current / target - 1, -0.2, 0.2) * n_steps / horizon)


@pytest.mark.parametrize("measured", [-1.0, 0.0, 5.0, 6.0, 6.5, 100.0, np.inf])
def test_proportional_is_ziegler(measured):
    state = kl.AdaptiveCoefficient(kl.ProportionalRule(num_steps=256)).init(0.15, 6.0)
    new = kl.AdaptiveCoefficient(kl.ProportionalRule(num_steps=256)).update(state, measured)
    np.testing.assert_allclose(new.coefficient, ziegler(0.15, measured, 256), rtol=1e-6)


def rllib(coefficient, measured, target=0.01):
    if measured > 2.0 * target:
        return coefficient * 1.5
    return coefficient * 0.5 if measured < 0.5 * target else coefficient


def paper(beta, d, target=0.01):
    return beta / 2 if d < target / 1.5 else beta * 2 if d > target * 1.5 else beta


@pytest.mark.parametrize("measured", [-1.0, 0.0, 0.0049, 0.0051, 0.006, 0.007, 0.01, 0.0149, 0.0151, 0.0201, 1.0])
def test_threshold_is_ppo(measured):
    for rule, expected in (
        (kl.ThresholdRule(), paper),
        (kl.ThresholdRule(tolerance=2.0, increase=1.5), rllib),
    ):
        adaptive = kl.AdaptiveCoefficient(rule)
        new = adaptive.update(adaptive.init(0.2, 0.01), measured)
        np.testing.assert_allclose(new.coefficient, expected(0.2, measured), rtol=1e-6)


@pytest.mark.parametrize("coefficient", [1e-7, 1e-3, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("measured", [0.0, 0.5, 0.6, 4.0, 1e4])
def test_lagrangian_is_mirror_ascent_through_a_softplus(coefficient, measured):
    adaptive = kl.AdaptiveCoefficient(kl.LagrangianRule(learning_rate=0.3))
    new = adaptive.update(adaptive.init(coefficient, 0.5), measured)
    raw = coefficient + np.log(-np.expm1(-coefficient)) + 0.3 * (measured - 0.5)
    np.testing.assert_allclose(new.coefficient, max(np.logaddexp(raw, 0.0), 1e-8), rtol=1e-5)


def test_lagrangian_climbs_the_dual():
    """The sign of a step is that of the dual's gradient: the loss β(ε − KL) of MPO falls."""
    rule = kl.LagrangianRule(learning_rate=0.1)
    for measured in (0.1, 0.9):

        def dual(beta, m=measured):
            return beta * (0.5 - m)

        assert dual(rule(2.0, measured, 0.5)) < dual(2.0)
    np.testing.assert_allclose(rule(2.0, 0.5, 0.5), 2.0, rtol=1e-6)


def test_the_loop_closes(adaptive):
    """A policy whose KL is 3/β·(noise-free): β settles where the KL is at its target (PPO's rule: in its band)."""

    def step(state, _):
        return adaptive.update(state, 3.0 / state.coefficient), None

    state, _ = jax.lax.scan(step, adaptive.init(100.0, 0.5), length=1500)
    band = 1.51 if adaptive.rule == kl.ThresholdRule() else 1.01
    assert 1 / band < 3.0 / float(state.coefficient) / 0.5 < band


def test_nan_is_seen_and_stays(adaptive):
    """RLlib's comparisons would leave the coefficient as it was."""
    state = adaptive.update(adaptive.init(0.2, 0.01), jnp.nan)
    assert jnp.isnan(state.coefficient)
    assert jnp.isnan(adaptive.update(state, 0.01).coefficient)


@pytest.mark.parametrize("name", ["proportional", "threshold", "lagrangian"])
def test_a_coefficient_comes_back_from_its_bounds(name):
    """RLlib's is 0 for ever after 150 updates far below the target."""
    adaptive = kl.AdaptiveCoefficient(RULES[name](), minimum=1e-4, maximum=1e3)
    for extreme, bound, opposite in ((0.0, 1e-4, np.inf), (1e30, 1e3, 0.0)):
        state = jax.lax.fori_loop(
            0, 2000, lambda _, s, x=extreme: adaptive.update(s, jnp.float32(x)), adaptive.init(1.0, 6.0)
        )
        np.testing.assert_allclose(state.coefficient, bound, rtol=1e-6)
        back = adaptive.update(state, opposite).coefficient
        assert back > bound if bound < 1 else back < bound


def test_pure_under_jit_scan_and_vmap(adaptive):
    measured = jnp.array([0.3, 0.001, 0.02, 0.0, 4.0])
    one = adaptive.init(0.2, 0.01)
    expected = []
    for value in measured:
        one = adaptive.update(one, value)
        expected.append(one.coefficient)

    def step(state, value):
        state = adaptive.update(state, value)
        return state, state.coefficient

    _, scanned = jax.jit(lambda s: jax.lax.scan(step, s, measured))(adaptive.init(0.2, 0.01))
    np.testing.assert_allclose(scanned, jnp.stack(expected), rtol=1e-6)
    several = adaptive.init(jnp.full(3, 0.2), jnp.array([0.01, 0.1, 1.0]))
    together = adaptive.update(several, jnp.full(3, 0.3))
    alone = jax.vmap(adaptive.update)(several, jnp.full(3, 0.3))
    np.testing.assert_allclose(together.coefficient, alone.coefficient, rtol=1e-6)
    for i, target in enumerate((0.01, 0.1, 1.0)):
        expected_one = adaptive.update(adaptive.init(0.2, target), 0.3).coefficient
        np.testing.assert_allclose(together.coefficient[i], expected_one, rtol=1e-6)


def test_equal_configurations_share_a_program_and_numbers_compile_nothing(compiles):
    update = jax.jit(kl.AdaptiveCoefficient.update, static_argnums=0)

    def new():
        return kl.AdaptiveCoefficient(kl.ProportionalRule(num_steps=32.0))

    state = new().init(0.2, 0.01)
    jax.block_until_ready(update(new(), state, jnp.float32(0.1)))
    other = new().init(0.7, 3.0)
    before = compiles()
    jax.block_until_ready(update(new(), other, jnp.float32(2.0)))
    assert compiles() == before
    assert new() == new()
    assert hash(new()) == hash(new())
    assert new() != kl.AdaptiveCoefficient(kl.ProportionalRule(num_steps=33.0))
    assert kl.AdaptiveCoefficient(kl.ThresholdRule(3.0, 3.0, 3.0)) != kl.AdaptiveCoefficient(
        kl.ProportionalRule(3.0, 3.0, 3.0 / 10)
    )
    assert pickle.loads(pickle.dumps(new())) == new()


def test_no_gradient_reaches_the_kl(adaptive):
    state = adaptive.init(0.2, 0.01)
    assert jax.grad(lambda k: adaptive.update(state, k).coefficient)(0.05) == 0


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_the_state_keeps_its_dtype(adaptive, dtype):
    state = adaptive.update(adaptive.init(0.2, 0.01), jnp.asarray(0.0625, dtype))
    assert state.coefficient.dtype == jnp.float32
    expected = adaptive.update(adaptive.init(0.2, 0.01), 0.0625)
    np.testing.assert_array_equal(state.coefficient, expected.coefficient)


def test_double_precision(x64, adaptive):
    state = adaptive.update(adaptive.init(0.2, 0.01), jnp.asarray(0.0625, jnp.float32))
    assert state.coefficient.dtype == jnp.float64
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, adaptive.init(0.2, 0.01))


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="num_steps: expected less than horizon / max_error = 50000"):
        kl.ProportionalRule(num_steps=50_000)
    with pytest.raises(ValueError, match="horizon: expected a positive number, got 0"):
        kl.ProportionalRule(num_steps=1, horizon=0)
    with pytest.raises(ValueError, match=r"tolerance: expected a number above 1, got 1\.0"):
        kl.ThresholdRule(tolerance=1.0)
    with pytest.raises(ValueError, match=r"decrease: expected a number above 1, got 0\.5"):
        kl.ThresholdRule(decrease=0.5)
    with pytest.raises(ValueError, match="learning_rate: expected a positive number, got -1"):
        kl.LagrangianRule(learning_rate=-1)
    with pytest.raises(TypeError, match="rule: expected a function"):
        kl.AdaptiveCoefficient("ppo")
    with pytest.raises(ValueError, match="minimum: expected 0 < minimum < maximum"):
        kl.AdaptiveCoefficient(kl.ThresholdRule(), minimum=0.0)


def test_bad_numbers_are_refused_or_seen(adaptive):
    with pytest.raises(ValueError, match="coefficient: expected a number from 1e-08 to 1e"):
        adaptive.init(0.0, 0.01)
    with pytest.raises(ValueError, match="target: expected a positive number, got -1"):
        adaptive.init(0.2, -1)
    with pytest.raises(ValueError, match=r"coefficient: expected shapes .* \(2,\), target \(3,\)"):
        adaptive.init(jnp.ones(2), jnp.ones(3))
    with pytest.raises(ValueError, match=r"kl: expected shape \(\), like the coefficient, got \(4,\); average"):
        adaptive.update(adaptive.init(0.2, 0.01), jnp.ones(4))
    with pytest.raises(TypeError, match="kl: expected floating-point numbers, got int32"):
        adaptive.update(adaptive.init(0.2, 0.01), jnp.array(1))
    assert jnp.isnan(jax.jit(adaptive.init)(0.2, -1.0).target)
    assert jnp.isnan(jax.jit(adaptive.init)(-0.2, 1.0).coefficient)
