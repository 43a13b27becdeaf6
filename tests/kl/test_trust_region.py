"""Fisher-vector products against the Hessian itself, and steps against the dense natural gradient."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vi_kit.kl as kl

SIZES = [3, 5, 4]


def network(params, states):
    for i, (weight, bias) in enumerate(params):
        states = states @ weight + jnp.broadcast_to(bias, (len(states), len(bias)))
        states = jnp.tanh(states) if i + 1 < len(params) else states
    return states


def make_params(seed=0, dtype=None):
    rng = np.random.default_rng(seed)
    return [
        (jnp.asarray(rng.normal(size=(a, b)) / a**0.5, dtype), jnp.asarray(0.1 * rng.normal(size=b), dtype))
        for a, b in itertools.pairwise(SIZES)
    ]


def make_states(seed=1, rows=7, dtype=None):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(rows, SIZES[0])), dtype)


def flat(tree):
    return np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(tree)])


def plain_kl(p, q):
    log_p, log_q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def twice_differentiated(mean_kl, function, params, vector):
    """The Hessian of the mean KL times a vector, as everyone writes it: jvp of grad."""
    old = function(params)
    return jax.jvp(jax.grad(lambda x: mean_kl(old, function(x))), (params,), (vector,))[1]


def multi_discrete(params, states):
    logits = network(params, states)
    return jnp.stack([logits, 2 * jnp.sin(logits)], axis=1)  # two actions a state


def gaussian(params, states):
    logits = network(params, states)
    return logits[:, :2], 0.3 * logits[:, 2:]  # means and log scales


def masked(params, states):
    return network(params, states).at[:, 1].set(-jnp.inf)


MASK = np.array([True, False, True, True, False, True, True])
CASES = {
    "categorical": (network, kl.categorical, lambda p, q: jnp.mean(plain_kl(p, q))),
    "general": (network, lambda p, q: kl.categorical(p, q), lambda p, q: jnp.mean(plain_kl(p, q))),
    "multi-discrete": (multi_discrete, kl.categorical, lambda p, q: 2 * jnp.mean(plain_kl(p, q))),
    "normal": (gaussian, kl.normal, lambda p, q: jnp.sum(kl.normal(*p, *q)) / 7),
    "absent class": (
        masked,
        kl.categorical,
        lambda p, q: jnp.mean(plain_kl(*(jnp.delete(x, 1, axis=1, assume_unique_indices=True) for x in (p, q)))),
    ),
    "own mean": (
        network,
        lambda p, q: jnp.sum(jnp.where(MASK, kl.categorical(p, q), 0.0)) / 5,
        lambda p, q: jnp.mean(plain_kl(p[np.flatnonzero(MASK)], q[np.flatnonzero(MASK)])),
    ),
    "reverse": (network, lambda p, q: kl.categorical(q, p), lambda p, q: jnp.mean(plain_kl(q, p))),
}


@pytest.mark.parametrize("case", CASES)
def test_product_is_the_hessian_of_the_mean_kl(x64, case):
    make, divergence, mean_kl = CASES[case]
    params, states = make_params(), make_states()
    function = functools.partial(make, states=states)
    product = jax.jit(lambda v: kl.fisher_vector_product(function, params, v, divergence=divergence))
    expected = jax.jit(functools.partial(twice_differentiated, mean_kl, function, params))
    for seed in (2, 3):
        vector = make_params(seed)
        np.testing.assert_allclose(flat(product(vector)), flat(expected(vector)), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("case", ["categorical", "general", "normal"])
def test_product_in_float32(case):
    make, divergence, mean_kl = CASES[case]
    params, states, vector = make_params(), make_states(), make_params(2)
    params, states, vector = jax.tree.map(lambda x: x.astype(jnp.float32), (params, states, vector))
    function = functools.partial(make, states=states)
    product = jax.jit(lambda v: kl.fisher_vector_product(function, params, v, divergence=divergence))(vector)
    expected = flat(jax.jit(functools.partial(twice_differentiated, mean_kl, function, params))(vector))
    assert np.linalg.norm(flat(product) - expected) <= 1e-5 * np.linalg.norm(expected)


def dense_fisher(function, params):
    """E[∇log π ∇log πᵀ], by enumeration of the actions, in double precision."""
    leaves, structure = jax.tree.flatten(params)
    sizes = np.cumsum([x.size for x in leaves])[:-1]

    def log_policy(vector):
        parts = [x.reshape(leaf.shape) for x, leaf in zip(jnp.split(vector, sizes), leaves, strict=True)]
        return jax.nn.log_softmax(function(jax.tree.unflatten(structure, parts)))

    point = jnp.concatenate([jnp.ravel(x) for x in leaves])
    scores, p = jax.jit(jax.jacobian(log_policy))(point), jnp.exp(log_policy(point))
    return np.einsum("sa,sai,saj->ij", p, scores, scores) / p.shape[0]


def test_product_is_the_covariance_of_the_scores(x64):
    params, function = make_params(), functools.partial(network, states=make_states())
    fisher = dense_fisher(function, params)
    vector = make_params(5)
    for damping in (0.0, 0.1):
        product = kl.fisher_vector_product(function, params, vector, damping=damping)
        np.testing.assert_allclose(flat(product), fisher @ flat(vector) + damping * flat(vector), atol=1e-12)


def test_product_is_positive_semidefinite_and_zero_where_nothing_changes():
    """More parameters than the states tell apart: the smallest eigenvalues are 0, and rounding makes none negative."""
    params, states = make_params(), make_states(rows=1)
    product = jax.jit(lambda v: kl.fisher_vector_product(lambda x: network(x, states), params, v))
    for seed in range(20):
        vector = make_params(seed)
        assert flat(vector) @ flat(product(vector)) >= 0
    shift = jax.tree.map(jnp.zeros_like, params)
    shift[-1] = (shift[-1][0], jnp.ones(4))  # all logits of a state alike
    np.testing.assert_allclose(flat(product(shift)), 0.0, atol=1e-8)


def test_product_of_single_distributions_empty_batches_and_rows_without_classes():
    logits = jnp.array([0.0, 1.0, -2.0])
    p = np.exp(logits) / np.exp(logits).sum()
    vector = jnp.array([1.0, 2.0, 0.5])
    expected = p * (vector - p @ np.asarray(vector))
    np.testing.assert_allclose(kl.fisher_vector_product(lambda x: x, logits, vector), expected, rtol=1e-6)
    empty = kl.fisher_vector_product(lambda x: jnp.zeros((0, 2)) @ x, jnp.zeros((2, 3)), jnp.ones((2, 3)))
    np.testing.assert_array_equal(empty, 0.0)
    nothing = kl.fisher_vector_product(lambda x: jnp.where(False, x, -jnp.inf), logits, vector)
    np.testing.assert_array_equal(nothing, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_product_in_half_precision(dtype):
    params, states, vector = (
        jax.tree.map(lambda x: x.astype(dtype), f()) for f in (make_params, make_states, make_params)
    )
    product = kl.fisher_vector_product(lambda x: network(x, states), params, vector, damping=0.1)
    assert {x.dtype for x in jax.tree.leaves(product)} == {jnp.dtype(dtype)}
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), (params, states, vector))
    expected = kl.fisher_vector_product(lambda x: network(x, wide[1]), wide[0], wide[2], damping=0.1)
    assert np.linalg.norm(flat(product) - flat(expected)) < 0.05 * np.linalg.norm(flat(expected))


def test_product_needs_half_the_memory_of_two_derivatives():
    """At the shapes of the reference's table, where jvp∘grad took 20 MiB and the prototype of this form 8.1."""
    params = [
        (jax.ShapeDtypeStruct((a, b), jnp.float32), jax.ShapeDtypeStruct((b,), jnp.float32))
        for a, b in itertools.pairwise([64, 256, 256, 18])
    ]
    states = jax.ShapeDtypeStruct((2048, 64), jnp.float32)
    ways = (
        lambda p, v, s: kl.fisher_vector_product(lambda x: network(x, s), p, v),
        lambda p, v, s: twice_differentiated(CASES["categorical"][2], lambda x: network(x, s), p, v),
    )
    ours, theirs = (
        jax.jit(way).lower(params, params, states).compile().memory_analysis().temp_size_in_bytes for way in ways
    )
    assert ours <= 8.3 * 2**20
    assert ours <= 0.55 * theirs


def policy(params, data):
    return network(params, data["states"])


def surrogate(params, data):
    log_policy = jax.nn.log_softmax(policy(params, data))
    ratio = jnp.exp(jnp.take_along_axis(log_policy, data["actions"][:, None], axis=1)[:, 0] - data["log_policy"])
    return -jnp.mean(ratio * data["advantages"])


def make_data(seed, params, rows=32):
    rng = np.random.default_rng(seed)
    states, actions = make_states(seed, rows), jnp.asarray(rng.integers(0, 4, rows))
    log_policy = jax.nn.log_softmax(network(params, states))
    taken = jnp.take_along_axis(log_policy, actions[:, None], axis=1)[:, 0]
    return {"states": states, "actions": actions, "log_policy": taken, "advantages": jnp.asarray(rng.normal(size=rows))}


step = jax.jit(
    kl.trust_region_step, static_argnums=(0, 1), static_argnames=("divergence", "num_iterations", "max_backtracks")
)


def bandit(params, rewards):
    del rewards
    return params


def negative_reward(params, rewards):
    return -jnp.sum(jax.nn.softmax(params) * rewards)


@pytest.mark.parametrize("damping", [1e-3, 0.1])
def test_step_is_the_dense_natural_gradient(x64, damping):
    logits, rewards = jnp.array([0.3, -1.0, 0.5, 1.2]), jnp.array([1.0, 0.0, -1.0, 0.5])
    result = step(negative_reward, bandit, logits, rewards, max_kl=1e-4, damping=damping)
    p = np.exp(logits) / np.exp(logits).sum()
    gradient = -p * (rewards - p @ np.asarray(rewards))
    direction = np.linalg.solve(np.diag(p) - np.outer(p, p) + damping * np.eye(4), gradient)
    expected = np.sqrt(2e-4 / (direction @ gradient)) * direction
    np.testing.assert_allclose(logits - result.params, expected * result.step_fraction, rtol=1e-10)
    assert result.accepted
    np.testing.assert_allclose(result.kl, np.mean(plain_kl(logits, result.params)), rtol=1e-8)
    np.testing.assert_allclose(
        result.improvement, negative_reward(logits, rewards) - negative_reward(result.params, rewards), rtol=1e-10
    )
    np.testing.assert_allclose(result.expected_improvement, expected @ gradient, rtol=1e-10)
    np.testing.assert_allclose(result.loss, negative_reward(logits, rewards), rtol=1e-12)


def test_natural_gradient_of_a_bandit_is_the_advantage(x64):
    """Without damping, up to a constant that no softmax sees: so the step is towards π exp(A/β)."""
    logits, rewards = jnp.array([0.3, -1.0, 0.5, 1.2]), jnp.array([1.0, 0.0, -1.0, 0.5])
    result = step(negative_reward, bandit, logits, rewards, max_kl=1e-6, damping=0.0)
    moved = np.asarray(result.params - logits)
    centered = rewards - jnp.mean(rewards)
    moved = moved - moved.mean()
    np.testing.assert_allclose(moved / np.linalg.norm(moved), centered / jnp.linalg.norm(centered), atol=1e-8)
    temperature = np.linalg.norm(centered) / np.linalg.norm(moved)
    closed = kl.regularized_policy(logits, rewards, temperature)
    np.testing.assert_allclose(jax.nn.log_softmax(result.params), closed, atol=1e-10)


@pytest.mark.slow
def test_step_does_not_depend_on_the_parameterization(x64):
    """The same for any linear one; for a curved one to first order. The plain gradient depends on both."""
    rewards, start = jnp.array([1.0, 0.0, -1.0, 0.5]), jnp.array([0.3, -1.0, 0.5])
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)) + 2 * np.eye(3))
    ways = {
        "itself": (lambda x: x, start),
        "linear": (lambda x: matrix @ x, jnp.linalg.solve(matrix, start)),
        "curved": (lambda x: jnp.sinh(2 * x), jnp.arcsinh(start) / 2),
    }
    moves = {}
    for name, (change, params) in ways.items():

        def logits(x, _, change=change):
            return jnp.append(change(x), 0.0)

        def loss(x, rewards, logits=logits):
            return -jnp.sum(jax.nn.softmax(logits(x, None)) * rewards)

        result = kl.trust_region_step(loss, logits, params, rewards, max_kl=1e-8, damping=0.0)
        plain = -jax.grad(loss)(params, rewards)
        moves[name] = [logits(x, None) - logits(params, None) for x in (result.params, params + 1e-5 * plain)]
    np.testing.assert_allclose(moves["linear"][0], moves["itself"][0], rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(moves["curved"][0], moves["itself"][0], rtol=1e-3, atol=1e-7)
    for name in ("linear", "curved"):  # negative control
        same = [x / np.linalg.norm(x) for x in (moves[name][1], moves["itself"][1])]
        assert np.abs(same[0] - same[1]).max() > 0.05


def test_step_does_not_depend_on_the_unit_of_the_loss():
    """Squares of these gradients would overflow or vanish."""
    rewards = jnp.array([0.0, 0.0, 1.0])
    expected = step(negative_reward, bandit, jnp.zeros(3), rewards)
    for unit in (1e-30, 1e30):
        result = step(negative_reward, bandit, jnp.zeros(3), unit * rewards)
        np.testing.assert_allclose(result.params, expected.params, rtol=1e-5)
        np.testing.assert_allclose(result.expected_improvement, unit * expected.expected_improvement, rtol=1e-5)


@pytest.mark.parametrize("max_kl", [1e-4, 0.01, 0.3, 3.0])
def test_step_never_leaves_the_region(max_kl):
    """However large: where the quadratic model is wrong the step is shortened or refused."""
    params = make_params()
    fractions = []
    for seed in range(8):
        data = make_data(seed, params)
        result = step(surrogate, policy, params, data, max_kl=max_kl, damping=1e-4)
        distance = np.mean(plain_kl(*(np.asarray(policy(x, data), np.float64) for x in (params, result.params))))
        assert distance <= max_kl * (1 + 1e-5) + 1e-9
        np.testing.assert_allclose(result.kl, distance, rtol=1e-3, atol=2e-7)
        if result.accepted:
            assert surrogate(result.params, data) < surrogate(params, data)
            assert 0.8**9 * 0.999 <= result.step_fraction <= 1
        else:
            assert result.step_fraction == 0
            np.testing.assert_array_equal(flat(result.params), flat(params))
        fractions.append(float(result.step_fraction))
    assert max(fractions) > 0
    if max_kl >= 0.3:
        assert min(fractions) < 1  # negative control: whole steps would have left it


def backwards(params, data):
    """A loss whose gradient points the wrong way."""
    value = negative_reward(params, data)
    return jax.lax.stop_gradient(2 * value) - value


def cliff(params, data):
    """Finite where the policy stands, NaN everywhere else."""
    value = negative_reward(params, data)
    return jnp.where(jnp.all(params == 0), value, jnp.nan)


LOSSES = {
    "backwards": (backwards, False, False),
    "stationary": (lambda params, data: jnp.sum(0.0 * params) + 3.0, False, False),
    "cliff": (cliff, False, False),
    "NaN": (lambda params, data: jnp.sum(params) * jnp.nan, True, True),
    "infinite": (lambda params, data: negative_reward(params, data) + jnp.inf, True, False),
    "NaN gradient": (lambda params, data: jnp.sum(jnp.sqrt(params**2)), False, True),
    "infinite gradient": (lambda params, data: jnp.sum(jnp.sqrt(params)), False, True),
}


@pytest.mark.parametrize("name", LOSSES)
def test_step_is_refused(name):
    loss, loss_is_broken, model_is_broken = LOSSES[name]
    params = jnp.zeros(3)
    result = step(loss, bandit, params, jnp.array([0.0, 0.0, 1.0]))
    assert not result.accepted
    np.testing.assert_array_equal(result.params, params)
    assert (result.kl, result.improvement, result.step_fraction) == (0, 0, 0)
    assert bool(jnp.isfinite(result.loss)) != loss_is_broken
    assert bool(jnp.isfinite(result.expected_improvement)) != model_is_broken


def test_at_the_optimum_of_a_deterministic_policy_nothing_moves():
    params = jnp.array([0.0, -jnp.inf, -jnp.inf])
    result = step(negative_reward, bandit, params, jnp.array([1.0, 0.0, 0.0]))
    assert not result.accepted
    np.testing.assert_array_equal(result.params, params)
    assert result.expected_improvement == 0


def test_bandit_is_solved():
    rewards = jnp.array([0.1, 0.5, 1.0, 0.3, -2.0])

    def iterate(params, _):
        result = kl.trust_region_step(negative_reward, bandit, params, rewards, max_kl=0.05, damping=1e-3)
        return result.params, (result.kl, result.improvement)

    params, (distances, improvements) = jax.jit(lambda x: jax.lax.scan(iterate, x, length=60))(jnp.zeros(5))
    assert jax.nn.softmax(params)[2] > 0.95
    assert (distances <= 0.05).all()
    assert (improvements >= 0).all()


def test_continuous_actions():
    """A Gaussian policy moves to the best action and stays in the region: kl.normal as it is."""

    def normal_policy(params, states):
        return states @ params["mean"], jnp.broadcast_to(params["log_scale"], (states.shape[0], 1))

    def cost(params, states):
        mean, log_scale = normal_policy(params, states)
        return jnp.mean((mean - 2 * states[:, :1]) ** 2 + jnp.exp(2 * log_scale))  # E (a − 2 s)²

    states = make_states(rows=40)
    params = {"mean": jnp.zeros((3, 1)), "log_scale": jnp.zeros(1)}

    def iterate(params, _):
        result = kl.trust_region_step(
            cost, normal_policy, params, states, divergence=kl.normal, max_kl=0.05, damping=1e-3
        )
        old, new = (normal_policy(x, states) for x in (params, result.params))
        return result.params, (result.kl, jnp.sum(kl.normal(*old, *new)) / 40)

    params, (distances, expected) = jax.jit(lambda x: jax.lax.scan(iterate, x, length=80))(params)
    np.testing.assert_allclose(distances, expected, rtol=1e-5, atol=1e-9)  # KL(old‖new)
    np.testing.assert_allclose(params["mean"][:, 0], [2.0, 0.0, 0.0], atol=0.05)
    assert params["log_scale"][0] < -2
    assert (distances <= 0.05).all()


def test_other_numbers_compile_nothing(compiles):
    params = make_params()
    jax.block_until_ready(
        step(surrogate, policy, params, make_data(0, params), max_kl=0.01, damping=0.1, backtracking=0.8)
    )
    others, data = make_params(1), make_data(1, make_params(1))
    before = compiles()
    jax.block_until_ready(step(surrogate, policy, others, data, max_kl=0.02, damping=0.2, backtracking=0.5))
    assert compiles() == before


def test_step_under_vmap():
    several = jnp.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 3.0, 0.0]])
    rewards = jnp.array([0.0, 0.0, 1.0])
    together = jax.jit(jax.vmap(lambda x: kl.trust_region_step(negative_reward, bandit, x, rewards)))(several)
    for i in range(3):
        alone = step(negative_reward, bandit, several[i], rewards)
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_step_in_half_precision(dtype):
    params = jnp.zeros(3, dtype)
    result = step(negative_reward, bandit, params, jnp.array([0.0, 0.0, 1.0], dtype))
    assert result.params.dtype == dtype
    assert result.accepted
    assert 0 < result.kl <= 0.01


def test_bad_input():
    params, rewards = jnp.zeros(3), jnp.ones(3)
    take = functools.partial(kl.trust_region_step, negative_reward, bandit, params, rewards)
    with pytest.raises(ValueError, match="max_kl: expected a positive number, got 0"):
        take(max_kl=0)
    with pytest.raises(ValueError, match="damping: expected a number from 0 up, got -1"):
        take(damping=-1)
    with pytest.raises(ValueError, match="backtracking: expected a number above 0 and below 1, got 1"):
        take(backtracking=1)
    with pytest.raises(ValueError, match="num_iterations: expected at least 1, got 0"):
        take(num_iterations=0)
    with pytest.raises(ValueError, match="max_backtracks: expected at least 1, got 0"):
        take(max_backtracks=0)
    with pytest.raises(ValueError, match=r"max_kl: expected one number, got shape \(2,\)"):
        take(max_kl=jnp.ones(2))
    with pytest.raises(TypeError, match="scalar"):
        kl.trust_region_step(lambda x, d: x, bandit, params, rewards)
    with pytest.raises(TypeError, match="positional"):  # means and log scales are no logits
        kl.fisher_vector_product(lambda x: (x, x), params, params)
    with pytest.raises(TypeError, match="function: expected floating-point numbers, got int32"):
        kl.fisher_vector_product(lambda x: jnp.ones(3, int), params, params)
    with pytest.raises(ValueError, match="class axis, got a scalar"):
        kl.fisher_vector_product(lambda x: jnp.sum(x), params, params)
    with pytest.raises(ValueError, match=r"vector: expected a pytree of shapes \(3,\) like params, got \(2,\)"):
        kl.fisher_vector_product(lambda x: x, params, jnp.ones(2))
    with pytest.raises(TypeError, match=r"params\['w'\]: expected floating-point|grad requires"):
        kl.trust_region_step(lambda x, d: 0.0, lambda x, d: d, {"w": jnp.ones(3, int)}, rewards)
    with pytest.raises(ValueError, match="damping: expected a number from 0 up"):
        kl.fisher_vector_product(lambda x: x, params, params, damping=-0.1)
    for name in ("max_kl", "damping", "backtracking"):
        result = jax.jit(
            lambda value, name=name: kl.trust_region_step(negative_reward, bandit, params, rewards, **{name: value})
        )(-1.0)
        assert not result.accepted
