"""Parts of one scan of LIDC-IDRI as cases: NIfTI images in HU with labels, whole on the disk."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunetv2_lngswr.datasets.conversion import Entry, case_name, skip, source_name
from nnunetv2_lngswr.datasets.dicom import WHOLE, Scan, SliceFile, UnreadableDicom
from nnunetv2_lngswr.datasets.options import LidcOptions
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import atomic_path
from nnunetv2_lngswr.utils.image_files import check_whole

ENDING = ".nii.gz"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all parts of a conversion share."""

    root: Path
    """The download, which the manifest's names are relative to."""
    out: Path
    """The data set's folder."""
    options: LidcOptions


class CaseWriter:
    """Writes parts of one scan as cases.

    Parameters
    ----------
    scan
        In HU.
    label
        (Z, Y, X) uint8, 1 = nodule.
    job
        Where to, and how.
    """

    def __init__(self, scan: Scan, label: np.ndarray, job: Job):
        self.scan, self.label, self.job = scan, label, job
        self.name = scan_name(scan.slices[0])
        self.place = scan.slices[0].path.parent

    def write(
        self,
        suffix: str,
        zs: range | int,
        rows: slice = WHOLE,
        columns: slice = WHOLE,
        *,
        details: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Write a part as image and label; the entry says so, or which slice is not readable.

        Parameters
        ----------
        suffix
            Of the case's name, behind that of the scan.
        zs
            A range for a volume, an index for a 2D image.
        rows, columns
            Of each slice.
        details
            For the manifest.
        """
        flat = isinstance(zs, int)
        zs = range(zs, zs + 1) if isinstance(zs, int) else zs
        case, root, out = self.name + suffix, self.job.root, self.job.out
        try:
            image = self.scan.volume(zs, rows, columns)
        except UnreadableDicom as error:
            return skip(error.path, root, f"{error} (needed for {case})")
        label = self.scan.place(self.label[zs.start : zs.stop, rows, columns], zs, rows, columns)
        for what, path in (
            (image, out / "imagesTr" / f"{case}_0000{ENDING}"),
            (label, out / "labelsTr" / f"{case}{ENDING}"),
        ):
            _write_whole(_flat(what) if flat else what, path)
        about = {"series": self.scan.series_uid, "slices": [zs[0], zs[-1]], **(details or {})}
        return Entry(
            source=source_name(self.place, root),
            status="used",
            case=case,
            group=self.scan.patient,
            details=about,
        )

    def skipped(self, reason: str) -> Entry:
        """The entry of a part that cannot be made."""
        details = {"series": self.scan.series_uid}
        return skip(self.place, self.job.root, reason, details=details)


def scan_name(header: SliceFile) -> str:
    """By patient and series: some patients have two scans."""
    series = hashlib.sha256(header.series_uid.encode()).hexdigest()
    return f"{case_name(header.patient)}_{series[:4]}"


def _flat(image: sitk.Image) -> sitk.Image:
    """A one-slice volume as 2D image.

    Its position along z has no place there; the manifest names the slice.
    """
    flat = sitk.GetImageFromArray(sitk.GetArrayFromImage(image)[0])
    flat.SetSpacing(image.GetSpacing()[:2])
    flat.SetOrigin(image.GetOrigin()[:2])
    return flat


def _write_whole(image: sitk.Image, path: Path) -> None:
    """Write and read back: ITK says nothing when the disk is full. OSError for a torn file."""
    with atomic_path(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
            written = sitk.GetArrayFromImage(sitk.ReadImage(str(temporary)))
            whole = np.array_equal(written, sitk.GetArrayFromImage(image))
            check_whole(temporary)
        # zeros at the end would read back as they were
        except (RuntimeError, UserError):
            whole = False
        if not whole:
            why = "could not be written whole, probably since the disk is full"
            raise OSError(errno.ENOSPC, why, str(path))
