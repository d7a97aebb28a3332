"""Where an image lies: whether its geometry makes sense, and whether two files share one grid.

nnU-Net's integrity check warns of another origin or direction; in an evaluation it means the label
of something else, so it is refused. Differences that only rounding makes pass: what counts is how
far the corners of the two grids lie apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunetv2_lngswr.utils.errors import UserError

CORNERS_APART_VOXELS = 0.1
# from below an electron microscope's pixel to above 999 times (nnU-Net's third axis of 2D images)
# a satellite's, in mm
SPACING_MM = (1e-7, 1e9)
ORIGIN_MM = 1e9
SMALLEST_DETERMINANT = 1e-3  # of the direction, which is 1 for axes at right angles


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A file's grid as nnU-Net's reader tells it."""

    file: str
    """For messages."""
    shape: tuple[int, ...]
    """(*spatial), of the array."""
    properties: Mapping[str, Any]
    """nnU-Net's."""


def check_sane(placed: Placed) -> None:
    """Refuse a spacing that is not above zero or absurd, and an affine that is not finite.

    Raises
    ------
    UserError
        Names the file and the values.
    """
    spacing = _spacing(placed)
    low, high = SPACING_MM
    if not all(low <= s <= high for s in spacing):  # false for NaN too
        raise UserError(
            f"{placed.file}: spacing {spacing} mm is not possible (each must be in "
            f"{low:g}..{high:g}); mend the file's header"
        )
    affine = _affine(placed)
    if affine is None:
        return
    if not np.isfinite(affine).all():
        raise UserError(
            f"{placed.file}: the affine is not finite ({affine.tolist()}); mend the file's header"
        )
    if abs(np.linalg.det(_direction(affine))) < SMALLEST_DETERMINANT:
        raise UserError(
            f"{placed.file}: the affine maps several voxels to one place ({affine.tolist()}); "
            "mend the file's header"
        )
    if np.abs(affine[:, -1]).max() > ORIGIN_MM:
        raise UserError(
            f"{placed.file}: origin {affine[:, -1].tolist()} mm is not possible; "
            "mend the file's header"
        )


def check_same_grid(one: Placed, image: Placed, *, image_is: str = "image") -> None:
    """Refuse a file that does not lie where the image lies; messages call that `image_is`.

    Raises
    ------
    UserError
        Shape, spacing, origin or direction differ; names both files and what was found.
    """
    if one.shape != image.shape:
        raise UserError(
            f"{one.file}: shape {one.shape} differs from the {image_is}'s {image.shape} "
            f"({image.file})"
        )
    spacing, image_spacing = _spacing(one), _spacing(image)
    if not np.allclose(spacing, image_spacing):
        raise UserError(
            f"{one.file}: spacing {spacing} differs from the {image_is}'s {image_spacing} "
            f"({image.file})"
        )
    mend = f"if its voxels do belong to the {image_is}'s, copy the {image_is}'s geometry into it"
    a, b = _affine(one), _affine(image)
    if a is None or b is None:
        return
    if a.shape != b.shape:
        raise UserError(
            f"{one.file}: it has {len(a)} axes, the {image_is} has {len(b)} ({image.file}); {mend}"
        )
    apart = _corners_apart(a, b, one.shape)
    if apart > CORNERS_APART_VOXELS * _smallest_step(b):
        raise UserError(
            f"{one.file}: origin or direction differ from the {image_is}'s ({image.file}), "
            f"by up to {apart:.4g} mm ({_describe(a)}, the {image_is}'s {_describe(b)}); {mend}"
        )


def _spacing(placed: Placed) -> list[float]:
    return [float(s) for s in placed.properties["spacing"]]


def _affine(placed: Placed) -> np.ndarray | None:
    """(D, D + 1): from the index along x, y(, z) to mm; None where the format knows none."""
    if "sitk_stuff" in placed.properties:
        geometry = placed.properties["sitk_stuff"]
        axes = len(geometry["spacing"])
        direction = np.asarray(geometry["direction"], float).reshape(axes, axes)
        steps, origin = (np.asarray(geometry[key], float) for key in ("spacing", "origin"))
        # the fourth axis of a file of several channels is not in space
        return np.column_stack([(direction * steps)[:3, :3], origin[:3]])
    if "nibabel_stuff" in placed.properties:
        geometry = placed.properties["nibabel_stuff"]
        # what was turned the same way lies the same way
        affine = geometry.get("reoriented_affine", geometry["original_affine"])
        return np.asarray(affine, float)[:3]
    return None


def _corners_apart(a: np.ndarray, b: np.ndarray, shape: Sequence[int]) -> float:
    """The largest distance of a corner of one grid from the same corner of the other, mm."""
    # arrays are z, y, x
    ends = [(0, n - 1) for n in shape[::-1]][: len(a)]
    corners = np.array([(*corner, 1) for corner in itertools.product(*ends)], float)
    return float(np.linalg.norm(corners @ (a - b).T, axis=1).max())


def _smallest_step(affine: np.ndarray) -> float:
    return float(np.linalg.norm(affine[:, :-1], axis=0).min())


def _direction(affine: np.ndarray) -> np.ndarray:
    steps = np.linalg.norm(affine[:, :-1], axis=0)
    return affine[:, :-1] / np.where(steps == 0, 1, steps)


def _describe(affine: np.ndarray) -> str:
    # + 0 turns -0 into 0
    origin, rows = affine[:, -1].round(4) + 0, _direction(affine).round(4) + 0
    return f"origin {origin.tolist()}, direction {rows.ravel().tolist()}"
