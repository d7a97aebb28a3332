"""Laws of lesions: components, matched one to one, as panoptica counts them."""

import json
import math

import numpy as np
import pytest

from evaluation.scoring.lesions import match_lesions
from tests.evaluation.scoring.record_panoptica import RECORDED, masks

PANOPTICA = json.loads(RECORDED.read_text())["results"]


@pytest.mark.parametrize("said", PANOPTICA, ids=lambda r: f"{r['seed']}-{r['iou']}")
def test_it_counts_as_panoptica(said):
    found = match_lesions(*masks(said["seed"]), iou=said["iou"])
    counts = [said[k] for k in ("reference", "predicted", "matched")]
    assert [found.reference, found.predicted, found.matched] == counts
    assert found.f1 == pytest.approx(said["f1"])


def test_thresholds_tell_cases_apart():
    """Or the oracle above would say little of them."""
    by_iou = {iou: [r["matched"] for r in PANOPTICA if r["iou"] == iou] for iou in (0.1, 0.5)}
    assert sum(by_iou[0.1]) > sum(by_iou[0.5]) + 5


def line(*runs):
    """A row of voxels with runs (start, stop)."""
    found = np.zeros((1, 3, 40), bool)
    for start, stop in runs:
        found[0, 1, start:stop] = True
    return found


def test_a_lesion_matches_once():
    cut_in_two = match_lesions(line((0, 4), (5, 10)), line((0, 10)), iou=0.1)
    assert (cut_in_two.reference, cut_in_two.predicted, cut_in_two.matched) == (1, 2, 1)
    joined = match_lesions(line((0, 10)), line((0, 4), (5, 10)), iou=0.1)
    assert (joined.reference, joined.predicted, joined.matched) == (2, 1, 1)


def test_of_two_that_may_match_the_better_total_counts():
    # the best pair, 7 voxels of 19, would leave 4 of 12 and 5 of 14 without a partner
    prediction, truth = line((0, 4), (5, 19)), line((0, 12), (13, 18))
    assert match_lesions(prediction, truth, iou=0.1).matched == 2


@pytest.mark.parametrize("iou, matched", [(0.5, 1), (0.51, 0)])
def test_the_threshold_itself_counts(iou, matched):
    assert match_lesions(line((0, 5)), line((0, 10)), iou=iou).matched == matched


def test_voxels_that_touch_at_a_corner_are_one_lesion():
    corner = np.zeros((3, 3, 3), bool)
    corner[0, 0, 0] = corner[1, 1, 1] = True
    assert match_lesions(corner, corner, iou=0.1).reference == 1
    flat = corner.max(0, keepdims=True)
    assert match_lesions(flat, flat, iou=0.1).reference == 1


def test_what_is_not_there_is_undefined_and_what_is_missed_is_zero():
    nothing, lesion = line(), line((3, 7))
    neither = match_lesions(nothing, nothing, iou=0.1)
    assert all(math.isnan(v) for v in (neither.f1, neither.sensitivity, neither.precision))
    missed = match_lesions(nothing, lesion, iou=0.1)
    assert (missed.f1, missed.sensitivity) == (0, 0) and math.isnan(missed.precision)
    made_up = match_lesions(lesion, nothing, iou=0.1)
    assert (made_up.f1, made_up.precision) == (0, 0) and math.isnan(made_up.sensitivity)
