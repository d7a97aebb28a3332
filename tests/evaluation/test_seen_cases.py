"""Training cases that are given as images: the report says how many."""

import json

import pytest

from evaluation.seen_cases import seen_cases

NAMES = ["a", "b", "c", "d"]
SPLITS = [{"train": ["a", "b"], "val": ["c", "d"]}, {"train": ["a", "c"], "val": ["b", "d"]}]


@pytest.fixture
def images(tmp_path, monkeypatch):
    """The data set's own."""
    for name in ("raw", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        (tmp_path / name / "Dataset1_A" / "imagesTr").mkdir(parents=True)
    file = tmp_path / "preprocessed" / "Dataset1_A" / "splits_final.json"
    file.write_text(json.dumps(SPLITS))
    return tmp_path / "raw" / "Dataset1_A" / "imagesTr"


@pytest.mark.parametrize(
    ("folds", "cases", "count"),
    [([0], NAMES, 2), ([0, 1], NAMES, 3), (["all"], NAMES, 4), ([0], ["a", "c"], 1)],
)
def test_of_its_own_images_it_counts_those_that_any_fold_was_trained_on(
    images, folds, cases, count, tmp_path
):
    (tmp_path / "link").symlink_to(images)
    for place in (images, tmp_path / "link"):
        said = seen_cases("Dataset1_A", place, cases, folds)
        assert said.startswith(f"{count} of these cases it was trained on")


def test_without_splits_all_are_suspect_and_of_other_images_nothing_is_known(
    images, tmp_path, monkeypatch
):
    assert seen_cases("Dataset1_A", images, ["d"], [0]) == ""
    assert seen_cases("Dataset1_A", images.with_name("imagesTs"), NAMES, [0]) == ""
    assert seen_cases("Dataset2_B", images, NAMES, [0]) == ""
    for content in ("[]", "{", '[{"val": []}]'):
        (tmp_path / "preprocessed" / "Dataset1_A" / "splits_final.json").write_text(content)
        assert "data set that it was trained on" in seen_cases("Dataset1_A", images, NAMES, [0])
    monkeypatch.delenv("nnUNet_preprocessed")
    assert "data set that it was trained on" in seen_cases("Dataset1_A", images, NAMES, [0])
    monkeypatch.delenv("nnUNet_raw")
    assert seen_cases("Dataset1_A", images, NAMES, [0]) == ""
