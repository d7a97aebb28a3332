"""A perturbed preprocessed case written back as the images that nnU-Net would preprocess into it (--save-adversarial).

Exact only where preprocessing can be undone: no resampling, an affine normalisation and a format that holds floats. With z-scoring, nnU-Net
recomputes mean and sd from the perturbed image, so the round trip differs a little; `roundtrip_error` measures by how much. Never
written as integers: 1/255 of a range would be rounded away.
"""

from __future__ import annotations

import errno
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel
import numpy as np
import SimpleITK as sitk
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import atomic_path

if TYPE_CHECKING:
    from evaluation.model.folder import Case, SegmentationModel


def write(model: SegmentationModel, case: Case, x: torch.Tensor, folder: Path) -> list[Path]:
    """Write x, (C, *spatial), as float32 images <identifier>_0000<ending>, one per image channel; voxels outside nnU-Net's nonzero crop keep
    their value. ValueError for resampled cases, normalisations that are not affine, and formats without floats."""
    if case.resampled:
        raise UserError(
            f"case {case.identifier} was resampled by preprocessing; its perturbation cannot be written in the original geometry"
        )
    if case.file_scale is None:
        raise UserError(
            f"case {case.identifier}: the normalisation is not affine and cannot be undone"
        )
    if x.shape != case.x.shape:
        raise UserError(f"x must have the case's shape {tuple(case.x.shape)}, got {tuple(x.shape)}")
    reader = model.plans.image_reader_writer_class()
    if not isinstance(
        reader, (SimpleITKIO, NibabelIO, NibabelIOWithReorient)
    ) or "original_orientation" in case.properties.get("sitk_stuff", {}):
        raise UserError(
            f"{type(reader).__name__} files cannot be written as floats with their geometry; save-adversarial needs NIfTI, NRRD or MHA"
        )
    images, _ = reader.read_images(case.image_files)
    images = (
        images.astype(np.float32)
        .transpose([0, *[i + 1 for i in model.plans.transpose_forward]])
        .copy()
    )
    crop = tuple(slice(int(a), int(b)) for a, b in case.properties["bbox_used_for_cropping"])
    channels = case.image_channels
    scale, offset = (
        v.double().reshape(-1, *[1] * (x.ndim - 1)) for v in (case.file_scale, case.file_offset)
    )
    clean = case.x[:channels].double()
    moved = x[:channels].detach().cpu().double() != clean
    perturbed = ((x[:channels].detach().cpu().double() - offset) / scale).float().numpy()
    # only voxels that moved are rewritten: clipped or masked ones that did not keep the value of the file
    images[(slice(None), *crop)] = np.where(moved.numpy(), perturbed, images[(slice(None), *crop)])
    images = images.transpose([0, *[i + 1 for i in model.plans.transpose_backward]])
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for c, image in enumerate(images):
        path = folder / f"{case.identifier}_{c:04d}{model.file_ending}"
        with atomic_path(path) as temporary:
            _write_whole(reader, image, temporary, case.properties)
        paths.append(path)
    return paths


def roundtrip_error(
    model: SegmentationModel, case: Case, x: torch.Tensor, paths: list[Path]
) -> float:
    """Largest |difference| between x and the preprocessed files, preprocessed units; inf when the nonzero crop changed."""
    if model.is_cascade:
        raise UserError(
            "roundtrip_error does not cover cascades: preprocess the files with their previous stage instead"
        )
    again = model.preprocess(paths)
    return (
        float("inf")
        if again.x.shape != x.shape
        else float((again.x - x.detach().cpu()).abs().max())
    )


def _write_whole(reader, image: np.ndarray, path: Path, properties) -> None:
    """Write and read back: ITK says nothing when the disk is full, and may read what is missing as 0. OSError where the file is not whole."""
    try:
        _write_image(reader, image, path, properties)
        whole, why = (
            np.array_equal(reader.read_images([str(path)])[0][0], image),
            "it reads back as something else",
        )
    except (
        RuntimeError,
        EOFError,
        zlib.error,
    ) as error:  # what ITK, nibabel and gzip raise on a file that ends early
        whole, why = False, str(error)
    if not whole:
        raise OSError(
            errno.ENOSPC,
            f"{path} could not be written whole, probably since the disk is full ({why})",
        )


def _write_image(reader, image: np.ndarray, path: Path, properties) -> None:
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
        canonical = nibabel.Nifti1Image(array, affine=geometry["reoriented_affine"])
        back = ornt_transform(axcodes2ornt("RAS"), io_orientation(geometry["original_affine"]))
        nibabel.save(canonical.as_reoriented(back), path)
    else:
        nibabel.save(nibabel.Nifti1Image(array, affine=geometry["original_affine"]), path)
