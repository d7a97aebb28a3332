"""What goes together: labels, channels, file formats, and cases that lie in two data sets."""

import shutil

import numpy as np
import pytest
from PIL import Image

from nnunetv2_lngswr.experiments.transfer import Options
from nnunetv2_lngswr.experiments.transfer.meaning import Meanings
from nnunetv2_lngswr.experiments.transfer.run import benchmark_transfer
from nnunetv2_lngswr.utils.errors import UserError
from tests.experiments.transfer.world import (
    VANILLA,
    A,
    B,
    all_cases,
    change_json,
    model_folder,
    model_folders,
    read_json,
)

BACKGROUND = {"background": 0}


def described(root, data_set):
    """The dataset.json of a data set and of its models."""
    raw = root / "nnUNet_raw" / data_set / "dataset.json"
    return [raw, *(root / "nnUNet_results" / data_set).glob("*/dataset.json")]


def call(root, out, **options):
    return benchmark_transfer(model_folders(root), [A, B], out, Options(**options))


def refused(root, tmp_path, *texts, **options):
    with pytest.raises(UserError) as error:
        call(root, tmp_path / "out", **options)
    missing = [text for text in map(str, texts) if text not in str(error.value)]
    assert not missing, error.value
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "labels",
    [
        {"lesion": 1},
        {"nodule": 2},
        {"nodule": 1, "gland": 2},
        {"nodule": 1, "ignore": 2},
    ],
    ids=["name", "number", "one more", "ignored"],
)
def test_other_labels_are_refused_with_what_both_files_say(root, evaluations, tmp_path, labels):
    change_json(root / "nnUNet_raw" / B / "dataset.json", labels=BACKGROUND | labels)
    theirs = ", ".join(f"{name} {value}" for name, value in labels.items())
    refused(
        root,
        tmp_path,
        f"{model_folder(root, VANILLA, A) / 'dataset.json'} has the labels background 0, nodule 1,",
        f"{root / 'nnUNet_raw' / B / 'dataset.json'} has background 0, {theirs}",
        "--map-labels",
    )
    assert evaluations.commands == []


def test_two_names_for_one_label_are_taken_where_that_is_said(root, evaluations, tmp_path):
    for file in described(root, B):
        change_json(file, labels=BACKGROUND | {"lesion": 1})
    out = call(root, tmp_path / "out", map_labels=["Nodule=lesion"])
    assert len(evaluations.commands) == 10
    # models of both kinds of names stand side by side
    assert {r["where"] for r in read_json(out / "transfer.json")["side_by_side"]} == {
        "validation",
        "all that were chosen",
    }


def test_numbers_are_not_mended_by_names(root, evaluations, tmp_path):
    for file in described(root, B):
        change_json(file, labels=BACKGROUND | {"lesion": 2})
    refused(root, tmp_path, "nodule 1", "lesion 2", map_labels=["nodule=lesion"])


@pytest.mark.parametrize("pair", ["nodule=lesion", "lesion=nodule"])
def test_a_name_that_nobody_has_is_refused(root, evaluations, tmp_path, pair):
    refused(
        root, tmp_path, "no label is called lesion", "nodule", "--map-labels", map_labels=[pair]
    )


class Labelled:
    """What has labels."""

    description = "dataset.json"

    def __init__(self, **labels):
        self.dataset_json = {"labels": labels}


def test_two_labels_of_one_file_stay_two():
    two, one = Labelled(nodule=1, gland=2), Labelled(lesion=[1])
    meanings = Meanings([("nodule", "gland"), ("lesion", "nodule")], [two, one])
    assert meanings.of_labels(one) == {"lesion": [1]}
    with pytest.raises(UserError, match="dataset.json: two labels would mean lesion, .* is gland"):
        meanings.of_labels(two)


@pytest.mark.parametrize(
    ("pairs", "alike", "apart"),
    [
        ([("a", "b")], "a b A", "c"),
        ([("a", "b"), ("b", "c")], "a b c", "d"),
        ([("a", "b"), ("c", "d"), ("d", "a")], "a b c d", "e"),
        ([("a", "b"), ("b", "a")], "a b", "c"),
    ],
)
def test_meaning_the_same_is_an_equivalence(pairs, alike, apart):
    meanings = Meanings(pairs, [Labelled(**dict.fromkeys("abcde", 0))])
    assert len({meanings.of(name) for name in alike.split()}) == 1
    assert meanings.of(apart) == apart


def test_regions_are_of_the_same_labels_in_the_same_order(root, evaluations, tmp_path):
    labels = BACKGROUND | {"whole": [1, 2], "core": 2}
    for file in [*described(root, A), *described(root, B)]:
        change_json(file, labels=labels, regions_class_order=[1, 2])
    change_json(root / "nnUNet_raw" / B / "dataset.json", regions_class_order=[2, 1])
    # read as far as that: the networks have two outputs, as regions would
    refused(root, tmp_path, "regions_class_order [1, 2]", "regions_class_order [2, 1]")


@pytest.mark.parametrize("names", [["CT"], ["US", "mask"]], ids=["CT", "two"])
def test_other_channels_are_refused_with_what_both_files_say(root, evaluations, tmp_path, names):
    file = root / "nnUNet_raw" / B / "dataset.json"
    change_json(file, channel_names={str(i): name for i, name in enumerate(names)})
    refused(root, tmp_path, "has the channels US,", f"{file} has {', '.join(names)}")
    if len(names) > 1:
        refused(root, tmp_path, "as many", allow_other_channels=True)
        return
    # of the model that was trained there it is the other way round
    call(root, tmp_path / "out", allow_other_channels=True)
    assert len(evaluations.commands) == 10


def test_another_file_format_is_refused_with_what_both_files_say(root, evaluations, tmp_path):
    raw = root / "nnUNet_raw" / B
    change_json(raw / "dataset.json", file_ending=".bmp")
    for path in raw.glob("*Tr/*.png"):
        path.rename(path.with_suffix(".bmp"))
    refused(root, tmp_path, "reads .png", f"{raw / 'dataset.json'} is of .bmp", "convert")


@pytest.mark.parametrize("name", ["thyroid_p000_0", "another"])
def test_a_case_that_lies_in_both_is_refused_whatever_its_name(root, evaluations, tmp_path, name):
    shared = all_cases(root, A)[0]
    for folder, ending in (("imagesTr", "_0000.png"), ("labelsTr", ".png")):
        source = root / "nnUNet_raw" / A / folder / f"{shared}{ending}"
        shutil.copy(source, root / "nnUNet_raw" / B / folder / f"{name}{ending}")
    said = name if name == shared else f"{name} ({shared} there)"
    refused(root, tmp_path, "has 1 images of", said, root / "nnUNet_raw" / A)
    assert evaluations.commands == []


def test_a_case_of_the_same_name_with_other_content_is_another_case(root, evaluations, tmp_path):
    assert set(all_cases(root, A)) & set(all_cases(root, B))
    call(root, tmp_path / "out")
    new = "thyroid_p999_0"
    # as long to the byte, and other content: uncompressed within PNG
    for data_set, value in ((A, 3), (B, 4)):
        image = np.full((64, 64), value, np.uint8)
        folder = root / "nnUNet_raw" / data_set
        Image.fromarray(image).save(folder / f"imagesTr/{new}_0000.png", compress_level=0)
        Image.fromarray(0 * image).save(folder / f"labelsTr/{new}.png")
    sizes = {p.stat().st_size for p in root.glob(f"nnUNet_raw/*/imagesTr/{new}_0000.png")}
    assert len(sizes) == 1
    call(root, tmp_path / "out2")
