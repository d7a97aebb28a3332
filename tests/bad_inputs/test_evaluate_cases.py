"""`lngswr evaluate`: bad images, labels and validation cases."""

import gzip

import numpy as np
import pytest

from nnunetv2_lngswr.cli.main import main
from tests.bad_inputs import spoil
from tests.bad_inputs.harness import FOREIGN, NO_SUCH_NAMES, bad, rows
from tests.bad_inputs.spoil import DROP
from tests.bad_inputs.test_evaluate_arguments import HOW, OUT, QUICK, evaluate
from tests.bad_inputs.worlds import IMAGE, LABEL, MODEL
from tests.model_folders import ball

PICTURE, LABEL_PICTURE = "images/case0_0000.png", "labels/case0.png"
GOOD, MASK = ball((20, 24))
TURNED = (0.0, 1.0, 1.0, 0.0)


def changed(value: float) -> np.ndarray:
    """The image with one voxel of this value."""
    image = GOOD.copy()
    image[3, 4] = value
    return image


def image(name: str, change, *says: str):
    return bad(f"image {name}", evaluate(), "case0_0000.nii.gz", *says, spoil=change)


def label(name: str, change, *says: str):
    return bad(f"label {name}", evaluate(), "labels", "case0", *says, spoil=change)


def inner_cut(path: str):
    """A whole gzip of half a file."""

    def change(root) -> None:
        data = gzip.decompress((root / path).read_bytes())
        (root / path).write_bytes(gzip.compress(data[: len(data) // 2]))

    return change


def header(path: str, at: int, value, kind: str):
    """A number of the NIfTI header."""

    def change(root) -> None:
        data = bytearray(gzip.decompress((root / path).read_bytes()))
        new = np.array([value], kind).tobytes()
        data[at : at + len(new)] = new
        (root / path).write_bytes(gzip.compress(bytes(data)))

    return change


def same_for(path: str, row) -> list:
    """What can be wrong with any compressed image."""
    data = {
        "is empty": b"",
        "is text": b"no image",
        "is HTML": b"<html>404</html>",
        "is no gzip": bytes(500),
        "is a gzip of nothing": gzip.compress(b""),
        "is a gzip of text": gzip.compress(b"no image at all, but a text that is longer" * 20),
    }
    return [
        *(row(name, spoil.write(path, content)) for name, content in data.items()),
        row("ends early", spoil.cut(path, 0.6)),
        row("ends a byte early", spoil.cut(path, 0.999)),
        row("is half within its gzip", inner_cut(path)),
        row("is a folder", spoil.folder(path)),
        row("is a circle", spoil.circle(path)),
        row("is a link to nothing", spoil.link(path, "nowhere")),
        row("of a huge shape in its header", header(path, 42, 30000, "<i2")),
        row("of a shape below 0 in its header", header(path, 42, -20, "<i2")),
        row("of an unknown type of voxel", header(path, 70, 999, "<i2")),
    ]


def geometry(path: str, row, array: np.ndarray, **more) -> list:
    return [
        row("of spacing 0", header(path, 80, 0, "<f4"), "spacing"),
        row("of spacing below 0", header(path, 80, -1, "<f4"), "spacing", "-1"),
        row("of spacing NaN", header(path, 80, np.nan, "<f4"), "spacing"),
        row("of infinite spacing", header(path, 80, np.inf, "<f4"), "spacing"),
        row("of another spacing", spoil.image(path, array, spacing=(2.0, 1.0)), "spacing"),
        row("of another origin", spoil.image(path, array, origin=(50.0, 0.0)), "origin"),
        row("of another direction", spoil.image(path, array, direction=TURNED), "direction"),
    ]


IMAGES = [
    *same_for(IMAGE, image),
    *geometry(IMAGE, image, GOOD),
    image("holds NaN", spoil.image(IMAGE, changed(np.nan)), "NaN"),
    image("holds infinity", spoil.image(IMAGE, changed(np.inf)), "infinite"),
    image("is constant", spoil.image(IMAGE, np.full((20, 24), 7, np.float32)), "constant"),
    image("is huge in value", spoil.image(IMAGE, changed(1e38)), "1e+38", "at most"),
    image("is huge below 0", spoil.image(IMAGE, changed(-1e30)), "1e+30"),
    image("has two components", spoil.image(IMAGE, np.dstack([GOOD] * 2), vector=True), "2"),
    image("is RGB", spoil.image(IMAGE, np.zeros((20, 24, 3), np.uint8), vector=True)),
    image("is complex", spoil.image(IMAGE, GOOD.astype(np.complex64)), "complex"),
    image("has four axes", spoil.image(IMAGE, np.zeros((2, 3, 20, 24), np.float32))),
    image("has another shape", spoil.image(IMAGE, ball((20, 25))[0]), "shape"),
    image("is of one voxel", spoil.image(IMAGE, np.ones((1, 1), np.float32))),
    bad("image is missing", evaluate(), "images", spoil=spoil.remove(IMAGE)),
    bad(
        "image's only file is channel 1",
        evaluate(),
        "case0",
        "0001",
        "0000",
        spoil=spoil.move(IMAGE, "images/case0_0001.nii.gz"),
    ),
    bad(
        "image with channels 0 and 2",
        evaluate(),
        "case0",
        "channels",
        spoil=spoil.copy(IMAGE, "images/case0_0002.nii.gz"),
    ),
    bad(
        "image without a channel's number",
        evaluate(),
        "images",
        "_0000.nii.gz",
        spoil=spoil.move(IMAGE, "images/case0.nii.gz"),
    ),
    bad(
        "image of another ending",
        evaluate(),
        ".nii.gz",
        spoil=spoil.move(IMAGE, "images/case0_0000.nii"),
    ),
    bad(
        "image without a label",
        evaluate(),
        "case1",
        "label",
        spoil=spoil.copy(IMAGE, "images/case1_0000.nii.gz"),
    ),
    bad(
        "image of a name that is no UTF-8",
        evaluate(),
        "UTF-8",
        "rename",
        skip=NO_SUCH_NAMES,
        spoil=spoil.both(
            spoil.copy(IMAGE, f"images/{FOREIGN}_0000.nii.gz"),
            spoil.copy(LABEL, f"labels/{FOREIGN}.nii.gz"),
        ),
    ),
    bad(
        "image of blanks and umlauts ends early",
        evaluate("--max-cases", "9"),
        "images/ü 影像 (1)_0000.nii.gz",
        spoil=spoil.both(
            spoil.copy(IMAGE, "images/ü 影像 (1)_0000.nii.gz"),
            spoil.copy(LABEL, "labels/ü 影像 (1).nii.gz"),
            spoil.write("images/ü 影像 (1)_0000.nii.gz", b"x"),
        ),
    ),
]

LABELS = [
    *same_for(LABEL, label),
    *geometry(LABEL, label, MASK),
    label("of another shape", spoil.image(LABEL, ball((20, 25))[1]), "shape"),
    label("of three axes", spoil.image(LABEL, np.stack([MASK] * 3)), "shape"),
    label("of unknown values", spoil.image(LABEL, MASK * 3), "3", "dataset.json"),
    label("below 0", spoil.image(LABEL, -MASK.astype(np.int16)), "-1"),
    label("of halves", spoil.image(LABEL, MASK * np.float32(0.5)), "0.5"),
    label("of 255", spoil.image(LABEL, MASK * np.uint8(255)), "255"),
    label("that holds NaN", spoil.image(LABEL, np.where(MASK, np.nan, 0.0)), "NaN"),
    label("in colours", spoil.image(LABEL, np.dstack([MASK] * 3), vector=True)),
    label("that is complex", spoil.image(LABEL, MASK.astype(np.complex64)), "complex"),
    bad("label is missing", evaluate(), "label", "case0", spoil=spoil.remove(LABEL)),
    bad(
        "label without an image",
        evaluate(),
        "labels",
        "case1",
        spoil=spoil.copy(LABEL, "labels/case1.nii.gz"),
    ),
]

PICTURES = [
    bad("picture is text", evaluate(), PICTURE, spoil=spoil.write(PICTURE, b"no image")),
    bad(
        "picture of a name that is no UTF-8",
        evaluate(),
        "UTF-8",
        "rename",
        skip=NO_SUCH_NAMES,
        spoil=spoil.both(
            spoil.move(PICTURE, f"images/{FOREIGN}_0000.png"),
            spoil.move(LABEL_PICTURE, f"labels/{FOREIGN}.png"),
        ),
    ),
    bad("picture is empty", evaluate(), PICTURE, spoil=spoil.write(PICTURE, b"")),
    bad("picture ends early", evaluate(), PICTURE, spoil=spoil.cut(PICTURE, 0.7)),
    bad("picture's label ends early", evaluate(), LABEL_PICTURE, spoil=spoil.cut(LABEL_PICTURE)),
    bad(
        "picture in colours",
        evaluate(),
        PICTURE,
        "3",
        spoil=spoil.image(PICTURE, np.zeros((20, 24, 3), np.uint8), vector=True),
    ),
    bad(
        "picture's label in colours",
        evaluate(),
        LABEL_PICTURE,
        spoil=spoil.image(LABEL_PICTURE, np.dstack([MASK] * 3), vector=True),
    ),
    bad(
        "picture's label in colours that differ",
        evaluate(),
        LABEL_PICTURE,
        spoil=spoil.image(LABEL_PICTURE, np.dstack([MASK, 0 * MASK, 0 * MASK]), vector=True),
    ),
    bad(
        "picture's label is white",
        evaluate(),
        LABEL_PICTURE,
        "255",
        spoil=spoil.image(LABEL_PICTURE, MASK * np.uint8(255)),
    ),
    bad(
        "picture's label of another shape",
        evaluate(),
        LABEL_PICTURE,
        "shape",
        spoil=spoil.image(LABEL_PICTURE, ball((22, 24))[1]),
    ),
]

FOLDERS = {"nnUNet_raw": "ROOT/nnUNet_raw", "nnUNet_preprocessed": "ROOT/nnUNet_preprocessed"}
VALIDATE = ("evaluate", "-m", f"ROOT/{MODEL}", *OUT, *QUICK, *HOW)
SPLITS = "nnUNet_preprocessed/Dataset999_Tiny/splits_final.json"
RAW = "nnUNet_raw/Dataset999_Tiny"


def validation(name: str, change, *says: str, words=(), environ=FOLDERS):
    return bad(f"validation: {name}", (*VALIDATE, *words), *says, spoil=change, environ=environ)


def trained(name: str, content: str, *says: str):
    """What nnU-Net left of the fold's validation when it was trained."""
    return validation(name, spoil.write(f"{MODEL}/fold_0/validation/summary.json", content), *says)


def splits(name: str, content: str, *says: str):
    return validation(name, spoil.write(SPLITS, content), "splits_final.json", *says)


VALIDATION = [
    validation(
        "variables are empty",
        spoil.both(),
        "nnUNet_",
        environ={"nnUNet_raw": "", "nnUNet_preprocessed": ""},
    ),
    validation("no splits", spoil.remove(SPLITS), "splits_final.json", "-i"),
    trained(
        "the fold was trained on what the splits now hold out",
        '{"metric_per_case": [{"reference_file": "/data/case1.nii.gz"}]}',
        "splits_final.json of Dataset999_Tiny",
        "fold 0",
        "may have seen case0",
    ),
    trained("record of the fold's validation is no JSON", "{", "summary.json", "JSON"),
    trained("record of the fold's validation is empty", "{}", "summary.json", "metric_per_case"),
    validation("splits are a folder", spoil.folder(SPLITS), "splits_final.json"),
    validation("splits end early", spoil.cut(SPLITS), "splits_final.json"),
    splits("splits are an object", '{"train": [], "val": ["case0"]}'),
    splits("splits are a number", "5"),
    splits("splits are null", "null"),
    splits("no fold", "[]", "fold 0"),
    splits("folds are texts", '["case0"]'),
    splits("without val", '[{"train": ["case0"]}]', "val"),
    splits("val is null", '[{"train": [], "val": null}]', "val"),
    splits("val is a number", '[{"train": [], "val": 3}]', "val"),
    splits("val is a text", '[{"train": [], "val": "case0"}]', "val"),
    splits("val holds numbers", '[{"train": [], "val": [0, 1]}]', "val"),
    splits("val is empty", '[{"train": ["case0"], "val": []}]', "val"),
    splits("val climbs out of the folder", '[{"train": [], "val": ["../../x"]}]'),
    splits("val names what is not there", '[{"train": [], "val": ["no"]}]', "no"),
    validation("no raw data", spoil.remove(RAW), "nnUNet_raw", "Dataset999_Tiny"),
    validation(
        "no image", spoil.remove(f"{RAW}/imagesTr/case0_0000.nii.gz"), "case0_0000.nii.gz", "fold 0"
    ),
    validation("no label", spoil.remove(f"{RAW}/labelsTr/case0.nii.gz"), "case0.nii.gz", "fold 0"),
    validation(
        "dataset.json of the raw data is a list", spoil.write(f"{RAW}/dataset.json", "[1]"), RAW
    ),
    validation(
        "dataset entries without images",
        spoil.write(f"{RAW}/dataset.json", '{"dataset": {"case0": {"label": "x"}}}'),
        f"{RAW}/dataset.json",
        "images",
    ),
    validation(
        "dataset entries are a list",
        spoil.write(f"{RAW}/dataset.json", '{"dataset": [1]}'),
        f"{RAW}/dataset.json",
        "dataset",
    ),
    validation("fold all", spoil.move(f"{MODEL}/fold_0", f"{MODEL}/fold_all"), "fold_all", "-i"),
    validation(
        "a fold beyond the splits",
        spoil.move(f"{MODEL}/fold_0", f"{MODEL}/fold_7"),
        "splits_final.json",
        "fold 7",
    ),
    validation(
        "plans name another data set",
        spoil.change_json(f"{MODEL}/plans.json", {"dataset_name": "Dataset001_No"}),
        "Dataset001_No",
    ),
    validation(
        "plans' data set climbs out",
        spoil.change_json(f"{MODEL}/plans.json", {"dataset_name": "../x"}),
        "../x",
    ),
    validation(
        "no channel names",
        spoil.change_json(f"{MODEL}/dataset.json", {"channel_names": DROP}),
        "channel_names",
    ),
]


@pytest.mark.parametrize("row", rows([*IMAGES, *LABELS]))
def test_a_bad_image_or_label_is_named(row, refuses):
    refuses(main, row, "evaluation")


@pytest.mark.parametrize("row", rows(PICTURES))
def test_a_bad_picture_is_named(row, refuses):
    refuses(main, row, "pictures")


@pytest.mark.parametrize("row", rows(VALIDATION))
def test_bad_validation_cases_are_named(row, refuses):
    refuses(main, row, "validation")
