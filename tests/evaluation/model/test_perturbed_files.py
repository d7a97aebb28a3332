"""Saved cases read back as they were, or are refused, and the difference is measured."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from evaluation.model.folder import SegmentationModel
from evaluation.model.perturbed_files import roundtrip_error
from nnunetv2_lngswr.attacks import ThreatModel, run_attack
from tests import model_folders
from tests.model_folders import make_case, make_model_folder, write_image


def attacked(model, case):
    ball = ThreatModel(norm="linf", epsilon=0.05).ball(case.bounds)
    generator = torch.Generator().manual_seed(0)
    return run_attack(
        "noise",
        model.sliding_window(),
        case.batch,
        case.target(model.label_space),
        ball,
        generator=generator,
    ).perturbed[0]


@pytest.mark.parametrize("reader", ("SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"))
@pytest.mark.parametrize("normalization", ("CTNormalization", "NoNormalization"))
def test_saved_cases_read_back_as_they_were_and_predict_the_same(normalization, reader, tmp_path):
    folder = make_model_folder(tmp_path, dimension=3, normalization=normalization, reader=reader)
    model = SegmentationModel.from_folder(folder)
    image, label = model_folders.ball((10, 14, 18))
    image[:2] = 0  # cropped away by preprocessing
    image[5, 5, 5] = 5000  # clipped by CT
    files = [write_image(tmp_path / "images" / "a_0000.nii.gz", image)]
    case = model.preprocess(files, write_image(tmp_path / "a.nii.gz", label))
    x = attacked(model, case)
    paths = model.write_case(case, x, tmp_path / "saved")
    assert [p.name for p in paths] == ["a_0000.nii.gz"]
    extent = float(case.x.max() - case.x.min())
    assert roundtrip_error(model, case, x, paths) < 1e-5 * extent
    again = model.preprocess(paths)
    assert np.array_equal(model.predict(again), model.predict(case, x))
    before, after = sitk.ReadImage(str(files[0])), sitk.ReadImage(str(paths[0]))
    assert after.GetPixelID() == sitk.sitkFloat32
    assert np.allclose(before.GetSpacing(), after.GetSpacing()) and np.allclose(
        before.GetDirection(), after.GetDirection()
    )


def test_unperturbed_cases_are_written_as_they_came(tmp_path):
    model = SegmentationModel.from_folder(
        make_model_folder(tmp_path, channels=2, normalization="CTNormalization")
    )
    files, label = make_case(tmp_path / "images", shape=(20, 24), channels=2)
    case = model.preprocess(files, label)
    for source, path in zip(files, model.write_case(case, case.x, tmp_path / "saved")):
        assert np.array_equal(
            sitk.GetArrayFromImage(sitk.ReadImage(str(source))),
            sitk.GetArrayFromImage(sitk.ReadImage(str(path))),
        )


def test_z_scoring_recomputes_mean_and_sd_and_the_difference_is_measured(tmp_path):
    model = SegmentationModel.from_folder(make_model_folder(tmp_path))
    case = model.preprocess(*make_case(tmp_path / "images", shape=(20, 24)))
    paths = model.write_case(case, case.x * 0.9, tmp_path / "saved")
    # z-scoring undoes the shrinking: 1 / 0.9 is what comes back
    assert roundtrip_error(model, case, case.x * 0.9, paths) == pytest.approx(
        0.1 * float(case.x.abs().max()), rel=1e-2
    )


def test_what_cannot_be_exact_is_refused(tmp_path):
    files, label = make_case(tmp_path / "images", shape=(20, 24))
    resampled = SegmentationModel.from_folder(make_model_folder(tmp_path / "a", spacing=(2, 2)))
    case = resampled.preprocess(files, label)
    with pytest.raises(ValueError, match="resampled"):
        resampled.write_case(case, case.x, tmp_path / "saved")
    png = SegmentationModel.from_folder(
        make_model_folder(tmp_path / "b", reader="NaturalImage2DIO", file_ending=".png")
    )
    image, label = model_folders.ball((20, 24))
    case = png.preprocess(
        [write_image(tmp_path / "png" / "a_0000.png", image.astype(np.uint8))],
        write_image(tmp_path / "a.png", label),
    )
    with pytest.raises(ValueError, match="NaturalImage2DIO files cannot be written as floats"):
        png.write_case(case, case.x, tmp_path / "saved")
