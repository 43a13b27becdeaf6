"""What importing costs and which way imports point."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vi_kit

ROOT = Path(vi_kit.__file__).parent
HEAVY = ("distrax", "tensorflow_probability", "optax", "matplotlib", "rich", "typer", "blackjax", "sklearn")

# Each layer may import from those above it, never from those below.
LAYERS = [
    {"_value_key", "_estimate", "_pytree", "_arrays", "_rows"},
    {"_static"},
    {"_target"},
    {"_types"},
    {"_weights", "_distributions", "_lattice", "support"},
    {"kl"},
    {"divergences", "targets", "families"},
    {"estimators"},
    {"objectives"},
    {"algorithms"},
    {"diagnostics"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
LAST = len(LAYERS)  # the drivers: _fit, _optimize, cli and what belongs to them


def run(code: str) -> str:
    """Run code in a fresh interpreter, without what the test session has set."""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT.parent, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("module", ["vi_kit", "vi_kit.kl"])
def test_kl_needs_only_jax(module):
    """Nor does importing make arrays, change the configuration or look for a device."""
    code = f"""
import sys
import jax
from jax._src import xla_bridge
before = dict(jax.config.values)
import {module}
assert not xla_bridge._backends, "a backend was started"
assert dict(jax.config.values) == before, "the configuration was changed"
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    assert run(code).strip() == "[]"


def test_kl_brings_nothing_but_itself():
    """Whoever has JAX loaded pays for `vi_kit.kl` with its own files: importing it takes milliseconds."""
    code = """
import sys
import jax, jax.numpy
before = set(sys.modules)
import vi_kit.kl
new = {name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
print(sorted(new))
"""
    assert run(code).strip() == "['vi_kit']"


def test_importing_everything_does_no_array_work():
    """Every module of the package, private ones too."""
    modules = sorted(
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in ROOT.rglob("*.py")
        if path.name != "__main__.py"
    )
    code = f"""
import importlib, warnings
import jax
from jax._src import xla_bridge
before = dict(jax.config.values)
for name in {modules!r}:
    importlib.import_module(name)
    assert not xla_bridge._backends, name + " started a backend: it makes arrays at import"
    assert dict(jax.config.values) == before, name + " changed the configuration"
"""
    run(code)


def imported(path: Path) -> set[str]:
    """First names below vi_kit that a file imports, anywhere in it."""
    package = path.relative_to(ROOT.parent).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += (node.module or "").split(".") if node.module else []
            names = [[*base, alias.name] for alias in node.names]
        else:
            continue
        found |= {name[1] for name in names if name[0] == "vi_kit" and len(name) > 1}
    return found


def level_of(name: str) -> int:
    return LEVEL.get(name, LAST)


def wrong_way(path: Path) -> list[str]:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    siblings = LAYERS[level_of(own)] if own in LEVEL else set()
    return [
        f"{path.relative_to(ROOT.parent)} imports {name}"
        for name in sorted(imported(path))
        if name != own and (level_of(name) > level_of(own) or name in siblings)
    ]


def test_imports_point_one_way():
    files = [path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem != "__init__"]
    assert len(files) > 20
    assert [line for path in files for line in wrong_way(path)] == []


def test_the_check_sees_an_import_the_wrong_way(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path / "vi_kit")
    (tmp_path / "vi_kit" / "kl").mkdir(parents=True)
    file = tmp_path / "vi_kit" / "kl" / "_new.py"
    file.write_text("from vi_kit.objectives import ReverseKL\ndef f():\n    from vi_kit import _fit\n")
    assert wrong_way(file) == ["vi_kit/kl/_new.py imports _fit", "vi_kit/kl/_new.py imports objectives"]


def test_only_the_door_imports_distrax():
    """Its internals are touched in one file."""
    importers = []
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = (
                [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
            )
            if isinstance(node, ast.Import | ast.ImportFrom) and any(m.split(".")[0] == "distrax" for m in modules):
                importers.append(path.name)
    assert importers == ["_distributions.py"]


def test_public_names_load():
    for name in vi_kit.__all__:
        assert getattr(vi_kit, name) is not None
    assert set(vi_kit.__all__) <= set(dir(vi_kit))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        vi_kit.nothing  # noqa: B018
