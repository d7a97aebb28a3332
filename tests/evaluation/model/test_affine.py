"""The scale of a case is what one unit of its file becomes."""

import pytest

from evaluation.model.folder import SegmentationModel
from tests import model_folders
from tests.model_folders import make_model_folder, write_image


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
