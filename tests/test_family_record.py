"""`describe` and `restore`: every family goes through JSON and comes back equal."""

import json
from functools import partial

import pytest

import vi_kit as vk
from vi_kit._family_record import describe, restore

FAMILIES = [
    vk.families.MeanField(3),
    vk.families.FullRank(3),
    vk.families.LowRank(3, 2),
    vk.families.BlockDiagonal(3, ((0, 2), (1,))),
    vk.families.Mixture(3, 2),
    vk.families.Mixture(3, 2, vk.families.FullRank),
    vk.families.Mixture(3, 2, partial(vk.families.LowRank, rank=1)),
    vk.families.Flow(3),
    vk.families.Flow(3, coupling=vk.families.SplineCoupling(), base=vk.families.StudentT, width=8),
    vk.families.Flow(3, coupling=vk.families.AffineCoupling(bound=1.5), num_layers=2),
]


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_there_and_back(family):
    again = restore(json.loads(json.dumps(describe(family))))
    assert again == family
    assert hash(again) == hash(family)


def test_settings_are_kept():
    """Negative control: other settings are another family."""
    records = [json.dumps(describe(family)) for family in FAMILIES]
    assert len(set(records)) == len(FAMILIES)


def test_what_older_files_hold():
    assert restore({"name": "LowRank", "dim": 3, "rank": 2}) == vk.families.LowRank(3, 2)


def test_a_function_of_the_users_own_is_refused():
    with pytest.raises(TypeError, match="component: expected a class"):
        describe(vk.families.Mixture(3, 2, lambda dim: vk.families.MeanField(dim)))


@pytest.mark.parametrize("record", [{"name": "Nothing", "dim": 3}, {"name": "Flow", "dim": 3, "base": {"class": "No"}}])
def test_what_is_not_there_is_named(record):
    with pytest.raises(KeyError, match="No"):
        restore(record)
