"""Laws of predictions: segmentation and probabilities are those that nnU-Net exports."""

import json

import numpy as np
import pytest
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from evaluation.model.folder import SegmentationModel
from evaluation.model.prediction import Prediction
from tests.model_folders import make_case, make_model_folder

REGIONS = {
    "labels": {"background": 0, "whole": [1, 2], "core": 2},
    "regions_class_order": [1, 2],
}


def export(model, case, logits, *, probabilities):
    """nnU-Net's own, of logits."""
    return convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        model.plans,
        model.configuration_manager,
        model.label_manager,
        dict(case.properties),
        return_probabilities=probabilities,
    )


@pytest.mark.parametrize(
    ("options", "shape", "spacing", "moved"),
    [
        ({"dimension": 2, "folds": (0, 1)}, (20, 24), None, False),
        ({"dimension": 2, "spacing": (1.3, 1.3)}, (2, 20, 24), (3, 1, 1), False),
        ({"dimension": 3, "spacing": (1.5, 1, 1)}, (14, 16, 17), (1, 1, 1), True),
        ({"dimension": 3, **REGIONS}, (14, 16, 17), (1, 1, 1), True),
    ],
    ids=("2d", "2d-resampled", "3d-resampled-moved", "3d-regions-moved"),
)
def test_it_is_what_nnunet_exports(options, shape, spacing, moved, tmp_path):
    folder = make_model_folder(tmp_path, **options)
    if moved:
        plans = json.loads((folder / "plans.json").read_text())
        plans |= {"transpose_forward": [2, 0, 1], "transpose_backward": [1, 2, 0]}
        (folder / "plans.json").write_text(json.dumps(plans))
    files, label = make_case(tmp_path / "images", shape=shape, spacing=spacing)
    _pad_with_zeros(files[0], label)
    model = SegmentationModel.from_folder(folder)
    case = model.preprocess(files, label)
    assert case.properties["shape_before_cropping"] != tuple(case.x.shape[1:])
    logits = model.predict_logits(case.x)
    found = model.prediction(case)
    segmentation = export(model, case, logits, probabilities=False)
    assert found.segmentation.dtype == segmentation.dtype and segmentation.any()
    np.testing.assert_array_equal(found.segmentation, segmentation)
    _, wanted = export(model, case, logits, probabilities=True)
    whole = tuple(slice(0, n) for n in segmentation.shape)
    part = tuple(slice(n // 3, n - n // 4) for n in segmentation.shape)
    for channel in range(0 if "regions_class_order" in options else 1, len(wanted)):
        for box in (whole, part):
            p = found.probability(channel, box)
            assert p.dtype == np.float32
            np.testing.assert_allclose(p, wanted[channel][box], atol=1e-6)


def _pad_with_zeros(image, label):
    """So that nnU-Net crops."""
    import SimpleITK as sitk

    for file in (image, label):
        read = sitk.ReadImage(str(file))
        low, high = [3, 2, 0][: read.GetDimension()], [0, 4, 1][: read.GetDimension()]
        sitk.WriteImage(sitk.ConstantPad(read, low, high, 0), str(file))


def test_a_tie_of_probabilities_is_none_of_the_segmentation(tmp_path, monkeypatch):
    """Where the softmax of two logits rounds to one value, nnUNetv2_predict decides by logits."""
    model = SegmentationModel.from_folder(make_model_folder(tmp_path))
    case = model.preprocess(*make_case(tmp_path / "images", shape=(20, 24)))
    logits = torch.zeros((2, *case.x.shape[1:]))
    logits[1] = 1e-9
    monkeypatch.setattr(model._inference, "logits", lambda x: logits.clone())
    rounded, _ = export(model, case, logits.clone(), probabilities=True)
    assert not rounded.any()
    assert model.predict(case).all() and model.prediction(case).segmentation.all()


def test_a_box_beyond_the_crop_is_nothing():
    manager = LabelManager({"background": 0, "ball": 1}, None)
    logits = np.zeros((2, 3, 4), np.float32)
    found = Prediction(
        segmentation=np.zeros((9, 9)), logits=logits, label_manager=manager, corner=(2, 1)
    )
    p = found.probability(1, (slice(0, 9), slice(0, 9)))
    assert p.sum() == 12 * 0.5 and (p[2:5, 1:5] == 0.5).all()
    assert not found.probability(1, (slice(6, 9), slice(0, 1))).any()
