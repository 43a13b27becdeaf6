"""table: every row, widening, structure and pair of moments is listed, and the committed list is the present one."""

from pathlib import Path

import jax

import vi_kit as vk
from vi_kit.divergences import distributions
from vi_kit.divergences._cross_moments import moment_pairs
from vi_kit.divergences._table import RULES, WIDENINGS

LIST = Path(__file__).parents[2] / "experiments" / "kl_coverage" / "closed_forms.md"


def test_every_row_is_listed():
    table = vk.divergences.table()
    listed = {(entry.p, entry.q.partition(" ")[0]) for entry in table}
    assert {(rule.p.__name__, rule.q.__name__) for rule in RULES} <= listed
    assert {(p.__name__, q.__name__) for p, q, _ in moment_pairs()} <= listed
    assert {w.source.__name__ for w in WIDENINGS} <= {entry.p for entry in table if entry.method == "widening"}
    assert all(entry.formula for entry in table), "a row without a formula"
    assert len(table) == len(list(table)) == len(str(table).splitlines()) - 1


def test_no_pair_has_two_rules():
    pairs = [(rule.p, rule.q) for rule in RULES]
    assert len(set(pairs)) == len(pairs)


def test_the_committed_list_is_the_present_one():
    """After its heading the file holds `vk.divergences.table().markdown()`."""
    assert vk.divergences.table().markdown() in LIST.read_text()


def test_families_have_structures_of_their_own():
    """Else `jit` would now and then take the program of another family (see `vi_kit._pytree`)."""
    two = [kind(1.0, 2.0) for kind in (distributions.Normal, distributions.Uniform, distributions.Gamma)]
    structures = [jax.tree.structure(x) for x in two]
    assert structures[0] != structures[1]
    assert structures[1] != structures[2]
    assert structures[0] == jax.tree.structure(distributions.Normal(3.0, 4.0))
