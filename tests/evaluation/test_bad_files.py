"""Damaged and missing files are named before anything is written."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from evaluation import robust
from tests import model_folders
from tests.evaluation.tiny import command
from tests.model_folders import make_case, make_model_folder


def _without_plans(root):
    (next(root.glob("nnUNetTrainer__*")) / "plans.json").unlink()


def _damaged_plans(root):
    path = next(root.glob("nnUNetTrainer__*")) / "plans.json"
    path.write_text(path.read_text()[:50])


def _empty_dataset_json(root):
    (next(root.glob("nnUNetTrainer__*")) / "dataset.json").write_text("{}")


def _nan_label(root):
    label = np.ones((20, 24), np.float32)
    label[3, 3] = np.nan
    model_folders.write_image(root / "images" / "labels" / "case1.nii.gz", label)


def _out_is_a_file(root):
    (root / "out").write_text("mine")


def _without_labels(root):
    (root / "images" / "labels" / "case0.nii.gz").unlink()


def _without_images(root):
    (root / "images" / "case0_0000.nii.gz").unlink()


def _no_images_at_all(root):
    for path in (root / "images").glob("*.nii.gz"):
        path.unlink()


def _other_shape(root):
    model_folders.write_image(
        root / "images" / "labels" / "case1.nii.gz", np.zeros((20, 25), np.uint8)
    )


def _other_spacing(root):
    model_folders.write_image(
        root / "images" / "labels" / "case1.nii.gz", np.ones((20, 24), np.uint8), spacing=(2, 1)
    )


def _with_nan(root):
    image = np.ones((20, 24), np.float32)
    image[3, 3] = np.nan
    model_folders.write_image(root / "images" / "case1_0000.nii.gz", image)


def _two_channels(root):
    model_folders.write_image(root / "images" / "case1_0001.nii.gz", np.ones((20, 24), np.float32))


def _constant(root):
    model_folders.write_image(
        root / "images" / "case1_0000.nii.gz", np.full((20, 24), 7, np.float32)
    )


def _unknown_label(root):
    model_folders.write_image(
        root / "images" / "labels" / "case1.nii.gz", np.full((20, 24), 3, np.uint8)
    )


def _truncated(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _truncated_image(root):
    _truncated(root / "images" / "case1_0000.nii.gz")


def _truncated_label(root):
    _truncated(root / "images" / "labels" / "case1.nii.gz")


def _moved_label(root):
    path = root / "images" / "labels" / "case1.nii.gz"
    label = sitk.ReadImage(str(path))
    label.SetOrigin((20, 0))
    sitk.WriteImage(label, str(path))


def _only_channel_1(root):
    path = root / "images" / "case1_0000.nii.gz"
    path.rename(path.with_name("case1_0001.nii.gz"))


def _foreign_out(root):
    (root / "out").mkdir()
    (root / "out" / "cases.csv").write_text("mine")


def _unsafe_checkpoint(root):
    path = next(root.rglob("checkpoint_final.pth"))
    torch.save({**torch.load(path, weights_only=False), "logging": Path("x")}, path)


BAD_FILES = {
    "no plans.json": (_without_plans, "plans.json is missing"),
    "damaged plans.json": (_damaged_plans, "plans.json is not readable as JSON"),
    "empty dataset.json": (_empty_dataset_json, "dataset.json lacks labels, file_ending"),
    "nan in a label": (_nan_label, "case1.nii.gz: the label holds NaN"),
    "out is a file": (_out_is_a_file, "is a file; -o needs a folder"),
    "image without label": (_without_labels, "1 images without a label"),
    "label without image": (_without_images, "1 labels in"),
    "no images": (_no_images_at_all, "holds no images named <case>_0000.nii.gz"),
    "shape": (_other_shape, "case1.nii.gz: shape"),
    "spacing": (_other_spacing, "case1.nii.gz: spacing"),
    "nan": (_with_nan, "case1_0000.nii.gz: the image holds NaN"),
    "channels": (_two_channels, "2 channels, but dataset.json of the model has 1"),
    "constant": (_constant, "the image is constant"),
    "label value": (_unknown_label, "labels [3.0] are not in dataset.json"),
    "truncated image": (_truncated_image, "case1_0000.nii.gz: the compressed file is damaged"),
    "truncated label": (_truncated_label, "case1.nii.gz: the compressed file is damaged"),
    "moved label": (_moved_label, "case1.nii.gz: origin or direction differ from the image's"),
    "channel 1 alone": (_only_channel_1, "case1 has the channels 0001; they must be 0000"),
    "foreign out": (_foreign_out, "holds cases.csv without settings.json"),
    "unsafe checkpoint": (_unsafe_checkpoint, "--trust-checkpoint"),
}


@pytest.mark.parametrize("damage, message", BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_named_before_anything_is_written(damage, message, tmp_path, capsys):
    folder = make_model_folder(tmp_path)
    for seed in range(2):
        make_case(tmp_path / "images", shape=(20, 24), seed=seed)
    damage(tmp_path)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    images = tmp_path / "images"
    small = (folder, images, images / "labels")
    code = robust.main(command(small, tmp_path / "out", "--disable_progress_bar"))
    assert code == 2
    said = capsys.readouterr().err
    assert message in said, said
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
