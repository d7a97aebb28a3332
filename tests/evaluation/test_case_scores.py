"""Laws of what is measured of a case: calibration near the object, of the right channel."""

import numpy as np
import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from scipy.special import logit

from evaluation import metrics
from evaluation.calibration import BINS, MARGIN
from evaluation.case_scores import foreground_mean, score_case
from evaluation.model.case import Case
from evaluation.model.prediction import Prediction

LABELS = LabelManager({"background": 0, "organ": 1, "lesion": 2}, None)
REGIONS = LabelManager({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])
IGNORED = LabelManager({"background": 0, "organ": 1, "lesion": 2, "ignore": 3}, None)
SHAPE = (2, 60, 50)


def case_of(truth):
    return Case(
        identifier="a",
        image_files=(),
        x=None,
        labels=None,
        ground_truth=truth,
        properties={"spacing": (1.0,) * truth.ndim},
        image_channels=1,
        file_scale=None,
        file_offset=None,
        resampled=False,
    )


def scores(p, truth, manager=LABELS):
    """Of probabilities (K, *spatial), those of labels adding up to 1."""
    with np.errstate(divide="ignore"):
        z = (logit(p) if manager.has_regions else np.log(p)).clip(-1e4, 1e4)
    labels = np.asarray(manager.convert_logits_to_segmentation(z))
    prediction = Prediction(segmentation=labels, logits=z, label_manager=manager)
    return score_case(prediction, case_of(truth), manager, tolerance_mm=2.0)


def truth_of(seed):
    found = np.zeros(SHAPE, np.uint8)
    found[:, 20:34, 15:30] = 1
    found[:, 24:28, 18:22] = 2
    flip = np.random.default_rng(seed).random(SHAPE) < 0.1
    return np.where(flip & (found > 0), 1, found).astype(np.uint8)


def soft(truth, seed, *, regions=False):
    """Probabilities that are near the truth, noisy and overconfident."""
    rng = np.random.default_rng(seed)
    heads = [truth > 0, truth == 2] if regions else [truth == k for k in range(3)]
    # far away nothing is predicted, so that the box is smaller than the image
    far = np.ones(truth.shape)
    far[:, 16:40, 12:34] = 0
    far = np.stack([-6 * far if regions or k else far for k in range(len(heads))])
    z = (
        2.0 * np.stack(heads)
        - 1.0 * regions
        + far
        + rng.standard_normal((len(heads), *truth.shape))
    )
    return 1 / (1 + np.exp(-z)) if regions else np.exp(z) / np.exp(z).sum(0)


def by_hand(p, predicted, truth, counted):
    """(ECE, Brier) by a loop over voxels and bins, in the box of what is there and counts."""
    where = np.argwhere((predicted | truth) & counted)
    low, high = where.min(0) - MARGIN, where.max(0) + MARGIN
    bins = [[] for _ in range(BINS)]
    for at in np.argwhere(counted):
        if ((at >= low) & (at <= high)).all():
            value = float(p[tuple(at)])
            number = min(int(value * BINS), BINS - 1)
            bins[number].append((value, float(truth[tuple(at)])))
    count = sum(map(len, bins))
    ece = sum(abs(sum(v for v, _ in b) - sum(y for _, y in b)) for b in bins) / count
    return ece, sum((v - y) ** 2 for b in bins for v, y in b) / count


@pytest.mark.parametrize("name", ["labels", "regions", "ignore"])
def test_it_is_that_of_a_loop_over_voxels(name):
    truth = truth_of(0)
    manager = {"labels": LABELS, "regions": REGIONS, "ignore": IGNORED}[name]
    p = soft(truth, 1, regions=name == "regions").astype(np.float32)
    counted = np.ones(SHAPE, bool)
    if name == "ignore":
        counted[:, 26:40, :] = False
        truth = np.where(counted, truth, 3)
    found = scores(p, truth, manager)
    values = {(1, 2): (1, 2), (2,): (2,), 1: (1,), 2: (2,)}
    channels = {(1, 2): 0, (2,): 1, 1: 1, 2: 2}
    segmentation = np.asarray(
        manager.convert_probabilities_to_segmentation(p) if name == "regions" else p.argmax(0)
    )
    assert len(found) == 2
    for label, score in found.items():
        predicted, there = (np.isin(m, values[label]) for m in (segmentation, truth))
        ece, brier = by_hand(p[channels[label]], predicted, there, counted)
        assert score.ece == pytest.approx(ece, abs=2e-4)  # a voxel on the edge of two bins
        assert score.brier == pytest.approx(brier, abs=1e-5)
        assert score.ece > 0.01
    # and all else is metrics.py's
    plain = metrics.score(
        segmentation, truth, spacing=(1, 1, 1), labels=[*found], ignore_label=manager.ignore_label
    )
    assert {k: v.dice for k, v in plain.items()} == {k: v.dice for k, v in found.items()}


def test_certain_and_right_is_perfect():
    truth = truth_of(2)
    p = np.stack([truth == k for k in range(3)]).astype(np.float64)
    for score in scores(p, truth).values():
        assert (score.dice, score.ece, score.brier) == (1, 0, 0)
    # certain and wrong is not
    wrong = scores(p[[0, 2, 1]], truth)
    assert wrong[1].ece > 0.15 and wrong[1].brier == pytest.approx(wrong[1].ece)


def test_the_prevalence_is_calibrated():
    truth = np.zeros(SHAPE, np.uint8)
    truth[:, 5:55, 5:45][np.random.default_rng(3).random((2, 50, 40)) < 0.25] = 1
    truth[0, 5, 5] = truth[0, 54, 44] = 1  # the box is the whole image
    share = (truth == 1).mean()
    p = np.stack([np.full(SHAPE, v) for v in (1 - share, share, 0.0)])
    found = scores(p, truth)[1]
    assert found.ece == pytest.approx(0, abs=1e-6)
    assert found.brier == pytest.approx(share * (1 - share), abs=1e-6)


def test_nothing_there_and_nothing_found_leaves_the_means():
    truth = np.where(truth_of(4) == 2, 1, truth_of(4)).astype(np.uint8)
    p = np.stack([truth == 0, truth == 1, truth == 2]).astype(np.float64) * 0.8 + 0.2 / 3
    found = scores(p, truth)
    assert np.isnan(found[2].dice) and np.isnan(found[2].ece) and np.isnan(found[2].brier)
    mean = foreground_mean(found)
    assert (mean.ece, mean.brier, mean.dice) == (found[1].ece, found[1].brier, 1)
