"""Slices that are missing, damaged or not of the scan: what can be made is, the rest is named."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.lidc_download import (
    arrays,
    box_nodule,
    cases,
    middle,
    run,
    scan_name,
    series_folder,
    skipped,
    stored,
)
from tests.datasets.lidc_files import ROOT, write_series, write_xml


def without_pixels(path: Path) -> None:
    import pydicom

    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda p: p.write_bytes(b"not DICOM at all"), "not readable as DICOM"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1000]), "not readable as DICOM"),
        (lambda p: without_pixels(p), "DICOM"),
    ],
)
def test_unreadable_dicom(lidc, tmp_path, damage, said):
    file = middle(series_folder(lidc), 3)
    damage(file)
    slices = run(lidc, tmp_path / "slices")
    assert said in skipped(slices)[file.name]
    # slice 4 is still there with its label; it is the fourth of those that can be read
    (case,) = (c for c in cases(slices) if scan_name() in c)
    assert (
        np.array_equal(arrays(slices, case)[0], stored(1)[4] - 1024)
        and arrays(slices, case)[1].sum() == 5 * 10
    )
    for form in ("crops", "scans"):
        done = run(lidc, tmp_path / form, form=form)
        assert (
            len(cases(done)) == 2
            and not any(scan_name() in c for c in cases(done))
            and file.name in skipped(done)
        )


def test_missing_slices(lidc, tmp_path):
    middle(series_folder(lidc), 3).unlink()  # within nodule A
    middle(series_folder(lidc, 2), 8).unlink()  # next to nodule B, nobody outlined it
    done = run(lidc, tmp_path / "raw", form="crops", consensus="any", crop_mm=15)
    reasons = [e.reason for e in done.skipped]
    assert any(
        "slices outlined by reader 1 are missing or unreadable: " + ROOT + "1.4" in r
        for r in reasons
    )
    assert any("nodule 1 lies across missing slices: between" in r for r in reasons)
    assert f"{scan_name()}_n2" in cases(done) and f"{scan_name()}_n1" not in cases(done)
    # a crop ends at the gap
    image, label = arrays(done, f"{scan_name(2)}_n2")
    assert (
        image.shape[0] == 4
        and np.array_equal(image[:, 0, 0], stored(2)[4:8, 16, 19] - 1024)
        and label[-1].sum() == 16
    )
    whole = run(lidc, tmp_path / "scans", form="scans")
    assert (
        cases(whole) == [scan_name(3)]
        and sum("not evenly spaced" in e.reason for e in whole.skipped) == 2
    )


def test_a_missing_last_slice_is_noticed(lidc, tmp_path):
    """No gap shows it, only the outline."""
    folder = tmp_path / "in" / "a"
    uids = write_series(folder, stored(0))
    write_xml(folder / "a.xml", "1", [[box_nodule("N", uids, (8, 9), 5, 9, 5, 9)]])
    middle(folder, 9).unlink()
    for form in ("crops", "scans"):
        done = run(tmp_path / "in", tmp_path / form, form=form)
        assert cases(done) == [] and len(done.skipped) == 2
    assert cases(run(tmp_path / "in", tmp_path / "slices")) == [f"{scan_name()}_z008"]


def test_a_nodule_all_of_whose_slices_are_missing(lidc, tmp_path):
    middle(series_folder(lidc), 7).unlink()
    done = run(lidc, tmp_path / "raw")
    assert any(
        e.reason == "nodule 0 of reader 4: none of its 1 slices is in the folder"
        for e in done.skipped
    )


def test_doubled_and_odd_files(lidc, tmp_path):
    folder = series_folder(lidc)
    shutil.copy(middle(folder, 0), folder / "copy.dcm")
    write_series(tmp_path / "odd", stored(5, (1, 20, 20)), series="1")
    # the same series, another size and SOP instance
    import pydicom
    from pydicom.uid import EnhancedCTImageStorage

    odd = pydicom.dcmread(next((tmp_path / "odd").iterdir()))
    odd.SOPInstanceUID = odd.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}1.77"
    odd.save_as(folder / "scout.dcm")
    # an enhanced CT has its positions by frame
    frames = pydicom.dcmread(middle(folder, 1))
    frames.SOPClassUID = frames.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    del frames.ImagePositionPatient, frames.ImageOrientationPatient, frames.PixelSpacing
    frames.NumberOfFrames, frames.PixelData = 2, frames.PixelData * 2
    frames.SOPInstanceUID = frames.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}1.78"
    frames.save_as(folder / "frames.dcm")
    nowhere = pydicom.dcmread(middle(folder, 1))
    del nowhere.ImagePositionPatient
    nowhere.save_as(folder / "nowhere.dcm")
    done = run(lidc, tmp_path / "raw", form="scans")
    found = skipped(done)
    assert "repeats the SOP instance" in next(v for k, v in found.items() if "SOP" in v)
    assert "(20, 20) against (40, 48)" in found["scout.dcm"]
    assert (
        "several frames" in found["frames.dcm"] and "without Image Position" in found["nowhere.dcm"]
    )
    assert len(found) == 4 and np.array_equal(arrays(done, scan_name())[0], stored(1) - 1024)
