"""nnU-Net's probabilities of one case: read from its .npz, and checked against its prediction."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from evaluation.scoring.label_set import LabelSet
from nnunetv2_lngswr.utils.errors import UserError

KEY = "probabilities"
TIE = 1e-3
"""What two probabilities may differ by where either is taken for the larger."""
_DAMAGED = (
    *(ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError),
    *(AttributeError, TypeError, tokenize.TokenError),  # no archive, a damaged header
)
_MEND = (
    "score the folder that nnUNetv2_predict --save_probabilities or nnUNetv2_train --npz wrote, as "
    "it wrote it"
)


def read_probabilities(
    file: Path, prediction: np.ndarray, *, labels: LabelSet, prediction_file: Path
) -> np.ndarray:
    """(channels, *spatial) of a prediction, in [0, 1].

    Parameters
    ----------
    file
        The .npz.
    prediction
        (*spatial), the label map that these probabilities belong to.
    labels
        What the channels stand for.
    prediction_file
        For messages.

    Raises
    ------
    UserError
        The file is missing, damaged or of another kind; its shape, channels or values are not those
        of the prediction's probabilities.
    """
    wanted = labels.channels()

    def check(shape: tuple[int, ...], dtype: np.dtype) -> None:
        if len(shape) < 3 or dtype.kind != "f":
            raise UserError(f"{file}: {KEY} are {dtype} of shape {shape}, no probabilities")
        if shape[1:] != prediction.shape:
            raise UserError(
                f"{file}: probabilities of shape {shape[1:]} are not those of {prediction_file}, "
                f"which has {prediction.shape}; {_MEND}"
            )
        if wanted is not None and shape[0] != wanted:
            raise UserError(
                f"{file}: {shape[0]} channels of probabilities, but the labels of "
                f"{labels.dataset_json} make {wanted}"
            )

    found = _read(file, check)
    if not ((found >= -TIE) & (found <= 1 + TIE)).all():  # false for NaN too
        raise UserError(f"{file}: probabilities must be in [0, 1]; are these logits?")
    if not labels.has_regions and np.abs(found.sum(0, dtype=np.float64) - 1).max() > 10 * TIE:
        raise UserError(
            f"{file}: the probabilities of a voxel do not add up to 1; of a region-based model "
            "give its dataset.json (-djfile)"
        )
    _check_match(found, prediction, labels, file, prediction_file)
    return np.clip(found, 0, 1)


def _read(file: Path, check: Callable[[tuple[int, ...], np.dtype], None]) -> np.ndarray:
    """The array, once `check` has seen its shape and type: a small file may hold a huge one."""
    if not file.is_file():
        raise UserError(f"{file} does not exist, which --npz needs: {_MEND}")
    try:
        with np.load(file) as content:
            if KEY not in content:
                raise UserError(f"{file} holds no {KEY}, but {', '.join(content) or 'nothing'}")
            check(*_shape_and_type(content.zip, f"{KEY}.npy"))
            return content[KEY]
    except _DAMAGED as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot read {file}: {error}; predict the case again") from None


def _shape_and_type(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(name) as member:
        headers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        version = np.lib.format.read_magic(member)
        if version not in headers:  # of arrays with named fields alone
            raise ValueError(f"{name} is an array of another kind")
        shape, _, dtype = headers[version](member)
    return shape, dtype


def _check_match(
    found: np.ndarray,
    prediction: np.ndarray,
    labels: LabelSet,
    file: Path,
    prediction_file: Path,
) -> None:
    """Every voxel must be what nnU-Net makes of its probabilities, ties apart."""
    said = labels.segmentation(found)
    differ = said != prediction
    if not differ.any():
        return
    at = found[:, differ]
    if labels.has_regions:
        tie = (np.abs(at - 0.5) <= TIE).any(0)
    else:
        held = prediction[differ]
        is_there = held < len(at)
        chosen = at[np.where(is_there, held, 0), np.arange(held.size)]
        tie = is_there & (at.max(0) - chosen <= TIE)
    wrong = int((~tie).sum())
    if wrong:
        raise UserError(
            f"{file}: in {wrong} of {prediction.size} voxels {prediction_file} is not what these "
            f"probabilities say (is it postprocessed?); {_MEND}"
        )
