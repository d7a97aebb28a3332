"""A folder of DICOM files, one file per slice -> scans in HU with their geometry.

Read by SimpleITK (GDCM), file by file. Slices are put in order by their position along the normal
of the image plane (DICOM PS3.3 C.7.6.2: Image Position and Image Orientation (Patient)): file
names and instance numbers say nothing about it. Pixels are read when asked for. ITK's own series
reader is not used: it stacks slices as if evenly spaced where one is missing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk

# along the normal, of the usual distance between slices: positions are often rounded to a tenth of
# a millimetre, a missing slice is 1; in the plane, of a pixel
STEP_TOLERANCE = 0.2
SHIFT_TOLERANCE = 0.2

WHOLE = slice(None)


class UnreadableDicom(ValueError):
    """A file that is not DICOM or is damaged. `path`, and why in the text."""

    def __init__(self, path: Path, why: str):
        super().__init__(why)
        self.path = path


@dataclass(frozen=True, kw_only=True)
class SliceFile:
    """The header of one file."""

    path: Path
    sop_uid: str
    """SOP Instance UID (0008,0018), which readers' outlines refer to."""
    series_uid: str
    """Series Instance UID (0020,000E)."""
    patient: str
    """Patient ID (0010,0020)."""
    modality: str
    """(0008,0060); only CT has the geometry below, others have a stand-in."""
    position_mm: np.ndarray
    """Image Position (Patient) (0020,0032): the first pixel's centre, (3,), x, y, z in LPS."""
    orientation: np.ndarray
    """Image Orientation (Patient) (0020,0037): direction of rows and of columns, (6,)."""
    spacing_mm: tuple[float, float]
    """Pixel Spacing (0028,0030), y, x."""
    shape: tuple[int, int]
    """(H, W)."""

    @property
    def normal(self) -> np.ndarray:
        """Of the image plane, (3,)."""
        return np.cross(self.orientation[:3], self.orientation[3:])


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
        """(Z, Y, X)."""
        return (len(self.slices), *self.slices[0].shape)

    @cached_property
    def slice_of(self) -> dict[str, int]:
        """SOP instance UID -> index along z."""
        return {s.sop_uid: z for z, s in enumerate(self.slices)}

    @property
    def normal(self) -> np.ndarray:
        """Of the image planes, (3,)."""
        return self.slices[0].normal

    @cached_property
    def step_mm(self) -> float:
        """Usual distance between slices; 1 for a single one, which has none."""
        if len(self.slices) == 1:
            return 1.0
        positions_mm = np.stack([s.position_mm for s in self.slices])
        return float(np.median([np.linalg.norm(step) for step in np.diff(positions_mm, axis=0)]))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """z, y, x."""
        return (self.step_mm, *self.slices[0].spacing_mm)

    @cached_property
    def runs(self) -> list[range]:
        """Slices that follow each other at even distance along the normal.

        More than one run: slices are missing, doubled, or the gantry is tilted.
        """
        pairs = zip(self.slices, self.slices[1:])
        breaks = [z for z, (a, b) in enumerate(pairs, 1) if not self._even(a, b)]
        edges = [0, *breaks, len(self.slices)]
        return [range(a, b) for a, b in zip(edges, edges[1:])]

    def _even(self, a: SliceFile, b: SliceFile) -> bool:
        """Whether b lies a usual step above a."""
        step = b.position_mm - a.position_mm
        along = float(step @ self.normal)
        shift = float(np.linalg.norm(step - along * self.normal))
        regular = abs(along - self.step_mm) <= STEP_TOLERANCE * self.step_mm
        return regular and shift <= SHIFT_TOLERANCE * min(a.spacing_mm)

    def hounsfield(self, z: int) -> np.ndarray:
        """Slice z in HU, (H, W), rescaled: int16 where that is exact, else float32.

        Raises
        ------
        UnreadableDicom
            Its pixels are damaged or missing.
        """
        if z not in self._pixels:
            self._pixels[z] = _read_pixels(self.slices[z])
        return self._pixels[z]

    def volume(self, zs: range, rows: slice = WHOLE, columns: slice = WHOLE) -> sitk.Image:
        """A part in HU, as an image with geometry.

        Parameters
        ----------
        zs
            Slices, within one of `runs`.
        rows, columns
            Of each slice.

        Raises
        ------
        UnreadableDicom
            The pixels of one of the slices are damaged or missing.
        """
        array = np.stack([self.hounsfield(z)[rows, columns] for z in zs])
        return self.place(array, zs, rows, columns)

    def place(
        self, array: np.ndarray, zs: range, rows: slice = WHOLE, columns: slice = WHOLE
    ) -> sitk.Image:
        """`array`, (Z, Y, X) of that part, as an image with the part's geometry."""
        first, last = self.slices[zs[0]], self.slices[zs[-1]]
        row, column = first.orientation[:3], first.orientation[3:]
        step = self.step_mm
        if len(zs) > 1:
            step = float((last.position_mm - first.position_mm) @ self.normal) / (len(zs) - 1)
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
    """The header of a file with one slice.

    Raises
    ------
    UnreadableDicom
        No DICOM, several frames, or an attribute is missing or damaged.
    """
    header = _Header(path)
    series = {
        "path": path,
        "sop_uid": header.text("0008|0018", "SOP Instance UID"),
        "series_uid": header.text("0020|000e", "Series Instance UID"),
        "modality": header.text("0008|0060", "Modality"),
        "patient": header.text("0010|0020", "Patient ID"),
    }
    if series["modality"] != "CT":
        # radiographs have no position, and are left out anyway
        return SliceFile(
            **series,
            position_mm=np.zeros(3),
            orientation=np.eye(3)[:2].ravel(),
            spacing_mm=(1.0, 1.0),
            shape=(1, 1),
        )
    header.refuse_several_frames()
    spacing = header.numbers("0028|0030", "Pixel Spacing", 2)
    return SliceFile(
        **series,
        position_mm=header.numbers("0020|0032", "Image Position (Patient)", 3),
        orientation=header.numbers("0020|0037", "Image Orientation (Patient)", 6),
        spacing_mm=(float(spacing[0]), float(spacing[1])),
        shape=header.shape,
    )


def series_of(headers: Sequence[SliceFile]) -> dict[str, list[SliceFile]]:
    """By series, in the order of the files."""
    series = defaultdict(list)
    for header in headers:
        series[header.series_uid].append(header)
    return dict(series)


def make_scan(headers: Sequence[SliceFile]) -> tuple[Scan, list[tuple[SliceFile, str]]]:
    """The scan of one series, and files that do not belong to it, each with the reason.

    These are repeated SOP instances, and another size, spacing or orientation than most have.
    """
    kinds = [_kind(h) for h in headers]
    usual = max(kinds, key=kinds.count)
    kept, wrong, seen = [], [], {}
    for header, its in zip(headers, kinds):
        if header.sop_uid in seen:
            wrong.append((header, f"repeats the SOP instance of {seen[header.sop_uid].name}"))
        elif its != usual:
            why = (
                "size, spacing or orientation differ from the rest of its series: "
                f"{its[0]} against {usual[0]}"
            )
            wrong.append((header, why))
        else:
            seen[header.sop_uid] = header.path
            kept.append(header)
    normal = kept[0].normal
    return Scan(slices=tuple(sorted(kept, key=lambda h: float(h.position_mm @ normal)))), wrong


# --- helpers --------------------------------------------------------------------------------------


class _Header:
    """One file's attributes by tag; UnreadableDicom, naming the attribute, for what is amiss."""

    def __init__(self, path: Path):
        self.path = path
        self.reader = sitk.ImageFileReader()
        self.reader.SetImageIO("GDCMImageIO")
        self.reader.SetFileName(str(path))
        try:
            self.reader.ReadImageInformation()
        except RuntimeError:
            raise UnreadableDicom(path, "not readable as DICOM") from None

    def text(self, tag: str, what: str) -> str:
        if not self.reader.HasMetaDataKey(tag) or not self.reader.GetMetaData(tag).strip():
            raise UnreadableDicom(self.path, f"DICOM without {what} ({tag.replace('|', ',')})")
        return self.reader.GetMetaData(tag).strip(" \0")

    def numbers(self, tag: str, what: str, count: int) -> np.ndarray:
        text = self.text(tag, what)
        try:
            values = np.array([float(v) for v in text.split("\\")])
        except ValueError:
            values = np.zeros(0)
        if len(values) != count or not np.isfinite(values).all():
            damaged = f"DICOM with a damaged {what} ({tag.replace('|', ',')})"
            raise UnreadableDicom(self.path, damaged)
        return values

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        width, height = self.reader.GetSize()[:2]
        return height, width

    def refuse_several_frames(self) -> None:
        frames = "0028|0008"
        if not self.reader.HasMetaDataKey(frames):
            return
        if self.reader.GetMetaData(frames).strip(" \0") not in ("", "1"):
            raise UnreadableDicom(
                self.path, "DICOM with several frames in one file, one slice per file was expected"
            )


def _kind(header: SliceFile) -> tuple:
    """What all slices of a scan have in common."""
    return (
        header.shape,
        tuple(np.round(header.spacing_mm, 4)),
        tuple(np.round(header.orientation, 3)),
    )


def _read_pixels(header: SliceFile) -> np.ndarray:
    try:
        image = sitk.ReadImage(str(header.path), imageIO="GDCMImageIO")
    except RuntimeError:
        raise UnreadableDicom(header.path, "DICOM with damaged or missing pixels") from None
    array = sitk.GetArrayFromImage(image).reshape(header.shape)
    rounded = np.rint(array)
    exact = (array == rounded).all() and rounded.min() >= -32768 and rounded.max() <= 32767
    return rounded.astype(np.int16) if exact else array.astype(np.float32)
