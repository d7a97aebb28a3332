"""Segmentations are nnUNetv2_predict's, and attacks lower the Dice of what is exported."""

import json

import numpy as np
import pytest
import torch

from evaluation.model.folder import SegmentationModel
from nnunetv2_lngswr.attacks import ThreatModel, run_attack
from tests.model_folders import make_case, make_model_folder


def plain_predict(folder, files, label_free_output):
    """nnUNetv2_predict without its process pools."""
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), None)
    label_free_output.mkdir(exist_ok=True)
    predictor.predict_from_files_sequential(
        [[str(f) for f in files]], [str(label_free_output / "out")]
    )
    return SimpleITKIO().read_seg(str(label_free_output / "out.nii.gz"))[0][0]


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize(
    ("options", "shape", "spacing"),
    [
        ({"dimension": 2, "folds": (0, 1)}, (20, 24), None),
        ({"dimension": 2, "spacing": (1.3, 1.3)}, (2, 20, 24), (3, 1, 1)),
        (
            {"dimension": 3, "normalization": "CTNormalization", "folds": (1,)},
            (12, 20, 17),
            (1, 1, 1),
        ),
        ({"dimension": 3, "spacing": (1.5, 1, 1)}, (14, 16, 17), (1, 1, 1)),
        ({"dimension": 3, "kind": "resenc"}, (12, 16, 17), (1, 1, 1)),
        ({"dimension": 2, "channels": 2, "use_mask": True}, (20, 24), None),
        ({"dimension": 2, "folds": ("all",)}, (20, 24), None),
        (
            {
                "dimension": 2,
                "labels": {"background": 0, "whole": [1, 2], "core": 2},
                "regions_class_order": [1, 2],
            },
            (20, 24),
            None,
        ),
    ],
    ids=(
        "2d-two-folds",
        "2d-slices-resampled",
        "3d-ct",
        "3d-resampled",
        "3d-resenc",
        "2d-channels-mask",
        "fold-all",
        "regions",
    ),
)
def test_segmentation_equals_plain_predict(options, shape, spacing, tmp_path):
    folder = make_model_folder(tmp_path, **options)
    files, label = make_case(
        tmp_path / "images", shape=shape, channels=options.get("channels", 1), spacing=spacing
    )
    model = SegmentationModel.from_folder(folder)
    case = model.preprocess(files, label)
    ours = model.predict(case)
    if options.get("folds") == ("all",):  # nnU-Net's own detection leaves fold_all out
        (folder / "fold_all").rename(folder / "fold_0")
    assert np.array_equal(ours, plain_predict(folder, files, tmp_path / "out"))
    assert 0 < (ours > 0).mean() < 1 and ours.shape == case.ground_truth.shape
    assert case.labels.shape == case.x.shape[1:] and case.labels.min() == 0
    json.dumps(model.describe())


@pytest.mark.parametrize(("dimension", "shape"), ((2, (24, 24)), (3, (18, 18, 18))))
def test_attacks_lower_the_exported_dice(dimension, shape, tmp_path, trained):
    weights = trained[dimension][0].state_dict()
    folder = make_model_folder(tmp_path, dimension=dimension, state_dicts=[weights])
    model = SegmentationModel.from_folder(folder, use_mirroring=False)
    case = model.preprocess(*make_case(tmp_path / "images", shape=shape))
    ball = ThreatModel(norm="linf", epsilon=0.2).ball(case.bounds)
    window, target = model.sliding_window(window_batch_size=4), case.target(model.label_space)
    clean = dice(model.predict(case), case.ground_truth)

    def attacked(name, **more):
        generator = torch.Generator().manual_seed(0)
        result = run_attack(name, window, case.batch, target, ball, generator=generator, **more)
        return dice(model.predict(case, result.perturbed[0]), case.ground_truth)

    noise, pgd = attacked("noise"), attacked("pgd_linf", steps=10)
    assert clean > 0.85 and pgd < noise - 0.05
    attacked("ssah", steps=5)
