"""A perturbed preprocessed case written back as the images that nnU-Net would preprocess into it.

This is --save-adversarial. Exact only where preprocessing can be undone: no resampling, an affine
normalisation and a format that holds floats. With z-scoring, nnU-Net recomputes mean and sd from
the perturbed image, so the round trip differs a little; `roundtrip_error` measures by how much.
Never written as integers: 1/255 of a range would be rounded away.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from evaluation.model.case import Case
from evaluation.model.readers import write_whole, writes_floats
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import atomic_path


class Preprocessing(Protocol):
    """What the round trip needs: a CasePreprocessor, or a SegmentationModel, which has one."""

    @property
    def is_cascade(self) -> bool: ...

    def preprocess(self, image_files: Sequence[str | Path]) -> Case: ...


def write_perturbed(
    case: Case, x: torch.Tensor, folder: Path, *, plans: PlansManager, file_ending: str
) -> list[Path]:
    """Write x as float32 images in the case's original geometry.

    Voxels outside nnU-Net's nonzero crop keep their value.

    Parameters
    ----------
    case
        The clean case.
    x
        The perturbed one, (C, *spatial), preprocessed units.
    folder
        Where <identifier>_0000<ending>, ... go, one per image channel.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    UserError
        A resampled case, a normalisation that is not affine, or a format without floats.
    """
    reader = plans.image_reader_writer_class()
    if case.resampled:
        raise UserError(
            f"case {case.identifier} was resampled by preprocessing; its perturbation cannot be "
            "written in the original geometry"
        )
    if x.shape != case.x.shape:
        raise UserError(f"x must have the case's shape {tuple(case.x.shape)}, got {tuple(x.shape)}")
    perturbed = _in_file_units(case, x)
    if not writes_floats(reader, case.properties):
        raise UserError(
            f"{type(reader).__name__} files cannot be written as floats with their geometry; "
            "save-adversarial needs NIfTI, NRRD or MHA"
        )
    images, _ = reader.read_images(case.image_files)
    images = images.astype(np.float32).transpose(_with_channels(plans.transpose_forward)).copy()
    crop = tuple(slice(int(a), int(b)) for a, b in case.properties["bbox_used_for_cropping"])
    inside = images[(slice(None), *crop)]
    # only voxels that moved are rewritten: clipped or masked ones that did not keep the file's
    # value
    inside[...] = np.where(_moved(case, x), perturbed, inside)
    images = images.transpose(_with_channels(plans.transpose_backward))
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for c, image in enumerate(images):
        path = folder / f"{case.identifier}_{c:04d}{file_ending}"
        with atomic_path(path) as temporary:
            write_whole(reader, image, temporary, case.properties)
        paths.append(path)
    return paths


def roundtrip_error(
    preprocessing: Preprocessing, case: Case, x: torch.Tensor, paths: Sequence[Path]
) -> float:
    """How far what was written is from x.

    Parameters
    ----------
    preprocessing
        Of the model that was attacked.
    case, x, paths
        What `write_perturbed` was given, and what it returned.

    Returns
    -------
    float
        Largest |difference| between x and the preprocessed files, preprocessed units; inf when the
        nonzero crop changed.

    Raises
    ------
    UserError
        A cascade, whose files need their previous stage.
    """
    if preprocessing.is_cascade:
        raise UserError(
            "roundtrip_error does not cover cascades: preprocess the files with their previous "
            "stage instead"
        )
    again = preprocessing.preprocess(paths)
    if again.x.shape != x.shape:
        return float("inf")
    return float((again.x - x.detach().cpu()).abs().max())


def _in_file_units(case: Case, x: torch.Tensor) -> np.ndarray:
    """The image channels of x with the normalisation undone."""
    if case.file_scale is None or case.file_offset is None:
        raise UserError(
            f"case {case.identifier}: the normalisation is not affine and cannot be undone"
        )
    column = (-1, *[1] * (x.ndim - 1))
    scale, offset = (v.double().reshape(column) for v in (case.file_scale, case.file_offset))
    image = x[: case.image_channels].detach().cpu().double()
    return ((image - offset) / scale).float().numpy()


def _moved(case: Case, x: torch.Tensor) -> np.ndarray:
    channels = slice(case.image_channels)
    return (x[channels].detach().cpu().double() != case.x[channels].double()).numpy()


def _with_channels(axes: Sequence[int]) -> list[int]:
    return [0, *(i + 1 for i in axes)]
