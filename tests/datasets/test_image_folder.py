"""image-folder: what is written, and what is refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.datasets.options import ImageOptions
from tests.datasets.image_files import command, convert, read, save, speckle, square


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
        "channel_names": {"0": "ultrasound"},
        "labels": {"background": 0, "nodule": 1},
        "numTraining": 8,
        "file_ending": ".png",
        "name": "Dataset701_Test",
    }


def test_groups_by_pattern_stay_together(busi, tmp_path):
    done = convert(busi, tmp_path / "raw", group_pattern=r"\((\d+)\)$")
    folds = json.loads((done.folder / "splits_final.json").read_text())
    for fold in folds:
        train, val = ({name.split("_")[1] for name in fold[part]} for part in ("train", "val"))
        assert train and val and not train & val
    with pytest.raises(ValueError, match=r"finds no group in benign/benign \(1\)"):
        convert(busi, tmp_path / "other", group_pattern="patient")


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


@pytest.mark.parametrize(
    "what, said",
    [
        ("opaque", None),
        ("palette", None),
        ("transparent", "transparent pixels"),
        ("pages", "file holds 2 images"),
        ("twins", "odd.bmp, benign/odd.png"),
    ],
)
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


def test_bad_files_are_named_and_the_rest_is_converted(busi, tmp_path, capsys):
    bad = busi / "benign"
    one, other = square(slice(1, 4), slice(1, 4)), square(slice(6, 9), slice(6, 9), value=100)
    masks = {
        "empty (1)": square(slice(0, 0), slice(0, 0)),
        "size (1)": square(slice(1, 4), slice(1, 4), shape=(20, 25)),
        "values (1)": one + other,
    }
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
    call = command(busi, tmp_path / "raw", "--disable_progress_bar")
    assert cli.main(call) == 1
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
    assert cli.main(call + options) == 1
    names = {p.stem for p in (tmp_path / "raw" / "Dataset701_Images" / "labelsTr").iterdir()}
    assert {"empty_1", "values_1", "colour_1"} <= names and len(names) == 11


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


@pytest.mark.parametrize(
    "options, said",
    [
        ({"mask_threshold": 0}, "mask threshold must be in 1..255, got 0"),
        ({"mask_pattern": "mask"}, "capture group"),
        ({"mask_pattern": "("}, "no regular expression"),
    ],
)
def test_bad_options(options, said):
    with pytest.raises(ValueError, match=said):
        ImageOptions(**options)


@pytest.mark.parametrize("order", [("a/x", "b/a_x", "c/x"), ("b/x", "a/b_x", "c/x")])
def test_names_that_move_from_one_image_to_another_take_no_files_along(tmp_path, order):
    def add(name, seed):
        save(speckle(seed), tmp_path / "in" / f"{name}.png")
        save(square(slice(1, 4), slice(1, 4)), tmp_path / "in" / f"{name}_mask.png")

    *first, last = order
    for seed, name in enumerate(first):
        add(name, seed)
    convert(tmp_path / "in", tmp_path / "raw")
    add(last, 2)  # now that x is there twice, its folder is part of its name
    done = convert(tmp_path / "in", tmp_path / "raw")
    assert done.counts["used"] == 3
    for entry in done.entries:
        image, _ = read(done.folder, entry.case)
        assert np.array_equal(image, speckle(order.index(entry.source.removesuffix(".png"))))
