"""Image folders are read as nnU-Net reads them."""

import pytest

from evaluation.model.folder import SegmentationModel
from tests.model_folders import make_case, make_model_folder


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
