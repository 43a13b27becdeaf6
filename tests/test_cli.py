"""The command line: what it prints, what it writes, and how it refuses."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import vi_kit
from vi_kit import _driver, _resolve
from vi_kit.cli import app

RUN_FILES = {"report.json", "draws.npz", "elbo.png", "marginals.png"}
SOURCE = """
import jax.numpy as jnp
import vi_kit as vk
from center_of_the_file import CENTER

def log_density(x, data):
    return -0.5 * jnp.sum((x["a"] - CENTER) ** 2) - 0.5 * jnp.sum(((data["y"] - x["a"][0]) / data["sigma"]) ** 2)

def build(sigma=1.0, density=log_density):
    return vk.make_target(density, {"a": jnp.zeros(2)}, data={"y": [0.5, 1.5], "sigma": [1.0, sigma]})

target = build()
def function(): return build()
def needs_something(what): return target
def fails(): raise KeyError("no such column")
def gives_nothing(): pass
number = 3
vector = build(density=lambda x, data: -x["a"] ** 2)
integer = build(density=lambda x, data: jnp.sum(x["a"] > 0))
constant = build(density=lambda x, data: jnp.asarray(1.0))
negative_scale = build(-1.0, lambda x, d: -jnp.sum((d["y"] - x["a"]) ** 2 / d["sigma"]) - jnp.sum(jnp.log(d["sigma"])))
branches = build(density=lambda x, data: -x["a"][0] if x["a"][0] > 0 else x["a"][0])
missing_key = build(density=lambda x, data: x["b"])
def bad_support(): return vk.make_target(lambda x: -x["a"] ** 2, {"a": 0.0}, support={"b": vk.support.positive})
"""
FAILING_LINE = 1 + SOURCE[: SOURCE.index("def fails")].count("\n")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to run in, with the user's own file in the folder beside it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def user(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    (folder / "my_model.py").write_text(SOURCE)
    (folder / "center_of_the_file.py").write_text("CENTER = 1.0\n")
    (folder / "broken.py").write_text("\nimport a_package_nobody_has\n")
    (folder / "syntax.py").write_text("x = = 1\n")
    before = list(sys.path)
    yield folder
    sys.path[:] = before


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    assert "Traceback" not in result.output
    assert "\x1b[" not in result.output  # no colors where there is no terminal
    return result


def refused(*arguments, code=2):
    """Run what must fail: one sentence on standard error, nothing on standard output, nothing written."""
    before = sorted(Path.cwd().rglob("*"))
    result = run(*arguments, code=code)
    assert sorted(Path.cwd().rglob("*")) == before
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("fitting ")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    return lines[0]


def report_of(folder):
    return json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))


def test_fit_eight_schools_writes_and_prints_everything(here):
    result = run("fit", "eight_schools", "--steps", 300)
    assert "fitting" in result.stderr
    printed = " ".join(result.stdout.split())
    for words in ("reference", "error in", "theta[7]", "tau", "ELBO", "±", "Pareto k̂", "effective draws"):
        assert words in printed
    folder = here / "runs" / "eight_schools"
    assert {path.name for path in folder.iterdir()} == RUN_FILES
    report = report_of(folder)
    assert report["seed"] == 0
    assert report["options"]["steps"] == 300
    assert report["steps"] == 300
    assert report["evaluations"] > 300 * 16
    assert report["seconds"] > 0
    assert report["device"]
    assert report["versions"]["vi_kit"]
    assert " ".join(report["reason"].split()) in printed
    assert set(report["files"]) == RUN_FILES
    theta = report["coordinates"]["theta[0]"]
    error = (theta["mean"] - theta["reference_mean"]) / theta["reference_sd"]
    assert theta["error_in_reference_sd"] == pytest.approx(error)
    assert report["reference"]["log_normalizer"] - report["elbo"]["value"] == pytest.approx(
        report["reverse_kl"]["value"]
    )
    with np.load(folder / "draws.npz", allow_pickle=False) as draws:
        assert set(draws.files) == {"eta", "mu", "tau", "theta"}
        assert draws["theta"].shape == (report["num_samples"], 8)
        assert (draws["tau"] > 0).all()
        theta = draws["mu"][:, None] + draws["tau"][:, None] * draws["eta"]
        np.testing.assert_allclose(draws["theta"], theta, rtol=1e-4, atol=1e-4)
        assert draws["mu"].mean() == pytest.approx(report["coordinates"]["mu"]["mean"], rel=1e-5)
    for name in ("elbo.png", "marginals.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_the_second_run_goes_beside_the_first(here):
    run("fit", "mixture", "--steps", 20, "--quiet")
    first = (here / "runs/mixture/report.json").read_bytes()
    result = run("fit", "mixture", "--steps", 20)
    run("fit", "mixture", "--steps", 20, "-q")
    assert {path.name for path in (here / "runs").iterdir()} == {"mixture", "mixture-2", "mixture-3"}
    assert "mixture-2" in result.stdout
    assert (here / "runs/mixture/report.json").read_bytes() == first


def test_quiet_prints_nothing(here):
    assert run("fit", "mixture", "--steps", 20, "--quiet").output == ""


@pytest.mark.slow
def test_family_objective_and_seed(here):
    run("fit", "mixture", "--steps", 300, "--objective", "forward-kl", "--family", "mean-field", "-q", "--seed", 3)
    report = report_of("runs/mixture")
    assert "MeanField" in report["family"]
    assert "forward KL" in report["objective"]
    assert "exact draws" in report["objective"]
    assert report["seed"] == 3
    assert report["options"]["objective"] == "forward-kl"
    assert report["coordinates"]["x[0]"]["sd"] > 2.5  # over both modes; 1.0 on one of them


def test_a_run_is_replaced_only_when_asked(here):
    run("fit", "mixture", "--steps", 20, "-q", "--out", "mine")
    mine = here / "mine"
    (mine / "notes.txt").write_text("keep me")
    before = {path.name: path.read_bytes() for path in mine.iterdir()}
    assert "--overwrite" in refused("fit", "mixture", "--steps", 21, "-q", "--out", "mine")
    assert {path.name: path.read_bytes() for path in mine.iterdir()} == before
    run("fit", "mixture", "--steps", 21, "-q", "--out", "mine", "--overwrite")
    assert report_of(mine)["steps"] == 21
    assert (mine / "notes.txt").read_text() == "keep me"
    assert {path.name for path in mine.iterdir()} == {*RUN_FILES, "notes.txt"}
    run("compare", "mixture", "--steps", 20, "-q", "--out", "mine", "--overwrite")
    assert {path.name for path in mine.iterdir()} == {"report.json", "compare.png", "notes.txt"}


def test_an_out_without_a_run_is_taken(here):
    (here / "mine").mkdir()
    (here / "mine" / "notes.txt").write_text("keep me")
    run("fit", "mixture", "--steps", 20, "-q", "--out", "mine")
    assert (here / "mine" / "notes.txt").read_text() == "keep me"


def test_a_file_is_no_folder(here):
    (here / "file").write_text("keep me")
    assert "is a file" in refused("fit", "mixture", "--out", "file")
    assert "not a folder" in refused("fit", "mixture", "--out", "file/below")
    assert (here / "file").read_text() == "keep me"


def test_a_write_that_fails_leaves_the_earlier_run(here, monkeypatch):
    run("fit", "mixture", "--steps", 20, "-q", "--out", "mine")
    before = {path.name: path.read_bytes() for path in (here / "mine").iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vi_kit._runs.os.fdopen", full)
    assert "No space left" in refused("fit", "mixture", "--steps", 20, "-q", "--out", "mine", "--overwrite", code=1)
    assert {path.name: path.read_bytes() for path in (here / "mine").iterdir()} == before
    refused("fit", "mixture", "--steps", 20, "-q", "--out", "other", code=1)
    assert not (here / "other").exists()


def test_a_target_from_the_users_file(here, user):
    result = run("fit", f"{user / 'my_model.py'}:target", "--steps", 300)
    assert "corrected" in result.stdout  # no reference to set beside it
    report = report_of("runs/target")
    # Precision of a[0]: 1 + 1 + 1, center (1 + 0.5 + 1.5) / 3; that of a[1]: 1, center 1.
    assert report["coordinates"]["a[0]"]["mean"] == pytest.approx(1.0, abs=0.1)
    assert report["coordinates"]["a[0]"]["sd"] == pytest.approx(3**-0.5, rel=0.1)
    assert report["coordinates"]["a[1]"]["sd"] == pytest.approx(1.0, rel=0.1)
    run("fit", f"{user / 'my_model.py'}:function", "--steps", 20, "-q")
    assert (here / "runs/function/report.json").exists()
    assert not list(user.glob("__pycache__/my_model*"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("targt", ["no 'targt'", "did you mean target"]),
        ("needs_something", ["no arguments", "what"]),
        ("fails", ["fails() in", f"line {FAILING_LINE}", "no such column"]),
        ("gives_nothing", ["should return a Target", "None"]),
        ("number", ["should be a Target", "int"]),
        ("vector", ["log_density", "one scalar", "(2,)"]),
        ("integer", ["log_density", "floating-point", "int"]),
        ("constant", ["log_density", "does not depend"]),
        ("negative_scale", ["data['sigma']", "positive", "-1"]),
        ("branches", ["log_density", "jnp.where"]),
        ("missing_key", ["log_density", "reads 'b'"]),
        ("bad_support", ["support", "'b'"]),
    ],
)
def test_the_users_mistakes_are_one_sentence(here, user, name, words):
    sentence = refused("fit", f"{user / 'my_model.py'}:{name}", "--steps", 50)
    for word in words:
        assert word in sentence


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("eight_school", ["eight_schools"]),
        ("mixtur", ["mixture"]),
        ("qqq", ["qqq", "vi-kit list"]),
        ("posteriordb:arK", ["--data"]),
        ("posteriordb:arKK", ["arK-arK"]),
        ("sampling:seds", ["seeds"]),
        ("no_such_file.py:target", ["no file", "no_such_file.py"]),
        ("no_such_file.py", ["FILE.py:NAME"]),
    ],
)
def test_unknown_targets_suggest_the_nearest(here, target, words):
    for command in ("fit", "compare"):
        sentence = refused(command, target)
        for word in words:
            assert word in sentence


def test_files_that_cannot_be_run(here, user):
    assert "a_package_nobody_has" in refused("fit", f"{user / 'broken.py'}:x")
    assert "SyntaxError" in refused("fit", f"{user / 'syntax.py'}:x")
    assert "did you mean" in refused("fit", f"{user / 'my_modle.py'}:target")


def test_data_folders(here):
    assert "no folder" in refused("fit", "posteriordb:arK", "--data", "nowhere")
    assert "arK-arK" in refused("fit", "posteriordb:arK", "--data", ".")
    assert "--data" in refused("fit", "mixture", "--data", ".")


def test_a_missing_extra_is_said(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels.datasets", None)
    monkeypatch.setitem(sys.modules, "statsmodels.datasets.nile", None)
    monkeypatch.setitem(sys.modules, "statsmodels.api", None)
    assert "pip install 'vi_kit[data]'" in refused("fit", "nile")


@pytest.mark.parametrize(
    "option", [("--steps", "0"), ("--family", "low-rank"), ("--objective", "alpha"), ("--seed", "-1"), ("--steps", "x")]
)
def test_bad_options(here, option):
    result = run("fit", "mixture", *option, code=2)
    assert option[0] in result.stderr
    assert not list(here.iterdir())


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_bad_seconds(here, seconds):
    assert "--max-seconds" in refused("fit", "mixture", "--max-seconds", seconds)


def test_debug_shows_the_traceback(here):
    result = CliRunner().invoke(app, ["fit", "mixtur", "--debug"])
    assert result.exit_code == 2
    assert "Traceback" in result.stderr


def interrupt_after(monkeypatch, chunks):
    """Press Ctrl-C after so many chunks of steps."""
    real, calls = _driver.advance, []

    def advance(*arguments, **keywords):
        calls.append(1)
        if len(calls) > chunks:
            raise KeyboardInterrupt
        return real(*arguments, **keywords)

    monkeypatch.setattr(_driver, "advance", advance)


def test_ctrl_c_saves_the_best_so_far(here, monkeypatch):
    interrupt_after(monkeypatch, 3)
    result = run("fit", "mixture", "--steps", 2_000, code=130)
    assert "Interrupted after" in result.stderr
    assert "runs/mixture" in result.stderr
    report = report_of("runs/mixture")
    assert report["stopped"].startswith("interrupted")
    assert 0 < report["steps"] < 2_000
    assert {path.name for path in (here / "runs/mixture").iterdir()} == RUN_FILES


def test_ctrl_c_before_the_first_step_writes_nothing(here, monkeypatch):
    interrupt_after(monkeypatch, 0)
    for command in ("fit", "compare"):
        result = run(command, "mixture", "--steps", 2_000, code=130)
        assert "nothing was written" in result.stderr
        assert not list(here.iterdir())


def test_ctrl_c_in_a_comparison_saves_what_is_there(here, monkeypatch):
    interrupt_after(monkeypatch, 3)
    result = run("compare", "mixture", "--steps", 2_000, code=130)
    assert "saved to" in result.stderr
    report = report_of("runs/mixture-compare")
    assert report["interrupted"] is True
    assert list(report["fits"]) == ["reverse KL"]


def test_compare_mixture_seeks_and_covers(here):
    result = run("compare", "mixture", "--steps", 1_000)
    report = report_of("runs/mixture-compare")
    reverse, forward = report["fits"]["reverse KL"], report["fits"]["forward KL"]
    assert forward["forward_kl"]["value"] < reverse["forward_kl"]["value"] - 1  # covers both
    assert reverse["reverse_kl"]["value"] < forward["reverse_kl"]["value"] - 1  # picks one
    # A Gaussian on a mode of weight w is log(1/w) from the mixture where the modes are far apart.
    weight = 0.65 if reverse["report"]["coordinates"]["x[0]"]["mean"] < 0 else 0.35
    assert reverse["reverse_kl"]["value"] == pytest.approx(-np.log(weight), abs=0.02)
    # Forward KL's best Gaussian has the mixture's own moments.
    for label, row in forward["report"]["coordinates"].items():
        reference = _resolve.resolve("mixture").reference
        assert row["mean"] == pytest.approx(reference.mean[label], abs=0.15)
        assert row["sd"] == pytest.approx(reference.sd[label], rel=0.05)
    assert "exact draws" in forward["report"]["objective"]
    assert report["log_normalizer"]["source"] == "known exactly"
    assert "exact draws" in forward["forward_kl"]["source"]
    assert "known exactly" in result.stdout
    assert "KL(p‖q)" in result.stdout
    assert {path.name for path in (here / "runs/mixture-compare").iterdir()} == {"report.json", "compare.png"}


@pytest.mark.slow
def test_compare_estimates_what_is_not_known(here, user):
    run("compare", f"{user / 'my_model.py'}:target", "--steps", 300, "-q", "--max-seconds", 60)
    report = report_of("runs/target-compare")
    # Two Gaussian integrals: a[0] has precision 3 and center 1, a[1] precision 1; the squares left over are 0.25.
    log_z = 0.5 * np.log(2 * np.pi / 3) + 0.5 * np.log(2 * np.pi) - 0.25
    assert "estimated" in report["log_normalizer"]["source"]
    assert report["log_normalizer"]["value"] == pytest.approx(log_z, abs=0.02)
    for fit in report["fits"].values():
        assert abs(fit["reverse_kl"]["value"]) < 0.1
        assert abs(fit["forward_kl"]["value"]) < 0.1
        assert "importance-weighted" in fit["forward_kl"]["source"]


def test_list_shows_every_target(here):
    printed = " ".join(run("list").stdout.split())
    from vi_kit.targets import _registry

    for name in _registry.names():
        row = _registry.info(name)
        assert f"{name} {row.dim} " in printed
        assert row.source.split()[0] in printed
    assert "vi_kit[data]" in printed
    assert "arK-arK" in printed
    assert "brownian" in printed


def test_help_and_version(here):
    assert run("--version").stdout.strip() == f"vi-kit {vi_kit.__version__}"
    printed = run("--help").stdout
    for command in ("fit", "compare", "list"):
        assert command in printed
    assert "--objective" in run("fit", "--help").stdout


def test_help_imports_nothing_heavy():
    code = "import sys, vi_kit.cli; print([m for m in ('jax', 'numpy', 'matplotlib', 'distrax') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_real_ctrl_c(here):
    master, terminal = pty.openpty()
    command = [sys.executable, "-m", "vi_kit.cli", "fit", "mixture", "--steps", "100000000", "--out", "saved"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal)
    os.close(terminal)
    seen = b""
    while b"ELBO" not in seen and (chunk := _read(master)):
        seen += chunk
    process.send_signal(signal.SIGINT)
    while chunk := _read(master):
        seen += chunk
    os.close(master)
    assert process.wait(timeout=60) == 130
    assert b"Interrupted after" in seen
    assert b"Traceback" not in seen
    assert report_of("saved")["stopped"].startswith("interrupted")


def _read(descriptor):
    try:
        return os.read(descriptor, 1_000)
    except OSError:  # how Linux says that the other end of a terminal is closed
        return b""
