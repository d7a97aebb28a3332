"""Laws of the metrics; oracles: nnU-Net's compute_metrics and MONAI's own HD95 and surface Dice."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from evaluation import metrics

SPACINGS = {(1, 20, 24): (999.0, 0.7, 1.3), (12, 14, 10): (2.5, 0.8, 1.0)}


def label_maps(shape, seed=0, top=3):
    """Two smooth random label maps with values 0 .. top."""
    rng = np.random.default_rng(seed)
    ground_truth = np.zeros(shape, np.int64)
    for value in range(1, top + 1):
        start = [int(rng.integers(0, max(n - 6, 1))) for n in shape]
        ground_truth[tuple(slice(s, s + 6) for s in start)] = value
    prediction = np.where(rng.random(shape) < 0.1, 0, np.roll(ground_truth, 1, axis=-1))
    return prediction, ground_truth


@pytest.mark.parametrize("shape", SPACINGS)
@pytest.mark.parametrize("ignore_label", [None, 3])
@pytest.mark.parametrize("labels", [(1, 2), ((1, 2), (2,))])
def test_dice_and_iou_equal_nnunet(shape, ignore_label, labels, tmp_path):
    prediction, ground_truth = label_maps(shape)
    for name, array in (("p", prediction), ("r", ground_truth)):
        sitk.WriteImage(
            sitk.GetImageFromArray(array.astype(np.uint8)), str(tmp_path / f"{name}.nii.gz")
        )
    theirs = compute_metrics(
        str(tmp_path / "r.nii.gz"),
        str(tmp_path / "p.nii.gz"),
        SimpleITKIO(),
        list(labels),
        ignore_label,
    )["metrics"]
    ours = metrics.score(
        prediction, ground_truth, spacing=SPACINGS[shape], labels=labels, ignore_label=ignore_label
    )
    for label in labels:
        assert ours[label].dice == theirs[label]["Dice"] and ours[label].iou == theirs[label]["IoU"]
        assert (
            ours[label].reference_voxels == theirs[label]["n_ref"]
            and ours[label].predicted_voxels == theirs[label]["n_pred"]
        )


@pytest.mark.parametrize("shape", SPACINGS)
def test_surface_distances_equal_monai(shape):
    prediction, ground_truth = label_maps(shape)
    spacing = SPACINGS[shape]
    scores = metrics.score(prediction, ground_truth, spacing=spacing, labels=(1,), tolerance_mm=1.0)
    ours = scores[1]
    squeezed = [torch.from_numpy(a == 1).squeeze(0)[None, None] for a in (prediction, ground_truth)]
    mm = spacing[-(squeezed[0].ndim - 2) :]
    hd95 = compute_hausdorff_distance(*squeezed, include_background=True, percentile=95, spacing=mm)
    nsd = compute_surface_dice(
        *squeezed, class_thresholds=[1.0], include_background=True, spacing=mm
    )
    assert ours.hd95_mm == pytest.approx(float(hd95), rel=1e-6)
    assert ours.nsd == pytest.approx(float(nsd), rel=1e-6)
    assert 0 < ours.nsd < 1 and ours.hd95_mm > 0


@pytest.mark.parametrize(
    "shape, spacing", [((1, 8, 6), (999.0, 2.0, 0.5)), ((4, 8, 6), (3.0, 2.0, 0.5))]
)
def test_empty_mask_rule(shape, spacing):
    empty, full = np.zeros(shape, int), np.ones(shape, int)
    both = metrics.score(empty, empty, spacing=spacing, labels=(1,))[1]
    assert all(np.isnan(getattr(both, m)) for m in metrics.METRICS)
    diagonal = np.linalg.norm([n * s for n, s in zip(shape, spacing) if n > 1])
    for p, r in ((empty, full), (full, empty)):
        missed = metrics.score(p, r, spacing=spacing, labels=(1,))[1]
        assert (missed.dice, missed.iou, missed.nsd) == (
            0,
            0,
            0,
        ) and missed.hd95_mm == pytest.approx(diagonal)


def test_a_perfect_prediction_is_perfect():
    _, ground_truth = label_maps((12, 14, 10))
    perfect = metrics.score(ground_truth, ground_truth, spacing=(1, 1, 1), labels=(1,))[1]
    assert (perfect.dice, perfect.iou, perfect.nsd, perfect.hd95_mm) == (1, 1, 1, 0)


def test_hd95_is_in_mm():
    ground_truth = np.zeros((1, 20, 20), int)
    ground_truth[0, 5:10, 5:10] = 1
    moved = np.roll(ground_truth, 3, axis=2)
    scores = [
        metrics.score(moved, ground_truth, spacing=(999, 1, s), labels=(1,))[1].hd95_mm
        for s in (1.0, 2.0)
    ]
    assert scores == [pytest.approx(3), pytest.approx(6)]


def test_ignored_voxels_never_count():
    prediction, ground_truth = label_maps((12, 14, 10))
    ground_truth[:, :4] = 9
    other = prediction.copy()
    other[:, :4] = 1
    a, b = (
        metrics.score(p, ground_truth, spacing=(1, 1, 1), labels=(1, 2), ignore_label=9)
        for p in (prediction, other)
    )
    assert a == b


def test_foreground_mean_leaves_out_background_and_undefined_labels():
    prediction, ground_truth = label_maps((12, 14, 10), top=1)
    scores = metrics.score(prediction, ground_truth, spacing=(1, 1, 1), labels=(0, 1, 2))
    assert np.isnan(scores[2].dice)
    assert metrics.foreground_mean(scores).dice == scores[1].dice
    assert np.isnan(metrics.foreground_mean({2: scores[2]}).dice)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"spacing": (1, 1)}, "spacing must have"),
        ({"tolerance_mm": -1.0}, "tolerance_mm must be"),
        ({"tolerance_mm": float("inf")}, "tolerance_mm must be >= 0 and finite, got inf"),
        ({"tolerance_mm": float("nan")}, "tolerance_mm must be"),
        ({"spacing": (1, 0, 1)}, "spacing must be > 0 and finite"),
        ({"spacing": (1, 1, float("nan"))}, "spacing must be > 0 and finite"),
        ({"prediction": np.zeros((2, 2, 3), int)}, "one shape"),
    ],
)
def test_bad_input_is_named(change, message):
    given = {"prediction": np.zeros((2, 2, 2), int), "spacing": (1, 1, 1)} | change
    with pytest.raises(ValueError, match=message):
        metrics.score(given.pop("prediction"), np.zeros((2, 2, 2), int), labels=(1,), **given)
