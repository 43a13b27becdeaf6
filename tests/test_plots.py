"""Figures: what they show, not how they look."""

import io
from dataclasses import replace

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from scipy import stats

import vi_kit as vk
from vi_kit import plots
from vi_kit._comparison import FORWARD, REVERSE, compare
from vi_kit._comparison_figure import comparison_figure
from vi_kit._density import density
from vi_kit._posterior import make_posterior
from vi_kit._resolve import resolve
from vi_kit.targets._reference import reference_from_draws


@pytest.fixture(scope="module")
def posterior():
    target = vk.make_target(
        lambda x: -0.5 * (x["a"] - 1.0) ** 2 - x["b"],
        {"a": 0.0, "b": 1.0},
        support={"b": vk.support.positive},
        log_normalizer=0.5 * np.log(2 * np.pi),
    )
    return vk.fit(jax.random.key(0), target, num_steps=300, progress=False)


@pytest.fixture(scope="module")
def reference():
    rng = np.random.default_rng(0)
    return reference_from_draws(
        {"a": 1.0 + rng.standard_normal(2_000), "b": rng.exponential(size=2_000)},
        provenance="test",
        log_normalizer=0.5 * np.log(2 * np.pi),
    )


def shown(figure):
    return [axes for axes in figure.axes if axes.get_visible()]


def words(figure):
    return " ".join(text.get_text() for text in figure.findobj(mpl.text.Text))


def test_elbo_shows_history_band_losses_and_log_z(posterior, reference):
    axes = shown(plots.elbo(posterior, reference=reference))[0]
    lines = {line.get_label().split(" (")[0]: line for line in axes.get_lines()}
    history = posterior.history
    np.testing.assert_allclose(lines["ELBO"].get_xdata(), history.elbo_step)
    np.testing.assert_allclose(lines["ELBO"].get_ydata(), history.elbo)
    np.testing.assert_allclose(lines["minus the loss at each step"].get_ydata(), -history.loss, rtol=1e-6)
    (log_z,) = [line for label, line in lines.items() if label.startswith("log Z")]
    np.testing.assert_allclose(log_z.get_ydata(), 0.5 * np.log(2 * np.pi), rtol=1e-6)
    band = axes.collections[0].get_paths()[0].vertices
    assert np.isclose(band[:, 1].max(), (history.elbo + 2 * history.elbo_standard_error).max(), rtol=1e-6, atol=1e-6)
    assert "nats" in axes.get_ylabel()
    low, high = axes.get_ylim()
    assert low < history.elbo[-1] < high
    assert low < log_z.get_ydata()[0] < high


def test_forward_kl_losses_are_not_drawn_as_elbos(posterior):
    forward = replace(posterior, report=replace(posterior.report, objective="forward KL(p‖q), exact draws"))
    labels = [line.get_label() for line in shown(plots.elbo(forward))[0].get_lines()]
    assert "minus the loss at each step" not in labels


def test_marginals_have_one_panel_a_coordinate_over_the_reference(posterior, reference):
    figure = plots.marginals(posterior, reference=reference, title="small")
    assert [axes.get_title() for axes in shown(figure)] == ["a", "b"]
    assert all(len(axes.collections) == 1 and len(axes.get_lines()) == 1 for axes in shown(figure))
    assert "small" in words(figure)
    assert "reference draws" in words(figure)
    without = plots.marginals(posterior)
    assert all(not axes.collections for axes in shown(without))
    assert "no reference draws" in words(without)


def test_marginals_leave_out_and_say_so(posterior):
    draws = {"many": np.random.default_rng(0).standard_normal((200, 30))}
    large = make_posterior(None, posterior.family, posterior.params, posterior.report, posterior.history, draws)
    figure = plots.marginals(large)
    assert len(shown(figure)) == 24
    assert "6 were left out" in words(figure)


def test_draws_that_are_not_finite_do_not_break_a_figure(posterior):
    draws = {"a": np.full(200, np.nan), "b": np.ones(200)}
    broken = make_posterior(None, posterior.family, posterior.params, posterior.report, posterior.history, draws)
    plots.marginals(broken, io.BytesIO())


def test_overview_through_the_posterior(posterior, reference, tmp_path):
    figure = posterior.plot(tmp_path / "fit.png", reference=reference)
    assert (tmp_path / "fit.png").read_bytes().startswith(b"\x89PNG")
    assert len(shown(figure)) == 3
    stream = io.BytesIO()
    plots.elbo(posterior, stream)
    assert stream.getvalue().startswith(b"\x89PNG")


def test_drawing_leaves_pyplot_alone(posterior):
    backend = mpl.rcParams._get("backend")
    plots.overview(posterior)
    assert mpl.rcParams._get("backend") is backend
    assert not mpl._pylab_helpers.Gcf.figs


def test_density_of_a_normal():
    values = np.random.default_rng(0).standard_normal(4_000)
    points = np.linspace(-4, 4, 401)
    estimate = density(values, points)
    assert abs(np.trapezoid(estimate, points) - 1) < 0.01
    assert np.abs(estimate - stats.norm.pdf(points)).max() < 0.04


def test_density_keeps_the_mass_of_a_bounded_variable_on_its_side():
    values = np.random.default_rng(0).exponential(size=4_000)
    points = np.linspace(-1, 8, 901)
    estimate = density(values, points)
    assert estimate[points < -0.01].max() == 0
    assert abs(np.trapezoid(estimate, points) - 1) < 0.02
    assert estimate[np.searchsorted(points, 0.05)] > 0.8  # 0.95; half of it without the reflection


def test_density_keeps_two_modes_apart():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(-3, 0.3, 2_000), rng.normal(3, 0.3, 2_000)])
    at = density(values, np.array([-3.0, 0.0, 3.0]))
    truth = 0.5 * stats.norm.pdf(0, scale=0.3)
    np.testing.assert_allclose(at, [truth, 0, truth], rtol=0.15, atol=1e-6)


@pytest.mark.slow
def test_comparison_draws_each_q_one_and_two_sds_from_its_peak():
    resolved = resolve("mixture")
    comparison = compare(resolved, seed=0, num_steps=300, max_seconds=60.0, progress=False)
    figure = comparison_figure(comparison, resolved)
    left, right = shown(figure)
    contours = [c for c in left.collections if len(c.get_paths()) == 2]
    assert len(contours) == 2
    for contour, name in zip(contours, (REVERSE, FORWARD), strict=True):
        q = comparison.fits[name].family.dist(comparison.fits[name].params)
        center, factor = np.asarray(q.mean()), np.linalg.cholesky(np.asarray(q.covariance(), np.float64))
        for path, distance in zip(contour.get_paths(), (2.0, 1.0), strict=True):
            inside = path.vertices[(path.vertices != 0).any(axis=1)]
            radius = np.linalg.norm(np.linalg.solve(factor, (inside - center).T), axis=0)
            np.testing.assert_allclose(radius, distance, atol=0.05)
    for line in right.get_lines():
        assert abs(np.trapezoid(line.get_ydata(), line.get_xdata()) - 1) < 0.02
    filled = right.collections[0].get_paths()[0].vertices
    heights = [filled[np.abs(filled[:, 0] - at).argmin() :, 1].max() for at in (-3.0, 3.0)]
    np.testing.assert_allclose(heights[1], 0.35 * stats.norm.pdf(0, scale=0.9), rtol=0.05)
    assert "KL(p‖q) =" in words(figure)


def test_comparison_of_an_interrupted_run_draws_what_is_there(posterior):
    resolved = resolve("mixture")
    comparison = compare(resolved, seed=0, num_steps=300, max_seconds=60.0, progress=False)
    alone = replace(comparison, fits={REVERSE: comparison.fits[REVERSE]})
    figure = comparison_figure(alone, resolved)
    assert len(shown(figure)[1].get_lines()) == 1
    assert jnp.isfinite(comparison.reverse[REVERSE].estimate.value)
