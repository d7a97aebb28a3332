"""Image files that end early, or whose headers make no sense, are named."""

import gzip
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from nibabel import Nifti2Image
from PIL import Image

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.image_files import check_whole

VOLUME = np.random.default_rng(0).integers(1, 1000, (5, 6, 7)).astype(np.int16)


def write(path: Path, *, compressed: bool = False) -> Path:
    """VOLUME, or for 2D formats its first slice."""
    if path.suffix == ".png":
        Image.fromarray(VOLUME[0].astype(np.uint8)).save(path)
    elif path.suffix == ".tif":
        with tifffile.TiffWriter(path) as file:
            for plane in VOLUME:
                file.write(plane, contiguous=False, metadata=None)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(VOLUME), str(path), compressed)
    return path


KINDS = [
    (".nii", False),
    (".nii.gz", True),
    (".mha", True),
    (".nrrd", True),
    (".gipl", False),
    (".png", False),
]


@pytest.mark.parametrize("ending, compressed", KINDS)
def test_whole_files_pass_and_shortened_ones_do_not(ending, compressed, tmp_path):
    path = write(tmp_path / f"a{ending}", compressed=compressed)
    check_whole(path)
    whole = path.read_bytes()
    # the last bytes of a PNG hold no pixel; those of others are voxels or check sums
    for length in (*range(_header(path), len(whole) - 16, 37), len(whole) - 16, len(whole) - 9):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="cannot read .*copy or make the file again"):
            check_whole(path)


def _header(path: Path) -> int:
    """Where to begin: what is cut within a text header is left to its reader."""
    content = path.read_bytes()
    return {
        ".mha": content.find(b"LOCAL") + 6,
        ".nrrd": content.find(b"\n\n") + 2,
    }.get(path.suffix, 0)


def test_a_tiff_whose_last_page_is_missing_is_refused(tmp_path):
    path = write(tmp_path / "a.tif")
    check_whole(path)
    whole = path.read_bytes()
    for length in (5, len(whole) // 3, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="list of pages|page . lies at byte"):
            check_whole(path)


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_a_changed_byte_in_compressed_data_is_noticed(ending, tmp_path):
    path = write(tmp_path / f"a{ending}", compressed=True)
    whole = bytearray(path.read_bytes())
    whole[-40] ^= 0xFF
    path.write_bytes(bytes(whole))
    with pytest.raises(UserError, match="damaged"):
        check_whole(path)


def put(offset: int, form: str, *values):
    """What changes a NIfTI-1 header."""
    return lambda header: struct.pack_into("<" + form, header, offset, *values)


NAN = float("nan")
HEADERS = {
    "zero spacing": (put(80, "f", 0), r"spacing of 0.0 \(pixdim\[1\]\)"),
    "NaN spacing": (put(84, "f", NAN), r"spacing of nan \(pixdim\[2\]\)"),
    "infinite spacing": (put(88, "f", float("inf")), "spacing of inf"),
    "NaN in the sform": (put(280, "f", NAN), r"affine is not finite \(srow_x"),
    "NaN in the sform's origin": (put(292, "f", NAN), "affine is not finite"),
    "NaN in the qform": (put(256, "f", NAN), r"not finite \(quatern_b"),
    "NaN in the qform's origin": (put(268, "f", NAN), r"not finite \(qoffset_x"),
    "nine axes": (put(40, "h", 9), "no NIfTI file|shape"),
    "a negative size": (put(42, "h", -3), r"shape \[-3, 6, 5\]"),
    "no voxels": (put(42, "h", 0), r"shape \[0, 6, 5\]"),
    "a huge size": (put(42, "hhh", 32000, 32000, 32000), "its header promises 65536000000352"),
    "an unknown type": (put(70, "h", 3), "unknown type of voxel, 3"),
    "no type": (put(70, "h", 0), "unknown type of voxel, 0"),
    "larger voxels": (put(70, "hh", 64, 64), "it holds 772 bytes, its header promises 2032"),
    "voxels beyond the end": (put(108, "f", 1e9), "promises 1000000420"),
    "voxels nowhere": (put(108, "f", NAN), "at byte nan"),
    "voxels before the file": (put(108, "f", -5), "at byte -5"),
    "another magic": (put(344, "4s", b"abc\0"), "no NIfTI file"),
    "another size of header": (put(0, "i", 17), "no NIfTI file"),
}


@pytest.mark.parametrize("change, said", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_headers_that_make_no_sense(ending, change, said, tmp_path):
    content = bytearray(write(tmp_path / "a.nii").read_bytes())
    change(content)
    path = tmp_path / f"b{ending}"
    path.write_bytes(gzip.compress(bytes(content)) if ending == ".nii.gz" else bytes(content))
    with pytest.raises(UserError, match=said):
        check_whole(path)


def test_voxels_of_another_file_are_not_read(tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(64))
    (tmp_path / "a.mha").write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\n"
        f"ElementDataFile = {secret}\n"
    )
    head = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n"
    (tmp_path / "b.nrrd").write_text(f"{head}data file: {secret}\n\n")
    (tmp_path / "c.nrrd").write_text(f"{head}datafile: {secret}\n\n")
    for name in ("a.mha", "b.nrrd", "c.nrrd"):
        assert sitk.ReadImage(str(tmp_path / name)).GetSize() == (4, 4, 4)  # ITK would
        with pytest.raises(UserError, match=r"voxels from another file, '.*secret\.bin'"):
            check_whole(tmp_path / name)


def test_what_good_files_may_have(tmp_path):
    content = bytearray(write(tmp_path / "a.nii").read_bytes())
    # an axis of one voxel has nothing to space
    put(46, "h", 1)(content)
    put(88, "f", 0)(content)
    (tmp_path / "flat.nii").write_bytes(bytes(content))
    check_whole(tmp_path / "flat.nii")
    Nifti2Image(VOLUME, np.eye(4)).to_filename(tmp_path / "two.nii.gz")
    check_whole(tmp_path / "two.nii.gz")
    with open(tmp_path / "two.nii.gz", "ab") as file:
        file.write(b"\0" * 512)  # tapes and some downloads pad with zeros
    check_whole(tmp_path / "two.nii.gz")
    shutil.copy(tmp_path / "flat.nii", tmp_path / "image.unknown")
    check_whole(tmp_path / "image.unknown")
    with pytest.raises(FileNotFoundError):
        check_whole(tmp_path / "missing.png")
