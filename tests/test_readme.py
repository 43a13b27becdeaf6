"""The README's Python, as written, and its links."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_quick_start_runs_as_written(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 2
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert "Pareto k̂" in capsys.readouterr().out
    assert namespace["fits"].params.mean.shape == (4, 10)
    assert namespace["posterior"].sample(namespace["jax"].random.key(3), 10)["tau"].min() > 0


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_point_at_files(link):
    assert (ROOT / link).exists()


def test_set_up_commands_are_there():
    assert "pip install -e . && vi-kit fit eight_schools" in README
    assert "pip install -e '.[test]' && pytest" in README
