"""Labels that some cases lack, files without a spacing, and names that a table must not run."""

import json

import numpy as np
import pytest
import tifffile

from evaluation.rows import MEAN_LABEL
from evaluation.scoring import run
from tests.evaluation.scoring.files import (
    CASES,
    rows,
    score,
    truth,
    write_image,
    write_labels,
    write_model,
)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Figures take nine tenths of a small call's time."""
    for name in ("draw_scores", "draw_reliability"):
        monkeypatch.setattr(run, name, lambda path, *of: path.write_text("a picture"))


def write_stack(path, spacing=None):
    tifffile.imwrite(path, np.pad(np.ones((4, 6, 8), np.uint8), 3), compression="zlib")
    if spacing:
        path.with_suffix(".json").write_text(json.dumps({"spacing": spacing}))


def test_stacks_without_a_spacing_have_voxels(tmp_path):
    for folder in ("labels", "a"):
        (tmp_path / folder).mkdir()
        write_stack(tmp_path / folder / "x.tif")
    found = score(tmp_path, "a")
    assert found["metrics"]["length_unit"] == found["metrics"]["volume_unit"] == "voxels"
    assert rows(tmp_path)[0]["reference_volume"] == "192"
    for folder in ("labels", "a"):
        write_stack(tmp_path / folder / "x.tif", [1, 1, 1])
    assert score(tmp_path, "a")["metrics"]["volume_unit"] == "ml"
    assert rows(tmp_path)[0]["reference_volume"] == "0.192"


def test_without_a_dataset_json_a_label_that_a_case_lacks_has_no_volume(tmp_path):
    write_labels(tmp_path / "labels", cases=CASES[:2])
    write_model(tmp_path / "a", cases=CASES[:2])
    for folder in ("labels", "a"):
        write_image(tmp_path / folder / f"{CASES[1]}.nii.gz", truth(1).clip(0, 1))
    score(tmp_path, "a")
    by_label = {r["label"]: r for r in rows(tmp_path) if r["case"] == CASES[1]}
    assert by_label["2"]["reference_volume"] == by_label["2"]["predicted_volume"] == "0"
    for volume in ("reference_volume", "predicted_volume"):
        assert float(by_label[MEAN_LABEL][volume]) == float(by_label["1"][volume]) > 0


def test_a_label_that_is_in_no_ground_truth_is_said(tmp_path):
    write_labels(tmp_path / "labels", cases=CASES[:2])
    write_model(tmp_path / "a", cases=CASES[:2])
    write_model(tmp_path / "b", cases=CASES[:2])
    assert not any("in no ground truth" in note for note in score(tmp_path, "a", "b")["notes"])
    one = truth(0)
    one[0, 0, 0] = 3
    write_image(tmp_path / "b" / f"{CASES[0]}.nii.gz", one)
    found = score(tmp_path, "a", "b", overwrite=True)
    (note,) = (n for n in found["notes"] if "in no ground truth" in n)
    assert note.startswith("3 (3): in no ground truth of these cases, but predicted")


def test_no_name_is_run_by_a_spreadsheet(tmp_path):
    write_labels(tmp_path / "labels", cases=("=HYPERLINK_1", "b_2"))
    write_model(tmp_path / "a", cases=("=HYPERLINK_1", "b_2"))
    score(tmp_path, "a")
    assert {r["case"] for r in rows(tmp_path)} == {"'=HYPERLINK_1", "b_2"}
