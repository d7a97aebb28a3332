"""Image files of all kinds become grey pixels, or are named."""

import numpy as np
import pytest
from PIL import Image

from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.datasets.pixels import Unfit, read_image
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
