"""Fused equals dense, in less memory. Peers' answers noted here were measured or read in their source."""

import functools

import dense_oracles as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vi_kit.kl as kl
from vi_kit.kl import _fused_linear

N, V, P_DIM, Q_DIM = 13, 101, 5, 7
NAMES = ("p_hidden", "p_weight", "q_hidden", "q_weight", "p_bias", "q_bias")
SHAPES = ((N, P_DIM), (V, P_DIM), (N, Q_DIM), (V, Q_DIM), (V,), (V,))
MIB = 2**20


@pytest.fixture
def blocks(monkeypatch):
    """Form gradients with the values, in blocks of rows, however few those are."""
    monkeypatch.setattr(_fused_linear, "_ROWS_WORTH_A_PASS", {"cpu": 4})


def arrays(key, shapes=SHAPES):
    return {
        name: jax.random.normal(k, shape)
        for name, k, shape in zip(NAMES, jax.random.split(key, len(shapes)), shapes, strict=False)
    }


@functools.partial(jax.jit, static_argnames=("beta", "normalize"))
def dense(given, *, beta=None, normalize=False, softcap=None, logit_scale=1.0, **options):
    def logits(side):
        z = (given[f"{side}_hidden"] @ given[f"{side}_weight"].T + given[f"{side}_bias"][None]) * logit_scale
        return z if softcap is None else softcap * jnp.tanh(z / softcap)

    if beta is None:
        return kl.categorical(logits("p"), logits("q"), **options)
    return kl.jensen_shannon(logits("p"), logits("q"), beta=beta, normalize=normalize, **options)


def fused(given, **options):
    return kl.fused_linear(**given, **options)


def check(given, cotangent, *, tile_size, **options):
    """Values and all gradients, against the dense functions in double precision."""

    def run(function, given, cotangent):
        values, pull = jax.vjp(function, given)
        return values, pull(cotangent)[0]

    tiled = functools.partial(fused, tile_size=tile_size, **options)
    values, gradients = jax.tree.map(np.asarray, jax.jit(functools.partial(run, tiled))(given, cotangent))
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (given, cotangent))
        whole = functools.partial(dense, **options)
        expected, exact_gradients = jax.tree.map(np.asarray, jax.jit(functools.partial(run, whole))(*exact))
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert values.dtype == np.float32
    for name, gradient in gradients.items():
        error = np.linalg.norm(gradient - exact_gradients[name])
        assert error <= 1e-5 * np.linalg.norm(exact_gradients[name]), name


FULL = {"temperature": 2.0, "softcap": 3.0, "logit_scale": 0.5}
CASES = {
    "kl": {"tile_size": 10},
    "kl_full": {"tile_size": 50, "where": True, "mask": True, **FULL},
    "kl_one_tile": {"tile_size": 1000, "mask": True},
    "jensen_shannon_full": {"beta": 0.3, "tile_size": 10, "where": True, "mask": True, **FULL},
    "normalized": {"beta": 0.7, "normalize": True, "tile_size": 64, "temperature": 0.7},
    "beta_one": {"beta": 1, "tile_size": 33},
}


DEFAULT_CASES = {"kl_full", "jensen_shannon_full"}


def options_of(case, key):
    options = dict(CASES[case])
    if options.get("where"):
        options["where"] = jax.random.bernoulli(key, 0.8, (V,))
    if options.get("mask"):
        options["mask"] = jnp.arange(N) % 3 > 0
    return options


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in DEFAULT_CASES else pytest.mark.slow) for case in CASES]
)
def test_equals_dense(case, key):
    """Every row has a cotangent of its own. Liger, which forms gradients in its forward pass, needs a scalar loss."""
    given, key, options_key = arrays(key), jax.random.fold_in(key, 1), jax.random.fold_in(key, 2)
    check(given, jax.random.normal(key, (N,)), **options_of(case, options_key))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(("case", "equal"), [("kl_full", True), ("jensen_shannon_full", False)])
def test_equals_dense_in_blocks_of_rows(case, equal, key):
    given, options = arrays(key), options_of(case, jax.random.fold_in(key, 2))
    cotangent = jnp.full((N,), 0.3) if equal else jax.random.normal(jax.random.fold_in(key, 1), (N,))
    if equal:
        cotangent = jnp.where(options["mask"], cotangent, 0)
    check(given, cotangent, **options)


@pytest.mark.slow
@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("tile_size", [1, 10, 50, 100, 101, 102])
def test_equals_dense_for_every_tile(case, tile_size, key):
    options = options_of(case, jax.random.fold_in(key, 2)) | {"tile_size": tile_size}
    check(arrays(key), jax.random.normal(jax.random.fold_in(key, 1), (N,)), **options)


def test_tile_of_one_class(key):
    given = arrays(key)
    np.testing.assert_allclose(fused(given, tile_size=1), fused(given, tile_size=V), rtol=2e-6)


def logit_rows(t, s):
    """Layers whose outputs are these rows, exactly: row i of the hidden states picks column i of the weights."""
    rows = jnp.eye(len(t), dtype=jnp.float32)
    return {"p_hidden": rows, "p_weight": jnp.asarray(t).T, "q_hidden": rows, "q_weight": jnp.asarray(s).T}


@pytest.mark.parametrize("num_classes", [1000, pytest.param(128256, marks=pytest.mark.slow)])
@pytest.mark.parametrize("beta", [None, 0.3])
def test_nearly_equal(num_classes, beta):
    """Row 2 of the contract: TRL's fused kernel returns 0, or 37 000 times the KL, at perturbations of 1e-3 and less.

    The last rows have a shift, and a class with nearly all the probability late among the tiles.
    """
    rng = np.random.default_rng(0)
    sizes = np.array([8, 1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-1, 1e-5, 1e-2])
    t = (3 * rng.standard_normal((len(sizes), num_classes))).astype(np.float32)
    s = (t + sizes[:, None] * rng.standard_normal(t.shape)).astype(np.float32)
    s[-3], s[-2] = s[-3] + 1000, s[-2] - 5
    t[-1, -100] += 20
    s[-1, -100] += 20

    def total(layers):
        values = kl.fused_linear(**layers, beta=beta, tile_size=300)
        return jnp.sum(values), values

    (_, values), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(logit_rows(t, s))
    expected = oracle.kl(t, s) if beta is None else oracle.jensen_shannon(t, s, beta=beta)
    np.testing.assert_allclose(values, expected.astype(float), rtol=5e-6)
    if beta is None:
        for name, exact in zip(("p_weight", "q_weight"), oracle.kl_gradients(t, s), strict=True):
            error = np.linalg.norm(gradients[name].T - exact.astype(float), axis=1)
            assert np.all(error <= 1e-5 * np.linalg.norm(exact.astype(float), axis=1)), name


INF = np.inf
EDGES = {
    "equal": ([1.0, 2, 3, -INF, 0], [1.0, 2, 3, -INF, 0]),
    "one_hot": ([0.0, -INF, -INF, -INF, -INF], [1.0, 2, 3, 4, 5]),
    "p_begins_late": ([-INF, -INF, -INF, 1, 1], [1.0, -9, 0, 1, 1]),
    "q_small": ([0.0, 1, 2, 3, 4], [0.0, 1, 2, 3, -200]),
    "q_smaller": ([0.0, 1, 2, 3, 4], [0.0, 1, 2, 3, -1e4]),
    "underflow": ([0.0, -104, -300, -1e30, -1e38], [0.0, -110, -290, -1e30, -1e38]),
    "far": ([3e4, -3e4, 0, 1, 2], [-3e4, 3e4, 2, 3, 4]),
    "p_underflows_where_q_lacks": ([0.0, 0, 0, 0, -200], [0.0, 0, 0, 0, -INF]),
    "nothing": ([-INF] * 5, [-INF] * 5),
    "q_lacks": ([0.0, 1, 2, 3, 4], [0.0, 1, -INF, 3, 4]),
}


@pytest.mark.parametrize("beta", [None, 0.3])
def test_edges_are_those_of_dense(beta):
    """Rows 1, 4 to 8, 10 and 12 of the contract, as biases. tokamax documents −∞ logits as unsupported."""
    t, s = (jnp.asarray(x, jnp.float32) for x in zip(*EDGES.values(), strict=True))
    zeros = jnp.zeros((1, 1)), jnp.zeros((5, 1))

    def tiled(t, s):
        return kl.fused_linear(*zeros, *zeros, p_bias=t, q_bias=s, beta=beta, tile_size=3)[0]

    def whole(t, s):
        return kl.categorical(t, s) if beta is None else kl.jensen_shannon(t, s, beta=beta)

    got = jax.jit(jax.vmap(jax.value_and_grad(tiled, (0, 1))))(t, s)
    expected = jax.vmap(jax.value_and_grad(whole, (0, 1)))(t, s)
    finite = np.array([beta is not None or name != "q_lacks" for name in EDGES])
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(got[1][0][finite], expected[1][0][finite], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(got[1][1], expected[1][1], rtol=1e-5, atol=1e-7)
    assert np.all(np.asarray(got[0])[[0, -2]] == 0)
    assert np.all(np.asarray(got[1])[:, 0] == 0)


@pytest.mark.usefixtures("blocks")
def test_absent_classes_and_rows_may_hold_nan(key):
    given = arrays(key)
    where, mask = jnp.arange(V) % 4 > 0, jnp.arange(N) % 3 > 0
    holding = {name: jnp.where((mask if "hidden" in name else where)[(...,) + (None,) * (x.ndim - 1)], x, jnp.nan)
               for name, x in given.items()}  # fmt: skip

    @jax.jit
    def run(x):
        return jax.value_and_grad(lambda x: jnp.sum(fused(x, where=where, mask=mask, tile_size=50)))(x)

    value, gradients = run(holding)
    expected, expected_gradients = run(given)
    assert value == expected
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, expected_gradients[name])
    values = fused(given, where=jnp.zeros(V, bool), tile_size=50)
    np.testing.assert_array_equal(values, 0)


def test_infinite_only_where_q_lacks_a_class(key):
    """Nothing is clipped; the gradient to q's side is finite. Liger clamps by 1e-10."""
    given = arrays(key)
    given["q_bias"] = given["q_bias"].at[3].set(-jnp.inf)
    wanted = {name: x for name, x in given.items() if name.startswith("q")}
    value, gradients = jax.value_and_grad(lambda x: jnp.sum(fused(given | x, tile_size=50)))(wanted)
    assert value == jnp.inf
    assert all(np.all(np.isfinite(x)) for x in gradients.values())
    assert np.all(np.isfinite(fused(given, beta=0.5, tile_size=50)))


def test_beta(key, compiles):
    """GKD's convention: TRL's interior goes to 0 at the ends, where its value jumps to KL; EasyDeL has β reversed."""
    given = arrays(key)
    forward = np.asarray(fused(given))
    backward = fused({name: given[("q" if name[0] == "p" else "p") + name[1:]] for name in NAMES})
    traced = jax.jit(functools.partial(kl.fused_linear, **given, tile_size=50), static_argnames="normalize")
    for beta, expected in ((0.0, forward), (1.0, backward)):
        for normalize in (False, True):
            np.testing.assert_allclose(fused(given, beta=beta, normalize=normalize), expected, rtol=1e-6)
            np.testing.assert_allclose(traced(beta=beta, normalize=normalize), expected, rtol=3e-6)
    before = compiles()
    np.testing.assert_allclose(traced(beta=1e-8, normalize=True), forward, rtol=1e-3)
    np.testing.assert_allclose(traced(beta=1e-6, normalize=False), 1e-6 * forward, rtol=5e-2)
    assert np.all(np.isnan(traced(beta=1.5, normalize=False)))
    assert compiles() == before


def test_one_program_for_every_temperature(key, compiles):
    given = arrays(key)
    run = jax.jit(lambda t: jax.grad(lambda x: jnp.sum(fused(x, temperature=t, tile_size=50)))(given))
    first = run(1.0)
    before = compiles()
    second = run(4.0)
    assert compiles() == before
    assert not np.allclose(first["q_weight"], second["q_weight"])
    assert np.all(np.isnan(jax.jit(functools.partial(fused, given))(temperature=-1.0)))


def test_inside_scan_and_checkpoint(key):
    """Temperature is an argument there that nobody differentiates, and must be seen to be one."""
    given = arrays(key)
    step = jax.checkpoint(jax.jit(lambda x, t: jnp.sum(fused(x, temperature=t, tile_size=50))))

    def total(weight, temperatures):
        def body(carry, t):
            return carry + step(given | {"q_weight": weight}, t), None

        return jax.lax.scan(body, jnp.zeros(()), temperatures)[0]

    temperatures = jnp.array([1.0, 2.0])
    got = jax.jit(jax.grad(total))(given["q_weight"], temperatures)
    expected = [jax.grad(lambda x, t=t: jnp.sum(dense(x, temperature=t)))(given)["q_weight"] for t in temperatures]
    np.testing.assert_allclose(got, sum(expected), rtol=1e-4, atol=1e-6)


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(inner, "eqns"):
                yield from equations(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize("in_blocks", [True, False])
@pytest.mark.parametrize("beta", [None, 0.5])
def test_no_array_has_all_logits(beta, in_blocks, monkeypatch):
    monkeypatch.setattr(_fused_linear, "_ROWS_WORTH_A_PASS", {"cpu": 4 if in_blocks else 10**9})
    given = {
        name: jax.ShapeDtypeStruct(s, jnp.float32) for name, s in zip(NAMES, ((96, 4), (600, 4)) * 2, strict=False)
    }
    gradient = jax.value_and_grad(lambda x: jnp.mean(fused(x, beta=beta, tile_size=64)))
    largest = max(v.aval.size for e in equations(jax.make_jaxpr(gradient)(given).jaxpr) for v in e.outvars)
    assert largest < 96 * 600 / 2
    naive = jax.value_and_grad(
        lambda x: jnp.mean(kl.categorical(*(x[f"{s}_hidden"] @ x[f"{s}_weight"].T for s in "pq")))
    )
    assert max(v.aval.size for e in equations(jax.make_jaxpr(naive)(given).jaxpr) for v in e.outvars) >= 96 * 600


def temporary_bytes(wanted, beta):
    shapes = ((8192, 4096), (128256, 4096)) * 2
    given = {name: jax.ShapeDtypeStruct(s, jnp.float32) for name, s in zip(NAMES, shapes, strict=False)}
    fixed = {name: given.pop(name) for name in set(given) - set(wanted)}
    gradient = jax.value_and_grad(lambda x, rest: jnp.mean(fused(x | rest, beta=beta)))
    return jax.jit(gradient).lower(given, fixed).compile().memory_analysis().temp_size_in_bytes


STUDENT = ("q_hidden", "q_weight")


@pytest.mark.parametrize(
    ("wanted", "beta"),
    [
        (STUDENT, None),
        pytest.param(STUDENT, 0.5, marks=pytest.mark.slow),
        pytest.param(NAMES[:4], None, marks=pytest.mark.slow),
        pytest.param(NAMES[:4], 0.5, marks=pytest.mark.slow),
    ],
)
def test_memory(wanted, beta):
    """Logits in memory take 16 032 MiB here, `jax.checkpoint` over token chunks 6 077, Liger's design 2 133."""
    assert temporary_bytes(wanted, beta) <= 400 * MIB


def products(wanted, blocks, monkeypatch):
    monkeypatch.setattr(_fused_linear, "_ROWS_WORTH_A_PASS", {"cpu": 4 if blocks else 10**9})
    given = {name: jax.ShapeDtypeStruct(s, jnp.bfloat16) for name, s in zip(NAMES, SHAPES, strict=True)}
    fixed = {name: given.pop(name) for name in set(given) - set(wanted)}
    gradient = jax.make_jaxpr(jax.grad(lambda x, rest: jnp.mean(fused(x | rest, tile_size=10))))(given, fixed)
    return [e for e in equations(gradient.jaxpr) if e.primitive.name == "dot_general"]


def test_nobody_pays_for_a_frozen_side(monkeypatch):
    """Two products for the values and one a gradient; two more where the logits are formed again."""
    assert len(products(("q_hidden",), True, monkeypatch)) == 3
    assert len(products(("q_hidden",), False, monkeypatch)) == 5
    assert len(products(STUDENT, False, monkeypatch)) == 6
    assert len(products(NAMES, False, monkeypatch)) == 8


def test_half_precision_products_stay_so(monkeypatch):
    """Operands brought up to float32 in the loop made a backward pass 13 times slower in a peer (nmoe#10)."""
    for equation in products(NAMES, False, monkeypatch):
        assert {v.aval.dtype for v in equation.invars} == {jnp.dtype(jnp.bfloat16)}
        assert equation.params["preferred_element_type"] == jnp.float32


def exactly(given):
    """KL and the gradients of its sum over rows, in extended precision."""
    exact = {name: np.asarray(x.astype(jnp.float32) if x.dtype.itemsize < 4 else x, float) for name, x in given.items()}
    logits = [exact[f"{side}_hidden"] @ exact[f"{side}_weight"].T for side in "pq"]
    gradients = {}
    for side, to_logits in zip("pq", oracle.kl_gradients(*logits), strict=True):
        gradients[f"{side}_hidden"] = (to_logits @ exact[f"{side}_weight"]).astype(float)
        gradients[f"{side}_weight"] = (to_logits.T @ exact[f"{side}_hidden"]).astype(float)
    return oracle.kl(*logits).astype(float), gradients


@pytest.mark.slow
def test_half_precision(key):
    """Row 21: EasyDeL's chunked loss sums in the hidden states' dtype: 0.1875 for 0.487 over 8192 tokens."""
    shapes = ((2048, 8), (64, 8)) * 2
    given = jax.tree.map(lambda x: x.astype(jnp.bfloat16), arrays(key, shapes))

    def run(tile_size):
        def total(x):
            values = fused(x, tile_size=tile_size)
            return jnp.mean(values), values

        (_, values), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(given)
        assert {x.dtype for x in gradients.values()} == {jnp.dtype(jnp.bfloat16)}
        return values, jax.tree.map(lambda x: x.astype(jnp.float32), gradients)

    (values, gradients), (others, other_gradients) = run(20), run(13)
    expected, exact = exactly(given)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_allclose(values, others, rtol=1e-5)
    for name, gradient in gradients.items():
        ulp = 2**-8 * np.linalg.norm(exact[name] / 2048)
        assert np.linalg.norm(gradient - exact[name] / 2048) <= ulp, name
        assert np.linalg.norm(gradient - other_gradients[name]) <= ulp / 10, name


@pytest.mark.slow
def test_float16(key):
    """Gradients of a mean over rows would underflow in float16, were logits' gradients rounded to it."""
    given = jax.tree.map(lambda x: x.astype(jnp.float16), arrays(key))
    got = jax.jit(jax.grad(lambda x: jnp.mean(fused(x, tile_size=50))))(given)
    exact = jax.grad(lambda x: jnp.mean(dense(x)))(jax.tree.map(lambda x: x.astype(jnp.float32), given))
    for name, gradient in got.items():
        np.testing.assert_allclose(gradient.astype(jnp.float32), exact[name], rtol=1e-3, atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_double_precision(key):
    given = jax.tree.map(lambda x: x.astype(jnp.float64), arrays(key, SHAPES[:4]))
    values, pull = jax.vjp(jax.jit(functools.partial(fused, tile_size=50)), given)
    expected = exactly(given)
    np.testing.assert_allclose(values, expected[0], rtol=1e-12)
    for name, gradient in pull(jnp.ones(N))[0].items():
        np.testing.assert_allclose(gradient, expected[1][name], rtol=1e-9, atol=1e-12)


def test_rows_of_any_shape(key):
    given = arrays(key)
    flat = fused(given)
    hidden = {name: given[name][:12].reshape(3, 4, -1) for name in ("p_hidden", "q_hidden")}
    np.testing.assert_allclose(fused(given | hidden), flat[:12].reshape(3, 4), rtol=1e-6)
    one = given | {"p_hidden": given["p_hidden"][2], "q_hidden": given["q_hidden"]}
    np.testing.assert_allclose(fused(one)[2], flat[2], rtol=1e-6)
    assert fused(given | {"p_hidden": one["p_hidden"], "q_hidden": given["q_hidden"][2]}).shape == ()
    nobody = {name: given[name][:0] for name in hidden}
    assert fused(given | nobody).shape == (0,)
    mapped = jax.vmap(lambda w: kl.fused_linear(**given | {"q_weight": w}, tile_size=50))
    weights = jnp.stack([given["q_weight"], 2 * given["q_weight"]])
    expected = [fused(given | {"q_weight": w}) for w in weights]
    np.testing.assert_allclose(mapped(weights), jnp.stack(expected), rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"q_weight": jnp.zeros((V + 1, Q_DIM)), "q_bias": None}, ValueError, "q_weight: expected 101 classes"),
        ({"q_hidden": jnp.zeros((N, Q_DIM + 1))}, ValueError, "q_weight: expected shape"),
        ({"p_bias": jnp.zeros(3)}, ValueError, "p_bias: expected shape"),
        ({"p_hidden": jnp.zeros((N + 1, P_DIM))}, ValueError, "p_hidden: expected shapes that broadcast"),
        ({"p_hidden": jnp.zeros((N, P_DIM), int)}, TypeError, "p_hidden: expected floating-point"),
        ({"p_weight": jnp.zeros((0, P_DIM))}, ValueError, "p_weight: expected shape"),
        ({"where": jnp.ones((N, V), bool)}, ValueError, "where: expected shape"),
        ({"mask": jnp.ones(N)}, TypeError, "mask: expected booleans"),
        ({"mask": jnp.ones(N + 1, bool)}, ValueError, "mask: "),
        ({"temperature": -1.0}, ValueError, "temperature: expected a positive"),
        ({"temperature": jnp.ones(N)}, ValueError, "temperature: expected one number"),
        ({"softcap": 0.0}, ValueError, "softcap: expected a positive"),
        ({"beta": 1.5}, ValueError, "beta: expected a number from 0 to 1"),
        ({"normalize": True}, ValueError, "normalize: expected beta"),
        ({"tile_size": 0}, ValueError, "tile_size: expected a positive"),
    ],
)
def test_bad_input(change, error, message, key):
    with pytest.raises(error, match=message):
        kl.fused_linear(**arrays(key) | change)


def test_what_cannot_be_differentiated_says_so(key):
    given = arrays(key)
    with pytest.raises(TypeError, match="temperature"):
        jax.grad(lambda t: jnp.sum(fused(given, temperature=t)))(1.0)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: fused(given | {"q_bias": x}), (given["q_bias"],), (given["q_bias"],))


@pytest.mark.parametrize("tile_size", [None, 3])
def test_gradients_have_the_dtype_of_what_they_belong_to(tile_size):
    """One tile or several; a scan over rows adds them up, and would refuse another dtype."""
    weight = jnp.ones((7, 4), jnp.bfloat16)
    bias = jnp.zeros(7, jnp.bfloat16)
    hidden = jnp.ones((3, 4), jnp.float32)

    def loss(hidden, weight, bias):
        values = kl.fused_linear(hidden, weight[::-1], hidden, weight, q_bias=bias, tile_size=tile_size)
        return values.sum()

    gradients = jax.grad(loss, (0, 1, 2))(hidden, weight, bias)
    assert [g.dtype for g in gradients] == [jnp.float32, jnp.bfloat16, jnp.bfloat16]


def test_a_refusal_breaks_nothing():
    """An error inside a rule of its own would leave JAX's caches half filled."""
    hidden, weight = jnp.ones((3, 4)), jnp.arange(28.0).reshape(7, 4) / 9

    def loss(w, temperature=1.0):
        return kl.fused_linear(hidden, weight, hidden, w, temperature=temperature).sum()

    wanted = jax.grad(loss)(weight[::-1])
    with pytest.raises(TypeError, match="expected temperature, softcap, logit_scale and beta to be constants"):
        jax.grad(lambda t: loss(weight[::-1], t))(2.0)
    np.testing.assert_allclose(jax.grad(jax.checkpoint(loss))(weight[::-1]), wanted, rtol=1e-6)
