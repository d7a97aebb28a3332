"""A download of LIDC-IDRI with three patients, and what a conversion makes of it."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_lngswr.datasets.dicom import read_header
from nnunetv2_lngswr.datasets.lidc import convert_lidc
from nnunetv2_lngswr.datasets.options import DatasetSpec, LidcOptions

pytest.importorskip("pydicom", reason="pydicom writes the DICOM files (pip install pydicom)")
from tests.datasets.lidc_files import ROOT, nodule, write_series, write_xml

SHAPE = (10, 40, 48)
SPACING = (2.5, 0.7, 0.6)  # z, y, x as write_series' defaults
TARGET = DatasetSpec(
    dataset_id=703, name="Lidc", channel="CT", label="nodule", file_ending=".nii.gz", folds=2
)


def stored(seed: int, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2000, shape)


def box(x0: int, x1: int, y0: int, y1: int) -> list[tuple[int, int]]:
    """The outline of the pixels x0..x1, y0..y1: one pixel outside of them."""
    return [(x0 - 1, y0 - 1), (x1 + 1, y0 - 1), (x1 + 1, y1 + 1), (x0 - 1, y1 + 1)]


def box_nodule(name: str, uids: list[str], zs, x0, x1, y0, y1, **options):
    return nodule(name, [(uids[z], box(x0, x1, y0, y1), True) for z in zs], **options)


def two_nodules(uids: list[str]) -> list[list]:
    """Four readers and two nodules; reader 2 also marks one under 3 mm.

    Nodule A (x 10..19, y 5..9): readers 1 to 3, in slices 2..4, 3..5 and 3..4. Nodule B (x 30..33,
    y 25..28): reader 4 in slice 7.
    """
    return [
        [box_nodule("Nodule 001", uids, (2, 3, 4), 10, 19, 5, 9)],
        [
            box_nodule("14353", uids, (3, 4, 5), 10, 17, 5, 9),
            nodule("77", [(uids[8], [(5, 30)], True)], malignancy=None),
        ],
        [box_nodule("A", uids, (3, 4), 12, 19, 5, 9)],
        [box_nodule("0", uids, (7,), 30, 33, 25, 28, malignancy=1)],
    ]


def download(root: Path, patients: int = 3) -> Path:
    """LIDC-IDRI-0001/STUDY/SERIES with DICOM and XML, for each patient."""
    for number in range(1, patients + 1):
        patient = f"LIDC-IDRI-{number:04d}"
        folder = root / patient / "01-01-2000-30178" / f"{3000566 + number}.000000-03192"
        uids = write_series(
            folder, stored(number), patient=patient, series=str(number), descending=number % 2 == 0
        )
        write_xml(folder / f"{number:03d}.xml", str(number), two_nodules(uids))
    (root / "LICENSE").write_text("CC BY 3.0")
    return root


def series_folder(root: Path, number: int = 1) -> Path:
    return next((root / f"LIDC-IDRI-{number:04d}" / "01-01-2000-30178").iterdir())


def middle(folder: Path, z: int) -> Path:
    """The file of slice z."""
    return next(p for p in folder.glob("*.dcm") if read_header(p).sop_uid.endswith(f".{z + 1}"))


def run(root: Path, raw: Path, **options):
    return convert_lidc(root, raw, TARGET, options=LidcOptions(**options), progress=False)


def cases(done) -> list[str]:
    return sorted(e.case for e in done.entries if e.case)


def skipped(done) -> dict[str, str]:
    return {Path(e.source).name: e.reason for e in done.skipped}


def read(done, case: str) -> tuple[sitk.Image, sitk.Image]:
    return tuple(
        sitk.ReadImage(str(done.folder / part))
        for part in (f"imagesTr/{case}_0000.nii.gz", f"labelsTr/{case}.nii.gz")
    )


def arrays(done, case: str) -> tuple[np.ndarray, np.ndarray]:
    return tuple(sitk.GetArrayFromImage(image) for image in read(done, case))


def scan_name(number: int = 1) -> str:
    return f"LIDC-IDRI-{number:04d}_{hashlib.sha256(f'{ROOT}{number}'.encode()).hexdigest()[:4]}"
