"""Image files that are damaged, found before a reader fills what is missing with zeros.

ITK reads a NIfTI file that ends early as if it were whole, says nothing about the check sums of
compressed data, and replaces a spacing of zero or NaN by 1. So headers are looked at as they are in
the file, and compressed data are read to their end.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from PIL import Image

from nnunetv2_lngswr.utils.errors import UserError

CHUNK_BYTES = 2**20
_ZLIB_OR_GZIP = 47
# sizeof_hdr of a NIfTI file -> what reads its header
_NIFTI: Mapping[int, type[Nifti1Header]] = {348: Nifti1Header, 540: Nifti2Header}
# image type of a GIPL header -> bytes of a voxel
_GIPL_BYTES = {1: 1, 7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8}
_GIPL_HEADER_BYTES = 256


class Damaged(ValueError):
    """A file that is not what its header says; the text says why."""


def check_whole(path: str | Path) -> None:
    """Refuse an image file that ends early, or whose header makes no sense.

    Kinds of files that are not known here are left to their reader.

    Parameters
    ----------
    path
        .nii, .nii.gz, .mha, .nrrd, .gipl, .png, .tif or .tiff; told by its ending.

    Raises
    ------
    UserError
        It is damaged; names the file, what was found and what to do.
    OSError
        It is not there, or cannot be read.
    """
    path = Path(path)
    check = next((c for ending, c in _CHECKS.items() if path.name.lower().endswith(ending)), None)
    if check is None:
        return
    try:
        check(path)
    except Damaged as error:
        raise UserError(f"cannot read {path}: {error}; copy or make the file again") from None


def _check_nifti(path: Path) -> None:
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opened(path, "rb") as file:
            start = file.read(max(_NIFTI))
            there = len(start) + _count(file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Damaged(f"the compressed file is damaged ({error})") from None
    header = _nifti_header(start)
    expected = _nifti_bytes(header)
    if there < expected:
        raise Damaged(f"it holds {there} bytes, its header promises {expected}")
    _check_nifti_geometry(header)


def _nifti_header(start: bytes) -> Nifti1Header:
    """The header as it is in the file: nibabel would mend it."""
    for order in "<>":
        size = struct.unpack(f"{order}i", start[:4])[0] if len(start) >= 4 else 0
        if size in _NIFTI and len(start) >= size:
            header = _NIFTI[size](start[:size], check=False)
            if bytes(header["magic"])[:3] in (b"n+1", b"n+2"):
                return header
    raise Damaged("it is no NIfTI file")


def _nifti_bytes(header: Nifti1Header) -> int:
    """How long the file has to be."""
    axes = int(header["dim"][0])
    shape = [int(n) for n in header["dim"][1 : 1 + axes]]
    if not 1 <= axes <= 7 or min(shape) < 1:
        raise Damaged(f"its header tells the shape {shape} of {axes} axes")
    try:
        voxel = header.get_data_dtype().itemsize
    except (KeyError, HeaderDataError):
        voxel = 0
    if voxel == 0:
        raise Damaged(f"its header tells an unknown type of voxel, {int(header['datatype'])}")
    offset = float(header["vox_offset"])
    if not math.isfinite(offset) or offset < 0:
        raise Damaged(f"its header places the voxels at byte {offset}")
    return max(int(offset), int(header["sizeof_hdr"])) + math.prod(shape) * voxel


def _check_nifti_geometry(header: Nifti1Header) -> None:
    axes = min(int(header["dim"][0]), 3)
    for axis in range(1, axes + 1):
        spacing = float(header["pixdim"][axis])
        # along an axis of one voxel there is nothing to space
        if header["dim"][axis] > 1 and not 0 < spacing < math.inf:  # nor is NaN
            raise Damaged(f"its header tells a spacing of {spacing} (pixdim[{axis}])")
    forms = {
        "sform": ("srow_x", "srow_y", "srow_z"),
        "qform": ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    }
    for form, fields in forms.items():
        for field in fields:
            if int(header[f"{form}_code"]) > 0 and not np.isfinite(header[field]).all():
                raise Damaged(f"its affine is not finite ({field} {header[field].tolist()})")


def _check_mha(path: Path) -> None:
    with open(path, "rb") as file:
        fields = _fields(file, b"=", last=b"elementdatafile")
        _refuse_other_files(fields, b"elementdatafile", own=b"LOCAL")
        if fields.get(b"compresseddata", b"").lower() == b"true":
            _inflate(file)


def _check_nrrd(path: Path) -> None:
    with open(path, "rb") as file:
        fields = _fields(file, b":", last=b"")
        for name in (b"data file", b"datafile"):
            _refuse_other_files(fields, name)
        if fields.get(b"encoding", b"").lower() in (b"gzip", b"gz"):
            _inflate(file)


def _refuse_other_files(fields: Mapping[bytes, bytes], name: bytes, own: bytes = b"") -> None:
    """Refuse voxels of another file: it could be any file of the reader's."""
    place = fields.get(name, own)
    if place.upper() != own:
        place = ascii(place.decode(errors="replace"))
        raise Damaged(
            f"its header takes the voxels from another file, {place} ({name.decode()}), which is "
            "not read: write them into the file itself"
        )


def _check_gipl(path: Path) -> None:
    start = path.read_bytes()[:_GIPL_HEADER_BYTES]
    if len(start) < _GIPL_HEADER_BYTES:
        raise Damaged(f"it ends within its header, after {len(start)} bytes")
    *shape, kind = struct.unpack(">4HH", start[:10])
    expected = _GIPL_HEADER_BYTES + _GIPL_BYTES.get(kind, 0) * math.prod(n or 1 for n in shape)
    if path.stat().st_size < expected:
        raise Damaged(f"it holds {path.stat().st_size} bytes, its header promises {expected}")


def _check_png(path: Path) -> None:
    try:
        with Image.open(path) as image:
            # every chunk to the last, with its check sum
            image.verify()
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Damaged(f"it is no whole PNG ({error})") from None


def _check_tiff(path: Path) -> None:
    """Follow the chain of pages: readers stop at a page that is not there."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        order = {b"II": "<", b"MM": ">"}.get(file.read(2))
        if order is None or file.read(2) != struct.pack(f"{order}H", 42):
            return  # BigTIFF, or no TIFF at all
        place, seen = struct.unpack(f"{order}I", _exactly(file, 4))[0], set()
        while place and place not in seen:
            seen.add(place)
            if place >= size:
                raise Damaged(f"page {len(seen)} lies at byte {place} of {size}")
            file.seek(place)
            tags = struct.unpack(f"{order}H", _exactly(file, 2))[0]
            file.seek(place + 2 + 12 * tags)
            place = struct.unpack(f"{order}I", _exactly(file, 4))[0]


def _exactly(file: BinaryIO, count: int) -> bytes:
    found = file.read(count)
    if len(found) < count:
        raise Damaged("it ends within its list of pages")
    return found


def _fields(file: BinaryIO, sign: bytes, *, last: bytes, most: int = 1000) -> dict[bytes, bytes]:
    """The `key sign value` lines of a text header up to the key `last` ("": an empty line)."""
    fields: dict[bytes, bytes] = {}
    for _ in range(most):
        line = file.readline(CHUNK_BYTES)
        key, _, value = line.partition(sign)
        name = key.strip().lower()
        fields[name] = value.strip()
        if not line or name == last:
            break
    return fields


def _inflate(file: BinaryIO) -> None:
    """Read compressed data to their end, which their check sum is at."""
    inflater = zlib.decompressobj(_ZLIB_OR_GZIP)
    try:
        while not inflater.eof:
            chunk = file.read(CHUNK_BYTES)
            if not chunk:
                raise Damaged("its compressed data end early")
            while chunk and not inflater.eof:
                inflater.decompress(chunk, CHUNK_BYTES)
                chunk = inflater.unconsumed_tail
    except zlib.error as error:
        raise Damaged(f"its compressed data are damaged ({error})") from None


def _count(file: BinaryIO | gzip.GzipFile) -> int:
    """How many bytes are left."""
    total = 0
    while chunk := file.read(CHUNK_BYTES):
        total += len(chunk)
    return total


_CHECKS: Mapping[str, Callable[[Path], None]] = {
    ".nii": _check_nifti,
    ".nii.gz": _check_nifti,
    ".mha": _check_mha,
    ".nrrd": _check_nrrd,
    ".gipl": _check_gipl,
    ".png": _check_png,
    ".tif": _check_tiff,
    ".tiff": _check_tiff,
}
