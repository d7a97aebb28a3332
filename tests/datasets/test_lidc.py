"""LIDC-IDRI's own formats end to end: DICOM series and reader XML -> HU, geometry, labels, manifest."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.datasets.dicom import make_scan, read_header
from nnunetv2_lngswr.datasets.lidc import convert_lidc
from nnunetv2_lngswr.datasets.options import DatasetSpec, LidcOptions

pytest.importorskip("pydicom", reason="pydicom writes the DICOM files (pip install pydicom)")
from pydicom.uid import EnhancedCTImageStorage

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
    """Four readers. Nodule A (x 10..19, y 5..9): readers 1 to 3, in slices 2..4, 3..5 and 3..4. Nodule B (x 30..33, y 25..28): reader 4 in slice 7.
    Reader 2 marks a nodule under 3 mm."""
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


@pytest.fixture
def lidc(tmp_path) -> Path:
    return download(tmp_path / "LIDC-IDRI")


def series_folder(root: Path, number: int = 1) -> Path:
    return next((root / f"LIDC-IDRI-{number:04d}" / "01-01-2000-30178").iterdir())


def run(root: Path, raw: Path, **options):
    return convert_lidc(root, raw, TARGET, options=LidcOptions(**options), progress=False)


def cases(done) -> list[str]:
    return sorted(e.case for e in done.entries if e.case)


def read(done, case: str) -> tuple[sitk.Image, sitk.Image]:
    return tuple(
        sitk.ReadImage(str(done.folder / part))
        for part in (f"imagesTr/{case}_0000.nii.gz", f"labelsTr/{case}.nii.gz")
    )


def arrays(done, case: str) -> tuple[np.ndarray, np.ndarray]:
    return tuple(sitk.GetArrayFromImage(image) for image in read(done, case))


def scan_name(number: int = 1) -> str:
    return f"LIDC-IDRI-{number:04d}_{hashlib.sha256(f'{ROOT}{number}'.encode()).hexdigest()[:4]}"


def label_a_majority() -> np.ndarray:
    """At least 2 of 4 readers on nodule A."""
    votes = np.zeros(SHAPE, int)
    for zs, x0, x1 in ((slice(2, 5), 10, 19), (slice(3, 6), 10, 17), (slice(3, 5), 12, 19)):
        votes[zs, 5:10, x0 : x1 + 1] += 1
    return (votes >= 2).astype(np.uint8)


# --- scans --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number", [1, 2]
)  # instance numbers ascend, descend; file names mean nothing in both
def test_a_whole_scan_in_hounsfield_units_with_its_geometry(lidc, tmp_path, number):
    done = run(lidc, tmp_path / "raw", form="scans")
    assert cases(done) == [scan_name(n) for n in (1, 2, 3)] and done.skipped == []
    image, label = read(done, scan_name(number))
    assert image.GetPixelID() == sitk.sitkInt16
    assert np.array_equal(sitk.GetArrayFromImage(image), stored(number) - 1024)
    assert np.array_equal(sitk.GetArrayFromImage(label), label_a_majority())
    for one in (image, label):
        assert np.allclose(one.GetSpacing(), SPACING[::-1]) and np.allclose(
            one.GetOrigin(), (-100, -90, -50)
        )
        assert np.allclose(one.GetDirection(), np.eye(3).ravel())


# supine; prone; turned in the plane, which no transposed direction survives; slices that ascend against z
@pytest.mark.parametrize(
    "orientation",
    [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0), (0.8, 0.6, 0, -0.6, 0.8, 0), (1, 0, 0, 0, -1, 0)],
)
def test_itk_reads_the_same_series_and_crops_lie_in_it(tmp_path, orientation):
    folder = tmp_path / "in" / "a"
    uids = write_series(folder, stored(1), orientation=orientation)
    write_xml(folder / "a.xml", "1", [[box_nodule("N", uids, (3, 4), 28, 35, 20, 24)]])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    expected = reader.Execute()
    image, label = read(run(tmp_path / "in", tmp_path / "raw", form="scans"), scan_name())
    assert np.array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(expected))
    for what in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert np.allclose(getattr(image, what)(), getattr(expected, what)()) and np.allclose(
            getattr(label, what)(), getattr(expected, what)()
        )
    crop, _ = read(
        run(tmp_path / "in", tmp_path / "crops", form="crops", crop_mm=8), f"{scan_name()}_n1"
    )
    start = expected.TransformPhysicalPointToIndex(crop.GetOrigin())
    assert min(start) > 0 and np.allclose(
        expected.TransformIndexToPhysicalPoint(start), crop.GetOrigin(), atol=1e-3
    )
    (x, y, z), (nx, ny, nz) = start, crop.GetSize()
    part = sitk.GetArrayFromImage(expected)[z : z + nz, y : y + ny, x : x + nx]
    assert np.array_equal(sitk.GetArrayFromImage(crop), part) and np.allclose(
        crop.GetDirection(), expected.GetDirection()
    )


@pytest.mark.parametrize("slope, kind", [(2, np.int16), (0.5, np.float32)])
def test_rescaling(tmp_path, slope, kind):
    write_series(tmp_path / "s", stored(0), slope=slope, intercept=-1000)
    scan, _ = make_scan([read_header(p) for p in (tmp_path / "s").iterdir()])
    pixels = scan.hounsfield(4)
    assert pixels.dtype == kind and np.array_equal(pixels, stored(0)[4] * slope - 1000)


def test_rounded_positions_are_even_and_a_tilted_gantry_is_not(tmp_path):
    for name, options in (
        ("rounded", dict(zs_mm=np.round(np.arange(10) * 0.625, 1))),
        ("tilted", dict(shift_mm=0.4)),
    ):
        write_series(tmp_path / name, stored(0), **options)
    rounded, tilted = (
        make_scan([read_header(p) for p in (tmp_path / n).iterdir()])[0]
        for n in ("rounded", "tilted")
    )
    assert rounded.runs == [range(10)] and len(tilted.runs) == 10


# --- slices and crops ---------------------------------------------------------------------------------------------------------------


def test_slices_hold_all_nodules_of_a_slice(lidc, tmp_path):
    done = run(lidc, tmp_path / "raw", consensus="any")
    assert [c for c in cases(done) if scan_name() in c] == [
        f"{scan_name()}_z{z:03d}" for z in (2, 3, 4, 5, 7)
    ]
    image, label = arrays(done, f"{scan_name()}_z003")
    assert np.array_equal(image, stored(1)[3] - 1024)
    expected = np.zeros(SHAPE[1:], np.uint8)
    expected[5:10, 10:20] = 1
    assert np.array_equal(label, expected)
    flat = read(done, f"{scan_name()}_z003")[0]
    assert flat.GetDimension() == 2 and np.allclose(flat.GetSpacing(), (0.6, 0.7))


def test_nnunet_takes_2d_slices(lidc, tmp_path):
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    verify_dataset_integrity(str(run(lidc, tmp_path / "raw").folder), num_processes=1)


def test_a_crop_shows_its_part_of_the_scan(lidc, tmp_path):
    done = run(lidc, tmp_path / "raw", form="crops", crop_mm=15, consensus="any")
    assert [c for c in cases(done) if scan_name() in c] == [
        f"{scan_name()}_n1",
        f"{scan_name()}_n2",
    ]
    image, label = read(done, f"{scan_name()}_n2")
    # 15 mm around x 30..33, y 25..28, z 7 are 25, 21 and 6 voxels; the lower end of the box comes first
    whole = sitk.GetImageFromArray(stored(1) - 1024)
    whole.SetSpacing(SPACING[::-1])
    whole.SetOrigin((-100, -90, -50))
    start = whole.TransformPhysicalPointToIndex(image.GetOrigin())
    x, y, z = start
    assert (
        (y, y + 21) == (16, 37)
        and (x, x + 25) == (19, 44)
        and (z, z + image.GetSize()[2]) == (4, 10)
    )
    part = (slice(z, z + image.GetSize()[2]), slice(y, y + 21), slice(x, x + 25))
    assert np.array_equal(sitk.GetArrayFromImage(image), stored(1)[part] - 1024)
    expected = np.zeros(SHAPE, np.uint8)
    for zs, x1 in ((slice(2, 5), 19), (slice(5, 6), 17)):
        expected[zs, 5:10, 10 : x1 + 1] = 1
    expected[7, 25:29, 30:34] = 1
    # also what of the other nodule lies in the crop
    assert np.array_equal(sitk.GetArrayFromImage(label), expected[part])


def test_cropped_slices_share_their_nodules_window(lidc, tmp_path):
    done = run(lidc, tmp_path / "raw", crop_mm=9, consensus="any")
    names = [c for c in cases(done) if f"{scan_name()}_n1" in c]
    assert names == [f"{scan_name()}_n1_z{z:03d}" for z in (2, 3, 4, 5)]
    assert {arrays(done, c)[0].shape for c in names} == {(13, 15)}


def test_the_whole_nodule_is_in_its_crop_however_small_that_was_asked_for(lidc, tmp_path):
    done = run(lidc, tmp_path / "raw", form="crops", crop_mm=1, consensus="any")
    image, label = arrays(done, f"{scan_name()}_n1")
    assert image.shape == label.shape == (4, 5, 10)


def test_small_nodules_are_left_out_unless_asked_for(lidc, tmp_path):
    without = run(lidc, tmp_path / "raw", form="scans", consensus="any")
    _, label = arrays(without, scan_name())
    assert label[8].sum() == 0 and any(
        "1 marks of nodules under 3 mm" in e.reason
        for e in without.entries
        if e.status == "left out"
    )
    with_them = run(lidc, tmp_path / "other", form="scans", consensus="any", small=True)
    _, label = arrays(with_them, scan_name())
    z, y, x = np.nonzero(label[8:9])
    distance_mm = np.hypot((y - 30) * 0.7, (x - 5) * 0.6)
    assert distance_mm.max() <= 1.5 and len(z) == sum(
        np.hypot(0.7 * i, 0.6 * j) <= 1.5 for i in range(-3, 4) for j in range(-3, 4)
    )


def test_options_of_slices_scans_and_readers(lidc, tmp_path):
    # readers 1 to 3 outlined slices 3 and 4, one slice more reader 1 and another reader 2: 50 and 40 pixels
    few = [
        c
        for c in cases(run(lidc, tmp_path / "few", consensus="any", min_pixels=41))
        if scan_name() in c
    ]
    assert few == [f"{scan_name()}_z{z:03d}" for z in (2, 3, 4)]
    # nodule B is that of reader 4 alone, who outvotes nobody in the scan, but is all who marked it
    alone = run(lidc, tmp_path / "alone", form="scans", voters="nodule")
    assert arrays(alone, scan_name())[1][7].sum() == 16
    write_xml(series_folder(lidc, 3) / "003.xml", "3", [[], []])
    assert len(cases(run(lidc, tmp_path / "without", form="scans"))) == 2
    empty = run(lidc, tmp_path / "with", form="scans", keep_empty=True)
    assert len(cases(empty)) == 3 and not arrays(empty, scan_name(3))[1].any()
    third = run(lidc, tmp_path / "third", form="scans", consensus="one", reader=3)
    assert (
        cases(third) == [scan_name(1), scan_name(2)]
        and "reader 3 was asked for, the scan has 2" in skipped(third)["003.xml"]
    )


def test_what_readers_do_not_agree_upon_is_left_out_and_named(lidc, tmp_path):
    done = run(lidc, tmp_path / "raw", form="crops")
    assert len(cases(done)) == 3 and done.skipped == []
    assert any(
        "reader 4: 0" in e.reason and "no voxel by consensus majority" in e.reason
        for e in done.entries
    )
    one = run(lidc, tmp_path / "one", form="scans", consensus="one", reader=3)
    assert arrays(one, scan_name())[1].sum() == 2 * 5 * 8


def test_holes_are_taken_out(tmp_path):
    folder = tmp_path / "in" / "a"
    uids = write_series(folder, stored(0))
    rois = [
        (uids[4], box(5, 20, 5, 20), True),
        (uids[4], [(10, 10), (14, 10), (14, 14), (10, 14)], False),
    ]
    write_xml(folder / "a.xml", "1", [[nodule("N", rois)]])
    done = run(tmp_path / "in", tmp_path / "raw", form="scans")
    label = arrays(done, scan_name())[1][4]
    # a hole takes its edge with it: 5 x 5 pixels
    assert not label[10:15, 10:15].any() and label.sum() == 16 * 16 - 25


# --- what goes wrong ----------------------------------------------------------------------------------------------------------------


def skipped(done) -> dict[str, str]:
    return {Path(e.source).name: e.reason for e in done.skipped}


def middle(folder: Path, z: int) -> Path:
    """The file of slice z."""
    return next(p for p in folder.glob("*.dcm") if read_header(p).sop_uid.endswith(f".{z + 1}"))


def test_missing_xml_is_named_and_the_rest_converted(lidc, tmp_path, capsys):
    (series_folder(lidc, 2) / "002.xml").unlink()
    command = [
        "convert-dataset",
        "lidc",
        "-i",
        str(lidc),
        "-o",
        str(tmp_path / "raw"),
        "--form",
        "scans",
        "--folds",
        "2",
        "--disable_progress_bar",
    ]
    assert cli.main(command) == 1
    said = capsys.readouterr()
    assert (
        f"{series_folder(lidc, 2).relative_to(lidc)}: no XML annotates series {ROOT}2" in said.err
        and "2 used" in said.out
    )
    # once it is there only that scan is converted, and nothing is wrong any more
    write_xml(
        series_folder(lidc, 2) / "002.xml",
        "2",
        two_nodules([f"{ROOT}2.{z + 1}" for z in range(10)]),
    )
    assert cli.main(command) == 0
    assert "3 used" in (out := capsys.readouterr().out) and "1 units converted now, 2 before" in out


def test_xml_in_a_folder_of_its_own(lidc, tmp_path):
    apart = tmp_path / "tcia-lidc-xml" / "157"
    apart.mkdir(parents=True)
    for number in (1, 2, 3):
        shutil.move(series_folder(lidc, number) / f"{number:03d}.xml", apart)
    write_xml(apart / "xray.xml", "55", [[]], root="IdriReadMessage")
    done = convert_lidc(
        lidc,
        tmp_path / "raw",
        TARGET,
        annotations=apart.parent,
        options=LidcOptions(form="scans"),
        progress=False,
    )
    assert len(cases(done)) == 3 and done.skipped == []
    assert any(e.reason == "readings of a chest radiograph" for e in done.entries)


def test_two_series_in_a_folder(lidc, tmp_path):
    write_series(series_folder(lidc), stored(9), series="9", prefix="other")
    done = run(lidc, tmp_path / "raw", form="scans")
    assert len(cases(done)) == 3
    assert np.array_equal(arrays(done, scan_name())[0], stored(1) - 1024)
    ((name, reason),) = skipped(done).items()
    assert (
        name.startswith("other")
        and reason == f"no XML annotates series {ROOT}9; the folder also holds series {ROOT}1"
    )


def test_radiographs_are_left_out(lidc, tmp_path):
    write_series(lidc / "LIDC-IDRI-0001" / "x" / "dx", stored(9)[:1], series="8", modality="DX")
    done = run(lidc, tmp_path / "raw", form="scans")
    assert (
        len(cases(done)) == 3
        and done.skipped == []
        and any("modality DX" in e.reason for e in done.entries)
    )


def without_pixels(path: Path) -> None:
    import pydicom

    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)


@pytest.mark.parametrize("damage, said", [
    (lambda p: p.write_bytes(b"not DICOM at all"), "not readable as DICOM"),
    (lambda p: p.write_bytes(p.read_bytes()[:-1000]), "not readable as DICOM"),
    (lambda p: without_pixels(p), "DICOM"),
])  # fmt: skip
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


def test_xml_that_fits_nothing(lidc, tmp_path):
    folder = series_folder(lidc)
    (folder / "damaged.xml").write_text("<LidcReadMessage>")
    write_xml(folder / "stranger.xml", "66", [[]])
    write_xml(series_folder(lidc, 2) / "second.xml", "2", [[]])
    done = run(lidc, tmp_path / "raw", form="scans")
    found = skipped(done)
    assert (
        "not readable as XML" in found["damaged.xml"]
        and f"series {ROOT}66, which is not in this folder" in found["stranger.xml"]
    )
    assert any("several different XML files annotate series" in r for r in found.values())
    assert cases(done) == [scan_name(1), scan_name(3)]


def test_a_scan_in_two_folders_is_used_once(lidc, tmp_path):
    alone = contents(run(lidc, tmp_path / "alone").folder)
    shutil.copytree(series_folder(lidc, 1), lidc / "broken copy of 0001")
    # its slices would be counted, and named, otherwise
    middle(lidc / "broken copy of 0001", 0).unlink()
    (lidc / "broken copy of 0001").rename(lidc / "Z")
    done = run(lidc, tmp_path / "raw")
    (entry,) = done.skipped
    assert entry.source == "Z" and entry.reason.startswith(
        f"series {ROOT}1 is converted from LIDC-IDRI-0001/"
    )
    before = contents(done.folder)
    assert {n: h for n, (h, _) in before.items() if "Tr/" in n} == {
        n: h for n, (h, _) in alone.items() if "Tr/" in n
    }
    again = run(lidc, tmp_path / "raw")
    assert again.converted == 0 and contents(done.folder) == before
    # without the first it is the second's turn
    shutil.rmtree(series_folder(lidc, 1))
    last = run(lidc, tmp_path / "raw")
    assert (
        last.converted == 1 and last.skipped == [] and any(scan_name(1) in c for c in cases(last))
    )


@pytest.mark.parametrize(
    "name, found",
    [
        ("1.3.6.1.4.1.14519.5.2.1.6279.6001.77", True),
        ("IM-0001", True),
        ("1-05.DCM", True),
        ("notes.txt", False),
    ],
)
def test_dicom_files_of_any_name(lidc, tmp_path, name, found):
    file = middle(series_folder(lidc), 3)
    file.rename(file.with_name(name))
    done = run(lidc, tmp_path / "raw")
    assert (f"{scan_name()}_z004" in cases(done)) == found and bool(done.skipped) != found


def test_a_full_disk_leaves_no_torn_image(lidc, tmp_path, monkeypatch, capsys):
    """ITK writes what fits and says nothing."""
    real = sitk.WriteImage

    def full(image, path, **options):
        real(image, path, **options)
        if "0002" in path:
            Path(path).write_bytes(Path(path).read_bytes()[:500])

    monkeypatch.setattr(sitk, "WriteImage", full)
    command = [
        "convert-dataset",
        "lidc",
        "-i",
        str(lidc),
        "-o",
        str(tmp_path / "raw"),
        "--form",
        "scans",
        "--folds",
        "2",
        "--disable_progress_bar",
    ]
    assert cli.main(command) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        said.startswith("lngswr: [Errno 28] could not be written whole")
        and "the same call goes on" in said
    )
    folder = tmp_path / "raw" / "Dataset620_LIDC"
    assert [p.name for p in (folder / "imagesTr").iterdir()] == [
        f"{scan_name(1)}_0000.nii.gz"
    ] and not (folder / "manifest.json").exists()
    monkeypatch.setattr(sitk, "WriteImage", real)
    assert cli.main(command) == 0 and "2 units converted now, 1 before" in capsys.readouterr().out


# --- once more ----------------------------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(p.relative_to(folder)): (
            hashlib.sha256(p.read_bytes()).hexdigest(),
            p.stat().st_mtime_ns,
        )
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_a_second_call_reads_no_scan_and_changes_nothing(lidc, tmp_path, monkeypatch):
    first = run(lidc, tmp_path / "raw")
    before = contents(first.folder)
    monkeypatch.setattr(
        "nnunetv2_lngswr.datasets.lidc.read_header", lambda path: pytest.fail(f"read {path}")
    )
    again = run(lidc, tmp_path / "raw")
    assert (again.converted, again.kept) == (0, 3) and contents(first.folder) == before


def test_patients_stay_together_in_the_splits(lidc, tmp_path):
    done = run(lidc, tmp_path / "raw", consensus="any")
    for fold in json.loads((done.folder / "splits_final.json").read_text()):
        train, val = ({c.split("_")[0] for c in fold[part]} for part in ("train", "val"))
        assert train and val and not train & val


@pytest.mark.parametrize("options, said", [
    (dict(form="volumes"), "form must be one of slices, crops, scans"),
    (dict(consensus="most"), "consensus must be one of"),
    (dict(reader=0), "reader must be >= 1, got 0"),
    (dict(crop_mm=-1), "crop_mm must be > 0"),
    (dict(crop_mm=5, form="scans"), "whole scans are not cut"),
])  # fmt: skip
def test_bad_options(options, said):
    with pytest.raises(ValueError, match=said):
        LidcOptions(**options)


def test_a_folder_without_dicom(tmp_path, capsys):
    assert (
        cli.main(["convert-dataset", "lidc", "-i", str(tmp_path), "-o", str(tmp_path / "raw")]) == 2
    )
    assert "holds no DICOM files" in capsys.readouterr().err and list(tmp_path.iterdir()) == []
