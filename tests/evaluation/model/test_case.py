"""Preprocessing is nnU-Net's, labels stay apart from images, and what bad input says."""

import json

import numpy as np
import pytest
import torch

from evaluation.model.folder import SegmentationModel
from nnunetv2_lngswr.attacks import ThreatModel, run_attack
from tests import model_folders
from tests.evaluation.tiny import run
from tests.model_folders import make_case, make_model_folder, write_image


@pytest.fixture
def seen(monkeypatch):
    """What is predicted: the images, in their order."""
    images, prediction = [], SegmentationModel.prediction

    def predicted(self, case, x=None):
        images.append(x)
        return prediction(self, case, x)

    monkeypatch.setattr(SegmentationModel, "prediction", predicted)
    return images


def test_the_label_does_not_touch_the_image(tmp_path):
    # z-scoring with a mask: a label outside the nonzero region would enter the mean if both were
    # preprocessed at once
    image, label = model_folders.ball((20, 24))
    image[:10, 12:] = 0  # a corner: inside the crop, outside the mask
    files = [write_image(tmp_path / "images" / "a_0000.nii.gz", image)]
    label[5:15, 14:20] = 1
    label_file = write_image(tmp_path / "a.nii.gz", label)
    model = SegmentationModel.from_folder(make_model_folder(tmp_path, use_mask=True))
    assert torch.equal(model.preprocess(files).x, model.preprocess(files, label_file).x)


@pytest.mark.parametrize("masked", [False, True])
def test_what_nnunet_sets_to_nothing_stays_so_under_corruptions(masked, tmp_path, seen):
    image, label = model_folders.ball((20, 24))
    image[:10, 12:] = 0
    write_image(tmp_path / "images" / "a_0000.nii.gz", image)
    write_image(tmp_path / "labels" / "a.nii.gz", label)
    folder = make_model_folder(tmp_path, use_mask=masked)
    model = SegmentationModel.from_folder(folder)
    case = model.preprocess([tmp_path / "images" / "a_0000.nii.gz"])
    if masked:
        assert torch.equal(case.outside, case.x == 0) and case.outside.sum() == 10 * 12
    else:
        assert case.outside is None
    world = (folder, tmp_path / "images", tmp_path / "labels")
    run(world, tmp_path / "out", attacks=["noise"], steps=None, corruptions=["brightness"])
    assert len(seen) == 1 + 2 + 5
    for severity in seen[-5:]:
        moved = (severity != case.x).squeeze()
        assert moved[10:].any() and bool(moved[:10, 12:].any()) != masked


def test_clipped_air_stays_where_it_is_though_resampling_rings(tmp_path, seen):
    """A scanner that says 40 HU more does not bring air at -1000 HU into an abdomen's window."""
    image = np.full((40, 48), -1000.0, np.float32)
    label = np.zeros(image.shape, np.uint8)
    image[10:30, 12:36] = np.random.default_rng(0).normal(100, 20, (20, 24))
    label[15:25, 18:30] = 1
    spacing = (1.4, 1.4)
    write_image(tmp_path / "images" / "a_0000.nii.gz", image, spacing=spacing)
    write_image(tmp_path / "labels" / "a.nii.gz", label, spacing=spacing)
    folder = make_model_folder(tmp_path, normalization="CTNormalization")
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["2d"]["resampling_fn_data_kwargs"]["order"] = 3  # as nnU-Net plans it
    (folder / "plans.json").write_text(json.dumps(plans))
    model = SegmentationModel.from_folder(folder)
    case = model.preprocess([tmp_path / "images" / "a_0000.nii.gz"])
    assert case.resampled and case.clipped.shape == case.x.shape
    air = torch.zeros_like(case.clipped)
    air[..., :10, :] = True
    assert case.clipped[air].all() and case.x[air].unique().numel() > 1
    world = (folder, tmp_path / "images", tmp_path / "labels")
    run(world, tmp_path / "out", attacks=["none"], corruptions=["gaussian_noise", "hu_offset"])
    noise, offset = seen[-10:-5], seen[-5:]
    for severity in offset:
        moved = severity != case.x
        assert not moved[air].any() and moved[~case.clipped].float().mean() > 0.9
    assert all((severity != case.x)[air].any() for severity in noise)


def test_nothing_is_clipped_where_normalisation_does_not_clip(tmp_path):
    image, _ = model_folders.ball((20, 24))
    files = [write_image(tmp_path / "images" / "a_0000.nii.gz", image)]
    assert (
        SegmentationModel.from_folder(make_model_folder(tmp_path)).preprocess(files).clipped is None
    )


def test_previous_stage_of_a_cascade_is_appended_and_never_attacked(tmp_path):
    folder = make_model_folder(
        tmp_path, dimension=3, previous_stage="3d_lowres", labels={"background": 0, "a": 1, "b": 2}
    )
    files, label = make_case(tmp_path / "images", shape=(12, 14, 13))
    model = SegmentationModel.from_folder(folder)
    assert model.is_cascade
    with pytest.raises(ValueError, match="previous|prev_stage"):
        model.preprocess(files, label)
    case = model.preprocess(files, label, label)
    assert (
        case.x.shape[0] == 3
        and torch.equal(case.x[1], case.labels.float())
        and case.image_channels == 1
    )
    ball = ThreatModel(norm="linf", epsilon=0.1).ball(case.bounds)
    window = model.sliding_window(window_batch_size=8)
    result = run_attack(
        "pgd_linf",
        window,
        case.batch,
        case.target(model.label_space),
        ball,
        generator=torch.Generator().manual_seed(0),
        steps=2,
    )
    assert torch.equal(result.perturbed[0, 1:], case.x[1:]) and not torch.equal(
        result.perturbed[0, :1], case.x[:1]
    )
    assert model.predict(case, result.perturbed[0]).shape == (12, 14, 13)


def test_labels_are_preprocessed_with_ignored_voxels_and_minus_one(tmp_path):
    folder = make_model_folder(tmp_path, labels={"background": 0, "ball": 1, "ignore": 2})
    image, label = model_folders.ball((20, 24))
    image[0, :5] = 0
    label[18:] = 2
    files = [write_image(tmp_path / "images" / "a_0000.nii.gz", image)]
    model = SegmentationModel.from_folder(folder)
    case = model.preprocess(files, write_image(tmp_path / "a.nii.gz", label))
    assert sorted(case.labels.unique().tolist()) == [0, 1, 2]
    target = case.target(model.label_space)
    assert torch.equal(~target.mask[0, 0], case.labels == 2) and np.array_equal(
        case.ground_truth[0], label
    )


def test_bad_cases_are_named(tmp_path):
    model = SegmentationModel.from_folder(make_model_folder(tmp_path))
    image, label = model_folders.ball((20, 24))
    folder = tmp_path / "images"

    def image_file(array, **more):
        return [write_image(folder / "a_0000.nii.gz", array, **more)]

    def label_file(array, **more):
        return write_image(tmp_path / "a.nii.gz", array, **more)

    with pytest.raises(ValueError, match="does not exist"):
        model.preprocess([folder / "missing_0000.nii.gz"])
    with pytest.raises(ValueError, match="NaN"):
        model.preprocess(image_file(np.where(label, np.nan, image).astype(np.float32)))
    with pytest.raises(ValueError, match=r"constant \(7"):
        model.preprocess(image_file(np.full_like(image, 7)))
    with pytest.raises(ValueError, match=r"2 channels, but dataset.json of the model has 1"):
        model.preprocess(image_file(image) * 2)
    with pytest.raises(ValueError, match=r"shape \(1, 20, 23\) differs"):
        model.preprocess(image_file(image), label_file(label[:, 1:]))
    with pytest.raises(ValueError, match="spacing .* differs"):
        model.preprocess(image_file(image), label_file(label, spacing=(1, 2)))
    with pytest.raises(ValueError, match=r"labels \[4.0\] are not in dataset.json"):
        model.preprocess(image_file(image), label_file(label * 4))
    with pytest.raises(ValueError, match="is no cascade"):
        model.preprocess(image_file(image), label_file(label), label_file(label))
    (folder / "b_0000.nii.gz").write_bytes(b"broken")
    with pytest.raises(ValueError, match="cannot read .*b_0000"):
        model.preprocess([folder / "b_0000.nii.gz"])
    case = model.preprocess(image_file(image))
    with pytest.raises(ValueError, match="without a label"):
        case.target(model.label_space)
    with pytest.raises(ValueError, match="case's shape"):
        model.predict(case, case.x[:, :, 1:])
