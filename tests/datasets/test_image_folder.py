"""image-folder and tnscui: what is written, what is refused by name, and that a second call changes nothing."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.datasets import conversion
from nnunetv2_lngswr.datasets.image_folder import convert_image_folder
from nnunetv2_lngswr.datasets.options import DatasetSpec, ImageOptions
from nnunetv2_lngswr.datasets.tnscui import convert_tnscui

TARGET = DatasetSpec(
    dataset_id=701, name="Test", channel="ultrasound", label="nodule", file_ending=".png", folds=2
)


def speckle(seed: int, shape=(20, 24)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def square(rows: slice, columns: slice, shape=(20, 24), value=255) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[rows, columns] = value
    return mask


def save(array: np.ndarray, path: Path, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(p.relative_to(folder)): (
            hashlib.sha256(p.read_bytes()).hexdigest(),
            p.stat().st_mtime_ns,
        )
        for p in folder.rglob("*")
        if p.is_file()
    }


def read(folder: Path, case: str) -> tuple[np.ndarray, np.ndarray]:
    return tuple(
        np.asarray(Image.open(folder / part))
        for part in (f"imagesTr/{case}_0000.png", f"labelsTr/{case}.png")
    )


@pytest.fixture
def busi(tmp_path) -> Path:
    """BUSI's layout: masks beside images, several per image, RGB saved grey images, blanks and brackets in names."""
    folder = tmp_path / "Dataset_BUSI_with_GT"
    for number in range(1, 5):
        for seed, kind in enumerate(("benign", "malignant")):
            save(speckle(10 * number + seed), folder / kind / f"{kind} ({number}).png", "RGB")
            save(square(slice(2, 8), slice(2, 8)), folder / kind / f"{kind} ({number})_mask.png")
    save(square(slice(10, 15), slice(5, 20)), folder / "benign" / "benign (1)_mask_1.png", "RGB")
    return folder


def convert(folder: Path, raw: Path, **options):
    return convert_image_folder(folder, raw, TARGET, progress=False, **options)


def test_a_busi_like_folder(busi, tmp_path):
    done = convert(busi, tmp_path / "raw")
    assert done.counts == {"used": 8, "left out": 0, "skipped": 0}
    assert {p.name for p in (done.folder / "labelsTr").iterdir()} == {
        f"{k}_{n}.png" for k in ("benign", "malignant") for n in range(1, 5)
    }
    image, label = read(done.folder, "benign_1")
    assert image.dtype == np.uint8 and np.array_equal(image, speckle(10))
    union = square(slice(2, 8), slice(2, 8), value=1) | square(slice(10, 15), slice(5, 20), value=1)
    assert np.array_equal(label, union)
    assert json.loads((done.folder / "dataset.json").read_text()) == {
        "channel_names": {"0": "ultrasound"}, "labels": {"background": 0, "nodule": 1}, "numTraining": 8, "file_ending": ".png", "name": "Dataset701_Test",
    }  # fmt: skip


def test_groups_by_pattern_stay_together(busi, tmp_path):
    done = convert(busi, tmp_path / "raw", group_pattern=r"\((\d+)\)$")
    folds = json.loads((done.folder / "splits_final.json").read_text())
    for fold in folds:
        train, val = ({name.split("_")[1] for name in fold[part]} for part in ("train", "val"))
        assert train and val and not train & val
    with pytest.raises(ValueError, match=r"finds no group in benign/benign \(1\)"):
        convert(busi, tmp_path / "other", group_pattern="patient")


def test_a_second_call_changes_nothing(busi, tmp_path):
    first = convert(busi, tmp_path / "raw")
    save(
        speckle(99), busi / "benign" / "benign (9).png"
    )  # has no mask: skipped, and still so the second time
    convert(busi, tmp_path / "raw")
    before = contents(first.folder)
    again = convert(busi, tmp_path / "raw")
    assert (again.converted, again.kept, len(again.skipped)) == (0, 8, 1)
    assert contents(first.folder) == before


def test_only_what_changed_is_converted_again(busi, tmp_path):
    first = convert(busi, tmp_path / "raw")
    before = contents(first.folder)
    save(square(slice(0, 4), slice(0, 4)), busi / "benign" / "benign (2)_mask.png")
    (busi / "malignant" / "malignant (4).png").unlink()
    (busi / "malignant" / "malignant (4)_mask.png").unlink()
    again = convert(busi, tmp_path / "raw")
    assert (again.converted, again.kept) == (1, 6)
    assert read(again.folder, "benign_2")[1].sum() == 16
    after = contents(again.folder)
    assert before.keys() - after.keys() == {
        "imagesTr/malignant_4_0000.png",
        "labelsTr/malignant_4.png",
    }
    untouched = [n for n in after if "Tr/" in n and "benign_2" not in n]
    assert len(untouched) == 12 and all(after[n] == before[n] for n in untouched)


def test_a_killed_call_goes_on_where_it_stopped(busi, tmp_path, monkeypatch):
    from nnunetv2_lngswr.datasets import image_folder

    real, calls = image_folder._convert_pair, []

    def dies(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(image_folder, "_convert_pair", dies)
    with pytest.raises(KeyboardInterrupt):
        convert(busi, tmp_path / "raw")
    folder = tmp_path / "raw" / TARGET.dataset_name
    assert not (folder / "manifest.json").exists()
    with open(folder / conversion.JOURNAL, "a") as journal:
        journal.write('{"unit": "benign/ben')  # torn by the kill
    monkeypatch.setattr(image_folder, "_convert_pair", real)
    done = convert(busi, tmp_path / "raw")
    assert (done.converted, done.kept) == (5, 3)
    assert not (folder / conversion.JOURNAL).exists()
    fresh = convert(busi, tmp_path / "fresh")
    assert {n: h for n, (h, _) in contents(folder).items()} == {
        n: h for n, (h, _) in contents(fresh.folder).items()
    }


def saved_as(folder: Path, what: str) -> None:
    """An image, or several, that are not plain grey ones; with a mask."""
    grey = Image.fromarray(speckle(1))
    if what == "transparent":
        Image.merge("LA", (grey, Image.new("L", grey.size, 7))).save(folder / "odd.png")
    elif what == "opaque":
        Image.merge("LA", (grey, Image.new("L", grey.size, 255))).save(folder / "odd.png")
    elif what == "palette":
        grey.convert("P").save(folder / "odd.png")
    elif what == "pages":
        grey.save(folder / "odd.tif", save_all=True, append_images=[grey])
    elif what == "twins":
        grey.save(folder / "odd.png")
        grey.save(folder / "odd.bmp")
    save(square(slice(1, 4), slice(1, 4)), folder / "odd_mask.png")


@pytest.mark.parametrize("what, said", [
    ("opaque", None), ("palette", None), ("transparent", "transparent pixels"), ("pages", "file holds 2 images"), ("twins", "odd.bmp, benign/odd.png"),
])  # fmt: skip
def test_kinds_of_files(busi, tmp_path, what, said):
    saved_as(busi / "benign", what)
    done = convert(busi, tmp_path / "raw")
    if said is None:
        assert done.skipped == [] and np.array_equal(read(done.folder, "odd")[0], speckle(1))
    else:
        assert done.counts["used"] == 8 and any(
            e.source.startswith("benign/odd.") and said in e.reason for e in done.skipped
        )


def test_masks_of_another_folder_are_named_in_full(tmp_path):
    for place in ("a", "b"):
        save(speckle(1), tmp_path / "images" / place / "1.png")
        save(square(slice(0, 0), slice(0, 0)), tmp_path / "masks" / place / "1.png")
    done = convert(tmp_path / "images", tmp_path / "raw", masks=tmp_path / "masks")
    assert [e.source for e in done.skipped] == [
        str(tmp_path / "masks" / place / "1.png") for place in "ab"
    ]


def test_ctrl_c_and_a_full_disk_end_with_one_line_after_the_progress_bar(
    busi, tmp_path, monkeypatch, capsys
):
    from nnunetv2_lngswr.datasets import image_folder

    command = [
        "convert-dataset",
        "image-folder",
        "-i",
        str(busi),
        "-o",
        str(tmp_path / "raw"),
        "-d",
        "701",
    ]
    for error, status, said in (
        (KeyboardInterrupt(), 130, "lngswr: interrupted; "),
        (OSError(28, "No space left on device", "x.png"), 2, "'x.png'; "),
    ):

        def fails(array, path, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(image_folder, "_write", fails)
            assert cli.main(command) == status
        lines = capsys.readouterr().err.rstrip("\n").splitlines()
        assert (
            lines[-1].startswith("lngswr: ")
            and said in lines[-1]
            and lines[-1].endswith("the same call goes on")
        )
    assert cli.main(command) == 0


def test_bad_files_are_named_and_the_rest_is_converted(busi, tmp_path, capsys):
    bad = busi / "benign"
    masks = {"empty (1)": square(slice(0, 0), slice(0, 0)), "size (1)": square(slice(1, 4), slice(1, 4), shape=(20, 25)),
             "values (1)": square(slice(1, 4), slice(1, 4)) + square(slice(6, 9), slice(6, 9), value=100)}  # fmt: skip
    for name, mask in masks.items():
        save(speckle(1), bad / f"{name}.png")
        save(mask, bad / f"{name}_mask.png")
    colour = np.stack([speckle(1), speckle(1), speckle(2)], -1)
    save(colour, bad / "colour (1).png")
    save(square(slice(1, 4), slice(1, 4)), bad / "colour (1)_mask.png")
    save(speckle(2), bad / "lonely.png")
    save(square(slice(1, 4), slice(1, 4)), bad / "orphan_mask.png")
    (bad / "broken (1).png").write_bytes((bad / "size (1).png").read_bytes()[:80])
    save(square(slice(1, 4), slice(1, 4)), bad / "broken (1)_mask.png")
    command = [
        "convert-dataset",
        "image-folder",
        "-i",
        str(busi),
        "-o",
        str(tmp_path / "raw"),
        "-d",
        "701",
        "--disable_progress_bar",
    ]
    assert cli.main(command) == 1
    expected = {
        "benign/empty (1)_mask.png": "empty mask",
        "benign/size (1)_mask.png": "size 25 x 20 of the mask differs from 24 x 20",
        "benign/values (1)_mask.png": "mask has 2 values besides 0 (100, 255)",
        "benign/colour (1).png": "colour image",
        "benign/lonely.png": "image without a mask",
        "benign/orphan_mask.png": "mask without an image",
        "benign/broken (1).png": "not readable as an image",
    }
    manifest = json.loads((tmp_path / "raw" / "Dataset701_Images" / "manifest.json").read_text())
    entries = [*manifest["before"], *(e for r in manifest["units"].values() for e in r["entries"])]
    skipped = {e["source"]: e["reason"] for e in entries if e["status"] == "skipped"}
    assert skipped.keys() == expected.keys()
    assert all(expected[name] in why for name, why in skipped.items()), skipped
    assert manifest["summary"] == {"used": 8, "left out": 0, "skipped": 7, "cases": 8, "groups": 8}
    said = capsys.readouterr()
    assert "8 used" in said.out and all(name in said.err for name in expected)
    # what was refused is taken once it is asked for
    options = ["--keep-empty", "--mask-threshold", "200", "--luminance", "--overwrite"]
    assert cli.main(command + options) == 1
    names = {p.stem for p in (tmp_path / "raw" / "Dataset701_Images" / "labelsTr").iterdir()}
    assert {"empty_1", "values_1", "colour_1"} <= names and len(names) == 11


def test_splits_made_by_hand_stay_while_they_fit(busi, tmp_path):
    splits = convert(busi, tmp_path / "raw").folder / "splits_final.json"
    own = json.loads(splits.read_text())[::-1]
    splits.write_text(json.dumps(own))
    convert(busi, tmp_path / "raw")
    assert json.loads(splits.read_text()) == own
    save(speckle(50), busi / "benign" / "benign (5).png")
    save(square(slice(2, 8), slice(2, 8)), busi / "benign" / "benign (5)_mask.png")
    convert(busi, tmp_path / "raw")
    folds = json.loads(splits.read_text())
    assert all("benign_5" in fold["train"] + fold["val"] for fold in folds)


def test_a_progress_bar_unless_it_is_not_wanted(busi, tmp_path, capsys):
    for disabled in ([], ["--disable_progress_bar"]):
        assert (
            cli.main(
                [
                    "convert-dataset",
                    "image-folder",
                    "-i",
                    str(busi),
                    "-o",
                    str(tmp_path / f"raw{len(disabled)}"),
                    "-d",
                    "701",
                    *disabled,
                ]
            )
            == 0
        )
        assert ("8/8" in capsys.readouterr().err) == (not disabled)


def test_two_folders_and_masks_of_the_same_name(tmp_path):
    for number in range(3):
        save(speckle(number), tmp_path / "images" / f"p_{number}.png")
        save(square(slice(1, 3), slice(1, 3)), tmp_path / "masks" / f"p_{number}.bmp")
    done = convert(tmp_path / "images", tmp_path / "raw", masks=tmp_path / "masks")
    assert done.counts["used"] == 3 and read(done.folder, "p_1")[1].sum() == 4


def test_sixteen_bit_images_keep_their_values(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65535, (20, 24), dtype=np.uint16)
    for number in range(2):
        save(deep, tmp_path / "in" / f"{number}.png")
        save(square(slice(1, 3), slice(1, 3)), tmp_path / "in" / f"{number}_mask.png")
    assert np.array_equal(read(convert(tmp_path / "in", tmp_path / "raw").folder, "0")[0], deep)


def test_nothing_foreign_is_touched(busi, tmp_path):
    folder = tmp_path / "raw" / TARGET.dataset_name
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text("{}")
    with pytest.raises(ValueError, match="is no conversion"):
        convert(busi, tmp_path / "raw", overwrite=True)
    assert contents(folder).keys() == {"dataset.json"}
    shutil.move(folder, folder.with_name("Dataset701_Other"))
    with pytest.raises(ValueError, match="701 belongs to Dataset701_Other"):
        convert(busi, tmp_path / "raw")


def test_other_settings_need_overwrite(busi, tmp_path):
    convert(busi, tmp_path / "raw")
    with pytest.raises(ValueError, match="other settings .keep_empty.: add --overwrite"):
        convert(busi, tmp_path / "raw", options=ImageOptions(keep_empty=True))
    assert (
        convert(
            busi, tmp_path / "raw", options=ImageOptions(keep_empty=True), overwrite=True
        ).converted
        == 8
    )


@pytest.mark.parametrize("options, said", [
    (dict(mask_threshold=0), "mask threshold must be in 1..255, got 0"),
    (dict(mask_pattern="mask"), "capture group"),
    (dict(mask_pattern="("), "no regular expression"),
])  # fmt: skip
def test_bad_options(options, said):
    with pytest.raises(ValueError, match=said):
        ImageOptions(**options)


# --- TN-SCUI2020 --------------------------------------------------------------------------------------------------------------------


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
