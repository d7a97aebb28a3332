"""A conversion looks for near-duplicates, keeps them in one fold, and says how many it joined."""

import json

import numpy as np
import pytest

from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.datasets import near_duplicates
from nnunetv2_lngswr.datasets.near_duplicates import hash_of, hash_of_text, hash_text
from nnunetv2_lngswr.datasets.options import ImageOptions
from tests.datasets.folders import contents
from tests.datasets.image_files import command, convert, save, square
from tests.datasets.test_near_duplicates import texture


@pytest.fixture
def twins(tmp_path):
    """Twelve images of which six are copies of the other six, but darker."""
    folder = tmp_path / "twins"
    for number in range(6):
        for name, image in (("a", texture(number)), ("b", texture(number) // 2)):
            save(image, folder / f"{name}{number}.png")
            mask = square(slice(2, 40), slice(2, 40), shape=image.shape)
            save(mask, folder / f"{name}{number}_mask.png")
    return folder


def leaks(folder) -> int:
    """How many of the six pairs some fold has on both sides."""
    folds = json.loads((folder / "splits_final.json").read_text())
    return sum(
        any((f"a{n}" in fold["val"]) != (f"b{n}" in fold["val"]) for fold in folds)
        for n in range(6)
    )


def test_near_duplicates_are_joined_by_default(twins, tmp_path, capsys):
    assert cli.main(command(twins, tmp_path / "raw", "--folds", "3")) == 0
    folder = tmp_path / "raw" / "Dataset701_Images"
    assert leaks(folder) == 0
    assert "6 pairs (at most 48 of 256 bits differ) join 12 groups to 6" in capsys.readouterr().out
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["near_duplicates"] == {
        "pairs": 6,
        "groups_before": 12,
        "groups_after": 6,
        "over_borders": 0,
    }
    # the summary counts what the input tells
    assert manifest["summary"]["groups"] == 12


def test_it_can_be_switched_off(twins, tmp_path, capsys):
    call = command(twins, tmp_path / "raw", "--folds", "3", "--no-near-duplicates")
    assert cli.main(call) == 0
    folder = tmp_path / "raw" / "Dataset701_Images"
    assert leaks(folder) > 0 and "near-duplicates" not in capsys.readouterr().out
    assert cli.main(command(twins, tmp_path / "raw", "--folds", "3")) == 2
    assert "other settings (near_duplicates): add --overwrite" in capsys.readouterr().err


def test_where_a_pattern_tells_the_patients_they_are_looked_for_on_request(twins, tmp_path):
    pattern = r"^a|^b"  # two patients, each with one of every pair
    done = convert(twins, tmp_path / "raw", group_pattern=pattern)
    assert done.joined is None and leaks(done.folder) == 6
    done = convert(
        twins,
        tmp_path / "other",
        group_pattern=r"(\d)",
        options=ImageOptions(near_duplicates=True),
    )
    assert (done.joined.pairs, done.joined.groups_after) == (0, 6)


def test_a_second_call_reads_no_image_again(twins, tmp_path, monkeypatch):
    first = convert(twins, tmp_path / "raw")
    before = contents(first.folder)

    def reads(*arguments):
        raise AssertionError("an image was read")

    monkeypatch.setattr(near_duplicates, "_plane", reads)
    monkeypatch.setattr("nnunetv2_lngswr.datasets.image_folder.read_image", reads)
    again = convert(twins, tmp_path / "raw")
    assert again.joined == first.joined and contents(first.folder) == before


def test_conversions_made_before_there_was_a_search_are_gone_on_with(twins, tmp_path, capsys):
    call = command(twins, tmp_path / "raw", "--folds", "3")
    assert cli.main([*call, "--no-near-duplicates"]) == 0
    folder = tmp_path / "raw" / "Dataset701_Images"
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["settings"]["near_duplicates"]
    for record in manifest["units"].values():
        for entry in record["entries"]:
            del entry["details"]["perceptual_hash"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    splits = (folder / "splits_final.json").read_text()
    capsys.readouterr()
    assert cli.main(call) == 0
    # nobody's splits are changed under their feet
    assert (folder / "splits_final.json").read_text() == splits
    said = capsys.readouterr()
    assert "join 12 groups to 6" in said.out and "over a fold border of the splits" in said.err
    assert cli.main(["splits", "-i", str(folder), "--join", "--folds", "3"]) == 0
    assert leaks(folder) == 0
    capsys.readouterr()
    assert cli.main(call) == 0 and "fold border" not in capsys.readouterr().err


def test_too_few_groups_once_they_are_joined(twins, tmp_path, capsys):
    assert cli.main(command(twins, tmp_path / "raw", "--folds", "7")) == 1
    said = capsys.readouterr().err
    assert "no splits_final.json: 7 folds need at least 7 groups, got 6" in said
    assert "near-duplicates tie 12 groups to 6; --no-near-duplicates" in said


def test_splits_of_the_user_s_stay_where_none_could_be_dealt_out(twins, tmp_path, capsys):
    call = command(twins, tmp_path / "raw", "--folds", "7")
    folder = tmp_path / "raw" / "Dataset701_Images"
    assert cli.main(call) == 1 and not (folder / "splits_final.json").exists()
    assert cli.main(["splits", "-i", str(folder), "--join", "--folds", "3"]) == 0
    theirs = (folder / "splits_final.json").read_bytes()
    assert cli.main(call) == 0
    assert (folder / "splits_final.json").read_bytes() == theirs


def test_splits_join_without_patients(twins, tmp_path, capsys):
    folder = convert(twins, tmp_path / "raw", options=ImageOptions(near_duplicates=False)).folder
    assert leaks(folder) > 0
    assert cli.main(["splits", "-i", str(folder)]) == 2
    assert "give --pattern or --csv for the patients, or --join" in capsys.readouterr().err
    assert cli.main(["splits", "-i", str(folder), "--join", "--folds", "3"]) == 0
    assert leaks(folder) == 0
    assert "12 cases of 12 groups, joined to 6, in 3 folds" in capsys.readouterr().out


def test_a_hash_reads_back_as_it_was():
    bits = hash_of(texture(3))
    assert np.array_equal(hash_of_text(hash_text(bits)), bits) and len(hash_text(bits)) == 64
    assert hash_of(np.full((9, 9), np.nan)).shape == (256,)
