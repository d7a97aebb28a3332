"""An image, its channels and its label lie in one place, which makes sense."""

import struct

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from PIL import Image

from evaluation.model.readers import read_image, read_label

SHAPE = (5, 6, 7)
READERS = (SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient)


def volume(path, *, values=None, spacing=(0.7, 0.7, 2.5), origin=(-120.0, 30.0, 5.0), turn=0.0):
    """Write SHAPE; `turn`: radians about z."""
    if values is None:
        values = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    cos, sin = np.cos(turn), np.sin(turn)
    image.SetDirection((cos, -sin, 0, sin, cos, 0, 0, 0, 1))
    sitk.WriteImage(image, str(path))
    return str(path)


@pytest.fixture(params=READERS, ids=lambda reader: reader.__name__)
def reader(request):
    return request.param()


@pytest.fixture
def image(reader, tmp_path):
    return read_image(reader, [volume(tmp_path / "a_0000.nii.gz")], channels=1)


def label(reader, image, path, **placed):
    file = volume(path, values=(np.indices(SHAPE)[2] > 3).astype(np.uint8), **placed)
    return read_label(reader, file, image=image, known={0, 1})


@pytest.mark.parametrize(
    "placed",
    [{"origin": (-119.0, 30.0, 5.0)}, {"origin": (-120.0, 30.0, 7.5)}, {"turn": 0.2}],
    ids=["x", "z", "direction"],
)
def test_a_label_that_lies_elsewhere_is_refused(reader, image, placed, tmp_path):
    with pytest.raises(ValueError, match="origin or direction differ from the image's .*copy the"):
        label(reader, image, tmp_path / "a.nii.gz", **placed)


@pytest.mark.parametrize(
    "placed",
    [{}, {"origin": (-120.00001, 30.00001, 5.00001)}, {"turn": 1e-4}],
    ids=["same", "origin", "direction"],
)
def test_what_rounding_makes_passes(reader, image, placed, tmp_path):
    assert label(reader, image, tmp_path / "a.nii.gz", **placed).array.max() == 1


@pytest.mark.parametrize(
    "placed", [{"origin": (-119.0, 30.0, 5.0)}, {"turn": 0.2}], ids=["origin", "direction"]
)
def test_channels_that_lie_elsewhere_are_refused(reader, placed, tmp_path):
    files = [volume(tmp_path / "a_0000.nii.gz"), volume(tmp_path / "a_0001.nii.gz", **placed)]
    with pytest.raises(ValueError, match="a_0001.nii.gz: origin or direction differ"):
        read_image(reader, files, channels=2)
    volume(tmp_path / "a_0001.nii.gz", origin=(-120.00001, 30.0, 5.0))
    assert read_image(reader, files, channels=2).array.shape == (2, *SHAPE)


@pytest.mark.parametrize("spacing", [1e30, 1e-12], ids=str)
@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_an_absurd_spacing_is_refused(ending, spacing, tmp_path):
    file = volume(tmp_path / f"a_0000{ending}", spacing=(1, 1, spacing))
    with pytest.raises(ValueError, match="spacing .* mm is not possible .*mend the file's header"):
        read_image(SimpleITKIO(), [file], channels=1)


def test_an_absurd_origin_is_refused(tmp_path):
    file = volume(tmp_path / "a_0000.mha", origin=(1e30, 0, 0))
    with pytest.raises(ValueError, match="origin .* mm is not possible"):
        read_image(SimpleITKIO(), [file], channels=1)


@pytest.mark.parametrize("row", [np.nan, 0.0], ids=str)
def test_an_affine_that_maps_nothing_is_refused(reader, row, tmp_path):
    path = volume(tmp_path / "a_0000.nii")
    content = bytearray((tmp_path / "a_0000.nii").read_bytes())
    struct.pack_into("<h", content, 252, 0)  # qform_code: only the sform counts
    struct.pack_into("<3f", content, 280, row, row, row)
    (tmp_path / "a_0000.nii").write_bytes(content)
    with pytest.raises(ValueError, match="cannot read .*|affine maps several voxels"):
        read_image(reader, [path], channels=1)


def test_a_label_in_colour_is_refused(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2, (8, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "a_0000.png")
    image = read_image(NaturalImage2DIO(), [str(tmp_path / "a_0000.png")], channels=1)
    with pytest.raises(ValueError, match="one channel, this file has 3"):
        read_label(NaturalImage2DIO(), str(tmp_path / "a.png"), image=image, known={0, 1})
