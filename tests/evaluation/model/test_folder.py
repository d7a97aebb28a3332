"""Model folders of any kind, preprocessing and prediction as nnU-Net's, and what bad input says."""

import json

import numpy as np
import pytest
import torch

from evaluation.model.folder import SegmentationModel
from nnunetv2_lngswr.attacks import ThreatModel, run_attack
from nnunetv2_lngswr.utils.checkpoints import sha256
from tests import model_folders
from tests.model_folders import make_case, make_model_folder, write_image


def plain_predict(folder, files, label_free_output):
    """nnUNetv2_predict without its process pools: initialize_from_trained_model_folder and predict_from_files_sequential."""
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
    model.write_segmentation(ours, tmp_path / "written.nii.gz", case)
    assert case.labels.shape == case.x.shape[1:] and case.labels.min() == 0
    json.dumps(model.describe())


def test_the_label_does_not_touch_the_image(tmp_path):
    # z-scoring with a mask: a label outside the nonzero region would enter the mean if both were preprocessed at once
    image, label = model_folders.ball((20, 24))
    image[:10, 12:] = 0  # a corner: inside the crop, outside the mask
    files = [write_image(tmp_path / "images" / "a_0000.nii.gz", image)]
    label[5:15, 14:20] = 1
    label_file = write_image(tmp_path / "a.nii.gz", label)
    model = SegmentationModel.from_folder(make_model_folder(tmp_path, use_mask=True))
    assert torch.equal(model.preprocess(files).x, model.preprocess(files, label_file).x)


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


@pytest.mark.parametrize(
    "normalization",
    ("CTNormalization", "ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization"),
)
def test_file_scale_is_what_one_unit_of_the_file_becomes(normalization, tmp_path):
    image, _ = model_folders.ball((20, 24))
    image[0, 0], image[0, 1] = -900, 900  # outside the CT window
    files = [write_image(tmp_path / "images" / "a_0000.nii.gz", image)]
    case = SegmentationModel.from_folder(
        make_model_folder(tmp_path, normalization=normalization)
    ).preprocess(files)
    expected = {
        "CTNormalization": 1 / 50,
        "ZScoreNormalization": 1 / image.std(),
        "NoNormalization": 1,
        "RescaleTo01Normalization": 1 / 1800,
    }[normalization]
    assert float(case.file_scale) == pytest.approx(expected, rel=1e-4)
    inside = case.file_scale * float(image[10, 10]) + case.file_offset
    assert float(inside) == pytest.approx(float(case.x[0, 0, 10, 10]), abs=1e-4)


def test_folds_are_those_found_or_those_asked_for(tmp_path):
    folder = make_model_folder(tmp_path, folds=(0, 2))
    model = SegmentationModel.from_folder(folder)
    assert model.folds == (0, 2) and len(model.networks) == 2
    one = SegmentationModel.from_folder(folder, folds=[2])
    assert one.folds == (2,) and one.checkpoint_sha256 == {
        2: sha256(folder / "fold_2" / "checkpoint_final.pth")
    }
    x = torch.randn((1, 1, 1, 20, 20), generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.sliding_window(folds=[2]).logits(x), one.sliding_window().logits(x))
    with pytest.raises(ValueError, match="not loaded"):
        one.sliding_window(folds=[0])


def test_mirroring_follows_the_checkpoint_and_can_be_turned_off(tmp_path):
    folder = make_model_folder(tmp_path, mirror_axes=(1,))
    assert SegmentationModel.from_folder(folder).mirror_axes == (1,)
    off = SegmentationModel.from_folder(folder, use_mirroring=False)
    assert off.mirror_axes is None
    x = torch.randn((1, 1, 20, 20), generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(
        off.predict_logits(x), SegmentationModel.from_folder(folder).predict_logits(x)
    )


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match="plans.json is missing"):
        SegmentationModel.from_folder(tmp_path)
    folder = make_model_folder(tmp_path)
    with pytest.raises(ValueError, match="no fold_3; folds there: 0"):
        SegmentationModel.from_folder(folder, folds=[3])
    with pytest.raises(
        ValueError, match="no checkpoint_best.pth; checkpoints there: checkpoint_final.pth"
    ):
        SegmentationModel.from_folder(folder, folds=[0], checkpoint="checkpoint_best.pth")
    with pytest.raises(ValueError, match="no fold with checkpoint_best.pth"):
        SegmentationModel.from_folder(folder, checkpoint="checkpoint_best.pth")
    other = make_model_folder(
        tmp_path / "other", state_dicts=[model_folders.make_network(2, outputs=5).state_dict()]
    )
    with pytest.raises(ValueError, match="does not fit the network of nnUNetTrainer"):
        SegmentationModel.from_folder(other)
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="checkpoint_final.pth"):
        SegmentationModel.from_folder(folder)


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


def test_images_of_a_folder_are_grouped_by_case(tmp_path):
    model = SegmentationModel.from_folder(make_model_folder(tmp_path, channels=2))
    for seed in (3, 1):
        make_case(tmp_path / "images", shape=(8, 8), seed=seed, channels=2)
    found = model.list_images(tmp_path / "images")
    assert list(found) == ["case1", "case3"] and [f[-12:] for f in found["case1"]] == [
        "_0000.nii.gz",
        "_0001.nii.gz",
    ]
    with pytest.raises(ValueError, match="no images"):
        model.list_images(tmp_path)


def test_surrogates_must_preprocess_alike(tmp_path):
    model = SegmentationModel.from_folder(make_model_folder(tmp_path / "a"))
    model.check_surrogate(
        SegmentationModel.from_folder(
            make_model_folder(tmp_path / "b", kind="resenc", patch_size=(24, 24))
        )
    )
    with pytest.raises(ValueError, match="differs .* in spacing, normalization_schemes"):
        other = make_model_folder(tmp_path / "c", spacing=(2, 2), normalization="CTNormalization")
        model.check_surrogate(SegmentationModel.from_folder(other))


def test_attacks_lower_the_exported_dice(tmp_path, trained):
    for dimension, shape in ((2, (24, 24)), (3, (18, 18, 18))):
        folder = make_model_folder(
            tmp_path / str(dimension),
            dimension=dimension,
            state_dicts=[trained[dimension][0].state_dict()],
        )
        model = SegmentationModel.from_folder(folder, use_mirroring=False)
        case = model.preprocess(*make_case(tmp_path / "images", shape=shape))
        ball = ThreatModel(norm="linf", epsilon=0.2).ball(case.bounds)
        window, target = model.sliding_window(window_batch_size=4), case.target(model.label_space)
        clean = dice(model.predict(case), case.ground_truth)

        def attacked(name, **more):
            result = run_attack(
                name,
                window,
                case.batch,
                target,
                ball,
                generator=torch.Generator().manual_seed(0),
                **more,
            )
            return dice(model.predict(case, result.perturbed[0]), case.ground_truth)

        noise, pgd = attacked("noise"), attacked("pgd_linf", steps=10)
        assert clean > 0.85 and pgd < noise - 0.05
        attacked("ssah", steps=5)
