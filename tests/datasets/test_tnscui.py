"""tnscui: the challenge's download, and what does not fit in it."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.datasets.options import ImageOptions
from nnunetv2_lngswr.datasets.tnscui import convert_tnscui
from tests.datasets.image_files import TARGET, read, save, speckle, square


@pytest.fixture
def tnscui(tmp_path) -> Path:
    folder = tmp_path / "TNSCUI2020_train"
    for number in range(1, 9):
        save(speckle(number), folder / "image" / f"{number}.PNG", "RGB")
        save(square(slice(2, 8), slice(2, 8)), folder / "mask" / f"{number}.PNG")
    with open(folder / "train.csv", "w", newline="") as file:
        csv.writer(file).writerows([["ID", "CATE"], *((f"{n}.PNG", n % 2) for n in range(1, 9))])
    return folder


def test_the_challenges_download(tnscui, tmp_path):
    done = convert_tnscui(tnscui, tmp_path / "raw", TARGET, progress=False)
    assert done.counts == {"used": 8, "left out": 0, "skipped": 0}
    image, label = read(done.folder, "3")
    assert np.array_equal(image, speckle(3)) and label.sum() == 36
    # each fold has the share of malignant nodules of the whole: odd numbers
    for fold in json.loads((done.folder / "splits_final.json").read_text()):
        assert sum(int(n) % 2 for n in fold["val"]) == 2 and len(fold["val"]) == 4


def test_what_does_not_fit_is_named(tnscui, tmp_path):
    (tnscui / "mask" / "2.PNG").unlink()
    save(square(slice(1, 2), slice(1, 2)), tnscui / "mask" / "77.PNG")
    with open(tnscui / "train.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [["ID", "CATE"], *((n, n % 2) for n in range(1, 7)), [7, 5], [99, 0]]
        )
    done = convert_tnscui(tnscui, tmp_path / "raw", TARGET, progress=False)
    assert {(e.source, e.reason) for e in done.skipped} == {
        ("image/2.PNG", "image without a mask"),
        ("mask/77.PNG", "mask without an image (77 was expected)"),
        ("train.csv", "row 7: CATE must be 0 or 1, got '5'"),
        ("train.csv", "row 99 has no image"),
        ("image/7.PNG", "image without a valid row in train.csv"),
        ("image/8.PNG", "image without a valid row in train.csv"),
    }
    assert {e.case for e in done.entries if e.case} == {"1", "3", "4", "5", "6"}


@pytest.mark.parametrize("missing", ["mask", "train.csv"])
def test_an_incomplete_download_is_refused(tnscui, tmp_path, missing, capsys):
    path = tnscui / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert (
        cli.main(["convert-dataset", "tnscui", "-i", str(tnscui), "-o", str(tmp_path / "raw")]) == 2
    )
    assert missing in capsys.readouterr().err and not (tmp_path / "raw").exists()


def test_a_table_that_is_no_utf_8_is_named(tnscui, tmp_path, capsys):
    (tnscui / "train.csv").write_bytes("ID,CATE\n1.PNG,0\nä,1\n".encode("latin-1"))
    call = ["convert-dataset", "tnscui", "-i", str(tnscui), "-o", str(tmp_path / "raw")]
    assert cli.main(call) == 2
    assert "train.csv is not UTF-8 (byte 0xe4 in line 3)" in capsys.readouterr().err
    (tnscui / "train.csv").write_text("ID;CATE\n1.PNG;0\n")
    assert cli.main(call) == 2
    said = capsys.readouterr().err
    assert "train.csv has no column ID, CATE; it has ID;CATE" in said
    assert not (tmp_path / "raw").exists()


def test_near_duplicates_are_joined(tnscui, tmp_path):
    shutil.copy(tnscui / "image" / "1.PNG", tnscui / "image" / "2.PNG")
    done = convert_tnscui(tnscui, tmp_path / "raw", TARGET, progress=False)
    assert (done.joined.pairs, done.joined.groups_after) == (1, 7)
    for fold in json.loads((done.folder / "splits_final.json").read_text()):
        assert ("1" in fold["val"]) == ("2" in fold["val"])
    alone = ImageOptions(near_duplicates=False)
    done = convert_tnscui(tnscui, tmp_path / "other", TARGET, options=alone, progress=False)
    assert done.joined is None
