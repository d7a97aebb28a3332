"""The data of a benchmark: their resolution, and what of them is held out."""

import json

import pytest

from nnunetv2_lngswr.experiments.robustness import benchmark_robustness
from nnunetv2_lngswr.experiments.robustness.planning import low_resolution_spacing
from tests.experiments.robustness.settings import DATASET


@pytest.mark.parametrize(
    ("spacing", "shape", "dimensions", "side", "expected"),
    [
        ((999, 1, 1), (1, 360, 500), 2, 120, (999, 3, 3)),  # a picture
        ((999, 0.5, 0.5), (1, 200, 100), 2, 100, (999, 0.5, 0.5)),  # nothing is made finer
        ((5, 1, 1), (20, 400, 300), 2, 100, (5, 3, 3)),  # the coarse axis is left alone
        ((1, 1, 1), (51, 51, 60), 3, 34, (1.5, 1.5, 1.5)),
        ((4, 1, 1), (20, 160, 160), 3, 40, (4, 2, 2)),  # 80 mm along the shortest
    ],
)
def test_low_resolution_keeps_so_many_voxels_of_the_shortest_axis(
    spacing, shape, dimensions, side, expected
):
    fingerprint = {"spacings": [spacing] * 3, "shapes_after_crop": [shape] * 3}
    assert low_resolution_spacing(fingerprint, dimensions, side) == pytest.approx(expected)


def test_the_cases_of_a_held_out_fold_are_neither_trained_on_nor_attacked(raw, tmp_path, ran):
    out = benchmark_robustness(
        DATASET, "2d", tmp_path / "out", arms=[], preset="tiny", hold_out=1, folds=[0]
    )
    given = json.loads((raw / DATASET / "splits_final.json").read_text())
    used = json.loads((out / "nnUNet_preprocessed" / DATASET / "splits_final.json").read_text())
    held_out = set(given[1]["val"])
    assert held_out and used[0]["val"] == given[0]["val"]
    assert sorted(used[0]["train"]) == sorted(set(given[0]["train"]) - held_out) != []
    with pytest.raises(ValueError, match=r"other settings \(hold_out\)"):
        benchmark_robustness(DATASET, "2d", out, arms=[], preset="tiny")
    with pytest.raises(ValueError, match="fold 99 cannot be held out"):
        benchmark_robustness(DATASET, "2d", tmp_path / "out2", arms=[], preset="tiny", hold_out=99)
