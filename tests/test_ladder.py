"""`fit` without an algorithm: answers, verdicts, budgets, interruption, and what bad targets end in."""

import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clock import unhurried
from jax.scipy.stats import norm

import vi_kit as vk
from vi_kit._agreement import lacking
from vi_kit._findings import Findings

CORRELATION = 0.8


def gaussian_density(x, data):
    """A correlated pair, normalized."""
    first = norm.logpdf(x["a"], data["center"], 2.0)
    return first + norm.logpdf(x["b"], CORRELATION * (x["a"] - data["center"]) / 2, np.sqrt(1 - CORRELATION**2))


def gaussian(center=3.0):
    return vk.make_target(gaussian_density, {"a": 0.0, "b": 0.0}, data={"center": center}, log_normalizer=0.0)


def two_modes_density(x, data):
    parts = [jnp.sum(norm.logpdf(x, sign * data["distance"], 1.0)) for sign in (1.0, -1.0)]
    return jnp.logaddexp(jnp.log(0.7) + parts[0], jnp.log(0.3) + parts[1])


def two_modes(distance=8.0):
    return vk.make_target(two_modes_density, 2, data={"distance": distance}, log_normalizer=0.0)


def fit(target=None, seed=0, **options):
    return vk.fit(jax.random.key(seed), gaussian() if target is None else target, **{"progress": False, **options})


@pytest.fixture(scope="module")
def posterior():
    return fit()


@pytest.fixture(scope="module")
def mixture():
    return fit(two_modes())


def test_a_gaussian(posterior):
    report = posterior.report
    assert report.reliable, report.reason
    assert posterior.family == vk.families.FullRank(2)
    assert report.stopped == "it can be believed"
    assert float(report.reverse_kl.value) < 0.02
    for label, mean, sd in [("a", 3.0, 2.0), ("b", 0.0, 1.0)]:
        row = report.coordinates[label]
        assert abs(row.mean - mean) < 0.1 * sd
        assert row.sd == pytest.approx(sd, rel=0.1)
    assert posterior.covariance[0, 1] == pytest.approx(2 * CORRELATION, abs=0.3)
    assert report.evaluations < 6_000
    assert 0 < report.compile_seconds < report.seconds


def test_two_modes(mixture):
    report = mixture.report
    assert report.reliable, report.reason
    assert mixture.family == vk.families.Mixture(2, 2, vk.families.FullRank)
    assert "dispersed starts ended in 2 places" in report.reason
    draws = np.asarray(mixture.draws)
    right = draws[:, 0] > 0
    assert right.mean() == pytest.approx(0.7, abs=0.05)
    np.testing.assert_allclose(draws[right].mean(axis=0), 8.0, atol=0.2)
    np.testing.assert_allclose(draws[~right].mean(axis=0), -8.0, atol=0.2)
    assert float(report.log_normalizer.value) == pytest.approx(0.0, abs=0.05)


def test_the_first_of_two_modes_is_not_believed():
    """Stopped before another start was tried, however good it looks."""
    stopped = fit(two_modes(), callback=lambda progress: progress.loss < 0.4)  # −log 0.7 = 0.36
    assert not stopped.report.reliable
    assert stopped.report.khat < stopped.report.khat_threshold
    assert "nobody looked for another mode" in stopped.report.reason


def test_what_a_q_lacks():
    family = vk.families.MeanField(2)
    params = family.init(jax.random.key(0), mean=jnp.full(2, 8.0), scale=jnp.ones(2))
    places = np.array([[8.0, 8.0], [-8.0, -8.0]])
    heights = np.asarray(jax.vmap(two_modes().log_density)(jnp.asarray(places)), float)
    assert lacking(family, params, places[:1], heights[:1], np.log(0.7)) == 0
    assert lacking(family, params, places, heights, np.log(0.7)) == 1
    assert lacking(family, params, places[:1], heights[:1] + 4, np.log(0.7)) == 1


@pytest.mark.parametrize("height", [-1e5, 3.0])
def test_a_fit_that_lacks_a_place_is_not_believed(posterior, height):
    """Where a start ended 60 sds away, at a log density far above q's there; far below it, there is nothing to lack."""
    findings = Findings(gaussian())
    findings.places, findings.heights = np.array([[3.0, 0.0], [120.0, 0.0]]), np.array([-2.0, height])
    findings.agreement = "20 dispersed starts ended in 2 places"
    revised = findings.revised(posterior, None)
    assert posterior.report.reliable
    assert revised.report.reliable == (height < 0)
    assert ("of which q lacks 1" in revised.report.reason) == (height > 0)


def test_the_story(mixture, tmp_path):
    story = mixture.report.story
    assert isinstance(story, tuple)
    assert story[0].startswith("FullRank, ")
    assert any("dispersed starts ended in 2 places" in line for line in story)
    assert story[-1].startswith("Mixture, weighted draws")
    shown = str(mixture.report)
    assert "tried" in shown
    for line in story:
        assert line in shown, "every line is printed, unbroken"
    loaded = vk.load(mixture.save(tmp_path / "fit"), target=two_modes())
    assert loaded.report == mixture.report
    assert str(loaded.report) == shown


def test_same_key_same_answer(posterior):
    again, other = fit(), fit(seed=1)
    np.testing.assert_array_equal(again.draws["a"], posterior.draws["a"])
    assert [line.split("(")[0] for line in again.report.story] == [
        line.split("(")[0] for line in posterior.report.story
    ]
    assert not np.array_equal(other.draws["a"], posterior.draws["a"])


@pytest.mark.parametrize("make", [gaussian, two_modes])
def test_a_second_fit_compiles_nothing(make, compiles, monkeypatch):
    """With other data of the same shapes and another key."""
    unhurried(monkeypatch)
    for seed in (0, 2):  # in this test: programs may be dropped between tests; with 2, modes are parted too
        fit(make(), seed=seed)
    before = compiles()
    second = fit(make(7.0), seed=1)
    assert compiles() == before
    assert second.report.reliable


def test_callback_is_asked_while_other_modes_are_looked_for(monkeypatch):
    monkeypatch.setattr("vi_kit._ladder._BETWEEN_CALLS", 0.0)
    calls = []
    fit(callback=lambda progress: calls.append(progress.evaluations))
    whole = len(calls)
    seen = []

    def callback(progress):
        seen.append(progress.evaluations)
        return len(seen) == whole - 1

    stopped = fit(callback=callback)
    assert len(seen) == whole - 1
    assert stopped.report.stopped == "the callback asked for it"
    assert not stopped.report.reliable
    assert stopped.params is not None


def test_callback_sees_progress_and_can_stop():
    seen = []

    def callback(progress):
        seen.append(progress)
        return progress.step >= 3

    stopped = fit(callback=callback)
    assert [progress.step for progress in seen] == [1, 2, 3]
    assert all(np.isfinite(progress.loss) for progress in seen)
    assert seen[0].evaluations < seen[1].evaluations < stopped.report.evaluations
    assert stopped.report.stopped == "the callback asked for it"
    assert not stopped.report.reliable
    jax.tree.map(np.testing.assert_array_equal, seen[-1].params, stopped.params)


def test_a_spent_budget_is_not_reliable():
    posterior = fit(max_evaluations=100)
    assert posterior.report.stopped == "the budget of 100 evaluations was spent"
    assert not posterior.report.reliable
    assert posterior.report.evaluations <= 100
    assert posterior.report.reason.startswith("Do not believe it")


@pytest.mark.parametrize("budget", [{"max_evaluations": 10}, {"max_seconds": 1e-3}])
def test_a_budget_for_nothing_is_an_error(budget):
    with pytest.raises(ValueError, match=r"max_\w+: the budget of .* was spent before the first step was done"):
        fit(**budget)


def test_start_is_used():
    far = vk.make_target(lambda x: jnp.sum(norm.logpdf(x, 1e3, 1.0)) + 0.0 * jnp.sum(jnp.sqrt(x - 900.0)), 2)
    with pytest.raises(ValueError, match="log_density is NaN at the start"):
        fit(far)
    posterior = fit(far, start=jnp.full(2, 950.0))
    np.testing.assert_allclose(posterior.mean, 1e3, atol=0.1)
    warm = fit(far, start=posterior, seed=1)
    assert warm.report.steps < posterior.report.steps
    np.testing.assert_allclose(warm.mean, 1e3, atol=0.1)


def interrupted_in(monkeypatch, name):
    """Fit two modes, and interrupt where a function of the ladder is called."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"vi_kit._ladder.{name}", interrupt)
    return fit(two_modes())


@pytest.mark.parametrize("name", ["explore", "fit_mixture"])
def test_interrupt_between_rungs_keeps_the_best_so_far(name, monkeypatch):
    posterior = interrupted_in(monkeypatch, name)
    assert posterior.report.stopped == "interrupted"
    assert not posterior.report.reliable
    assert posterior.family == vk.families.FullRank(2)


def test_interrupt_in_the_first_rung_keeps_the_best_so_far():
    def callback(progress):
        if progress.step == 4:
            raise KeyboardInterrupt

    posterior = fit(callback=callback)
    assert posterior.report.stopped == "interrupted"
    assert posterior.report.steps == 4
    assert not posterior.report.reliable


def test_interrupt_before_anything_is_known_is_one():
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        interrupted_in(patch, "fit_gaussian")


BAD = {
    "NaN in a half-space": lambda x: jnp.where(x[0] > -0.5, -0.5 * jnp.sum(x**2), jnp.nan),
    "rises for ever": lambda x: x[0] - 0.5 * x[1] ** 2,
    "separated classes": lambda x: -jax.nn.softplus(-x[0]) - 0.5 * x[1] ** 2,
    "large": lambda x: -0.5 * jnp.sum((x - 1) ** 2) - 1e7,
}
MORE_BAD = {
    "−∞ beyond an edge": lambda x: jnp.where(x[0] > -0.5, -0.5 * jnp.sum(x**2), -jnp.inf),
    "convex": lambda x: 0.5 * x[0] ** 2 - 0.5 * x[1] ** 2,
    "+∞ in a box": lambda x: jnp.where((x[0] > 3) & (x[0] < 4), jnp.inf, -0.5 * jnp.sum(x**2)),
    "as heavy as 1/x": lambda x: -0.5 * jnp.log1p(x[0] ** 2) - 0.5 * x[1] ** 2,
}


@pytest.mark.parametrize("name", [*BAD, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_BAD)])
def test_bad_targets_are_flagged(name):
    began = time.perf_counter()
    posterior = fit(vk.make_target((BAD | MORE_BAD)[name], 2), max_seconds=6)  # too little for a flow
    assert time.perf_counter() - began < 30
    assert not posterior.report.reliable, posterior.report.reason
    assert posterior.report.reason.count(".") >= 1
    assert str(posterior.report)


def test_a_step_in_the_density_is_fitted_by_a_mixture():
    """Twenty times as high beyond 0.5: E x = (e³ − 1) φ(½) / (Φ(½) + e³ Φ(−½))."""
    posterior = fit(vk.make_target(lambda x: -0.5 * jnp.sum(x**2) + jnp.where(x[0] > 0.5, 3.0, 0.0), 2))
    assert posterior.family == vk.families.Mixture(2, 8, vk.families.FullRank)
    assert posterior.report.reliable, posterior.report.reason
    height = np.exp(3.0)
    total = float(norm.cdf(0.5) + height * norm.cdf(-0.5))
    mean = float((height - 1) * norm.pdf(0.5) / total)
    assert posterior.report.coordinates["x[0]"].mean == pytest.approx(mean, abs=0.05)
    assert float(posterior.report.log_normalizer.value) == pytest.approx(np.log(2 * np.pi * total), abs=0.02)


def test_stairs_are_fitted_by_a_mixture():
    """Flat but for jumps: no gradient shows the shape; the sd of each coordinate is 1.429."""
    posterior = fit(vk.make_target(lambda x: -jnp.sum(jnp.floor(jnp.abs(x) * 2) / 2), 2))
    assert posterior.report.reliable, posterior.report.reason
    for row in posterior.report.coordinates.values():
        assert row.corrected_sd == pytest.approx(1.429, rel=0.1)
        assert abs(row.corrected_mean) < 0.15


SKEWED = {
    "none of five": lambda x: -x[0] - 7 * jnp.log1p(jnp.exp(-x[0])),  # a logit, uniform prior
    "three counted": lambda x: 4 * x[0] - jnp.exp(x[0]),  # a log rate
    "four Cauchy": lambda x: -jnp.sum(jnp.log1p((jnp.array([-3.0, 0.0, 1.0, 1.5]) - x[0]) ** 2)),
}


@pytest.mark.parametrize("name", SKEWED)
def test_one_skewed_parameter(name):
    """Against quadrature: mean and sd of an everyday posterior that no Gaussian describes."""
    posterior = fit(vk.make_target(SKEWED[name], 1))
    assert posterior.report.reliable, posterior.report.reason
    grid = np.linspace(-60, 60, 400_001)
    values = np.asarray(jax.vmap(SKEWED[name])(jnp.asarray(grid[:, None], jnp.float32)), float)
    weights = np.exp(values - values.max())
    weights /= weights.sum()
    mean = weights @ grid
    sd = np.sqrt(weights @ (grid - mean) ** 2)
    row = posterior.report.coordinates["x[0]"]
    assert abs(row.corrected_mean - mean) < 0.1 * sd
    assert row.corrected_sd == pytest.approx(sd, rel=0.1)
    assert posterior.report.evaluations < 45_000


def test_a_flat_direction_is_named():
    posterior = fit(vk.make_target(lambda x: -0.5 * x["a"] ** 2 + 0.0 * x["b"], {"a": 0.0, "b": 0.0}))
    assert "widening along b" in posterior.report.reason
    assert posterior.report.seconds < 60


@pytest.mark.parametrize(
    ("log_density", "words"),
    [
        (lambda x: jnp.zeros(()), "log_density does not depend on x"),
        (lambda x: jnp.where(jnp.all(x == 0), 0.0, jnp.nan) + 0 * jnp.sum(x), "finite at the start but not around"),
        (lambda x: -jnp.sum(x**2) + jnp.where(x[0] > 1e9, jnp.sqrt(-jnp.abs(x[0]) - 1), 0.0), "the gradient of log_d"),
        (lambda x: jnp.sum(jnp.log(x - 5.0)), "log_density is NaN at the start"),
    ],
)
def test_what_cannot_be_fitted_is_an_error(log_density, words):
    with pytest.raises(ValueError, match=words):
        fit(vk.make_target(log_density, 2))


def test_data_that_are_ignored_do_no_harm():
    target = vk.make_target(lambda x, data: jnp.sum(norm.logpdf(x)), 1, data={"y": [1.0, 2.0]})
    posterior = fit(target)
    assert posterior.report.reliable
    assert posterior.report.coordinates["x[0]"].sd == pytest.approx(1, abs=0.1)


def test_double_precision(x64):
    posterior = fit(vk.make_target(lambda x: -0.5 * jnp.sum((x - 1) ** 2) - 1e7, 2))
    assert posterior.report.reliable, posterior.report.reason
    np.testing.assert_allclose(posterior.mean, 1.0, atol=0.1)
    assert posterior.draws.dtype == np.float64


def test_tails_that_draws_do_not_reach_are_seen():
    """A tenth of an elliptical t of 4 degrees of freedom lies where no draw of the best Gaussian is; k̂ is below 0.7."""
    target = vk.make_target(lambda x: -7.0 * jnp.log1p(jnp.sum(x**2) / 4), 10)
    posterior = fit(target, max_evaluations=10_000)  # too few for a flow
    assert posterior.report.khat < posterior.report.khat_threshold
    assert not posterior.report.reliable
    assert "its tails are too light" in posterior.report.reason
    assert "beyond the budget" in posterior.report.story[-1]


@pytest.mark.parametrize("width", [10.0, 20.0])
def test_little_mass_far_out_counts_by_its_variance(width):
    """Three percent of the mass, so wide that they hold most of the variance; the weights hardly see them."""

    def log_density(x):
        far = jnp.log(0.03) - 0.5 * jnp.sum(x**2) / width**2 - jnp.log(width)
        return jnp.logaddexp(jnp.log1p(-0.03) - 0.5 * jnp.sum(x**2), far)

    posterior = fit(vk.make_target(log_density, 1), max_evaluations=15_000)  # too few for a mixture
    assert posterior.report.khat < posterior.report.khat_threshold
    assert not posterior.report.reliable
    assert "its tails are too light" in posterior.report.reason


def test_a_quantity_that_no_family_makes_finite_ends_the_climb():
    def log_density(x):
        return -0.5 * x["a"] ** 2 - 0.5 * x["b"] ** 2

    posterior = fit(vk.make_target(log_density, {"a": 0.0, "b": 0.0}, derived=lambda x: {"r": jnp.log(x["a"] - 1)}))
    assert not posterior.report.reliable
    assert "r is not finite at draws of q" in posterior.report.reason
    assert not any(line.startswith("Flow") for line in posterior.report.story)


def test_the_bar_says_what_is_fitted(capfd):
    fit(two_modes(), progress=True)
    shown = capfd.readouterr().err
    for what in ("a Gaussian", "other modes", "a mixture"):
        assert f"fitting {what}" in shown


# --- longer ones ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_flow_where_a_gaussian_will_not_do():
    target = vk.targets.load("funnel")
    posterior = fit(target)
    assert any(line.startswith("Flow") for line in posterior.report.story)
    assert 1.0 < posterior.report.compile_seconds < posterior.report.seconds  # the flow's too
    flagged_or_right = not posterior.report.reliable or abs(float(posterior.report.log_normalizer.value)) < 0.1
    assert flagged_or_right
    assert posterior.report.seconds < 150


@pytest.mark.slow
def test_too_little_time_for_a_flow_is_said():
    began = time.perf_counter()
    posterior = fit(vk.targets.load("funnel"), max_seconds=5)
    assert time.perf_counter() - began < 20
    assert not posterior.report.reliable
    assert "budget" in posterior.report.stopped
    assert not any("Adam" in line for line in posterior.report.story)


@pytest.mark.slow
def test_a_signal_while_a_flow_compiles_keeps_the_best_so_far():
    """Control-C, at whatever second it comes: some of these meet the compiler, some the steps."""
    target = vk.targets.load("funnel")
    fit(target, max_seconds=9)  # so that the first rungs compile nothing
    for delay in (1.0, 3.0, 12.0):
        timer = threading.Timer(delay, signal.raise_signal, [signal.SIGINT])
        timer.start()
        try:
            posterior = fit(target, callback=lambda progress: False)
        finally:
            timer.cancel()
        assert posterior.report.stopped == "interrupted"
        assert not posterior.report.reliable


@pytest.mark.slow
@pytest.mark.parametrize("max_seconds", [10.0, 60.0])
def test_a_density_of_two_seconds(max_seconds):
    def slow(x):
        time.sleep(2.0)
        return np.float32(-0.5 * np.sum(np.asarray(x) ** 2))

    @jax.custom_jvp
    def log_density(x):
        return jax.pure_callback(slow, jax.ShapeDtypeStruct((), jnp.float32), x, vmap_method="sequential")

    log_density.defjvp(lambda primals, tangents: (log_density(*primals), -jnp.sum(primals[0] * tangents[0])))
    began, target = time.perf_counter(), vk.make_target(log_density, 2)
    if max_seconds < 8 * 2.0:
        with pytest.raises(ValueError, match="before the first step was done"):
            fit(target, max_seconds=max_seconds)
    else:
        assert not fit(target, max_seconds=max_seconds).report.reliable
    assert time.perf_counter() - began < 1.3 * max_seconds + 20  # it takes eight evaluations to know how long one is


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_five_thousand_coordinates(correlation):
    def log_density(x):
        return -0.5 * (x[0] ** 2 + jnp.sum((x[1:] - correlation * x[:-1]) ** 2) / (1 - correlation**2))

    posterior = fit(vk.make_target(log_density, 5_000), max_seconds=60)
    assert posterior.report.seconds < 100
    if correlation:
        assert not posterior.report.reliable
    else:
        assert max(abs(row.mean) for row in posterior.report.coordinates.values()) < 0.3
