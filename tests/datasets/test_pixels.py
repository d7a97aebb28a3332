"""Image files of all kinds become grey pixels, or are named."""

import struct

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image, ImageOps

from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.datasets.pixels import Unfit, read_image, read_mask
from tests.datasets.image_files import command, save, speckle, square


@pytest.mark.parametrize("what", ["image", "mask"])
def test_one_float_tiff_is_skipped_and_named(busi, tmp_path, what, capsys):
    name = {"image": "float.tif", "mask": "float_mask.tif"}
    floats = Image.fromarray(np.random.default_rng(0).normal(size=(20, 24)).astype(np.float32))
    save(speckle(1), busi / "benign" / "float.png")
    save(square(slice(1, 4), slice(1, 4)), busi / "benign" / "float_mask.png")
    (busi / "benign" / name[what]).with_suffix(".png").unlink()
    floats.save(busi / "benign" / name[what])
    assert cli.main(command(busi, tmp_path / "raw")) == 1
    said = capsys.readouterr()
    assert "8 used, 0 left out, 1 skipped" in said.out
    assert f"benign/{name[what]}: values are float32, 8 or 16 bit" in said.err


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_colours_of_sixteen_bit_are_not_cut_to_eight(ending, tmp_path):
    values = np.arange(24 * 20, dtype=np.uint16).reshape(20, 24) * 8
    path = tmp_path / f"a.{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([values] * 3, -1), isVector=True), str(path))
    with pytest.raises(Unfit, match="16 bit"):
        read_image(path)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(path))
    assert np.array_equal(read_image(path), values)


def test_what_only_looks_like_sixteen_bit_or_has_a_broken_exif_is_read(tmp_path):
    path = tmp_path / "a.png"
    image = Image.fromarray(speckle(1))
    image.save(path, exif=b"garbage-123456")
    assert np.array_equal(read_image(path), speckle(1))
    # RGB565: a header, three masks, and 2 x 2 pixels of 16 bit
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    header = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 3, 8, 0, 0, 0, 0)
    pixels = struct.pack("<4H", 0xFFFF, 0, 0, 0xFFFF)
    start = 14 + len(header) + len(masks)
    (tmp_path / "a.bmp").write_bytes(
        b"BM" + struct.pack("<IHHI", start + 8, 0, 0, start) + header + masks + pixels
    )
    assert read_image(tmp_path / "a.bmp").tolist() == [[0, 255], [255, 0]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_lies_as_viewers_show_it(orientation, tmp_path):
    path = tmp_path / "a.png"
    image = Image.fromarray(speckle(1))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    with Image.open(path) as found:
        assert np.array_equal(read_image(path), np.asarray(ImageOps.exif_transpose(found)))
    moved = not np.array_equal(read_image(path), speckle(1))
    assert moved == (orientation > 1)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif", "gif"])
def test_a_file_that_ends_early_is_unfit(ending, tmp_path):
    path = save(speckle(1), tmp_path / f"a.{ending}")
    content, whole = path.read_bytes(), read_image(path)
    unfit = 0
    for length in np.linspace(0, len(content) - 1, 25).astype(int):
        path.write_bytes(content[:length])
        try:
            # what is missing may hold no pixel
            assert np.array_equal(read_image(path), whole)
        except Unfit:
            unfit += 1
    assert unfit >= 20


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_files_are_unfit_whatever_the_decoder_raises(tmp_path):
    path = save(speckle(1), tmp_path / "a.tif")
    content, rng = path.read_bytes(), np.random.default_rng(0)
    unfit = 0
    for _ in range(250):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 4):
            damaged[place] = rng.integers(0, 256)
        # the list of tags, which everything else follows from
        damaged[rng.integers(len(content) - 120, len(content))] = rng.integers(0, 256)
        path.write_bytes(bytes(damaged))
        try:
            read_image(path)
        except Unfit:
            unfit += 1
    assert unfit > 25


CLASSES = square(slice(2, 8), slice(2, 8), value=1) + square(slice(10, 15), slice(3, 9), value=2)
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0]


def with_palette(indices: np.ndarray, palette: list[int]) -> Image.Image:
    image = Image.fromarray(indices, mode="P")
    image.putpalette(palette)
    return image


def test_colours_of_a_mask_are_classes(tmp_path):
    path = tmp_path / "mask.png"
    for image in (with_palette(CLASSES, VOC), with_palette(CLASSES, VOC).convert("RGB")):
        image.save(path)
        with pytest.raises(Unfit, match=r"mask has 2 values besides 0 \(0/128/0, 128/0/0\)"):
            read_mask(path)
        assert np.array_equal(read_mask(path, threshold=1), CLASSES > 0)
    one = np.minimum(CLASSES, 1)
    for image in (with_palette(one, VOC), with_palette(one, VOC).convert("RGBA")):
        image.save(path)
        assert np.array_equal(read_mask(path), one > 0)


def test_a_mask_in_the_alpha_channel_is_no_foreground_everywhere(tmp_path):
    path, shape = tmp_path / "mask.png", square(slice(2, 8), slice(2, 8))
    white, alpha = Image.new("L", shape.shape[::-1], 255), Image.fromarray(shape)
    Image.merge("LA", (white, alpha)).save(path)
    with pytest.raises(Unfit, match="colours where it is transparent"):
        read_mask(path)
    # cut out: black where it is transparent
    Image.merge("LA", (alpha, alpha)).save(path)
    assert np.array_equal(read_mask(path), shape > 0)


def test_colours_tell_what_is_foreground_whatever_their_numbers_are(tmp_path):
    path, mask = tmp_path / "mask.gif", square(slice(2, 8), slice(2, 8))
    Image.fromarray(mask).convert("RGB").save(path)
    assert np.array_equal(read_mask(path), mask > 0)
    with_palette(mask // 255, [255, 255, 255, 0, 0, 0]).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), mask == 0)
