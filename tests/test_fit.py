"""`fit`: answers, budgets, starts, callbacks, interruption, and what a second fit costs."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from clock import unhurried
from jax.scipy.stats import norm

import vi_kit as vk

NUM_STEPS = 400


def make(center=1.0):
    """Build the same model afresh: a correlated normal pair and a log-normal scale."""

    def log_density(x, data):
        first = norm.logpdf(x["a"], data["center"], 1.0)
        second = norm.logpdf(x["b"], 0.5 * x["a"], 0.5)
        return first + second + norm.logpdf(jnp.log(x["c"]), 0.3, 0.4) - jnp.log(x["c"])

    return vk.make_target(
        log_density,
        {"a": 0.0, "b": 0.0, "c": 1.0},
        support={"c": vk.support.positive},
        data={"center": center},
        log_normalizer=0.0,
        derived=lambda x, data: {"product": x["a"] * x["b"]},
    )


@pytest.fixture(scope="module")
def posterior():
    with pytest.MonkeyPatch.context() as patch:
        unhurried(patch)
        return vk.fit(jax.random.key(1), make(), num_steps=2_000, progress=False)


def test_recovers_a_gaussian(posterior):
    report = posterior.report
    assert report.reliable, report.reason
    assert float(report.reverse_kl.value) < 1e-3  # the family holds the target exactly
    for label, mean, sd in [("a", 1.0, 1.0), ("b", 0.5, np.sqrt(0.5)), ("c", np.exp(0.3 + 0.08), None)]:
        row = report.coordinates[label]
        assert abs(row.mean - mean) < 5.3 * row.standard_error + 0.02, label
        if sd is not None:
            assert abs(row.sd - sd) < 5.3 * row.sd_standard_error + 0.02, label
    product = report.coordinates["product"]  # E[ab] = 0.5 E[a²] = 1
    assert abs(product.mean - 1.0) < 5.3 * product.standard_error + 0.03


def test_report_is_complete(posterior):
    report = posterior.report
    assert report.steps == 2_000
    assert report.stopped == "all steps taken"
    assert report.evaluations >= 2_000 * 16 + report.num_samples
    assert 0 < report.compile_seconds < report.seconds
    assert report.objective.startswith("reverse KL(q‖p)")
    assert report.versions["jax"] == jax.__version__
    assert report.device


def test_history(posterior):
    history = posterior.history
    assert history.loss.shape == (2_000,)
    assert len(history.elbo) == len(history.elbo_step) == len(history.elbo_standard_error) >= 5
    assert history.elbo_step[-1] == 2_000
    assert history.elbo[-1] > history.elbo[0]
    assert abs(history.elbo[-1]) < 0.01


def test_a_second_fit_compiles_nothing(compiles):
    def run(seed, center, rate):
        algorithm = vk.algorithms.GradientDescent(
            vk.objectives.ReverseKL(vk.families.MeanField(3), num_samples=4), optax.adam, learning_rate=rate
        )
        return vk.fit(jax.random.key(seed), make(center), algorithm, num_steps=NUM_STEPS, progress=False)

    first = run(0, 1.0, 1e-2)
    before = compiles()
    second = run(1, 3.0, 3e-2)
    assert compiles() == before
    assert second.report.coordinates["a"].mean > first.report.coordinates["a"].mean
    run_other = vk.fit(
        jax.random.key(2),
        make(),
        vk.algorithms.GradientDescent(
            vk.objectives.ReverseKL(vk.families.MeanField(3), num_samples=5), optax.adam, learning_rate=1e-2
        ),
        num_steps=NUM_STEPS,
        progress=False,
    )
    assert compiles() > before  # the control: another program is seen
    assert run_other.report.steps == NUM_STEPS


def test_default_fits_share_programs(compiles, monkeypatch):
    unhurried(monkeypatch)
    vk.fit(jax.random.key(4), make(), num_steps=2_000, progress=False)  # programs may be dropped between tests
    before = compiles()
    vk.fit(jax.random.key(5), make(2.0), num_steps=2_000, progress=False)
    assert compiles() == before


def small(**changes):
    objective = vk.objectives.ReverseKL(vk.families.MeanField(3), num_samples=4)
    return vk.algorithms.GradientDescent(objective, optax.adam, learning_rate=changes.pop("rate", 1e-2))


def fit_small(seed=0, target=None, **options):
    options = {"num_steps": NUM_STEPS, "progress": False, **options}
    return vk.fit(jax.random.key(seed), make() if target is None else target, small(), **options)


def test_same_key_same_answer():
    first, second, other = fit_small(3), fit_small(3), fit_small(4)
    np.testing.assert_array_equal(first.history.loss, second.history.loss)
    np.testing.assert_array_equal(first.draws["a"], second.draws["a"])
    assert not np.array_equal(first.history.loss, other.history.loss)


def test_callback_sees_progress_and_can_stop():
    seen = []

    def callback(progress):
        seen.append(progress)
        return progress.step >= 100

    posterior = fit_small(callback=callback)
    assert posterior.report.stopped == "the callback asked for it"
    assert [p.step for p in seen] == sorted({p.step for p in seen})
    assert posterior.report.steps == seen[-1].step < NUM_STEPS
    assert seen[-1].num_steps == NUM_STEPS
    assert np.isfinite(float(seen[-1].elbo.value))
    jax.tree.map(np.testing.assert_array_equal, seen[-1].params, posterior.params)


def test_interrupt_keeps_the_best_so_far():
    def callback(progress):
        if progress.step >= 100:
            raise KeyboardInterrupt

    posterior = fit_small(callback=callback)
    assert posterior.report.stopped.startswith("interrupted")
    assert 100 <= posterior.report.steps < NUM_STEPS
    assert posterior.draws["a"].shape == (posterior.report.num_samples,)


def test_budgets():
    by_evaluations = fit_small(max_evaluations=400)
    assert 10 <= by_evaluations.report.steps <= 100
    assert by_evaluations.report.evaluations <= 400
    assert "400 evaluations" in by_evaluations.report.stopped
    by_seconds = fit_small(num_steps=10_000_000, max_seconds=0.5)
    assert "seconds" in by_seconds.report.stopped
    assert by_seconds.report.seconds < 10


def test_warm_start(posterior):
    def first_loss(start, algorithm):
        fitted = vk.fit(jax.random.key(0), make(), algorithm, num_steps=2, start=start, progress=False)
        return float(fitted.history.loss[0])

    full = vk.algorithms.GradientDescent(vk.objectives.ReverseKL(vk.families.FullRank(3)), optax.adam)
    assert abs(first_loss(posterior, full)) < 1e-2  # already at the optimum: the loss is −log Z = 0
    assert abs(first_loss(posterior.params, full)) < 1e-2
    assert first_loss(None, full) > 0.5
    # From a richer family: mean and standard deviations are taken over.
    mean_field = fit_small(start=posterior, num_steps=1)
    np.testing.assert_allclose(mean_field.params.mean, posterior.params.mean, atol=0.05)
    at_point = fit_small(start={"a": 2.0, "b": -1.0, "c": 3.0}, num_steps=1)
    np.testing.assert_allclose(at_point.params.mean, [2.0, -1.0, np.log(3.0)], atol=0.05)


@pytest.mark.parametrize(
    ("start", "error", "words"),
    [
        ({"a": 0.0, "b": 0.0, "c": -1.0}, ValueError, "start: the point lies outside the support"),
        ({"a": 0.0}, TypeError, "start: expected a Posterior"),
        ("nonsense", TypeError, "start: expected a Posterior"),
        (vk.families.MeanField(2).init(jax.random.key(0)), ValueError, "start: expected parameters of"),
        (
            vk.families.MeanFieldParams(mean=jnp.full(3, jnp.nan), log_scale=jnp.zeros(3)),
            ValueError,
            "start: the parameters hold",
        ),
    ],
)
def test_bad_start(start, error, words):
    with pytest.raises(error, match=words):
        fit_small(start=start)


@pytest.mark.parametrize(
    ("make_density", "error", "words"),
    [
        (lambda: lambda x: -0.5 * x**2, ValueError, "log_density must return one scalar"),
        (lambda: lambda x: jnp.sum(x).astype(jnp.int32), TypeError, "floating-point"),
        (lambda: lambda x: jnp.zeros(()), ValueError, "log_density does not depend on x"),
        (lambda: lambda x: 1.5, ValueError, "log_density does not depend on x"),
        (lambda: lambda x: jnp.sum(jnp.log(x - 5.0)), ValueError, "log_density is NaN at the start"),
        (lambda: lambda x: jnp.where(x[0] > 1e6, jnp.sum(x), -jnp.inf), ValueError, "log_density is −∞ at the start"),
    ],
)
def test_bad_models(make_density, error, words):
    target = vk.make_target(make_density(), 3)
    with pytest.raises(error, match=words):
        fit_small(target=target)
    check = vk.check(jax.random.key(0), target)
    assert not check.ok
    assert words in check.problems[0]


def test_a_bad_scale_in_the_data_is_named():
    target = vk.make_target(
        lambda x, data: jnp.sum(norm.logpdf(data["y"], x[0], data["sigma"])) + jnp.sum(norm.logpdf(x)),
        3,
        data={"y": [1.0, 2.0], "sigma": [1.0, -2.0]},
    )
    with pytest.raises(ValueError, match=r"data\['sigma'\] should be positive, its smallest value is -2"):
        fit_small(target=target)
    assert "data['sigma']" in vk.check(jax.random.key(0), target).problems[0]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"num_steps": 0}, ValueError, "num_steps"),
        ({"num_steps": 2.5}, TypeError, "num_steps"),
        ({"max_evaluations": 0}, ValueError, "max_evaluations"),
        ({"max_seconds": "1"}, ValueError, "max_seconds"),
        ({"callback": 3}, TypeError, "callback"),
        ({"max_seconds": 0.0}, ValueError, "max_seconds"),
    ],
)
def test_bad_options(options, error, words):
    with pytest.raises(error, match=words):
        fit_small(**options)


def test_bad_arguments(key):
    with pytest.raises(TypeError, match="key: expected a typed key"):
        vk.fit(jax.random.PRNGKey(0), make())
    with pytest.raises(TypeError, match="target: expected a Target"):
        vk.fit(key, lambda x: 0.0)
    with pytest.raises(TypeError, match="algorithm: expected"):
        vk.fit(key, make(), optax.adam(1e-2))
    algorithm = vk.algorithms.GradientDescent(vk.objectives.ReverseKL(vk.families.MeanField(2)), optax.adam)
    with pytest.raises(ValueError, match="its family has dim 2, the target has 3"):
        vk.fit(key, make(), algorithm)


def test_nonfinite_steps_are_skipped_and_counted():
    # The density is NaN far out: some steps meet it, the fit survives and says how many.
    def log_density(x):
        return jnp.sum(norm.logpdf(x)) + jnp.where(x[0] > 1.5, jnp.nan, 0.0)

    posterior = fit_small(target=vk.make_target(log_density, 3))
    assert 0 < posterior.report.nonfinite_steps < NUM_STEPS
    assert not posterior.report.reliable
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(posterior.params))


def test_gives_up_when_every_step_is_not_finite():
    # Finite at the center, where the start is judged, NaN everywhere else.
    def log_density(x):
        return jnp.where(jnp.all(x == 0), 0.0, jnp.nan) + jnp.sum(x) * 0

    posterior = fit_small(target=vk.make_target(log_density, 3), num_steps=5_000)
    assert "25 steps in a row were not finite: log_density is not finite at 64 of 64" in posterior.report.stopped
    assert posterior.report.steps < 1_000
    assert not posterior.report.reliable


def test_what_a_function_reads_may_change_between_fits():
    """A notebook's most ordinary move: another value of a global, the same cell again."""
    namespace = {"jnp": jnp, "make_target": vk.make_target}
    exec("def build():\n    return make_target(lambda x: -0.5 * jnp.sum((x - center) ** 2), 3)", namespace)
    exec("def log_density(x):\n    return -0.5 * jnp.sum((x - center) ** 2)", namespace)
    target = None
    for center in (1.0, 3.0, 10.0):
        namespace["center"] = center
        target = target or vk.make_target(namespace["log_density"], 3)
        for changed in (namespace["build"](), target):
            fitted = fit_small(target=changed, start=jnp.full(3, center), num_steps=20)
            np.testing.assert_allclose(fitted.history.loss[-1], -1.5 * np.log(2 * np.pi), atol=0.3)


@pytest.mark.parametrize("budget", [{"max_seconds": 1.0}, {"max_evaluations": 150, "max_seconds": 60.0}])
def test_a_slow_density_stays_inside_its_budget(budget):
    def slow(x):
        time.sleep(0.005)
        return np.float32(-0.5 * np.sum(np.asarray(x) ** 2))

    @jax.custom_jvp
    def log_density(x):
        return jax.pure_callback(slow, jax.ShapeDtypeStruct((), jnp.float32), x, vmap_method="sequential")

    log_density.defjvp(lambda primals, tangents: (log_density(*primals), -jnp.sum(primals[0] * tangents[0])))
    began = time.perf_counter()
    posterior = fit_small(target=vk.make_target(log_density, 3), num_steps=100_000, **budget)
    assert "budget" in posterior.report.stopped
    assert time.perf_counter() - began < 20
    assert posterior.report.evaluations <= budget.get("max_evaluations", 2_000)
    assert not np.isnan(posterior.history.elbo_standard_error).any()
    assert "the last one was worse" not in posterior.report.stopped


def test_forward_kl_from_given_draws(key):
    first, second = jax.random.split(key)
    draws = {"a": 3.0 + 2.0 * jax.random.normal(first, (2_000,)), "c": jnp.exp(jax.random.normal(second, (2_000,)))}
    target = vk.targets.from_draws(draws, support={"c": vk.support.positive})
    posterior = vk.fit(jax.random.key(0), target, num_steps=2_000, progress=False)
    z = np.stack([np.asarray(draws["a"]), np.log(draws["c"])], axis=1)
    np.testing.assert_allclose(posterior.params.mean, z.mean(axis=0), atol=2e-3)
    q = posterior.family.dist(posterior.params)
    np.testing.assert_allclose(q.covariance(), np.cov(z.T), atol=2e-2)
    assert "forward KL(p‖q), given draws" in posterior.report.objective
    assert posterior.report.reliable
    assert posterior.report.elbo is None
    assert str(posterior.report)


def test_collapsed_weights_are_not_believed():
    # Forward KL from q's own draws in d = 3 against a target eight units away: the weights collapse.
    target = vk.make_target(lambda x: jnp.sum(norm.logpdf(x, 8.0, 0.05)), 3)
    objective = vk.objectives.ForwardKL(vk.families.MeanField(3), vk.objectives.self_normalized, num_samples=32)
    algorithm = vk.algorithms.GradientDescent(objective, optax.adam, learning_rate=1e-3)
    posterior = vk.fit(jax.random.key(0), target, algorithm, num_steps=50, progress=False)
    assert not posterior.report.reliable
    assert "self-normalized" in posterior.report.objective


def test_progress_bar_shows_the_elbo(capfd):
    fit_small(progress=True)
    shown = capfd.readouterr().err
    assert f"{NUM_STEPS}/{NUM_STEPS}" in shown
    assert "ELBO" in shown
    fit_small(progress=False)
    assert capfd.readouterr().err == ""


def test_a_fit_ends_when_its_algorithm_has_converged():
    target = vk.make_target(lambda x: -0.5 * jnp.sum((x - 1.0) ** 2), 2)
    algorithm = vk.algorithms.FixedDraws(vk.families.FullRank(2))
    report = vk.fit(jax.random.key(0), target, algorithm, num_steps=2_000, progress=False).report
    assert report.stopped == "the algorithm converged"
    assert report.steps < 2_000
    assert report.reliable
