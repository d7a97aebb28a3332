"""`lngswr convert-dataset`: bad arguments, downloads and folders to write to."""

import pytest

from nnunetv2_lngswr.cli.main import main
from tests.bad_inputs import spoil
from tests.bad_inputs.harness import FOREIGN, bad, rows

OUT = "Dataset701_Images"
INPUT, TARGET = ("-i", "ROOT/in"), ("-o", "ROOT/raw")


def images(*words: str) -> tuple[str, ...]:
    how = ("-d", "701", "--folds", "2", "--disable_progress_bar")
    return ("convert-dataset", "image-folder", *INPUT, *TARGET, *how, *words)


def thyroid(*words: str) -> tuple[str, ...]:
    how = ("--folds", "2", "--disable_progress_bar")
    return ("convert-dataset", "tnscui", *INPUT, *TARGET, *how, *words)


def lidc(*words: str) -> tuple[str, ...]:
    return ("convert-dataset", "lidc", *INPUT, *TARGET, "--disable_progress_bar", *words)


def holds(name: str, content: str):
    return spoil.write(f"raw/{OUT}/{name}", content)


IMAGES = [
    bad("no kind", ["convert-dataset"], "DATASET"),
    bad("unknown kind", ["convert-dataset", "busi"], "busi", "image-folder"),
    bad("no input", ["convert-dataset", "image-folder", *TARGET, "-d", "1"], "-i"),
    bad("no output", ["convert-dataset", "image-folder", *INPUT, "-d", "1"], "-o"),
    bad("no number", ["convert-dataset", "image-folder", *INPUT, *TARGET], "-d"),
    bad("input does not exist", images("-i", "ROOT/no"), "ROOT/no"),
    bad("input is a file", images("-i", "ROOT/in/p0 a.png"), "ROOT/in/p0 a.png"),
    bad("input is empty", images("-i", "ROOT/e"), "ROOT/e", spoil=spoil.folder("e")),
    bad("input is empty text", images("-i", ""), "-i"),
    bad("input is a circle", images("-i", "ROOT/c"), "ROOT/c", spoil=spoil.circle("c")),
    bad("masks do not exist", images("--masks", "ROOT/no"), "ROOT/no"),
    bad("masks are a file", images("--masks", "ROOT/in/p0 a.png"), "ROOT/in/p0 a.png"),
    bad("masks are empty", images("--masks", "ROOT/e"), "ROOT/e", spoil=spoil.folder("e")),
    bad("mask pattern is none", images("--mask-pattern", "("), "mask pattern", "'('"),
    bad("mask pattern without a group", images("--mask-pattern", "mask"), "capture group"),
    bad("mask pattern fits no file", images("--mask-pattern", "(.+)_seg"), "masks"),
    bad("group pattern is none", images("--group-pattern", "["), "'['"),
    bad("group pattern finds nothing", images("--group-pattern", "(q)"), "(q)", "p0 a"),
    bad("group pattern is empty text", images("--group-pattern", ""), "group-pattern"),
    bad("number 0", images("-d", "0"), "1..999", "0", "-d"),
    bad("number 1000", images("-d", "1000"), "1..999", "1000", "-d"),
    bad("number -1", images("-d", "-1"), "-1", "-d"),
    bad("number x", images("-d", "x"), "x", "-d"),
    bad("name with a blank", images("--name", "a b"), "'a b'", "--name"),
    bad("name climbs out", images("--name", "../x"), "'../x'", "--name"),
    bad("name is empty text", images("--name", ""), "''", "--name"),
    bad("name with umlauts", images("--name", "Schilddrüse"), "Schilddrüse", "--name"),
    bad("name is too long", images("--name", "x" * 300), "200", "--name"),
    bad("folds 0", images("--folds", "0"), "folds", "0"),
    bad("folds 1", images("--folds", "1"), "folds", "1"),
    bad("folds -5", images("--folds", "-5"), "folds", "-5"),
    bad("folds x", images("--folds", "x"), "--folds", "x"),
    bad("more folds than images", images("--folds", "99"), "99"),
    bad("seed x", images("--seed", "x"), "--seed", "x"),
    bad("threshold 0", images("--mask-threshold", "0"), "threshold", "0"),
    bad("threshold 256", images("--mask-threshold", "256"), "threshold", "256"),
    bad("threshold x", images("--mask-threshold", "x"), "--mask-threshold", "x"),
    bad("label is empty text", images("--label", ""), "--label"),
    bad("label is background", images("--label", "background"), "background", "--label"),
    bad("label is ignore", images("--label", "ignore"), "ignore", "--label"),
    bad("channel is empty text", images("--channel", ""), "--channel"),
    bad("output is a file", images("-o", "ROOT/in/p0 a.png"), "ROOT/in/p0 a.png"),
    bad("output below a file", images("-o", "ROOT/in/p0 a.png/x"), "ROOT/in/p0 a.png"),
    bad("output is no UTF-8", images("-o", f"ROOT/{FOREIGN}"), "-o", "UTF-8"),
    bad("output is empty text", images("-o", ""), "-o"),
    bad("output is a circle", images("-o", "ROOT/c"), "ROOT/c", spoil=spoil.circle("c")),
    bad("output is the input", images("-o", "ROOT/in"), "ROOT/in"),
    bad(
        "output is the masks",
        images("--masks", "ROOT/m", "-o", "ROOT/m"),
        "ROOT/m",
        "-o",
        spoil=spoil.folder("m"),
    ),
    bad("output may not be made", images("-o", "ROOT/new"), "ROOT/new", refused="."),
    bad("output holds something else", images(), OUT, "-d", spoil=holds("mine.txt", "x")),
    bad("data set's folder is a file", images(), OUT, spoil=spoil.write(f"raw/{OUT}", "x")),
    bad(
        "number is taken",
        images(),
        "701",
        "Dataset701_Other",
        "-d",
        spoil=spoil.folder("raw/Dataset701_Other"),
    ),
    bad(
        "other settings",
        images(),
        "--overwrite",
        spoil=holds("manifest.json", '{"settings": {"a": 1}, "units": {}}'),
    ),
    bad("manifest is damaged", images(), "manifest.json", spoil=holds("manifest.json", "{")),
    bad("manifest is a list", images(), "manifest.json", spoil=holds("manifest.json", "[1]")),
    bad(
        "manifest's settings are a list",
        images(),
        "manifest.json",
        spoil=holds("manifest.json", '{"settings": [], "units": {}}'),
    ),
    bad(
        "manifest's units are a list",
        images("--overwrite"),
        "manifest.json",
        spoil=holds("manifest.json", '{"settings": {}, "units": []}'),
    ),
    bad(
        "journal of something else",
        images(),
        "manifest.partial.jsonl",
        spoil=holds("manifest.partial.jsonl", "[1]\n"),
    ),
    bad(
        "journal of other lines",
        images(),
        "manifest.partial.jsonl",
        spoil=holds("manifest.partial.jsonl", '{"settings": {}}\n{"unit": [1], "record": 1}\n'),
    ),
    bad(
        "journal's settings are a list",
        images(),
        "manifest.partial.jsonl",
        spoil=holds("manifest.partial.jsonl", '{"settings": [1]}\n'),
    ),
    bad(
        "two images of one case name",
        images(),
        "rename",
        spoil=spoil.both(
            spoil.copy("in/p0 a.png", "in/p0_a.png"),
            spoil.copy("in/p0 a_mask.png", "in/p0_a_mask.png"),
        ),
    ),
    bad(
        "only masks",
        images("-i", "ROOT/m"),
        "ROOT/m",
        spoil=spoil.copy("in/p0 a_mask.png", "m/a_mask.png"),
    ),
    bad(
        "only images", images("-i", "ROOT/m"), "ROOT/m", spoil=spoil.copy("in/p0 a.png", "m/a.png")
    ),
    bad(
        "suffixes that are not read",
        images("-i", "ROOT/m"),
        "ROOT/m",
        ".png",
        spoil=spoil.both(
            spoil.copy("in/p0 a.png", "m/a.webp"), spoil.copy("in/p0 a_mask.png", "m/a_mask.webp")
        ),
    ),
]

THYROID = [
    bad("input does not exist", thyroid("-i", "ROOT/no"), "ROOT/no", "-i"),
    bad("input is a file", thyroid("-i", "ROOT/in/train.csv"), "train.csv", "-i"),
    bad("no image/", thyroid(), "ROOT/in", "image/", spoil=spoil.remove("in/image")),
    bad("no mask/", thyroid(), "ROOT/in", "mask/", spoil=spoil.remove("in/mask")),
    bad("two image folders", thyroid(), "image, images", spoil=spoil.folder("in/images")),
    bad("no table", thyroid(), "train.csv", spoil=spoil.remove("in/train.csv")),
    bad("table is a folder", thyroid(), "train.csv", spoil=spoil.folder("in/train.csv")),
    bad("table is empty", thyroid(), "ID", "CATE", spoil=spoil.write("in/train.csv", "")),
    bad(
        "table's columns", thyroid(), "name", spoil=spoil.write("in/train.csv", "name,class\n1,0\n")
    ),
    bad(
        "table is Latin-1",
        thyroid(),
        "train.csv",
        spoil=spoil.write("in/train.csv", "ID,CATE,Ä\n0,0,ü\n".encode("latin-1")),
    ),
    bad(
        "table is UTF-16",
        thyroid(),
        "train.csv",
        spoil=spoil.write("in/train.csv", "ID,CATE\n".encode("utf-16")),
    ),
    bad(
        "table is binary",
        thyroid(),
        "train.csv",
        spoil=spoil.write("in/train.csv", bytes(range(256))),
    ),
    bad(
        "table holds NUL",
        thyroid(),
        "train.csv",
        spoil=spoil.write("in/train.csv", b"ID,CATE\n0\x00,0\n"),
    ),
    bad(
        "table is of one huge field",
        thyroid(),
        "train.csv",
        spoil=spoil.write("in/train.csv", "ID,CATE\n" + "9" * 200_000 + ",0\n"),
    ),
    bad(
        "table of other images",
        thyroid(),
        "train.csv",
        spoil=spoil.write("in/train.csv", "ID,CATE\n77,0\n"),
    ),
    bad(
        "no image has a mask",
        thyroid(),
        "ROOT/in",
        spoil=spoil.both(spoil.remove("in/mask"), spoil.folder("in/mask")),
    ),
    bad("threshold 999", thyroid("--mask-threshold", "999"), "999"),
]

LIDC = [
    bad("input does not exist", lidc("-i", "ROOT/no"), "ROOT/no"),
    bad("input is a file", lidc("-i", "ROOT/in/p0 a.png"), "ROOT/in/p0 a.png"),
    bad("input holds no DICOM", lidc(), "ROOT/in", "DICOM"),
    bad("input is empty", lidc("-i", "ROOT/e"), "ROOT/e", "DICOM", spoil=spoil.folder("e")),
    bad("annotations do not exist", lidc("--annotations", "ROOT/no"), "ROOT/no"),
    bad("annotations are a file", lidc("--annotations", "ROOT/in/p0 a.png"), "p0 a.png"),
    bad("form", lidc("--form", "cubes"), "cubes", "crops"),
    bad("consensus", lidc("--consensus", "most"), "most", "majority"),
    bad("voters", lidc("--voters", "all"), "all", "nodule"),
    bad("reader 0", lidc("--reader", "0"), "reader", "0"),
    bad("reader -1", lidc("--reader", "-1"), "reader", "-1"),
    bad("reader x", lidc("--reader", "x"), "--reader", "x"),
    bad("min_pixels 0", lidc("--min-pixels", "0"), "min_pixels", "0"),
    bad("crop 0", lidc("--crop-mm", "0"), "crop_mm", "0"),
    bad("crop -64", lidc("--crop-mm", "-64"), "crop_mm", "-64"),
    bad("crop NaN", lidc("--crop-mm", "nan"), "crop_mm", "nan"),
    bad("crop infinite", lidc("--crop-mm", "inf"), "crop_mm", "inf"),
    bad("crop x", lidc("--crop-mm", "x"), "--crop-mm", "x"),
    bad("crop of scans", lidc("--form", "scans", "--crop-mm", "64"), "crop_mm", "scans"),
    bad("number 1000", lidc("-d", "1000"), "1000"),
    bad("folds 1", lidc("--folds", "1"), "folds", "1"),
]


@pytest.mark.parametrize("row", rows(IMAGES))
def test_image_folder_refuses(row, refuses):
    refuses(main, row, "image_folder")


@pytest.mark.parametrize("row", rows(THYROID))
def test_tnscui_refuses(row, refuses):
    refuses(main, row, "tnscui")


@pytest.mark.parametrize("row", rows(LIDC))
def test_lidc_refuses(row, refuses):
    refuses(main, row, "image_folder")
