"""What is refused, in one sentence each, and what is compiled once."""

import subprocess
import sys
import textwrap

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
import scipy.stats
import tensorflow_probability.substrates.jax as tfp

import vi_kit as vk
from vi_kit.divergences import _registered
from vi_kit.divergences import distributions as d
from vi_kit.divergences._table import RULES

tfd = tfp.distributions
kl = vk.kl_divergence
STANDARD = d.Normal(0.0, 1.0)
VECTOR = d.MultivariateNormal(jnp.zeros(3), jnp.eye(3))

REFUSED = {
    "a class": (
        lambda: (distrax.Normal, STANDARD),
        TypeError,
        "p: expected a distribution, got the class Normal; give it",
    ),
    "a number": (lambda: (STANDARD, 1.0), TypeError, "q: expected a distribution, got float"),
    "torch": (
        lambda: (type("Normal", (), {"__module__": "torch.distributions.normal", "log_prob": None})(), STANDARD),
        TypeError,
        "p: expected a distribution of distrax, TensorFlow Probability on JAX or NumPyro, got Normal of PyTorch",
    ),
    "scipy": (
        lambda: (STANDARD, scipy.stats.norm(0, 1)),
        TypeError,
        "q: expected a distribution, got rv_continuous_froz",
    ),
    "event and batch swapped": (
        lambda: (distrax.Normal(jnp.zeros(3), jnp.ones(3)), VECTOR),
        ValueError,
        r"q: expected events of shape \(\) as p has, got \(3,\) \(batch shapes: p \(3,\), q \(\)\); Independent turns",
    ),
    "events of other sizes": (
        lambda: (VECTOR, distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))),
        ValueError,
        r"q: expected events of shape \(3,\) as p has, got \(2,\)",
    ),
    "joint of other parts": (
        lambda: (distrax.Joint((distrax.Normal(0.0, 1.0),)), distrax.Joint({"a": distrax.Normal(0.0, 1.0)})),
        ValueError,
        r"q: expected events of shape \(\(\),\) as p has, got \{'a': \(\)\}",
    ),
    "batches that do not fit": (
        lambda: (d.Normal(jnp.zeros(3), 1.0), d.Normal(jnp.zeros(2), 1.0)),
        ValueError,
        r"q: expected a batch shape that broadcasts with \(3,\) of p, got \(2,\)",
    ),
    "a negative scale": (
        lambda: (STANDARD, npd.Normal(0.0, np.float32([1.0, -2.0]), validate_args=False)),
        ValueError,
        r"q.scale: expected positive numbers, got -2",
    ),
    "a factor that is none": (
        lambda: (d.MultivariateNormal(jnp.zeros(2), jnp.zeros((2, 2))), d.MultivariateNormal(jnp.zeros(2), jnp.eye(2))),
        ValueError,
        "p.scale_tril: expected lower-triangular matrices with a positive diagonal, got",
    ),
    "ends in the wrong order": (
        lambda: (distrax.Uniform(1.0, 0.0), distrax.Uniform(0.0, 1.0)),
        ValueError,
        "p.high: expected numbers above `low`, got 0",
    ),
    "too few degrees of freedom": (
        lambda: (d.Wishart(jnp.eye(3), 1.5), d.Wishart(jnp.eye(3), 5.0)),
        ValueError,
        "p.df: expected numbers above the dimension minus 1, got 1.5",
    ),
    "probabilities that do not sum to 1": (
        lambda: (d.Categorical(probs=[0.5, 0.2]), d.Categorical(probs=[0.5, 0.5])),
        ValueError,
        r"p.probs: expected vectors of probabilities that sum to 1, got \[0.5 0.2\]",
    ),
    "within a structure": (
        lambda: (d.Independent(d.Normal(jnp.zeros(3), -1.0)), VECTOR),
        ValueError,
        "p.scale: expected positive numbers, got -1",
    ),
    "parameters of other sizes": (
        lambda: (d.MultivariateNormal(jnp.zeros(3), jnp.eye(2)), VECTOR),
        ValueError,
        r"p.scale_tril: expected 3 dim as in p.loc, got shape \(2, 2\)",
    ),
    "a number for a vector": (
        lambda: (VECTOR, d.MultivariateNormal(0.0, jnp.eye(3))),
        ValueError,
        r"q.loc: expected an array with the axes \(dim\), got shape \(\)",
    ),
    "parameters of other batches": (
        lambda: (d.Normal(jnp.zeros(3), jnp.ones(2)), STANDARD),
        ValueError,
        r"p.scale: expected a batch shape that broadcasts with \(3,\) of the other parameters, got \(2,\)",
    ),
    "probs and logits": (
        lambda: (d.Bernoulli(probs=0.1, logits=0.2), d.Bernoulli(probs=0.1)),
        ValueError,
        "p: expected either probs or logits, got probs and logits$",
    ),
    "neither": (
        lambda: (d.Bernoulli(probs=0.1), d.Bernoulli()),
        ValueError,
        "q: expected either probs or logits, got neither",
    ),
    "nothing": (lambda: (d.Normal(None, 1.0), STANDARD), TypeError, "p.loc: expected real numbers, got None"),
    "text": (lambda: (d.Normal("0", 1.0), STANDARD), TypeError, "p.loc: expected real numbers, got str"),
    "complex": (lambda: (d.Normal(1j, 1.0), STANDARD), TypeError, "p.loc: expected real numbers, got complex numbers"),
    "counts that differ": (
        lambda: (d.Binomial(3.0, probs=0.1), d.Binomial(4.0, probs=0.1)),
        NotImplementedError,
        "with p a Binomial and q a Binomial",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_one_sentence_each(name):
    make, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words) as caught:
        kl(*make())
    assert "\n" not in str(caught.value)


def test_known_parameters_are_refused_while_others_are_traced():
    with pytest.raises(ValueError, match=r"p.scale: expected positive numbers, got -1"):
        jax.jit(lambda loc: kl(d.Normal(loc, -1.0), STANDARD))(0.0)
    with pytest.raises(ValueError, match=r"q.high: expected numbers above `low`, got 1"):
        jax.vmap(lambda low: kl(d.Uniform(low, 3.0), d.Uniform(2.0, 1.0)))(jnp.zeros(2))


def test_traced_parameters_out_of_range_give_nan():
    found = jax.jit(lambda s: kl(d.Normal(jnp.zeros(2), s), STANDARD))(jnp.array([1.0, -1.0]))
    np.testing.assert_array_equal(np.isnan(found), [False, True])
    assert np.isnan(jax.jit(lambda h: kl(d.Uniform(1.0, h), d.Uniform(0.0, 2.0)))(0.5))


def test_rules_that_check_their_parameters_give_nan_for_each_of_them():
    """Values in and out of range, mixed on both sides at once: NaN where any is out of range, and only there."""
    values = np.array([1.0, 2.0, 0.0, -1.0, np.inf, -np.inf, np.nan], np.float32)
    p_loc, p_scale, q_loc, q_scale = (x.ravel() for x in np.meshgrid(*[values] * 4, indexing="ij"))

    def vectors(loc, scale):
        factor = np.broadcast_to(np.eye(2, dtype=np.float32), (loc.size, 2, 2)).copy()
        factor[:, 1, 1] = scale
        factor[:, 1, 0] = loc  # as finite as the mean
        return d.MultivariateNormal(np.stack([loc, np.ones_like(loc)], axis=-1), factor)

    def logits(family):
        return lambda *x: family(logits=np.stack(x, axis=-1))

    def probs(family):
        return lambda *x: family(probs=np.stack([np.abs(x[0]) / 2, np.abs(x[1]) / 2], axis=-1))

    made = {"Normal": d.Normal, "MultivariateNormal": vectors}
    for family in (d.Categorical, d.OneHotCategorical):
        made |= {f"{family.__name__}, logits": logits(family), f"{family.__name__}, probs": probs(family)}
    assert {rule.p.__name__ for rule in RULES if rule.checked} == {name.split(",")[0] for name in made}
    for make in made.values():
        p, q = make(p_loc, p_scale), make(q_loc, q_scale)
        found = jax.jit(kl)(p, q)
        np.testing.assert_array_equal(np.isnan(found), ~np.asarray(p.is_valid() & q.is_valid()))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_bad_number_in_a_batch_is_seen(bad):
    """On CPUs XLA's least and largest entries of short rows pass over NaN."""

    def batch(*shape, where):
        x = np.ones((300, *shape), np.float32)
        x[7][where] = bad
        return x

    eye = np.broadcast_to(np.eye(2, dtype=np.float32), (300, 2, 2))
    ones = np.ones((300, 2), np.float32)
    made = [
        d.MultivariateNormal(batch(2, where=1), eye),
        d.MultivariateNormal(ones, np.where(eye > 0, batch(2, 2, where=(1, 1)), 0).astype(np.float32)),
        d.Dirichlet(batch(2, where=0)),
        d.Categorical(logits=batch(2, where=1)),
        d.Categorical(probs=batch(2, where=1) / 2),
        d.MultivariateNormalLowRank(ones, batch(2, 1, where=(1, 0)), ones),
        d.MultivariateNormalLowRank(ones, 0 * ones[..., None], batch(2, where=1)),
    ]
    for p in made:
        np.testing.assert_array_equal(np.flatnonzero(~np.asarray(p.is_valid())), [7], err_msg=str(p))
        with pytest.raises(ValueError, match="expected"):
            kl(p, jax.tree.map(lambda x: x[0], p))


def test_fresh_objects_and_other_values_compile_nothing(compiles):
    def calls(x):
        kl(d.Gamma(x, 2.0), d.Gamma(1.0, jnp.float32(x)))
        kl(npd.Gamma(jnp.float32(x), 2.0), distrax.Gamma(jnp.float32(x + 1), 1.0))
        kl(
            distrax.Transformed(distrax.Normal(x, 1.0), distrax.Tanh()),
            distrax.Transformed(distrax.Normal(0.0, x), jnp.tanh),
        )

    calls(0.5)
    calls(1.5)
    before = compiles()
    calls(2.5)
    assert compiles() == before


def test_python_numbers_and_arrays_meet_one_program(compiles):
    def numbers(family):
        return kl(family(0.0, 1.0), family(0.0, 2.0))

    def arrays(family):
        return kl(family(jnp.float32(0.5), 2), family(np.float32(1.0), jnp.asarray(2.0)))

    numbers(d.Normal), arrays(d.Normal)  # conversions of dtype
    numbers(d.Laplace)
    before = compiles()
    arrays(d.Laplace)
    assert compiles() == before


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(_registered, "_REGISTERED", {})


class Heavy(distrax.Normal):
    """A distribution that only a registered pair knows."""

    def log_prob(self, value):
        return -jnp.abs(value)


@pytest.mark.usefixtures("registry")
def test_registered_pairs_are_found_within_structures():
    @vk.register_kl(distrax.Normal, Heavy)
    def normal_heavy(p, q):
        return jnp.broadcast_to(2.0, p.batch_shape)

    assert kl(distrax.Normal(0.0, 1.0), Heavy(0.0, 1.0)) == 2
    zeros, ones = jnp.zeros(3), jnp.ones(3)
    p, q = (distrax.Independent(kind(zeros, ones), 1) for kind in (distrax.Normal, Heavy))
    assert kl(p, q) == 6
    parts = distrax.Joint((distrax.Normal(1.0, 1.0), distrax.Normal(0.0, 1.0)))
    assert kl(parts, distrax.Joint((distrax.Normal(0.0, 1.0), Heavy(0.0, 1.0)))) == 2.5
    assert kl(distrax.Normal(1.0, 1.0), distrax.Normal(0.0, 1.0)) == 0.5
    with pytest.raises(NotImplementedError, match="Heavy, known by its density alone, and Normal"):
        kl(q, p)


@pytest.mark.slow
def test_where_distrax_does_not_import_the_rest_works(tmp_path):
    package = tmp_path / "distrax"
    package.mkdir()
    (package / "__init__.py").write_text('raise AttributeError("no attribute pytype_aval_mappings")')
    code = """
        import numpyro.distributions as npd
        import vi_kit as vk
        import vi_kit.kl
        from vi_kit.divergences.distributions import Normal
        assert vi_kit.kl.normal(1.0, 0.0) == 0.5
        assert vk.kl_divergence(Normal(0.0, 1.0), npd.Normal(1.0, 1.0)) == 0.5
        try:
            vk.families
        except ImportError as error:
            print(error)
    """
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{tmp_path}:.", "JAX_PLATFORMS": "cpu", "PATH": ""},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "distrax cannot be imported here (AttributeError: no attribute pytype_aval_mappings)" in run.stdout


def test_numbers_without_a_closed_form_are_sent_to_quadrature():
    with pytest.raises(NotImplementedError, match=r"vk\.quadrature_kl\(p, q\) integrates it, vk\.estimate_kl"):
        vk.kl_divergence(distrax.Normal(0.0, 1.0), d.StudentT(3.0, 0.0, 1.0))
    vectors = distrax.MultivariateNormalDiag(jnp.zeros(2)), distrax.Dirichlet(jnp.ones(2))
    with pytest.raises(NotImplementedError, match=r"\); vk\.estimate_kl"):
        vk.kl_divergence(*vectors[::-1])
