"""The posteriordb reader: names, both folder layouts, reference answers, bad input."""

import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vi_kit.targets._posteriordb import posteriordb, posteriordb_names, posteriordb_reference
from vi_kit.targets._reference import (
    Reference,
    coordinate_labels,
    read_reference,
    reference_from_draws,
    write_reference,
    zero_based_label,
)

NAME = "eight_schools-eight_schools_noncentered"
SCHOOLS = {"J": 8, "y": [28, 8, -3, 7, -1, 1, 18, 12], "sigma": [15, 10, 16, 11, 9, 11, 10, 18]}
QUANTITIES = [*(f"theta[{j}]" for j in range(1, 9)), "mu", "tau"]
CHAINS = np.random.default_rng(0).exponential(size=(2, 10, 500))  # chain, quantity, draw


def write_zip(path, name, values):
    path.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path / f"{name}.json.zip", "w") as archive:
        archive.writestr(f"{name}.json", json.dumps(values))


@pytest.fixture
def clone(tmp_path):
    """A clone of posteriordb with one posterior that vi_kit carries and one that it does not."""
    database = tmp_path / "clone" / "posterior_database"
    entries = {
        NAME: {"data_name": "eight_schools", "reference_posterior_name": NAME},
        "eight_schools-eight_schools_centered": {
            "data_name": "eight_schools",
            "reference_posterior_name": None,
        },
        "prostate-logistic": {"data_name": "prostate", "reference_posterior_name": None},
    }
    (database / "posteriors").mkdir(parents=True)
    for name, entry in entries.items():
        (database / "posteriors" / f"{name}.json").write_text(json.dumps({"name": name, **entry}))
    write_zip(database / "data" / "data", "eight_schools", SCHOOLS)
    chains = [dict(zip(QUANTITIES, chain.tolist(), strict=True)) for chain in CHAINS]
    write_zip(database / "reference_posteriors" / "draws" / "draws", NAME, chains)
    return tmp_path / "clone"


@pytest.fixture
def flat(tmp_path):
    """A flat folder with the same posterior."""
    folder = tmp_path / "flat" / NAME
    folder.mkdir(parents=True)
    (folder / "data.json").write_text(json.dumps(SCHOOLS))
    draws = CHAINS.transpose(0, 2, 1).reshape(-1, 10)
    answers = {
        "quantities": QUANTITIES,
        "mean": draws.mean(0).tolist(),
        "sd": draws.std(0, ddof=1).tolist(),
        "quantiles_5_50_95": np.quantile(draws, [0.05, 0.5, 0.95], axis=0).tolist(),
        "computed_here": {"log_Z": -32.0, "log_Z_se": 0.004},
    }
    (folder / "reference.json").write_text(json.dumps(answers))
    np.savez(tmp_path / "flat" / "draws.npz", **{NAME: draws.astype(np.float32)})
    return tmp_path / "flat"


def test_both_layouts_give_the_same_target(clone, flat):
    z = jnp.linspace(-1.0, 1.0, 10)
    targets = [posteriordb(NAME, folder) for folder in (flat, clone, clone / "posterior_database", str(clone))]
    values = [float(target.log_density(z)) for target in targets]
    assert values == [values[0]] * 4
    assert {leaf.dtype for leaf in jax.tree.leaves(targets[0].data)} == {jnp.dtype("float32")}
    assert set(targets[0].report(z)) == {"mu", "tau", "theta_trans", "theta"}


def test_both_layouts_give_the_same_reference(clone, flat):
    from_clone, from_flat = posteriordb_reference(NAME, clone), posteriordb_reference(NAME, flat)
    expected = CHAINS.transpose(1, 0, 2).reshape(10, -1)
    labels = [*(f"theta[{j}]" for j in range(8)), "mu", "tau"]
    for reference in (from_clone, from_flat):
        assert list(reference.labels) == labels
        np.testing.assert_allclose([reference.mean[label] for label in labels], expected.mean(1))
        np.testing.assert_allclose([reference.sd[label] for label in labels], expected.std(1, ddof=1))
        levels = np.quantile(expected, [0.05, 0.5, 0.95], axis=1).T
        np.testing.assert_allclose([reference.quantiles[label] for label in labels], levels)
        np.testing.assert_allclose(reference.draws["tau"], expected[-1], rtol=1e-6)
    assert (from_flat.log_normalizer, from_flat.log_normalizer_standard_error) == (-32.0, 0.004)
    assert from_clone.log_normalizer is None


def test_a_posterior_without_reference_draws_has_none(clone):
    assert posteriordb_reference("eight_schools-eight_schools_centered", clone) is None


def test_short_names(flat):
    assert posteriordb("eight_schools_noncentered", flat).dim == 10
    # The part before the dash is enough where one model has it.
    with pytest.raises(FileNotFoundError, match="looked for posterior 'kidiq-kidscore_interaction'"):
        posteriordb("kidiq", flat)


def test_short_names_of_all_models_are_unique_after_the_dash():
    ends = [name.split("-", 1)[1] for name in posteriordb_names()]
    assert len(posteriordb_names()) == len(set(ends)) == 13


def test_ambiguous_short_name_is_refused_with_both(flat):
    with pytest.raises(ValueError, match=r"may mean any of .*_centered, .*_noncentered"):
        posteriordb("eight_schools", flat)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("eight_schools_noncentred", NAME),
        ("kidscore", "kidiq-kidscore_interaction"),
        ("GARCH", "garch-garch11"),
    ],
)
def test_unknown_name_suggests_the_nearest(wrong, near, flat):
    with pytest.raises(ValueError, match=f"no posteriordb model is called '{wrong}'; the nearest: .*{near}"):
        posteriordb(wrong, flat)


@pytest.mark.parametrize("reader", [posteriordb, posteriordb_reference])
def test_known_posterior_without_a_model_says_so(reader, clone):
    with pytest.raises(ValueError, match=r"holds posterior 'prostate-logistic', but vi_kit carries no .* arK-arK"):
        reader("prostate-logistic", clone)


@pytest.mark.parametrize("reader", [posteriordb, posteriordb_reference])
def test_missing_folder_and_missing_posterior_say_how_to_get_them(reader, tmp_path, flat):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere.*; clone https://github.com/stan-dev"):
        reader(NAME, tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"looked for posterior 'arK-arK' in .*; clone https"):
        reader("arK", flat)


def test_missing_file_in_a_clone_is_named(clone):
    (clone / "posterior_database" / "data" / "data" / "eight_schools.json.zip").unlink()
    with pytest.raises(FileNotFoundError, match=r"the data of eight_schools-.* in .*eight_schools\.json\.zip"):
        posteriordb(NAME, clone)


def test_broken_files_are_named(clone, flat):
    (flat / NAME / "data.json").write_text("{")
    with pytest.raises(ValueError, match=r"directory: .*data\.json should hold JSON, which it does not"):
        posteriordb(NAME, flat)
    (flat / NAME / "data.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"directory: .*data\.json should hold a JSON object, got list"):
        posteriordb(NAME, flat)
    (clone / "posterior_database" / "data" / "data" / "eight_schools.json.zip").write_text("{}")
    with pytest.raises(ValueError, match=r"eight_schools\.json\.zip should be a zip archive, which it is not"):
        posteriordb(NAME, clone)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": [15, 10, 16, 11, 9, 0, 10, 18]}, r"needs 'sigma' above zero, got 0"),
        ({"sigma": [15, 10]}, r"needs columns of one length, got y: 8, sigma: 2"),
        ({"y": [[28, 8, -3, 7, -1, 1, 18, 12]]}, r"needs 'y' with 1 axes, got shape \(1, 8\)"),
        ({"y": [28, 8, -3, 7, -1, 1, 18, "x"]}, r"needs numbers in 'y'"),
        ({"y": [28, 8, -3, 7, -1, 1, 18, None]}, r"needs finite numbers in 'y'"),
    ],
)
def test_data_that_do_not_fit_are_refused(change, message, flat):
    (flat / NAME / "data.json").write_text(json.dumps(SCHOOLS | change))
    with pytest.raises(ValueError, match=f"data: {NAME} {message}"):
        posteriordb(NAME, flat)


def test_missing_key_is_named(flat):
    (flat / NAME / "data.json").write_text(json.dumps({"J": 8}))
    with pytest.raises(ValueError, match=r"needs the key 'y', got the keys \['J'\]"):
        posteriordb(NAME, flat)


def test_labels():
    assert coordinate_labels("mu", ()) == ["mu"]
    assert coordinate_labels("b", (2, 2)) == ["b[0,0]", "b[0,1]", "b[1,0]", "b[1,1]"]
    assert [zero_based_label(name) for name in ("mu", "b[3]", "b[1,2]")] == ["mu", "b[2]", "b[0,1]"]


@pytest.mark.parametrize("with_draws", [True, False])
def test_reference_is_read_as_written(with_draws, tmp_path):
    draws = {label: np.float32(CHAINS[0, i]) for i, label in enumerate(["mu", "beta[0,1]"])}
    reference = reference_from_draws(draws, provenance="made up", log_normalizer=-1.5)
    paths = [tmp_path / "a.json", tmp_path / "a.npz" if with_draws else None]
    write_reference(reference, *paths)
    back = read_reference(*paths)
    assert isinstance(back, Reference)
    for field in ("mean", "sd", "quantiles", "log_normalizer", "log_normalizer_standard_error", "provenance"):
        assert getattr(back, field) == getattr(reference, field)
    if not with_draws:
        assert back.draws is None
        return
    assert list(back.draws) == list(draws)
    for label, values in draws.items():
        np.testing.assert_array_equal(back.draws[label], values)


def test_writing_draws_that_are_not_there_is_refused(tmp_path):
    reference = Reference({"mu": 0.0}, {"mu": 1.0}, {"mu": (-1.6, 0.0, 1.6)}, None, None, None, "made up")
    with pytest.raises(ValueError, match=r"npz_path was given, but the reference has no draws"):
        write_reference(reference, tmp_path / "a.json", tmp_path / "a.npz")
