"""A folder of DICOM files, one file per slice -> scans in HU with their geometry, read by SimpleITK (GDCM) file by file.

Slices are put in order by their position along the normal of the image plane: file names and instance numbers say nothing about it. Pixels are
read when asked for. ITK's own series reader is not used: it stacks slices as if evenly spaced where one is missing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk

# along the normal, of the usual distance between slices: positions are often rounded to a tenth of a millimetre, a missing slice is 1;
# in the plane, of a pixel
STEP_TOLERANCE = 0.2
SHIFT_TOLERANCE = 0.2


class UnreadableDicom(ValueError):
    """A file that is not DICOM or is damaged. `path`, and why in the text."""

    def __init__(self, path: Path, why: str):
        super().__init__(why)
        self.path = path


@dataclass(frozen=True, kw_only=True)
class SliceFile:
    """The header of one file. `position_mm`: of the first pixel's centre, (x, y, z) in LPS; `orientation`: direction of rows and columns;
    `spacing_mm`: (y, x); `shape`: (H, W)."""

    path: Path
    sop_uid: str
    series_uid: str
    patient: str
    modality: str
    position_mm: np.ndarray
    orientation: np.ndarray
    spacing_mm: tuple[float, float]
    shape: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Scan:
    """The slices of one series, ascending along the normal."""

    slices: tuple[SliceFile, ...]
    _pixels: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def series_uid(self) -> str:
        return self.slices[0].series_uid

    @property
    def patient(self) -> str:
        return self.slices[0].patient

    @property
    def shape(self) -> tuple[int, int, int]:
        return (len(self.slices), *self.slices[0].shape)

    @cached_property
    def slice_of(self) -> dict[str, int]:
        return {s.sop_uid: z for z, s in enumerate(self.slices)}

    @property
    def normal(self) -> np.ndarray:
        return _normal(self.slices[0])

    @property
    def step_mm(self) -> float:
        """Usual distance between slices; 1 for a single one, which has none."""
        if len(self.slices) == 1:
            return 1.0
        return float(
            np.median(
                [
                    np.linalg.norm(b.position_mm - a.position_mm)
                    for a, b in zip(self.slices, self.slices[1:])
                ]
            )
        )

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        return (self.step_mm, *self.slices[0].spacing_mm)

    @cached_property
    def runs(self) -> list[range]:
        """Slices that follow each other at even distance along the normal. More than one: slices are missing, doubled, or the gantry is
        tilted."""

        def even(a: SliceFile, b: SliceFile) -> bool:
            step = b.position_mm - a.position_mm
            along = float(step @ self.normal)
            shift = np.linalg.norm(step - along * self.normal)
            return abs(
                along - self.step_mm
            ) <= STEP_TOLERANCE * self.step_mm and shift <= SHIFT_TOLERANCE * min(a.spacing_mm)

        breaks = [
            z + 1 for z, (a, b) in enumerate(zip(self.slices, self.slices[1:])) if not even(a, b)
        ]
        edges = [0, *breaks, len(self.slices)]
        return [range(a, b) for a, b in zip(edges, edges[1:])]

    def hounsfield(self, z: int) -> np.ndarray:
        """Slice z, (H, W), rescaled: int16 where that is exact, else float32. UnreadableDicom for damaged pixels."""
        if z not in self._pixels:
            self._pixels[z] = _read_pixels(self.slices[z])
        return self._pixels[z]

    def volume(
        self, zs: range, rows: slice = slice(None), columns: slice = slice(None)
    ) -> sitk.Image:
        """A part as an image with geometry. `zs` lies within one of `runs`."""
        array = np.stack([self.hounsfield(z)[rows, columns] for z in zs])
        return self.place(array, zs, rows, columns)

    def place(
        self, array: np.ndarray, zs: range, rows: slice = slice(None), columns: slice = slice(None)
    ) -> sitk.Image:
        """(Z, Y, X) of that part as an image with the part's geometry."""
        first, last = self.slices[zs[0]], self.slices[zs[-1]]
        row, column = first.orientation[:3], first.orientation[3:]
        step = (
            float((last.position_mm - first.position_mm) @ self.normal) / (len(zs) - 1)
            if len(zs) > 1
            else self.step_mm
        )
        spacing_y, spacing_x = first.spacing_mm
        origin = (
            first.position_mm
            + row * spacing_x * (columns.start or 0)
            + column * spacing_y * (rows.start or 0)
        )
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((spacing_x, spacing_y, step))
        image.SetOrigin(origin.tolist())
        image.SetDirection(np.column_stack([row, column, self.normal]).ravel().tolist())
        return image


def read_header(path: Path) -> SliceFile:
    """UnreadableDicom for what is not a readable single-slice image with a position."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise UnreadableDicom(path, "not readable as DICOM") from None

    def tag(name: str, what: str) -> str:
        if not reader.HasMetaDataKey(name) or not reader.GetMetaData(name).strip():
            raise UnreadableDicom(path, f"DICOM without {what} ({name.replace('|', ',')})")
        return reader.GetMetaData(name).strip(" \0")

    def numbers(name: str, what: str, count: int) -> np.ndarray:
        try:
            values = np.array([float(v) for v in tag(name, what).split("\\")])
        except ValueError as error:
            if isinstance(error, UnreadableDicom):
                raise
            values = np.zeros(0)
        if len(values) != count or not np.isfinite(values).all():
            raise UnreadableDicom(path, f"DICOM with a damaged {what} ({name.replace('|', ',')})")
        return values

    uids = tag("0008|0018", "SOP Instance UID"), tag("0020|000e", "Series Instance UID")
    modality = tag("0008|0060", "Modality")
    patient = tag("0010|0020", "Patient ID")
    common = {
        "path": path,
        "sop_uid": uids[0],
        "series_uid": uids[1],
        "patient": patient,
        "modality": modality,
    }
    if modality != "CT":
        # radiographs have no position, and are left out anyway
        nowhere = {
            "position_mm": np.zeros(3),
            "orientation": np.eye(3)[:2].ravel(),
            "spacing_mm": (1.0, 1.0),
            "shape": (1, 1),
        }
        return SliceFile(**common, **nowhere)
    if reader.HasMetaDataKey("0028|0008") and reader.GetMetaData("0028|0008").strip(" \0") not in (
        "",
        "1",
    ):
        raise UnreadableDicom(
            path, "DICOM with several frames in one file, one slice per file was expected"
        )
    spacing = numbers("0028|0030", "Pixel Spacing", 2)
    width, height = reader.GetSize()[:2]
    return SliceFile(
        **common,
        position_mm=numbers("0020|0032", "Image Position (Patient)", 3),
        orientation=numbers("0020|0037", "Image Orientation (Patient)", 6),
        spacing_mm=(float(spacing[0]), float(spacing[1])),
        shape=(height, width),
    )


def series_of(headers: Sequence[SliceFile]) -> dict[str, list[SliceFile]]:
    """By series, in the order of the files."""
    series = defaultdict(list)
    for header in headers:
        series[header.series_uid].append(header)
    return dict(series)


def make_scan(headers: Sequence[SliceFile]) -> tuple[Scan, list[tuple[SliceFile, str]]]:
    """The scan of one series, and files that do not belong to it with the reason: repeated SOP instances, another size, spacing or
    orientation than most."""

    def kind(header: SliceFile):
        return (
            header.shape,
            tuple(np.round(header.spacing_mm, 4)),
            tuple(np.round(header.orientation, 3)),
        )

    kinds = [kind(h) for h in headers]
    usual = max(kinds, key=kinds.count)
    kept, wrong, seen = [], [], {}
    for header, its in zip(headers, kinds):
        if header.sop_uid in seen:
            wrong.append((header, f"repeats the SOP instance of {seen[header.sop_uid].name}"))
        elif its != usual:
            wrong.append(
                (
                    header,
                    f"size, spacing or orientation differ from the rest of its series: {its[0]} against {usual[0]}",
                )
            )
        else:
            seen[header.sop_uid] = header.path
            kept.append(header)
    normal = _normal(kept[0])
    return Scan(slices=tuple(sorted(kept, key=lambda h: float(h.position_mm @ normal)))), wrong


def _normal(header: SliceFile) -> np.ndarray:
    return np.cross(header.orientation[:3], header.orientation[3:])


def _read_pixels(header: SliceFile) -> np.ndarray:
    try:
        image = sitk.ReadImage(str(header.path), imageIO="GDCMImageIO")
    except RuntimeError:
        raise UnreadableDicom(header.path, "DICOM with damaged or missing pixels") from None
    array = sitk.GetArrayFromImage(image).reshape(header.shape)
    rounded = np.rint(array)
    exact = (array == rounded).all() and rounded.min() >= -32768 and rounded.max() <= 32767
    return rounded.astype(np.int16) if exact else array.astype(np.float32)
