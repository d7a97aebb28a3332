"""Laws of calibration: MONAI's bins, sums that add up, and what is near the object."""

import numpy as np
import pytest
import torch

from evaluation.calibration import (
    BINS,
    BOX,
    COUNT,
    MARGIN,
    WHOLE,
    bin_sums,
    brier_score,
    calibration_sums,
    expected_calibration_error,
)
from evaluation.masks import bounding_box


def probabilities(seed, shape=(9, 11, 10)):
    """(p, y), overconfident."""
    rng = np.random.default_rng(seed)
    p = rng.random(shape).astype(np.float32)
    return p, rng.random(shape) < 0.25 + 0.5 * p


@pytest.mark.parametrize("seed", range(3))
def test_it_is_monais_expected_calibration_error(seed):
    monai = pytest.importorskip("monai.metrics.calibration", reason="since monai 1.6")
    p, y = probabilities(seed)
    metric = monai.CalibrationErrorMetric(num_bins=BINS, calibration_reduction="expected")
    said = metric(torch.from_numpy(p)[None, None], torch.from_numpy(y)[None, None].float())
    found = float(expected_calibration_error(bin_sums(p, y)))
    assert found == pytest.approx(float(said), abs=1e-6)
    assert found > 0.05


def test_the_brier_score_is_the_mean_squared_error():
    p, y = probabilities(3)
    wanted = np.mean((p.astype(np.float64) - y) ** 2)
    assert float(brier_score(bin_sums(p, y))) == pytest.approx(wanted)


def test_probabilities_that_are_frequencies_have_no_error():
    p = np.repeat([0.25, 0.5], 8)
    y = np.array([1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0], bool)
    assert float(expected_calibration_error(bin_sums(p, y))) == 0
    assert float(expected_calibration_error(bin_sums(p, ~y))) == pytest.approx(0.25)


def test_sums_of_cases_are_those_of_their_voxels():
    (p, y), (q, z) = probabilities(4), probabilities(5, (4, 5, 6))
    both = bin_sums(np.append(p, q), np.append(y, z))
    np.testing.assert_allclose(bin_sums(p, y) + bin_sums(q, z), both)


def test_the_ends_are_in_a_bin():
    sums = bin_sums(np.array([0.0, 1.0]), np.array([False, True]))
    assert sums[0, COUNT] == sums[-1, COUNT] == 1
    assert float(expected_calibration_error(sums)) == 0


def test_the_box_is_around_prediction_and_label_and_ignores_what_does_not_count():
    shape = (1, 60, 50)
    p = np.full(shape, 0.01, np.float32)
    prediction, truth, counted = (np.zeros(shape, bool) for _ in range(3))
    counted[:] = True
    prediction[0, 20:22, 30:33], truth[0, 25, 30] = True, True
    sums = calibration_sums(p, prediction, truth, counted)
    assert sums[WHOLE, :, COUNT].sum() == 60 * 50
    assert sums[BOX, :, COUNT].sum() == (6 + 2 * MARGIN) * (3 + 2 * MARGIN)
    counted[0, 20:22] = False
    sums = calibration_sums(p, prediction, truth, counted)
    assert sums[WHOLE, :, COUNT].sum() == 58 * 50
    # what is ignored neither makes the box larger nor is in it
    assert sums[BOX, :, COUNT].sum() == (1 + 2 * MARGIN - 2) * (1 + 2 * MARGIN)


def test_without_an_object_there_is_no_box():
    nothing = np.zeros((1, 5, 5), bool)
    sums = calibration_sums(np.zeros(nothing.shape), nothing, nothing, ~nothing)
    assert np.isnan(expected_calibration_error(sums)[BOX])
    assert expected_calibration_error(sums)[WHOLE] == 0


def test_a_bounding_box_is_that_of_numpy():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random((4, 6, 5)) < 0.05
        box = bounding_box(mask)
        if not mask.any():
            assert box is None
            continue
        where = np.argwhere(mask)
        assert [(s.start, s.stop) for s in box] == [*zip(where.min(0), where.max(0) + 1)]
