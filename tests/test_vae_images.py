"""The VAE experiment's reader of local image files, its exact check and its losses."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "experiments"
NAMES = ("images", "model", "losses", "linear")


@pytest.fixture(scope="module")
def vae():
    """Import the experiment's modules, and leave no trace of their short names."""
    pytest.importorskip("flax")
    sys.path[:0] = [str(FOLDER / "vae")]
    sys.path.append(str(FOLDER))
    held = {name: sys.modules.pop(name, None) for name in NAMES}
    try:
        yield type("Modules", (), {name: importlib.import_module(name) for name in NAMES})
    finally:
        sys.path.remove(str(FOLDER / "vae"))
        for name, module in held.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


@pytest.fixture(autouse=True)
def as_users_run():
    """Experiments run under JAX's own defaults."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def _file(path, **arrays):
    np.savez(path / "made_up.npz", **arrays)
    return path / "made_up.npz"


def test_reads_keras_layout(vae, tmp_path):
    rng = np.random.default_rng(0)
    train = rng.integers(0, 256, (12, 28, 28)).astype(np.uint8)
    test = rng.integers(0, 256, (3, 28, 28)).astype(np.uint8)
    labels = np.array([3, 1, 4])
    found = vae.images.from_file(_file(tmp_path, x_train=train, y_train=np.zeros(12), x_test=test, y_test=labels))
    assert [len(part) for part in found[:3]] == [10, 2, 3]
    assert np.allclose(found.train, train[:10].reshape(10, 784) / 255)
    assert np.allclose(found.validation, train[10:].reshape(2, 784) / 255)
    assert np.allclose(found.test, test.reshape(3, 784) / 255)
    assert np.array_equal(found.test_labels, labels)


def test_reads_binary_parts_as_they_are(vae, tmp_path):
    parts = {name: np.eye(784, dtype=np.uint8)[:size] for name, size in (("train", 5), ("valid", 2), ("test", 3))}
    found = vae.images.from_file(_file(tmp_path, **parts))
    assert found.test_labels is None
    assert [part.sum() for part in found[:3]] == [5, 2, 3]
    assert np.array_equal(vae.images.binarized(found.test, seed=0), found.test)


IMAGES = np.zeros((4, 28, 28), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"a": IMAGES}, "expected an npz file with x_train and x_test, or train, valid and test, got a$"),
        ({"x_train": IMAGES, "x_test": IMAGES[:, :8, :8]}, r"x_test: expected numbers of shape .* got uint8 of shape"),
        ({"x_train": IMAGES[:0], "x_test": IMAGES}, r"x_train: expected numbers of shape"),
        ({"x_train": IMAGES.astype(str), "x_test": IMAGES}, r"x_train: expected numbers"),
        ({"x_train": IMAGES[:1], "x_test": IMAGES}, "x_train: expected at least two images"),
        ({"x_train": IMAGES, "x_test": IMAGES - 1.0}, "x_test: expected pixels from 0 to 255"),
        ({"x_train": IMAGES, "x_test": IMAGES * np.nan}, "x_test: expected pixels from 0 to 255"),
        ({"x_train": IMAGES.astype(object), "x_test": IMAGES}, "something that is no npz file of numbers"),
        ({"x_train": IMAGES, "x_test": IMAGES, "y_test": np.zeros(3)}, "y_test: expected one label"),
    ],
)
def test_refuses_another_file_by_one_sentence(vae, tmp_path, arrays, sentence):
    with pytest.raises(SystemExit, match=sentence):
        vae.images.from_file(_file(tmp_path, **arrays))


def test_refuses_what_is_no_npz(vae, tmp_path):
    with pytest.raises(SystemExit, match="no such file"):
        vae.images.from_file(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(SystemExit, match="something that is no npz file of numbers"):
        vae.images.from_file(tmp_path / "text.npz")
    np.save(tmp_path / "one.npy", IMAGES)
    with pytest.raises(SystemExit, match="something that is no npz"):
        vae.images.from_file(tmp_path / "one.npy")


def test_files_of_one_name_are_told_apart(vae, tmp_path):
    first = vae.images.from_file(_file(tmp_path, x_train=IMAGES, x_test=IMAGES))
    again = vae.images.from_file(_file(tmp_path, x_train=IMAGES, x_test=IMAGES))
    other = vae.images.from_file(_file(tmp_path, x_train=IMAGES, x_test=IMAGES + np.uint8(1)))
    assert re.fullmatch("[0-9a-f]{12}", vae.images.digest(first))
    assert vae.images.digest(first) == vae.images.digest(again) != vae.images.digest(other)


def test_fewer_images_than_a_batch_is_one_sentence(tmp_path):
    pytest.importorskip("flax")
    path = _file(tmp_path, x_train=IMAGES, x_test=IMAGES)
    command = [sys.executable, "run.py", "--data", str(path), "--folder", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=FOLDER / "vae", capture_output=True, text=True, check=False)
    sentence = f"{path}: expected at least 100 images to train on, a batch, got 3"
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (1, sentence)
    assert not (tmp_path / "run").exists()


def test_closed_form_of_the_linear_vae_is_its_likelihood(vae):
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(40, 3)) @ rng.normal(size=(3, 5)) + 0.3 * rng.normal(size=(40, 5))).astype(np.float32)
    exact = vae.linear.optimum(x, 2)
    covariance = exact.weights @ exact.weights.T + exact.noise * np.eye(5)
    centered = x - exact.center
    quadratic = np.einsum("ni,ij,nj->n", centered, np.linalg.inv(covariance), centered).mean()
    log_likelihood = -0.5 * (5 * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + quadratic)
    assert exact.log_likelihood == pytest.approx(log_likelihood, abs=1e-9)
    model = vae.linear.at_optimum(exact)
    assert float(model.elbo(jnp.asarray(x)).mean()) == pytest.approx(log_likelihood, abs=1e-5)
    # q is the posterior there: every draw has the same weight.
    bounds = [np.asarray(model.bound(jnp.asarray(x), jax.random.key(num), num)) for num in (1, 10)]
    assert np.allclose(bounds[0], bounds[1], atol=1e-4)
