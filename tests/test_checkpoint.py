"""A fit that goes on from a checkpoint is the fit that never stopped."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vi_kit as vk
from vi_kit import _checkpoint
from vi_kit._checkpoint import Checkpoint

SEED = 5


class StoppedError(Exception):
    """What a machine that is taken away does to a fit."""


def stop_after(step):
    def callback(progress):
        if progress.step >= step:
            raise StoppedError
        return False

    return callback


def target(scale=1.0):
    return vk.make_target(lambda x, data: -0.5 * jnp.sum((x - data) ** 2 / scale), 3, data=jnp.arange(3.0))


def algorithm(rate=1e-2):
    objective = vk.objectives.ReverseKL(vk.families.MeanField(3), num_samples=4)
    return vk.algorithms.GradientDescent(objective, optax.adam, learning_rate=rate)


def equal(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b))


def test_a_resumed_fit_is_the_fit(tmp_path):
    path = tmp_path / "run.npz"
    whole = vk.fit(jax.random.key(SEED), target(), algorithm(), num_steps=400, progress=False)
    with pytest.raises(StoppedError):
        vk.fit(
            jax.random.key(SEED),
            target(),
            algorithm(),
            num_steps=400,
            progress=False,
            checkpoint=path,
            callback=stop_after(100),
        )
    seen = []
    again = vk.fit(
        jax.random.key(SEED),
        target(),
        algorithm(),
        num_steps=400,
        progress=False,
        checkpoint=path,
        callback=lambda p: seen.append(p.step),
    )
    assert seen[0] > 100  # it went on, and did not begin anew
    assert equal(again.params, whole.params)
    assert equal(again.draws, whole.draws)
    assert np.array_equal(again.history.loss, whole.history.loss)
    assert again.report.steps == 400
    # A third call has nothing left to do.
    third = vk.fit(
        jax.random.key(SEED),
        target(),
        algorithm(),
        num_steps=400,
        progress=False,
        checkpoint=path,
        callback=stop_after(0),
    )
    assert equal(third.params, whole.params)


def test_a_resumed_ladder_is_the_ladder_and_evaluates_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(_checkpoint, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(_checkpoint, "_SHARE", 1e9)
    path = tmp_path / "ladder"
    cubic = vk.make_target(lambda x: -0.5 * jnp.sum(x**2) - 0.1 * jnp.sum(jnp.cosh(x - 0.5)), 2)
    whole = vk.fit(jax.random.key(SEED), cubic, progress=False)
    with pytest.raises(StoppedError):
        vk.fit(jax.random.key(SEED), cubic, progress=False, checkpoint=path, callback=stop_after(3))
    held = Checkpoint(path, {})
    assert any(name.startswith("points/") for name in held.arrays)
    again = vk.fit(jax.random.key(SEED), cubic, progress=False, checkpoint=path)
    assert equal(again.params, whole.params)
    assert again.report.reason == whole.report.reason
    assert again.report.evaluations == whole.report.evaluations

    def refuse(*_):
        raise AssertionError("a point was evaluated again")

    monkeypatch.setattr("vi_kit._evaluator._evaluate", refuse)
    monkeypatch.setattr("vi_kit._evaluator.Evaluator._time", lambda *_: None)
    assert equal(vk.fit(jax.random.key(SEED), cubic, progress=False, checkpoint=path).params, whole.params)


@pytest.mark.slow
def test_a_resumed_flow_is_the_flow(tmp_path):
    path = tmp_path / "flow"
    exponential = vk.make_target(lambda x: -jnp.sum(x), 17, support=vk.support.positive)  # too many for a mixture
    whole = vk.fit(jax.random.key(SEED), exponential, progress=False)
    assert whole.report.family.startswith("Flow")
    with pytest.raises(StoppedError):
        vk.fit(jax.random.key(SEED), exponential, progress=False, checkpoint=path, callback=stop_after(600))
    again = vk.fit(jax.random.key(SEED), exponential, progress=False, checkpoint=path)
    assert equal(again.params, whole.params)


@pytest.mark.parametrize(
    ("key", "scale", "rate", "word"),
    [(1, 1.0, 1e-2, "key"), (0, 2.0, 1e-2, "log density"), (0, 1.0, None, "algorithm")],
)
def test_the_checkpoint_of_another_fit_is_refused_and_left_alone(tmp_path, key, scale, rate, word):
    path = tmp_path / "run.npz"
    vk.fit(jax.random.key(0), target(), algorithm(), num_steps=20, progress=False, checkpoint=path)
    before = path.read_bytes()
    other = vk.algorithms.NaturalGradient(vk.families.MeanField(3)) if rate is None else algorithm(rate)
    with pytest.raises(ValueError, match=f"belongs to another fit, with another .*{word}"):
        vk.fit(jax.random.key(key), target(scale), other, num_steps=20, progress=False, checkpoint=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("what", ["a schedule", "a transform", "given draws", "a constant of the density"])
def test_what_a_name_does_not_show_makes_another_fit(tmp_path, what):
    path = tmp_path / "run.npz"
    family = vk.families.MeanField(3)

    def run(number):
        density, how = target(), algorithm()
        if what == "a schedule":
            how = algorithm(optax.constant_schedule(number))
        elif what == "a transform":
            how = vk.algorithms.GradientDescent(vk.objectives.ReverseKL(family), optax.adam(number))
        elif what == "given draws":
            draws = number + jax.random.normal(jax.random.key(9), (50, 3))
            how = vk.algorithms.MomentMatching(vk.objectives.ForwardKL(family, vk.objectives.given(draws)))
        else:  # beside a constant that leaves two digits of it

            def log_density(x, data):
                return -1e6 - 0.5 * jnp.sum((x - data) ** 2) / number**2

            density = vk.make_target(log_density, 3, data=jnp.arange(3.0))
        start = family.init(jax.random.key(7), mean=jnp.ones(3))
        return vk.fit(jax.random.key(SEED), density, how, num_steps=8, progress=False, checkpoint=path, start=start)

    first = run(0.1)
    assert equal(run(0.1).params, first.params)
    with pytest.raises(ValueError, match="belongs to another fit"):
        run(0.3)


def test_fewer_steps_than_were_taken_are_refused(tmp_path):
    path = tmp_path / "run.npz"
    vk.fit(jax.random.key(SEED), target(), algorithm(), num_steps=20, progress=False, checkpoint=path)
    with pytest.raises(ValueError, match="has gone 20 steps, and num_steps asks for 5"):
        vk.fit(jax.random.key(SEED), target(), algorithm(), num_steps=5, progress=False, checkpoint=path)


@pytest.mark.parametrize("damage", ["half", "empty", "a byte", "a list"])
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path, damage):
    path = tmp_path / "run.npz"
    Checkpoint(path, {"key": "1"}).write(now=True)
    whole = path.read_bytes()
    if damage == "a list":
        np.savez(path, facts=np.array("[1, 2]"))
    else:
        flipped = whole[:60] + bytes([whole[60] ^ 255]) + whole[61:]
        path.write_bytes({"half": whole[: len(whole) // 2], "empty": b"", "a byte": flipped}[damage])
    with pytest.raises(ValueError, match=r"checkpoint: .* (is damaged|belongs to another)"):
        Checkpoint(path, {"key": "1"})


def test_a_disk_that_is_full_does_not_cost_the_fit(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(_checkpoint.np, "savez", full)
    with pytest.warns(UserWarning, match="cannot be written .*No space left"):
        posterior = vk.fit(
            jax.random.key(SEED), target(), algorithm(), num_steps=20, progress=False, checkpoint=tmp_path / "run"
        )
    assert posterior.report.steps == 20
    assert list(tmp_path.iterdir()) == []


def test_other_data_and_other_files_are_refused(tmp_path):
    path = tmp_path / "run.npz"
    vk.fit(jax.random.key(0), target(), algorithm(), num_steps=20, progress=False, checkpoint=path)
    moved = vk.make_target(lambda x, data: -0.5 * jnp.sum((x - data) ** 2), 3, data=jnp.ones(3))
    with pytest.raises(ValueError, match="with another target"):
        vk.fit(jax.random.key(0), moved, algorithm(), num_steps=20, progress=False, checkpoint=path)
    (tmp_path / "notes.npz").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.npz is damaged or was not written by vk\.fit"):
        vk.fit(
            jax.random.key(0), target(), algorithm(), num_steps=20, progress=False, checkpoint=tmp_path / "notes.npz"
        )
    assert (tmp_path / "notes.npz").read_text() == "mine"
