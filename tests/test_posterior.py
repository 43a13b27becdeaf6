"""`Posterior`: draws, densities, moments, saving."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from statistical import assert_mean

import vi_kit as vk


def make():
    return vk.make_target(
        lambda x: norm.logpdf(x["mu"], 1.0, 2.0) + jnp.sum(norm.logpdf(jnp.log(x["tau"])) - jnp.log(x["tau"])),
        {"mu": 0.0, "tau": jnp.ones(2)},
        support={"tau": vk.support.positive},
        derived=lambda x: {"ratio": x["mu"] / x["tau"]},
    )


@pytest.fixture(scope="module")
def posterior():
    return vk.fit(jax.random.key(0), make(), num_steps=1_000, progress=False)


def test_sample(posterior, key):
    draws = posterior.sample(key, 1_000)
    assert {name: leaf.shape for name, leaf in draws.items()} == {
        "mu": (1_000,),
        "tau": (1_000, 2),
        "ratio": (1_000, 2),
    }
    assert (draws["tau"] > 0).all()
    np.testing.assert_allclose(draws["ratio"], draws["mu"][:, None] / draws["tau"], rtol=1e-5)
    again, other = posterior.sample(key, 10), posterior.sample(jax.random.key(99), 10)
    np.testing.assert_array_equal(again["mu"], draws["mu"][:10])
    assert not np.array_equal(again["mu"], other["mu"])
    assert_mean(np.log(draws["tau"]), posterior.params.mean[1:])


def test_moments_are_those_of_the_draws(posterior):
    np.testing.assert_allclose(posterior.mean["tau"], posterior.draws["tau"].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(posterior.std["mu"], posterior.draws["mu"].std(ddof=1), rtol=1e-5)
    assert posterior.quantiles["tau"].shape == (5, 2)
    assert (np.diff(posterior.quantiles["tau"], axis=0) > 0).all()
    assert posterior.labels == ("mu", "ratio[0]", "ratio[1]", "tau[0]", "tau[1]")
    assert posterior.covariance.shape == (5, 5)
    assert posterior.covariance[0, 0] == pytest.approx(posterior.std["mu"] ** 2, rel=1e-5)


def test_log_prob_is_the_density_in_the_users_space(posterior):
    # At one fitted mu the density of tau must integrate to that of mu alone: check by quadrature on a grid of tau[0].
    q = posterior.family.dist(posterior.params)
    grid = jnp.exp(jnp.linspace(-9.0, 9.0, 4_001))
    others = {"mu": jnp.asarray(0.7), "fixed": jnp.asarray(1.3)}
    values = jax.vmap(lambda t: posterior.log_prob({"mu": others["mu"], "tau": jnp.stack([t, others["fixed"]])}))(grid)
    integral = np.trapezoid(np.exp(np.asarray(values, np.float64)), np.asarray(grid, np.float64))
    keep = np.array([0, 2])  # the marginal of (mu, log tau[1]) of a Gaussian
    mean, covariance = np.asarray(q.mean())[keep], np.asarray(q.covariance())[np.ix_(keep, keep)]
    point = np.array([0.7, np.log(1.3)]) - mean
    exact = np.exp(-0.5 * point @ np.linalg.solve(covariance, point)) / (2 * np.pi * np.sqrt(np.linalg.det(covariance)))
    assert integral == pytest.approx(exact / 1.3, rel=1e-3)


def test_log_prob_takes_a_draw_with_derived_quantities(posterior):
    draw = {name: leaf[0] for name, leaf in posterior.draws.items()}
    assert np.isfinite(float(posterior.log_prob(draw)))


@pytest.mark.slow
def test_resample_corrects(key):
    target = vk.make_target(lambda x: jnp.sum(norm.logpdf(x, 0.5, 1.0)), 1)
    started = vk.families.MeanField(1).init(key, scale=1.1)
    algorithm_target = vk.fit(
        jax.random.key(0), target, num_steps=1, start=vk.families.FullRank(1).init(key), progress=False
    )
    assert abs(algorithm_target.mean[0]) < 0.1  # q is still at its start, N(0, 1)
    corrected = algorithm_target.resample(key, 2_000)
    assert corrected.shape == (2_000, 1)
    # Drawn with replacement from 8,000 weighted draws: about three times the spread of independent ones.
    assert abs(corrected.mean() - 0.5) < 4.9 * 3 / np.sqrt(2_000)
    assert abs(corrected.mean()) > 0.15  # the control: uncorrected draws would be rejected
    del started


def test_save_and_load(posterior, tmp_path, key):
    file = posterior.save(tmp_path / "fit")
    assert file == tmp_path / "fit.npz"
    with pytest.raises(FileExistsError, match="overwrite=True"):
        posterior.save(file)
    posterior.save(file, overwrite=True)
    loaded = vk.load(file)
    np.testing.assert_array_equal(loaded.draws["tau"], posterior.draws["tau"])
    assert loaded.report == posterior.report
    assert loaded.labels == posterior.labels
    with pytest.raises(ValueError, match="sample needs the target"):
        loaded.sample(key, 3)
    whole = vk.load(tmp_path / "fit", target=make())
    np.testing.assert_array_equal(whole.sample(key, 5)["mu"], posterior.sample(key, 5)["mu"])
    warm = vk.fit(key, make(), num_steps=1, start=loaded, progress=False)
    np.testing.assert_allclose(warm.params.mean, posterior.params.mean, atol=0.1)


def test_save_keeps_the_order_of_a_tuple(tmp_path):
    Point = collections.namedtuple("Point", ["zeta", "alpha"])
    target = vk.make_target(lambda x: norm.logpdf(x.zeta, 5.0) + norm.logpdf(x.alpha, -7.0), Point(0.0, 0.0))
    posterior = vk.fit(jax.random.key(0), target, num_steps=200, progress=False)
    file = posterior.save(tmp_path / "fit")
    bare, whole = vk.load(file), vk.load(file, target=target)
    assert bare.labels == whole.labels == posterior.labels == ("zeta", "alpha")
    np.testing.assert_allclose(bare.covariance, posterior.covariance)
    np.testing.assert_array_equal(bare.draws["alpha"], posterior.draws.alpha)
    np.testing.assert_array_equal(whole.draws.zeta, posterior.draws.zeta)


@pytest.mark.slow
def test_resample_says_when_it_cannot_help(key):
    far = vk.make_target(lambda x: jnp.sum(norm.logpdf(x, 30.0, 0.1)), 2)
    start = vk.families.FullRank(2).init(jax.random.key(0))
    posterior = vk.fit(jax.random.key(1), far, num_steps=1, start=start, progress=False)
    with pytest.warns(UserWarning, match="resample: Pareto k̂"):
        posterior.resample(key, 10)


def test_log_prob_outside_the_support_is_minus_infinity(posterior):
    outside = posterior.log_prob({"mu": jnp.asarray(0.0), "tau": jnp.array([-1.0, 1.0])})
    assert float(outside) == -np.inf


def test_load_refuses_what_is_not_a_fit(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        vk.load(tmp_path / "nothing.npz")
    (tmp_path / "text.npz").write_text("not a zip")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "number.npz", meta=np.asarray("3"))
    (tmp_path / "empty.npz").touch()
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:-20])
    for name in ("text", "other", "number", "empty", "cut"):
        with pytest.raises(ValueError, match="is damaged or not a fit saved by"):
            vk.load(tmp_path / f"{name}.npz")


def test_load_says_one_sentence_of_any_damage(posterior, tmp_path):
    whole = posterior.save(tmp_path / "fit.npz").read_bytes()
    generator = np.random.default_rng(0)
    sentences = []
    for _ in range(60):
        damaged = bytearray(whole)
        for place in generator.integers(len(whole), size=8):
            damaged[place] ^= int(generator.integers(1, 256))
        (tmp_path / "damaged.npz").write_bytes(damaged)
        try:
            vk.load(tmp_path / "damaged.npz")  # bytes that do not matter may have been hit
        except ValueError as error:
            sentences.append(str(error))
    assert len(sentences) > 30
    assert all(sentence.startswith("path: ") for sentence in sentences)


def test_load_checks_the_target(posterior, tmp_path):
    file = posterior.save(tmp_path / "fit.npz")
    with pytest.raises(ValueError, match="the saved fit has dim 3, the target has 2"):
        vk.load(file, target=vk.make_target(lambda x: -jnp.sum(x**2), 2))


def test_to_arviz(posterior):
    pytest.importorskip("arviz")
    data = posterior.to_arviz()
    assert data["posterior"]["tau"].shape[1:] == (posterior.report.num_samples, 2)


@pytest.mark.parametrize("n", [0, -1, 2.5, True])
def test_bad_counts(posterior, key, n):
    with pytest.raises((TypeError, ValueError), match="n: expected"):
        posterior.sample(key, n)


def test_repr(posterior):
    assert repr(posterior).startswith("Posterior(")
    assert "FullRank(dim=3)" in repr(posterior)
