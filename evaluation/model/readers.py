"""Images through nnU-Net's readers: checked, so that a bad file is named, and written whole.

Arrays are nnU-Net's: (C, *spatial) with three spatial axes, 2D files as one slice.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
import re
import warnings
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
import SimpleITK as sitk
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Image
from nibabel.orientations import (
    OrientationError,
    axcodes2ornt,
    io_orientation,
    ornt_transform,
)
from nibabel.spatialimages import HeaderDataError
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from numpy.exceptions import ComplexWarning

from evaluation.model.geometry import Placed, check_same_grid, check_sane
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.image_files import check_whole
from nnunetv2_lngswr.utils.names import refuse_no_utf8, some_names

# what readers raise on a file that is not what it seems
_UNREADABLE = (
    RuntimeError,
    AssertionError,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    MemoryError,
    zlib.error,
    ImageFileError,
    HeaderDataError,
    OrientationError,
)


@dataclass(frozen=True, kw_only=True)
class FileImage:
    """An image or a segmentation as nnU-Net's reader gives it."""

    array: np.ndarray
    """(C, *spatial)."""
    properties: dict[str, Any]
    """nnU-Net's: spacing (mm) and the geometry that its writer needs."""
    file: str
    """The first of its files, for messages."""

    @property
    def placed(self) -> Placed:
        """Its grid."""
        return Placed(file=self.file, shape=self.array.shape[1:], properties=self.properties)


def list_images(folder: str | Path, file_ending: str) -> dict[str, list[str]]:
    """The images of an nnU-Net image folder.

    Returns
    -------
    dict
        {identifier: channel files <identifier>_0000<ending>, ...}, sorted.

    Raises
    ------
    UserError
        There is none, or a case's channels are not 0000, 0001, ... without a gap.
    """
    pattern = re.compile(rf"(.+)_(\d{{4}}){re.escape(file_ending)}$")
    cases: dict[str, list[str]] = {}
    for path in sorted(Path(folder).glob(f"*{file_ending}")):
        if match := pattern.match(path.name):
            cases.setdefault(match[1], []).append(str(path))
    if not cases:
        others = sorted({p.name.partition(".")[2] for p in Path(folder).iterdir() if p.is_file()})
        has = f", but files that end in .{some_names(others, between=', .')}" if others else ""
        raise UserError(
            f"{folder} holds no images named <case>_0000{file_ending} (file_ending of "
            f"dataset.json){has}"
        )
    for case, files in cases.items():
        found = [Path(f).name.removesuffix(file_ending)[-4:] for f in files]
        if found != [f"{channel:04d}" for channel in range(len(files))]:
            raise UserError(
                f"{folder}: {case} has the channels {', '.join(found)}; they must be 0000, 0001, "
                "... without a gap"
            )
    return cases


def read_image(reader: BaseReaderWriter, files: Sequence[str], *, channels: int) -> FileImage:
    """Read the channel files of an image.

    Raises
    ------
    UserError
        A file is missing, damaged or unreadable, the channels lie in different places or are not as
        many, a spacing is absurd, a voxel is not finite, huge or complex, or every channel is
        constant.
    """
    array, properties, said = _read(reader.read_images, files)
    first = files[0]
    image = FileImage(array=array, properties=properties, file=first)
    # ITK's values per voxel are a last axis, which has no spacing
    if len(properties["spacing"]) < array.ndim - 1:
        raise UserError(
            f"{first}: {array.shape[-1]} values per voxel (is it in colour?); "
            "write one file per channel"
        )
    check_sane(image.placed)
    # nnU-Net's readers look at all channels, print that, and return the first one's geometry
    if "Not all input images have the same" in said:
        for file in files[1:]:
            channel, geometry, _ = _read(reader.read_images, [file])
            placed = Placed(file=file, shape=channel.shape[1:], properties=geometry)
            check_same_grid(placed, image.placed)
    if array.shape[0] != channels:
        raise UserError(
            f"{first}: {array.shape[0]} channels, but dataset.json of the model has {channels} "
            "(channel_names)"
        )
    if not np.isfinite(array).all() or any(nifti_has_nan(f) for f in files):
        raise UserError(f"{first}: the image holds NaN or infinite values")
    _check_magnitude(image)
    if all(channel.min() == channel.max() for channel in array):
        raise UserError(
            f"{first}: the image is constant ({array.flat[0]}), there is nothing to segment or to "
            "perturb"
        )
    return image


def read_segmentation(
    reader: BaseReaderWriter, file: str, *, image: FileImage | None, image_is: str = "image"
) -> FileImage:
    """Read a segmentation that belongs to `image`.

    Parameters
    ----------
    reader
        nnU-Net's.
    file
        To read.
    image
        What it must lie on; None for nothing.
    image_is
        What messages call that.

    Raises
    ------
    UserError
        The file is missing, damaged or unreadable, has several channels or complex voxels, or its
        shape, spacing, origin or direction is not the image's.
    """
    array, properties, _ = _read(reader.read_seg, file)
    if array.shape[0] != 1:
        raise UserError(
            f"{file}: a label has one channel, this file has {array.shape[0]} (is it in colour?)"
        )
    segmentation = FileImage(array=array, properties=properties, file=file)
    check_sane(segmentation.placed)
    if image is not None:
        check_same_grid(segmentation.placed, image.placed, image_is=image_is)
    return segmentation


def read_label(
    reader: BaseReaderWriter, file: str, *, image: FileImage, known: Collection[int]
) -> FileImage:
    """Read a ground truth.

    Raises
    ------
    UserError
        As `read_segmentation`; a voxel is not finite, or a value is not among the `known` labels.
    """
    label = read_segmentation(reader, file, image=image)
    if nifti_has_nan(file):
        raise UserError(f"{file}: the label holds NaN or infinite values")
    unknown = sorted(set(np.unique(label.array).tolist()) - {float(k) for k in known})
    if unknown:
        raise UserError(
            f"{file}: labels {unknown} are not in dataset.json of the model, which has "
            f"{sorted(int(k) for k in known)}"
        )
    return label


def writes_floats(reader: BaseReaderWriter, properties: Mapping[str, Any]) -> bool:
    """Whether `write_whole` can write floats with the geometry that this reader read."""
    known = isinstance(reader, (SimpleITKIO, NibabelIO, NibabelIOWithReorient))
    return known and "original_orientation" not in properties.get("sitk_stuff", {})


def write_whole(
    reader: BaseReaderWriter, image: np.ndarray, path: Path, properties: Mapping[str, Any]
) -> None:
    """Write one channel, (*spatial), with the geometry in `properties`, and read it back.

    ITK says nothing when the disk is full, and may read what is missing as 0.

    Raises
    ------
    OSError
        The file is not whole.
    """
    try:
        _write_image(reader, image, path, properties)
        check_whole(path)
        whole = np.array_equal(reader.read_images([str(path)])[0][0], image)
        why = "it reads back as something else"
    # what ITK, nibabel and gzip raise on a file that ends early, and we say of it
    except (RuntimeError, EOFError, zlib.error, UserError) as error:
        whole, why = False, str(error)
    if not whole:
        raise OSError(
            errno.ENOSPC,
            f"{path} could not be written whole, probably since the disk is full ({why})",
        )


def _read(read: Callable, files: str | Sequence[str]) -> tuple[np.ndarray, dict[str, Any], str]:
    """What nnU-Net's reader returns, and what it prints."""
    names = (files,) if isinstance(files, str) else files
    for f in names:
        refuse_no_utf8(f)
        if not Path(f).is_file():
            raise UserError(f"{f} does not exist")
    said = io.StringIO()
    try:
        for f in names:
            check_whole(f)
        # nnU-Net's readers print what is wrong and raise an empty error
        with contextlib.redirect_stdout(said), warnings.catch_warnings():
            warnings.simplefilter("error", ComplexWarning)
            array, properties = read(files)
    except UserError:
        raise
    except ComplexWarning:
        raise UserError(
            f"{', '.join(names)}: the voxels are complex numbers; write real ones, "
            "such as their magnitude"
        ) from None
    except _UNREADABLE as error:
        detail = " ".join(f"{error} {said.getvalue()}".split())
        raise UserError(
            f"cannot read {', '.join(names)}: {detail or type(error).__name__}"
        ) from error
    return array, properties, said.getvalue()


def _check_magnitude(image: FileImage) -> None:
    """nnU-Net's z-score sums squares in float32: beyond what that holds all voxels become 0."""
    array = image.array
    most = math.sqrt(float(np.finfo(np.float32).max) / array[0].size)
    found = float(max(abs(array.min()), abs(array.max())))
    if found > most:
        raise UserError(
            f"{image.file}: the image holds a voxel of magnitude {found:g}; in an image of "
            f"{array[0].size} voxels float32, in which nnU-Net normalises, takes at most {most:.3g}"
        )


def nifti_has_nan(file: str) -> bool:
    """Whether a NIfTI file has voxels that are not finite.

    ITK reads those as 0 without a word, so this looks again with nibabel. False for other files.
    """
    if not file.endswith((".nii", ".nii.gz")):
        return False
    image = nibabel.load(file)
    assert isinstance(image, Nifti1Image)
    if not np.issubdtype(image.get_data_dtype(), np.floating):
        return False
    return not np.isfinite(np.asanyarray(image.dataobj)).all()


def _write_image(
    reader: BaseReaderWriter, image: np.ndarray, path: Path, properties: Mapping[str, Any]
) -> None:
    if isinstance(reader, SimpleITKIO):
        geometry = properties["sitk_stuff"]
        written = sitk.GetImageFromArray(image[0] if len(geometry["spacing"]) == 2 else image)
        written.SetSpacing(geometry["spacing"])
        written.SetOrigin(geometry["origin"])
        written.SetDirection(geometry["direction"])
        sitk.WriteImage(written, str(path), True)
        return
    geometry, array = properties["nibabel_stuff"], image.transpose((2, 1, 0))
    if isinstance(reader, NibabelIOWithReorient):
        canonical = Nifti1Image(array, affine=geometry["reoriented_affine"])
        back = ornt_transform(axcodes2ornt("RAS"), io_orientation(geometry["original_affine"]))
        nibabel.save(canonical.as_reoriented(cast(Any, back)), path)
    else:
        nibabel.save(Nifti1Image(array, affine=geometry["original_affine"]), path)
