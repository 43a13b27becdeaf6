"""What the experiments that train models share."""

import dataclasses
import itertools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent.parent / "experiments"))
import workbench


@dataclasses.dataclass(frozen=True)
class Settings:
    seeds: tuple[int, ...] = (0, 1)
    learning_rate: float = 1e-3


def test_a_run_goes_on_with_the_same_settings(tmp_path):
    run = workbench.Run(tmp_path / "run", Settings())
    tree = {"weights": jnp.arange(3.0), "key": jax.random.key(4), "step": jnp.asarray(7)}
    run.save("last", tree)
    run.finish("seed 0", {"bound": -1.0})
    again = workbench.Run(tmp_path / "run", Settings())
    found = again.restore("last", jax.tree.map(lambda leaf: leaf, tree))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), found, tree))
    assert (again.row("seed 0"), again.row("seed 1"), again.restore("none", tree)) == ({"bound": -1.0}, None, None)


def test_a_run_with_other_settings_is_refused_and_left_alone(tmp_path):
    workbench.Run(tmp_path, Settings())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SystemExit, match=r"other settings \(learning_rate = 0.001 there and 0.1 here\)"):
        workbench.Run(tmp_path, Settings(learning_rate=0.1))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@dataclasses.dataclass(frozen=True)
class Nested:
    steps: int = 3
    long: Settings = Settings()


def test_other_settings_are_named_by_where_they_stand(tmp_path):
    workbench.Run(tmp_path, Nested())
    workbench.Run(tmp_path, Nested())
    changed = Nested(long=Settings(learning_rate=0.1))
    with pytest.raises(SystemExit, match=r"settings \(long\.learning_rate = 0\.001 there and 0\.1 here\)"):
        workbench.Run(tmp_path, changed)


@pytest.mark.parametrize("below", ["", "/run"])
def test_a_folder_that_is_a_file_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SystemExit, match="expected a folder to keep the run in, got a file"):
        workbench.Run(Path(f"{tmp_path}/file{below}"), Settings())
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("content", [b"", b'{"seeds": [0', b"[1]", b"\xff\xfe"])
def test_damaged_settings_are_refused_and_left_alone(tmp_path, content):
    (tmp_path / "settings.json").write_bytes(content)
    with pytest.raises(SystemExit, match=r"settings\.json: expected the settings of a run, got something damaged"):
        workbench.Run(tmp_path, Settings())
    assert (tmp_path / "settings.json").read_bytes() == content


def test_a_checkpoint_of_other_shapes_is_refused(tmp_path):
    run = workbench.Run(tmp_path, Settings())
    run.save("last", jnp.zeros(3))
    with pytest.raises(SystemExit, match="other shapes"):
        run.restore("last", jnp.zeros(4))


def test_digits_are_dealt_once():
    parts = workbench.digits()
    assert [len(part["label"]) for part in parts] == [1258, 180, 359]
    rows = np.concatenate([part["image"].reshape(-1, 64) for part in parts])
    assert rows.sum() == pytest.approx(561718 / 16)  # every image once
    again = workbench.digits()
    assert all(np.array_equal(a["image"], b["image"]) for a, b in zip(parts, again, strict=True))


def test_minibatches_are_epochs_and_follow_the_seed():
    rows = {"x": np.arange(10), "y": np.arange(10) ** 2}
    batches = list(workbench.minibatches(rows, 3, seed=0, epochs=2))
    assert len(batches) == 6
    assert all(np.array_equal(batch["y"], batch["x"] ** 2) for batch in batches)
    first = np.concatenate([batch["x"] for batch in batches[:3]])
    assert len(set(first.tolist())) == 9
    endless = itertools.islice(workbench.minibatches(rows, 3, seed=0), 6)
    assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(batches, endless, strict=True))
    with pytest.raises(SystemExit, match="batch size: expected 1 to 10"):
        next(workbench.minibatches(rows, 11, seed=0))


def test_a_missing_package_is_named():
    with pytest.raises(SystemExit, match=r"no_such_package is not installed: pip install -e '\.\[models\]'"):
        workbench.require("no_such_package")


def test_summary_is_a_mean_with_its_error():
    assert workbench.summary([1.0, 3.0]) == {"mean": 2.0, "standard_error": 1.0, "values": [1.0, 3.0]}
    assert workbench.summary([1.0])["standard_error"] is None


def test_update_readme_replaces_what_it_is_asked_to(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- t -->\nold\n<!-- end of t -->\nb\n")
    workbench.update_readme(readme, "t", "new")
    assert readme.read_text() == "a\n<!-- t -->\n\nnew\n\n<!-- end of t -->\nb\n"
