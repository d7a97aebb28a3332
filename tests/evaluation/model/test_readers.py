"""Image folders are read as nnU-Net reads them, and damaged files not at all."""

import numpy as np
import pytest
import tifffile
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from nnunetv2.preprocessing.normalization.default_normalization_schemes import (
    ZScoreNormalization,
)
from PIL import Image

from evaluation.model.folder import SegmentationModel
from evaluation.model.readers import list_images, read_image
from nnunetv2_lngswr.utils.errors import UserError
from tests.model_folders import make_case, make_model_folder, write_image


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


def test_a_gap_in_the_channels_is_named(tmp_path):
    (path,), _ = make_case(tmp_path, shape=(8, 8))
    path.rename(tmp_path / "case0_0001.nii.gz")
    with pytest.raises(ValueError, match="case0 has the channels 0001; they must be 0000, 0001"):
        list_images(tmp_path, ".nii.gz")


def _writers():
    array = np.random.default_rng(0).integers(0, 1000, (6, 8, 9)).astype(np.int16)
    for ending in (".nii.gz", ".mha", ".nrrd", ".gipl"):
        yield ending, SimpleITKIO, lambda path: write_image(path, array)
    for reader in (NibabelIO, NibabelIOWithReorient):
        yield ".nii", reader, lambda path: write_image(path, array)
        yield ".nii.gz", reader, lambda path: write_image(path, array)
    yield ".tif", Tiff3DIO, lambda path: tifffile.imwrite(path, array, compression="zlib")
    yield ".tif", Tiff3DIO, lambda path: tifffile.imwrite(path, array)
    flat = array[0].astype(np.uint8)
    for ending in (".png", ".bmp", ".tif"):
        yield ending, NaturalImage2DIO, lambda path: Image.fromarray(flat).save(path)


@pytest.mark.parametrize("ending, reader, write", list(_writers()))
def test_a_file_that_ends_early_is_never_read_as_something_else(ending, reader, write, tmp_path):
    path = tmp_path / f"a_0000{ending}"
    write(path)
    whole, image = path.read_bytes(), read_image(reader(), [str(path)], channels=1)
    refused = 0
    for length in np.linspace(0, len(whole) - 1, 12).astype(int):
        path.write_bytes(whole[:length])
        try:
            array = read_image(reader(), [str(path)], channels=1).array
        except UserError as error:
            refused += str(path) in str(error)
        else:  # what is missing holds no voxel
            assert np.array_equal(array, image.array)
    assert refused >= 9


@pytest.mark.parametrize(
    "reader, ending", [(SimpleITKIO, ".nii.gz"), (NibabelIO, ".nii.gz"), (Tiff3DIO, ".tif")]
)
def test_complex_voxels_are_refused_whatever_reads_them(reader, ending, tmp_path):
    path = tmp_path / f"a_0000{ending}"
    array = np.random.default_rng(0).normal(size=(6, 8, 9)).astype(np.complex64)
    if ending == ".tif":
        tifffile.imwrite(path, array)
    else:
        write_image(path, array)
    with pytest.raises(UserError, match="complex numbers; write real ones"):
        read_image(reader(), [str(path)], channels=1)


def test_images_are_refused_where_their_z_score_would_overflow(tmp_path):
    """And not below: there nnU-Net's own normalisation is finite and tells the voxel apart."""
    path, array = tmp_path / "a_0000.nii.gz", np.zeros((1, 20, 24), np.float32)
    most = float(np.sqrt(np.finfo(np.float32).max / array.size))
    scheme = ZScoreNormalization(use_mask_for_norm=False, intensityproperties={})
    for factor in (0.999, 1.001):
        array[0, 3, 4] = -factor * most
        write_image(path, array)
        if factor < 1:
            image = read_image(SimpleITKIO(), [str(path)], channels=1).array
            normalised = scheme.run(image.copy(), None)
            assert np.isfinite(normalised).all() and normalised.min() < -1
        else:
            with pytest.raises(
                UserError, match=r"magnitude 8.4\d*e\+17; in an image of 480 voxels"
            ):
                read_image(SimpleITKIO(), [str(path)], channels=1)
