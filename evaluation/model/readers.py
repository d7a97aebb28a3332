"""Images through nnU-Net's readers: checked, so that a bad file is named, and written whole.

Arrays are nnU-Net's: (C, *spatial) with three spatial axes, 2D files as one slice.
"""

from __future__ import annotations

import contextlib
import errno
import io
import re
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
import SimpleITK as sitk
from nibabel.nifti1 import Nifti1Image
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_lngswr.utils.errors import UserError


@dataclass(frozen=True, kw_only=True)
class FileImage:
    """An image or a segmentation as nnU-Net's reader gives it."""

    array: np.ndarray
    """(C, *spatial)."""
    properties: dict[str, Any]
    """nnU-Net's: spacing (mm) and the geometry that its writer needs."""
    file: str
    """The first of its files, for messages."""


def list_images(folder: str | Path, file_ending: str) -> dict[str, list[str]]:
    """The images of an nnU-Net image folder.

    Returns
    -------
    dict
        {identifier: channel files <identifier>_0000<ending>, ...}, sorted.

    Raises
    ------
    UserError
        There is none.
    """
    pattern = re.compile(rf"(.+)_(\d{{4}}){re.escape(file_ending)}$")
    cases: dict[str, list[str]] = {}
    for path in sorted(Path(folder).glob(f"*{file_ending}")):
        if match := pattern.match(path.name):
            cases.setdefault(match[1], []).append(str(path))
    if not cases:
        raise UserError(
            f"{folder} holds no images named <case>_0000{file_ending} (file_ending of dataset.json)"
        )
    return cases


def read_image(reader: BaseReaderWriter, files: Sequence[str], *, channels: int) -> FileImage:
    """Read the channel files of an image.

    Raises
    ------
    UserError
        A file is missing or unreadable, the number of channels is another one, a voxel is not
        finite, or every channel is constant.
    """
    array, properties = _read(reader.read_images, files)
    first = files[0]
    if array.shape[0] != channels:
        raise UserError(
            f"{first}: {array.shape[0]} channels, but dataset.json of the model has {channels} "
            "(channel_names)"
        )
    if not np.isfinite(array).all() or any(_nifti_has_nan(f) for f in files):
        raise UserError(f"{first}: the image holds NaN or infinite values")
    if all(channel.min() == channel.max() for channel in array):
        raise UserError(
            f"{first}: the image is constant ({array.flat[0]}), there is nothing to segment or to "
            "perturb"
        )
    return FileImage(array=array, properties=properties, file=first)


def read_segmentation(reader: BaseReaderWriter, file: str, *, image: FileImage) -> FileImage:
    """Read a segmentation that belongs to `image`.

    Raises
    ------
    UserError
        The file is missing or unreadable, or its shape or spacing is not the image's.
    """
    array, properties = _read(reader.read_seg, file)
    segmentation = FileImage(array=array, properties=properties, file=file)
    _check_same_grid(segmentation, image)
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
    if _nifti_has_nan(file):
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
        whole = np.array_equal(reader.read_images([str(path)])[0][0], image)
        why = "it reads back as something else"
    # what ITK, nibabel and gzip raise on a file that ends early
    except (RuntimeError, EOFError, zlib.error) as error:
        whole, why = False, str(error)
    if not whole:
        raise OSError(
            errno.ENOSPC,
            f"{path} could not be written whole, probably since the disk is full ({why})",
        )


def _read(read: Callable, files: str | Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
    names = (files,) if isinstance(files, str) else files
    for f in names:
        if not Path(f).is_file():
            raise UserError(f"{f} does not exist")
    said = io.StringIO()
    try:
        # nnU-Net's readers print what is wrong and raise an empty error
        with contextlib.redirect_stdout(said):
            return read(files)
    except (RuntimeError, AssertionError, OSError, ValueError, KeyError) as error:
        detail = " ".join(f"{error} {said.getvalue()}".split())
        raise UserError(f"cannot read {', '.join(names)}: {detail}") from error


def _nifti_has_nan(file: str) -> bool:
    """ITK reads NaN and infinity in NIfTI files as 0 without a word: look again with nibabel."""
    if not file.endswith((".nii", ".nii.gz")):
        return False
    image = nibabel.load(file)
    assert isinstance(image, Nifti1Image)
    if not np.issubdtype(image.get_data_dtype(), np.floating):
        return False
    return not np.isfinite(np.asanyarray(image.dataobj)).all()


def _check_same_grid(segmentation: FileImage, image: FileImage) -> None:
    shape, image_shape = segmentation.array.shape[1:], image.array.shape[1:]
    if shape != image_shape:
        raise UserError(
            f"{segmentation.file}: shape {shape} differs from the image's {image_shape} "
            f"({image.file})"
        )
    spacing = [float(s) for s in segmentation.properties["spacing"]]
    image_spacing = [float(s) for s in image.properties["spacing"]]
    if not np.allclose(spacing, image_spacing):
        raise UserError(
            f"{segmentation.file}: spacing {spacing} differs from the image's {image_spacing} "
            f"({image.file})"
        )


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
